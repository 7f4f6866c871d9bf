// The web server of an OAuth app, with TLS by a certificate authority of this network.
//
// Configuration: {port, settingsPort, name, folder, doors: [{name, port, to}]}.
// https://<name>:<port> serves the documents that were put there. The authority's certificate is in
// <folder>/authority.pem and is made at the first start. Each of the doors is a TLS proxy, as
// operators have one: https://<name>:<port> is passed on to http://127.0.0.1:<to>.
//   PUT    /documents/<path>   {"status": 200, "headers": {…}, "body": "…", "delay": ms}   serves this at <path>
//   DELETE /documents/<path>   serves nothing at <path>
//   GET    /visits             returns [{path, query, method, body}], oldest first
//   DELETE /visits             forgets all visits

import 'reflect-metadata' // needed by the library for certificates
import crypto from 'node:crypto'
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as x509 from '@peculiar/x509'
import { answerJson, jsonBody, listen, member } from './lib/member.mjs'

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const YEAR = 365 * 24 * 3600 * 1000

/**
 * Returns the authority's certificate file, and a certificate for `names` with its key. All are
 * kept in `folder`.
 */
async function certificates(names, folder) {
  const file = (name) => path.join(folder, name)
  const known = fs.existsSync(file('names.json')) ? fs.readFileSync(file('names.json'), 'utf8') : ''
  if (known !== JSON.stringify(names)) {
    x509.cryptoProvider.set(crypto.webcrypto)
    const pair = () => crypto.webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
    const [authorityKeys, keys] = [await pair(), await pair()]
    const dates = { notBefore: new Date(Date.now() - 24 * 3600 * 1000), notAfter: new Date(Date.now() + 10 * YEAR) }
    const authority = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: crypto.randomBytes(8).toString('hex'),
      name: "CN=Genkan's test network",
      ...dates,
      keys: authorityKeys,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      ],
    })
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: crypto.randomBytes(8).toString('hex'),
      subject: `CN=${names[0]}`,
      issuer: authority.subject,
      ...dates,
      publicKey: keys.publicKey,
      signingKey: authorityKeys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: [new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value })))],
    })
    const key = Buffer.from(await crypto.webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
    fs.mkdirSync(folder, { recursive: true })
    fs.writeFileSync(file('authority.pem'), authority.toString('pem') + '\n')
    fs.writeFileSync(file('certificate.pem'), certificate.toString('pem') + '\n')
    const pem = crypto.createPrivateKey({ key, format: 'der', type: 'pkcs8' }).export({ type: 'pkcs8', format: 'pem' })
    fs.writeFileSync(file('key.pem'), pem, { mode: 0o600 })
    fs.writeFileSync(file('names.json'), JSON.stringify(names))
  }
  const read = (name) => fs.readFileSync(file(name), 'utf8')
  return { authorityFile: file('authority.pem'), cert: read('certificate.pem'), key: read('key.pem') }
}

/** A TLS proxy that passes every request on and names its client in `x-forwarded-for`. */
function door({ cert, key }, to) {
  return https.createServer({ cert, key }, (request, response) => {
    const headers = { ...request.headers, 'x-forwarded-for': request.socket.remoteAddress, 'x-forwarded-proto': 'https' }
    const onward = http.request({ host: '127.0.0.1', port: to, method: request.method, path: request.url, headers })
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()))
    response.on('close', () => onward.destroy())
    request.pipe(onward)
  })
}

await member(async ({ port, settingsPort, name, folder, doors = [] }) => {
  const names = [name, ...doors.map((door) => door.name)]
  const { authorityFile, cert, key } = await certificates(names, folder)
  const open = doors.map(({ to }) => door({ cert, key }, to))
  await Promise.all(open.map((server, index) => listen(server, doors[index].port)))
  const documents = new Map()
  let visits = []

  const app = https.createServer({ cert, key }, async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, `https://${name}`)
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks).toString()
    visits.push({ path: pathname, query: Object.fromEntries(searchParams), method: request.method, body })
    const found = documents.get(pathname) ?? { status: 404, body: 'no document was put here' }
    if (found.delay) await sleep(found.delay)
    const headers = { 'content-type': 'text/html; charset=utf-8', ...found.headers }
    response.writeHead(found.status ?? 200, headers).end(found.body ?? '')
  })
  await listen(app, port)

  const settings = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost')
    if (pathname === '/visits') {
      if (request.method === 'DELETE') visits = []
      return answerJson(response, 200, visits)
    }
    if (!pathname.startsWith('/documents/')) return answerJson(response, 404, { error: 'see app.mjs' })
    const place = pathname.slice('/documents'.length)
    if (request.method === 'PUT') documents.set(place, await jsonBody(request))
    if (request.method === 'DELETE') documents.delete(place)
    answerJson(response, 200, documents.get(place) ?? {})
  })
  await listen(settings, settingsPort)

  return {
    ready: { url: `https://${name}:${port}`, settingsUrl: `http://localhost:${settingsPort}`, name, port, authorityFile },
    stop: async () => {
      for (const server of [app, ...open]) {
        server.closeAllConnections()
        server.close()
      }
      settings.close()
    },
  }
})
