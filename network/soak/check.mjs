// Compares the journal of a load with the running system: `node soak/check.mjs <settings.json>`.
//
// Settings: {map, journal}. The journal has one row per line; its kinds are:
//   account {did, handle, password}    the account was made
//   renaming, renamed {did, handle}    the handle was about to change, has changed
//   deleting, deleted {did}            the account was about to be deleted, is deleted
//   post {did, uri, cid}               the post was made
//   session {id, did, refresh}         the session got this refresh token, the last one counts
//   session-ending {id}                the session was about to be signed out
//   grant {id, did, app}               the app's grant got these tokens, the last ones count
//   logged-out, refused                a refresh, another operation was refused during the load
// Prints {lost: [...], loggedOut: [...], refused: [...], checked: {...}}: what was acknowledged and
// is not there, who has no session any more, and operations that were refused.

import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { OAuthApp } from './oauth-app.mjs'

const { map, journal } = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const service = map.genkan.url
const AT_ONCE = 6

const accounts = new Map()
const sessions = new Map()
const grants = new Map()
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
    case 'grant':
      grants.set(row.id, row)
      break
    case 'logged-out':
      said.loggedOut.push(`during the load: ${row.why}`)
      // It is counted once, and a token that was refused is refused again.
      sessions.delete(row.session)
      grants.delete(row.grant)
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

/** Makes one XRPC call. */
async function xrpc(nsid, { query, body, token, method } = {}) {
  const url = new URL(`/xrpc/${nsid}`, service)
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
  if (deletion === 'done') {
    if (found !== -1) lost.push(`the deletion of ${did}: it signs in as ${handles[found]}`)
    return
  }
  if (found === -1) return lost.push(`account ${did} (${handles.join(' or ')}): ${answers.map(told).join(', ')}`)
  const resolved = await xrpc('com.atproto.identity.resolveHandle', { query: { handle: handles[found] } })
  if (resolved.body?.did !== did) lost.push(`handle ${handles[found]} of ${did}: ${told(resolved)}`)
  const document = await patiently(() => fetch(`${map.plc.url}/${did}/data`).then(async (answer) => ({ status: answer.status, body: await answer.json() })))
  const named = document.body?.alsoKnownAs?.[0]
  if (named !== `at://${handles[found]}`) lost.push(`handle ${handles[found]} of ${did} in the directory: ${told(document)}`)
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

async function checkGrant({ id, did, app }) {
  if (isGone(did)) return
  const restored = await OAuthApp.restore(app)
  const answer = await patiently(() =>
    restored.refresh().then(
      () => ({ status: 200 }),
      (error) => ({ status: error.status ?? error.response?.status ?? 0, body: `${error.error ?? error} ${error.error_description ?? ''}` }),
    ))
  if (answer.status !== 200) loggedOut.push(`grant ${id} of ${did}: ${told(answer)}`)
}

/** Checks everything of a kind, a few at once. */
async function checkAll(all, check) {
  const left = [...all]
  const worker = async () => {
    while (left.length) await check(left.pop())
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

await checkAll(accounts.values(), checkAccount)
await checkAll(posts, checkPost)
await checkAll(sessions.values(), checkSession)
await checkAll(grants.values(), checkGrant)
const deletions = [...accounts.values()].filter(({ deletion }) => deletion === 'done').length
const checked = { accounts: accounts.size, deletions, posts: posts.length, sessions: sessions.size, grants: grants.size }
console.log(JSON.stringify({ lost, loggedOut, refused: said.refused, checked }))
