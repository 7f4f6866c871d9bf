// The page of an app with the published OAuth client for browsers. The story bundles it for the
// browser.

import { Agent } from '@atproto/api'
import { BrowserOAuthClient } from '@atproto/oauth-client-browser'

const { clientMetadata, responseMode, service, directory } = JSON.parse(document.getElementById('settings').textContent)

const client = new BrowserOAuthClient({
  clientMetadata: clientMetadata ?? undefined,
  responseMode: responseMode ?? undefined,
  handleResolver: service,
  plcDirectoryUrl: directory,
  allowHttp: true,
})

let session
globalThis.app = {
  /**
   * What the page found when it was opened: the account that is signed in, or the server's error.
   */
  opened: client.init().then(
    (found) => {
      session = found?.session
      return { did: session?.did ?? null, state: found?.state ?? null }
    },
    (error) => ({ error: String(error) }),
  ),
  /** Leaves for the sign-in page. */
  signIn: (input, options) => client.signInRedirect(input, options),
  async post(text) {
    const { uri } = await new Agent(session).post({ text })
    return uri
  },
  async call(url) {
    const answer = await session.fetchHandler(url)
    return { status: answer.status, body: await answer.json() }
  },
  async refresh() {
    const before = await session.getTokenInfo(false)
    const after = await session.getTokenInfo(true)
    return { before: before.expiresAt, after: after.expiresAt, scope: after.scope }
  },
  signOut: () => session.signOut(),
}
