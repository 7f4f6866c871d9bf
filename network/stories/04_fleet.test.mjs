// Two hosts. New accounts are spread by weight, a draining host gets none, and a host that is down
// affects its own accounts only.

import { after, test } from 'node:test'
import { assert, eventually, genkan, isHealthy, map, member, service, signUp, xrpc } from './lib/stage.mjs'

const [oak, elm] = map.hosts

after(async () => {
  await genkan('host', 'enable', elm.name)
  await genkan('host', 'set', oak.name, '--weight', '1')
})

/**
 * Signs `total` people up, four at a time. Returns them, and how many live on each host: {oak: 3,
 * elm: 1}.
 */
async function signUpMany(story, total) {
  const counts = Object.fromEntries(map.hosts.map(({ name }) => [name, 0]))
  const people = []
  for (let done = 0; done < total; done += 4) {
    const some = await Promise.all(Array.from({ length: Math.min(4, total - done) }, () => signUp(story)))
    for (const person of some) counts[person.home.name]++
    people.push(...some)
  }
  return { counts, people }
}

test('40 sign-ups spread over both hosts by weight', async () => {
  await genkan('host', 'set', oak.name, '--weight', '3')
  const { counts } = await signUpMany('spread', 40)
  // 40 accounts at 3:1 are 30 and 10. A fair draw ends outside of these bounds once in ten thousand
  // runs.
  assert.ok(counts.elm >= 1 && counts.elm <= 21, JSON.stringify(counts))
  assert.equal(counts.oak + counts.elm, 40)
  await genkan('host', 'set', oak.name, '--weight', '1')
})

test('a draining host gets no new accounts and keeps serving those it has', async () => {
  const { people } = await signUpMany('before', 12)
  const onElm = people.find(({ home }) => home.name === elm.name)
  assert.ok(onElm, 'an account lives on the host that is drained')
  // The command returns when the running Genkan has read the change.
  await genkan('host', 'drain', elm.name)
  assert.match(await genkan('host', 'place', '--explain'), new RegExp(`${elm.name}[^\\n]*drain`, 'i'))

  const { counts } = await signUpMany('drained', 12)
  assert.deepEqual(counts, { oak: 12, elm: 0 })
  await onElm.agent.post({ text: 'still here' })
  const query = { repo: onElm.did, collection: 'app.bsky.feed.post' }
  const read = await xrpc(service, 'com.atproto.repo.listRecords', { query })
  assert.equal(read.body.records.length, 1)

  await genkan('host', 'enable', elm.name)
  await eventually('new accounts on the host again', async () => (await signUp('enabled')).home.name === elm.name, 60_000)
})

test('with one host down sign-ups go on, and only its own accounts fail, with 502', async () => {
  const { people } = await signUpMany('down', 12)
  const onOak = people.find(({ home }) => home.name === oak.name)
  const onElm = people.find(({ home }) => home.name === elm.name)
  assert.ok(onOak && onElm, 'an account lives on each host')
  const describe = ({ did }) => xrpc(service, 'com.atproto.repo.describeRepo', { query: { repo: did } })
  const preferences = ({ session }) =>
    xrpc(service, 'app.bsky.actor.getPreferences', { token: session.session.accessJwt })

  await member(elm.name, 'kill')
  try {
    for (const moment of ['before a probe has noticed', 'after a probe has noticed']) {
      const { counts } = await signUpMany('meanwhile', 4)
      assert.deepEqual(counts, { oak: 4, elm: 0 }, moment)
      for (const call of [describe, preferences]) {
        const lost = await call(onElm)
        assert.equal(lost.status, 502, `${moment}: ${JSON.stringify(lost.body)}`)
        assert.ok(lost.body.error && lost.body.message, 'a reason is given')
        assert.equal((await call(onOak)).status, 200, moment)
      }
      await eventually('a probe notices that the host is down', async () => !(await isHealthy(elm.name)))
    }
    const seen = await xrpc(service, 'com.atproto.server.getSession', { token: onElm.session.session.accessJwt })
    assert.equal(seen.status, 200, 'the session is Genkan’s own answer')
  } finally {
    await member(elm.name, 'start')
  }
  await eventually('the host’s accounts are served again', async () => (await describe(onElm)).status === 200)
  await eventually('it gets accounts again', async () => (await signUp('back')).home.name === elm.name, 60_000)
})

test('`host list` and `host show` describe the fleet', async () => {
  const listed = JSON.parse(await genkan('host', 'list', '--json'))
  const hosts = listed.hosts ?? listed
  assert.deepEqual(hosts.map(({ name }) => name).sort(), [elm.name, oak.name].sort())
  for (const { name, did } of map.hosts) {
    assert.match(await genkan('host', 'show', name), new RegExp(did.replaceAll('.', '\\.')))
  }
})
