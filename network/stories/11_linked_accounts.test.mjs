// Accounts of an external PDS. People sign in through Genkan, and an app that holds only Genkan's
// token acts for them.

import { test } from 'node:test'
import { newPerson, startBrowser } from './lib/browser.mjs'
import { externalPerson, linkedApp } from './lib/linked.mjs'
import { assert, claims, map, service, signUp, xrpc } from './lib/stage.mjs'

const SCOPE = 'atproto transition:generic account:repo?action=manage'
const POSTS = 'app.bsky.feed.post'
const newPost = (text) => ({ $type: POSTS, text, createdAt: new Date().toISOString() })

/** Whether Genkan made this error itself, and not the PDS. */
const isGenkans = (answer) => answer.headers.get('x-genkan-error') === 'gateway'

for (const [how, door, confidential] of [
  ['an app under development, Genkan as a loopback client', service, false],
  ['a confidential app, Genkan as a confidential client over TLS', map.door?.url, true],
]) {
  test(`each method goes where the routing table says: ${how}`, async (t) => {
    const browser = await startBrowser(t)
    const person = await externalPerson()
    const { page, troubles } = await newPerson(browser)
    const app = await linkedApp(t, door, { confidential, scope: SCOPE })
    const tokens = await app.signIn(page, person)
    assert.equal(tokens.sub, person.did)
    assert.deepEqual(tokens.scope.split(' ').sort(), SCOPE.split(' ').sort())
    assert.equal(claims(tokens.access_token).iss, door)
    assert.deepEqual(troubles, [])
    const repo = person.did

    await t.test('writes go to the caller’s PDS', async () => {
      const created = await app.ok('com.atproto.repo.createRecord', { body: { repo, collection: POSTS, record: newPost('one') } })
      const rkey = created.uri.split('/').at(-1)
      const put = await app.ok('com.atproto.repo.putRecord', { body: { repo, collection: POSTS, rkey, record: newPost('two') } })
      assert.equal(put.uri, created.uri)
      const writes = [{ $type: 'com.atproto.repo.applyWrites#create', collection: POSTS, value: newPost('three') }]
      const { results } = await app.ok('com.atproto.repo.applyWrites', { body: { repo, writes } })
      assert.equal(results.length, 1)
      await app.ok('com.atproto.repo.deleteRecord', { body: { repo, collection: POSTS, rkey: results[0].uri.split('/').at(-1) } })
      // The PDS itself has what was written.
      const { body } = await xrpc(map.alone.url, 'com.atproto.repo.listRecords', { query: { repo, collection: POSTS } })
      assert.deepEqual(body.records.map(({ value }) => value.text), ['two'])
      const odd = await app.call('COM.atproto.repo.CREATERECORD', { body: { repo, collection: POSTS, record: newPost('odd') } })
      assert.equal(odd.status, 200, 'a method name in mixed case is routed alike')
    })

    let blob
    await t.test('blobs, imports and other methods of the caller’s PDS', async () => {
      const bytes = Buffer.from(`a picture of ${person.did}`)
      ;({ blob } = await app.ok('com.atproto.repo.uploadBlob', { body: bytes, headers: { 'content-type': 'image/png' } }))
      const picture = { ...newPost('a picture'), embed: { $type: 'app.bsky.embed.images', images: [{ alt: '', image: blob }] } }
      await app.ok('com.atproto.repo.createRecord', { body: { repo, collection: POSTS, record: picture } })
      assert.deepEqual((await app.ok('com.atproto.repo.listMissingBlobs')).blobs, [])
      const { body: car } = await xrpc(door, 'com.atproto.sync.getRepo', { query: { did: repo } })
      const imported = await app.call('com.atproto.repo.importRepo', { body: car, headers: { 'content-type': 'application/vnd.ipld.car' } })
      assert.equal(imported.status, 200, JSON.stringify(imported.body))
      const { repos } = await app.ok('com.atproto.sync.listRepos')
      assert.ok(repos.some(({ did }) => did === repo), 'the accounts of the caller’s PDS')
      const query = { aud: 'did:web:api.example.com', lxm: 'com.example.do' }
      const { token } = await app.ok('com.atproto.server.getServiceAuth', { query })
      assert.deepEqual([claims(token).iss, claims(token).aud, claims(token).lxm], [repo, query.aud, query.lxm])
    })

    await t.test('relays’ methods reach the caller’s PDS, which passes them on in the account’s name', async () => {
      for (const [nsid, options] of [
        ['com.atproto.sync.requestCrawl', { body: { hostname: 'pds.example.com' } }],
        ['com.atproto.sync.notifyOfUpdate', { body: { hostname: 'pds.example.com' } }],
        ['com.atproto.sync.listHosts', {}],
        ['com.atproto.sync.getHostStatus', { query: { hostname: 'pds.example.com' } }],
        ['com.atproto.sync.listReposByCollection', { query: { collection: POSTS } }],
        ['com.atproto.sync.somethingNew', {}],
      ]) {
        // The reference PDS sends what it does not answer itself to its app view, which echoes it.
        // The service token is signed with the account's key, which only the account's PDS has.
        const echo = await app.ok(nsid, options)
        assert.equal(echo.lxm, nsid)
        assert.equal(echo.method, options.body ? 'POST' : 'GET', nsid)
        assert.deepEqual(echo.query, options.query ?? {}, nsid)
        assert.equal(echo.body, options.body ? JSON.stringify(options.body) : '', nsid)
        const { iss, lxm } = echo.token.payload
        assert.deepEqual([iss, lxm, echo.token.verified], [repo, nsid, true])
      }
    })

    await t.test('reads that name an account go to its PDS, with any token or none', async () => {
      const home = door === service ? await signUp('linked') : undefined
      for (const target of [person, home].filter(Boolean)) {
        const did = target.did
        const uri = (await target.agent.post({ text: 'to be read' })).uri
        const rkey = uri.split('/').at(-1)
        const latest = (await xrpc(door, 'com.atproto.sync.getLatestCommit', { query: { did } })).body
        const reads = [
          ['com.atproto.repo.getRecord', { repo: target.handle, collection: POSTS, rkey }],
          ['com.atproto.repo.listRecords', { repo: did, collection: POSTS }],
          ['com.atproto.repo.describeRepo', { repo: did }],
          ['com.atproto.sync.getRepo', { did }],
          ['com.atproto.sync.getRecord', { did, collection: POSTS, rkey }],
          ['com.atproto.sync.listBlobs', { did }],
          ['com.atproto.sync.getLatestCommit', { did }],
          ['com.atproto.sync.getRepoStatus', { did }],
          ['com.atproto.sync.getBlocks', { did, cids: latest.cid }],
          ['com.atproto.sync.getHead', { did }],
          ['com.atproto.sync.getCheckout', { did }],
        ]
        if (target === person) reads.push(['com.atproto.sync.getBlob', { did, cid: blob.ref.$link ?? blob.ref.toString() }])
        for (const [nsid, query] of reads) {
          for (const token of [undefined, 'garbage']) {
            const answer = await xrpc(door, nsid, { query, token })
            assert.equal(answer.status, 200, `${nsid}: ${answer.status} ${JSON.stringify(answer.body).slice(0, 300)}`)
          }
          assert.equal((await app.call(nsid, { query })).status, 200, `${nsid} with the app's own token`)
        }
      }
      const gone = await xrpc(door, 'com.atproto.sync.getRepo', { query: { did: 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa' } })
      assert.deepEqual([gone.status, gone.body.error], [502, 'DidResolutionFailed'])
      const missing = await xrpc(door, 'com.atproto.repo.getRecord', { query: { collection: POSTS, rkey: 'x' } })
      assert.deepEqual([missing.status, missing.body.error], [400, 'InvalidRequest'])
      const passed = await xrpc(door, 'com.atproto.repo.getRecord', { query: { repo, collection: POSTS, rkey: 'none' } })
      assert.deepEqual([passed.status, passed.body.error, isGenkans(passed)], [400, 'RecordNotFound', false])
    })

    await t.test('other methods are not forwarded, and the error says where to send them', async () => {
      for (const nsid of ['app.bsky.actor.getProfile', 'com.atproto.identity.resolveDid', 'com.atproto.sync.subscribeRepos']) {
        const answer = await app.call(nsid, { query: { actor: repo, did: repo } })
        assert.deepEqual([answer.status, answer.body.error], [501, 'MethodNotImplemented'], nsid)
        assert.match(answer.body.message, /PDS|relay/)
      }
    })

    await t.test('a refresh keeps the app signed in, and a revocation signs it out', async () => {
      const before = app.tokens.access_token
      await app.refresh()
      assert.notEqual(app.tokens.access_token, before)
      await app.ok('com.atproto.repo.createRecord', { body: { repo, collection: POSTS, record: newPost('refreshed') } })
      await app.revoke()
      const refused = await app.call('com.atproto.repo.createRecord', { body: { repo, collection: POSTS, record: newPost('over') } })
      assert.equal(refused.status, 401)
      assert.match(refused.headers.get('www-authenticate'), /invalid_token/)
    })
  })
}

test('an app gets no more than the scope that it asked for', async (t) => {
  const browser = await startBrowser(t)
  const person = await externalPerson()
  const { page } = await newPerson(browser)
  const app = await linkedApp(t, service, { scope: 'atproto repo:app.bsky.feed.like?action=create' })
  const tokens = await app.signIn(page, person, { identifier: person.did })
  assert.equal(tokens.scope, 'atproto repo:app.bsky.feed.like?action=create')
  const body = { repo: person.did, collection: POSTS, record: newPost('not allowed') }
  const refused = await app.call('com.atproto.repo.createRecord', { body })
  assert.equal(refused.status, 403, JSON.stringify(refused.body))
  const car = await app.call('com.atproto.repo.importRepo', { body: Buffer.from('x'), headers: { 'content-type': 'application/vnd.ipld.car' } })
  assert.deepEqual([car.status, isGenkans(car)], [403, true])
})

test('the example app signs an account of an external PDS in, and posts', async (t) => {
  const browser = await startBrowser(t)
  const person = await externalPerson()
  const { page } = await newPerson(browser)
  await page.goto(map.example.url)
  await page.getByLabel('Your handle').fill(person.handle)
  await page.getByRole('button', { name: 'Continue' }).click()
  const { atReference, toOwnServer } = await import('./lib/linked.mjs')
  await toOwnServer(page, person.handle)
  await atReference(page, person)
  await page.getByRole('button', { name: 'Allow', exact: true }).click()
  await page.getByLabel('Text').fill('a card from far away')
  await page.getByRole('button', { name: 'Post', exact: true }).click()
  assert.equal(await page.locator('#read').textContent(), 'a card from far away')
  const uri = await page.locator('#uri').textContent()
  assert.ok(uri.startsWith(`at://${person.did}/`))
  await page.getByRole('link', { name: 'Write another' }).click()
  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByLabel('Your handle').waitFor()
})
