// Accounts, blobs and documents for a trial: `node hostile/prepare.mjs <settings.json>`, settings
// {map, server: {dids}}. Prints what the victim and the attacks need, as JSON.

import crypto from 'node:crypto'
import fs from 'node:fs'
import { Secp256k1Keypair } from '@atproto/crypto'
import { createOp } from '@did-plc/lib'
import { OAuthApp } from '../soak/oauth-app.mjs'
import { FormBrowser } from '../soak/pages.mjs'

const { map, server } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const service = map.genkan.url

async function call(origin, nsid, { token, body, headers = {} }) {
  const isJson = !Buffer.isBuffer(body)
  const answer = await fetch(`${origin}/xrpc/${nsid}`, {
    method: 'POST',
    headers: { ...(isJson ? { 'content-type': 'application/json' } : {}), ...(token ? { authorization: `Bearer ${token}` } : {}), ...headers },
    body: isJson ? JSON.stringify(body) : body,
  })
  if (answer.status !== 200) throw new Error(`${nsid}: ${answer.status} ${await answer.text()}`)
  return answer.json()
}

async function signUp(name, origin, domain) {
  const unique = `${name}${crypto.randomBytes(4).toString('hex')}`
  const person = { handle: unique + domain, email: `${unique}@example.com`, password: crypto.randomBytes(9).toString('base64url') }
  const { did, accessJwt, refreshJwt } = await call(origin, 'com.atproto.server.createAccount', { body: person })
  return { ...person, did, accessJwt, refreshJwt }
}

/**
 * An account with two blobs that records refer to. The large one is more than the buffers of a
 * connection hold.
 */
async function withBlobs(person) {
  const { accessJwt: token, did } = person
  const blobs = {}
  for (const [name, size] of [['small', 64 * 1024], ['large', 24 * 1024 * 1024]]) {
    const headers = { 'content-type': 'application/octet-stream' }
    const { blob } = await call(service, 'com.atproto.repo.uploadBlob', { token, body: crypto.randomBytes(size), headers })
    const collection = 'com.example.file'
    await call(service, 'com.atproto.repo.createRecord', { token, body: { repo: did, collection, record: { $type: collection, blob } } })
    blobs[name] = blob.ref.$link
  }
  return { ...person, blobs }
}

async function linked(name) {
  const person = await signUp(name, map.alone.url, map.alone.handleDomain)
  const app = await OAuthApp.create(service)
  const begun = await app.begin()
  await app.finish(await new FormBrowser(service).allowLinked(begun.url, person), begun)
  return { ...person, app: { ...(await app.toJSON()), access: app.tokens.access_token } }
}

/** Registers a DID whose PDS is an origin of the attacker. */
async function didAt(origin) {
  const key = await Secp256k1Keypair.create()
  const { op, did } = await createOp({ signingKey: key.did(), handle: 'tarpit.example.com', pds: origin, rotationKeys: [key.did()], signer: key })
  const answer = await fetch(`${map.plc.url}/${did}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(op) })
  if (!answer.ok) throw new Error(`the directory refused ${did}: ${answer.status} ${await answer.text()}`)
  return did
}

const put = (origin, path, document) => fetch(`${origin}${path}`, { method: 'PUT', body: JSON.stringify(document) })

const tarpitDid = await didAt(server.url)
// Permission sets whose author's PDS never answers.
await put(map.dns.url, '/records/_lexicon.tarpit.example.com', { txt: [`did=${tarpitDid}`] })
// Client documents that take half a minute, and others that come at once.
const clients = { harmful: [], harmless: [] }
for (let index = 0; index < 120; index++) {
  for (const [kind, delay] of [['harmful', 30_000], ['harmless', 0]]) {
    const path = `/${kind}-${index}/client-metadata.json`
    const client_id = map.app.url + path
    const body = JSON.stringify({
      client_id, client_name: 'Trial', redirect_uris: [`${map.app.url}/callback`], scope: 'atproto', response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'], dpop_bound_access_tokens: true, token_endpoint_auth_method: 'none',
    })
    await put(map.app.settingsUrl, `/documents${path}`, { status: 200, delay, headers: { 'content-type': 'application/json' }, body })
    clients[kind].push(client_id)
  }
}
const domain = map.genkan.handleDomain
const world = {
  service,
  host: map.hosts[0].url,
  server,
  tarpitDid,
  clients,
  victim: await signUp('victim', service, domain),
  victimLinked: await linked('vl'),
  user: await withBlobs(await signUp('user', service, domain)),
  userLinked: await linked('ul'),
}
// Accounts of the attacker that are to be deleted by those who may not.
world.doomed = []
for (const by of ['an app password', 'an app', 'its host', 'a full session']) {
  for (let index = 0; index < 2; index++) {
    const person = { ...(await signUp('doomed', service, domain)), by }
    const { accessJwt: token, handle: identifier } = person
    const { password } = await call(service, 'com.atproto.server.createAppPassword', { token, body: { name: 'phone' } })
    person.phone = (await call(service, 'com.atproto.server.createSession', { body: { identifier, password } })).accessJwt
    const app = await OAuthApp.create(service, 'atproto transition:generic account:status?action=manage')
    const begun = await app.begin()
    await app.finish(await new FormBrowser(service).allow(begun.url, person), begun)
    person.app = { ...(await app.toJSON()), access: app.tokens.access_token }
    world.doomed.push(person)
  }
}
world.alone = { did: world.userLinked.did, url: map.alone.url }
world.others = []
for (let index = 0; index < 8; index++) world.others.push(await signUp('other', service, domain))
console.log(JSON.stringify(world))
process.exit(0)
