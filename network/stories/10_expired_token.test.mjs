// An access token expires, and the agent refreshes by itself. (Access tokens of this network live
// for one minute.)

import { test } from 'node:test'
import { assert, claims, eventually, PinnedSession, service, signUp, xrpc } from './lib/stage.mjs'

test('an expired access token makes the agent refresh by itself', async () => {
  const people = [await signUp('expire'), await signUp('expire', PinnedSession)]
  const doorOf = ({ session, home }) => (session instanceof PinnedSession ? service : home.url)
  for (const person of people) {
    const token = person.session.session.accessJwt
    const untilExpired = claims(token).exp * 1000 - Date.now()
    assert.ok(untilExpired < 70_000, 'the network was started with GENKAN_ACCESS_LIFETIME=1m')
    const isExpired = async () => {
      const { body } = await xrpc(doorOf(person), 'com.atproto.server.getSession', { token })
      return body.error === 'ExpiredToken'
    }
    await eventually('the access token expires', isExpired, Math.max(0, untilExpired) + 10_000)
  }

  for (const person of people) {
    const { agent, calls } = person
    const at = doorOf(person)
    calls.length = 0
    await agent.post({ text: 'a minute later' })
    assert.deepEqual(calls, [
      { origin: at, nsid: 'com.atproto.repo.createRecord', status: 400 },
      { origin: service, nsid: 'com.atproto.server.refreshSession', status: 200 },
      { origin: at, nsid: 'com.atproto.repo.createRecord', status: 200 },
    ])
  }
})
