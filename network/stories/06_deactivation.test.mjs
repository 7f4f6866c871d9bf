// An account that is deactivated and activated again, at Genkan and at the host.

import { test } from 'node:test'
import { assert, map, post, service, signUp, xrpc } from './lib/stage.mjs'

for (const asked of ['Genkan', 'the host']) {
  test(`an account is deactivated and activated at ${asked}`, async () => {
    const person = await signUp('pause')
    const { did, home, password, handle, session } = person
    const origin = asked === 'Genkan' ? service : home.url
    const token = session.session.accessJwt
    await person.agent.post({ text: 'before' })

    const off = await xrpc(origin, 'com.atproto.server.deactivateAccount', { token, body: {} })
    assert.equal(off.status, 200, JSON.stringify(off.body))
    for (const seenAt of [service, home.url]) {
      const seen = await xrpc(seenAt, 'com.atproto.server.getSession', { token })
      assert.deepEqual([seen.body.active, seen.body.status], [false, 'deactivated'], seenAt)
      const status = await xrpc(seenAt, 'com.atproto.sync.getRepoStatus', { query: { did } })
      assert.deepEqual([status.body.active, status.body.status], [false, 'deactivated'], seenAt)
      const read = await xrpc(seenAt, 'com.atproto.sync.getRepo', { query: { did } })
      assert.equal(read.body.error, 'RepoDeactivated', seenAt)
    }
    const opened = await xrpc(service, 'com.atproto.server.createSession', { body: { identifier: handle, password } })
    assert.deepEqual([opened.body.active, opened.body.status], [false, 'deactivated'])
    const exported = await xrpc(service, 'com.atproto.sync.getRepo', { token, query: { did } })
    assert.equal(exported.status, 200, 'people can export a deactivated account')

    const on = await post(origin, 'com.atproto.server.activateAccount', token)
    assert.equal(on.status, 200, JSON.stringify(on.body))
    for (const seenAt of [service, home.url]) {
      const seen = await xrpc(seenAt, 'com.atproto.server.getSession', { token })
      assert.deepEqual([seen.body.active, seen.body.status], [true, undefined], seenAt)
      const read = await xrpc(seenAt, 'com.atproto.sync.getRepo', { query: { did } })
      assert.equal(read.status, 200, seenAt)
    }
    await person.agent.post({ text: 'after' })
  })
}

test('reads of unknown accounts say what is wrong', async () => {
  for (const [repo, status, error] of [
    // The directory does not know this DID. The handle is in Genkan's own domain, and no account
    // has it.
    ['did:plc:aaaaaaaaaaaaaaaaaaaaaaaa', 502, 'DidResolutionFailed'],
    [`nobody-at-all${map.genkan.handleDomain}`, 400, 'RepoNotFound'],
  ]) {
    const answer = await xrpc(service, 'com.atproto.repo.describeRepo', { query: { repo } })
    assert.deepEqual([answer.status, answer.body.error], [status, error], repo)
  }
  assert.equal(map.genkan.url, service)
})
