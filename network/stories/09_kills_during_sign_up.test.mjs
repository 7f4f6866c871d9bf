// Genkan, a host or the directory is killed at a random moment of some sign-ups and started again,
// and the next one soon after, while earlier sign-ups still run. Clients repeat a sign-up that
// failed. In the end each person has one whole account, and every DID in the directory belongs to
// one of them.

import crypto from 'node:crypto'
import { test } from 'node:test'
import { AtpAgent } from '@atproto/api'
import { assert, claims, eventually, map, member, newName, service, sleep, xrpc } from './lib/stage.mjs'

const KILLS = Number(process.env.GENKAN_TEST_KILLS ?? 50)
const AT_ONCE = 2
const VICTIMS = ['genkan', 'genkan', 'plc', ...map.hosts.map(({ name }) => name)]

/** When every sign-up must have succeeded: a minute and a half after the last kill. */
let deadline = Infinity

/** Makes one call. Resolves to null if there was no answer. */
function createAccount(person) {
  return xrpc(service, 'com.atproto.server.createAccount', { body: person }).catch(() => null)
}

/**
 * Repeats the sign-up until it succeeds. Failures of the server are allowed on the way, refusals
 * are not.
 */
async function signUpAtLast(person) {
  for (;;) {
    const { status, body } = (await createAccount(person)) ?? { status: 0 }
    if (status === 200) return { person, account: body }
    assert.ok(status === 0 || status >= 500, `refused: ${status} ${JSON.stringify(body)}`)
    assert.ok(Date.now() < deadline, `${person.handle} has no account in time`)
    await sleep(200)
  }
}

function newPerson() {
  const name = newName('kill')
  return { handle: name + map.genkan.handleDomain, email: `${name}@example.com`, password: 'long enough for all' }
}

async function assertWhole({ did, accessJwt }, { handle, password }) {
  const log = await fetch(`${map.plc.url}/${did}/data`).then((answer) => answer.json())
  assert.deepEqual(log.alsoKnownAs, [`at://${handle}`])
  const home = map.hosts.find(({ url }) => url === log.services.atproto_pds.endpoint)
  assert.equal(claims(accessJwt).aud, home.did)
  const authorization = `Basic ${Buffer.from(`admin:${home.adminPassword}`).toString('base64')}`
  const query = { did }
  const atHost = await xrpc(home.url, 'com.atproto.admin.getAccountInfo', { query, headers: { authorization } })
  assert.equal(atHost.body.handle, handle)
  const resolved = await xrpc(service, 'com.atproto.identity.resolveHandle', { query: { handle } })
  assert.deepEqual(resolved.body, { did })
  const agent = new AtpAgent({ service })
  await agent.login({ identifier: handle, password })
  assert.equal(agent.dispatchUrl.origin, home.url)
  await agent.post({ text: 'I am whole' })
}

/** Returns the DIDs in the directory whose document names one of the fleet's hosts. */
async function didsOfTheFleet() {
  const text = await fetch(`${map.plc.url}/export?count=1000`).then((answer) => answer.text())
  const last = new Map()
  for (const line of text.split('\n').filter(Boolean)) {
    const { did, operation, nullified } = JSON.parse(line)
    if (!nullified) last.set(did, operation)
  }
  const ours = map.hosts.map(({ url }) => url)
  return [...last].filter(([, { services }]) => ours.includes(services?.atproto_pds?.endpoint)).map(([did]) => did)
}

test(`${KILLS} random kills during sign-up end with whole accounts and nothing else`, { timeout: 1_800_000 }, async () => {
  const before = new Set(await didsOfTheFleet())
  const signUps = []
  for (let kill = 0; kill < KILLS; kill++) {
    for (let more = 0; more < AT_ONCE; more++) signUps.push(signUpAtLast(newPerson()).catch((error) => ({ error })))
    await sleep(crypto.randomInt(400))
    const victim = VICTIMS[crypto.randomInt(VICTIMS.length)]
    await member(victim, 'kill')
    await member(victim, 'start')
  }
  deadline = Date.now() + 90_000
  const made = new Set()
  for (const outcome of await Promise.all(signUps)) {
    assert.ifError(outcome.error)
    await assertWhole(outcome.account, outcome.person)
    made.add(outcome.account.did)
  }
  assert.equal(made.size, KILLS * AT_ONCE)
  await eventually('every DID in the directory has an account', async () => {
    const orphans = (await didsOfTheFleet()).filter((did) => !before.has(did) && !made.has(did))
    return orphans.length === 0
  })
})
