// An app view's stand-in, which echoes every XRPC call and checks the call's service token.
//
// Configuration: {port, directory, nameServer}. The echo is {method, lxm, headers, query, body,
// token: {header, payload, verified}}. `verified` is true if the token is signed by the key that
// the PLC directory names for its issuer. Two methods have an answer of their own, since others
// rely on it: identity.resolveHandle, which hosts ask for handles, and actor.getProfile, which
// Python's client calls after signing in.

import { Resolver } from 'node:dns/promises'
import http from 'node:http'
import { verifySignature } from '@atproto/crypto'
import { answerJson, listen, member } from './lib/member.mjs'

await member(async ({ port, directory, nameServer }) => {
  const url = `http://localhost:${port}`
  const did = `did:web:localhost%3A${port}`
  const names = new Resolver()
  names.setServers([nameServer])

  const answers = {
    'com.atproto.identity.resolveHandle': async ({ query }) => {
      const found = await names.resolveTxt(`_atproto.${query.handle}`).catch(() => [])
      const did = found.map((parts) => parts.join('')).find((text) => text.startsWith('did='))
      return did ? { did: did.slice('did='.length) } : null
    },
    'app.bsky.actor.getProfile': async (echo) => {
      const data = await fetch(`${directory}/${echo.query.actor}/data`).then((answer) => answer.json())
      const handle = data.alsoKnownAs?.[0]?.replace('at://', '') ?? echo.query.actor
      return { did: data.did ?? echo.token?.payload.iss ?? did, handle, ...echo }
    },
  }

  async function readToken(authorization) {
    const token = /^Bearer (.+)$/.exec(authorization ?? '')?.[1]
    if (!token) return null
    const [head, body, signature] = token.split('.')
    const header = JSON.parse(Buffer.from(head, 'base64url'))
    const payload = JSON.parse(Buffer.from(body, 'base64url'))
    const data = await fetch(`${directory}/${payload.iss}/data`).then((answer) => answer.json())
    const key = data.verificationMethods?.atproto
    const signed = Buffer.from(`${head}.${body}`)
    const verified = Boolean(key) && (await verifySignature(key, signed, Buffer.from(signature, 'base64url')))
    return { header, payload, verified }
  }

  const server = http.createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, url)
    if (pathname === '/.well-known/did.json') {
      const service = { id: '#echo', type: 'EchoService', serviceEndpoint: url }
      return answerJson(response, 200, { '@context': ['https://www.w3.org/ns/did/v1'], id: did, service: [service] })
    }
    try {
      const chunks = []
      for await (const chunk of request) chunks.push(chunk)
      const echo = {
        method: request.method,
        lxm: pathname.replace('/xrpc/', ''),
        headers: request.headers,
        query: Object.fromEntries(searchParams),
        body: Buffer.concat(chunks).toString(),
        token: await readToken(request.headers.authorization),
      }
      const answer = answers[echo.lxm] ? await answers[echo.lxm](echo) : echo
      if (answer) answerJson(response, 200, answer)
      else answerJson(response, 400, { error: 'InvalidRequest', message: 'Unable to resolve handle' })
    } catch (error) {
      answerJson(response, 400, { error: 'InvalidRequest', message: String(error) })
    }
  })
  await listen(server, port)
  return { ready: { url, did, service: `${did}#echo` }, stop: async () => server.close() }
})
