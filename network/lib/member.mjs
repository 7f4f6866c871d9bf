// Start and end of the network's members.
//
// A member reads its configuration as one line of JSON from standard input, prints one line of JSON
// on standard output when it is ready, and ends when standard input closes. So it ends with the
// process that started it, however that ends. It listens on 127.0.0.1 only, even if a package asks
// for another address.

import net from 'node:net'
import readline from 'node:readline'

/** Runs a member. `start(config)` resolves to `{ready: {...}, stop: async () => {}}`. */
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
  process.on('SIGINT', () => {}) // Ctrl-C reaches the whole process group, but members end in the parent's order.
  process.stdout.write(JSON.stringify(ready) + '\n')
}

/** Starts `server` on a loopback port and resolves to the port when it listens. */
export function listen(server, port) {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(server.address().port))
  })
}

/** Reads the whole body of a request as JSON. A request without a body gives `{}`. */
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
