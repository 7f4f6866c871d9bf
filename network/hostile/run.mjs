// One run of some attacks, from their start to the moment when nothing of them is left.

import { setTimeout as sleep } from 'node:timers/promises'
import net from 'node:net'
import { agentFrom, fetchWith } from './tools.mjs'

/** An answer that takes longer than this shows that the attack holds something. */
const HELD = 4_000
const REST = 2_000
/** Requests that were cut off at the end are over within this time. */
const OVER_WITHIN = 10_000

let addresses = 0
/** An address that no attack has used before. */
const newAddress = () => `127.1.${Math.floor(++addresses / 250)}.${(addresses % 250) + 1}`

export class Run {
  ended = false
  /** The answers by attack and kind. */
  told = {}
  sockets = new Set()
  #agents = new Set()
  #unfinished = new Set()
  #untouched = new Set()
  #counters = []
  #end

  constructor() {
    this.began = Date.now()
    this.end = new Promise((resolve) => (this.#end = resolve))
    // Whatever asks by the global `fetch` ends with this run.
    fetchWith(this.from('127.0.3.99'))
  }

  /** Returns an agent that connects from one address. */
  from(address = newAddress(), more) {
    const agent = agentFrom(address, more)
    this.#agents.add(agent)
    return agent
  }

  many(count) {
    return Array.from({ length: count }, () => this.from())
  }

  addresses(count) {
    return Array.from({ length: count }, newAddress)
  }

  /** Counts an answer, by its status and the name of its error or by a word. */
  tell(name, answer) {
    // Requests that the end cuts off have no answer.
    if (this.ended) return
    const { status, text, body } = typeof answer === 'object' ? answer : { status: answer }
    const error = status < 400 ? '' : /"error":\s*"(\w+)"/.exec(text ?? JSON.stringify(body ?? ''))?.[1]
    // Of made-up names one is enough.
    const key = error ? `${status} ${error.replace(/^Bad[0-9a-f]{12}$/, 'Bad…')}` : String(status)
    const counts = (this.told[name] ??= {})
    counts[key] = (counts[key] ?? 0) + 1
  }

  /** Counts the answer to a request, and before it that it is held. */
  async ask(name, request) {
    const timer = setTimeout(() => this.tell(name, 'held'), HELD)
    try {
      this.tell(name, await this.whole(request))
    } finally {
      clearTimeout(timer)
    }
  }

  /** Remembers work that must be over before the run is. */
  whole(work) {
    const all = this.#unfinished
    all.add(work)
    return work.finally(() => all.delete(work))
  }

  /** Remembers work that the end waits for and does not cut off. */
  untouched(work) {
    this.#untouched.add(work)
    return work.finally(() => this.#untouched.delete(work))
  }

  /** Adds to the answers of an attack by how much a number grows in this run. */
  async count(name, label, read) {
    const before = await read()
    this.#counters.push(async () => {
      const grown = (await read()) - before
      if (grown > 0) (this.told[name] ??= {})[label] = grown
    })
  }

  /** Starts `act` so often per second until the end, unless `atOnce` of them still run. */
  async paced(perSecond, atOnce, act) {
    let running = 0
    for (let next = Date.now(), index = 0; !this.ended; next += 1000 / perSecond) {
      await sleep(Math.max(next - Date.now(), 0))
      if (this.ended || running >= atOnce) continue
      running++
      Promise.resolve(act(index++)).catch(() => {}).finally(() => running--)
    }
  }

  /** Raw connections, each from the next of some addresses, that are opened again when they end. */
  raw(name, connections, addresses, service, once) {
    const { hostname: host, port } = new URL(service)
    const keep = async (index) => {
      while (!this.ended) {
        const localAddress = addresses[index % addresses.length]
        const socket = net.connect({ host, port: Number(port), family: 4, localAddress })
        this.sockets.add(socket)
        const timer = setTimeout(() => this.tell(name, 'held'), HELD)
        socket.on('error', () => {})
        socket.once('data', (data) => this.tell(name, `answered ${/^HTTP\/1.1 (\d+)/.exec(data)?.[1]}`))
        await Promise.race([once(socket), this.end])
        clearTimeout(timer)
        socket.destroy()
        this.sockets.delete(socket)
        this.tell(name, 'connections')
        // Without a rest, refused connections would be a flood that the harmless load has not.
        await sleep(REST)
      }
    }
    for (let index = 0; index < connections; index++) keep(index)
  }

  /** Ends everything, and resolves to how long the run took and what it left behind. */
  async stop() {
    this.ended = true
    const seconds = (Date.now() - this.began) / 1000
    await Promise.race([Promise.allSettled([...this.#untouched]), sleep(OVER_WITHIN)])
    this.#end()
    for (const socket of this.sockets) socket.destroy()
    for (const agent of this.#agents) {
      agent.isOver = true
      agent.destroy()
    }
    const until = Date.now() + OVER_WITHIN
    while (this.#unfinished.size > 0 && Date.now() < until) await sleep(20)
    for (const counter of this.#counters) await counter()
    return { seconds, unfinished: this.#unfinished.size }
  }
}

export const closed = (socket) => new Promise((resolve) => socket.once('close', resolve))
