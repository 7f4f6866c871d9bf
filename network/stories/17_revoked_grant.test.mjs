// An operator revokes a grant. Genkan refuses the app at once. The host refuses it when the access
// token expires, since hosts check tokens by themselves. (Tokens of this network live for two
// minutes, those of operators for five.)

import { test } from 'node:test'
import { allow, newPerson, signIn, startBrowser } from './lib/browser.mjs'
import { linkedApp } from './lib/linked.mjs'
import { assert, claims, eventually, genkan, service, signUp } from './lib/stage.mjs'

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
  // The command line is another process: the one that serves reads the change from the changes
  // feed.
  await eventually('Genkan refuses', async () => (await write(service)).status === 401, 5_000)
  await assert.rejects(app.refresh())
  assert.equal((await write(person.home.url)).status, 200, 'the host still takes the token')
  const refusal = async () => {
    const answer = await write(person.home.url)
    return answer.status !== 200 && answer
  }
  const untilExpired = Math.max(0, exp * 1000 - Date.now())
  const refused = await eventually('the host refuses', refusal, untilExpired + 10_000, 1_000)
  assert.equal(refused.status, 401, JSON.stringify(refused.body))
})
