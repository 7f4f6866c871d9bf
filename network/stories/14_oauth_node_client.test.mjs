// The published OAuth client for Node signs people in through Genkan's pages, in a real browser.

import { test } from 'node:test'
import { Agent } from '@atproto/api'
import { allow, look, newPerson, signIn, startBrowser } from './lib/browser.mjs'
import { comeBack, loopbackApp, publishedApp } from './lib/oauth.mjs'
import { assert, claims, genkan, map, service, signUp, xrpc } from './lib/stage.mjs'

/** Returns one account on each host. */
async function peopleOnEachHost() {
  const people = new Map()
  while (people.size < map.hosts.length) {
    const person = await signUp('oauth')
    people.set(person.home.name, person)
  }
  return [...people.values()]
}

/** Signs a person in at an app and returns the app's session. */
async function enter(app, page, person, input, options = {}) {
  const url = await app.oauth.authorize(input, { scope: app.scope, state: 'as it was', ...options })
  assert.equal(url.origin, service)
  await page.goto(url.href)
  await look(page, 'sign-in')
  await signIn(page, person)
  await page.getByRole('button', { name: 'Allow', exact: true }).waitFor()
  await look(page, 'consent')
  const parameters = await comeBack(app, page, () => allow(page))
  assert.equal(parameters.get('iss'), service)
  const { session, state } = await app.oauth.callback(parameters)
  assert.equal(state, 'as it was')
  assert.equal(session.did, person.did)
  return session
}

async function postAndRead(session, person, text) {
  const agent = new Agent(session)
  const { uri } = await agent.post({ text })
  const [repo, collection, rkey] = uri.replace('at://', '').split('/')
  const { body } = await xrpc(service, 'com.atproto.repo.getRecord', { query: { repo, collection, rkey } })
  assert.equal(body.value.text, text)
  assert.equal(repo, person.did)
}

for (const [index, how] of ['handle', 'DID', "host's URL", "Genkan's URL"].entries()) {
  test(`an app under development signs a person in, given a ${how}`, async (t) => {
    const browser = await startBrowser(t)
    const people = await peopleOnEachHost()
    const person = people[index % people.length]
    const input = [person.handle, person.did, person.home.url, service][index]
    const { page, troubles } = await newPerson(browser)
    const app = await loopbackApp(t)
    const session = await enter(app, page, person, input)
    await postAndRead(session, person, `signed in by ${how}`)
    const home = app.calls.filter(({ url }) => url.includes('createRecord')).at(-1)
    assert.equal(new URL(home.url).origin, person.home.url, 'the client goes straight to the host')
    assert.deepEqual(troubles, [])
  })
}

for (const confidential of [false, true]) {
  const kind = confidential ? 'confidential' : 'public'
  test(`a ${kind} app on the web: calls, refresh, sign-out, at each host`, async (t) => {
    const browser = await startBrowser(t)
    for (const person of await peopleOnEachHost()) {
      const { page, troubles } = await newPerson(browser)
      const app = await publishedApp(t, { confidential })
      const session = await enter(app, page, person, person.handle)
      await postAndRead(session, person, `from a ${kind} app`)

      // The token is good at Genkan's own origin as well.
      const atGenkan = await session.fetchHandler(`${service}/xrpc/com.atproto.server.getSession`)
      assert.equal(atGenkan.status, 200, await atGenkan.clone().text())
      assert.equal((await atGenkan.json()).did, person.did)

      const before = (await app.sessionStore.get(person.did)).tokenSet
      await session.getTokenInfo(true)
      const after = (await app.sessionStore.get(person.did)).tokenSet
      assert.notEqual(after.access_token, before.access_token)
      assert.notEqual(after.refresh_token, before.refresh_token)
      assert.equal(claims(after.access_token).aud, person.home.did)
      await postAndRead(session, person, 'after a refresh')

      await session.signOut()
      await assert.rejects(app.oauth.restore(person.did))
      assert.deepEqual(troubles, [])
    }
  })
}

test('a scope that a person did not allow is refused, at the host and through Genkan alike', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('oauth')
  const { page } = await newPerson(browser)
  const app = await loopbackApp(t, 'atproto repo:app.bsky.feed.like?action=create')
  const session = await enter(app, page, person, person.handle)
  const record = { $type: 'app.bsky.feed.post', text: 'not allowed', createdAt: new Date().toISOString() }
  const body = JSON.stringify({ repo: person.did, collection: 'app.bsky.feed.post', record })
  for (const origin of [person.home.url, service]) {
    const answer = await session.fetchHandler(`${origin}/xrpc/com.atproto.repo.createRecord`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    })
    assert.equal(answer.status, 403, origin)
    assert.equal((await answer.json()).error, 'ScopeMissingError', origin)
  }
})

test('a person who denies access returns to the app with access_denied', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('oauth')
  const { page } = await newPerson(browser)
  const app = await loopbackApp(t)
  await page.goto((await app.oauth.authorize(person.handle, { scope: app.scope })).href)
  await signIn(page, person)
  const parameters = await comeBack(app, page, () => page.getByRole('button', { name: 'Deny' }).click())
  assert.equal(parameters.get('error'), 'access_denied')
  assert.equal(parameters.get('iss'), service)
})

test('a grant that the operator revoked cannot be refreshed', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('oauth')
  const { page } = await newPerson(browser)
  const app = await loopbackApp(t)
  const session = await enter(app, page, person, person.handle)
  const listed = JSON.parse(await genkan('grant', 'list', '--account', person.did, '--json'))
  assert.equal(listed.length, 1)
  await genkan('grant', 'revoke', listed[0].id)
  await assert.rejects(session.getTokenInfo(true))
})
