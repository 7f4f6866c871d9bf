// An agent that stays at Genkan, which forwards all of its calls to the host, uploads as well.

import crypto from 'node:crypto'
import { test } from 'node:test'
import { assert, map, PinnedSession, service, signUp, xrpc } from './lib/stage.mjs'

test('a pinned agent writes, uploads, reads and deletes through Genkan alone', async () => {
  const { agent, did, home, calls } = await signUp('pinned', PinnedSession)

  const first = await agent.post({ text: 'through the front door' })
  const picture = crypto.randomBytes(900_000)
  const uploaded = await agent.uploadBlob(picture, { encoding: 'image/png' })
  const embed = { $type: 'app.bsky.embed.images', images: [{ alt: 'noise', image: uploaded.data.blob }] }
  const second = await agent.post({ text: 'with a picture', embed })

  const list = await agent.app.bsky.feed.post.list({ repo: did })
  assert.deepEqual(list.records.map(({ uri }) => uri).sort(), [first.uri, second.uri].sort())
  const cid = uploaded.data.blob.ref.toString()
  const blob = await agent.com.atproto.sync.getBlob({ did, cid })
  assert.ok(Buffer.from(blob.data).equals(picture), 'the picture came back unchanged')
  const blobs = await agent.com.atproto.sync.listBlobs({ did })
  assert.deepEqual(blobs.data.cids, [cid])

  const preference = { $type: 'app.bsky.actor.defs#adultContentPref', enabled: true }
  await agent.app.bsky.actor.putPreferences({ preferences: [preference] })
  const preferences = await agent.app.bsky.actor.getPreferences()
  assert.deepEqual(preferences.data.preferences, [preference])

  await agent.com.atproto.repo.applyWrites({
    repo: did,
    writes: [
      {
        $type: 'com.atproto.repo.applyWrites#create',
        collection: 'app.bsky.feed.post',
        value: { $type: 'app.bsky.feed.post', text: 'third', createdAt: new Date().toISOString() },
      },
    ],
  })
  await agent.deletePost(first.uri)
  const after = await agent.app.bsky.feed.post.list({ repo: did })
  assert.equal(after.records.length, 2)
  assert.ok(after.records.every(({ uri }) => uri !== first.uri))

  const commit = await agent.com.atproto.sync.getLatestCommit({ did })
  const atHost = await xrpc(home.url, 'com.atproto.sync.getLatestCommit', { query: { did } })
  assert.deepEqual(commit.data, atHost.body)
  assert.ok(calls.length > 9)
  assert.ok(calls.every(({ origin, status }) => origin === service && status === 200), JSON.stringify(calls))
})

test('a call for an app view reaches it with a token signed by the account', async () => {
  const { session, did } = await signUp('proxy', PinnedSession)
  const token = session.session.accessJwt
  const headers = { 'atproto-proxy': map.appview.service, 'atproto-accept-labelers': 'did:web:labeler.example.com' }
  const query = { actor: did }
  const answer = await xrpc(service, 'app.bsky.actor.getProfile', { token, headers, query })
  assert.equal(answer.status, 200, JSON.stringify(answer.body))
  const echo = answer.body
  assert.equal(echo.lxm, 'app.bsky.actor.getProfile')
  assert.deepEqual(echo.query, query)
  assert.equal(echo.headers['atproto-accept-labelers'], 'did:web:labeler.example.com')
  assert.equal(echo.token.payload.iss, did)
  assert.equal(echo.token.payload.aud.split('#')[0], map.appview.did)
  assert.equal(echo.token.payload.lxm, 'app.bsky.actor.getProfile')
  assert.equal(echo.token.verified, true)
})

test('a service token for another server comes from the host and is good', async () => {
  const { agent, did } = await signUp('svcauth', PinnedSession)
  const lxm = 'app.bsky.feed.getTimeline'
  const { data } = await agent.com.atproto.server.getServiceAuth({ aud: map.appview.did, lxm })
  const answer = await xrpc(map.appview.url, lxm, { token: data.token })
  assert.equal(answer.body.token.verified, true)
  assert.equal(answer.body.token.payload.iss, did)
})
