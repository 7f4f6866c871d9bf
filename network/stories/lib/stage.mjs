// Helpers for all stories: the network's map, sign-ups, plain XRPC calls, and the members'
// switches.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import crypto from 'node:crypto'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Agent, CredentialSession } from '@atproto/api'

export const map = JSON.parse(fs.readFileSync(process.env.GENKAN_TEST_NETWORK, 'utf8'))
export const service = map.genkan.url

/** A short first part of a handle, which no account has and which names the story that made it. */
export function newName(story) {
  return `${story}-${crypto.randomBytes(4).toString('hex')}`
}

/** A session that stays at Genkan, even if the DID document names another server. */
export class PinnedSession extends CredentialSession {
  get dispatchUrl() {
    return this.serviceUrl
  }
}

/** A `fetch` that notes each request in `calls`: {origin, nsid, status}. */
export function notingFetch() {
  const calls = []
  const noting = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input)
    const call = { origin: url.origin, nsid: url.pathname.replace('/xrpc/', ''), status: 0 }
    calls.push(call)
    const answer = await fetch(input, init)
    call.status = answer.status
    return answer
  }
  return { calls, fetch: noting }
}

/** Signs a person up at Genkan with the published client. */
export async function signUp(story, Session = CredentialSession) {
  const name = newName(story)
  const person = {
    handle: name + map.genkan.handleDomain,
    email: `${name}@example.com`,
    password: crypto.randomBytes(9).toString('base64url'),
  }
  const { calls, fetch } = notingFetch()
  const session = new Session(new URL(service), fetch)
  const { data } = await session.createAccount(person)
  const home = await homeOf(data.did)
  return { ...person, did: data.did, created: data, home, session, agent: new Agent(session), calls }
}

/** The host that the directory names as an account's home. */
export async function homeOf(did) {
  const { services } = await directory(did)
  const home = map.hosts.find(({ url }) => url === services.atproto_pds.endpoint)
  assert.ok(home, `${services.atproto_pds.endpoint} is one of our hosts`)
  return home
}

/** What the PLC directory itself (not Genkan's front) has of a DID. */
export async function directory(did) {
  const answer = await fetch(`${map.plc.url}/${did}/data`)
  assert.equal(answer.status, 200, `${did} is in the directory`)
  return answer.json()
}

/**
 * Makes one XRPC call without a client. Returns {status, headers, body}; `body` is parsed JSON, or
 * bytes.
 */
export async function xrpc(origin, nsid, { query, body, token, headers = {}, method } = {}) {
  const url = new URL(`/xrpc/${nsid}`, origin)
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value)
  const isJson = body !== undefined && !(body instanceof Uint8Array)
  const answer = await fetch(url, {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    headers: {
      ...(isJson ? { 'content-type': 'application/json' } : {}),
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...headers,
    },
    body: isJson ? JSON.stringify(body) : body,
  })
  const bytes = Buffer.from(await answer.arrayBuffer())
  const parsed = answer.headers.get('content-type')?.includes('json') ? JSON.parse(bytes) : bytes
  return { status: answer.status, headers: answer.headers, body: parsed }
}

/** Calls a procedure that has no body. */
export function post(origin, nsid, token) {
  return xrpc(origin, nsid, { method: 'POST', token })
}

/** Runs Genkan's command line on the running Genkan's data, and returns its output. */
export async function genkan(...words) {
  const env = { ...process.env, ...map.genkan.settings }
  const { stdout } = await promisify(execFile)(map.genkan.binary, words, { env })
  return stdout
}

/** Starts, stops, kills, restarts, pauses or resumes a member of the network. */
export async function member(name, action) {
  const answer = await fetch(`${map.control.url}/members/${name}/${action}`, { method: 'POST' })
  const told = await answer.json()
  assert.equal(answer.status, 200, told.error)
  return told
}

/** Whether the running Genkan counts a host as healthy. */
export async function isHealthy(host) {
  const metrics = await fetch(`${map.genkan.operationsUrl}/metrics`).then((answer) => answer.text())
  const [, healthy] = new RegExp(`^genkan_host_healthy\\{host="${host}"\\} ([01])$`, 'm').exec(metrics) ?? []
  assert.ok(healthy, `there is a metric for ${host}`)
  return healthy === '1'
}

/** The first truthy result of `check`, which is called every `pause` ms for at most `within` ms. */
export async function eventually(what, check, within = 30_000, pause = 200) {
  const end = Date.now() + within
  for (;;) {
    const found = await check()
    if (found) return found
    assert.ok(Date.now() < end, `not within ${within} ms: ${what}`)
    await sleep(pause)
  }
}

/** Returns the claims of a JWT without checking its signature. */
export function claims(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
}

/** Puts a handle's DID into the name server that Genkan and the hosts use. */
export async function publishHandle(handle, did) {
  await fetch(`${map.dns.url}/handles/${handle}`, { method: 'PUT', body: JSON.stringify({ did }) })
}

/** Puts a record into the name server: {txt?: […], a?: […]}. */
export async function publishRecord(name, record) {
  const answer = await fetch(`${map.dns.url}/records/${name}`, { method: 'PUT', body: JSON.stringify(record) })
  assert.equal(answer.status, 200, name)
}

export { assert, sleep }
