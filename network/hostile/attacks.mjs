// What a hostile user, or a hostile stranger, does to a service: `node hostile/attacks.mjs
// <world.json>`.
//
// A line {"attacks": ["…"], "harmful": true} on standard input starts some of them. The next line,
// `stop`, ends them, and a line {"…": {"200": 12, "429": 3}} with the answers by attack and status
// is printed. A line `survivors` asks which of the attacker's own accounts were deleted, in answer to
// which a line {checked, deleted: [...]} is printed after some minutes. With "harmful": false each makes the same number of requests and connections, but
// asks for what anybody may ask for.

import crypto from 'node:crypto'
import fs from 'node:fs'
import http2 from 'node:http2'
import net from 'node:net'
import readline from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { OAuthApp } from '../soak/oauth-app.mjs'
import { agentFrom, fetchFrom, paced, send, sendForm, xrpc } from './tools.mjs'

const world = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const { service, server, user, userLinked, alone, clients, tarpitDid, victim, others, doomed } = world
const { hostname, port } = new URL(service)
const at = { host: hostname, port: Number(port), family: 4 }
const token = user.accessJwt
/** What one address may ask in all by default, with a margin. */
const ALLOWED = 9
const BURST = 30

let addresses = 0
/** An address that no attack has used before. */
const newAddress = () => `127.1.${Math.floor(++addresses / 250)}.${(addresses % 250) + 1}`
const many = (count) => Array.from({ length: count }, newAddress)
/** Requests from one address, paced just below the limit of one address. */
const from = () => agentFrom(newAddress())

const LETTERS = 'abcdefghijklmnopqrstuvwxyz234567'
const base32 = (length) => Array.from(crypto.randomBytes(length), (byte) => LETTERS[byte % 32]).join('')

/** Counts an answer by its status and the name of its error. */
function tell(run, name, { status, text, body }) {
  const error = status < 400 ? '' : /"error":"(\w+)"/.exec(text ?? JSON.stringify(body ?? ''))?.[1]
  const key = error ? `${status} ${error}` : status
  const counts = (run.told[name] ??= {})
  counts[key] = (counts[key] ?? 0) + 1
}

/** Calls of a method behind the host, through the host's own proxying. */
const proxied = (agent, method, did) =>
  xrpc(agent, service, method, { token, headers: { 'atproto-proxy': `${did}#bad` }, timeout: 45_000 })

/** The path of a blob: a large one for those who do not read it, and a small one for those who do. */
const blob = (harmful) =>
  `/xrpc/com.atproto.sync.getBlob?${new URLSearchParams({ did: user.did, cid: harmful ? user.blobs.large : user.blobs.small })}`

/** Raw connections that send a head and go on slowly, or finish at once. Each is opened again. */
async function raw(run, name, connections, source, once) {
  const address = newAddress()
  const keep = async () => {
    while (!run.ended) {
      const socket = net.connect({ ...at, localAddress: source ?? address })
      run.sockets.add(socket)
      socket.on('error', () => {})
      await Promise.race([once(socket), run.end])
      socket.destroy()
      run.sockets.delete(socket)
      tell(run, name, { status: 'connections' })
    }
  }
  for (let index = 0; index < connections; index++) keep()
}

async function appOf({ app: kept }) {
  const app = await OAuthApp.restore(kept)
  app.tokens.access_token = kept.access
  return app
}

/** Genkan deletes accounts that are due within this time. */
const DELETED_WITHIN = 150_000
let lastDeletion = 0

/** Returns how many of the attacker's accounts are gone, once those that are due would be. */
async function survivors() {
  if (!lastDeletion) return { checked: 0, deleted: [] }
  await sleep(Math.max(lastDeletion + DELETED_WITHIN - Date.now(), 0))
  const deleted = []
  const agent = from()
  for (const { handle: identifier, password, by } of doomed) {
    const { status, text } = await xrpc(agent, service, 'com.atproto.server.createSession', { body: { identifier, password } })
    if (status !== 200) deleted.push(`${identifier}, by ${by}: ${status} ${text.slice(0, 200)}`)
  }
  return { checked: doomed.length, deleted }
}

const closed = (socket) => new Promise((resolve) => socket.once('close', resolve))

/** Reads a byte now and then, or everything. */
async function readSlowly(socket) {
  socket.pause()
  const drip = setInterval(() => socket.read(1), 5000)
  await closed(socket).finally(() => clearInterval(drip))
}

const attacks = {
  user: {
    // In bursts, so that many failures of a host follow each other.
    'services that answer 502': (run, name, harmful) => {
      const agent = from()
      const method = harmful ? 'com.example.bad' : 'com.example.good'
      return paced(run, ALLOWED / BURST, 1, (round) =>
        Promise.all(Array.from({ length: BURST }, async (_, index) =>
          tell(run, name, await proxied(agent, method, server.dids[(round + index) % server.dids.length])))))
    },
    'services that never answer': (run, name, harmful) => {
      const agents = many(32).map((address) => agentFrom(address))
      return paced(run, 40, 700, async (index) => {
        const agent = agents[index % agents.length]
        tell(run, name, await proxied(agent, harmful ? 'com.example.slow' : 'com.example.good', server.dids[index % server.dids.length]))
      })
    },
    'slow posts': (run, name, harmful) => {
      const head = (length) =>
        `POST /xrpc/com.atproto.repo.uploadBlob HTTP/1.1\r\nhost: ${hostname}:${port}\r\nauthorization: Bearer ${token}\r\n` +
        `content-type: image/png\r\ncontent-length: ${length}\r\n\r\n`
      return Promise.all(many(8).map((address) => raw(run, name, 40, address, async (socket) => {
        if (!harmful) {
          await sleep(Math.random() * 30_000)
          socket.write(head(64) + 'x'.repeat(64))
          return sleep(5000)
        }
        socket.write(head(1_000_000))
        const drip = setInterval(() => socket.write('x'.repeat(1100)), 1000)
        await closed(socket).finally(() => clearInterval(drip))
      })))
    },
    'websockets': (run, name, harmful) =>
      raw(run, name, 200, undefined, async (socket) => {
        const upgrade = harmful ? 'connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n' : ''
        const path = harmful ? 'com.atproto.sync.subscribeRepos' : 'com.atproto.server.describeServer'
        socket.write(`GET /xrpc/${path} HTTP/1.1\r\nhost: ${hostname}:${port}\r\nauthorization: Bearer ${token}\r\n${upgrade}\r\n`)
        await Promise.race([closed(socket), sleep(20_000)])
        await sleep(2000)
      }),
    'atproto-proxy to forbidden names': (run, name, harmful) => {
      const agent = from()
      const forbidden = [
        'did:web:localhost#bad', 'did:web:localhost%3A1#bad', 'did:web:127.0.0.1#bad', 'did:web:10.0.0.1#bad', 'did:web:169.254.169.254#x',
        'did:web:0x7f.1#x', 'did:web:2130706433#x', 'did:web:[::1]#x', 'did:web:metadata.internal#x', 'did:web:a.local#x', 'did:web:LOCALHOST#x',
        'did:web:localhost.#x', 'not a did', 'did:web:example.com', '#x', 'did:plc:short#x', 'did:web:a.example.com#b#c', 'did:key:z6Mk#x',
        'did:web:..%2f#x', `did:web:${'a.'.repeat(3000)}example.com#x`, 'did:web:a.example.com#', ' ',
      ]
      return paced(run, ALLOWED, 30, async (index) => {
        const value = harmful ? forbidden[index % forbidden.length] : `${server.dids[0]}#bad`
        tell(run, name, await xrpc(agent, service, 'com.example.good', { token, headers: { 'atproto-proxy': value } }))
      })
    },
    // The accounts are the attacker's own: nobody who holds less than a full session may delete them.
    'deletions by those who may not': (run, name, harmful) => {
      const agent = from()
      const deleteAfter = '2020-01-01T00:00:00Z'
      return paced(run, 1, 4, async (index) => {
        const account = doomed[index % doomed.length]
        const method = 'com.atproto.server.deactivateAccount'
        if (!harmful) return tell(run, name, await xrpc(agent, service, 'com.atproto.server.getSession', { token: account.accessJwt }))
        const done = account.by === 'an app'
          ? await appOf(account).then((app) => app.call(method, { body: { deleteAfter } }))
          : account.by === 'its host'
            // The host passes the call on with a service token.
            ? await xrpc(agent, world.host, method, { token: account.accessJwt, body: { deleteAfter } })
            : await xrpc(agent, service, method, { token: account.by === 'an app password' ? account.phone : account.accessJwt, body: { deleteAfter } })
        lastDeletion = Date.now()
        tell(run, name, { ...done, status: `${account.by} ${done.status}` })
      })
    },
    'linked calls that hold an external PDS': async (run, name, harmful) => {
      const app = await OAuthApp.restore(userLinked.app)
      app.tokens.access_token = userLinked.app.access
      return paced(run, ALLOWED, 128, async () => {
        const query = { did: userLinked.did, limit: 1 }
        const proxy = { 'atproto-proxy': `${server.dids[0]}#bad` }
        tell(run, name, harmful ? await app.call('app.bsky.feed.getTimeline', { headers: proxy }) : await app.call('com.atproto.repo.listRecords', { query: { repo: query.did, collection: 'app.bsky.feed.post', limit: 1 } }))
      })
    },
  },
  stranger: {
    'HTTP/2 streams with a window of 0': async (run, name, harmful) => {
      const address = newAddress()
      const open = async () => {
        while (!run.ended) {
          const session = http2.connect(service, {
            settings: harmful ? { initialWindowSize: 0 } : {},
            createConnection: () => net.connect({ ...at, localAddress: address }),
          })
          run.sockets.add(session)
          session.on('error', () => {})
          const streams = Array.from({ length: 100 }, (_, index) => sleep(harmful ? 0 : index * 2000).then(() => new Promise((resolve) => {
            if (session.destroyed || run.ended) return resolve()
            const stream = session.request({ ':path': blob(harmful) })
            stream.on('response', (head) => tell(run, name, { status: head[':status'] }))
            stream.on('error', resolve).on('close', resolve).on('data', () => {}).on('end', resolve)
          })))
          await Promise.race([Promise.all(streams), run.end])
          session.destroy()
          run.sockets.delete(session)
          await sleep(500)
        }
      }
      for (let connection = 0; connection < 12; connection++) open()
    },
    'HTTP/1 slow readers': (run, name, harmful) => {
      const request = `GET ${blob(harmful)} HTTP/1.1\r\nhost: ${hostname}:${port}\r\n\r\n`
      return Promise.all(many(8).map((address) => raw(run, name, 80, address, async (socket) => {
        if (!harmful) await sleep(Math.random() * 30_000)
        socket.write(request)
        if (harmful) return readSlowly(socket)
        socket.resume()
        return Promise.race([closed(socket), sleep(30_000)])
      })))
    },
    'tarpit client_id': (run, name, harmful) => {
      const agents = many(16).map((address) => agentFrom(address))
      const names = harmful ? clients.harmful : clients.harmless
      return paced(run, 40, 400, async (index) => {
        const path = index % 4 ? '/oauth/token' : '/oauth/par'
        const form = { client_id: names[index % names.length], grant_type: 'refresh_token', refresh_token: crypto.randomBytes(20).toString('hex'), response_type: 'code', scope: 'atproto', redirect_uri: 'https://app.example.com/callback', code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256' }
        tell(run, name, await sendForm(agents[index % agents.length], service + path, form))
      })
    },
    'permission sets of a tarpit': (run, name, harmful) => {
      const redirect_uri = 'http://127.0.0.1/callback'
      const agents = many(8).map((address) => agentFrom(address))
      return paced(run, 4, 100, async (index) => {
        const sets = harmful ? Array.from({ length: 32 }, (_, set) => ` include:com.example.tarpit.set${index}x${set}`).join('') : ''
        const scope = `atproto${sets}`
        const client_id = `http://localhost?${new URLSearchParams({ redirect_uri, scope })}`
        const form = { client_id, redirect_uri, scope, response_type: 'code', code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256', state: 'x' }
        tell(run, name, await sendForm(agents[index % agents.length], `${service}/oauth/par`, form))
      })
    },
    // Each of another DID, so that no cache answers. The directory has a document for all of them.
    'giant DID documents': (run, name, harmful) => {
      const agents = many(8).map((address) => agentFrom(address))
      return paced(run, 30, 60, async (index) => {
        const repo = `did:plc:${harmful ? 'giant' : 'small'}${base32(19)}`
        tell(run, name, await xrpc(agents[index % agents.length], service, 'com.atproto.repo.describeRepo', { query: { repo } }))
      })
    },
    'reads that fill an external PDS': (run, name, harmful) => {
      const agents = many(24).map((address) => agentFrom(address))
      return paced(run, 60, 400, async (index) => {
        // Harmless are the same reads of an account that lives here.
        const repo = harmful ? alone.did : user.did
        tell(run, name, await xrpc(agents[index % agents.length], service, 'com.atproto.repo.listRecords', { query: { repo, collection: 'app.bsky.feed.post', limit: 50 } }))
      })
    },
    'reads of a PDS that never answers': (run, name, harmful) => {
      const agents = many(24).map((address) => agentFrom(address))
      return paced(run, 30, 600, async (index) => {
        const repo = harmful ? tarpitDid : user.did
        tell(run, name, await xrpc(agents[index % agents.length], service, 'com.atproto.repo.listRecords', { query: { repo, collection: `app.bsky.c${index}` } }))
      })
    },
    'password spraying': (run, name, harmful) => {
      const agents = many(16).map((address) => agentFrom(address))
      return paced(run, 20, 60, async (index) => {
        const rightful = others[index % others.length]
        const body = harmful
          ? { identifier: index % 3 ? `user${index}.test` : victim.handle, password: `guess ${index}` }
          : { identifier: rightful.handle, password: rightful.password }
        tell(run, name, await xrpc(agents[index % agents.length], service, 'com.atproto.server.createSession', { body }))
      })
    },
    'repeated sign-ups': (run, name, harmful) => {
      const agents = many(16).map((address) => agentFrom(address))
      return paced(run, 10, 60, async (index) => {
        const agent = agents[index % agents.length]
        const body = { handle: victim.handle, email: victim.email, password: `guess ${index}` }
        tell(run, name, harmful ? await xrpc(agent, service, 'com.atproto.server.createAccount', { body }) : await xrpc(agent, service, 'com.atproto.server.describeServer'))
      })
    },
    'bad service tokens': (run, name, harmful) => {
      const agents = many(16).map((address) => agentFrom(address))
      const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
      return paced(run, 60, 100, async (index) => {
        const iss = `did:plc:${base32(24)}`
        const now = Math.floor(Date.now() / 1000)
        const claims = { iss, aud: world.did, exp: now + 60, iat: now, lxm: 'com.atproto.server.deactivateAccount', jti: `${index}` }
        const bad = `${encode({ typ: 'JWT', alg: 'ES256K' })}.${encode(claims)}.${crypto.randomBytes(64).toString('base64url')}`
        const method = 'com.atproto.server.deactivateAccount'
        tell(run, name, await xrpc(agents[index % agents.length], service, method, { method: 'POST', token: harmful ? bad : undefined, body: {} }))
      })
    },
    'heads that never end': (run, name, harmful) =>
      raw(run, name, 200, undefined, async (socket) => {
        socket.write(`GET /xrpc/com.atproto.server.describeServer HTTP/1.1\r\nhost: ${hostname}:${port}\r\n${harmful ? 'x' : '\r\n'}`)
        socket.resume()
        await Promise.race([closed(socket), sleep(20_000)])
        await sleep(2000)
      }),
  },
}

fetchFrom('127.0.3.99')
let current = null

function start({ attacks: names, harmful }) {
  let end
  const run = { ended: false, told: {}, sockets: new Set(), end: new Promise((resolve) => (end = resolve)), finish: () => end() }
  for (const name of names) {
    const attack = attacks.user[name] ?? attacks.stranger[name]
    Promise.resolve(attack(run, name, harmful)).catch((error) => tell(run, name, { status: String(error) }))
  }
  return run
}

const lines = readline.createInterface({ input: process.stdin })
lines.on('line', async (line) => {
  if (line === 'survivors') return console.log(JSON.stringify(await survivors()))
  if (line !== 'stop') return void (current = start(JSON.parse(line)))
  current.ended = true
  current.finish()
  for (const socket of current.sockets) socket.destroy()
  console.log(JSON.stringify(current.told))
})
lines.once('close', () => process.exit(0))
process.on('uncaughtException', (error) => console.error(error))
const names = Object.fromEntries(Object.entries(attacks).map(([who, all]) => [who, Object.keys(all)]))
console.log(JSON.stringify({ names }))
