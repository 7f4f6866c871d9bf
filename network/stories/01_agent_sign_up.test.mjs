// The published agent signs up at Genkan, and by itself goes straight to the account's host for
// everything else.

import { test } from 'node:test'
import { AtpAgent } from '@atproto/api'
import { assert, directory, map, newName, notingFetch, service, signUp, xrpc } from './lib/stage.mjs'

test('an agent signs up at Genkan, is switched to its host, posts there, and Genkan shows the post', async () => {
  const { agent, session, did, handle, home, created, calls } = await signUp('agent')
  assert.equal(session.dispatchUrl.origin, home.url, 'the agent went to the host that the DID document names')
  assert.equal(created.didDoc.id, did)

  const { uri, cid } = await agent.post({ text: 'straight to the host' })
  const byOrigin = calls.map(({ origin, nsid }) => `${origin} ${nsid}`)
  assert.deepEqual(byOrigin, [
    `${service} com.atproto.server.createAccount`,
    `${home.url} com.atproto.repo.createRecord`,
  ])

  const rkey = uri.split('/').at(-1)
  for (const repo of [did, handle]) {
    const query = { repo, collection: 'app.bsky.feed.post', rkey }
    const read = await xrpc(service, 'com.atproto.repo.getRecord', { query })
    assert.equal(read.status, 200)
    assert.equal(read.body.cid, cid)
    assert.equal(read.body.value.text, 'straight to the host')
  }
  const atHost = await xrpc(home.url, 'com.atproto.sync.getRepo', { query: { did } })
  const atGenkan = await xrpc(service, 'com.atproto.sync.getRepo', { query: { did } })
  assert.equal(atGenkan.status, 200)
  assert.equal(atGenkan.headers.get('content-type'), 'application/vnd.ipld.car')
  assert.ok(atGenkan.body.equals(atHost.body), 'the repository is the same, byte for byte')
})

test('the directory has what the host and Genkan agreed on', async () => {
  const { did, handle, home } = await signUp('plc')
  const data = await directory(did)
  assert.deepEqual(data.alsoKnownAs, [`at://${handle}`])
  assert.deepEqual(data.services.atproto_pds, { type: 'AtprotoPersonalDataServer', endpoint: home.url })
  assert.match(data.verificationMethods.atproto, /^did:key:zQ3/)
  assert.ok(data.rotationKeys.length >= 1)
})

test('signing in by handle, e-mail or DID leads to the same host', async () => {
  const { did, handle, email, password, home } = await signUp('login')
  for (const identifier of [handle, handle.toUpperCase(), email, email.toUpperCase(), did]) {
    const { calls, fetch } = notingFetch()
    const agent = new AtpAgent({ service, fetch })
    await agent.login({ identifier, password })
    assert.equal(agent.did, did)
    assert.equal(agent.dispatchUrl.origin, home.url)
    await agent.com.atproto.repo.listRecords({ repo: did, collection: 'app.bsky.feed.post' })
    assert.equal(calls.at(-1).origin, home.url)
  }
})

test('an impossible sign-up is refused with the error name and message that clients know', async () => {
  const taken = await signUp('taken')
  const form = { handle: `${newName('free')}.test`, email: 'other@example.com', password: 'long enough for all' }
  const refusals = [
    [{ handle: taken.handle }, 'HandleNotAvailable', /^Handle already taken/],
    [{ email: taken.email }, 'InvalidRequest', /email address is already in use/],
    [{ handle: 'a.b.test' }, 'InvalidHandle', /^Invalid characters in handle/],
    [{ handle: 'not a handle' }, 'InvalidHandle', /must be a valid handle$/],
    [{ handle: 'someone.example.com' }, 'UnsupportedDomain', /^Not a supported handle domain/],
  ]
  for (const [input, error, message] of refusals) {
    const answer = await xrpc(service, 'com.atproto.server.createAccount', { body: { ...form, ...input } })
    assert.deepEqual([answer.status, answer.body.error], [400, error], JSON.stringify(answer.body))
    assert.match(answer.body.message, message)
  }
})

test('Genkan describes itself', async () => {
  const { body, status } = await xrpc(service, 'com.atproto.server.describeServer')
  assert.equal(status, 200)
  assert.equal(body.did, map.genkan.did)
  assert.deepEqual(body.availableUserDomains, ['.test'])
  const document = await fetch(`${service}/.well-known/did.json`).then((answer) => answer.json())
  assert.equal(document.id, map.genkan.did)
})
