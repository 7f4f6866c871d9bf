// One reference PDS, behind an entryway or stand-alone.
//
// Configuration: {env: {PDS_*: "…"}, nameServer?: "127.0.0.1:port"}. The settings are exactly what an operator would
// put into the environment of a real host; whether it is behind an entryway is decided by PDS_ENTRYWAY_URL. Handles
// are resolved by the unmodified package, whose DNS questions go to the network's name server.

import { setServers } from 'node:dns'
import { member } from './lib/member.mjs'

await member(async ({ env, nameServer }) => {
  Object.assign(process.env, env)
  if (nameServer) setServers([nameServer])
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
