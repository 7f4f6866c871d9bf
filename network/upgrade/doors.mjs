// Requests to one of several processes behind one public URL, without the load balancer.

import { AsyncLocalStorage } from 'node:async_hooks'
import http from 'node:http'
import { fetchWith } from '../hostile/tools.mjs'

const chosen = new AsyncLocalStorage()

/** Sends everything that `work` sends to the public URL to the process on `port`. */
export function through(port, work) {
  return chosen.run(port, work)
}

/** Makes `through` act on `fetch` and on requests of `node:http`. The public URL stays in `Host`. */
export function openDoors(publicUrl) {
  const publicPort = new URL(publicUrl).port

  class Doors extends http.Agent {
    createConnection(options, done) {
      const port = String(options.port) === publicPort ? chosen.getStore() ?? options.port : options.port
      return super.createConnection({ ...options, port }, done)
    }
  }

  // Without kept connections: one of another process could be used again.
  const agent = new Doors({ keepAlive: false })
  http.globalAgent = agent
  fetchWith(agent)
}
