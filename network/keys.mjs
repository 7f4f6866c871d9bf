// New secp256k1 key pairs: `node keys.mjs <count>` prints [{privateKeyHex, publicKeyHex, did}]. The
// public key is compressed, as hosts expect it.

import { Secp256k1Keypair } from '@atproto/crypto'

const keys = []
for (let made = 0; made < Number(process.argv[2] ?? 1); made++) {
  const pair = await Secp256k1Keypair.create({ exportable: true })
  keys.push({
    privateKeyHex: Buffer.from(await pair.export()).toString('hex'),
    publicKeyHex: Buffer.from(pair.publicKeyBytes()).toString('hex'),
    did: pair.did(),
  })
}
console.log(JSON.stringify(keys))
