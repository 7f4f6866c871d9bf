//! Browsers that an account is signed in to: listing and signing out.

use super::owner::owner;
use crate::http::pages::Pages;
use crate::http::pages::call::{Call, Form};
use crate::http::pages::messages::Messages;
use crate::http::pages::reply::Reply;
use crate::http::pages::trouble::Trouble;
use crate::signin::{Device, Visit};

/// A browser on the account page.
pub(super) struct DeviceCard {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) seen: String,
    pub(super) here: bool,
}

/// Signs out this browser or another one of the account's.
pub(in crate::http::pages) async fn sign_out(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let (mut visit, did) = owner(&pages, &call, &form).await?;
    let device = form.text("device");
    if device == visit.device.as_str() {
        // An account of an external PDS is signed in by a visit, a home account by a device. One of
        // the two calls finds nothing.
        pages.app.links.end_visit(device, &did).await?;
        pages.app.sign_ins.sign_out(&mut visit, &did).await?;
        call.jar.keep(&visit);
        return pages.see_other("/account");
    }
    if !pages.app.sign_ins.sign_out_at(&device.into(), &did).await? {
        // The id may belong to another account's browser. The answer is the same as for an unknown
        // one.
        return Err(Trouble::NotFound);
    }
    pages.see_other(&format!("/account/u/{did}?done=signed-out"))
}

pub(super) fn device_card(device: &Device, visit: &Visit, messages: &'static Messages) -> DeviceCard {
    // To the minute, in UTC: without scripts the page does not know the person's time zone.
    let minute: String = device.seen_at.to_string().chars().take(16).collect();
    let seen = messages.with(messages.seen_at, format!("{} UTC", minute.replace('T', " ")));
    DeviceCard {
        here: device.id == visit.device,
        name: browser_of(&device.user_agent).unwrap_or_else(|| messages.a_browser.to_owned()),
        seen: format!("{seen}, {}", device.address),
        id: device.id.to_string(),
    }
}

/// Returns the name by which a person knows the browser with this user agent.
fn browser_of(user_agent: &str) -> Option<String> {
    // The order matters: most of these also claim to be those further down.
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
