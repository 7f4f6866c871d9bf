// The example app's pages.

const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c])

const page = (title, main) => `<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>${title}</title>
<style>
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
main { max-width: 32rem; margin: 4rem auto; padding: 0 1rem }
input, button { font: inherit; padding: .5rem .75rem } input { width: 100%; box-sizing: border-box; margin: .25rem 0 1rem }
code { overflow-wrap: anywhere }
</style><main><h1>${title}</h1>${main}</main></html>`

export const frontPage = (genkan) => page('Postcard, an example app', `
<p>Sign in with an account on <em>any</em> PDS. You will be sent to your own server; this app gets a token of
<code>${escaped(genkan)}</code> and never sees your server's.</p>
<form method="post" action="/sign-in">
<label for="handle">Your handle</label>
<input id="handle" name="handle" placeholder="name.example.com" autocapitalize="none" spellcheck="false">
<button>Continue</button></form>`)

export const signedIn = (did) => page('Write a post', `
<p>You are <code>${escaped(did)}</code>.</p>
<form method="post" action="/post"><label for="text">Text</label>
<input id="text" name="text" required maxlength="300"><button>Post</button></form>
<form method="post" action="/sign-out"><p><button>Sign out</button></p></form>`)

export const posted = ({ uri, read }) => page('Posted', `
<p>It is at <code id="uri">${escaped(uri)}</code>, and anyone can read it there: “<span id="read">${escaped(read)}</span>”.</p>
<p><a href="/">Write another</a></p>`)

export const failed = (error) => page('That did not work', `
<p id="why">${escaped(error.cause?.error_description ?? error.error_description ?? error.message)}</p><p><a href="/">Start again</a></p>`)
