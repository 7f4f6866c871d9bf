// The published client @atproto/lex-password-session.

import { test } from 'node:test'
import { PasswordSession } from '@atproto/lex-password-session'
import { assert, homeOf, map, newName, notingFetch, service, xrpc } from './lib/stage.mjs'

test('a password session signs up, works at the host, refreshes, and signs out', async () => {
  const name = newName('lex')
  const person = { handle: name + map.genkan.handleDomain, email: `${name}@example.com`, password: 'long enough for all' }
  const { calls, fetch } = notingFetch()
  const created = await PasswordSession.createAccount(person, { service, fetch })
  const home = await homeOf(created.did)

  const seen = await created.fetchHandler('/xrpc/com.atproto.server.getSession', { method: 'GET' })
  assert.equal(seen.status, 200)
  assert.equal((await seen.json()).handle, person.handle)
  assert.deepEqual(calls.at(-1), { origin: home.url, nsid: 'com.atproto.server.getSession', status: 200 })

  const before = created.session.refreshJwt
  await created.refresh()
  assert.notEqual(created.session.refreshJwt, before)
  assert.equal(calls.findLast(({ nsid }) => nsid.endsWith('refreshSession')).origin, service)

  const { session } = created
  await created.logout()
  assert.ok(created.destroyed)
  const over = await xrpc(service, 'com.atproto.server.refreshSession', { method: 'POST', token: session.refreshJwt })
  assert.equal(over.body.error, 'ExpiredToken')

  const again = await PasswordSession.login({ service, identifier: person.email, password: person.password, fetch })
  assert.equal(again.did, session.did)
  const resumed = await PasswordSession.resume(again.session, { fetch })
  assert.equal(resumed.handle, person.handle)
  await PasswordSession.delete(resumed.session)
})
