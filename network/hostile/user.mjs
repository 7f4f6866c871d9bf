// What a hostile user with accounts of their own does. The form of an attack is described in
// attacks.mjs.

import http2 from 'node:http2'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { OAuthApp } from '../soak/oauth-app.mjs'
import { closed } from './run.mjs'
import { xrpc } from './tools.mjs'

/** What one address may ask in all by default, with a margin. */
const ALLOWED = 9
const BURST = 30
/** Genkan deletes accounts that are due within this time. */
const DELETED_WITHIN = 150_000
const DAY = 86_400_000

const apps = new Map()

/** Makes a call by the app of an account, which refreshes its token when it has expired. */
async function callBy(run, account, nsid, options) {
  if (!apps.has(account.did)) {
    const restored = OAuthApp.restore(account.app)
    apps.set(account.did, restored.then((app) => Object.assign(app, { tokens: { ...app.tokens, access_token: account.app.access } })))
  }
  const app = await apps.get(account.did)
  const used = app.tokens.access_token
  const answer = await app.call(nsid, options)
  if (answer.status !== 401 || run.ended) return answer
  if (app.tokens.access_token === used) await (app.refreshing ??= run.untouched(app.refresh().finally(() => (app.refreshing = null))))
  return app.call(nsid, options)
}

export function userAttacks({ service, host, server, people, linkedPeople, doomed, others, silentClients, plantSilence, counted }) {
  const { hostname, port } = new URL(service)
  // One account may hold only a share, so each of these attacks has one of its own.
  const [forBad, forSilent, forPosts, forMorePosts, forNames] = people.map(({ accessJwt }) => accessJwt)
  const [linkedBad, linkedSilent, linkedNames] = linkedPeople

  /** Calls of a method behind the host, through the host's own proxying. */
  const proxied = (agent, token, method, did) =>
    xrpc(agent, service, method, { token, headers: { 'atproto-proxy': `${did}#bad` }, timeout: 45_000 })
  const serverOf = (index) => server.dids[index % server.dids.length]
  /** Calls of a method behind an external PDS. It must look like one that a PDS answers. */
  const linkedThrough = (run, account, what, index) =>
    callBy(run, account, `com.atproto.repo.${what}`, { headers: { 'atproto-proxy': `${serverOf(index)}#bad` } })

  const forbidden = [
    'did:web:localhost#bad', 'did:web:localhost%3A1#bad', 'did:web:127.0.0.1#bad', 'did:web:10.0.0.1#bad', 'did:web:169.254.169.254#x',
    'did:web:0x7f.1#x', 'did:web:2130706433#x', 'did:web:[::1]#x', 'did:web:metadata.internal#x', 'did:web:a.local#x', 'did:web:LOCALHOST#x',
    'did:web:localhost.#x', 'not a did', 'did:web:example.com', '#x', 'did:plc:short#x', 'did:web:a.example.com#b#c', 'did:key:z6Mk#x',
    'did:web:..%2f#x', `did:web:${'a.'.repeat(3000)}example.com#x`, 'did:web:a.example.com#',
    ...['localhost', '127.0.0.1', 'inner.example.com', '2130706433', 'LocalHost'].map((name) => `did:web:${name}%3A${server.trapPort}#bad`),
  ]
  let lastDeletion = 0

  return {
    // In bursts, so that many failures of a host follow each other.
    'services that answer 502': {
      harmless: [{ any: ['200'], perMinute: 100 }],
      harmful: [{ any: ['502'], perMinute: 60 }],
      act: (run, name, harmful) => {
        const agent = run.from()
        const method = harmful ? 'com.example.bad' : 'com.example.good'
        return run.paced(ALLOWED / BURST, 1, (round) =>
          Promise.all(Array.from({ length: BURST }, (_, index) => run.ask(name, proxied(agent, forBad, method, serverOf(round + index))))))
      },
    },
    'services that never answer': {
      harmless: [{ any: ['200'], perMinute: 600 }],
      harmful: [{ any: ['held'], perMinute: 30 }],
      act: (run, name, harmful) => {
        const agents = run.many(32)
        return run.paced(40, 700, (index) =>
          run.ask(name, proxied(agents[index % agents.length], forSilent, harmful ? 'com.example.slow' : 'com.example.good', serverOf(index))))
      },
    },
    // Just faster than the least that is allowed.
    'slow posts': {
      harmless: [{ any: ['answered 200'], perMinute: 100 }],
      // One account holds 64 places, from the beginning to the end.
      harmful: [{ any: ['held'], perMinute: 10 }],
      act: (run, name, harmful) => {
        const head = (length) =>
          `POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: ${hostname}:${port}\r\nauthorization: Bearer ${forPosts}\r\n` +
          `content-type: image/png\r\ncontent-length: ${length}\r\n\r\n`
        run.raw(name, 320, run.addresses(8), service, async (socket) => {
          if (!harmful) {
            await sleep(Math.random() * 30_000)
            socket.write(head(64) + 'x'.repeat(64))
            return sleep(5000)
          }
          socket.write(head(1_000_000))
          const drip = setInterval(() => socket.write('x'.repeat(1100)), 1000)
          await closed(socket).finally(() => clearInterval(drip))
        })
      },
    },
    'slow posts on HTTP/2': {
      harmless: [{ any: ['200'], perMinute: 20 }],
      harmful: [{ any: ['held'], perMinute: 10 }],
      act: (run, name, harmful) => {
        for (const localAddress of run.addresses(4)) {
          const session = http2.connect(service, { createConnection: () => net.connect({ host: hostname, port: Number(port), family: 4, localAddress }) })
          run.sockets.add(session)
          session.on('error', () => {})
          run.paced(5, 80, async () => {
            const length = harmful ? 1_000_000 : 64
            const stream = session.request({ ':method': 'POST', ':path': '/xrpc/com.atproto.repo.uploadBlob', authorization: `Bearer ${forMorePosts}`, 'content-type': 'image/png', 'content-length': length })
            stream.on('response', (head) => run.tell(name, head[':status'])).on('error', () => {}).resume()
            const timer = setTimeout(() => run.tell(name, 'held'), 4000)
            const drip = harmful ? setInterval(() => stream.write('x'.repeat(1100)), 1000) : stream.end('x'.repeat(64))
            await Promise.race([closed(stream), run.end]).finally(() => [clearTimeout(timer), clearInterval(harmful ? drip : null)])
          })
        }
      },
    },
    'websockets': {
      harmless: [{ any: ['answered 200'], perMinute: 100 }],
      harmful: [{ any: ['answered 101', 'answered 400', 'answered 404', 'answered 426', 'answered 501'], perMinute: 100 }],
      act: (run, name, harmful) => {
        run.raw(name, 200, run.addresses(1), service, async (socket) => {
          const upgrade = harmful ? 'connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n' : ''
          const path = harmful ? 'com.atproto.sync.subscribeRepos' : 'com.atproto.server.describeServer'
          socket.write(`GET /xrpc/${path} HTTP/1.1\r\nhost: ${hostname}:${port}\r\nauthorization: Bearer ${forNames}\r\n${upgrade}\r\n`)
          await Promise.race([closed(socket), sleep(20_000)])
          await sleep(2000)
        })
      },
    },
    // Behind the host and, for every fourth call, behind the external PDS.
    'atproto-proxy to forbidden names': {
      harmless: [{ any: ['200'], perMinute: 100 }],
      harmful: [{ any: ['400'], perMinute: 100 }, { only: ['400', 'linked 400', '429', 'linked 429', 'held'] }, { any: ['linked 400'], perMinute: 10 }],
      act: async (run, name, harmful) => {
        const agent = run.from()
        await run.count(name, 'dials of a forbidden port', () => counted('trap'))
        return run.paced(ALLOWED, 30, async (index) => {
          const value = harmful ? forbidden[index % forbidden.length] : `${server.dids[0]}#bad`
          const headers = { 'atproto-proxy': value }
          if (!harmful || index % 4) return run.ask(name, xrpc(agent, service, 'com.example.good', { token: forNames, headers }).then((answer) => explain(answer, value, harmful)))
          const answer = await callBy(run, linkedNames, 'com.atproto.repo.good', { headers })
          run.tell(name, { ...answer, status: `linked ${explain(answer, value, true).status}` })
        })
      },
    },
    // The accounts are the attacker's own: nobody who holds less than a full session may delete them,
    // and a full session not at once.
    'deletions by those who may not': {
      harmless: [{ any: ['200'], perMinute: 20 }],
      // Deactivation ends an app's grant, so an app has one attempt for each account.
      harmful: ['an app password 400', 'an app 200', 'its host 200', 'a full session 200'].map((answer) => ({ any: [answer], perMinute: 0.2 })),
      act: (run, name, harmful) => {
        const agent = run.from()
        return run.paced(1, 4, async (index) => {
          const account = doomed[index % doomed.length]
          const method = 'com.atproto.server.deactivateAccount'
          if (!harmful) return run.ask(name, xrpc(agent, service, 'com.atproto.server.getSession', { token: account.accessJwt }))
          const soon = new Date(Date.now() + 20_000).toISOString()
          const body = { deleteAfter: Math.floor(index / (doomed.length / 2)) % 2 ? soon : new Date(Date.now() - 2000 * DAY).toISOString() }
          const done = account.by === 'an app'
            ? await callBy(run, account, method, { body })
            : account.by === 'its host'
              // The host passes the call on with a service token.
              ? await xrpc(agent, host, method, { token: account.accessJwt, body })
              : await xrpc(agent, service, method, { token: account.by === 'an app password' ? account.phone : account.accessJwt, body })
          lastDeletion = Date.now()
          run.tell(name, { ...done, status: `${account.by} ${done.status}` })
        })
      },
      /** Returns when those accounts would be gone, or 0 without an attempt. */
      dueAt: () => lastDeletion && lastDeletion + 20_000 + DELETED_WITHIN,
    },
    'linked calls that hold an external PDS': {
      harmless: [{ any: ['200'], perMinute: 60 }],
      harmful: [{ any: ['held'], perMinute: 10 }],
      act: (run, name, harmful) =>
        run.paced(ALLOWED / 2, 128, (index) => run.ask(name, linkedThrough(run, linkedSilent, harmful ? 'slow' : 'good', index))),
    },
    'linked calls that answer 502': {
      harmless: [{ any: ['200'], perMinute: 60 }],
      harmful: [{ any: ['502'], perMinute: 40 }],
      act: (run, name, harmful) =>
        run.paced(0.2, 1, (round) =>
          Promise.all(Array.from({ length: 15 }, (_, index) =>
            run.ask(name, linkedThrough(run, linkedBad, harmful ? 'bad' : 'good', round + index))))),
    },
    // The refresh tokens are valid and the user's own. Genkan looks at a client's document again when
    // what it knows is ten minutes old.
    'refreshes of clients that turned silent': {
      harmless: [{ any: ['200'], perMinute: 20 }],
      harmful: [{ any: ['200'], perMinute: 20 }],
      act: async (run, name, harmful) => {
        if (!harmful) {
          const agent = run.from()
          return run.paced(4, 40, (index) => {
            const other = others[index % others.length]
            const refresh = xrpc(agent, service, 'com.atproto.server.refreshSession', { method: 'POST', token: other.refreshJwt })
            return run.ask(name, run.untouched(refresh).then((answer) => {
              if (answer.status === 200) other.refreshJwt = JSON.parse(answer.text).refreshJwt
              return answer
            }))
          })
        }
        await run.count(name, 'documents asked for', () => counted('silentClients'))
        await plantSilence()
        const own = await Promise.all(silentClients.map((client) => (client.restored ??= OAuthApp.restore(client))))
        return run.paced(4, own.length, async (index) => {
          const app = own[index % own.length]
          if (app.refreshing) return
          app.refreshing = true
          const refresh = run.untouched(app.refresh()).then(() => ({ status: 200 }), (error) => ({ status: error.error ?? String(error) }))
          await run.ask(name, refresh).finally(() => (app.refreshing = false))
        })
      },
    },
  }
}

/** Makes an answer that should have been 400 tell for which value it was not. */
const explain = (answer, value, harmful) =>
  harmful && answer.status !== 400 ? { ...answer, status: `${answer.status} for ${value.slice(0, 60)}` } : answer
