// Requests that are noted, and repeated as a good client repeats them.
//
// Every request to Genkan goes through the global `fetch`, which this file replaces. A request
// fails if it got no whole answer, or one of 429 or 5xx. Each failure is a line of JSON in a file:
// {began, ended, since, op, host, attempt, method, path, status, body}. `since` is the time of the
// operation's first attempt. `host` is the name of the host of the person who made the request, if it
// is known. An operation that was refused a fresh DPoP nonce is
// a line, too.

import { AsyncLocalStorage } from 'node:async_hooks'
import fs from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** How long a client goes on repeating. Then the operation counts as stuck. */
const PATIENCE = 180_000
/** A client that waits longer for one answer gives that answer up and repeats. */
const ONE_ANSWER = 60_000
const REPEATED = [0, 429, 500, 502, 503, 504]

const operation = new AsyncLocalStorage()
const host = new AsyncLocalStorage()
/** The number of answers by operation and status. 0 stands for no answer. */
export const counts = {}

/** An operation that did not succeed: refused by an answer that no repeat changes, or stuck. */
export class OperationError extends Error {
  constructor(op, { status, body, path, attempt }, stuck) {
    super(`${op}: ${stuck ? 'stuck at' : 'refused with'} ${status} at ${path}: ${body}`)
    Object.assign(this, { op, status, body, path, attempt, stuck })
  }
}

let failures

function noteFailure(row) {
  // A program that asked for no notes gets none.
  if (!failures) return
  fs.appendFileSync(failures, JSON.stringify({ began: Date.now(), ended: Date.now(), ...row }) + '\n')
}

/** Does the work of a person. Its failures name the person's host. */
export function ofHost(name, work) {
  return host.run(name, work)
}

/** Notes every request to `origin` from now on, and its failures in `file`. */
export function noteRequests(origin, file) {
  failures = file
  const plain = globalThis.fetch
  globalThis.fetch = async (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : input)
    if (url.origin !== origin) return plain(input, init)
    const note = begin(init.method ?? input.method ?? 'GET', url.pathname)
    try {
      const answer = await plain(input, { ...init, signal: AbortSignal.timeout(ONE_ANSWER) })
      // The whole body is part of the answer: a connection may break in the middle of it.
      const bytes = Buffer.from(await answer.arrayBuffer())
      note(answer.status, bytes.toString())
      const { status, statusText, headers } = answer
      const whole = new Response([101, 204, 205, 304].includes(status) ? null : bytes, { status, statusText, headers })
      return whole
    } catch (error) {
      note(0, String(error.cause ?? error))
      throw error
    }
  }
}

/** Begins a request. The returned function notes its status and body. */
export function begin(method, path) {
  const began = Date.now()
  const context = operation.getStore() ?? {}
  const { op = 'other', attempt = 1, since = began } = context
  return (status, body) => {
    const key = `${op} ${status}`
    counts[key] = (counts[key] ?? 0) + 1
    Object.assign(context, { status, body: body.slice(0, 300), path })
    if (status !== 0 && status !== 429 && status < 500) return
    noteFailure({ began, since, op, host: host.getStore(), attempt, method, path, status, body: body.slice(0, 300) })
  }
}

/**
 * Does an operation once, as part of the operation `op`. Rejects with an OperationError whose
 * `status` is that of the last answer.
 */
export async function once(op, work, attempt = 1, since = Date.now()) {
  const context = { op, attempt, since }
  try {
    return await operation.run(context, () => work(attempt))
  } catch (error) {
    // A mistake in this program is not an answer of the server.
    if (context.status === undefined) throw error
    const failed = Object.assign(new OperationError(op, context, false), { cause: error })
    if (isNonceRefused(failed)) noteFailure({ op, attempt, ...context })
    throw failed
  }
}

/** Whether a server refused the nonce that it had just given out. Clients repeat once by themselves. */
function isNonceRefused({ status, body }) {
  return [400, 401].includes(status) && /use_dpop_nonce/.test(body)
}

/**
 * Repeats an operation until it succeeds or is refused. `work` gets the number of the attempt and
 * rejects unless it succeeded.
 */
export async function repeated(op, work) {
  const since = Date.now()
  for (let attempt = 1; ; attempt++) {
    try {
      return await once(op, work, attempt, since)
    } catch (error) {
      if (!(error instanceof OperationError)) throw error
      if (!REPEATED.includes(error.status) && !isNonceRefused(error)) throw error
      if (Date.now() > since + PATIENCE) throw Object.assign(new OperationError(op, error, true), { cause: error })
    }
    await sleep(Math.min(200 * 2 ** Math.min(attempt, 3), 1500) * (0.5 + Math.random()))
  }
}
