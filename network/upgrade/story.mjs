// What two versions of Genkan on one database must do for each other:
// `node upgrade/story.mjs <settings.json>`.
//
// Settings: {map, step, doors: [[name, port], ...], state}. A door is a Genkan process by its port.
// Steps:
//   make   Makes accounts, sessions, grants and more at the first door, and writes them to `state`.
//   find   Uses everything in `state` at each door in turn, and writes the new tokens back.
//   cross  Does one thing at one door and looks for it at the other, in both directions.
// Prints [{what, from, to, failed}], where `failed` is missing if the check passed.

import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { OAuthApp } from '../soak/oauth-app.mjs'
import { FormBrowser } from '../soak/pages.mjs'
import { openDoors, through } from './doors.mjs'

const { map, step, doors, state: file } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const service = map.genkan.url
openDoors(service)
const ADMIN = `Basic ${Buffer.from(`admin:${map.genkan.adminPassword}`).toString('base64')}`
/** What one process does is told to the others. They act on it within this many milliseconds. */
const HEARD_WITHIN = 10_000

const newName = () => `u${crypto.randomBytes(6).toString('hex')}`
const newPerson = (domain) => {
  const name = newName()
  return { handle: name + domain, email: `${name}@example.com`, password: crypto.randomBytes(9).toString('base64url') }
}
const aPost = () => ({ $type: 'app.bsky.feed.post', text: crypto.randomUUID(), createdAt: new Date().toISOString() })

/** Makes one XRPC call at a door, or at the origin of another server. */
async function xrpc(door, nsid, { query, body, token, admin, method, origin = service } = {}) {
  const url = new URL(`/xrpc/${nsid}`, origin)
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value)
  const authorization = admin ? ADMIN : token && `Bearer ${token}`
  const headers = { ...(body ? { 'content-type': 'application/json' } : {}), ...(authorization ? { authorization } : {}) }
  const answer = await through(door, () =>
    fetch(url, { method: method ?? (body ? 'POST' : 'GET'), headers, body: body ? JSON.stringify(body) : undefined }))
  const text = await answer.text()
  return { status: answer.status, body: text ? JSON.parse(text) : {} }
}

/** Makes a call that must be answered 200, and returns the answer's body. */
async function ok(door, nsid, options) {
  const { status, body } = await xrpc(door, nsid, options)
  assert.equal(status, 200, `${nsid} at ${nameOf(door)}: ${status} ${JSON.stringify(body)}`)
  return body
}

/** Makes a call until it is refused with this error. */
async function refused(door, error, nsid, options) {
  await heard(async () => {
    const { status, body } = await xrpc(door, nsid, options)
    assert.equal(body.error, error, `${nsid} at ${nameOf(door)}: ${status} ${JSON.stringify(body)}`)
  })
}

/** Repeats a check until it passes, or until the process must have heard of the change. */
async function heard(check) {
  for (const until = Date.now() + HEARD_WITHIN; ; ) {
    try {
      return await check()
    } catch (error) {
      if (Date.now() > until) throw error
    }
    await sleep(100)
  }
}

const nameOf = (door) => doors.find(([, port]) => port === door)?.[0]
const signUp = async (door, person = newPerson(map.genkan.handleDomain)) => ({
  ...person, ...pair(await ok(door, 'com.atproto.server.createAccount', { body: person })),
})
const pair = ({ did, accessJwt, refreshJwt }) => ({ did, accessJwt, refreshJwt })
const signIn = (door, identifier, password) => ok(door, 'com.atproto.server.createSession', { body: { identifier, password } })
const refresh = (door, token) => ok(door, 'com.atproto.server.refreshSession', { method: 'POST', token })
const session = (door, token) => ok(door, 'com.atproto.server.getSession', { token })
const post = (door, did, token) =>
  ok(door, 'com.atproto.repo.createRecord', { token, body: { repo: did, collection: 'app.bsky.feed.post', record: aPost() } })
const postByApp = async (door, did, app) => {
  const body = { repo: did, collection: 'app.bsky.feed.post', record: aPost() }
  const answer = await through(door, () => app.call('com.atproto.repo.createRecord', { body }))
  assert.equal(answer.status, 200, `a post by an app at ${nameOf(door)}: ${answer.status} ${JSON.stringify(answer.body)}`)
}

/** Returns the newest code that was sent to an address, other than `before`. */
async function code(email, before) {
  return heard(async () => {
    const messages = await fetch(`${map.mail.url}/messages?to=${encodeURIComponent(email)}`).then((answer) => answer.json())
    const found = messages.map(({ text }) => /\b[A-Z2-7]{5}-[A-Z2-7]{5}\b/i.exec(text)?.[0]).filter(Boolean).at(-1)
    assert.ok(found && found !== before, `a code for ${email}`)
    return found
  })
}

/** Lets an app ask at `asking`, the person answer at `pages`, and the app take its tokens at `taking`. */
async function authorize(asking, pages, taking, person, browser = new FormBrowser(service), allow = 'allow') {
  const app = await through(asking, () => OAuthApp.create(service))
  const begun = await through(asking, () => app.begin())
  const back = await through(pages, () => browser[allow](begun.url, person))
  await through(taking, () => app.finish(back, begun))
  return app
}

const keep = async (app) => ({ ...(await app.toJSON()), access: app.tokens.access_token })
async function restore(kept) {
  const app = await OAuthApp.restore(kept)
  app.tokens.access_token = kept.access
  return app
}

/** The story of each thing: done at `a`, seen at `b`. */
const stories = {
  'sign-up, sign-in, refresh': async (a, b) => {
    const person = await signUp(a)
    assert.equal((await session(b, person.accessJwt)).did, person.did)
    await post(b, person.did, person.accessJwt)
    const signedIn = await signIn(b, person.handle, person.password)
    let token = signedIn.refreshJwt
    for (const door of [a, b, b, a]) token = (await refresh(door, token)).refreshJwt
    await post(a, person.did, signedIn.accessJwt)
    await refresh(a, person.refreshJwt)
    await refresh(b, person.refreshJwt) // A repeat, as after a lost answer.
    await ok(a, 'com.atproto.server.deleteSession', { method: 'POST', token })
    await refused(b, 'ExpiredToken', 'com.atproto.server.refreshSession', { method: 'POST', token })
  },
  'a taken handle': async (a, b) => {
    const { handle } = await signUp(a)
    const other = { ...newPerson(map.genkan.handleDomain), handle }
    await refused(b, 'HandleNotAvailable', 'com.atproto.server.createAccount', { body: other })
  },
  'a rename': async (a, b) => {
    const person = await signUp(a)
    await ok(b, 'com.atproto.identity.resolveHandle', { query: { handle: person.handle } })
    const { handle } = newPerson(map.genkan.handleDomain)
    await ok(a, 'com.atproto.identity.updateHandle', { token: person.accessJwt, body: { handle } })
    await heard(async () => {
      assert.equal((await ok(b, 'com.atproto.identity.resolveHandle', { query: { handle } })).did, person.did)
      assert.equal((await session(b, person.accessJwt)).handle, handle)
      const before = await xrpc(b, 'com.atproto.identity.resolveHandle', { query: { handle: person.handle } })
      assert.notEqual(before.body.did, person.did, 'the old handle is free')
    })
    await signIn(b, handle, person.password)
    const again = newPerson(map.genkan.handleDomain)
    await ok(b, 'com.atproto.identity.updateHandle', { token: person.accessJwt, body: { handle: again.handle } })
    await heard(async () => assert.equal((await session(a, person.accessJwt)).handle, again.handle))
    // The freed handle goes to somebody else at the other one.
    await signUp(b, { ...again, handle })
  },
  'renames of two accounts to one handle at once': async (a, b) => {
    const [one, other] = [await signUp(a), await signUp(b)]
    const { handle } = newPerson(map.genkan.handleDomain)
    const rename = (door, { accessJwt }) => xrpc(door, 'com.atproto.identity.updateHandle', { token: accessJwt, body: { handle } })
    const answers = await Promise.all([rename(a, one), rename(b, other)])
    assert.equal(answers.filter(({ status }) => status === 200).length, 1, JSON.stringify(answers))
  },
  'an app password': async (a, b) => {
    const person = await signUp(a)
    const made = await ok(a, 'com.atproto.server.createAppPassword', { token: person.accessJwt, body: { name: 'phone' } })
    const signedIn = await signIn(b, person.handle, made.password)
    await post(a, person.did, signedIn.accessJwt)
    const { refreshJwt } = await refresh(a, signedIn.refreshJwt)
    const { passwords } = await ok(b, 'com.atproto.server.listAppPasswords', { token: person.accessJwt })
    assert.deepEqual(passwords.map(({ name }) => name), ['phone'])
    await ok(b, 'com.atproto.server.revokeAppPassword', { token: person.accessJwt, body: { name: 'phone' } })
    await refused(a, 'ExpiredToken', 'com.atproto.server.refreshSession', { method: 'POST', token: refreshJwt })
    await refused(a, 'AuthenticationRequired', 'com.atproto.server.createSession', { body: { identifier: person.handle, password: made.password } })
  },
  'a code by email': async (a, b) => {
    const person = await signUp(a)
    await ok(a, 'com.atproto.server.requestEmailConfirmation', { method: 'POST', token: person.accessJwt })
    const confirmation = await code(person.email)
    await ok(b, 'com.atproto.server.confirmEmail', { token: person.accessJwt, body: { email: person.email, token: confirmation } })
    await heard(async () => assert.equal((await session(a, person.accessJwt)).emailConfirmed, true))
    await ok(a, 'com.atproto.server.requestPasswordReset', { body: { email: person.email } })
    const password = `${person.password}-new`
    await ok(b, 'com.atproto.server.resetPassword', { body: { token: await code(person.email, confirmation), password } })
    await refused(a, 'AuthenticationRequired', 'com.atproto.server.createSession', { body: { identifier: person.handle, password: person.password } })
    await refused(a, 'ExpiredToken', 'com.atproto.server.refreshSession', { method: 'POST', token: person.refreshJwt })
    await signIn(a, person.handle, password)
  },
  'an OAuth grant': async (a, b) => {
    const person = await signUp(a)
    const app = await authorize(a, b, a, person)
    for (const door of [a, b]) await postByApp(door, person.did, app)
    for (const door of [b, a, b]) {
      await through(door, () => app.refresh())
      for (const other of [a, b]) await postByApp(other, person.did, app)
    }
    await through(a, () => app.revoke())
    await heard(async () => {
      const answer = await through(b, () => app.call('com.atproto.server.getSession')).catch(({ status }) => ({ status }))
      assert.equal(answer.status, 401, JSON.stringify(answer))
    })
    await assert.rejects(through(b, () => app.refresh()), (error) => error.error === 'invalid_grant')
  },
  'an OAuth code of the other': async (a, b) => {
    const person = await signUp(a)
    const app = await authorize(b, a, b, person)
    await postByApp(a, person.did, app)
  },
  'a browser that is signed in': async (a, b) => {
    const person = await signUp(a)
    const browser = new FormBrowser(service)
    await authorize(a, a, a, { ...person, remember: true }, browser)
    for (const door of [b, a, b]) {
      const page = await through(door, () => browser.open(`${service}/account`))
      assert.ok(page.body.includes(person.handle), `${nameOf(door)}: ${page.status} ${page.url} ${page.body.slice(0, 300)}`)
    }
    // Without the password: the browser is known.
    await authorize(b, b, a, { ...person, password: '' }, browser)
  },
  'a takedown': async (a, b) => {
    const person = await signUp(b)
    const app = await authorize(b, b, b, person)
    await session(b, person.accessJwt)
    await postByApp(b, person.did, app)
    const subject = { $type: 'com.atproto.admin.defs#repoRef', did: person.did }
    await ok(a, 'com.atproto.admin.updateSubjectStatus', { admin: true, body: { subject, takedown: { applied: true, ref: 'x' } } })
    await refused(b, 'AccountTakedown', 'com.atproto.server.createSession', { body: { identifier: person.handle, password: person.password } })
    await heard(async () => {
      const { status } = await xrpc(b, 'com.atproto.server.refreshSession', { method: 'POST', token: person.refreshJwt })
      assert.ok([400, 401].includes(status), `${status}`)
      const byApp = await through(b, () => app.call('com.atproto.server.getSession')).catch(({ status }) => ({ status }))
      assert.equal(byApp.status, 401)
    })
    await heard(async () => {
      const { status, body } = await xrpc(b, 'com.atproto.sync.getRepoStatus', { query: { did: person.did } })
      assert.equal(body.status ?? body.error, 'takendown', `the host: ${status} ${JSON.stringify(body)}`)
    })
    await ok(b, 'com.atproto.admin.updateSubjectStatus', { admin: true, body: { subject, takedown: { applied: false } } })
    await heard(() => signIn(a, person.handle, person.password))
    await heard(() => signIn(b, person.handle, person.password).then(({ accessJwt }) => post(b, person.did, accessJwt)))
  },
  'a deactivation': async (a, b) => {
    const person = await signUp(b)
    await session(a, person.accessJwt)
    await ok(a, 'com.atproto.server.deactivateAccount', { token: person.accessJwt, body: {} })
    await heard(async () => assert.equal((await session(b, person.accessJwt)).active, false))
    await ok(b, 'com.atproto.server.activateAccount', { method: 'POST', token: person.accessJwt })
    await heard(async () => assert.equal((await session(a, person.accessJwt)).active, true))
    await post(a, person.did, person.accessJwt)
  },
  'a linked grant': async (a, b) => {
    const person = newPerson(map.alone.handleDomain)
    const { did } = await ok(undefined, 'com.atproto.server.createAccount', { body: person, origin: map.alone.url })
    const app = await authorize(a, b, a, { ...person, did }, new FormBrowser(service), 'allowLinked')
    for (const door of [a, b]) await postByApp(door, did, app)
    for (const door of [b, a, b, a]) {
      await through(door, () => app.refresh())
      for (const other of [b, a]) await postByApp(other, did, app)
    }
    await through(b, () => app.revoke())
    await assert.rejects(through(a, () => app.refresh()), (error) => error.error === 'invalid_grant')
  },
  'an invite code': async (a, b) => {
    const { code: invite } = await ok(a, 'com.atproto.server.createInviteCode', { admin: true, body: { useCount: 1 } })
    await signUp(b, { ...newPerson(map.genkan.handleDomain), inviteCode: invite })
    await refused(a, 'InvalidInviteCode', 'com.atproto.server.createAccount', { body: { ...newPerson(map.genkan.handleDomain), inviteCode: invite } })
  },
  'a deletion': async (a, b) => {
    const person = await signUp(b)
    await ok(a, 'com.atproto.server.requestAccountDelete', { method: 'POST', token: person.accessJwt })
    const token = await code(person.email)
    await ok(b, 'com.atproto.server.deleteAccount', { body: { did: person.did, password: person.password, token } })
    for (const door of [a, b]) {
      await refused(door, 'AuthenticationRequired', 'com.atproto.server.createSession', { body: { identifier: person.handle, password: person.password } })
    }
    await signUp(a, { ...newPerson(map.genkan.handleDomain), handle: person.handle })
  },
}

const results = []
async function check(what, from, to, work) {
  const row = { what, from, to }
  results.push(row)
  await work().catch((error) => (row.failed = `${error.message ?? error} ${error.error_description ?? ''} (${String(error.stack).split('\n').find((line) => line.includes('story.mjs'))?.trim() ?? ''})`.slice(0, 600)))
}

async function cross() {
  for (const [what, story] of Object.entries(stories)) {
    for (const [[from, a], [to, b]] of [[doors[0], doors[1]], [doors[1], doors[0]]]) await check(what, from, to, () => story(a, b))
  }
}

/** One of everything that outlives a process. */
async function make() {
  const [from, door] = doors[0]
  const made = { by: from }
  const all = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, 'utf8')) : []
  // Without them the other steps have nothing to look for, so a failure here ends the program.
  made.person = await signUp(door)
  made.posted = await post(door, made.person.did, made.person.accessJwt)
  const phone = await ok(door, 'com.atproto.server.createAppPassword', { token: made.person.accessJwt, body: { name: 'phone' } })
  made.appPassword = phone.password
  made.phone = pair(await signIn(door, made.person.handle, phone.password))
  const browser = new FormBrowser(service)
  made.grant = await keep(await authorize(door, door, door, { ...made.person, remember: true }, browser))
  made.cookies = browser.cookies
  const external = newPerson(map.alone.handleDomain)
  const { did } = await ok(undefined, 'com.atproto.server.createAccount', { body: external, origin: map.alone.url })
  made.linked = { did, app: await keep(await authorize(door, door, door, { ...external, did }, new FormBrowser(service), 'allowLinked')) }
  made.forgetful = await signUp(door)
  await ok(door, 'com.atproto.server.requestPasswordReset', { body: { email: made.forgetful.email } })
  made.code = await code(made.forgetful.email)
  made.taken = await signUp(door)
  const subject = { $type: 'com.atproto.admin.defs#repoRef', did: made.taken.did }
  await ok(door, 'com.atproto.admin.updateSubjectStatus', { admin: true, body: { subject, takedown: { applied: true, ref: 'x' } } })
  made.away = await signUp(door)
  await ok(door, 'com.atproto.server.deactivateAccount', { token: made.away.accessJwt, body: {} })
  const { code: invite } = await ok(door, 'com.atproto.server.createInviteCode', { admin: true, body: { useCount: 1 } })
  made.invite = invite
  fs.writeFileSync(file, JSON.stringify([...all, made]))
  results.push({ what: 'things are made', from, to: from })
}

async function find() {
  const all = JSON.parse(fs.readFileSync(file, 'utf8'))
  for (const made of all) {
    for (const [to, door] of doors) await findOne(made, to, door)
  }
  fs.writeFileSync(file, JSON.stringify(all))
}

async function findOne(made, to, door) {
  const see = (what, work) => check(`${what} from before`, made.by, to, work)
  const { person, phone, forgetful, taken, away } = made
  await see('a session', async () => {
    await session(door, person.accessJwt)
    await post(door, person.did, person.accessJwt)
    Object.assign(person, pair(await refresh(door, person.refreshJwt)))
  })
  await see('a password', () => signIn(door, person.handle, person.password))
  await see('a post', async () => {
    const [, , , collection, rkey] = made.posted.uri.split('/')
    const found = await ok(door, 'com.atproto.repo.getRecord', { query: { repo: person.handle, collection, rkey } })
    assert.equal(found.cid, made.posted.cid)
  })
  await see('an app password', async () => {
    Object.assign(phone, pair(await refresh(door, phone.refreshJwt)))
    await signIn(door, person.handle, made.appPassword)
  })
  await see('an OAuth grant', async () => {
    const app = await restore(made.grant)
    await postByApp(door, person.did, app)
    await through(door, () => app.refresh())
    await postByApp(door, person.did, app)
    made.grant = await keep(app)
  })
  await see('a browser’s cookies', async () => {
    const browser = new FormBrowser(service, made.cookies)
    const page = await through(door, () => browser.open(`${service}/account`))
    assert.ok(page.body.includes(person.handle), `${page.status} ${page.url}`)
    await authorize(door, door, door, { ...person, password: '' }, browser)
    made.cookies = browser.cookies
  })
  await see('a linked grant', async () => {
    const app = await restore(made.linked.app)
    await postByApp(door, made.linked.did, app)
    await through(door, () => app.refresh())
    await postByApp(door, made.linked.did, app)
    made.linked.app = await keep(app)
  })
  await see('a takedown', () =>
    refused(door, 'AccountTakedown', 'com.atproto.server.createSession', { body: { identifier: taken.handle, password: taken.password } }))
  if (made.code) {
    await see('a code by email', async () => {
      forgetful.password += '-new'
      await ok(door, 'com.atproto.server.resetPassword', { body: { token: made.code, password: forgetful.password } })
      await signIn(door, forgetful.handle, forgetful.password)
      made.code = null
    })
    await see('a deactivation', async () => {
      assert.equal((await session(door, away.accessJwt)).active, false)
      await ok(door, 'com.atproto.server.activateAccount', { method: 'POST', token: away.accessJwt })
    })
    await see('an invite code', () => signUp(door, { ...newPerson(map.genkan.handleDomain), inviteCode: made.invite }))
  } else {
    await see('a new password', () => signIn(door, forgetful.handle, forgetful.password))
    await see('an activation', async () => assert.equal((await signIn(door, away.handle, away.password)).active, true))
  }
}

await { make, find, cross }[step]()
console.log(JSON.stringify(results))
process.exit(0)
