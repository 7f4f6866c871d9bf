// OAuth apps built on the published clients.

import http from 'node:http'
import { JoseKey, NodeOAuthClient, buildAtprotoLoopbackClientMetadata } from '@atproto/oauth-client-node'
import { map, service } from './stage.mjs'

const memory = () => {
  const map = new Map()
  return {
    get: async (key) => map.get(key),
    set: async (key, value) => void map.set(key, value),
    del: async (key) => void map.delete(key),
    entries: map,
  }
}

/** Locks by name, for this process. */
function locks() {
  const tails = new Map()
  return async (name, work) => {
    const before = tails.get(name) ?? Promise.resolve()
    const mine = before.catch(() => {}).then(work)
    tails.set(name, mine)
    return mine
  }
}

/** A `fetch` that notes each request in `calls`: {method, url, status, headers}. */
function noting() {
  const calls = []
  const noted = async (input, init) => {
    const request = new Request(input, init)
    const call = { method: request.method, url: request.url, headers: Object.fromEntries(request.headers), status: 0 }
    calls.push(call)
    const answer = await fetch(request)
    call.status = answer.status
    return answer
  }
  return { calls, fetch: noted }
}

/** A server on a loopback port, to which browsers come back after a sign-in. */
async function callbackServer(t) {
  const waiting = []
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://127.0.0.1')
    if (pathname !== '/callback') return response.writeHead(204).end() // its icon
    response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>App</title>Back at the app')
    waiting.shift()?.(searchParams)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  return {
    uri: `http://127.0.0.1:${server.address().port}/callback`,
    next: () => new Promise((resolve) => waiting.push(resolve)),
  }
}

function client(clientMetadata, { keyset, fetch }) {
  const sessionStore = memory()
  const oauth = new NodeOAuthClient({
    clientMetadata,
    keyset,
    stateStore: memory(),
    sessionStore,
    requestLock: locks(),
    allowHttp: true,
    handleResolver: service,
    plcDirectoryUrl: map.plc.url,
    fetch,
  })
  return { oauth, sessionStore }
}

/** An app under development, without registration and with a loopback redirect. */
export async function loopbackApp(t, scope = 'atproto transition:generic') {
  const callback = await callbackServer(t)
  const { calls, fetch } = noting()
  const metadata = buildAtprotoLoopbackClientMetadata({ scope, redirect_uris: [callback.uri] })
  return { ...client(metadata, { fetch }), calls, scope, next: callback.next, id: metadata.client_id }
}

let apps = 0

/** An app with a metadata document at an https name. A confidential one has keys. */
export async function publishedApp(t, { scope = 'atproto transition:generic', confidential = false, ...more } = {}) {
  const folder = `/app-${process.pid}-${++apps}`
  const at = (path) => `${map.app.url}${folder}${path}`
  const keyset = confidential ? [await JoseKey.generate(['ES256'], `key-${apps}`)] : undefined
  const metadata = {
    client_id: at('/client-metadata.json'),
    client_name: 'The garden',
    client_uri: at('/'),
    redirect_uris: [at('/callback')],
    scope,
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token'],
    application_type: 'web',
    dpop_bound_access_tokens: true,
    token_endpoint_auth_method: confidential ? 'private_key_jwt' : 'none',
    ...(confidential ? { token_endpoint_auth_signing_alg: 'ES256', jwks_uri: at('/jwks.json') } : {}),
    ...more,
  }
  const json = { 'content-type': 'application/json' }
  await putDocument(`${folder}/client-metadata.json`, { headers: json, body: JSON.stringify(metadata) })
  await putDocument(`${folder}/callback`, { body: '<!doctype html><title>App</title>Back at the app' })
  const { calls, fetch } = noting()
  const made = client(metadata, { keyset, fetch })
  if (confidential) await putDocument(`${folder}/jwks.json`, { headers: json, body: JSON.stringify(made.oauth.jwks) })
  return { ...made, calls, scope, folder, metadata, keyset, id: metadata.client_id }
}

/** Puts a document on the app's web server. */
export async function putDocument(path, document) {
  const answer = await fetch(`${map.app.settingsUrl}/documents${path}`, {
    method: 'PUT',
    body: JSON.stringify({ status: 200, ...document }),
  })
  if (!answer.ok) throw new Error(`the app's server: ${answer.status}`)
}

/**
 * Waits until the browser is back at an app of either kind, and returns the parameters that it
 * brought.
 */
export async function comeBack(app, page, click) {
  if (app.next) {
    const [parameters] = await Promise.all([app.next(), click()])
    return parameters
  }
  await Promise.all([page.waitForURL((url) => url.pathname === `${app.folder}/callback`), click()])
  return new URL(page.url()).searchParams
}
