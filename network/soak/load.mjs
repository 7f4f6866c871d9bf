// People and apps that use Genkan until standard input ends: `node soak/load.mjs <settings.json>`.
// A line "upgraded" on standard input says that the older Genkan is gone, which did not forgive
// browsers a lost answer.
//
// Settings: {map, journal, failures, residents, linked}. `map` is the network's map. What was
// acknowledged is appended to the file `journal` before the person goes on (see journal.mjs), and
// failed requests to `failures` (see requests.mjs). Every second, and at the end, a line of
// JSON is printed: {operations, counts, accounts}.

import crypto from 'node:crypto'
import fs from 'node:fs'
import readline from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { OAuthApp } from './oauth-app.mjs'
import { FormBrowser, SignedOutError } from './pages.mjs'
import { counts, noteRequests, ofHost, once, OperationError, repeated } from './requests.mjs'

const { map, journal, failures, residents, linked } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const service = map.genkan.url
noteRequests(service, failures)
/** How long a session's access token is valid, in milliseconds. */
const LIFETIME = Number(/^(\d+)m$/.exec(map.genkan.settings.GENKAN_ACCESS_LIFETIME)[1]) * 60_000
/** A token that is refused with more than this left was refused too early. */
const NEAR_ITS_END = 30_000

let stopping = false
let isUpgraded = false
let operations = 0
let accounts = 0
const note = (row) => fs.appendFileSync(journal, JSON.stringify({ at: Date.now(), ...row }) + '\n')
const newName = () => `s${crypto.randomBytes(6).toString('hex')}`

/** Makes a call that must be answered 200. Rejects otherwise, and returns the answer's body. */
async function ok(nsid, { query, body, token, origin = service, method } = {}) {
  const url = new URL(`/xrpc/${nsid}`, origin)
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value)
  const headers = { ...(body ? { 'content-type': 'application/json' } : {}), ...(token ? { authorization: `Bearer ${token}` } : {}) }
  const answer = await fetch(url, { method: method ?? (body ? 'POST' : 'GET'), headers, body: body ? JSON.stringify(body) : undefined })
  const text = await answer.text()
  if (answer.status !== 200) throw new Error(`${nsid}: ${answer.status} ${text}`)
  return text ? JSON.parse(text) : {}
}

/** An account at Genkan, with the sessions and grants of its devices and apps, and one browser. */
class Person {
  sessions = []
  grants = []

  static async signUp() {
    const name = newName()
    const person = Object.assign(new Person(), {
      handle: name + map.genkan.handleDomain,
      email: `${name}@example.com`,
      password: crypto.randomBytes(9).toString('base64url'),
    })
    const { handle, email, password } = person
    // A repeat of a sign-up whose answer was lost finds the account.
    const made = await repeated('sign-up', () => asked(() => ok('com.atproto.server.createAccount', { body: { handle, email, password } })))
    person.did = made.did
    const endpoint = made.didDoc?.service?.find(({ id }) => id.endsWith('#atproto_pds'))?.serviceEndpoint
    person.host = map.hosts.find(({ url }) => url === endpoint)?.name
    note({ kind: 'account', did: made.did, handle, password, host: person.host })
    person.#addSession(made)
    accounts++
    return person
  }

  #addSession({ accessJwt, refreshJwt, askedAt }) {
    const session = { id: crypto.randomUUID(), accessJwt, refreshJwt, askedAt }
    note({ kind: 'session', id: session.id, did: this.did, refresh: refreshJwt })
    this.sessions.push(session)
  }

  async signIn() {
    const { handle: identifier, password } = this
    this.#addSession(await repeated('sign-in', () => asked(() => ok('com.atproto.server.createSession', { body: { identifier, password } }))))
    if (this.sessions.length > 3) await this.#signOut(this.sessions.shift())
  }

  async #signOut({ id, refreshJwt }) {
    note({ kind: 'session-ending', id })
    try {
      await repeated('sign-out', () => ok('com.atproto.server.deleteSession', { method: 'POST', token: refreshJwt }))
    } catch (error) {
      // A repeat finds the session gone if the answer that was lost was "done".
      if (!(error.attempt > 1 && [400, 401].includes(error.status))) throw error
    }
    note({ kind: 'session-ended', id, did: this.did, refresh: refreshJwt })
  }

  async refresh(session = pick(this.sessions)) {
    const { id, refreshJwt } = session
    const renewed = await orLoggedOut({ session: id, did: this.did }, () =>
      repeated('refresh', () => asked(() => ok('com.atproto.server.refreshSession', { method: 'POST', token: refreshJwt }))))
    note({ kind: 'session', id, did: this.did, refresh: renewed.refreshJwt })
    Object.assign(session, { accessJwt: renewed.accessJwt, refreshJwt: renewed.refreshJwt, askedAt: renewed.askedAt })
  }

  /** Makes a call with a session, which is refreshed once if its access token has expired. */
  async #withSession(op, work) {
    const session = pick(this.sessions)
    try {
      return await repeated(op, () => work(session.accessJwt))
    } catch (error) {
      if (!/ExpiredToken/.test(error.body)) throw error
      noteEarly(error, session.askedAt, LIFETIME)
      await this.refresh(session)
      return repeated(op, () => work(session.accessJwt))
    }
  }

  async post() {
    // A repeat makes another post: only the acknowledged one is written down.
    const made = await this.#withSession('post', (token) =>
      ok('com.atproto.repo.createRecord', { token, body: { repo: this.did, collection: 'app.bsky.feed.post', record: aPost() } }))
    note({ kind: 'post', did: this.did, uri: made.uri, cid: made.cid })
  }

  async read() {
    await this.#withSession('read', (token) =>
      ok('com.atproto.repo.listRecords', { token, query: { repo: this.did, collection: 'app.bsky.feed.post', limit: 5 } }))
    await this.#withSession('session', (token) => ok('com.atproto.server.getSession', { token }))
  }

  async rename() {
    const handle = newName() + map.genkan.handleDomain
    note({ kind: 'renaming', did: this.did, handle })
    await this.#withSession('rename', (token) => ok('com.atproto.identity.updateHandle', { token, body: { handle } }))
    note({ kind: 'renamed', did: this.did, handle })
    this.handle = handle
  }

  async authorize() {
    const grant = await repeated('authorize', async () => {
      const app = await OAuthApp.create(service)
      const begun = await app.begin()
      const back = await new FormBrowser(service).allow(begun.url, this)
      await app.finish(back, begun)
      return { id: crypto.randomUUID(), app }
    })
    await noteGrant(grant, this.did)
    this.grants.push(grant)
    if (this.grants.length > 3) await this.#leave(this.grants.shift())
  }

  /** Stops to use an app. Some people revoke what it may do, and others keep it for later. */
  async #leave({ id, app }) {
    if (Math.random() < 0.6) return
    note({ kind: 'grant-ending', id })
    await repeated('revoke', () => app.revoke())
    note({ kind: 'grant-ended', id, did: this.did, app: await app.toJSON() })
  }

  /** What the person does in the browser, which stays signed in all the time. */
  async browse() {
    if (!this.browser) {
      this.browser = new FormBrowser(service)
      this.browserId = crypto.randomUUID()
      return this.#inBrowser('browser-sign-in', (browser) => browser.signIn(this.#asTyped))
    }
    await pickByWeight([
      [10, () => this.#visit()],
      [isUpgraded ? 3 : 0, () => this.#loseAnswer()],
      [4, () => this.#authorizeHere()],
      [2, () => this.#inBrowser('browser-sign-in', (browser) => browser.signIn(this.#asTyped))],
    ])()
  }

  /** What the person types. The handle may just be changing, the DID never does. */
  get #asTyped() {
    return { handle: this.did, password: this.password }
  }

  async #visit() {
    if (Math.random() < 0.3) this.browser.update()
    await this.#inBrowser('browser-visit', async (browser) => stillSignedIn(await browser.isSignedIn(this)))
  }

  /**
   * Loses the answer that has the next cookie. The person or the browser soon tries once more, and
   * some people do nothing else for more than a minute.
   */
  async #loseAnswer() {
    // Genkan forgives one lost answer. The browser has to get another cookie before the next one.
    const cookies = JSON.stringify(this.browser.cookies)
    if (cookies === this.cookiesAtLoss) return this.#visit()
    this.cookiesAtLoss = cookies
    // Genkan rotates the cookie of a browser that has changed.
    this.browser.update()
    await this.#inBrowser('browser-loss', async (browser) => stillSignedIn(await browser.loseAnswer(this)))
    await sleep(pick([300, 2000, 8000, 20_000]))
    await this.#inBrowser('browser-visit', async (browser) => stillSignedIn(await browser.isSignedIn(this)))
    if (Math.random() < 0.3) await rest(70_000)
  }

  /** Allows an app something in the browser, without typing the password. */
  async #authorizeHere() {
    const app = await repeated('browser-authorize', async () => OAuthApp.create(service))
    await this.#inBrowser('browser-authorize', async (browser) => {
      const begun = await app.begin()
      await app.finish(await browser.allow(begun.url, { did: this.did, isSignedIn: true }), begun)
    })
    const grant = { id: crypto.randomUUID(), app }
    await noteGrant(grant, this.did)
    if (Math.random() < 0.5) await this.#leave(grant)
  }

  /** Does something in the browser, which must be signed in. */
  async #inBrowser(op, work) {
    try {
      return await repeated(op, () => work(this.browser))
    } catch (error) {
      if (error.cause instanceof SignedOutError) {
        note({ kind: 'logged-out', browser: this.browserId, did: this.did, why: `${op}: ${error.cause.message}` })
        this.browser = undefined
      }
      throw error
    } finally {
      if (this.browser) note({ kind: 'browser', id: this.browserId, did: this.did, agent: this.browser.agent, cookies: this.browser.cookies })
    }
  }

  async useGrant() {
    if (!this.grants.length) return this.authorize()
    const grant = pick(this.grants)
    await useGrant('oauth', grant, this.did)
  }

  async delete() {
    await this.#withSession('ask-delete', (token) => ok('com.atproto.server.requestAccountDelete', { method: 'POST', token }))
    const token = await code(this.email)
    note({ kind: 'deleting', did: this.did })
    const { did, password } = this
    let asked = false
    await repeated('delete', async () => {
      try {
        await ok('com.atproto.server.deleteAccount', { body: { did, password, token } })
      } catch (error) {
        // A repeat finds the account gone if the answer that was lost was "done".
        if (!asked || !/: (400|401) /.test(error.message)) throw error
      } finally {
        asked = true
      }
    })
    note({ kind: 'deleted', did })
    accounts--
  }
}

/** An account of a PDS that does not know Genkan, and an app that reaches it through Genkan. */
class LinkedPerson {
  static async create() {
    const name = newName().slice(0, 13)
    const person = { handle: name + map.alone.handleDomain, email: `${name}@example.com`, password: crypto.randomBytes(9).toString('base64url') }
    const { did } = await ok('com.atproto.server.createAccount', { body: person, origin: map.alone.url })
    const made = Object.assign(new LinkedPerson(), person, { did })
    await made.link()
    return made
  }

  async link() {
    this.grant = await repeated('link', async () => {
      const app = await OAuthApp.create(service)
      const begun = await app.begin()
      const back = await new FormBrowser(service).allowLinked(begun.url, this)
      await app.finish(back, begun)
      return { id: crypto.randomUUID(), app }
    })
    await noteGrant(this.grant, this.did)
  }

  async act() {
    const op = Math.random()
    if (op < 0.25) return refreshGrant('linked-refresh', this.grant, this.did)
    return useGrant('linked', this.grant, this.did)
  }
}

async function noteGrant({ id, app }, did) {
  note({ kind: 'grant', id, did, app: await app.toJSON() })
}

async function refreshGrant(op, grant, did) {
  await orLoggedOut({ grant: grant.id, did }, () => repeated(op, () => grant.app.refresh()))
  await noteGrant(grant, did)
}

/** Posts with a grant, or refreshes it. */
async function useGrant(op, grant, did) {
  if (Math.random() < 0.3) return refreshGrant(`${op}-refresh`, grant, did)
  const body = { repo: did, collection: 'app.bsky.feed.post', record: aPost() }
  const post = async () => {
    const answer = await grant.app.call('com.atproto.repo.createRecord', { body })
    if (answer.status !== 200) throw new Error(JSON.stringify(answer.body))
    return answer.body
  }
  let made
  try {
    made = await repeated(`${op}-post`, post)
  } catch (error) {
    if (error.status !== 401) throw error
    noteEarly(error, grant.app.askedAt, grant.app.tokens.expires_in * 1000)
    await refreshGrant(`${op}-refresh`, grant, did)
    made = await repeated(`${op}-post`, post)
  }
  note({ kind: 'post', did, uri: made.uri, cid: made.cid })
}

/** Adds the time before which none of the tokens in an answer was issued. */
async function asked(work) {
  const askedAt = Date.now()
  return { ...(await work()), askedAt }
}

/** Writes a refusal down if the token that was asked for at `askedAt` had not expired. */
function noteEarly({ op, status, body }, askedAt, lifetime) {
  const age = Date.now() - askedAt
  if (age > lifetime - NEAR_ITS_END) return
  note({ kind: 'refused', op, status, stuck: false, why: `a token of ${age / 1000} s, which lives ${lifetime / 1000} s: ${body}` })
}

function stillSignedIn(is) {
  if (!is) throw new SignedOutError('the browser was signed in, and is asked for the password')
}

/** Passes on the result of a refresh. A refusal means that the person is logged out. */
async function orLoggedOut(who, work) {
  try {
    return await work()
  } catch (error) {
    if (error instanceof OperationError) note({ kind: 'logged-out', ...who, stuck: error.stuck, why: error.message })
    throw error
  }
}

async function code(email) {
  for (let tries = 0; tries < 300; tries++) {
    const messages = await fetch(`${map.mail.url}/messages?to=${encodeURIComponent(email)}`).then((answer) => answer.json())
    const found = messages.map(({ text }) => /\b[A-Z2-7]{5}-[A-Z2-7]{5}\b/i.exec(text)?.[0]).filter(Boolean)
    if (found.length) return found.at(-1)
    await sleep(200)
  }
  throw new Error(`no code arrived for ${email}`)
}

function aPost() {
  return { $type: 'app.bsky.feed.post', text: crypto.randomBytes(20).toString('hex'), createdAt: new Date().toISOString() }
}

function pick(list) {
  return list[crypto.randomInt(list.length)]
}

function pickByWeight(choices) {
  let at = Math.random() * choices.reduce((sum, [weight]) => sum + weight, 0)
  return choices.find(([weight]) => (at -= weight) < 0)[1]
}

/** Waits, but not beyond the end. */
async function rest(millis) {
  const until = Date.now() + millis
  while (!stopping && Date.now() < until) await sleep(200)
}

/** Does one thing after another, at random, until the end. */
async function live(choices, pause = 500) {
  while (!stopping) {
    await attempt(pickByWeight(choices))
    await rest(100 + Math.random() * pause)
  }
}

function why(error) {
  const cause = error.cause ? `; cause: ${String(error.cause.stack).slice(0, 1000)}` : ''
  return (error instanceof OperationError ? error.message : String(error.stack)) + cause
}

/** Does something. A refusal is written down, and life goes on. */
async function attempt(act) {
  try {
    await act()
    operations++
  } catch (error) {
    note({ kind: 'refused', op: error.op ?? 'other', status: error.status, stuck: error.stuck ?? false, why: why(error) })
    await sleep(500)
  }
}

async function resident() {
  const person = await Person.signUp()
  await ofHost(person.host, () => Promise.all([live([[1, () => person.browse()]], 4000), liveWithApps(person)]))
}

async function liveWithApps(person) {
  await live([
    [40, () => person.post()],
    [15, () => person.read()],
    [15, () => person.refresh()],
    [4, () => person.signIn()],
    [18, () => person.useGrant()],
    [3, () => person.authorize()],
    [2, () => person.rename()],
  ])
}

/** People who sign up, post, and mostly leave again. */
async function newcomers() {
  await live([[1, async () => {
    const person = await Person.signUp()
    await ofHost(person.host, async () => {
      await person.post()
      await person.refresh()
      if (Math.random() < 0.6) await person.delete()
    })
    await rest(500)
  }]])
}

async function linkedResident() {
  const person = await once('linked-sign-up', () => LinkedPerson.create())
  await ofHost('alone', () => live([[1, () => person.act()]]))
}

const lines = readline.createInterface({ input: process.stdin })
lines.on('line', (line) => (isUpgraded ||= line === 'upgraded'))
lines.once('close', () => (stopping = true))
const report = () => console.log(JSON.stringify({ operations, accounts, counts }))
const reports = setInterval(report, 1000)
// One after the other, so that nobody is refused for a burst of sign-ups.
const lives = []
for (let index = 0; index < linked; index++) lives.push(attempt(linkedResident))
for (let index = 0; index < residents; index++) {
  lives.push(attempt(resident))
  await sleep(150)
}
lives.push(newcomers())
await Promise.all(lives)
clearInterval(reports)
report()
process.exit(0)
