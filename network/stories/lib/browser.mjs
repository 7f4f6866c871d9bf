// A real browser, in which the stories click through Genkan's pages.

import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { chromium } from 'playwright-core'
import { assert, map } from './stage.mjs'

const AXE = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const SCREENSHOTS = process.env.GENKAN_TEST_SCREENSHOTS
const executablePath = process.env.GENKAN_TEST_CHROMIUM

/** Starts Chromium, which ends with the story. Without Chromium on this machine the story fails. */
export async function startBrowser(t) {
  assert.ok(executablePath, 'there is no Chromium on this machine')
  const browser = await chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      `--host-resolver-rules=MAP *.example.com 127.0.0.1, MAP *.genkan.network 127.0.0.1`,
      '--ignore-certificate-errors',
    ],
  })
  t.after(() => browser.close())
  return browser
}

/** A browser with cookies of its own. `troubles` lists the errors in its pages. */
export async function newPerson(browser, options = {}) {
  const context = await browser.newContext({ locale: 'en-US', viewport: { width: 390, height: 844 }, ...options })
  const page = await context.newPage()
  const troubles = []
  page.on('pageerror', (error) => troubles.push(String(error)))
  page.on('console', (message) => {
    // A refused request is logged as a failed load. Refusals are part of the protocol, for instance
    // of a proof without the newest nonce.
    const isRefusal = message.text().startsWith('Failed to load resource')
    if (message.type() === 'error' && !isRefusal) troubles.push(message.text())
  })
  return { context, page, troubles }
}

const seen = new Set()

/** Checks the page with axe-core, and keeps a picture of it: once for each name. */
export async function look(page, name) {
  if (seen.has(name)) return
  seen.add(name)
  const { violations } = await inspect(page)
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' | ')}`)
  assert.deepEqual(told, [], `axe-core on ${name}`)
  if (!SCREENSHOTS) return
  fs.mkdirSync(SCREENSHOTS, { recursive: true })
  const picture = (suffix) => page.screenshot({ path: path.join(SCREENSHOTS, `${name}${suffix}.png`), fullPage: true })
  const { width, height } = page.viewportSize()
  await picture('-phone')
  await page.setViewportSize({ width: 1200, height: 900 })
  await picture('-desktop')
  await page.emulateMedia({ colorScheme: 'dark' })
  const dark = await inspect(page)
  assert.deepEqual(dark.violations.map(({ id }) => id), [], `axe-core on ${name}, dark`)
  await picture('-desktop-dark')
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize({ width, height })
}

/** Runs axe-core. The page's content security policy does not bind scripts that playwright runs. */
async function inspect(page) {
  await page.evaluate(AXE)
  return page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))
}

/** Types the handle, if the page asks for it, and the password, and submits. */
export async function signIn(page, { handle, password }, { remember = false } = {}) {
  const name = page.getByLabel(/handle|e-?mail/i).first()
  if (await name.isEditable()) await name.fill(handle)
  await page.getByLabel('Password', { exact: true }).fill(password)
  if (remember) await page.getByLabel(/stay signed in/i).check()
  await page.getByRole('button', { name: 'Sign in' }).click()
}

/** Allows on the consent page what the app asks for. */
export async function allow(page) {
  await page.getByRole('button', { name: 'Allow', exact: true }).click()
}
