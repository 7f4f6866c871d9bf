// A browser without scripts: it keeps cookies and submits forms of Genkan's pages. At a reference
// PDS, whose pages need scripts, it makes the calls that those scripts make.

import http from 'node:http'
import { begin } from './requests.mjs'

const AGENT = 'Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0'
const REFERENCE_API = '/@atproto/oauth-provider/~api'

/** A browser that should be signed in is not. */
export class SignedOutError extends Error {}

export class FormBrowser {
  /** What the browser calls itself. */
  agent = AGENT
  #cookies = new Map()
  #service
  #agent

  /** `agent` chooses the address that the browser connects from. */
  constructor(service, cookies = [], agent) {
    this.#service = service
    this.#agent = agent
    this.#cookies = new Map(cookies)
  }

  /** The cookies, with which another browser goes on. */
  get cookies() {
    return [...this.#cookies]
  }

  /** Goes on as a newer version of itself, which Genkan sees as a changed browser. */
  update() {
    const version = 100 + Math.floor(Math.random() * 900)
    this.agent = AGENT.replace(/145/g, version)
  }

  /** Signs in for the account pages and stays signed in. Returns the page of the account. */
  async signIn({ handle, password }) {
    const page = await this.open(`${this.#service}/account/sign-in`)
    return this.submit(page, 'sign-in', { identifier: handle, password, remember: 'yes' })
  }

  /** Whether the account's own page opens without a password. */
  async isSignedIn({ did }) {
    const page = await this.open(`${this.#service}/account/u/${did}`)
    if (page.status === 200 && page.url.pathname.endsWith('/account/sign-in')) return false
    if (page.status !== 200 || !page.body.includes(`<code>${did}</code>`)) {
      throw new Error(`neither the account nor a sign-in at ${page.url}: ${page.status} ${page.body.slice(0, 500)}`)
    }
    return true
  }

  /** Like `isSignedIn`, but the answer is lost on its way: no cookie of it arrives. */
  async loseAnswer(account) {
    const kept = this.cookies
    try {
      return await this.isSignedIn(account)
    } finally {
      this.#cookies = new Map(kept)
    }
  }

  /** Opens a page from another site, and follows redirects on its own site and to Genkan. */
  async open(url) {
    return this.#follow(new URL(url), await this.#send('GET', new URL(url), { 'sec-fetch-site': 'cross-site' }))
  }

  /** Submits a form of a page with some fields changed, and follows redirects on its own site. */
  async submit(page, action, changed) {
    const form = forms(page.body).find((form) => form.action.endsWith(action))
    if (!form) throw new Error(`no form to ${action} at ${page.url}: ${page.status} ${page.body.slice(0, 2000)}`)
    const fields = form.fields.filter(([name]) => !(name in changed))
    const body = new URLSearchParams([...fields, ...Object.entries(changed)]).toString()
    const to = new URL(form.action, page.url)
    const headers = {
      'sec-fetch-site': 'same-origin',
      'content-type': 'application/x-www-form-urlencoded',
      origin: to.origin,
      referer: page.url.href,
    }
    return this.#follow(to, await this.#send('POST', to, headers, body))
  }

  /**
   * Signs in at Genkan and allows what the app asks for. Returns the URL back at the app. With
   * `remember` the browser stays signed in. With `isSignedIn` Genkan must not ask for a password.
   */
  async allow(url, { did, handle, password, remember, isSignedIn }) {
    let page = await this.open(url)
    if (forms(page.body).some((form) => form.action.endsWith('sign-in'))) {
      if (isSignedIn) throw new SignedOutError('a browser that was signed in is asked for the password by an app\'s request')
      page = await this.submit(page, 'sign-in', { identifier: handle, password, ...(remember ? { remember: 'yes' } : {}) })
    }
    if (forms(page.body).some((form) => form.action.endsWith('choose'))) page = await this.submit(page, 'choose', { did })
    return this.#consent(page)
  }

  /** Signs in at a reference PDS and allows what Genkan asks for there, then what the app asks for. */
  async allowLinked(url, { handle, did, password }) {
    const start = await this.open(url)
    const leaving = await this.submit(start, 'sign-in', { identifier: handle, password: '' })
    const there = leaving.location ?? new URL(/id="onward" href="([^"]+)"/.exec(leaving.body)[1].replaceAll('&#38;', '&').replaceAll('&amp;', '&'))
    const authorize = await this.open(there)
    const call = async (endpoint, body) => {
      const to = new URL(REFERENCE_API + endpoint, there)
      const headers = {
        'sec-fetch-site': 'same-origin',
        'sec-fetch-mode': 'same-origin',
        'sec-fetch-dest': 'empty',
        'content-type': 'application/json',
        'x-csrf-token': this.#cookies.get(`${there.origin} csrf-token`),
        origin: there.origin,
        referer: authorize.url.href,
      }
      const answer = await this.#send('POST', to, headers, JSON.stringify(body))
      if (answer.status !== 200) throw new Error(`${endpoint}: ${answer.status} ${answer.body}`)
      return JSON.parse(answer.body)
    }
    await call('/sign-in', { locale: 'en', username: handle, password, remember: true })
    const { url: onward } = await call('/consent', { did })
    const back = new URL(onward).searchParams
    const callback = new URL(back.get('redirect_uri'))
    for (const name of ['iss', 'state', 'code', 'error']) if (back.has(name)) callback.searchParams.set(name, back.get(name))
    return this.#consent(await this.open(callback))
  }

  async #consent(page) {
    const done = page.location ? page : await this.submit(page, 'consent', { answer: 'allow' })
    if (!done.location) throw new Error(`no way back to the app: ${done.status} ${done.body.slice(0, 2000)}`)
    return done.location
  }

  /** `location` is set on a page that leads to another site. */
  async #follow(url, answer) {
    for (let redirects = 0; redirects < 5 && [302, 303].includes(answer.status); redirects++) {
      const location = new URL(answer.headers.location, url)
      if (![url.origin, this.#service].includes(location.origin)) return { ...answer, url, location }
      url = location
      answer = await this.#send('GET', url, { 'sec-fetch-site': 'same-origin' })
    }
    return { ...answer, url }
  }

  async #send(method, url, headers, body = '') {
    const mine = [...this.#cookies].filter(([name]) => name.startsWith(`${url.origin} `))
    const cookie = mine.map(([name, value]) => `${name.split(' ')[1]}=${value}`).join('; ')
    const sent = {
      'user-agent': this.agent,
      'accept-language': 'en',
      'sec-fetch-mode': 'navigate',
      'sec-fetch-dest': 'document',
      ...(cookie ? { cookie } : {}),
      ...headers,
    }
    const isNoted = url.origin === this.#service
    const note = isNoted ? begin(method, url.pathname) : () => {}
    try {
      const answer = await exchange(url, { method, headers: sent, timeout: 60_000, agent: this.#agent }, body)
      note(answer.status, answer.body)
      this.#keep(url, answer.headers['set-cookie'] ?? [])
      if (isNoted && answer.status >= 400) throw new Error(`${url.pathname}: ${answer.status}`)
      return answer
    } catch (error) {
      if (error.code) note(0, String(error))
      throw error
    }
  }

  #keep(url, cookies) {
    for (const cookie of cookies) {
      const [name, ...value] = cookie.split(';')[0].split('=')
      this.#cookies.set(`${url.origin} ${name}`, value.join('='))
    }
  }
}

function exchange(url, options, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, options, async (answer) => {
      try {
        const chunks = []
        for await (const chunk of answer) chunks.push(chunk)
        resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(chunks).toString() })
      } catch (error) {
        reject(error)
      }
    })
    request.on('timeout', () => request.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })))
    request.on('error', reject)
    request.end(body)
  })
}

/** Returns the forms of a page: {action, fields: [[name, value]]}. */
function forms(html) {
  return html.split('<form ').slice(1).map((rest) => {
    const form = rest.split('</form>')[0]
    const inputs = form.split('<input ').slice(1).map((rest) => rest.split('>')[0])
    const fields = inputs.filter(isSent).map((input) => [attribute(input, 'name'), attribute(input, 'value') ?? ''])
    return { action: attribute(form, 'action') ?? '', fields }
  })
}

/** A browser sends no field that is disabled or is a box without a tick. */
function isSent(input) {
  const words = input.split(/\s+/)
  return attribute(input, 'name') && !words.includes('disabled') && !(words.includes('type="checkbox"') && !words.includes('checked'))
}

function attribute(tag, name) {
  const text = new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(tag)?.[1]
  const entities = { '&#60;': '<', '&#62;': '>', '&#34;': '"', '&#39;': "'", '&#38;': '&' }
  return text?.replace(/&#\d\d;/g, (entity) => entities[entity] ?? entity)
}
