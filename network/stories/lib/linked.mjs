// Accounts of the stand-alone PDS, and apps that reach them through Genkan, with a plain OAuth
// library.

import dns from 'node:dns'
import crypto from 'node:crypto'
import http from 'node:http'
import { AtpAgent } from '@atproto/api'
import * as oauth from 'oauth4webapi'
import { putDocument } from './oauth.mjs'
import { assert, map, newName } from './stage.mjs'
import { allow, look } from './browser.mjs'

// Only this network's name server knows the names of its TLS servers.
const system = dns.lookup
dns.lookup = (name, options, done = options) => {
  if (!/\.(example\.com|genkan\.network)$/.test(name)) return system(name, options, done)
  return options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)
}

/** Signs a person up at a PDS that does not know Genkan. */
export async function externalPersonAt(service, domain, story = 'linked') {
  const name = newName(story).slice(0, 17)
  const agent = new AtpAgent({ service })
  const person = { handle: name + domain, email: `${name}@example.com`, password: crypto.randomBytes(9).toString('base64url') }
  await agent.createAccount(person)
  return { ...person, did: agent.assertDid, agent, pds: service }
}

export const externalPerson = (story) => externalPersonAt(map.alone.url, map.alone.handleDomain, story)

/**
 * Makes a call, and repeats it if the server asked for a DPoP nonce, which the library has
 * remembered.
 */
async function withNonce(call) {
  try {
    return await call()
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
    return call()
  }
}

let apps = 0

/**
 * An app that signs people in at the Genkan at `service`: under development on loopback, or
 * published with a metadata document if it is `confidential` or uses `bearer` tokens.
 */
export async function linkedApp(t, service, { confidential = false, scope = 'atproto transition:generic', bearer = false } = {}) {
  const plain = service.startsWith('http:') ? { [oauth.allowInsecureRequests]: true } : {}
  const issuer = new URL(service)
  const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...plain })
  const as = await oauth.processDiscoveryResponse(issuer, found)
  let client, auth, redirectUri, comeBack
  if (confidential || bearer) {
    const folder = `/linked-${process.pid}-${++apps}`
    const at = (path) => `${map.app.url}${folder}${path}`
    redirectUri = at('/callback')
    const key = await oauth.generateKeyPair('ES256', { extractable: true })
    const jwk = await crypto.webcrypto.subtle.exportKey('jwk', key.publicKey)
    const { kty, crv, x, y } = jwk
    const metadata = {
      client_id: at('/client-metadata.json'),
      client_name: 'The greenhouse',
      redirect_uris: [redirectUri],
      scope,
      response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'],
      dpop_bound_access_tokens: !bearer,
      token_endpoint_auth_method: confidential ? 'private_key_jwt' : 'none',
      ...(confidential
        ? { token_endpoint_auth_signing_alg: 'ES256', jwks: { keys: [{ kty, crv, x, y, kid: 'one', alg: 'ES256', use: 'sig' }] } }
        : {}),
    }
    await putDocument(`${folder}/client-metadata.json`, {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(metadata),
    })
    await putDocument(`${folder}/callback`, { body: '<!doctype html><title>App</title>Back at the app' })
    client = { client_id: metadata.client_id }
    auth = confidential ? oauth.PrivateKeyJwt({ key: key.privateKey, kid: 'one' }) : oauth.None()
    comeBack = async (page, click) => {
      await Promise.all([page.waitForURL((url) => url.pathname === `${folder}/callback`), click()])
      return new URL(page.url())
    }
  } else {
    const waiting = []
    const server = http.createServer((request, response) => {
      const url = new URL(request.url, redirectUri)
      if (url.pathname !== '/callback') return response.writeHead(204).end()
      response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>App</title>Back at the app')
      waiting.shift()?.(url)
    })
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.after(() => server.close())
    redirectUri = `http://127.0.0.1:${server.address().port}/callback`
    client = { client_id: `http://localhost?${new URLSearchParams({ redirect_uri: redirectUri, scope })}` }
    auth = oauth.None()
    comeBack = async (page, click) => {
      const back = new Promise((resolve) => waiting.push(resolve))
      await click()
      return back
    }
  }
  const bound = bearer ? {} : { DPoP: oauth.DPoP(client, await oauth.generateKeyPair('ES256')) }
  const options = { ...bound, ...plain }
  const app = { client, scope, service, tokens: undefined }

  /**
   * Pushes an authorization request. Returns the URL for the browser, and the function that
   * finishes the sign-in.
   */
  app.begin = async (more = {}) => {
    const [verifier, state] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState()]
    const parameters = {
      response_type: 'code',
      redirect_uri: redirectUri,
      scope,
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      ...more,
    }
    const { request_uri } = await withNonce(async () =>
      oauth.processPushedAuthorizationResponse(
        as, client, await oauth.pushedAuthorizationRequest(as, client, auth, parameters, options)))
    const url = new URL(as.authorization_endpoint)
    url.search = new URLSearchParams({ client_id: client.client_id, request_uri })
    const finish = async (back) => {
      const answered = oauth.validateAuthResponse(as, client, back, state)
      app.tokens = await withNonce(async () =>
        oauth.processAuthorizationCodeResponse(
          as, client, await oauth.authorizationCodeGrantRequest(as, client, auth, answered, redirectUri, verifier, options)))
      return app.tokens
    }
    return { url: url.href, finish }
  }

  app.comeBack = comeBack

  /** Signs a person in through the person's own server, and returns the app's tokens. */
  app.signIn = async (page, person, { identifier = person.handle, name = 'linked' } = {}) => {
    const { url, finish } = await app.begin()
    await page.goto(url)
    await toOwnServer(page, identifier)
    await atReference(page, person)
    await page.waitForURL((url) => url.origin === service)
    await page.getByRole('button', { name: 'Allow', exact: true }).waitFor()
    await look(page, `${name}-consent`)
    const back = await comeBack(page, () => allow(page))
    return finish(back)
  }

  app.refresh = async () => {
    app.tokens = await withNonce(async () =>
      oauth.processRefreshTokenResponse(
        as, client, await oauth.refreshTokenGrantRequest(as, client, auth, app.tokens.refresh_token, options)))
    return app.tokens
  }

  app.revoke = async () =>
    withNonce(async () =>
      oauth.processRevocationResponse(
        await oauth.revocationRequest(as, client, auth, app.tokens.refresh_token, options)))

  /**
   * Makes one XRPC call with this app's token, at Genkan or another origin. Returns {status,
   * headers, body}.
   */
  app.call = async (nsid, { query, body, headers = {}, method, at = service } = {}) => {
    const url = new URL(`/xrpc/${nsid}`, at)
    for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value)
    const isJson = body !== undefined && !(body instanceof Uint8Array)
    const sent = new Headers({ ...(isJson ? { 'content-type': 'application/json' } : {}), ...headers })
    const content = body === undefined ? null : isJson ? JSON.stringify(body) : body
    const verb = method ?? (body === undefined ? 'GET' : 'POST')
    const once = () => oauth.protectedResourceRequest(app.tokens.access_token, verb, url, sent, content, options)
    let answer
    try {
      answer = await withNonce(once)
    } catch (error) {
      if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error
      answer = error.response
    }
    const bytes = Buffer.from(await answer.arrayBuffer())
    const parsed = answer.headers.get('content-type')?.includes('json') ? JSON.parse(bytes) : bytes
    return { status: answer.status, headers: answer.headers, body: parsed }
  }

  /** Makes one XRPC call that must succeed, and returns the answer's body. */
  app.ok = async (nsid, options) => {
    const answer = await app.call(nsid, options)
    assert.equal(answer.status, 200, `${nsid}: ${answer.status} ${JSON.stringify(answer.body).slice(0, 400)}`)
    return answer.body
  }
  return app
}

/**
 * Types a handle or DID on Genkan's sign-in page, and follows the redirect to the account's own
 * server.
 */
export async function toOwnServer(page, identifier) {
  const name = page.getByLabel(/handle|e-?mail/i).first()
  if (await name.isEditable()) await name.fill(identifier)
  await look(page, 'linked-sign-in')
  await Promise.all([page.waitForURL((url) => url.pathname === '/oauth/authorize' && url.origin !== map.genkan.url && !url.host.startsWith('door.')), page.getByRole('button', { name: 'Sign in' }).click()])
}

/** Signs in and consents on the pages of the reference PDS. */
export async function atReference(page, person) {
  const password = page.locator('input[type=password]')
  const consent = page.getByRole('button', { name: /^(authorize|allow|accept)/i })
  await password.or(consent).first().waitFor()
  if (await password.isVisible()) {
    const name = page.locator('input[name=username]')
    if ((await name.count()) && (await name.isEditable()) && !(await name.inputValue())) await name.fill(person.handle)
    await password.fill(person.password)
    await page.locator('button[type=submit]').first().click()
  }
  await consent.click()
}
