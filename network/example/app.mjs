// An app for people on any PDS, in one file: it signs them in through Genkan and posts in their
// name.
//
// It holds a token of Genkan and none of the PDS. The OAuth part is a plain library, oauth4webapi.
// The atproto OAuth clients cannot be used for linked accounts; docs/linked-accounts.md says why.
//
// Configuration: {port, genkan}. Open http://127.0.0.1:<port> in a browser.

import crypto from 'node:crypto'
import http from 'node:http'
import * as oauth from 'oauth4webapi'
import { listen, member } from '../lib/member.mjs'
import { failed, frontPage, posted, signedIn } from './pages.mjs'

const SCOPE = 'atproto transition:generic'

await member(async ({ port, genkan }) => {
  const origin = `http://127.0.0.1:${port}`
  const redirectUri = `${origin}/callback`
  // An app under development needs no registration, since its client id holds all of its metadata.
  // In production the client id is the https URL of a client metadata document.
  const client = { client_id: `http://localhost?${new URLSearchParams({ redirect_uri: redirectUri, scope: SCOPE })}` }
  const plainHttp = { [oauth.allowInsecureRequests]: genkan.startsWith('http:') }

  // A real app keeps these in its database.
  const logins = new Map()
  const sessions = new Map()

  const server = async () => {
    const issuer = new URL(genkan)
    const answer = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...plainHttp })
    return oauth.processDiscoveryResponse(issuer, answer)
  }

  /**
   * Makes a call, and repeats it if the server asked for a DPoP nonce, which the library has
   * remembered.
   */
  const withNonce = async (call) => {
    try {
      return await call()
    } catch (error) {
      if (!oauth.isDPoPNonceError(error)) throw error
      return call()
    }
  }

  /** Pushes the authorization request and returns the URL to send the browser to. */
  async function begin(handle) {
    const as = await server()
    const DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
    const [verifier, state] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState()]
    const parameters = {
      response_type: 'code',
      redirect_uri: redirectUri,
      scope: SCOPE,
      state,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      ...(handle ? { login_hint: handle } : {}),
    }
    const pushed = await withNonce(async () => {
      const answer = await oauth.pushedAuthorizationRequest(as, client, oauth.None(), parameters, { DPoP, ...plainHttp })
      return oauth.processPushedAuthorizationResponse(as, client, answer)
    })
    logins.set(state, { DPoP, verifier })
    const url = new URL(as.authorization_endpoint)
    url.search = new URLSearchParams({ client_id: client.client_id, request_uri: pushed.request_uri })
    return url.href
  }

  /** Exchanges the code, which the browser brought back, for tokens. */
  async function finish(url) {
    const as = await server()
    const state = url.searchParams.get('state') ?? ''
    const login = logins.get(state)
    if (!login) throw new Error('this sign-in is not known, or was finished before')
    logins.delete(state)
    const parameters = oauth.validateAuthResponse(as, client, url, state)
    const tokens = await withNonce(async () => {
      const { DPoP, verifier } = login
      const options = { DPoP, ...plainHttp }
      const answer = await oauth.authorizationCodeGrantRequest(
        as, client, oauth.None(), parameters, redirectUri, verifier, options)
      return oauth.processAuthorizationCodeResponse(as, client, answer)
    })
    const id = crypto.randomBytes(16).toString('hex')
    // `sub` is the account's DID, which Genkan has proved with the account's own server.
    sessions.set(id, { DPoP: login.DPoP, tokens, did: tokens.sub })
    return id
  }

  async function refresh(session) {
    const as = await server()
    session.tokens = await withNonce(async () => {
      const options = { DPoP: session.DPoP, ...plainHttp }
      const answer = await oauth.refreshTokenGrantRequest(
        as, client, oauth.None(), session.tokens.refresh_token, options)
      return oauth.processRefreshTokenResponse(as, client, answer)
    })
  }

  /** Makes one XRPC call at Genkan, which forwards it to the account's PDS. */
  async function call(session, method, nsid, body) {
    const once = () => oauth.protectedResourceRequest(
      session.tokens.access_token, method, new URL(`/xrpc/${nsid}`, genkan),
      new Headers(body ? { 'content-type': 'application/json' } : {}),
      body ? JSON.stringify(body) : null, { DPoP: session.DPoP, ...plainHttp })
    const trying = () => withNonce(once)
    let answer
    try {
      answer = await trying()
    } catch (error) {
      // The library throws an error for a 401 with a challenge. The access token may have expired,
      // so refresh once.
      if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error
      await refresh(session)
      answer = await trying()
    }
    const said = await answer.json()
    if (!answer.ok) throw new Error(`${nsid}: ${answer.status} ${said.error}: ${said.message}`)
    return said
  }

  async function post(session, text) {
    const record = { $type: 'app.bsky.feed.post', text, createdAt: new Date().toISOString() }
    const { uri } = await call(session, 'POST', 'com.atproto.repo.createRecord', {
      repo: session.did,
      collection: 'app.bsky.feed.post',
      record,
    })
    // A public read needs no token, for accounts of any PDS.
    const [repo, collection, rkey] = uri.replace('at://', '').split('/')
    const query = new URLSearchParams({ repo, collection, rkey })
    const read = await fetch(`${genkan}/xrpc/com.atproto.repo.getRecord?${query}`)
    return { uri, read: (await read.json()).value?.text }
  }

  async function signOut(session) {
    const as = await server()
    const token = session.tokens.refresh_token
    await withNonce(async () => {
      const answer = await oauth.revocationRequest(as, client, oauth.None(), token, { DPoP: session.DPoP, ...plainHttp })
      await oauth.processRevocationResponse(answer)
    })
  }

  const cookie = (request) => /(?:^|; )session=([0-9a-f]{32})/.exec(request.headers.cookie ?? '')?.[1]
  const web = http.createServer(async (request, response) => {
    const url = new URL(request.url, origin)
    const show = (html, status = 200) => response.writeHead(status, { 'content-type': 'text/html' }).end(html)
    const go = (to, headers = {}) => response.writeHead(303, { location: to, ...headers }).end()
    const id = cookie(request)
    const session = sessions.get(id)
    try {
      // The client id's redirect goes to an IP address, and a cookie set for `localhost` would not
      // be sent there.
      if (request.headers.host !== new URL(origin).host) return go(origin + request.url)
      const form = new URLSearchParams(request.method === 'POST' ? await text(request) : '')
      switch (`${request.method} ${url.pathname}`) {
        case 'GET /':
          return show(session ? signedIn(session.did) : frontPage(genkan))
        case 'POST /sign-in':
          return go(await begin(form.get('handle')?.trim()))
        case 'GET /callback':
          return go('/', { 'set-cookie': `session=${await finish(url)}; HttpOnly; SameSite=Lax; Path=/` })
        case 'POST /post':
          if (!session) return go('/')
          return show(posted(await post(session, form.get('text') ?? '')))
        case 'POST /sign-out':
          if (session) await signOut(session)
          sessions.delete(id)
          return go('/')
        default:
          return show('', 404)
      }
    } catch (error) {
      // Genkan's session has ended, so this one ends with it, and the person signs in again.
      if (error instanceof oauth.ResponseBodyError && error.error === 'invalid_grant') sessions.delete(id)
      show(failed(error), 502)
    }
  })
  await listen(web, port)
  return { ready: { url: origin }, stop: async () => void (web.closeAllConnections(), web.close()) }
})

async function text(request) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}
