// Accounts, blobs and documents for a trial: `node hostile/prepare.mjs <settings.json>`, settings
// {map, server, silentPort, closedOrigin}. Prints what the victim and the attacks need, as JSON.

import crypto from 'node:crypto'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Secp256k1Keypair } from '@atproto/crypto'
import { createOp } from '@did-plc/lib'
import { OAuthApp } from '../soak/oauth-app.mjs'
import { FormBrowser } from '../soak/pages.mjs'

const { map, server, silentPort, closedOrigin } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const service = map.genkan.url

/** Makes a call, and repeats it as long as the answer is 503: the machine may be slow. */
async function call(origin, nsid, { token, body, headers = {} }, attempt = 1) {
  const isJson = !Buffer.isBuffer(body)
  const answer = await fetch(`${origin}/xrpc/${nsid}`, {
    method: 'POST',
    headers: { ...(isJson ? { 'content-type': 'application/json' } : {}), ...(token ? { authorization: `Bearer ${token}` } : {}), ...headers },
    body: isJson ? JSON.stringify(body) : body,
  })
  if (answer.status === 503 && attempt < 20) {
    await sleep(1000)
    return call(origin, nsid, { token, body, headers }, attempt + 1)
  }
  if (answer.status !== 200) throw new Error(`${nsid}: ${answer.status} ${await answer.text()}`)
  return answer.json()
}

async function signUp(name, origin, domain) {
  const unique = `${name}${crypto.randomBytes(4).toString('hex')}`
  const person = { handle: unique + domain, email: `${unique}@example.com`, password: crypto.randomBytes(9).toString('base64url') }
  const { did, accessJwt, refreshJwt } = await call(origin, 'com.atproto.server.createAccount', { body: person })
  return { ...person, did, accessJwt, refreshJwt }
}

/** Does something so many times, some of it at a time. Returns the results. */
async function times(count, act, atOnce = 6) {
  const results = []
  let next = 0
  const worker = async () => {
    while (next < count) {
      const index = next++
      results[index] = await act(index)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return results
}

/**
 * Puts two blobs that records refer to into an account. The large one is more than the buffers of a
 * connection hold.
 */
async function withBlobs(person, origin) {
  const { accessJwt: token, did } = person
  const blobs = {}
  for (const [name, size] of [['small', 64 * 1024], ['large', 24 * 1024 * 1024]]) {
    const headers = { 'content-type': 'application/octet-stream' }
    const { blob } = await call(origin, 'com.atproto.repo.uploadBlob', { token, body: crypto.randomBytes(size), headers })
    const collection = 'com.example.file'
    await call(origin, 'com.atproto.repo.createRecord', { token, body: { repo: did, collection, record: { $type: collection, blob } } })
    blobs[name] = blob.ref.$link
  }
  return { ...person, blobs }
}

const kept = async (app) => ({ ...(await app.toJSON()), access: app.tokens.access_token })

async function linked(name) {
  const person = await signUp(name, map.alone.url, map.alone.handleDomain)
  const app = await OAuthApp.create(service)
  const begun = await app.begin()
  await app.finish(await new FormBrowser(service).allowLinked(begun.url, person), begun)
  return { ...person, app: await kept(app) }
}

/** Has an app get a grant of an account that lives at Genkan. */
async function allowed(person, scope, published, browser = new FormBrowser(service)) {
  const app = await OAuthApp.create(service, scope, published)
  const begun = await app.begin()
  await app.finish(await browser.allow(begun.url, { ...person, remember: true }), begun)
  return kept(app)
}

/** Registers a DID whose PDS is an origin of the attacker. */
async function didAt(origin, handle) {
  const key = await Secp256k1Keypair.create()
  const { op, did } = await createOp({ signingKey: key.did(), handle, pds: origin, rotationKeys: [key.did()], signer: key })
  const answer = await fetch(`${map.plc.url}/${did}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(op) })
  if (!answer.ok) throw new Error(`the directory refused ${did}: ${answer.status} ${await answer.text()}`)
  return did
}

const put = (origin, path, document) => fetch(`${origin}${path}`, { method: 'PUT', body: JSON.stringify(document) })
const name = (name, record) => put(map.dns.url, `/records/${name}`, record)

const HERE = { a: ['127.0.0.1'] }
/** What one origin may hold of a pool is bounded, so there are many. */
const TARPITS = 64
const tarpits = await times(TARPITS, async (index) => {
  const handle = `t${index}.example.com`
  const origin = `https://${handle}:${silentPort}`
  const did = await didAt(origin, handle)
  await name(handle, HERE)
  await name(`_atproto.${handle}`, { txt: [`did=${did}`] })
  await name(`_lexicon.${handle}`, { txt: [`did=${did}`] })
  return { handle, origin, did }
})
/** Authors of permission sets: the NSIDs without the last segment. */
const author = async (label, did) => {
  await name(`_lexicon.${label}.example.com`, { txt: [`did=${did}`] })
  return `com.example.${label}`
}
await name('inner.example.com', HERE)
const trapped = await times(4, (index) =>
  didAt([`http://localhost:${server.trapPort}`, `https://inner.example.com:${server.trapPort}`, `http://127.0.0.1:${server.trapPort}`, `https://localhost:${server.trapPort}`][index], 'inner.example.com'))

/** The document of a client at the network's web server. */
async function client(path, more, answer) {
  const client_id = map.app.url + path
  const body = JSON.stringify({
    client_id, client_name: 'Trial', redirect_uris: [`${map.app.url}/callback`], scope: 'atproto', response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token'], dpop_bound_access_tokens: true, token_endpoint_auth_method: 'none', ...more,
  })
  const document = { status: 200, headers: { 'content-type': 'application/json' }, body, ...answer }
  await put(map.app.settingsUrl, `/documents${path}`, document)
  return { client_id, path, document }
}

// Documents at origins that never answer, some that take half a minute, and others that come at once.
const clients = { harmful: tarpits.flatMap(({ origin }) => [0, 1, 2].map((index) => `${origin}/${index}/client-metadata.json`)), harmless: [] }
for (let index = 0; index < 32; index++) {
  clients.harmful.push((await client(`/slow-${index}/client-metadata.json`, {}, { delay: 30_000 })).client_id)
  clients.harmless.push((await client(`/quick-${index}/client-metadata.json`)).client_id)
}

const domain = map.genkan.handleDomain
const world = {
  service,
  host: map.hosts[0].url,
  directory: map.plc.url,
  appSettings: map.app.settingsUrl,
  adminPassword: map.genkan.adminPassword,
  server,
  tarpits,
  trapped,
  clients,
  victim: await signUp('victim', service, domain),
  victimLinked: await linked('vl'),
  user: await withBlobs(await signUp('user', service, domain), service),
  people: await times(5, () => signUp('user', service, domain)),
  linkedPeople: await times(3, () => linked('ul'), 1),
}
world.alone = await withBlobs(world.linkedPeople[0], map.alone.url)
world.sets = [
  ...tarpits.map((_, index) => `com.example.t${index}`),
  await author('own', world.user.did),
  await author('down', await didAt(closedOrigin, 'down.example.com')),
]
// Clients that answer now and will not later.
const browser = new FormBrowser(service)
world.silentClients = await times(40, async (index) => {
  const made = await client(`/turned-silent-${index}/client-metadata.json`)
  const published = { client_id: made.client_id, redirect: `${map.app.url}/callback` }
  return { ...made, ...(await allowed(world.user, 'atproto', published, browser)) }
}, 1)
// Accounts of the attacker that are to be deleted by those who may not.
const holders = ['an app password', 'an app', 'its host', 'a full session']
world.doomed = await times(2 * holders.length, async (index) => {
  const person = { ...(await signUp('doomed', service, domain)), by: holders[index % holders.length] }
  const { accessJwt: token, handle: identifier } = person
  const { password } = await call(service, 'com.atproto.server.createAppPassword', { token, body: { name: 'phone' } })
  person.phone = (await call(service, 'com.atproto.server.createSession', { body: { identifier, password } })).accessJwt
  return { ...person, app: await allowed(person, 'atproto transition:generic account:status?action=manage') }
})
world.others = await times(100, () => signUp('other', service, domain))
// A pipe takes it in pieces.
process.stdout.write(JSON.stringify(world) + '\n', () => process.exit(0))
