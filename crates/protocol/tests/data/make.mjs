// Writes the JSON files beside it. See README.md.
import { createHash, createPrivateKey } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(process.cwd() + '/')
const syntax = require('@atproto/syntax')
const crypto = require('@atproto/crypto')
const plc = require('@did-plc/lib')
const jose = require('jose')

const hex = (bytes) => Buffer.from(bytes).toString('hex')
const unhex = (text) => new Uint8Array(Buffer.from(text, 'hex'))
const b64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const seed = (name) => createHash('sha256').update('genkan test ' + name).digest('hex')
const write = (name, value) => writeFileSync(new URL(name, import.meta.url), JSON.stringify(value, null, 1) + '\n')

// Chance that is the same each time.
let state = 7
const random = (below) => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0
  return (state >>> 8) % below
}
const pick = (from) => from[random(from.length)]

const orders = {
  K256: BigInt('0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141'),
  P256: BigInt('0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551'),
}
const otherS = (signature, curve) => {
  const s = orders[curve] - BigInt('0x' + hex(signature.slice(32)))
  return new Uint8Array([...signature.slice(0, 32), ...unhex(s.toString(16).padStart(64, '0'))])
}
const isLowS = (signature, curve) => BigInt('0x' + hex(signature.slice(32))) <= orders[curve] / 2n

// --- identifiers: seeds, and seeds with one or two bytes changed ---
const seeds = {
  did: ['did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'did:web:example.com', 'did:web:localhost%3A2583', 'did:m:v', 'did:abc:a:b:c',
    'did:method:-_.%3A', 'did:::', 'did:a::', 'did:a:b:', 'did:a:b%', 'did:A:b', 'DID:a:b', 'did:a1:b', 'did:', 'did', 'did:a', 'did:a:',
    'did:a:b/c', 'did:a:b?c', 'did:a:b#c', 'did:a: b', ' did:a:b', 'did:a:b\n', 'did:a:é', 'did:plc:', 'did::a', 'did:a:%%a', 'did:web:a:b:.',
    'did:plc:' + 'a'.repeat(2040), 'did:plc:' + 'a'.repeat(2041), ''],
  handle: ['alice.example.com', 'a.co', 'john.test', 'ALICE.Example.COM', 'xn--ls8h.test', '4chan.org', 'a.b.c.d.e.f', 'a-b.c-d.e-f', 'a--b.co',
    'john.0', 'cn.8', 'thing.0aa', 'org', '.org', 'org.', 'a..b', '-a.b', 'a-.b', 'a.-b', 'a.b-', 'a_b.co', 'a b.co', 'a.b\n', 'é.co', 'a@b.co',
    'at://a.co', '@a.co', 'a.c1', 'a.1c', '127.0.0.1', 'a.co.', 'localhost', 'a.localhost', 'x.onion', 'handle.invalid',
    'a'.repeat(63) + '.co', 'a'.repeat(64) + '.co', 'a.' + 'b'.repeat(63), 'a.' + 'b'.repeat(64),
    ('a'.repeat(62) + '.').repeat(4) + 'b', ('a'.repeat(62) + '.').repeat(4) + 'bc', ''],
  nsid: ['com.atproto.server.createSession', 'com.example.fooBar', 'net.users.bob.ping', 'a.b.c', 'a-0.b-1.c', 'a.0.c', 'a.b.c0', 'a.b.0c', '0.b.c', 'a.b.c-d',
    'a.b', 'a', '', '.', '..', 'a..b.c', '.a.b.c', 'a.b.c.', '-a.b.c', 'a-.b.c', 'a.-b.c', 'a.b-.c', 'a.b.-c', 'a.b.c*', 'a.b.*', 'a.b.c#d', 'a_b.c.d', 'A.B.C',
    'com.example.foo%2f', 'com.éxample.foo', 'com.example.foo\n', ' com.example.foo', 'com/example.foo.bar', 'a.b.' + 'c'.repeat(63), 'a.b.' + 'c'.repeat(64),
    'a.' + 'b'.repeat(63) + '.c', 'a.' + 'b'.repeat(64) + '.c', ('a'.repeat(62) + '.').repeat(5) + 'bb', ('a'.repeat(62) + '.').repeat(5) + 'bbb'],
  tid: ['3jzfcijpj2z2a', '7777777777777', 'j7777777777777', '3zzzzzzzzzzzz', '2222222222222', 'kjzfcijpj2z2a', 'jzzzzzzzzzzzz', '3jzfcijpj2z21', '3jzfcijpj2z2aa',
    '3jzfcijpj2z2', '3JZFCIJPJ2Z2A', '3jzf-cij-pj2z-2a', '0000000000000', ''],
}
const bytes = 'abzAZ0129.-:_%/#?@ \n\u0000éﬀ'
const mutate = (text) => {
  const letters = [...text]
  for (let times = 1 + random(2); times > 0; times--) {
    const at = random(letters.length + 1)
    const kind = random(3)
    if (kind === 0) letters.splice(at, 1)
    else if (kind === 1) letters.splice(at, 0, pick([...bytes]))
    else letters[Math.min(at, Math.max(letters.length - 1, 0))] = pick([...bytes])
  }
  return letters.join('')
}
const ask = {
  did: (text) => syntax.ensureValidDid(text),
  handle: (text) => syntax.ensureValidHandle(text),
  nsid: (text) => syntax.ensureValidNsid(text),
  tid: (text) => syntax.ensureValidTid(text),
  at_identifier: (text) => syntax.ensureValidAtIdentifier(text),
}
const verdict = (kind, text) => {
  try {
    ask[kind](text)
    return true
  } catch {
    return false
  }
}
const identifiers = {}
for (const [kind, texts] of Object.entries({ ...seeds, at_identifier: [...seeds.did, ...seeds.handle] })) {
  const all = new Set(texts)
  for (const text of texts) if (text.length < 80) for (let n = 0; n < 5; n++) all.add(mutate(text))
  const judged = [...all].map((text) => [text, verdict(kind, text)])
  identifiers[kind] = {
    valid: judged.filter(([, valid]) => valid).map(([text]) => text),
    invalid: judged.filter(([, valid]) => !valid).map(([text]) => text),
  }
}
write('syntax.json', identifiers)

// --- keys and signatures ---
const keypair = async (curve, name) =>
  (curve === 'K256' ? crypto.Secp256k1Keypair : crypto.P256Keypair).import(seed(name), { exportable: true })
const keys = []
const signatures = []
for (const curve of ['K256', 'P256']) {
  for (const name of ['one', 'two', 'three', 'four']) {
    const pair = await keypair(curve, curve + name)
    const didKey = pair.did()
    const point = crypto.parseDidKey(didKey).keyBytes
    const compressed = curve === 'K256' ? crypto.compressPubkey?.(point) : undefined
    keys.push({
      curve, private: seed(curve + name), did_key: didKey,
      uncompressed: hex(point.length === 65 ? point : pair.publicKeyBytes?.() ?? point),
      ...(compressed ? { compressed: hex(compressed) } : {}),
    })
    const stranger = (await keypair(curve, 'stranger')).did()
    for (const message of ['', 'hello', 'x'.repeat(200), '\u0000\u0001 ' + name]) {
      const data = Buffer.from(message)
      const made = await pair.sign(data)
      const high = otherS(made, curve)
      const broken = made.map((byte, at) => (at === 40 ? byte ^ 1 : byte))
      const zero = new Uint8Array(64)
      const variants = {
        made, high, broken, zero, short: made.slice(0, 63), long: new Uint8Array([...made, 0]), empty: new Uint8Array(0),
        r_too_big: new Uint8Array([...unhex(orders[curve].toString(16)), ...made.slice(32)]),
        s_too_big: new Uint8Array([...made.slice(0, 32), ...unhex(orders[curve].toString(16))]),
      }
      for (const [kind, signature] of Object.entries(variants)) {
        for (const key of kind === 'made' ? [didKey, stranger] : [didKey]) {
          const judge = (options) => crypto.verifySignature(key, data, signature, options).catch(() => false)
          signatures.push({
            kind, curve, key, message: hex(data), signature: hex(signature),
            strict: await judge(), either_s: await judge({ allowMalleableSig: true }),
            ...(kind === 'made' && key === didKey ? { private: seed(curve + name) } : {}),
          })
        }
      }
    }
  }
}
const goodKey = keys[0].did_key
const didKeys = ['did:key:', 'did:key:z', goodKey, keys[4].did_key, goodKey.slice(0, -1), goodKey + '1', goodKey + 'z', goodKey.replace('did:key:z', 'did:key:'), goodKey.replace('did:key:z', 'did:key:u'),
  goodKey.replace('did:key:', ''), goodKey.toUpperCase(), ' ' + goodKey, goodKey + ' ', goodKey.replace('zQ3', 'zQ0'), 'did:key:z1' + goodKey.slice(9),
  'did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK', 'did:key:z' + 'Q'.repeat(5000), '']
write('crypto.json', {
  keys, signatures,
  did_keys: didKeys.map((text) => {
    try {
      crypto.parseDidKey(text)
      return { text, valid: true }
    } catch {
      return { text, valid: false }
    }
  }),
})

// --- PLC operations ---
const histories = []
for (const [index, shape] of [
  { handle: 'alice.example.com', pds: 'https://pds.example.com', rotation: 1 },
  { handle: 'bob.test', pds: 'http://localhost:2583', rotation: 2 },
  { handle: 'xn--ls8h.example.com', pds: 'https://pds-' + 'x'.repeat(300) + '.example.com', rotation: 5 },
  { handle: 'many.example.com', pds: 'https://pds.example.com/', rotation: 3, more: true },
].entries()) {
  const rotation = []
  for (let n = 0; n < shape.rotation; n++) rotation.push(await keypair('K256', `rotation ${index} ${n}`))
  const signer = rotation.at(-1)
  const signing = await keypair(index % 2 ? 'P256' : 'K256', 'signing ' + index)
  const base = plc.formatAtprotoOp({
    signingKey: signing.did(), handle: shape.handle, pds: shape.pds, rotationKeys: rotation.map((key) => key.did()), prev: null,
  })
  if (shape.more) {
    base.verificationMethods = { zz: signing.did(), atproto: signing.did(), atproto_label: rotation[0].did(), a: rotation[1].did() }
    base.services = { ...base.services, atproto_labeler: { type: 'AtprotoLabeler', endpoint: 'https://label.example.com' }, z: { type: 'Ünïcode', endpoint: 'https://z.example' } }
    base.alsoKnownAs = ['https://many.example.com', ...base.alsoKnownAs, 'at://second.example.com']
  }
  const operation = await plc.signOperation(base, signer)
  const did = await plc.didForCreateOp(operation)
  const history = { private: seed(`rotation ${index} ${shape.rotation - 1}`), signer: shape.rotation - 1, did, operations: [] }
  const cid = async (value) => {
    const { cidForCbor } = require('@atproto/common')
    return (await cidForCbor(value)).toString()
  }
  const add = async (value) => history.operations.push({ operation: value, cid: await cid(value) })
  await add(operation)
  const renamed = await plc.updateHandleOp(operation, signer, 'renamed.example.com')
  await add(renamed)
  const moved = await plc.updatePdsOp(renamed, signer, 'https://other.example.com')
  await add(moved)
  const rekeyed = await plc.updateAtprotoKeyOp(moved, signer, (await keypair('K256', 'new ' + index)).did())
  await add(rekeyed)
  const { CID } = require('multiformats/cid')
  const { prev, ...rest } = rekeyed
  const data = await plc.validateOperationLog(did, history.operations.map((entry) => entry.operation))
  history.data = data
  history.document_of_2023 = plc.formatDidDoc(data)
  await add(await plc.tombstoneOp(CID.parse(history.operations.at(-1).cid), signer))
  if ((await plc.validateOperationLog(did, history.operations.map((entry) => entry.operation))) !== null) throw new Error('not ended')
  histories.push(history)
}
const old = []
for (const [handle, service] of [['old.example.com', 'pds.example.com'], ['at://old.test', 'http://pds.test'], ['https://older.test', 'https://pds.test']]) {
  const [recovery, signing] = [await keypair('K256', 'recovery'), await keypair('P256', 'old signing')]
  const operation = await plc.deprecatedSignCreate(
    { type: 'create', signingKey: signing.did(), recoveryKey: recovery.did(), handle, service, prev: null }, signing)
  const did = await plc.didForCreateOp(operation)
  const { cidForCbor } = require('@atproto/common')
  old.push({ operation, did, cid: (await cidForCbor(operation)).toString(), data: await plc.validateOperationLog(did, [operation]) })
}
write('plc.json', { histories, old })

// --- tokens ---
const did = histories[0].did
const tokens = { ours: [], jose: [] }
const ours = await keypair('K256', 'session')
const josePublic = await jose.importJWK(
  { kty: 'EC', crv: 'secp256k1', ...(() => {
    const point = crypto.parseDidKey(ours.did()).keyBytes
    return { x: Buffer.from(point.slice(1, 33)).toString('base64url'), y: Buffer.from(point.slice(33, 65)).toString('base64url') }
  })() }, 'ES256K')
const claims = (more) => ({ scope: 'com.atproto.access', sub: did, aud: 'did:web:pds.example.com', iat: 1700000000, exp: 1700007200, jti: 'abc', ...more })
for (const [kind, header, body] of [
  ['access', { typ: 'at+jwt', alg: 'ES256K' }, claims({})],
  ['access', { typ: 'at+jwt', alg: 'ES256K' }, claims({ scope: 'com.atproto.appPassPrivileged', aud: 'did:web:localhost%3A2583' })],
  ['refresh', { typ: 'refresh+jwt', alg: 'ES256K', kid: 'key-1' }, claims({ scope: 'com.atproto.refresh', aud: 'did:web:entryway.example.com' })],
  ['refresh', { typ: 'refresh+jwt', alg: 'ES256K' }, claims({ scope: 'com.atproto.refresh' })],
  ['service', { typ: 'JWT', alg: 'ES256K' }, { iat: 1700000000, iss: did, aud: 'did:web:entryway.example.com', exp: 1700000060, lxm: 'com.atproto.server.getSession', jti: '0123456789abcdef0123456789abcdef' }],
  ['service', { typ: 'JWT', alg: 'ES256K' }, { iss: did + '#atproto_labeler', aud: 'did:web:entryway.example.com', exp: 1700000060 }],
]) {
  const signed = b64(header) + '.' + b64(body)
  const token = signed + '.' + Buffer.from(await ours.sign(Buffer.from(signed))).toString('base64url')
  await jose.compactVerify(token, josePublic, { algorithms: ['ES256K'] })
  tokens.ours.push({ kind, header, claims: body, token })
}
tokens.private = seed('session')
tokens.did_key = ours.did()
for (const [alg, curve, crv, namedCurve] of [['ES256K', 'K256', 'secp256k1', 'secp256k1'], ['ES256', 'P256', 'P-256', 'prime256v1']]) {
  const pair = await keypair(curve, 'jose')
  const point = crypto.parseDidKey(pair.did()).keyBytes
  const jwk = { kty: 'EC', crv, d: Buffer.from(seed('jose'), 'hex').toString('base64url'),
    x: Buffer.from(point.slice(1, 33)).toString('base64url'), y: Buffer.from(point.slice(33, 65)).toString('base64url') }
  const key = createPrivateKey({ key: jwk, format: 'jwk' })
  for (let n = 0; n < 8; n++) {
    const token = await new jose.SignJWT({ ...claims({ jti: 'token ' + n }), nested: { a: [1, 'ü'] } }).setProtectedHeader({ alg, typ: 'at+jwt' }).sign(key)
    const signature = new Uint8Array(Buffer.from(token.split('.')[2], 'base64url'))
    tokens.jose.push({ alg, did_key: pair.did(), low_s: isLowS(signature, curve), token, claims: jose.decodeJwt(token) })
  }
}
write('jwt.json', tokens)
