// Stands in for an app view: any XRPC call is answered with what arrived, the service token taken apart and checked.
//
// Configuration: {port, directory}. Answers {method, lxm, headers, query, body, token: {header, payload, verified}}.
// `verified` is true when the token is signed by the key that the PLC directory names for its issuer.

import http from 'node:http'
import { verifySignature } from '@atproto/crypto'
import { answerJson, listen, member } from './lib/member.mjs'

await member(async ({ port, directory }) => {
  const url = `http://localhost:${port}`
  const did = `did:web:localhost%3A${port}`

  async function takeApart(authorization) {
    const token = /^Bearer (.+)$/.exec(authorization ?? '')?.[1]
    if (!token) return null
    const [head, body, signature] = token.split('.')
    const header = JSON.parse(Buffer.from(head, 'base64url'))
    const payload = JSON.parse(Buffer.from(body, 'base64url'))
    const data = await fetch(`${directory}/${payload.iss}/data`).then((r) => r.json())
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
      answerJson(response, 200, {
        method: request.method,
        lxm: pathname.replace('/xrpc/', ''),
        headers: request.headers,
        query: Object.fromEntries(searchParams),
        body: Buffer.concat(chunks).toString(),
        token: await takeApart(request.headers.authorization),
      })
    } catch (error) {
      answerJson(response, 400, { error: 'InvalidRequest', message: String(error) })
    }
  })
  await listen(server, port)
  return { ready: { url, did, service: `${did}#echo` }, stop: async () => server.close() }
})
