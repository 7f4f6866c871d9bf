// DNS messages (RFC 1035 §4), as far as the name server needs them: one question, and answers of
// type A and TXT.

export const TYPE_A = 1
export const TYPE_TXT = 16

const HEADER = 12
const RESPONSE_AUTHORITATIVE = 0x8400
const RECURSION_DESIRED = 0x0100
const NO_SUCH_NAME = 3

/**
 * Parses a query into `{id, flags, name, type, bytes}`, or null if it does not have exactly one
 * question.
 */
export function parseQuestion(message) {
  if (message.length < HEADER || message.readUInt16BE(4) !== 1 || message.readUInt16BE(2) & 0x8000) return null
  const labels = []
  let at = HEADER
  while (message[at] > 0) {
    if (message[at] > 63 || at + message[at] >= message.length) return null
    labels.push(message.toString('latin1', at + 1, at + 1 + message[at]))
    at += 1 + message[at]
  }
  if (at + 5 > message.length) return null
  return {
    id: message.readUInt16BE(0),
    flags: message.readUInt16BE(2),
    name: labels.join('.'),
    type: message.readUInt16BE(at + 1),
    bytes: message.subarray(HEADER, at + 5),
  }
}

/**
 * Builds the answer with `values` (strings), or "no such name" for null. Its time to live is 0
 * seconds.
 */
export function answerTo(question, values) {
  const header = Buffer.alloc(HEADER)
  header.writeUInt16BE(question.id, 0)
  const code = values === null ? NO_SUCH_NAME : 0
  header.writeUInt16BE(RESPONSE_AUTHORITATIVE | (question.flags & RECURSION_DESIRED) | code, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(values?.length ?? 0, 6)
  return Buffer.concat([header, question.bytes, ...(values ?? []).map((value) => record(question.type, value))])
}

function record(type, value) {
  const data = type === TYPE_A ? Buffer.from(value.split('.').map(Number)) : characterStrings(value)
  const head = Buffer.alloc(12)
  head.writeUInt16BE(0xc000 | HEADER, 0) // the name is a pointer to the one in the question
  head.writeUInt16BE(type, 2)
  head.writeUInt16BE(1, 4) // class: internet
  head.writeUInt16BE(data.length, 10)
  return Buffer.concat([head, data])
}

function characterStrings(text) {
  const bytes = Buffer.from(text)
  const parts = []
  for (let at = 0; at < bytes.length || at === 0; at += 255) {
    const part = bytes.subarray(at, at + 255)
    parts.push(Buffer.from([part.length]), part)
  }
  return Buffer.concat(parts)
}
