// The demo's account: `node demo-account.mjs <map.json>` signs it up at Genkan (or in, when an earlier demo made it),
// lets it post once, and prints {handle, password, did, home, post}.

import crypto from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { AtpAgent } from '@atproto/api'

const map = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const remembered = path.join(map.data, 'account.json')
const known = fs.existsSync(remembered) && JSON.parse(fs.readFileSync(remembered, 'utf8'))

const agent = new AtpAgent({ service: map.genkan.url })
if (known) {
  await agent.login({ identifier: known.handle, password: known.password })
} else {
  const handle = `alice${map.genkan.handleDomain}`
  const password = crypto.randomBytes(9).toString('base64url')
  // Before the call: should its answer be lost, the next start still knows the password.
  fs.writeFileSync(remembered, JSON.stringify({ handle, password }), { mode: 0o600 })
  await agent.createAccount({ handle, password, email: 'alice@example.com' }).catch((error) => {
    fs.rmSync(remembered)
    throw error
  })
}

const { handle, password } = JSON.parse(fs.readFileSync(remembered, 'utf8'))
const { data } = await agent.app.bsky.feed.post.list({ repo: agent.assertDid, limit: 1 }).then(
  (records) => ({ data: records.records[0] }),
)
const uri = data?.uri ?? (await agent.post({ text: 'Hello from the entrance hall.' })).uri
console.log(JSON.stringify({ handle, password, did: agent.assertDid, home: agent.dispatchUrl.origin, post: uri }))
