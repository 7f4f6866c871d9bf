// The published PLC directory, in memory or kept in a file.
//
// Configuration: {port, file?}. With a file, every accepted operation is appended to it as a line
// of JSON before the operation is acknowledged, and read back at the next start. So the directory
// can be killed at any moment.
//
// It has made-up documents as well: a giant one for each DID that begins with `did:plc:giant`, a small
// one for `did:plc:small`, and one with a PDS that no other DID has for `did:plc:other`. There is none
// for `did:plc:forge`.
//   GET /made-up   returns {giant, small, other, forge}: how often each kind was asked for

import fs from 'node:fs'
import { createRequire } from 'node:module'
import { MockDatabase, PlcServer } from '@did-plc/server'
import { giantDocument } from './lib/giant.mjs'
import { member } from './lib/member.mjs'

// The directory's own copy of the class: it compares CIDs, and those of another copy would differ.
const require = createRequire(createRequire(import.meta.url).resolve('@did-plc/server'))
const { CID } = require('multiformats/cid')

class Directory extends MockDatabase {
  #file
  #turns = new Map()

  constructor(file) {
    super()
    this.#file = file
    if (file && fs.existsSync(file)) this.#load(fs.readFileSync(file, 'utf8'))
  }

  /**
   * Takes one operation per DID at a time, so that of two with the same `prev` only one is
   * accepted.
   */
  async validateAndAddOp(did, operation) {
    const before = this.#turns.get(did) ?? Promise.resolve()
    const turn = before.catch(() => {}).then(() => this.#add(did, operation))
    this.#turns.set(did, turn)
    try {
      await turn
    } finally {
      if (this.#turns.get(did) === turn) this.#turns.delete(did)
    }
  }

  /**
   * Returns operations, oldest first, as the public directory does. The package's in-memory
   * database lacks this.
   */
  async exportOps(count, after) {
    return Object.values(this.contents)
      .flat()
      .filter((op) => !after || op.createdAt > after)
      .sort((a, b) => a.createdAt - b.createdAt)
      .slice(0, count)
      .map((op) => ({ ...op, cid: op.cid.toString(), createdAt: op.createdAt.toISOString() }))
  }

  async #add(did, operation) {
    const nullifiedBefore = nullifiedCids(this.contents[did])
    await super.validateAndAddOp(did, operation)
    if (!this.#file) return
    const { cid, createdAt } = this.contents[did].at(-1)
    const nullifies = nullifiedCids(this.contents[did]).filter((cid) => !nullifiedBefore.includes(cid))
    const line = JSON.stringify({ did, cid: cid.toString(), createdAt, nullifies, operation })
    fs.appendFileSync(this.#file, line + '\n')
  }

  #load(text) {
    for (const line of text.split('\n')) {
      let entry
      try {
        entry = JSON.parse(line)
      } catch {
        continue // The line is empty, or a kill cut it short. Such an operation was never acknowledged.
      }
      const { did, cid, createdAt, nullifies, operation } = entry
      const log = (this.contents[did] ??= [])
      for (const op of log) if (nullifies.includes(op.cid.toString())) op.nullified = true
      log.push({ did, operation, cid: CID.parse(cid), nullified: false, createdAt: new Date(createdAt) })
    }
  }
}

const asked = { giant: 0, small: 0, other: 0, forge: 0 }

function nullifiedCids(log = []) {
  return log.filter((op) => op.nullified).map((op) => op.cid.toString())
}

/** Returns the made-up document that a path asks for, if it asks for one. */
function madeUp(path) {
  if (path === '/made-up') return JSON.stringify(asked)
  const [, did, kind, rest] = /^\/(did:plc:(giant|small|other|forge)([a-z2-7]{19}))(\/.*)?$/.exec(decodeURIComponent(path)) ?? []
  if (!did) return null
  asked[kind]++
  if (kind === 'forge') return null
  const serviceEndpoint = kind === 'other' ? `https://${rest}.example.com` : 'http://localhost:1'
  const service = [{ id: '#atproto_pds', type: 'AtprotoPersonalDataServer', serviceEndpoint }]
  return kind === 'giant' ? giantDocument(did, service) : JSON.stringify({ id: did, service })
}

await member(async ({ port, file }) => {
  const server = PlcServer.create({ db: new Directory(file), port, version: '0.0.1' })
  const listening = await server.start()
  const others = listening.listeners('request')
  listening.removeAllListeners('request')
  listening.on('request', (request, response) => {
    const document = madeUp(request.url)
    if (document) return response.writeHead(200, { 'content-type': 'application/did+ld+json' }).end(document)
    for (const other of others) other.call(listening, request, response)
  })
  return { ready: { url: `http://localhost:${port}` }, stop: () => server.destroy() }
})
