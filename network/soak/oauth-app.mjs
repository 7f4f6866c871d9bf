// An OAuth app under development, whose state is plain JSON: a grant can be written down and used
// by another process.

import crypto from 'node:crypto'
import * as oauth from 'oauth4webapi'

const REDIRECT = 'http://127.0.0.1/callback'
const SCOPE = 'atproto transition:generic'
const PLAIN = { [oauth.allowInsecureRequests]: true }
const clientFor = (scope) => ({ client_id: `http://localhost?${new URLSearchParams({ redirect_uri: REDIRECT, scope })}` })

/** An app's state at `service`: its key, and its tokens once it has some, asked for at `askedAt`. */
export class OAuthApp {
  #client
  #handle
  #server

  constructor(service, keys, scope, tokens, { client_id, redirect = REDIRECT } = {}) {
    Object.assign(this, { service, keys, scope, tokens, redirect })
    this.#client = client_id ? { client_id } : clientFor(scope)
    this.#handle = oauth.DPoP(this.#client, keys)
  }

  /** With `{client_id, redirect}` the app is one with a document of its own. */
  static async create(service, scope = SCOPE, published = {}) {
    return new OAuthApp(service, await oauth.generateKeyPair('ES256', { extractable: true }), scope, undefined, published)
  }

  /** Restores an app from what `toJSON` returned. */
  static async restore({ service, key, scope, refresh, published }) {
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
    const { d, ...open } = key
    const read = (jwk, use) => crypto.webcrypto.subtle.importKey('jwk', jwk, algorithm, true, [use])
    const keys = { privateKey: await read({ ...key, key_ops: ['sign'] }, 'sign'), publicKey: await read({ ...open, key_ops: ['verify'] }, 'verify') }
    return new OAuthApp(service, keys, scope, { refresh_token: refresh }, published)
  }

  async toJSON() {
    const key = await crypto.webcrypto.subtle.exportKey('jwk', this.keys.privateKey)
    const published = { client_id: this.#client.client_id, redirect: this.redirect }
    return { service: this.service, key, scope: this.scope, refresh: this.tokens.refresh_token, published }
  }

  /** Pushes an authorization request. Returns the URL for the browser and what `finish` needs. */
  async begin() {
    const [verifier, state] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState()]
    const parameters = {
      response_type: 'code',
      redirect_uri: this.redirect,
      scope: this.scope,
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    }
    const as = await this.#as()
    const { request_uri } = await this.#withNonce(async (options) =>
      oauth.processPushedAuthorizationResponse(
        as, this.#client, await oauth.pushedAuthorizationRequest(as, this.#client, oauth.None(), parameters, options)))
    const url = new URL(as.authorization_endpoint)
    url.search = new URLSearchParams({ ...this.#client, request_uri })
    return { url: url.href, verifier, state }
  }

  /** Exchanges the code that the browser brought back. */
  async finish(back, { verifier, state }) {
    const as = await this.#as()
    const answered = oauth.validateAuthResponse(as, this.#client, back, state)
    const askedAt = Date.now()
    this.tokens = await this.#withNonce(async (options) =>
      oauth.processAuthorizationCodeResponse(
        as, this.#client, await oauth.authorizationCodeGrantRequest(as, this.#client, oauth.None(), answered, this.redirect, verifier, options)))
    this.askedAt = askedAt
  }

  async refresh() {
    const as = await this.#as()
    const sent = this.tokens.refresh_token
    const askedAt = Date.now()
    this.tokens = await this.#withNonce(async (options) =>
      oauth.processRefreshTokenResponse(
        as, this.#client, await oauth.refreshTokenGrantRequest(as, this.#client, oauth.None(), sent, options)))
    this.askedAt = askedAt
  }

  async revoke() {
    const as = await this.#as()
    await this.#withNonce(async (options) =>
      oauth.processRevocationResponse(
        await oauth.revocationRequest(as, this.#client, oauth.None(), this.tokens.refresh_token, options)))
  }

  /** Makes one XRPC call. Resolves to {status, body}. */
  async call(nsid, { query, body, headers = {} } = {}) {
    const url = new URL(`/xrpc/${nsid}`, this.service)
    for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value)
    const sent = new Headers({ ...(body ? { 'content-type': 'application/json' } : {}), ...headers })
    const content = body ? JSON.stringify(body) : null
    try {
      return await this.#withNonce(async (options) => {
        const answer = await oauth.protectedResourceRequest(this.tokens.access_token, body ? 'POST' : 'GET', url, sent, content, options)
        return { status: answer.status, body: await answer.json().catch(() => null) }
      })
    } catch (error) {
      if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error
      return { status: error.response.status, body: await error.response.json().catch(() => null) }
    }
  }

  /** Makes a call, and repeats it if the server asked for a nonce, which the library remembers. */
  async #withNonce(call) {
    const options = { ...PLAIN, DPoP: this.#handle }
    try {
      return await call(options)
    } catch (error) {
      if (!oauth.isDPoPNonceError(error)) throw error
      return call(options)
    }
  }

  async #as() {
    if (!this.#server) {
      const issuer = new URL(this.service)
      const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...PLAIN })
      this.#server = await oauth.processDiscoveryResponse(issuer, found)
    }
    return this.#server
  }
}
