// A small name server over UDP, for handles that no public name server knows.
//
// Configuration: {dnsPort, port, zones: [{suffix: ".test", origin: "http://localhost:2583"}, …],
// records: {…}}, with records in the form of GET /records. TXT questions for `_atproto.<handle>`
// are answered from the table. For a handle that is not in the table but ends with a zone's suffix
// (the longest one counts), the server asks the zone's origin for /.well-known/atproto-did with the
// handle as Host. So every handle that a server under test gives out resolves at once. A questions
// are answered from the table, and with 127.0.0.1 for names in a zone. Names that end with
// `.silent.example.com` get no answer at all.
//   GET    /records             returns {"<name>": {"txt": ["…"], "a": ["…"]}}
//   PUT    /records/<name>      {"txt": ["did=did:plc:…"], "a": ["127.0.0.1"]} replaces the whole record
//   DELETE /records/<name>
//   PUT    /handles/<handle>    {"did": "did:plc:…"} replaces the TXT record of _atproto.<handle>
//   DELETE /handles/<handle>

import dgram from 'node:dgram'
import http from 'node:http'
import { answerJson, jsonBody, listen, member } from './lib/member.mjs'
import { answerTo, parseQuestion, TYPE_A, TYPE_TXT } from './lib/dns-message.mjs'

const SILENT = '.silent.example.com'

await member(async ({ dnsPort, port, zones, records: known }) => {
  const records = new Map(Object.entries(known ?? {}))
  const longestFirst = [...zones].sort((a, b) => b.suffix.length - a.suffix.length)
  const zoneOf = (name) => longestFirst.find(({ suffix }) => name.endsWith(suffix))

  /** Returns the values for a question, or null if the name does not exist. */
  async function lookUp(name, type) {
    const record = records.get(name)
    if (record) return type === TYPE_TXT ? (record.txt ?? []) : type === TYPE_A ? (record.a ?? []) : []
    const zone = zoneOf(name)
    if (!zone) return null
    if (!name.startsWith('_atproto.')) return type === TYPE_A ? ['127.0.0.1'] : []
    const did = await askWellKnown(zone.origin, name.slice('_atproto.'.length))
    if (!did) return null
    return type === TYPE_TXT ? [`did=${did}`] : []
  }

  const socket = dgram.createSocket('udp4')
  socket.on('message', async (message, from) => {
    const question = parseQuestion(message)
    if (!question || question.name.toLowerCase().endsWith(SILENT)) return
    const values = await lookUp(question.name.toLowerCase(), question.type).catch(() => null)
    socket.send(answerTo(question, values), from.port, from.address)
  })
  await new Promise((resolve, reject) => socket.once('error', reject).bind(dnsPort, '127.0.0.1', resolve))

  const web = http.createServer(async (request, response) => {
    const [, kind, name] = new URL(request.url, 'http://localhost').pathname.toLowerCase().split('/')
    if (kind === 'records' && !name) return answerJson(response, 200, Object.fromEntries(records))
    if (!name || !['records', 'handles'].includes(kind)) return answerJson(response, 404, { error: 'see dns.mjs' })
    const owner = kind === 'handles' ? `_atproto.${name}` : name
    if (request.method === 'PUT') {
      const body = await jsonBody(request)
      records.set(owner, kind === 'handles' ? { txt: [`did=${body.did}`] } : body)
    } else if (request.method === 'DELETE') {
      records.delete(owner)
    }
    answerJson(response, 200, records.get(owner) ?? {})
  })
  await listen(web, port)

  return {
    ready: { url: `http://localhost:${port}`, server: `127.0.0.1:${dnsPort}` },
    stop: async () => {
      web.close()
      socket.close()
    },
  }
})

/**
 * Asks an origin for a handle's DID. By `http.get`, since `fetch` does not let a caller choose the
 * Host header.
 */
function askWellKnown(origin, handle) {
  return new Promise((resolve) => {
    const options = { headers: { host: handle }, timeout: 2000 }
    const request = http.get(new URL('/.well-known/atproto-did', origin), options, async (response) => {
      let text = ''
      for await (const chunk of response) text += chunk
      resolve(response.statusCode === 200 && text.startsWith('did:') ? text.trim() : null)
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => resolve(null))
  })
}
