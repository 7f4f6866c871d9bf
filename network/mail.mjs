// A mail catcher, which takes every message by SMTP and shows them over HTTP.
//
// Configuration: {smtpPort, port}.
//   GET    /messages?to=<address>   returns [{id, from, to: […], subject, text, raw, at}], newest last
//   DELETE /messages                forgets all messages
// `text` is the message's first plain-text part, decoded, or its first part if none is plain text.

import http from 'node:http'
import { SMTPServer } from 'smtp-server'
import { answerJson, listen, member } from './lib/member.mjs'
import { parseMail } from './lib/parse-mail.mjs'

await member(async ({ smtpPort, port }) => {
  let messages = []
  let lastId = 0

  const smtp = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    onAuth: (auth, session, done) => done(null, { user: auth.username }),
    onData(stream, session, done) {
      const chunks = []
      stream.on('data', (chunk) => chunks.push(chunk))
      stream.on('end', () => {
        const raw = Buffer.concat(chunks).toString()
        const { mailFrom, rcptTo } = session.envelope
        const to = rcptTo.map(({ address }) => address)
        messages.push({ id: ++lastId, from: mailFrom.address, to, ...parseMail(raw), raw, at: new Date() })
        done()
      })
    },
  })
  await new Promise((resolve, reject) => {
    smtp.on('error', reject)
    smtp.listen(smtpPort, '127.0.0.1', resolve)
  })

  const web = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://localhost')
    if (pathname !== '/messages') return answerJson(response, 404, { error: 'this server has /messages only' })
    if (request.method === 'DELETE') messages = []
    const to = searchParams.get('to')?.toLowerCase()
    const wanted = to ? messages.filter((m) => m.to.some((address) => address.toLowerCase() === to)) : messages
    answerJson(response, 200, wanted)
  })
  await listen(web, port)

  return {
    ready: { url: `http://localhost:${port}`, smtp: `smtp://localhost:${smtpPort}` },
    stop: async () => {
      web.close()
      smtp.close()
    },
  }
})
