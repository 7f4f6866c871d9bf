//! What the pages learn of an authorization request, and what they answer.

use genkan_protocol::oauth::request::{Prompt, ResponseMode};
use genkan_protocol::oauth::scope::Scope;
use genkan_protocol::syntax::Did;

use crate::accounts::Account;
use crate::base::{Secret, WaitingClient};
use crate::oauth::clients::ClientView;
use crate::oauth::ids::RequestUri;
use crate::oauth::permission_sets::SetView;
use crate::oauth::sql::requests::StoredRequest;
use crate::signin::DeviceId;

/// A request that a browser has opened and owns.
#[derive(Clone, Debug)]
pub(crate) struct OpenRequest {
    pub(crate) uri: RequestUri,
    pub(crate) client: ClientView,
    pub(crate) prompt: Option<Prompt>,
    /// The only account that may complete this request, as the client named it: a handle or a DID
    /// in lower case.
    pub(crate) login_hint: Option<String>,
    /// The languages that the client listed, best first.
    pub(crate) ui_locales: Vec<String>,
    /// The `form-action` source of the client's redirect: an origin, or a private-use scheme with
    /// its colon.
    pub(crate) form_action: String,
    /// The stored request. Holding it proves that it was opened here.
    pub(in crate::oauth) request: StoredRequest,
    pub(in crate::oauth) device: DeviceId,
    /// The browser. Nothing is approved for one that does not wait: it could not come back to the
    /// client with the code.
    pub(crate) browser: WaitingClient,
}

/// What to do with an opened request.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Show(Page),
    /// The request is decided without a page.
    Redirect(Redirect),
}

/// The page that a request needs.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    /// No signed-in account can complete it, or the password is required again.
    SignIn,
    /// The app asked for a new account. The page links to the sign-in too.
    SignUp,
    /// One of these accounts, or another. Never empty.
    Choose(Vec<Choice>),
    Consent(Did),
    /// The account is deactivated. Its owner may reactivate it, and then consent follows.
    Reactivate(Did),
}

#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) account: Account,
    /// Whether the sign-in is too old, or the app demands a new one.
    pub(crate) needs_password: bool,
}

/// What consent is asked for.
#[derive(Clone, Debug)]
pub(crate) struct ConsentView {
    pub(crate) client: ClientView,
    pub(crate) did: Did,
    pub(crate) handle: String,
    /// In the order of the page, `atproto` first.
    pub(crate) permissions: Vec<Permission>,
}

/// One scope value that the app requests.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    /// The scope value as a form sends it back to [`approve`](crate::oauth::OAuth::approve).
    pub(crate) value: String,
    /// The parsed scope value.
    pub(crate) scope: Scope,
    /// Whether this account has not granted it to this client before.
    pub(crate) new: bool,
    /// Whether the approval may leave it out. `atproto` is required, and so is what another server
    /// has already granted.
    pub(crate) optional: bool,
    /// The contents of a permission set (`include:`).
    pub(crate) set: Option<SetView>,
}

/// The redirect back to the client, which the pages render.
#[derive(Clone)]
pub(crate) struct Redirect {
    /// The registered URI. Its query parameters stay.
    pub(crate) uri: String,
    pub(crate) mode: ResponseMode,
    /// In the order of sending: `iss`, `state`, then `code` or `error` and `error_description`.
    pub(crate) parameters: Vec<(&'static str, Secret<String>)>,
}

impl std::fmt::Debug for Redirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redirect").field("uri", &self.uri).field("mode", &self.mode).finish_non_exhaustive()
    }
}
