// Makes jws.json: one token per algorithm, signed by Node's own crypto. `node make-jws.mjs > jws.json`
import { constants, createHash, generateKeyPairSync, sign } from 'node:crypto'

const base64url = (value) => Buffer.from(value).toString('base64url')
const ec = (crv) => generateKeyPairSync('ec', { namedCurve: crv })
const rsa = (bits) => generateKeyPairSync('rsa', { modulusLength: bits })
const big = rsa(2048)
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
const raw = { dsaEncoding: 'ieee-p1363' }
const kinds = [
  ['ES256', ec('P-256'), 'sha256', raw],
  ['ES256K', ec('secp256k1'), 'sha256', raw],
  ['ES384', ec('P-384'), 'sha384', raw],
  ['ES512', ec('P-521'), 'sha512', raw],
  ['RS256', big, 'sha256', {}],
  ['RS384', big, 'sha384', {}],
  ['RS512', big, 'sha512', {}],
  ['PS256', big, 'sha256', pss],
  ['PS384', big, 'sha384', pss],
  ['PS512', big, 'sha512', pss],
  ['RS256', rsa(1024), 'sha256', {}],
]
const members = { EC: ['crv', 'kty', 'x', 'y'], RSA: ['e', 'kty', 'n'] }
const cases = kinds.map(([alg, pair, hash, options]) => {
  const jwk = pair.publicKey.export({ format: 'jwk' })
  const canonical = JSON.stringify(Object.fromEntries(members[jwk.kty].map((name) => [name, jwk[name]])))
  const signed = `${base64url(JSON.stringify({ alg, typ: 'JWT' }))}.${base64url(JSON.stringify({ sub: alg }))}`
  const signature = sign(hash, Buffer.from(signed), { key: pair.privateKey, ...options })
  return {
    alg,
    jwk,
    private: pair.privateKey.export({ format: 'jwk' }),
    thumbprint: createHash('sha256').update(canonical).digest('base64url'),
    token: `${signed}.${base64url(signature)}`,
  }
})
console.log(JSON.stringify(cases, null, 1))
