// A reference PDS, behind an entryway or stand-alone.
//
// Configuration: {env: {PDS_*: "…"}, nameServer?: "127.0.0.1:port"}. The settings are those that an
// operator puts into the environment of a real host. With PDS_ENTRYWAY_URL the host is behind an
// entryway. The published package resolves handles by itself. Its DNS questions, and those for the
// names of this network's TLS servers, go to the network's name server.
//
// TRIAL_TOKEN_AGE, in milliseconds, shortens the life of the access tokens that the host gives to
// apps, so that sessions are refreshed within a short run. Operators of real hosts have no such
// setting. It is read from `env` or from the environment of this process.

import dns, { setServers } from 'node:dns'
import { member } from './lib/member.mjs'

/**
 * Has connections ask this network's name server for the names of its TLS servers, which the system
 * does not know.
 */
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
  // Imported here, since the package reads some of its environment while it loads.
  const { envToCfg, envToSecrets, PDS, readEnv } = await import('@atproto/pds')

  const settings = readEnv()
  const config = envToCfg(settings)
  // Outside of development mode the package refuses to start on an http: origin, and on loopback
  // there is no other. A second copy of the configuration, which only that check reads, claims
  // development mode until the server is built. Everything else sees the mode that was asked for.
  const shown = { ...config, service: { ...config.service, devMode: true } }
  const pds = await PDS.create(config, envToSecrets(settings), { cfg: shown })
  shown.service.devMode = config.service.devMode
  const age = Number(process.env.TRIAL_TOKEN_AGE)
  // A host behind an entryway gives out no tokens for apps.
  if (age && pds.ctx.oauthProvider) pds.ctx.oauthProvider.tokenManager.tokenMaxAge = age

  await pds.start()
  const { publicUrl, did, version, devMode } = pds.ctx.cfg.service
  return { ready: { url: publicUrl, did, version, devMode }, stop: () => pds.destroy() }
})
