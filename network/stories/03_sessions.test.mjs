// Sessions of home accounts, asked of Genkan and of the host.

import { test } from 'node:test'
import { assert, claims, map, post, service, signUp, xrpc } from './lib/stage.mjs'

const origins = (home) => [service, home.url]

test('the session is the same at Genkan and at the host', async () => {
  const { session, did, handle, email, home } = await signUp('same')
  const token = session.session.accessJwt
  const [atGenkan, atHost] = await Promise.all(
    origins(home).map((origin) => xrpc(origin, 'com.atproto.server.getSession', { token })),
  )
  assert.equal(atGenkan.status, 200, JSON.stringify(atGenkan.body))
  assert.equal(atHost.status, 200, JSON.stringify(atHost.body))
  assert.deepEqual(atHost.body, atGenkan.body)
  const { didDoc, ...rest } = atGenkan.body
  assert.deepEqual(rest, { did, handle, email, emailConfirmed: false, emailAuthFactor: false, active: true })
  assert.equal(didDoc.service[0].serviceEndpoint, home.url)
})

test('tokens are what hosts and clients expect', async () => {
  const { session, did, home } = await signUp('tokens')
  const access = claims(session.session.accessJwt)
  assert.equal(access.aud, home.did)
  assert.equal(access.sub, did)
  assert.equal(access.scope, 'com.atproto.access')
  const refresh = claims(session.session.refreshJwt)
  assert.equal(refresh.aud, map.genkan.did)
  assert.equal(refresh.scope, 'com.atproto.refresh')
  assert.ok(refresh.jti)
  assert.ok(refresh.exp > access.exp)
})

test('signing in, refreshing and signing out work at Genkan and at the host', async () => {
  const { handle, password, did, home } = await signUp('origins')
  for (const open of origins(home)) {
    for (const renew of origins(home)) {
      for (const close of origins(home)) {
        const opened = await xrpc(open, 'com.atproto.server.createSession', { body: { identifier: handle, password } })
        assert.equal(opened.status, 200, JSON.stringify(opened.body))
        assert.equal(opened.body.did, did)
        const renewed = await post(renew, 'com.atproto.server.refreshSession', opened.body.refreshJwt)
        assert.equal(renewed.status, 200, JSON.stringify(renewed.body))
        assert.equal(renewed.body.emailConfirmed, false)
        assert.equal(renewed.body.didDoc.id, did)
        for (const origin of origins(home)) {
          const seen = await xrpc(origin, 'com.atproto.server.getSession', { token: renewed.body.accessJwt })
          assert.equal(seen.status, 200)
        }
        const closed = await post(close, 'com.atproto.server.deleteSession', renewed.body.refreshJwt)
        assert.equal(closed.status, 200, JSON.stringify(closed.body))
        for (const origin of origins(home)) {
          const over = await post(origin, 'com.atproto.server.refreshSession', renewed.body.refreshJwt)
          assert.equal(over.status, 400, JSON.stringify(over.body))
          assert.equal(over.body.error, 'ExpiredToken')
        }
      }
    }
  }
})

test('a used refresh token leads to the same successor, at Genkan and at the host', async () => {
  const { session, home } = await signUp('grace')
  const used = session.session.refreshJwt
  const successors = []
  for (const origin of [...origins(home), ...origins(home)]) {
    const { status, body } = await post(origin, 'com.atproto.server.refreshSession', used)
    assert.equal(status, 200, JSON.stringify(body))
    successors.push(claims(body.refreshJwt).jti)
  }
  assert.equal(new Set(successors).size, 1)
  assert.notEqual(successors[0], claims(used).jti)
})

test('a wrong password and an unknown handle get the same error', async () => {
  const { handle, home } = await signUp('wrong')
  for (const origin of origins(home)) {
    for (const identifier of [handle, 'nobody-at-all.test']) {
      const body = { identifier, password: 'not the password' }
      const answer = await xrpc(origin, 'com.atproto.server.createSession', { body })
      assert.equal(answer.status, 401, JSON.stringify(answer.body))
      assert.equal(answer.body.error, 'AuthenticationRequired')
    }
  }
})

test('tokens in the wrong place are refused with the names clients know', async () => {
  const { session, home } = await signUp('misuse')
  const { accessJwt, refreshJwt } = session.session
  const garbled = `${accessJwt.slice(0, -8)}AAAAAAAA`
  for (const origin of origins(home)) {
    for (const token of [refreshJwt, garbled, 'not.a.token']) {
      const answer = await xrpc(origin, 'com.atproto.server.getSession', { token })
      assert.equal(answer.status, 400, `${origin}: ${JSON.stringify(answer.body)}`)
      assert.equal(answer.body.error, 'InvalidToken')
    }
    const renewed = await post(origin, 'com.atproto.server.refreshSession', accessJwt)
    assert.equal(renewed.status, 400)
    assert.equal(renewed.body.error, 'InvalidToken')
    const without = await xrpc(origin, 'com.atproto.server.getSession')
    assert.equal(without.status, 401)
    assert.equal(without.body.error, 'AuthMissing')
  }
})
