//! What the pages are told of an authorization request, and what they tell.

use genkan_protocol::oauth::request::{Prompt, ResponseMode};
use genkan_protocol::oauth::scope::Scope;
use genkan_protocol::syntax::Did;

use crate::accounts::Account;
use crate::base::Secret;
use crate::oauth::clients::ClientView;
use crate::oauth::permission_sets::SetView;
use crate::oauth::sql::requests::Stored;
use crate::signin::DeviceId;

/// A request that a browser has opened. It is that browser's from now on.
#[derive(Clone, Debug)]
pub(crate) struct OpenRequest {
    /// The `req-…` of the request URI.
    pub(crate) id: String,
    pub(crate) client: ClientView,
    pub(crate) prompt: Option<Prompt>,
    /// The only account that may complete this request, as the client typed it: a handle or a DID in lower case.
    pub(crate) login_hint: Option<String>,
    /// As the client listed them, best first.
    pub(crate) ui_locales: Vec<String>,
    /// Where the form's answer will lead: an origin, or a private scheme with its colon. For `form-action`.
    pub(crate) form_action: String,
    /// The proof that it was opened here, and all that was asked for.
    pub(in crate::oauth) request: Stored,
    pub(in crate::oauth) device: DeviceId,
}

/// What to do with an opened request.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Show(Page),
    /// It is decided without a page.
    Redirect(Redirect),
}

/// The page that a request is at.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    /// Nobody is signed in that could complete it, or the password is wanted again.
    SignIn,
    /// The app asked for a new account; the page leads to sign-in too.
    SignUp,
    /// One of these, or another. Never empty.
    Choose(Vec<Choice>),
    Consent(Did),
    /// The account is deactivated; its owner may activate it, then comes consent.
    Reactivate(Did),
}

#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) account: Account,
    /// The sign-in is too old, or the app wants it again.
    pub(crate) needs_password: bool,
}

/// What consent is asked for.
#[derive(Clone, Debug)]
pub(crate) struct ConsentView {
    pub(crate) client: ClientView,
    pub(crate) did: Did,
    pub(crate) handle: String,
    /// In the order to show; `atproto` first.
    pub(crate) permissions: Vec<Permission>,
}

/// One scope value that the app asks for.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    /// The scope value itself: what a form sends back to [`approve`](crate::oauth::OAuth::approve).
    pub(crate) value: String,
    /// What it means.
    pub(crate) scope: Scope,
    /// This account has not granted it to this client before.
    pub(crate) new: bool,
    /// May be left out of the approval. `atproto` may not, nor what another server has granted already.
    pub(crate) optional: bool,
    /// What a permission set (`include:`) stands for.
    pub(crate) set: Option<SetView>,
}

/// The way back to the client, rendered by the pages.
#[derive(Clone)]
pub(crate) struct Redirect {
    /// As registered; existing query parameters stay.
    pub(crate) uri: String,
    pub(crate) mode: ResponseMode,
    /// In the order to be sent: `iss`, `state`, then `code` or `error` and `error_description`.
    pub(crate) parameters: Vec<(&'static str, Secret<String>)>,
}

impl std::fmt::Debug for Redirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redirect").field("uri", &self.uri).field("mode", &self.mode).finish_non_exhaustive()
    }
}
