//! `/account`: which apps and browsers have access, and taking it back; being active again after a pause.

use askama::Template;
use genkan_protocol::syntax::Did;
use http::StatusCode;

use super::call::{Call, Form};
use super::email::Section;
use super::frame::{FormContext, Frame, Note};
use super::messages::Messages;
use super::permissions::lines;
use super::reply::Reply;
use super::trouble::Trouble;
use super::{Pages, external};
use crate::accounts::Standing;
use crate::base::Timestamp;
use crate::base::query::escaped;
use crate::db::audit::Actor;
use crate::links::Visitor;
use crate::oauth::GrantView;
use crate::signin::{Device, SignIn, Visit};
use crate::standing;

#[derive(Template)]
#[template(path = "pages/account.html")]
struct Account<'a> {
    f: Frame<'a>,
    place: FormContext,
    handle: &'a str,
    did: &'a str,
    /// What was just done.
    done: Option<&'a str>,
    others: Vec<Other>,
    /// Its owner may activate it.
    deactivated: bool,
    /// None: its address is not ours to know.
    email: Option<Section<'a>>,
    apps: Vec<AppCard>,
    /// How long an app may go on after it lost its access. None: not at all.
    minutes: Option<u64>,
    devices: Vec<DeviceCard>,
}

struct Other {
    did: String,
    handle: String,
}

struct AppCard {
    id: String,
    host: String,
    name: Option<String>,
    since: String,
    may: Vec<String>,
}

struct DeviceCard {
    id: String,
    name: String,
    seen: String,
    here: bool,
}

/// How the page of an account is shown this time.
pub(super) struct AccountForm {
    /// Which of the forms for the e-mail address is open.
    pub(super) step: String,
    /// The new address, as it was typed.
    pub(super) typed: String,
    pub(super) status: StatusCode,
    pub(super) problems: Vec<Note>,
}

/// `GET /account`: the account that was signed in to last.
pub(super) async fn first(pages: Pages, call: Call) -> Result<Reply, Trouble> {
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
pub(super) async fn show(pages: Pages, call: Call) -> Result<Reply, Trouble> {
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
    if !one.is_fresh(pages.app.clock.now()) {
        let handle = escaped(one.account.handle.as_str());
        return pages.see_other(&format!("/account/sign-in?handle={handle}"));
    }
    let step = call.parameter("step").unwrap_or_default();
    let shown = AccountForm { step, typed: String::new(), status: StatusCode::OK, problems: Vec::new() };
    of_one(&pages, &call, &visit, &one, others, shown).await
}

/// The page of an account again, as it is now, with what is wrong in one of its forms.
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
    // What was done before is not told beside what is wrong now.
    let done = if shown.problems.is_empty() { what_was_done(call, messages) } else { None };
    let page = Account {
        f: Frame::of(pages, messages).with(shown.problems),
        place: FormContext::of(pages, call, None),
        handle: account.handle.as_str(),
        did,
        done,
        others: all_others(others, visitors(pages, Some(visit)).await?),
        deactivated: account.standing() == Standing::Deactivated,
        email: Some(Section::of(account, app.emails.is_on(), &shown.step, shown.typed)),
        apps: grants.into_iter().map(|grant| app_card(grant, messages)).collect(),
        minutes: Some(app.config.oauth.access_lifetime.as_secs().div_ceil(60)),
        devices: devices.into_iter().map(|device| device_card(device, visit, messages)).collect(),
    };
    Reply::page(shown.status, &page, pages.origin(), None)
}

/// The same for a linked person, whose server signs them in and who has no browsers here but this one.
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
    let mut place = FormContext::of(pages, call, None);
    // Its password is not ours to change.
    place.reset_link.clear();
    let page = Account {
        f: Frame::of(pages, messages),
        place,
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

async fn visitors(pages: &Pages, visit: Option<&Visit>) -> Result<Vec<Visitor>, Trouble> {
    match visit {
        Some(visit) => external::visitors(pages, visit).await,
        None => Ok(Vec::new()),
    }
}

/// An app loses its access.
pub(super) async fn revoke(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (_, did) = owner(&pages, &call, &form).await?;
    if !pages.app.oauth.end(&did, form.text("grant")).await? {
        return Err(Trouble::NotFound);
    }
    pages.see_other(&format!("/account/u/{did}?done=revoked"))
}

/// A browser is signed out: this one, or another of the account's.
pub(super) async fn sign_out(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (mut visit, did) = owner(&pages, &call, &form).await?;
    let device = form.text("device");
    if device == visit.device.as_str() {
        pages.app.links.end_visit(device, &did).await?;
        pages.app.sign_ins.sign_out(&mut visit, &did).await?;
        call.jar.keep(&visit);
        return pages.see_other("/account");
    }
    if !pages.app.sign_ins.sign_out_at(&device.into(), &did).await? {
        return Err(Trouble::NotFound);
    }
    pages.see_other(&format!("/account/u/{did}?done=signed-out"))
}

/// The owner of a deactivated account is back.
pub(super) async fn reactivate(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (visit, one) = at_home(&pages, &call, &form).await?;
    let did = one.account.did.as_str();
    match pages.app.standings.activate(&one.account.did, Actor::Account(did)).await {
        Ok(()) => pages.see_other(&format!("/account/u/{did}?done=activated")),
        Err(standing::Error::Storage(cause)) => Err(cause.into()),
        Err(cause) => {
            tracing::warn!(account.did = did, cause = %cause, "an account could not be activated");
            let note = Note::new("", Messages::of(call.jar.language()).reactivate_failed);
            let shown = AccountForm {
                step: String::new(),
                typed: String::new(),
                status: StatusCode::BAD_GATEWAY,
                problems: vec![note],
            };
            again(&pages, &call, &visit, did, shown).await
        }
    }
}

/// The same as [`owner`] where only an account that lives here will do.
pub(super) async fn at_home(pages: &Pages, call: &Call, form: &Form) -> Result<(Visit, SignIn), Trouble> {
    let (visit, signed_in) = known(pages, call).await?.ok_or(Trouble::NotSignedIn)?;
    let (did, now) = (form.text("did"), pages.app.clock.now());
    let one = signed_in.into_iter().find(|one| one.account.did.as_str() == did && one.is_fresh(now));
    Ok((visit, one.ok_or(Trouble::NotSignedIn)?))
}

/// The account that a form is about, if it is signed in here and not too long ago.
async fn owner(pages: &Pages, call: &Call, form: &Form) -> Result<(Visit, Did), Trouble> {
    let (visit, signed_in) = known(pages, call).await?.ok_or(Trouble::NotSignedIn)?;
    let (did, now) = (form.text("did"), pages.app.clock.now());
    let fresh = signed_in.into_iter().filter(|one| one.is_fresh(now)).map(|one| one.account.did);
    let visitors = external::visitors(pages, &visit).await?.into_iter().map(|visitor| visitor.did);
    let did = fresh.chain(visitors).find(|one| one.as_str() == did).ok_or(Trouble::NotSignedIn)?;
    Ok((visit, did))
}

async fn known(pages: &Pages, call: &Call) -> Result<Option<(Visit, Vec<SignIn>)>, Trouble> {
    let Some(visit) = pages.known_visit(call).await? else { return Ok(None) };
    let signed_in = pages.app.sign_ins.signed_in(&visit, None).await?;
    Ok(Some((visit, signed_in)))
}

fn app_card(GrantView { grant, client }: GrantView, messages: &'static Messages) -> AppCard {
    let since = messages.with(messages.since, day(grant.created_at));
    let used = messages.with(messages.last_used, day(grant.rotated_at));
    AppCard {
        host: client.host,
        id: grant.id,
        name: client.name,
        since: format!("{since}, {used}"),
        may: lines(&grant.scope, messages),
    }
}

fn device_card(device: Device, visit: &Visit, messages: &'static Messages) -> DeviceCard {
    let minute: String = device.seen_at.to_string().chars().take(16).collect();
    let seen = messages.with(messages.seen_at, format!("{} UTC", minute.replace('T', " ")));
    DeviceCard {
        here: device.id == visit.device,
        name: browser_of(&device.user_agent).unwrap_or_else(|| messages.a_browser.to_owned()),
        seen: format!("{seen}, {}", device.address),
        id: device.id.to_string(),
    }
}

fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// What a person would call the browser that says this of itself.
fn browser_of(user_agent: &str) -> Option<String> {
    // In this order: most of them claim to be those below, too.
    let program = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    let system = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let find = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, name)| *name)
    };
    match (find(&program), find(&system)) {
        (Some(program), Some(system)) => Some(format!("{program}, {system}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_called_by_their_names() {
        for (user_agent, expected) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
                Some("Firefox, Linux"),
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                Some("Safari, iPhone"),
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                Some("Edge, Windows"),
            ),
            ("curl/8.0", None),
            ("", None),
        ] {
            assert_eq!(browser_of(user_agent).as_deref(), expected, "{user_agent}");
        }
    }
}
