// Requests from a chosen loopback address, so that limits per client address act as on the internet.

import crypto from 'node:crypto'
import http from 'node:http'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'

/** An agent that connects from `address` and keeps its connections. */
export function agentFrom(address, more = {}) {
  return new http.Agent({ keepAlive: true, maxSockets: 1000, localAddress: address, family: 4, ...more })
}

/** Sends a request and reads the whole answer: {status, headers, text}. Status 0 is no answer. */
export function send(agent, url, { method = 'GET', headers = {}, body, timeout = 30_000 } = {}) {
  // The end of a run has closed the agent's connections, and no others may follow.
  if (agent.isOver) return Promise.resolve({ status: 0, headers: {}, text: 'the run is over' })
  return new Promise((resolve) => {
    const request = http.request(url, { agent, method, headers, timeout }, (answer) => {
      const chunks = []
      answer.on('data', (chunk) => chunks.push(chunk))
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, text: Buffer.concat(chunks).toString() }))
      answer.on('error', (error) => resolve({ status: 0, headers: {}, text: String(error) }))
    })
    request.on('timeout', () => request.destroy(new Error('no answer in time')))
    request.on('error', (error) => resolve({ status: 0, headers: {}, text: String(error) }))
    request.end(body)
  })
}

/** Sends JSON, or a query without a body. */
export function xrpc(agent, service, nsid, { token, body, query = {}, headers = {}, ...more } = {}) {
  const url = new URL(`/xrpc/${nsid}`, service)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  const json = body === undefined ? {} : { 'content-type': 'application/json' }
  const bearer = token ? { authorization: `Bearer ${token}` } : {}
  const method = more.method ?? (body === undefined ? 'GET' : 'POST')
  return send(agent, url, { ...more, method, headers: { ...json, ...bearer, ...headers }, body: body && JSON.stringify(body) })
}

/** Replaces the global `fetch` by one that connects from `address`. */
export function fetchFrom(address) {
  fetchWith(agentFrom(address))
}

/** Replaces the global `fetch` by one that connects with `agent`. */
export function fetchWith(agent) {
  globalThis.fetch = async (input, init = {}) => {
    const request = new Request(input, init)
    const body = request.body ? Buffer.from(await request.arrayBuffer()) : undefined
    const headers = { ...Object.fromEntries(request.headers), ...(body ? { 'content-length': body.length } : {}) }
    const { status, headers: had, text } = await send(agent, request.url, { method: request.method, headers, body })
    if (status === 0) throw new TypeError(text)
    const told = Object.entries(had).flatMap(([name, value]) => [value].flat().map((one) => [name, one]))
    return new Response([204, 304].includes(status) ? null : text, { status, headers: told })
  }
}

const { privateKey, publicKey } = await generateKeyPair('ES256')
const jwk = await exportJWK(publicKey)
let nonce

/** Sends a form with a DPoP proof. Without the proof the server looks no further. */
export async function sendForm(agent, url, form, isRepeat = false) {
  const claims = { jti: crypto.randomUUID(), htm: 'POST', htu: url, ...(nonce ? { nonce } : {}) }
  const proof = await new SignJWT(claims).setProtectedHeader({ typ: 'dpop+jwt', alg: 'ES256', jwk }).setIssuedAt().sign(privateKey)
  const headers = { 'content-type': 'application/x-www-form-urlencoded', dpop: proof }
  const answer = await send(agent, url, { method: 'POST', headers, body: new URLSearchParams(form).toString(), timeout: 45_000 })
  nonce = answer.headers['dpop-nonce'] ?? nonce
  return /use_dpop_nonce/.test(answer.text) && !isRepeat ? sendForm(agent, url, form, true) : answer
}
