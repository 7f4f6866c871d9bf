// MIME messages, as far as a PDS and Genkan use it: the subject, and the text of the part to read.

/** Parses a raw message into `{subject, text}`. */
export function parseMail(raw) {
  const { headers, body } = split(raw)
  return { subject: decodeWords(headers.get('subject') ?? ''), text: bestText(headers, body) ?? '' }
}

function bestText(headers, body) {
  const type = headers.get('content-type') ?? 'text/plain'
  const boundary = /^multipart\/.*boundary="?([^";]+)"?/is.exec(type)?.[1]
  if (!boundary) return decode(headers.get('content-transfer-encoding'), body)
  const parts = body.split(`--${boundary}`).slice(1, -1).map((part) => split(part.replace(/^\r?\n/, '')))
  const plain = parts.find(({ headers }) => /^(text\/plain|multipart\/)/i.test(headers.get('content-type') ?? 'text/plain'))
  const chosen = plain ?? parts[0]
  return chosen && bestText(chosen.headers, chosen.body)
}

function split(text) {
  const [, head, body] = /^(.*?)\r?\n\r?\n(.*)$/s.exec(text) ?? [null, text, '']
  const headers = new Map()
  for (const line of head.replace(/\r?\n[ \t]+/g, ' ').split(/\r?\n/)) {
    const colon = line.indexOf(':')
    if (colon > 0) headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim())
  }
  return { headers, body }
}

function decode(encoding = '7bit', body) {
  switch (encoding.toLowerCase()) {
    case 'base64':
      return Buffer.from(body, 'base64').toString()
    case 'quoted-printable':
      return quotedPrintable(body.replace(/=\r?\n/g, ''))
    default:
      return body
  }
}

function decodeWords(text) {
  return text.replace(/=\?utf-8\?([bq])\?([^?]*)\?=(\s+(?==\?))?/gi, (_, kind, word) =>
    kind.toLowerCase() === 'b' ? Buffer.from(word, 'base64').toString() : quotedPrintable(word.replaceAll('_', ' ')),
  )
}

function quotedPrintable(text) {
  const bytes = text.replace(/=([0-9A-F]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)))
  return Buffer.from(bytes, 'latin1').toString()
}
