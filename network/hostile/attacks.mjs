// What a hostile user, or a hostile stranger, does to a service: `node hostile/attacks.mjs
// <world.json>`.
//
// A line {"attacks": ["…"], "harmful": true} on standard input starts some of them. The next line,
// `stop`, ends them, waits until nothing of them is left, and prints a line {seconds, unfinished,
// attacks: {"<name>": {answers: {"200": 12}, rules: [...]}}}. A line `survivors` asks which of the
// attacker's own accounts were deleted, in answer to which a line {checked, deleted: [...]} is
// printed after some minutes.
//
// An attack is {harmless, harmful, act(run, name, harmful)}. With "harmful": false it makes as many
// requests and connections, but asks for what anybody may ask for. The rules of each half say by
// which answers it is seen that it arrived: {any: [...], perMinute} wants so many of some, {never}
// none of some, {only} no others. An answer is a status with or without the name of its error, a word
// of the attack, or `held` for one that takes over four seconds.

import fs from 'node:fs'
import readline from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { Run } from './run.mjs'
import { strangerAttacks } from './stranger.mjs'
import { agentFrom, send, xrpc } from './tools.mjs'
import { userAttacks } from './user.mjs'

const world = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const plain = agentFrom('127.0.0.1')
const ask = async (url) => JSON.parse((await send(plain, url)).text)

/** Reads how often something was asked for that only an attack asks for. */
const counted = async (what) => {
  if (['silent', 'trap'].includes(what)) return (await ask(`${world.server.url}/dials`))[what]
  if (what !== 'silentClients') return (await ask(`${world.directory}/made-up`))[what]
  const visits = await ask(`${world.appSettings}/visits`)
  return visits.filter(({ path }) => path.startsWith('/turned-silent')).length
}

/** From now on the documents of these clients take half a minute. */
const plantSilence = () =>
  Promise.all(world.silentClients.map(({ path, document }) =>
    send(plain, `${world.appSettings}/documents${path}`, { method: 'PUT', body: JSON.stringify({ ...document, delay: 30_000 }) })))

const attacks = {
  user: userAttacks({ ...world, counted, plantSilence }),
  stranger: strangerAttacks({ ...world, counted }),
}
const attackOf = (name) => attacks.user[name] ?? attacks.stranger[name]

/** Returns how many of the attacker's accounts are gone, once those that are due would be. */
async function survivors() {
  const dueAt = Math.max(...Object.values(attacks.user).map(({ dueAt }) => dueAt?.() ?? 0))
  if (!dueAt) return { checked: 0, deleted: [] }
  await sleep(Math.max(dueAt - Date.now(), 0))
  const deleted = []
  for (const { handle: identifier, password, by } of world.doomed) {
    const { status, text } = await xrpc(plain, world.service, 'com.atproto.server.createSession', { body: { identifier, password } })
    if (status !== 200) deleted.push(`${identifier}, by ${by}: ${status} ${text.slice(0, 200)}`)
  }
  return { checked: world.doomed.length, deleted }
}

let current
let chosen

const lines = readline.createInterface({ input: process.stdin })
lines.on('line', async (line) => {
  if (line === 'survivors') return console.log(JSON.stringify(await survivors()))
  if (line !== 'stop') {
    chosen = JSON.parse(line)
    current = new Run()
    for (const name of chosen.attacks) {
      const began = Promise.resolve().then(() => attackOf(name).act(current, name, chosen.harmful))
      began.catch((error) => current.tell(name, String(error)))
    }
    return
  }
  const { seconds, unfinished } = await current.stop()
  const half = chosen.harmful ? 'harmful' : 'harmless'
  const told = chosen.attacks.map((name) => [name, { answers: current.told[name] ?? {}, rules: attackOf(name)[half] }])
  console.log(JSON.stringify({ seconds, unfinished, attacks: Object.fromEntries(told) }))
})
lines.once('close', () => process.exit(0))
process.on('uncaughtException', (error) => console.error(error))
const names = Object.fromEntries(Object.entries(attacks).map(([who, all]) => [who, Object.keys(all)]))
console.log(JSON.stringify({ names }))
