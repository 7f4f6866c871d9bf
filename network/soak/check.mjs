// Compares the journal of a load with the running system: `node soak/check.mjs <settings.json>`.
//
// Settings: {map, journal}. The journal has one row per line; its kinds are:
//   account {did, handle, password, host}   the account was made, at this host
//   renaming, renamed {did, handle}    the handle was about to change, has changed
//   deleting, deleted {did}            the account was about to be deleted, is deleted
//   post {did, uri, cid}               the post was made
//   session {id, did, refresh}         the session got this refresh token, the last one counts
//   session-ending {id}                the session was about to be signed out
//   session-ended {id, did, refresh}   the session is signed out
//   grant {id, did, app}               the app's grant got these tokens, the last ones count
//   grant-ending {id}                  the grant was about to be revoked
//   grant-ended {id, did, app}         the grant is revoked
//   browser {id, did, agent, cookies}  the browser, which is signed in, has these cookies
//   logged-out {session, grant or browser}   it was refused during the load, although signed in
//   refused                            another operation was refused during the load
// Prints {lost: [...], loggedOut: [...], refused: [...], checked: {...}}: what was acknowledged and
// is not there, who has no session any more, and operations that were refused. An answer of 500 to the
// check itself counts as refused.

import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { OAuthApp } from './oauth-app.mjs'
import { FormBrowser } from './pages.mjs'

const { map, journal } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const service = map.genkan.url
const AT_ONCE = 6

const accounts = new Map()
const sessions = new Map()
const grants = new Map()
const browsers = new Map()
const ended = { sessions: [], grants: [] }
const posts = []
const said = { loggedOut: [], refused: [] }
for (const line of fs.readFileSync(journal, 'utf8').split('\n').filter(Boolean)) {
  const row = JSON.parse(line)
  const account = accounts.get(row.did)
  switch (row.kind) {
    case 'account':
      accounts.set(row.did, { ...row, handles: [row.handle] })
      break
    case 'renaming': // The old handle and the new one are both right until the change is acknowledged.
      account.handles.push(row.handle)
      break
    case 'renamed':
      account.handles = [row.handle]
      break
    case 'deleting':
      account.deletion ??= 'unknown'
      break
    case 'deleted':
      account.deletion = 'done'
      break
    case 'post':
      posts.push(row)
      break
    case 'session':
      sessions.set(row.id, row)
      break
    case 'session-ending':
      sessions.delete(row.id)
      break
    case 'session-ended':
      ended.sessions.push(row)
      break
    case 'grant':
      grants.set(row.id, row)
      break
    case 'grant-ending':
      grants.delete(row.id)
      break
    case 'grant-ended':
      ended.grants.push(row)
      break
    case 'browser':
      browsers.set(row.id, row)
      break
    case 'logged-out':
      said.loggedOut.push(`during the load: ${row.why}`)
      // It is counted once, and a token that was refused is refused again.
      sessions.delete(row.session)
      grants.delete(row.grant)
      browsers.delete(row.browser)
      break
    case 'refused':
      said.refused.push(`${row.op} ${row.status}${row.stuck ? ' (stuck)' : ''}: ${row.why}`)
      break
    default:
      throw new Error(`the journal has an unknown row: ${line}`)
  }
}

const isGone = (did) => accounts.get(did)?.deletion !== undefined
const lost = []
const loggedOut = [...said.loggedOut]
const refused = [...said.refused]

/** Makes one XRPC call. */
async function xrpc(nsid, { query, body, token, method, origin = service } = {}) {
  const url = new URL(`/xrpc/${nsid}`, origin)
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value)
  const headers = { ...(body ? { 'content-type': 'application/json' } : {}), ...(token ? { authorization: `Bearer ${token}` } : {}) }
  return patiently(async () => {
    const answer = await fetch(url, { method: method ?? (body ? 'POST' : 'GET'), headers, body: body ? JSON.stringify(body) : undefined })
    return { status: answer.status, body: await answer.json().catch(() => null) }
  })
}

/** Repeats failures of the server, since the last fault is just over, and nonces of another clock. */
async function patiently(work) {
  for (let tries = 0; ; tries++) {
    const answer = await work().catch((error) => ({ status: 0, body: String(error) }))
    if (answer.status === 500) refused.push(`the check was answered 500: ${JSON.stringify(answer.body)}`)
    const isPassing = [0, 429, 500, 502, 503, 504].includes(answer.status) || /use_dpop_nonce/.test(answer.body)
    if (!isPassing || tries === 60) return answer
    await sleep(1000)
  }
}

const told = ({ status, body }) => `${status} ${JSON.stringify(body)}`

async function checkAccount({ did, handles, password, deletion }) {
  if (deletion === 'unknown') return
  const answers = []
  for (const identifier of handles) answers.push(await xrpc('com.atproto.server.createSession', { body: { identifier, password } }))
  const found = answers.findIndex(({ status, body }) => status === 200 && body.did === did)
  if (deletion === 'done') return checkDeletion(did, handles, answers)
  if (found === -1) return lost.push(`account ${did} (${handles.join(' or ')}): ${answers.map(told).join(', ')}`)
  const resolved = await xrpc('com.atproto.identity.resolveHandle', { query: { handle: handles[found] } })
  if (resolved.body?.did !== did) lost.push(`handle ${handles[found]} of ${did}: ${told(resolved)}`)
  const document = await patiently(() => fetch(`${map.plc.url}/${did}/data`).then(async (answer) => ({ status: answer.status, body: await answer.json() })))
  const named = document.body?.alsoKnownAs?.[0]
  if (named !== `at://${handles[found]}`) lost.push(`handle ${handles[found]} of ${did} in the directory: ${told(document)}`)
}

/** A deleted account cannot sign in, its handle leads nowhere, and no host has its repository. */
async function checkDeletion(did, handles, signIns) {
  const still = signIns.filter(({ status }) => status !== 401)
  if (still.length) lost.push(`the deletion of ${did} (${handles.join(' or ')}): the sign-in is answered ${still.map(told).join(', ')}`)
  for (const handle of handles) {
    const resolved = await xrpc('com.atproto.identity.resolveHandle', { query: { handle } })
    if (resolved.body?.did === did) lost.push(`the deletion of ${did}: ${handle} still leads to it`)
  }
  for (const { name, url } of map.hosts) {
    const status = () => xrpc('com.atproto.sync.getRepoStatus', { query: { did }, origin: url })
    const isGone = ({ status, body }) => status === 400 && body?.error === 'RepoNotFound'
    let answer = await status()
    // The host is told by a job, which may just have been delayed by the last fault.
    for (let tries = 0; tries < 60 && !isGone(answer); tries++) {
      await sleep(1000)
      answer = await status()
    }
    if (!isGone(answer)) lost.push(`the deletion of ${did}: its repository at ${name}: ${told(answer)}`)
  }
}

async function checkPost({ did, uri, cid }) {
  if (isGone(did)) return
  const [repo, collection, rkey] = uri.replace('at://', '').split('/')
  const found = await xrpc('com.atproto.repo.getRecord', { query: { repo, collection, rkey } })
  if (found.body?.cid !== cid) lost.push(`post ${uri} ${cid}: ${told(found)}`)
}

async function checkSession({ id, did, refresh }) {
  if (isGone(did)) return
  const answer = await xrpc('com.atproto.server.refreshSession', { method: 'POST', token: refresh })
  if (answer.status !== 200) loggedOut.push(`session ${id} of ${did}: ${told(answer)}`)
}

/** A session that was signed out cannot be refreshed. */
async function checkEndedSession({ id, did, refresh }) {
  const answer = await xrpc('com.atproto.server.refreshSession', { method: 'POST', token: refresh })
  if (![400, 401].includes(answer.status)) lost.push(`the sign-out of session ${id} of ${did}: a refresh is answered ${told(answer)}`)
}

function refreshed(app) {
  return patiently(() =>
    app.refresh().then(
      () => ({ status: 200 }),
      (error) => ({ status: error.status ?? error.response?.status ?? 0, body: `${error.error ?? error} ${error.error_description ?? ''}` }),
    ))
}

/** A grant refreshes, and its account answers the app. For a linked account that is its own PDS. */
async function checkGrant({ id, did, app }) {
  if (isGone(did)) return
  const restored = await OAuthApp.restore(app)
  const answer = await refreshed(restored)
  if (answer.status !== 200) return loggedOut.push(`grant ${id} of ${did}: ${told(answer)}`)
  // Reads need no credentials, so a post shows that the account's own PDS accepts those of Genkan.
  const record = { $type: 'app.bsky.feed.post', text: 'the last one', createdAt: new Date().toISOString() }
  const body = { repo: did, collection: 'app.bsky.feed.post', record }
  const posted = await patiently(() => restored.call('com.atproto.repo.createRecord', { body }))
  if (posted.status !== 200) loggedOut.push(`grant ${id} of ${did}, a post after the refresh: ${told(posted)}`)
}

/** A revoked grant cannot be refreshed. */
async function checkEndedGrant({ id, did, app }) {
  const answer = await refreshed(await OAuthApp.restore(app))
  if (!/invalid_grant/.test(answer.body)) lost.push(`the revocation of grant ${id} of ${did}: a refresh is answered ${told(answer)}`)
}

/** A browser that is signed in shows the account without asking for a password. */
async function checkBrowser({ id, did, agent, cookies }) {
  if (isGone(did)) return
  const browser = Object.assign(new FormBrowser(service, cookies), { agent })
  const answer = await patiently(() =>
    browser.isSignedIn({ did }).then(
      (is) => (is ? { status: 200 } : { status: 401, body: 'it is asked for the password' }),
      (error) => ({ status: Number(/: (\d{3})$/.exec(error.message)?.[1] ?? 0), body: error.message }),
    ))
  if (answer.status !== 200) loggedOut.push(`browser ${id} of ${did}: ${told(answer)}`)
}

/** Checks everything of a kind, a few at once. */
async function checkAll(all, check) {
  const left = [...all]
  const worker = async () => {
    while (left.length) await check(left.pop())
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

// First what has the shortest life. A cookie that was replaced is accepted for a minute.
await checkAll(browsers.values(), checkBrowser)
await checkAll(accounts.values(), checkAccount)
await checkAll(posts, checkPost)
await checkAll(sessions.values(), checkSession)
await checkAll(grants.values(), checkGrant)
await checkAll(ended.sessions, checkEndedSession)
await checkAll(ended.grants, checkEndedGrant)
const deletions = [...accounts.values()].filter(({ deletion }) => deletion === 'done').length
const checked = {
  accounts: accounts.size,
  deletions,
  posts: posts.length,
  sessions: sessions.size,
  sessionsEnded: ended.sessions.length,
  grants: grants.size,
  grantsEnded: ended.grants.length,
  browsers: browsers.size,
}
console.log(JSON.stringify({ lost, loggedOut, refused, checked }))
