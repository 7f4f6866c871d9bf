// Genkan's pages, clicked through in a real browser as an app leads people to them, and alone. Each
// page is checked with axe-core, and pictures of it are kept. `plain` browsers run no JavaScript.

import { test } from 'node:test'
import { allow, look, newPerson, signIn, startBrowser } from './lib/browser.mjs'
import { comeBack, loopbackApp, publishedApp } from './lib/oauth.mjs'
import { assert, eventually, homeOf, map, newName, post, service, signUp, xrpc } from './lib/stage.mjs'

const plain = { javaScriptEnabled: false }

const button = (page, name) => page.getByRole('button', { name, exact: true })

async function leave(app, page, input, options = {}) {
  await page.goto((await app.oauth.authorize(input, { scope: app.scope, ...options })).href)
}

/** The code of the newest email to an address, once it is another than the one before. */
async function codeFor(email, before) {
  return eventually(`an email to ${email}`, async () => {
    const emails = await fetch(`${map.mail.url}/messages?to=${encodeURIComponent(email)}`).then((a) => a.json())
    const code = /^\s*([A-Z2-7]{5}-[A-Z2-7]{5})\s*$/m.exec(emails.at(-1)?.text ?? '')?.[1]
    return code !== before && code
  })
}

/** Leads a person from an app to the consent page and back. Returns the app's session. */
async function allowed(app, page, person) {
  await leave(app, page, person.handle)
  await signIn(page, person)
  return returned(app, page)
}

/** Allows the app that the page asks about. Returns its session. */
async function returned(app, page) {
  const { session } = await app.oauth.callback(await comeBack(app, page, () => allow(page)))
  return session
}

async function deactivate(person) {
  const token = person.session.session.accessJwt
  const { status } = await xrpc(service, 'com.atproto.server.deactivateAccount', { body: {}, token })
  assert.equal(status, 200)
}

test('a person signs up on the way into an app, and has a whole account before the app gets its code', async (t) => {
  const browser = await startBrowser(t)
  const { page } = await newPerson(browser, plain)
  const app = await loopbackApp(t, 'atproto identity:*')
  await leave(app, page, service, { prompt: 'create' })
  await page.getByRole('heading', { name: 'Create an account' }).waitFor()
  const name = newName('page')
  await page.getByLabel('Handle', { exact: true }).fill(name)
  await button(page, 'Check availability').click()
  await page.getByText(`${name}${map.genkan.handleDomain} is available.`).waitFor()
  await page.getByLabel('Email address').fill('not an address')
  await page.getByLabel('Password').fill('short')
  await button(page, 'Create account').click()
  await page.getByText('There is a problem').waitFor()
  await page.getByLabel('Email address').fill(`${name}@example.com`)
  await page.getByLabel('Password').fill('long enough for all')
  await button(page, 'Create account').click()
  await page.getByText('An app that can change your identity').waitFor()
  const session = await returned(app, page)
  assert.ok(await homeOf(session.did))
  const info = await session.fetchHandler('/xrpc/com.atproto.server.getSession')
  assert.equal((await info.json()).handle, name + map.genkan.handleDomain)
})

test('the pages speak German to those who ask for it', async (t) => {
  const browser = await startBrowser(t)
  const { page } = await newPerson(browser, { ...plain, locale: 'de-AT' })
  const app = await loopbackApp(t)
  await leave(app, page, service)
  await page.getByRole('heading', { name: 'Anmelden' }).waitFor()
  assert.equal(await page.locator('html').getAttribute('lang'), 'de')
})

test('a remembered person goes straight to the consent page, and chooses among accounts', async (t) => {
  const browser = await startBrowser(t)
  const { page } = await newPerson(browser)
  const [one, other] = [await signUp('page'), await signUp('page')]
  const app = await publishedApp(t)
  for (const person of [one, other]) {
    await leave(app, page, person.handle)
    await signIn(page, person, { remember: true })
    await returned(app, page)
  }
  await leave(app, page, one.handle)
  await button(page, 'Allow').waitFor()
  assert.match(await page.textContent('main'), new RegExp(one.handle))

  await leave(app, page, service)
  await page.getByRole('heading', { name: 'Choose an account' }).waitFor()
  await look(page, 'choose')
  await page.getByRole('button', { name: new RegExp(other.handle) }).click()
  const session = await returned(app, page)
  assert.equal(session.did, other.did)
})

test('a wrong password and an unknown handle get the same page', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('page')
  const said = []
  for (const handle of [person.handle, `nobody${map.genkan.handleDomain}`]) {
    const { page } = await newPerson(browser)
    const app = await loopbackApp(t)
    await leave(app, page, service)
    await signIn(page, { handle, password: 'not the password' })
    await page.getByText('Wrong handle, email address or password').first().waitFor()
    if (handle === person.handle) await look(page, 'sign-in-refused')
    said.push((await page.textContent('main')).replaceAll(handle, ''))
  }
  assert.equal(said[0], said[1])
})

test('a forgotten password is reset on the way into an app; sessions and grants end', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('page')
  const { page } = await newPerson(browser)
  const app = await loopbackApp(t)
  const before = await allowed(app, page, person)

  await leave(app, page, person.handle)
  await page.getByRole('link', { name: 'Forgot your password?' }).click()
  await look(page, 'forgot-password')
  await page.getByLabel('Email address').fill(person.email)
  await button(page, 'Send code').click()
  await page.getByLabel('Code').waitFor()
  await page.reload()
  await page.getByLabel('Code').waitFor()
  await look(page, 'reset-password')
  await page.getByLabel('Code').fill(await codeFor(person.email))
  await page.getByLabel('New password').fill('a brand new password')
  await button(page, 'Change password').click()
  await page.getByRole('heading', { name: 'Your password has been changed' }).waitFor()
  await look(page, 'password-changed')

  await assert.rejects(before.getTokenInfo(true), Error, 'the grant is over')
  const old = await post(service, 'com.atproto.server.refreshSession', person.session.session.refreshJwt)
  assert.equal(old.status, 400, 'and so has the session')
  const session = await allowed(app, page, { ...person, password: 'a brand new password' })
  assert.equal(session.did, person.did)
})

test('a deactivated account is activated again before it goes on', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('page')
  const { page } = await newPerson(browser)
  const app = await loopbackApp(t)
  const before = await allowed(app, page, person)
  await deactivate(person)
  await assert.rejects(before.getTokenInfo(true), Error, 'deactivation ends grants')

  await leave(app, page, person.handle)
  await signIn(page, person)
  await page.getByRole('heading', { name: 'Your account is deactivated' }).waitFor()
  await look(page, 'reactivate')
  await button(page, 'Reactivate account').click()
  const session = await returned(app, page)
  const info = await session.fetchHandler('/xrpc/com.atproto.server.getSession')
  assert.equal((await info.json()).active, true)
})

test('a person revokes an app and signs a browser out on the account page', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('page')
  const { page } = await newPerson(browser)
  const app = await publishedApp(t, { scope: 'atproto repo:app.bsky.feed.post blob:image/*' })
  await leave(app, page, person.handle)
  await signIn(page, person, { remember: true })
  await look(page, 'consent-granular')
  const session = await returned(app, page)

  await page.goto(`${service}/account`)
  await page.getByRole('heading', { name: 'Apps with access' }).waitFor()
  await look(page, 'account')
  await page.getByRole('button', { name: /^Revoke access/ }).click()
  await page.getByText('Access revoked.').waitFor()
  await assert.rejects(session.getTokenInfo(true))

  await page.getByRole('button', { name: /^Sign out/ }).first().click()
  await page.goto(`${service}/account`)
  await page.getByRole('heading', { name: 'Sign in' }).waitFor()
})

test('a person confirms an email address on the account page, and then changes it with a code', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('page')
  const { page } = await newPerson(browser)
  await page.goto(`${service}/account/sign-in`)
  await signIn(page, person)
  await page.getByText('Not confirmed yet').waitFor()
  await button(page, 'Send code').click()
  await page.getByText('sent a code to your email address').waitFor()
  await look(page, 'account-confirm-email')
  const code = await codeFor(person.email)
  await page.getByLabel('Code').fill(code)
  await button(page, 'Confirm address').click()
  await page.getByText('Your email address is confirmed.').waitFor()

  await page.getByRole('link', { name: 'Change address' }).click()
  await button(page, 'Send code').click()
  await page.getByText('sent a code to your email address').waitFor()
  await page.getByLabel('New email address').fill('not an address')
  await button(page, 'Change address').click()
  await page.getByText('There is a problem').waitFor()
  await look(page, 'account-change-email')
  const email = `new-${person.email}`
  await page.getByLabel('New email address').fill(email)
  await page.getByLabel('Code').fill(await codeFor(person.email, code))
  await button(page, 'Change address').click()
  await page.getByText('Your email address has been changed.').waitFor()
  const { body } = await xrpc(service, 'com.atproto.server.getSession', { token: person.session.session.accessJwt })
  assert.equal(body.email, email)
  assert.equal(body.emailConfirmed, false)
})

test('a deactivated account is activated again on its page', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('page')
  await deactivate(person)
  const { page } = await newPerson(browser)
  await page.goto(`${service}/account/sign-in`)
  await signIn(page, person)
  await page.getByRole('heading', { name: 'Your account is deactivated' }).waitFor()
  await look(page, 'account-deactivated')
  await button(page, 'Reactivate account').click()
  await page.getByText('Your account is active again.').waitFor()
  const token = person.session.session.accessJwt
  const { body } = await xrpc(service, 'com.atproto.server.getSession', { token })
  assert.equal(body.active, true)
})

test('a permission that a person unticks is not granted, and a new one is marked', async (t) => {
  const browser = await startBrowser(t)
  const person = await signUp('page')
  const { page } = await newPerson(browser)
  const scope = 'atproto repo:app.bsky.feed.post repo:app.bsky.feed.like'
  const app = await publishedApp(t, { scope })
  await leave(app, page, person.handle, { scope: 'atproto repo:app.bsky.feed.like' })
  await signIn(page, person, { remember: true })
  await returned(app, page)

  await leave(app, page, person.handle)
  const posts = page.getByLabel(/app\.bsky\.feed\.post/)
  await posts.waitFor()
  assert.equal(await page.getByText('new', { exact: true }).count(), 1)
  await look(page, 'consent-again')
  await posts.uncheck()
  const session = await returned(app, page)
  const { scope: granted } = await session.getTokenInfo(false)
  assert.deepEqual(granted.split(' ').sort(), ['atproto', 'repo:app.bsky.feed.like'])
})

test('error pages do not redirect', async (t) => {
  const browser = await startBrowser(t)
  const { page } = await newPerson(browser)
  const unknown = 'urn:ietf:params:oauth:request_uri:req-00000000000000000000000000000000'
  const client = 'https://app.example.com/client-metadata.json'
  const query = new URLSearchParams({ client_id: client, request_uri: unknown })
  const answer = await page.goto(`${service}/oauth/authorize?${query}`)
  assert.equal(answer.status(), 400)
  await page.getByRole('heading', { name: 'This sign-in link is no longer valid' }).waitFor()
  await look(page, 'error')
  await page.goto(`${service}/account/nowhere`)
  await look(page, 'not-found')
})

test('the sign-up page explains what is wrong, and leads back to the sign-in', async (t) => {
  const browser = await startBrowser(t)
  const { page } = await newPerson(browser)
  const app = await loopbackApp(t)
  await leave(app, page, service, { prompt: 'create' })
  await look(page, 'sign-up')
  await button(page, 'Create account').click()
  await page.getByText('There is a problem').waitFor()
  await look(page, 'sign-up-refused')
  await page.getByRole('link', { name: 'I already have an account' }).click()
  await page.getByRole('heading', { name: 'Sign in' }).waitFor()
})
