// Handle changes, asked of Genkan and of the host, which everyone sees afterwards.

import http from 'node:http'
import { Resolver } from 'node:dns/promises'
import { test } from 'node:test'
import { assert, directory, eventually, map, newName, publishHandle, service, signUp, xrpc } from './lib/stage.mjs'

async function change(origin, { session }, handle) {
  const token = session.session.accessJwt
  return xrpc(origin, 'com.atproto.identity.updateHandle', { token, body: { handle } })
}

/**
 * Gets `/.well-known/atproto-did` for a handle. `fetch` does not let a caller choose the Host
 * header.
 */
function wellKnown(handle) {
  return new Promise((resolve, reject) => {
    const url = new URL('/.well-known/atproto-did', service)
    const request = http.get(url, { headers: { host: handle } }, async (answer) => {
      let text = ''
      for await (const chunk of answer) text += chunk
      resolve({ status: answer.statusCode, text })
    })
    request.on('error', reject)
  })
}

/** Asserts that the directory, the host and Genkan all have the handle. */
async function assertHandleIs(handle, { did, home, session }) {
  assert.deepEqual((await directory(did)).alsoKnownAs, [`at://${handle}`])
  const proxied = await fetch(`${map.genkan.directoryFrontUrl}/${did}/data`).then((answer) => answer.json())
  assert.deepEqual(proxied.alsoKnownAs, [`at://${handle}`], 'hosts see it in the directory')
  const atHost = await xrpc(home.url, 'com.atproto.repo.describeRepo', { query: { repo: did } })
  assert.equal(atHost.body.handle, handle)
  for (const origin of [service, home.url]) {
    const seen = await xrpc(origin, 'com.atproto.server.getSession', { token: session.session.accessJwt })
    assert.equal(seen.body.handle, handle, origin)
  }
  const resolved = await xrpc(service, 'com.atproto.identity.resolveHandle', { query: { handle } })
  assert.deepEqual(resolved.body, { did })
  const throughHost = await xrpc(home.url, 'com.atproto.identity.resolveHandle', { query: { handle } })
  assert.deepEqual(throughHost.body, { did })
}

async function assertUnknown(handle) {
  const resolved = await xrpc(service, 'com.atproto.identity.resolveHandle', { query: { handle } })
  assert.equal(resolved.status, 400)
  assert.equal(resolved.body.error, 'HandleNotFound')
  assert.equal((await wellKnown(handle)).status, 404)
}

for (const asked of ['Genkan', 'the host']) {
  test(`a new name under the service's domain, asked of ${asked}`, async () => {
    const person = await signUp('rename')
    const origin = asked === 'Genkan' ? service : person.home.url
    const handle = newName('renamed') + map.genkan.handleDomain
    const answer = await change(origin, person, handle)
    assert.equal(answer.status, 200, JSON.stringify(answer.body))
    await assertHandleIs(handle, person)
    const served = await wellKnown(handle)
    assert.deepEqual([served.status, served.text.trim()], [200, person.did])
    await assertUnknown(person.handle)

    const again = await change(origin, person, handle)
    assert.equal(again.status, 200, 'the same name once more is no trouble')
  })

  test(`a name under a person's own domain, asked of ${asked}`, async () => {
    const person = await signUp('custom')
    const origin = asked === 'Genkan' ? service : person.home.url
    const handle = `${newName('own')}.example.com`
    const early = await change(origin, person, handle)
    assert.equal(early.status, 400, 'it does not resolve yet')
    await publishHandle(handle, 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')
    const foreign = await change(origin, person, handle)
    assert.equal(foreign.status, 400, 'it resolves to another account')
    await assertHandleIs(person.handle, person)

    await publishHandle(handle, person.did)
    await eventually('the name is accepted', async () => (await change(origin, person, handle)).status === 200)
    await assertHandleIs(handle, person)
  })

  test(`another account's name is refused, asked of ${asked}`, async () => {
    const [person, other] = [await signUp('wants'), await signUp('has')]
    const origin = asked === 'Genkan' ? service : person.home.url
    const answer = await change(origin, person, other.handle)
    assert.equal(answer.status, 400, JSON.stringify(answer.body))
    assert.equal(answer.body.error, 'HandleNotAvailable')
    await assertHandleIs(person.handle, person)
    await assertHandleIs(other.handle, other)
  })
}

test('a person signs in by the new name, and no longer by the old one', async () => {
  const person = await signUp('signin')
  const handle = newName('newname') + map.genkan.handleDomain
  assert.equal((await change(service, person, handle)).status, 200)
  const open = (identifier) =>
    xrpc(service, 'com.atproto.server.createSession', { body: { identifier, password: person.password } })
  assert.equal((await open(handle)).body.did, person.did)
  assert.equal((await open(person.handle)).status, 401)
})

test('a handle of another server resolves at Genkan', async () => {
  const name = newName('far')
  const made = await xrpc(map.alone.url, 'com.atproto.server.createAccount', {
    body: { handle: name + map.alone.handleDomain, email: `${name}@example.com`, password: 'long enough for all' },
  })
  assert.equal(made.status, 200, JSON.stringify(made.body))
  const names = new Resolver()
  names.setServers([map.dns.server])
  assert.deepEqual(await names.resolveTxt(`_atproto.${made.body.handle}`), [[`did=${made.body.did}`]])
  const query = { handle: made.body.handle }
  const resolved = await xrpc(service, 'com.atproto.identity.resolveHandle', { query })
  assert.deepEqual(resolved.body, { did: made.body.did })
})
