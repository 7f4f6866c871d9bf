// The published OAuth client for browsers, in a real browser. It leaves its own page, comes back,
// and goes on.

import http from 'node:http'
import path from 'node:path'
import { test } from 'node:test'
import { buildSync } from 'esbuild'
import { allow, newPerson, signIn, startBrowser } from './lib/browser.mjs'
import { putDocument } from './lib/oauth.mjs'
import { assert, map, service, signUp } from './lib/stage.mjs'

function bundle() {
  const { outputFiles } = buildSync({
    entryPoints: [path.join(import.meta.dirname, 'lib/browser-app.mjs')],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    logLevel: 'error',
  })
  return outputFiles[0].text
}

function appPage(settings) {
  const json = JSON.stringify({ service, directory: map.plc.url, ...settings }).replaceAll('<', '\\u003c')
  const script = '<script src="app.js"></script>'
  return `<!doctype html><title>App</title><script type="application/json" id="settings">${json}</script>${script}`
}

/** An app under development, which needs no client metadata document. */
async function developedApp(t, settings) {
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://127.0.0.1')
    const [type, body] = pathname === '/app.js' ? ['text/javascript', bundle()] : ['text/html', appPage(settings)]
    response.writeHead(200, { 'content-type': `${type}; charset=utf-8` }).end(body)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${server.address().port}/`, scope: 'atproto' }
}

/** An app on the web. */
async function publishedApp(t, settings) {
  const folder = `/browser-${process.pid}`
  const scope = 'atproto transition:generic'
  const clientMetadata = {
    client_id: `${map.app.url}${folder}/client-metadata.json`,
    client_name: 'The garden',
    redirect_uris: [`${map.app.url}${folder}/`],
    scope,
    response_types: ['code'],
    grant_types: ['authorization_code', 'refresh_token'],
    application_type: 'web',
    dpop_bound_access_tokens: true,
    token_endpoint_auth_method: 'none',
  }
  const served = async (name, type, body) =>
    putDocument(`${folder}/${name}`, { headers: { 'content-type': `${type}; charset=utf-8` }, body })
  await served('client-metadata.json', 'application/json', JSON.stringify(clientMetadata))
  await served('', 'text/html', appPage({ ...settings, clientMetadata }))
  await served('app.js', 'text/javascript', bundle())
  return { url: `${map.app.url}${folder}/`, scope }
}

const opened = (page) => page.evaluate(() => globalThis.app.opened)

for (const [kind, make] of [['under development', developedApp], ['on the web', publishedApp]]) {
  for (const responseMode of ['fragment', 'query']) {
    test(`an app ${kind}, answered by ${responseMode}`, async (t) => {
      const browser = await startBrowser(t)
      const person = await signUp('inpage')
      const { page, troubles } = await newPerson(browser)
      const app = await make(t, { responseMode })

      await page.goto(app.url)
      assert.deepEqual(await opened(page), { did: null, state: null })
      const { handle } = person
      await Promise.all([
        page.waitForURL((url) => url.origin === service),
        page.evaluate(({ handle, scope }) => void globalThis.app.signIn(handle, { scope, state: 'kept' }), {
          handle,
          scope: app.scope,
        }),
      ])
      await signIn(page, person)
      await Promise.all([page.waitForURL((url) => url.href.startsWith(app.url)), allow(page)])
      assert.deepEqual(await opened(page), { did: person.did, state: 'kept' })

      if (app.scope.includes('transition:generic')) {
        const uri = await page.evaluate(() => globalThis.app.post('from a page'))
        assert.ok(uri.startsWith(`at://${person.did}/`))
        const atGenkan = await page.evaluate(
          (url) => globalThis.app.call(url),
          `${service}/xrpc/com.atproto.repo.listRecords?repo=${person.did}&collection=app.bsky.feed.post`,
        )
        assert.equal(atGenkan.status, 200)
        assert.equal(atGenkan.body.records[0].value.text, 'from a page')
      }
      const { scope } = await page.evaluate(() => globalThis.app.refresh())
      assert.equal(scope, app.scope)

      await page.goto(app.url)
      assert.equal((await opened(page)).did, person.did, 'a reload finds the session')
      await page.evaluate(() => globalThis.app.signOut())
      await page.goto(app.url)
      assert.equal((await opened(page)).did, null)
      assert.deepEqual(troubles, [])
    })
  }
}
