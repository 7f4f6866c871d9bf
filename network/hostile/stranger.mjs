// What a hostile stranger without an account does. The form of an attack is described in attacks.mjs.

import crypto from 'node:crypto'
import http2 from 'node:http2'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { FormBrowser } from '../soak/pages.mjs'
import { closed } from './run.mjs'
import { sendForm, xrpc } from './tools.mjs'

const LETTERS = 'abcdefghijklmnopqrstuvwxyz234567'
const base32 = (length) => Array.from(crypto.randomBytes(length), (byte) => LETTERS[byte % 32]).join('')
const CHALLENGE = { code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM', code_challenge_method: 'S256' }
const REDIRECT = 'http://127.0.0.1/callback'

/** Reads a byte now and then. */
async function readSlowly(socket) {
  socket.once('data', () => socket.pause())
  const drip = setInterval(() => socket.read(1), 5000)
  await closed(socket).finally(() => clearInterval(drip))
}

export function strangerAttacks({ service, did, server, user, alone, clients, tarpits, sets, trapped, victim, others, adminPassword, counted }) {
  const { hostname, port } = new URL(service)
  /** The path of a blob: a large one for those who do not read it, and a small one for those who do. */
  const blob = ({ did, blobs }, harmful) =>
    `/xrpc/com.atproto.sync.getBlob?${new URLSearchParams({ did, cid: harmful ? blobs.large : blobs.small })}`
  const listed = (repo, more = {}) => ({ query: { repo, collection: 'app.bsky.feed.post', limit: 50, ...more } })
  const tarpitOf = (index) => tarpits[index % tarpits.length]
  const signIn = (agent, identifier, password, more = {}) =>
    xrpc(agent, service, 'com.atproto.server.createSession', { body: { identifier, password }, ...more })
  const rightful = (agent, index) => signIn(agent, others[index % others.length].handle, others[index % others.length].password)

  /** Streams that are opened and not read, from connections of one address. */
  async function windowsOfZero(run, name, harmful, account, connections) {
    const [localAddress] = run.addresses(1)
    const open = async () => {
      while (!run.ended) {
        const session = http2.connect(service, {
          settings: harmful ? { initialWindowSize: 0 } : {},
          createConnection: () => net.connect({ host: hostname, port: Number(port), family: 4, localAddress }),
        })
        run.sockets.add(session)
        session.on('error', () => {})
        const streams = Array.from({ length: 100 }, (_, index) => sleep(harmful ? 0 : index * 2000).then(() => new Promise((resolve) => {
          if (session.destroyed || run.ended) return resolve()
          const stream = session.request({ ':path': blob(account, harmful) })
          stream.on('response', (head) => run.tell(name, head[':status']))
          stream.on('error', resolve).on('close', resolve).on('data', () => {}).on('end', resolve)
        })))
        await Promise.race([Promise.all(streams), run.end])
        session.destroy()
        run.sockets.delete(session)
        await sleep(500)
      }
    }
    for (let connection = 0; connection < connections; connection++) open()
  }

  /** Pushes an authorization request of an app under development, and returns its answer. */
  const push = (agent, scope = 'atproto') => {
    const client_id = `http://localhost?${new URLSearchParams({ redirect_uri: REDIRECT, scope })}`
    const form = { client_id, redirect_uri: REDIRECT, scope, response_type: 'code', state: 'x', ...CHALLENGE }
    return sendForm(agent, `${service}/oauth/par`, form).then((answer) => ({ ...answer, client_id }))
  }

  return {
    'HTTP/2 streams with a window of 0': {
      harmless: [{ any: ['200'], perMinute: 60 }],
      harmful: [{ any: ['200'], perMinute: 20 }],
      act: async (run, name, harmful) => {
        for (let address = 0; address < 2; address++) await windowsOfZero(run, name, harmful, user, 6)
      },
    },
    'HTTP/2 streams with a window of 0 from an external PDS': {
      harmless: [{ any: ['200'], perMinute: 20 }],
      // The call budget of the PDS lets few of them through.
      harmful: [{ any: ['200'], perMinute: 1 }, { any: ['200', '429'], perMinute: 20 }],
      act: async (run, name, harmful) => {
        for (let address = 0; address < 4; address++) await windowsOfZero(run, name, harmful, alone, 1)
      },
    },
    'HTTP/1 slow readers': {
      harmless: [{ any: ['answered 200'], perMinute: 60 }],
      harmful: [{ any: ['answered 200'], perMinute: 20 }],
      act: (run, name, harmful) => {
        const request = `GET ${blob(user, harmful)} HTTP/1.1\r\nhost: ${hostname}:${port}\r\n\r\n`
        run.raw(name, 480, run.addresses(6), service, async (socket) => {
          if (!harmful) await sleep(Math.random() * 30_000)
          socket.write(request)
          if (harmful) return readSlowly(socket)
          socket.resume()
          return Promise.race([closed(socket), sleep(30_000)])
        })
      },
    },
    // At many origins: one alone may hold only a share of what fetches have.
    'tarpit client_id': {
      harmless: [{ any: ['200', '201', '400'], perMinute: 200 }],
      harmful: [{ any: ['held'], perMinute: 20 }],
      act: (run, name, harmful) => {
        const agents = run.many(16)
        const names = harmful ? clients.harmful : clients.harmless
        return run.paced(30, 400, (index) => {
          const path = index % 2 ? '/oauth/token' : '/oauth/par'
          const form = { client_id: names[index % names.length], grant_type: 'refresh_token', refresh_token: crypto.randomBytes(20).toString('hex'), response_type: 'code', scope: 'atproto', redirect_uri: 'https://app.example.com/callback', ...CHALLENGE }
          return run.ask(name, sendForm(agents[index % agents.length], service + path, form))
        })
      },
    },
    // Of authors whose PDS never answers, of one whose PDS is down, and of one at Genkan's own host.
    'permission sets of a tarpit': {
      harmless: [{ any: ['201'], perMinute: 30 }],
      harmful: [{ any: ['held'], perMinute: 20 }],
      act: (run, name, harmful) => {
        const agents = run.many(8)
        return run.paced(4, 100, (index) => {
          const asked = Array.from({ length: 32 }, (_, set) => ` include:${sets[(index * 32 + set) % sets.length]}.set${index}x${set}`)
          return run.ask(name, push(agents[index % agents.length], `atproto${harmful ? asked.join('') : ''}`))
        })
      },
    },
    // Each of another DID, so that no cache answers. The directory has a document for all of them.
    'giant DID documents': {
      harmless: [{ any: ['documents'], perMinute: 200 }],
      harmful: [{ any: ['documents'], perMinute: 200 }],
      act: async (run, name, harmful) => {
        const agents = run.many(8)
        const kind = harmful ? 'giant' : 'small'
        await run.count(name, 'documents', () => counted(kind))
        return run.paced(20, 60, (index) =>
          run.ask(name, xrpc(agents[index % agents.length], service, 'com.atproto.repo.describeRepo', { query: { repo: `did:plc:${kind}${base32(19)}` } })))
      },
    },
    // Thousands of PDSes that cannot be reached. What is known of the others must not be forgotten.
    'reads of very many PDSes': {
      harmless: [{ any: ['200', '400', '404'], perMinute: 200 }],
      harmful: [{ any: ['documents'], perMinute: 200 }],
      act: async (run, name, harmful) => {
        const agents = run.many(16)
        await run.count(name, 'documents', () => counted('other'))
        return run.paced(30, 200, (index) =>
          run.ask(name, xrpc(agents[index % agents.length], service, 'com.atproto.repo.listRecords', listed(harmful ? `did:plc:other${base32(19)}` : user.did))))
      },
    },
    'reads that fill an external PDS': {
      harmless: [{ any: ['200'], perMinute: 300 }],
      harmful: [{ any: ['200'], perMinute: 100 }],
      act: (run, name, harmful) => {
        const agents = run.many(24)
        // Harmless are the same reads of an account that lives here.
        return run.paced(40, 400, (index) =>
          run.ask(name, xrpc(agents[index % agents.length], service, 'com.atproto.repo.listRecords', listed(harmful ? alone.did : user.did))))
      },
    },
    'reads of PDSes that never answer': {
      harmless: [{ any: ['200'], perMinute: 200 }],
      harmful: [{ any: ['held'], perMinute: 20 }],
      act: (run, name, harmful) => {
        const agents = run.many(24)
        return run.paced(30, 600, (index) =>
          run.ask(name, xrpc(agents[index % agents.length], service, 'com.atproto.repo.listRecords', listed(harmful ? tarpitOf(index).did : user.did, { limit: 1 + (index % 90) }))))
      },
    },
    'handles that never answer': {
      harmless: [{ any: ['200'], perMinute: 100 }],
      harmful: [{ any: ['held'], perMinute: 20 }],
      act: (run, name, harmful) => {
        const agents = run.many(16)
        return run.paced(20, 400, (index) => {
          const handle = harmful ? `h${base32(8)}.z${index % 64}.silent.example.com` : user.handle
          return run.ask(name, xrpc(agents[index % agents.length], service, 'com.atproto.identity.resolveHandle', { query: { handle } }))
        })
      },
    },
    // By a browser: the form asks for a handle, and its PDS never answers.
    'sign-ins with a PDS that never answers': {
      harmless: [{ any: ['submitted'], perMinute: 20 }],
      harmful: [{ any: ['submitted'], perMinute: 20 }, { any: ['held'], perMinute: 8 }],
      act: (run, name, harmful) => {
        return run.paced(2, 120, async (index) => {
          const agent = run.from()
          const { text, client_id } = await push(agent)
          const url = `${service}/oauth/authorize?${new URLSearchParams({ client_id, request_uri: JSON.parse(text).request_uri })}`
          const browser = new FormBrowser(service, [], agent)
          const page = await browser.open(url)
          run.tell(name, 'submitted')
          const who = harmful ? { identifier: tarpitOf(index).handle, password: '' } : { identifier: `nobody${index}.test`, password: '' }
          const done = browser.submit(page, 'sign-in', who).catch((error) => ({ status: String(error).slice(0, 80) }))
          await run.ask(name, done.then(({ status }) => ({ status })))
        })
      },
    },
    // Each guess from an address of its own.
    'password spraying': {
      harmless: [{ any: ['200'], perMinute: 60 }],
      harmful: [{ any: ['401'], perMinute: 60 }],
      act: (run, name, harmful) =>
        run.paced(10, 60, (index) =>
          run.ask(name, harmful ? signIn(run.from(), index % 3 ? `user${index}.test` : victim.handle, `guess ${index}`) : rightful(run.from(), index))),
    },
    // Some claim to be the victim. Most claim to be another client each time, and must meet the limit of
    // their one address.
    'forged X-Forwarded-For': {
      harmless: [{ any: ['200'], perMinute: 20 }],
      harmful: [{ any: ['401'], perMinute: 20 }, { any: ['429'], perMinute: 5 }],
      act: (run, name, harmful) => {
        const one = run.from()
        const claim = (index) => (index % 4 ? `198.51.${Math.floor(index / 200) % 200}.${index % 200}` : '127.0.0.13')
        return run.paced(8, 40, (index) =>
          run.ask(name, harmful
            ? signIn(index % 4 ? one : run.from(), `user${index}.test`, 'guess', { headers: { 'x-forwarded-for': claim(index), forwarded: `for=${claim(index)}`, 'x-real-ip': claim(index) } })
            : rightful(run.from(), index)))
      },
    },
    'guesses at admin doors': {
      harmless: [{ any: ['200'], perMinute: 30 }],
      harmful: [{ any: ['401'], perMinute: 2 }, { any: ['429'], perMinute: 20 }],
      act: (run, name, harmful) => {
        const agent = run.from()
        const basic = (password) => ({ authorization: `Basic ${Buffer.from(`admin:${password}`).toString('base64')}` })
        return run.paced(4, 20, (index) =>
          run.ask(name, xrpc(agent, service, 'com.atproto.admin.getAccountInfo', { query: { did: user.did }, headers: basic(harmful ? `guess ${index}` : adminPassword) })))
      },
    },
    'repeated sign-ups': {
      harmless: [{ any: ['200'], perMinute: 100 }],
      harmful: [{ any: ['400', '429'], perMinute: 60 }],
      act: (run, name, harmful) => {
        const agents = run.many(16)
        return run.paced(10, 60, (index) => {
          const agent = agents[index % agents.length]
          const body = { handle: victim.handle, email: victim.email, password: `guess ${index}` }
          return run.ask(name, harmful ? xrpc(agent, service, 'com.atproto.server.createAccount', { body }) : xrpc(agent, service, 'com.atproto.server.describeServer'))
        })
      },
    },
    'bad service tokens': {
      harmless: [{ any: ['401'], perMinute: 300 }],
      harmful: [{ any: ['400', '401'], perMinute: 300 }, { never: ['requests to the directory'] }],
      act: async (run, name, harmful) => {
        const agents = run.many(16)
        const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
        await run.count(name, 'requests to the directory', () => counted('forge'))
        return run.paced(60, 100, (index) => {
          const now = Math.floor(Date.now() / 1000)
          const method = 'com.atproto.server.deactivateAccount'
          const claims = { iss: `did:plc:forge${base32(19)}`, aud: did, exp: now + 60, iat: now, lxm: method, jti: `${index}` }
          const bad = `${encode({ typ: 'JWT', alg: 'ES256K' })}.${encode(claims)}.${crypto.randomBytes(64).toString('base64url')}`
          return run.ask(name, xrpc(agents[index % agents.length], service, method, { method: 'POST', token: harmful ? bad : undefined, body: {} }))
        })
      },
    },
    // A port at a private address that the operator did not list. Nothing may connect to it.
    'documents at a forbidden port': {
      harmless: [{ any: ['200'], perMinute: 60 }],
      harmful: [{ any: ['client 400'], perMinute: 10 }, { any: ['reading 400', 'reading 502', 'reading 404'], perMinute: 10 }, { never: ['dials of a forbidden port'] }],
      act: async (run, name, harmful) => {
        const agents = run.many(4)
        await run.count(name, 'dials of a forbidden port', () => counted('trap'))
        const origins = ['localhost', '127.0.0.1', 'inner.example.com', '[::1]', '2130706433', '127.1'].map((host) => `https://${host}:${server.trapPort}`)
        return run.paced(8, 80, async (index) => {
          const agent = agents[index % agents.length]
          if (!harmful) return run.ask(name, xrpc(agent, service, 'com.atproto.server.describeServer'))
          const round = Math.floor(index / 2)
          const asked = index % 2
            ? sendForm(agent, `${service}/oauth/par`, { client_id: `${origins[round % origins.length]}/client-metadata.json`, redirect_uri: REDIRECT, response_type: 'code', scope: 'atproto', ...CHALLENGE })
            : xrpc(agent, service, 'com.atproto.repo.describeRepo', { query: { repo: trapped[round % trapped.length] } })
          const answer = await run.whole(asked)
          run.tell(name, { ...answer, status: `${index % 2 ? 'client' : 'reading'} ${answer.status}` })
        })
      },
    },
    'heads that never end': {
      harmless: [{ any: ['answered 200'], perMinute: 100 }],
      harmful: [{ any: ['held'], perMinute: 60 }],
      act: (run, name, harmful) => {
        run.raw(name, 200, run.addresses(1), service, async (socket) => {
          socket.write(`GET /xrpc/com.atproto.server.describeServer HTTP/1.1\r\nhost: ${hostname}:${port}\r\n${harmful ? 'x' : '\r\n'}`)
          socket.resume()
          await Promise.race([closed(socket), sleep(20_000)])
          await sleep(2000)
        })
      },
    },
  }
}
