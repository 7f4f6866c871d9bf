// Sign-ups that are struck by lightning: Genkan, a host or the directory is killed at a random moment of a sign-up and
// started again. The client does what clients do: it asks again. In the end each person has one whole account, and the
// directory holds nothing that nobody has.

import crypto from 'node:crypto'
import { test } from 'node:test'
import { AtpAgent } from '@atproto/api'
import { assert, claims, eventually, map, member, newName, service, sleep, xrpc } from './lib/stage.mjs'

const KILLS = Number(process.env.GENKAN_TEST_KILLS ?? 50)
const VICTIMS = ['genkan', 'genkan', 'plc', ...map.hosts.map(({ name }) => name)]

/** One call; null when there was no answer at all. */
function createAccount(person) {
  return xrpc(service, 'com.atproto.server.createAccount', { body: person }).catch(() => null)
}

/** Asks until the account is there. Trouble on the server's side is allowed on the way; a refusal is not. */
async function insist(person, first) {
  let answer = first
  const check = async () => {
    answer ??= await createAccount(person)
    const { status, body } = answer ?? { status: 0 }
    if (status === 200) return body
    assert.ok(status === 0 || status >= 500, `refused: ${status} ${JSON.stringify(body)}`)
    answer = null
  }
  return eventually(`${person.handle} has an account`, check, 90_000)
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

/** DIDs in the directory whose document names one of the fleet's hosts. */
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
  const made = new Set()
  for (let kill = 0; kill < KILLS; kill++) {
    const name = newName('kill')
    const person = { handle: name + map.genkan.handleDomain, email: `${name}@example.com`, password: 'long enough for all' }
    const victim = VICTIMS[crypto.randomInt(VICTIMS.length)]
    const answer = createAccount(person)
    await sleep(crypto.randomInt(400))
    await member(victim, 'kill')
    const [first] = await Promise.all([answer, member(victim, 'start')])
    const account = await insist(person, first)
    await assertWhole(account, person)
    made.add(account.did)
  }
  assert.equal(made.size, KILLS)
  await eventually('no DID in the directory that nobody has', async () => {
    const strangers = (await didsOfTheFleet()).filter((did) => !before.has(did) && !made.has(did))
    return strangers.length === 0
  })
})
