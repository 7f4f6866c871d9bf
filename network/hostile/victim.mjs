// A person who posts, refreshes a session, makes linked calls, reads their own posts and signs in: `node hostile/victim.mjs
// <world.json>`. Each of the five goes on by itself, from an address of its own.
//
// A line `begin` on standard input starts a measurement, and `end` ends it and prints a line
// {createRecord: {calls, failures: [...], p50, p99}, refreshSession: …, linked: …, ownReads: …, signIn: …}, in
// milliseconds. A call fails if its answer is not 200 or takes over 30 s. A linked call that is 401
// fails as well, unless its access token was about to expire.

import fs from 'node:fs'
import readline from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { OAuthApp } from '../soak/oauth-app.mjs'
import { agentFrom, fetchFrom, xrpc } from './tools.mjs'

/**
 * In milliseconds. An external PDS allows Genkan 10 calls per second, which the victim shares with
 * three accounts of the attacker. Genkan allows 50 sign-ins in 15 minutes.
 */
const PAUSES = { createRecord: 150, refreshSession: 150, linked: 600, ownReads: 1000, signIn: 20_000 }
/** Genkan's access tokens live for 5 minutes. An app refreshes those that are older than this. */
const OLD = 270_000
const { service, victim, victimLinked } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
fetchFrom('127.0.0.12')
const record = () => ({ $type: 'app.bsky.feed.post', text: 'as every day', createdAt: new Date().toISOString() })
const body = (repo) => ({ repo, collection: 'app.bsky.feed.post', record: record() })
const app = await OAuthApp.restore(victimLinked.app)
app.tokens.access_token = victimLinked.app.access
let { accessJwt, refreshJwt } = victim
/** When the app got its token. That of the preparation may be old. */
let tokenSince = 0
let linkedCalls = 0
let reads = 0

const [posting, refreshing, signingIn, reading] = ['127.0.0.10', '127.0.0.11', '127.0.0.13', '127.0.0.14'].map((address) => agentFrom(address))
/** Three calls with the account's credential and a read of its own repository. Genkan allows fewer writes. */
const LINKED = [
  () => app.call('com.atproto.repo.createRecord', { body: body(victimLinked.did) }),
  () => app.call('com.atproto.repo.listMissingBlobs', { query: { limit: 5 } }),
  () => app.call('com.atproto.sync.getLatestCommit', { query: { did: victimLinked.did } }),
  () => app.call('com.atproto.repo.listMissingBlobs', { query: { limit: 5 } }),
]
const calls = {
  createRecord: () => xrpc(posting, service, 'com.atproto.repo.createRecord', { token: accessJwt, body: body(victim.did) }),
  refreshSession: async () => {
    const answer = await xrpc(refreshing, service, 'com.atproto.server.refreshSession', { method: 'POST', token: refreshJwt })
    if (answer.status === 200) ({ accessJwt, refreshJwt } = JSON.parse(answer.text))
    return answer
  },
  signIn: () => xrpc(signingIn, service, 'com.atproto.server.createSession', { body: { identifier: victim.handle, password: victim.password } }),
  // Anybody may make these, so Genkan does not look at the token.
  ownReads: async () => {
    const query = (repo) => ({ repo, collection: 'app.bsky.feed.post', limit: 5 })
    if (reads++ % 2) return xrpc(reading, service, 'com.atproto.repo.listRecords', { token: accessJwt, query: query(victim.did) })
    const answer = await app.call('com.atproto.repo.listRecords', { query: query(victimLinked.did) }).catch((error) => ({ status: 0, body: String(error) }))
    return { status: answer.status, text: `linked: ${JSON.stringify(answer.body)}` }
  },
  linked: async () => {
    const once = () =>
      LINKED[linkedCalls++ % LINKED.length]().catch((error) => ({ status: 0, body: String(error) }))
    let answer = await once()
    // An app refreshes when its access token has expired.
    if (answer.status === 401 && Date.now() - tokenSince > OLD) {
      answer = await app.refresh().then(once, (error) => ({ status: 401, body: String(error) }))
      tokenSince = Date.now()
    }
    return { status: answer.status, text: JSON.stringify(answer.body) }
  },
}

let measured = null
/** The calls that run now, each with the measurement that it began in. */
const running = new Map()
for (const [name, call] of Object.entries(calls)) {
  const forever = async () => {
    for (;;) {
      const into = measured
      running.set(name, into)
      const began = performance.now()
      const { status, text } = await call()
      const took = performance.now() - began
      running.delete(name)
      if (into) {
        into[name].took.push(took)
        if (status !== 200) into[name].failures.push(`${status} after ${Math.round(took)} ms: ${text.slice(0, 200)}`)
      }
      await sleep(PAUSES[name])
    }
  }
  forever()
}

function figures({ took, failures }) {
  took.sort((a, b) => a - b)
  const at = (share) => took[Math.min(took.length - 1, Math.floor(took.length * share))] ?? null
  return { calls: took.length, failures, p50: at(0.5), p99: at(0.99) }
}

const lines = readline.createInterface({ input: process.stdin })
lines.on('line', async (line) => {
  if (line === 'begin') measured = Object.fromEntries(Object.keys(calls).map((name) => [name, { took: [], failures: [] }]))
  if (line === 'end') {
    const all = measured
    measured = null
    // A call that began in the measurement is a part of it, even if it hangs.
    while ([...running.values()].includes(all)) await sleep(20)
    console.log(JSON.stringify(Object.fromEntries(Object.entries(all).map(([name, what]) => [name, figures(what)]))))
  }
})
lines.once('close', () => process.exit(0))
console.log(JSON.stringify({ ready: true }))
