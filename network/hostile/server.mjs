// A server of an attacker, at many ports: `node hostile/server.mjs` with a line of settings.
//
// Configuration: {ports: [...]}. Each port is the did:web of http://localhost:<port>.
//   GET  /.well-known/did.json         a small document whose service #bad is this server, or a giant
//                                      one after PUT /giant and until PUT /small
//   ANY  /xrpc/com.example.bad         502
//   ANY  /xrpc/com.example.good        200
//   ANY  /xrpc/com.example.slow, com.atproto.*   no answer for 40 s

import http from 'node:http'
import { giantDocument } from '../lib/giant.mjs'
import { answerJson, listen, member } from '../lib/member.mjs'

const SILENCE = 40_000

await member(async ({ ports }) => {
  let isGiant = false
  const servers = ports.map((port) => {
    const url = `http://localhost:${port}`
    const did = `did:web:localhost%3A${port}`
    return http.createServer((request, response) => {
      const { pathname } = new URL(request.url, url)
      request.resume()
      if (pathname === '/giant' || pathname === '/small') {
        isGiant = pathname === '/giant'
        return answerJson(response, 200, {})
      }
      if (pathname === '/.well-known/did.json') {
        if (isGiant) return response.writeHead(200, { 'content-type': 'application/json' }).end(giantDocument(did, [{ id: '#bad', type: 'Attack', serviceEndpoint: url }]))
        const service = [
          { id: '#bad', type: 'Attack', serviceEndpoint: url },
          { id: '#atproto_pds', type: 'AtprotoPersonalDataServer', serviceEndpoint: url },
        ]
        return answerJson(response, 200, { id: did, alsoKnownAs: [], verificationMethod: [], service })
      }
      if (pathname === '/xrpc/com.example.bad') return answerJson(response, 502, { error: 'BadGateway' })
      if (pathname === '/xrpc/com.example.good') return answerJson(response, 200, { fine: true })
      const timer = setTimeout(() => answerJson(response, 200, {}), SILENCE)
      response.on('close', () => clearTimeout(timer))
    })
  })
  await Promise.all(servers.map((server, index) => listen(server, ports[index])))
  return {
    ready: { url: `http://localhost:${ports[0]}`, dids: ports.map((port) => `did:web:localhost%3A${port}`) },
    stop: async () => servers.forEach((server) => server.closeAllConnections() ?? server.close()),
  }
})
