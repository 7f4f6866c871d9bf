// A grant is taken back: at once at Genkan, and at the host, which asks nobody, when the access token has run out. (The
// network's last two minutes; five is what operators get.)

import { test } from 'node:test'
import { allow, newPerson, signIn, startBrowser } from './lib/browser.mjs'
import { linkedApp } from './lib/linked.mjs'
import { assert, claims, genkan, service, signUp, sleep } from './lib/stage.mjs'


const POSTS = 'app.bsky.feed.post'

test('a revoked grant stops at Genkan at once and at the host within the lifetime', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('revoked')
  const { page } = await newPerson(browser)
  const app = await linkedApp(t, service)
  const { url, finish } = await app.begin()
  await page.goto(url)
  await signIn(page, person)
  await page.getByRole('button', { name: 'Allow', exact: true }).waitFor()
  const tokens = await finish(await app.comeBack(page, () => allow(page)))
  const { iat, exp } = claims(tokens.access_token)
  assert.equal(exp - iat, 120, 'the network was started with GENKAN_OAUTH_ACCESS_LIFETIME=2m')

  const record = { $type: POSTS, text: 'while it lasts', createdAt: new Date().toISOString() }
  const post = { body: { repo: person.did, collection: POSTS, record } }
  const write = (at) => app.call('com.atproto.repo.createRecord', { ...post, at })
  assert.equal((await write(person.home.url)).status, 200)
  assert.equal((await write(service)).status, 200)

  const [grant] = JSON.parse(await genkan('grant', 'list', '--account', person.did, '--json'))
  await genkan('grant', 'revoke', grant.id)
  // Another process took it: the one that serves hears of it from the changes feed.
  const told = Date.now()
  while ((await write(service)).status !== 401) {
    assert.ok(Date.now() - told < 5_000, 'within five seconds at every other process')
    await sleep(100)
  }
  await assert.rejects(app.refresh())
  await sleep(Math.max(0, exp * 1000 - Date.now()) + 2_000)
  const refused = await write(person.home.url)
  assert.equal(refused.status, 401, JSON.stringify(refused.body))
})
