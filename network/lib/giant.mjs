// DID documents that are as large and as deeply nested as a server may send.

/** Deep and wide, and just below the 256 KiB that Genkan reads. */
export function giantDocument(did, service) {
  const nested = '{"a":['.repeat(60) + '1' + ']}'.repeat(60)
  const wide = Array.from({ length: 510 }, (_, index) => `"x${index}":${nested}`).join(',')
  return `{"id":"${did}","service":${JSON.stringify(service)},${wide}}`
}
