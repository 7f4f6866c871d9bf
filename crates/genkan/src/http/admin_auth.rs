//! Administrative calls: `Authorization: Basic admin:<password>`.
//!
//! The operator's own password opens everything; a host's password, which hosts pass on for two
//! calls, opens those for accounts on that host.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::accounts::Account;
use crate::app::App;
use crate::base::Secret;
use crate::db::audit::Actor;
use crate::http::error::{XrpcError, bad_request, unauthorized};

/// The operator, or nobody.
pub(crate) fn require_admin(app: &App, headers: &HeaderMap) -> Result<(), XrpcError> {
    let given = password(headers)?;
    match &app.config.keys.admin_password {
        Some(known) if same(known, &given) => Ok(()),
        _ => Err(refused()),
    }
}

/// The operator, or the host that keeps the account. Only the operator learns which accounts there are.
pub(crate) fn require_admin_or_host(
    app: &App,
    headers: &HeaderMap,
    account: Option<Account>,
) -> Result<(Account, By), XrpcError> {
    let given = password(headers)?;
    if app.config.keys.admin_password.as_ref().is_some_and(|known| same(known, &given)) {
        let account = account.ok_or_else(|| bad_request("NotFound", "Account not found"))?;
        return Ok((account, By::Operator));
    }
    let account = account.ok_or_else(refused)?;
    let host = app.fleet.host(&account.host).filter(|host| same(&host.admin_password, &given));
    if host.is_some() { Ok((account, By::Host)) } else { Err(refused()) }
}

/// Whose password opened the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Operator,
    /// The host that keeps the account.
    Host,
}

impl By {
    pub(crate) fn actor(self, account: &Account) -> Actor<'_> {
        match self {
            Self::Operator => Actor::Operator,
            Self::Host => Actor::Host(account.host.as_str()),
        }
    }
}

fn password(headers: &HeaderMap) -> Result<Secret<String>, XrpcError> {
    let value =
        headers.get(AUTHORIZATION).ok_or_else(|| unauthorized("AuthMissing", "Authentication Required"))?;
    let text = value.to_str().map_err(|_| refused())?;
    let encoded = match text.split_once(' ') {
        Some((scheme, encoded)) if scheme.eq_ignore_ascii_case("basic") => encoded.trim(),
        _ => return Err(refused()),
    };
    let decoded =
        STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(refused)?;
    match decoded.split_once(':') {
        Some(("admin", password)) => Ok(Secret::new(password.to_owned())),
        _ => Err(refused()),
    }
}

/// In constant time, whatever the lengths.
fn same(known: &Secret<String>, given: &Secret<String>) -> bool {
    let digest = |secret: &Secret<String>| -> [u8; 32] { Sha256::digest(secret.expose().as_bytes()).into() };
    !known.expose().is_empty() && bool::from(digest(known).ct_eq(&digest(given)))
}

fn refused() -> XrpcError {
    unauthorized("AuthenticationRequired", "Administrator's password required")
}
