// Large bodies pass through Genkan without filling its memory.

import crypto from 'node:crypto'
import fs from 'node:fs'
import { test } from 'node:test'
import { assert, map, PinnedSession, service, signUp } from './lib/stage.mjs'

const MIB = 1024 * 1024
const SIZE = 64 * MIB

/** Returns by how many MiB Genkan's resident memory rose, at most, while `work` ran. */
async function rise(work) {
  const members = await fetch(`${map.control.url}/members`).then((answer) => answer.json())
  const { pid } = members.find(({ name }) => name === 'genkan')
  const resident = () => Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024
  const before = resident()
  let most = before
  const watch = setInterval(() => (most = Math.max(most, resident())), 10)
  try {
    await work()
  } finally {
    clearInterval(watch)
  }
  return Math.max(most, resident()) - before
}

async function upload({ session }, bytes) {
  const answer = await fetch(`${service}/xrpc/com.atproto.repo.uploadBlob`, {
    method: 'POST',
    headers: { authorization: `Bearer ${session.session.accessJwt}`, 'content-type': 'application/octet-stream' },
    body: bytes,
  })
  const told = await answer.json()
  assert.equal(answer.status, 200, JSON.stringify(told))
  return told.blob
}

async function download({ did }, blob, expected) {
  const url = `${service}/xrpc/com.atproto.sync.getBlob?did=${did}&cid=${blob.ref.$link}`
  const answer = await fetch(url)
  assert.equal(answer.status, 200)
  const hash = crypto.createHash('sha256')
  for await (const chunk of answer.body) hash.update(chunk)
  assert.equal(hash.digest('hex'), expected)
}

test('a blob of 64 MiB raises resident memory by less than 8 MiB, 16 at once by less than 16 MiB', async (context) => {
  const person = await signUp('large', PinnedSession)
  const bytes = crypto.randomBytes(SIZE)
  const expected = crypto.createHash('sha256').update(bytes).digest('hex')
  // The first request opens connections and fills pools, which is no part of the rise.
  await upload(person, crypto.randomBytes(MIB))

  let blob
  const up = await rise(async () => (blob = await upload(person, bytes)))
  // A blob is public only once a record names it.
  await person.agent.com.atproto.repo.createRecord({
    repo: person.did,
    collection: 'com.example.file',
    record: { $type: 'com.example.file', file: blob },
    validate: false,
  })
  const down = await rise(() => download(person, blob, expected))
  const many = Array.from({ length: 16 })
  const upMany = await rise(() => Promise.all(many.map(() => upload(person, bytes))))
  const downMany = await rise(() => Promise.all(many.map(() => download(person, blob, expected))))
  context.diagnostic(`MiB: up ${up.toFixed(1)}, down ${down.toFixed(1)}, 16 up ${upMany.toFixed(1)}, 16 down ${downMany.toFixed(1)}`)
  assert.ok(up < 8, `one up: ${up} MiB`)
  assert.ok(down < 8, `one down: ${down} MiB`)
  assert.ok(upMany < 16, `16 up: ${upMany} MiB`)
  assert.ok(downMany < 16, `16 down: ${downMany} MiB`)
})
