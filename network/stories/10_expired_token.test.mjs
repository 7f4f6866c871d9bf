// An access token runs out, and nobody notices: the agent refreshes by itself. (The network's tokens last a minute.)

import { test } from 'node:test'
import { assert, claims, PinnedSession, service, signUp, sleep } from './lib/stage.mjs'

test('an expired access token makes the agent refresh by itself', async () => {
  const people = [await signUp('expire'), await signUp('expire', PinnedSession)]
  const { exp } = claims(people[1].session.session.accessJwt)
  const rest = exp * 1000 - Date.now()
  assert.ok(rest < 70_000, 'the network was started with GENKAN_ACCESS_LIFETIME=1m')
  await sleep(rest + 1500)

  for (const { agent, session, calls, home } of people) {
    const at = session instanceof PinnedSession ? service : home.url
    calls.length = 0
    await agent.post({ text: 'a minute later' })
    assert.deepEqual(calls, [
      { origin: at, nsid: 'com.atproto.repo.createRecord', status: 400 },
      { origin: service, nsid: 'com.atproto.server.refreshSession', status: 200 },
      { origin: at, nsid: 'com.atproto.repo.createRecord', status: 200 },
    ])
  }
})
