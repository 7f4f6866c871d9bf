// Calls of each kind on large tables: `node scale/measure.mjs <settings.json>`.
//
// Settings: {map, step, state, accounts, seconds}. Steps:
//   prepare   Signs people up, writes them to `state`, and prints the first one.
//   measure   Makes calls of all kinds for some seconds and prints {kind: {calls, failures, p50, p99}},
//             in milliseconds. Accounts 1 to `accounts` (s<n>.test) have the first one's password.

import crypto from 'node:crypto'
import fs from 'node:fs'
import { OAuthApp } from '../soak/oauth-app.mjs'
import { FormBrowser } from '../soak/pages.mjs'

const { map, step, state, accounts, seconds } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const service = map.genkan.url
const ADMIN = `Basic ${Buffer.from(`admin:${map.genkan.adminPassword}`).toString('base64')}`
const WORKERS = 4
const EXAMPLES = 3
const taken = {}

async function timed(kind, work) {
  const row = (taken[kind] ??= { took: [], failures: [] })
  const began = performance.now()
  try {
    return await work()
  } catch (error) {
    row.failures.push(String(error.message ?? error).slice(0, 300))
    return null
  } finally {
    row.took.push(performance.now() - began)
  }
}

async function call(nsid, { query, body, token, admin, method } = {}) {
  const url = new URL(`/xrpc/${nsid}`, service)
  for (const [name, value] of Object.entries(query ?? {})) for (const one of [value].flat()) url.searchParams.append(name, one)
  const authorization = admin ? ADMIN : token && `Bearer ${token}`
  const headers = { ...(body ? { 'content-type': 'application/json' } : {}), ...(authorization ? { authorization } : {}) }
  const answer = await fetch(url, { method: method ?? (body ? 'POST' : 'GET'), headers, body: body ? JSON.stringify(body) : undefined })
  const text = await answer.text()
  if (answer.status !== 200) throw new Error(`${nsid}: ${answer.status} ${text}`)
  return text ? JSON.parse(text) : {}
}

async function signUp() {
  const name = `r${crypto.randomBytes(6).toString('hex')}`
  const person = { handle: name + map.genkan.handleDomain, email: `${name}@example.com`, password: crypto.randomBytes(9).toString('base64url') }
  return { ...person, ...(await call('com.atproto.server.createAccount', { body: person })) }
}

/** One of the accounts that nobody signed up, and that is neither taken down nor deactivated. */
function anyone(password) {
  for (;;) {
    const number = crypto.randomInt(1, accounts + 1)
    if (number % 100 !== 0) return { handle: `s${number}.test`, password }
  }
}

async function sessions(password) {
  const { handle: identifier } = anyone(password)
  const made = await timed('createSession', () => call('com.atproto.server.createSession', { body: { identifier, password } }))
  if (!made) return
  await timed('getSession, first', () => call('com.atproto.server.getSession', { token: made.accessJwt }))
  await timed('getSession, again', () => call('com.atproto.server.getSession', { token: made.accessJwt }))
  let token = made.refreshJwt
  for (let time = 0; time < 2; time++) {
    const renewed = await timed('refreshSession', () => call('com.atproto.server.refreshSession', { method: 'POST', token }))
    token = renewed?.refreshJwt ?? token
  }
  await timed('deleteSession', () => call('com.atproto.server.deleteSession', { method: 'POST', token }))
}

async function reads(password) {
  for (let time = 0; time < 4; time++) {
    const { handle } = anyone(password)
    const found = await timed('resolveHandle', () => call('com.atproto.identity.resolveHandle', { query: { handle } }))
    if (found) await timed('admin.getAccountInfo', () => call('com.atproto.admin.getAccountInfo', { admin: true, query: { did: found.did } }))
  }
}

async function records(person) {
  const record = { $type: 'app.bsky.feed.post', text: crypto.randomUUID(), createdAt: new Date().toISOString() }
  const collection = 'app.bsky.feed.post'
  const made = await timed('createRecord', () => call('com.atproto.repo.createRecord', { token: person.accessJwt, body: { repo: person.did, collection, record } }))
  if (!made) return
  const rkey = made.uri.split('/').at(-1)
  await timed('getRecord', () => call('com.atproto.repo.getRecord', { query: { repo: person.did, collection, rkey } }))
}

async function apps(password) {
  const person = anyone(password)
  const app = await OAuthApp.create(service)
  const begun = await timed('PAR', () => app.begin())
  const back = begun && (await timed('pages: sign-in and consent', () => new FormBrowser(service).allow(begun.url, person)))
  if (!back) return
  await timed('code → tokens', () => app.finish(back, begun))
  if (!app.tokens) return
  for (let time = 0; time < 3; time++) await timed('OAuth refresh', () => app.refresh())
  await timed('OAuth revoke', () => app.revoke())
}

async function takedown(person) {
  const subject = { $type: 'com.atproto.admin.defs#repoRef', did: person.did }
  const set = (applied) => call('com.atproto.admin.updateSubjectStatus', { admin: true, body: { subject, takedown: { applied, ref: 'x' } } })
  await timed('takedown', () => set(true))
  await timed('restore', () => set(false))
}

async function measure() {
  const people = JSON.parse(fs.readFileSync(state, 'utf8'))
  const { password } = people[0]
  const until = Date.now() + seconds * 1000
  const work = async (_, index) => {
    let person = people[index + 1]
    ;({ accessJwt: person.accessJwt } = await call('com.atproto.server.createSession', { body: { identifier: person.handle, password: person.password } }))
    for (let round = 0; Date.now() < until; round++) {
      await sessions(password)
      await reads(password)
      await records(person)
      if (round % 2 === index % 2) await apps(password)
      if (round % 5 === index) await timed('sign-up', signUp)
      if (round % 4 === 0) await takedown(people[index + 1 + WORKERS])
    }
  }
  await Promise.all(Array.from({ length: WORKERS }, work))
  const figures = ({ took, failures }) => {
    took.sort((a, b) => a - b)
    const at = (share) => took[Math.min(took.length - 1, Math.floor(took.length * share))]
    return { calls: took.length, failures: failures.length, examples: failures.slice(0, EXAMPLES), p50: at(0.5), p99: at(0.99) }
  }
  return Object.fromEntries(Object.entries(taken).map(([kind, row]) => [kind, figures(row)]))
}

async function prepare() {
  const people = []
  for (let count = 0; count < 1 + 2 * WORKERS; count++) people.push(await signUp())
  fs.writeFileSync(state, JSON.stringify(people))
  return { did: people[0].did }
}

console.log(JSON.stringify(await { prepare, measure }[step]()))
process.exit(0)
