// What every process of the network has in common.
//
// A member reads its configuration as one line of JSON from standard input, says one line of JSON on standard output
// when it is ready, and ends when standard input closes: whoever started it may die in any way, nothing is orphaned.
// All listening is on 127.0.0.1, whatever the package being run would like.

import net from 'node:net'
import readline from 'node:readline'

/** Runs `start(config)`; it answers `{ready: {...}, stop: async () => {}}`. */
export async function member(start) {
  listenOnLoopbackOnly()
  const lines = readline.createInterface({ input: process.stdin })
  const config = JSON.parse(await new Promise((resolve) => lines.once('line', resolve)))
  const { ready, stop } = await start(config)

  let ending = false
  const end = async () => {
    if (ending) return
    ending = true
    setTimeout(() => process.exit(1), 8000).unref()
    try {
      await stop()
    } finally {
      process.exit(0)
    }
  }
  lines.once('close', end)
  process.once('SIGTERM', end)
  process.on('SIGINT', () => {}) // Ctrl-C reaches the whole group; the one who started us decides the order of the end.
  process.stdout.write(JSON.stringify(ready) + '\n')
}

/** Starts `server` on a loopback port and answers when it listens. */
export function listen(server, port) {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(server.address().port))
  })
}

/** The whole body of a request, as JSON (`{}` when there is none). */
export async function jsonBody(request) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString()
  return text === '' ? {} : JSON.parse(text)
}

export function answerJson(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

function listenOnLoopbackOnly() {
  const listen = net.Server.prototype.listen
  net.Server.prototype.listen = function (...args) {
    if (typeof args[0] === 'number' && typeof args[1] !== 'string') args.splice(1, 0, '127.0.0.1')
    return listen.apply(this, args)
  }
}
