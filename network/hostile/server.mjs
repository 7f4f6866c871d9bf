// The servers of an attacker: `node hostile/server.mjs` with a line of settings.
//
// Configuration: {ports: [...], silentPort, trapPort}.
//
// Each of `ports` is the did:web of http://localhost:<port>:
//   GET  /.well-known/did.json         a small document whose service #bad is this server
//   ANY  /xrpc/….bad                   502 with an error name that no other answer has, or no HTTP at
//                                      all, or a reset connection, in turn
//   ANY  /xrpc/….good                  200
//   ANY  anything else                 no answer for 40 s
//   GET  /dials                        {silent, trap}: the connections that the other two ports got
//
// `silentPort` accepts connections and says nothing. `trapPort` is one that nobody may connect to.

import crypto from 'node:crypto'
import http from 'node:http'
import net from 'node:net'
import { answerJson, listen, member } from '../lib/member.mjs'

const SILENCE = 40_000

/** Answers in one of three bad ways. */
function answerBadly(response, turn) {
  if (turn === 0) return answerJson(response, 502, { error: `Bad${crypto.randomBytes(6).toString('hex')}`, message: 'bad' })
  if (turn === 1) return response.socket.end('this is not HTTP\r\n\r\n')
  response.socket.resetAndDestroy()
}

await member(async ({ ports, silentPort, trapPort }) => {
  const dials = { silent: 0, trap: 0 }
  let answers = 0
  const servers = ports.map((port) => {
    const url = `http://localhost:${port}`
    const did = `did:web:localhost%3A${port}`
    return http.createServer((request, response) => {
      const { pathname } = new URL(request.url, url)
      request.resume()
      if (pathname === '/dials') return answerJson(response, 200, dials)
      if (pathname === '/.well-known/did.json') {
        const service = [
          { id: '#bad', type: 'Attack', serviceEndpoint: url },
          { id: '#atproto_pds', type: 'AtprotoPersonalDataServer', serviceEndpoint: url },
        ]
        return answerJson(response, 200, { id: did, alsoKnownAs: [], verificationMethod: [], service })
      }
      if (pathname.endsWith('.bad')) return answerBadly(response, answers++ % 3)
      if (pathname.endsWith('.good')) return answerJson(response, 200, { fine: true })
      const timer = setTimeout(() => answerJson(response, 200, {}), SILENCE)
      response.on('close', () => clearTimeout(timer))
    })
  })
  await Promise.all(servers.map((server, index) => listen(server, ports[index])))
  const held = new Set()
  const silent = net.createServer((socket) => {
    dials.silent++
    held.add(socket)
    socket.resume().on('error', () => {}).on('close', () => held.delete(socket))
  })
  const trap = net.createServer((socket) => {
    dials.trap++
    socket.on('error', () => {}).end()
  })
  await listen(silent, silentPort)
  await listen(trap, trapPort)
  return {
    ready: { url: `http://localhost:${ports[0]}`, dids: ports.map((port) => `did:web:localhost%3A${port}`), trapPort },
    stop: async () => {
      for (const server of servers) server.closeAllConnections() ?? server.close()
      for (const socket of held) socket.destroy()
    },
  }
})
