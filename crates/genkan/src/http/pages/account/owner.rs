//! The account that a request to the account pages may act for.

use genkan_protocol::syntax::Did;

use crate::http::pages::call::{Call, Form};
use crate::http::pages::trouble::Trouble;
use crate::http::pages::{Pages, external};
use crate::links::Visitor;
use crate::signin::{SignIn, Visit};

/// Returns the home account of a form, if its sign-in in this browser is recent enough.
pub(super) async fn at_home(pages: &Pages, call: &Call, form: &Form) -> Result<(Visit, SignIn), Trouble> {
    let (visit, signed_in) = known(pages, call).await?.ok_or(Trouble::NotSignedIn)?;
    let (did, now) = (form.text("did"), pages.app.clock.now());
    let one = signed_in.into_iter().find(|one| one.account.did.as_str() == did && one.is_fresh(now));
    Ok((visit, one.ok_or(Trouble::NotSignedIn)?))
}

/// Returns the account of a form, if its sign-in in this browser is recent enough.
pub(super) async fn owner(pages: &Pages, call: &Call, form: &Form) -> Result<(Visit, Did), Trouble> {
    let (visit, signed_in) = known(pages, call).await?.ok_or(Trouble::NotSignedIn)?;
    let (did, now) = (form.text("did"), pages.app.clock.now());
    let fresh = signed_in.into_iter().filter(|one| one.is_fresh(now)).map(|one| one.account.did);
    let visitors = external::visitors(pages, &visit).await?.into_iter().map(|visitor| visitor.did);
    let did = fresh.chain(visitors).find(|one| one.as_str() == did).ok_or(Trouble::NotSignedIn)?;
    Ok((visit, did))
}

/// Returns the accounts that are signed in to this browser, or `None` if the browser is unknown.
pub(super) async fn known(pages: &Pages, call: &Call) -> Result<Option<(Visit, Vec<SignIn>)>, Trouble> {
    let Some(visit) = pages.known_visit(call).await? else { return Ok(None) };
    let signed_in = pages.app.sign_ins.signed_in(&visit, None).await?;
    Ok(Some((visit, signed_in)))
}

/// Returns the linked accounts whose apps are managed in this browser.
pub(super) async fn visitors(pages: &Pages, visit: Option<&Visit>) -> Result<Vec<Visitor>, Trouble> {
    match visit {
        Some(visit) => external::visitors(pages, visit).await,
        None => Ok(Vec::new()),
    }
}
