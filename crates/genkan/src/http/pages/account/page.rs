//! The page of an account.

use askama::Template;
use http::StatusCode;

use super::apps::{AppCard, app_card};
use super::email_section::EmailSection;
use super::owner::{known, visitors};
use super::sign_ins::{DeviceCard, device_card};
use crate::accounts::Standing;
use crate::base::query::escaped;
use crate::http::pages::Pages;
use crate::http::pages::call::Call;
use crate::http::pages::frame::{FormContext, Frame, Note};
use crate::http::pages::messages::Messages;
use crate::http::pages::reply::Reply;
use crate::http::pages::trouble::Trouble;
use crate::links::Visitor;
use crate::signin::{SignIn, Visit};

#[derive(Template)]
#[template(path = "pages/account.html")]
struct Account<'a> {
    f: Frame<'a>,
    context: FormContext,
    handle: &'a str,
    did: &'a str,
    /// The action that was just completed, for the message at the top.
    done: Option<&'a str>,
    others: Vec<Other>,
    /// Whether the account is deactivated, so that its owner may reactivate it.
    deactivated: bool,
    /// `None` for a linked account, whose address Genkan does not know.
    email: Option<EmailSection<'a>>,
    apps: Vec<AppCard>,
    /// Minutes for which an app can continue after it lost its access. `None` if it stops at once.
    minutes: Option<u64>,
    devices: Vec<DeviceCard>,
}

struct Other {
    did: String,
    handle: String,
}

/// The state of the forms on the page of an account.
pub(super) struct AccountForm {
    /// The open form for the e-mail address.
    pub(super) step: String,
    /// The new address as typed.
    pub(super) typed: String,
    pub(super) status: StatusCode,
    pub(super) problems: Vec<Note>,
}

/// `GET /account`: shows the account with the latest sign-in.
pub(in crate::http::pages) async fn first(pages: Pages, call: Call) -> Result<Reply, Trouble> {
    let visit = pages.known_visit(&call).await?;
    let signed_in = match &visit {
        Some(visit) => pages.app.sign_ins.signed_in(visit, None).await?,
        None => Vec::new(),
    };
    match signed_in.first() {
        Some(one) => pages.see_other(&format!("/account/u/{}", one.account.did)),
        None => match visitors(&pages, visit.as_ref()).await?.first() {
            Some(visitor) => pages.see_other(&format!("/account/u/{}", visitor.did)),
            None => pages.see_other("/account/sign-in"),
        },
    }
}

/// `GET /account/u/<did>`
pub(in crate::http::pages) async fn show(pages: Pages, call: Call) -> Result<Reply, Trouble> {
    // Browsers may percent-encode the colons of a DID.
    let did = call.uri.path().rsplit('/').next().unwrap_or_default().replace("%3A", ":");
    let Some((visit, signed_in)) = known(&pages, &call).await? else {
        return pages.see_other("/account/sign-in");
    };
    let (one, others): (Vec<SignIn>, Vec<SignIn>) =
        signed_in.into_iter().partition(|one| one.account.did.as_str() == did);
    let Some(one) = one.into_iter().next() else {
        return match visitors(&pages, Some(&visit)).await?.into_iter().find(|one| one.did.as_str() == did) {
            Some(visitor) => of_visitor(&pages, &call, &visit, &visitor, others).await,
            None => pages.see_other("/account/sign-in"),
        };
    };
    // The page changes credentials, so it asks for a recent sign-in.
    if !one.is_fresh(pages.app.clock.now()) {
        let handle = escaped(one.account.handle.as_str());
        return pages.see_other(&format!("/account/sign-in?handle={handle}"));
    }
    let step = call.parameter("step").unwrap_or_default();
    let shown = AccountForm { step, typed: String::new(), status: StatusCode::OK, problems: Vec::new() };
    of_one(&pages, &call, &visit, &one, others, shown).await
}

/// Shows the page of an account again, in its present state and with the mistakes in one of its
/// forms.
pub(super) async fn again(
    pages: &Pages,
    call: &Call,
    visit: &Visit,
    did: &str,
    shown: AccountForm,
) -> Result<Reply, Trouble> {
    let signed_in = pages.app.sign_ins.signed_in(visit, None).await?;
    let (one, others): (Vec<SignIn>, Vec<SignIn>) =
        signed_in.into_iter().partition(|one| one.account.did.as_str() == did);
    let one = one.first().ok_or(Trouble::NotSignedIn)?;
    of_one(pages, call, visit, one, others, shown).await
}

async fn of_one(
    pages: &Pages,
    call: &Call,
    visit: &Visit,
    one: &SignIn,
    others: Vec<SignIn>,
    shown: AccountForm,
) -> Result<Reply, Trouble> {
    let (app, account) = (&pages.app, &one.account);
    let did = account.did.as_str();
    let messages = Messages::of(call.jar.language());
    let grants = app.oauth.list_of(&account.did).await?;
    let devices = app.sign_ins.devices_of(&account.did).await?;
    // An earlier success is not shown together with a mistake.
    let done = if shown.problems.is_empty() { what_was_done(call, messages) } else { None };
    let page = Account {
        f: Frame::of(pages, messages).with(shown.problems),
        context: FormContext::of(pages, call, None),
        handle: account.handle.as_str(),
        did,
        done,
        others: all_others(others, visitors(pages, Some(visit)).await?),
        deactivated: account.standing() == Standing::Deactivated,
        email: Some(EmailSection::of(account, app.emails.is_on(), &shown.step, shown.typed)),
        apps: grants.into_iter().map(|grant| app_card(grant, messages)).collect(),
        minutes: Some(app.config.oauth.access_lifetime.as_secs().div_ceil(60)),
        devices: devices.iter().map(|device| device_card(device, visit, messages)).collect(),
    };
    Reply::page(shown.status, &page, pages.origin(), None)
}

/// Shows the page to a linked person. Their own server signs them in, so they have no other
/// browsers here.
async fn of_visitor(
    pages: &Pages,
    call: &Call,
    visit: &Visit,
    visitor: &Visitor,
    others: Vec<SignIn>,
) -> Result<Reply, Trouble> {
    let messages = Messages::of(call.jar.language());
    let grants = pages.app.oauth.list_of(&visitor.did).await?;
    let mut visitors = visitors(pages, Some(visit)).await?;
    visitors.retain(|other| other.did != visitor.did);
    let mut context = FormContext::of(pages, call, None);
    // Genkan cannot change the password of a linked account.
    context.reset_link.clear();
    let page = Account {
        f: Frame::of(pages, messages),
        context,
        handle: visitor.handle.as_deref().unwrap_or(visitor.did.as_str()),
        did: visitor.did.as_str(),
        done: what_was_done(call, messages),
        others: all_others(others, visitors),
        deactivated: false,
        email: None,
        apps: grants.into_iter().map(|grant| app_card(grant, messages)).collect(),
        minutes: None,
        devices: vec![DeviceCard {
            id: visit.device.as_str().to_owned(),
            name: messages.a_browser.to_owned(),
            seen: String::new(),
            here: true,
        }],
    };
    pages.show(&page, None)
}

fn what_was_done(call: &Call, messages: &'static Messages) -> Option<&'static str> {
    match call.parameter("done").as_deref() {
        Some("revoked") => Some(messages.revoked),
        Some("signed-out") => Some(messages.signed_out),
        Some("activated") => Some(messages.activated),
        Some("code-sent") => Some(messages.code_sent),
        Some("email-confirmed") => Some(messages.email_now_confirmed),
        Some("email-changed") => Some(messages.email_changed),
        _ => None,
    }
}

fn all_others(signed_in: Vec<SignIn>, visitors: Vec<Visitor>) -> Vec<Other> {
    let at_home = signed_in
        .into_iter()
        .map(|other| Other { did: other.account.did.to_string(), handle: other.account.handle.to_string() });
    let external = visitors.into_iter().map(|other| Other {
        handle: other.handle.unwrap_or_else(|| other.did.to_string()),
        did: other.did.to_string(),
    });
    at_home.chain(external).collect()
}
