// Makes secp256k1 key pairs: `node keys.mjs <how many>` prints
// [{privateKeyHex, publicKeyHex, did}], the public key compressed, as hosts want it.

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
