// The members of the network themselves: what the other stories rely on.

import { Resolver } from 'node:dns/promises'
import { test } from 'node:test'
import { assert, directory, eventually, map, member, newName, post, publishHandle, xrpc } from './lib/stage.mjs'

async function signUpAlone() {
  const name = newName('alone')
  const person = { handle: name + map.alone.handleDomain, email: `${name}@example.com`, password: 'long enough for all' }
  const made = await xrpc(map.alone.url, 'com.atproto.server.createAccount', { body: person })
  assert.equal(made.status, 200, JSON.stringify(made.body))
  return { ...person, ...made.body }
}

test('the mail catcher has the emails of the stand-alone PDS', async () => {
  const { email, accessJwt } = await signUpAlone()
  assert.equal((await post(map.alone.url, 'com.atproto.server.requestEmailConfirmation', accessJwt)).status, 200)
  const messages = `${map.mail.url}/messages?to=${encodeURIComponent(email.toUpperCase())}`
  const [mail] = await eventually('the mail', async () => {
    const found = await fetch(messages).then((answer) => answer.json())
    return found.length > 0 && found
  })
  const token = /\b[A-Z2-7]{5}-[A-Z2-7]{5}\b/.exec(mail.text)?.[0]
  assert.ok(token, mail.text)
  const confirmed = await xrpc(map.alone.url, 'com.atproto.server.confirmEmail', { token: accessJwt, body: { email, token } })
  assert.equal(confirmed.status, 200, JSON.stringify(confirmed.body))
})

test('the name server answers from its table, and for handles that the servers give out', async () => {
  const names = new Resolver()
  names.setServers([map.dns.server])
  const { did, handle } = await signUpAlone()
  assert.deepEqual(await names.resolveTxt(`_atproto.${handle}`), [[`did=${did}`]])
  await publishHandle('table.example.com', did)
  assert.deepEqual(await names.resolveTxt('_atproto.table.example.com'), [[`did=${did}`]])
  await fetch(`${map.dns.url}/records/web.example.com`, { method: 'PUT', body: JSON.stringify({ a: ['127.0.0.7'] }) })
  assert.deepEqual(await names.resolve4('web.example.com'), ['127.0.0.7'])
  await assert.rejects(names.resolveTxt('_atproto.nobody.example.com'), { code: 'ENOTFOUND' })
  await assert.rejects(names.resolveTxt('_atproto.nobody.alone.test'), { code: 'ENOTFOUND' })
})

test('the directory keeps its data when it is killed', async () => {
  const { did } = await signUpAlone()
  const before = await directory(did)
  await member('plc', 'kill')
  await assert.rejects(directory(did))
  await member('plc', 'start')
  assert.deepEqual(await directory(did), before)
})
