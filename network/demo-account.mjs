// The demo's accounts: `node demo-account.mjs <map.json>` signs an account up at Genkan, or in if
// an earlier demo made it, and posts once. It signs another account up at the stand-alone PDS.
// Prints {handle, password, did, home, post, aloneHandle, alonePassword}.

import crypto from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { AtpAgent } from '@atproto/api'

const map = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))

/** Signs in to an account at `service`. The account is made if no earlier demo made it. */
async function account(service, domain, name, file) {
  const remembered = path.join(map.data, file)
  const agent = new AtpAgent({ service })
  if (fs.existsSync(remembered)) {
    const { handle, password } = JSON.parse(fs.readFileSync(remembered, 'utf8'))
    await agent.login({ identifier: handle, password })
    return { agent, handle, password }
  }
  const [handle, password] = [`${name}${domain}`, crypto.randomBytes(9).toString('base64url')]
  // Written before the call: if its answer is lost, the next start still knows the password.
  fs.writeFileSync(remembered, JSON.stringify({ handle, password }), { mode: 0o600 })
  await agent.createAccount({ handle, password, email: `${name}@example.com` }).catch((error) => {
    fs.rmSync(remembered)
    throw error
  })
  return { agent, handle, password }
}

const { agent, handle, password } = await account(map.genkan.url, map.genkan.handleDomain, 'alice', 'account.json')
const external = await account(map.alone.url, map.alone.handleDomain, 'bob', 'account-external.json')
const { records } = await agent.app.bsky.feed.post.list({ repo: agent.assertDid, limit: 1 })
const uri = records[0]?.uri ?? (await agent.post({ text: 'Hello from the entrance hall.' })).uri
console.log(
  JSON.stringify({
    handle,
    password,
    did: agent.assertDid,
    home: agent.dispatchUrl.origin,
    post: uri,
    aloneHandle: external.handle,
    alonePassword: external.password,
  }),
)
