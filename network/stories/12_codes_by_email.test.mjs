// Codes by email, which people use through the published client, at Genkan and at their host.

import { test } from 'node:test'
import { Agent, AtpAgent } from '@atproto/api'
import { assert, eventually, map, PinnedSession, service, signUp, xrpc } from './lib/stage.mjs'

const origins = (home) => [service, home.url]

/** The code of the newest email to an address, once it is another than the one before. */
async function codeFor(email, before) {
  return eventually(`an email to ${email}`, async () => {
    const emails = await fetch(`${map.mail.url}/messages?to=${encodeURIComponent(email)}`).then((a) => a.json())
    const code = /^\s*([A-Z2-7]{5}-[A-Z2-7]{5})\s*$/m.exec(emails.at(-1)?.text ?? '')?.[1]
    return code !== before && code
  })
}

/** The published client, signed in and pinned to one origin. */
async function agentAt(origin, { handle }, password) {
  const session = new PinnedSession(new URL(origin))
  await session.login({ identifier: handle, password })
  return new Agent(session)
}

test('an address is confirmed at Genkan or at the host, and then changed with a code', async () => {
  for (const at of [0, 1]) {
    const person = await signUp('confirm')
    const agent = await agentAt(origins(person.home)[at], person, person.password)
    await agent.com.atproto.server.requestEmailConfirmation()
    const code = await codeFor(person.email)
    await assert.rejects(
      agent.com.atproto.server.confirmEmail({ email: person.email, token: 'AAAAA-AAAAA' }),
      ({ status, error }) => status === 400 && error === 'InvalidToken',
    )
    await agent.com.atproto.server.confirmEmail({ email: person.email, token: code })
    for (const origin of origins(person.home)) {
      const { body } = await xrpc(origin, 'com.atproto.server.getSession', {
        token: agent.sessionManager.session.accessJwt,
      })
      assert.equal(body.emailConfirmed, true)
    }

    const { data } = await agent.com.atproto.server.requestEmailUpdate()
    assert.deepEqual(data, { tokenRequired: true })
    const email = `new-${person.email}`
    await assert.rejects(agent.com.atproto.server.updateEmail({ email }), ({ error }) => error === 'TokenRequired')
    await agent.com.atproto.server.updateEmail({ email, token: await codeFor(person.email, code) })
    const { data: session } = await agent.com.atproto.server.getSession()
    assert.equal(session.email, email)
    assert.equal(session.emailConfirmed, false)
  }
})

test('a lost password is reset at Genkan or at the host, and every session ends', async () => {
  for (const at of [0, 1]) {
    const person = await signUp('reset')
    const agent = new AtpAgent({ service: origins(person.home)[at] })
    await agent.com.atproto.server.requestPasswordReset({ email: person.email })
    const token = await codeFor(person.email)
    const password = `${person.password}-and-more`
    await agent.com.atproto.server.resetPassword({ token, password })
    for (const origin of origins(person.home)) {
      const old = await xrpc(origin, 'com.atproto.server.createSession', {
        body: { identifier: person.handle, password: person.password },
      })
      assert.equal(old.status, 401)
      const ended = await xrpc(origin, 'com.atproto.server.refreshSession', {
        method: 'POST',
        token: person.session.session.refreshJwt,
      })
      assert.equal(ended.body.error, 'ExpiredToken', JSON.stringify(ended.body))
      await agentAt(origin, person, password)
      const again = await xrpc(origin, 'com.atproto.server.resetPassword', { body: { token, password } })
      assert.equal(again.body.error, 'InvalidToken', JSON.stringify(again.body))
    }
  }
})

test('a password reset does not reveal whether an address is known', async () => {
  const person = await signUp('known')
  for (const origin of origins(person.home)) {
    const answers = []
    for (const email of [person.email, `nobody-${person.email}`]) {
      const { status, body } = await xrpc(origin, 'com.atproto.server.requestPasswordReset', { body: { email } })
      answers.push([status, body.toString()])
    }
    assert.equal(answers[0][0], 200)
    assert.deepEqual(answers[0], answers[1])
  }
})

test('the directory accepts an operation that was signed with a code', async () => {
  const person = await signUp('sign')
  const { agent } = person
  await agent.com.atproto.identity.requestPlcOperationSignature()
  const token = await codeFor(person.email)
  const { data } = await agent.com.atproto.identity.getRecommendedDidCredentials()
  const signed = await agent.com.atproto.identity.signPlcOperation({ token, ...data })
  await agent.com.atproto.identity.submitPlcOperation({ operation: signed.data.operation })
})

test('an account is deleted by password and code', async () => {
  for (const at of [0, 1]) {
    const person = await signUp('delete')
    const origin = origins(person.home)[at]
    const agent = await agentAt(origin, person, person.password)
    await agent.com.atproto.server.requestAccountDelete()
    const token = await codeFor(person.email)
    await agent.com.atproto.server.deleteAccount({ did: person.did, password: person.password, token })
    const status = await xrpc(person.home.url, 'com.atproto.sync.getRepoStatus', { query: { did: person.did } })
    assert.equal(status.status, 400, JSON.stringify(status.body))
  }
})
