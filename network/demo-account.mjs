// The demo's accounts: `node demo-account.mjs <map.json>` signs one up at Genkan (or in, when an earlier demo made it),
// lets it post once, and has another at the stand-alone PDS. Prints {handle, password, did, home, post, aloneHandle,
// alonePassword}.

import crypto from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { AtpAgent } from '@atproto/api'

const map = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))

/** Signed in to an account at `service`, which is made when it is not known from an earlier demo. */
async function account(service, domain, name, file) {
  const remembered = path.join(map.data, file)
  const agent = new AtpAgent({ service })
  if (fs.existsSync(remembered)) {
    const { handle, password } = JSON.parse(fs.readFileSync(remembered, 'utf8'))
    await agent.login({ identifier: handle, password })
    return { agent, handle, password }
  }
  const [handle, password] = [`${name}${domain}`, crypto.randomBytes(9).toString('base64url')]
  // Before the call: should its answer be lost, the next start still knows the password.
  fs.writeFileSync(remembered, JSON.stringify({ handle, password }), { mode: 0o600 })
  await agent.createAccount({ handle, password, email: `${name}@example.com` }).catch((error) => {
    fs.rmSync(remembered)
    throw error
  })
  return { agent, handle, password }
}

const { agent, handle, password } = await account(map.genkan.url, map.genkan.handleDomain, 'alice', 'account.json')
const elsewhere = await account(map.alone.url, map.alone.handleDomain, 'bob', 'account-elsewhere.json')
const { records } = await agent.app.bsky.feed.post.list({ repo: agent.assertDid, limit: 1 })
const uri = records[0]?.uri ?? (await agent.post({ text: 'Hello from the entrance hall.' })).uri
console.log(
  JSON.stringify({
    handle,
    password,
    did: agent.assertDid,
    home: agent.dispatchUrl.origin,
    post: uri,
    aloneHandle: elsewhere.handle,
    alonePassword: elsewhere.password,
  }),
)
