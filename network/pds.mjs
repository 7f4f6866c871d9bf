// One reference PDS, behind an entryway or stand-alone.
//
// Configuration: {env: {PDS_*: "…"}, nameServer?: "127.0.0.1:port"}. The settings are exactly what an operator would
// put into the environment of a real host; whether it is behind an entryway is decided by PDS_ENTRYWAY_URL. Handles
// are resolved by the unmodified package, whose DNS questions go to the network's name server, as those for the names of
// this network's TLS servers do.

import dns, { setServers } from 'node:dns'
import { member } from './lib/member.mjs'

/** Connections ask the system for addresses, which does not know this network's name server. */
function lookUpHere() {
  const system = dns.lookup
  dns.lookup = (name, options, done = options) => {
    if (!/\.(example\.com|genkan\.network)$/.test(name)) return system(name, options, done)
    dns.resolve4(name, (error, [address] = []) => {
      if (error) return done(error)
      return options.all ? done(null, [{ address, family: 4 }]) : done(null, address, 4)
    })
  }
}

await member(async ({ env, nameServer }) => {
  Object.assign(process.env, env)
  if (nameServer) {
    setServers([nameServer])
    lookUpHere()
  }
  // Imported only now: the package reads some of its environment while it is loaded.
  const { envToCfg, envToSecrets, PDS, readEnv } = await import('@atproto/pds')

  const settings = readEnv()
  const config = envToCfg(settings)
  // Outside of development mode the package refuses to start on an http: origin, and loopback has no other. A second
  // copy of the configuration, read by that check alone, claims development mode until the server is built; all else
  // sees the mode that was asked for.
  const shown = { ...config, service: { ...config.service, devMode: true } }
  const pds = await PDS.create(config, envToSecrets(settings), { cfg: shown })
  shown.service.devMode = config.service.devMode

  await pds.start()
  const { publicUrl, did, version, devMode } = pds.ctx.cfg.service
  return { ready: { url: publicUrl, did, version, devMode }, stop: () => pds.destroy() }
})
