// Permissions that apps ask for by name: published permission sets, and services behind the hosts.

import { test } from 'node:test'
import { allow, look, newPerson, signIn, startBrowser } from './lib/browser.mjs'
import { comeBack, loopbackApp, publishedApp } from './lib/oauth.mjs'
import { assert, claims, map, newName, publishRecord, service, signUp, xrpc } from './lib/stage.mjs'

/** A person with a domain, who may publish permission sets under its names. */
async function author() {
  const person = await signUp('author')
  const word = newName('garden').replace('-', '')
  await publishRecord(`_lexicon.${word}.example.com`, { txt: [`did=${person.did}`] })
  const namespace = `com.example.${word}`
  const publish = async (name, set) => {
    const rkey = `${namespace}.${name}`
    const record = {
      $type: 'com.atproto.lexicon.schema',
      lexicon: 1,
      id: rkey,
      defs: { main: { type: 'permission-set', ...set } },
    }
    const collection = 'com.atproto.lexicon.schema'
    await person.agent.com.atproto.repo.putRecord({ repo: person.did, collection, rkey, record })
    return rkey
  }
  return { ...person, namespace, publish }
}

const permission = (members) => ({ type: 'permission', ...members })

async function write(session, origin, did, collection) {
  const answer = await session.fetchHandler(`${origin}/xrpc/com.atproto.repo.createRecord`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ repo: did, collection, validate: false, record: { $type: collection, name: 'a rose' } }),
  })
  return [answer.status, (await answer.json()).error]
}

test('a published permission set is verified, shown and granted, without what its author may not grant', async (t) => {
  const browser = await startBrowser(t)
  const [writer, person] = [await author(), await signUp('sets')]
  const { namespace, publish } = writer
  // More records make the path through the repository's tree to the set longer.
  for (let index = 0; index < 12; index++) await writer.agent.post({ text: `note ${index}` })
  const nsid = await publish('authTending', {
    title: 'Tend the garden',
    'title:lang': { de: 'Den Garten pflegen' },
    detail: 'Plant, water and weed.',
    permissions: [
      permission({ resource: 'repo', collection: [`${namespace}.plant`] }),
      permission({ resource: 'rpc', inheritAud: true, lxm: [`${namespace}.getWeather`] }),
      permission({ resource: 'repo', collection: ['app.bsky.feed.post'] }),
    ],
  })
  const include = `include:${nsid}?aud=${encodeURIComponent(map.appview.service)}`
  const app = await publishedApp(t, { scope: `atproto ${include}` })

  const { page, troubles } = await newPerson(browser)
  await page.goto((await app.oauth.authorize(person.handle, { scope: app.scope })).href)
  await signIn(page, person)
  await page.getByText('Tend the garden').waitFor()
  await page.getByText('Plant, water and weed.').waitFor()
  assert.ok(!(await page.textContent('main')).includes('app.bsky.feed.post'), 'not a word of what is not granted')
  await look(page, 'consent-set')
  const { session } = await app.oauth.callback(await comeBack(app, page, () => allow(page)))
  const { scope } = await session.getTokenInfo(false)
  assert.ok(scope.split(' ').includes(`repo:${namespace}.plant`), scope)
  assert.ok(!scope.includes('app.bsky.feed.post') && !scope.includes('include:'), scope)
  const { access_token: token } = (await app.sessionStore.get(person.did)).tokenSet
  assert.equal(claims(token).scope, scope)

  for (const origin of [person.home.url, service]) {
    assert.deepEqual(await write(session, origin, person.did, `${namespace}.plant`), [200, undefined], origin)
    assert.deepEqual(await write(session, origin, person.did, 'app.bsky.feed.post'), [403, 'ScopeMissingError'], origin)
    const weather = await session.fetchHandler(`${origin}/xrpc/${namespace}.getWeather`, {
      headers: { 'atproto-proxy': map.appview.service },
    })
    assert.equal(weather.status, 200, `${origin} ${await weather.clone().text()}`)
    const echo = await weather.json()
    assert.deepEqual([echo.token.verified, echo.token.payload.iss], [true, person.did], origin)
  }
  assert.deepEqual(troubles, [])
})

test('a permission set without a verified author is refused, with the reason', async (t) => {
  const writer = await author()
  const app = await publishedApp(t, { scope: `atproto include:${writer.namespace}.authNone include:com.example.nobody.auth` })
  for (const [set, why] of [
    [`${writer.namespace}.authNone`, /there is no such record/],
    ['com.example.nobody.auth', /_lexicon\.nobody\.example\.com/],
  ]) {
    await assert.rejects(
      app.oauth.authorize(service, { scope: `atproto include:${set}` }),
      (error) => {
        assert.match(String(error.errorDescription ?? error.message), why)
        return true
      },
      set,
    )
  }
})

test('a permission for one service is good for that one alone, at the host and through Genkan', async (t) => {
  const browser = await startBrowser(t)
  const method = 'app.bsky.feed.getTimeline'
  const other = map.appview.service.replace('#echo', '#other')
  for (const [granted, status] of [[map.appview.service, 200], [other, 403]]) {
    const person = await signUp('aud')
    const app = await loopbackApp(t, `atproto rpc:${method}?aud=${encodeURIComponent(granted)}`)
    const { page } = await newPerson(browser)
    await page.goto((await app.oauth.authorize(person.handle, { scope: app.scope })).href)
    await signIn(page, person)
    const { session } = await app.oauth.callback(await comeBack(app, page, () => allow(page)))
    for (const origin of [person.home.url, service]) {
      const answer = await session.fetchHandler(`${origin}/xrpc/${method}`, {
        headers: { 'atproto-proxy': map.appview.service },
      })
      assert.equal(answer.status, status, `${granted} at ${origin}: ${await answer.clone().text()}`)
      const body = await answer.json()
      if (status === 200) assert.equal(body.token.payload.lxm, method)
      else assert.equal(body.error, 'ScopeMissingError')
    }
    // The host issues a service token for the method under the same condition.
    const asked = (aud) => `/xrpc/com.atproto.server.getServiceAuth?lxm=${method}&aud=${encodeURIComponent(aud)}`
    for (const origin of [person.home.url, service]) {
      const answer = await session.fetchHandler(`${origin}${asked(map.appview.service)}`)
      assert.equal(answer.status, status, `${granted} at ${origin}: ${await answer.clone().text()}`)
    }
  }
  assert.equal((await xrpc(map.appview.url, method)).status, 200, 'the service itself asks for nothing')
})
