//! The e-mail address on the account page, by codes; and the end of a pause.

use std::time::Duration;

use genkan_testing::{Browser, FakeDirectory, FakeHost, Page, Trouble};

use super::steps::sign_in;
use crate::accounts::testing::new_account;
use crate::accounts::{NewAccount, Standing};
use crate::fleet::testing::add_host;
use crate::http::testing::TestServer;
use crate::mail::testing::MailFolder;

/// A server whose mail goes to a folder.
struct MailServer {
    server: TestServer,
    folder: MailFolder,
}

impl MailServer {
    async fn start() -> Self {
        let folder = MailFolder::new();
        Self { server: TestServer::start(&folder.settings()).await, folder }
    }

    /// Hands over what waits, and takes the emails out of the folder.
    async fn emails(&self) -> Vec<String> {
        self.server.app.mail.post_due().await.unwrap();
        self.folder.take_emails()
    }

    /// The code in the one email that came, which is to `email`.
    async fn code(&self, email: &str) -> String {
        let emails = self.emails().await;
        assert_eq!(emails.len(), 1, "{emails:?}");
        assert!(emails[0].contains(&format!("To: {email}")), "{}", emails[0]);
        let is_code = |line: &&str| line.len() == 11 && line.as_bytes()[5] == b'-' && !line.contains(' ');
        emails[0].lines().map(str::trim).find(is_code).expect("a line with a code").to_owned()
    }
}

async fn at_account(server: &TestServer, name: &str) -> (Browser, Page) {
    let browser = server.browser();
    let page = browser.open("/account/sign-in").await;
    let page = browser.send(&sign_in(&page, name)).await;
    assert_eq!(page.heading(), "Your account", "{}", page.html());
    (browser, page)
}

#[tokio::test]
async fn an_address_is_confirmed_by_code() {
    let mail = MailServer::start().await;
    let ann = mail.server.account("ann").await;
    let (browser, page) = at_account(&mail.server, "ann").await;
    assert!(page.says("ann@example.com") && page.says("Not confirmed yet"));
    let page = browser.send(&page.form("/email/code")).await;
    assert!(page.says("sent a code to your email address") && page.redirects == 1);
    assert!(!page.path.contains("example.com"), "no address in an address: {}", page.path);
    assert_eq!(browser.open(&page.path).await.html(), page.html(), "the step survives a reload");
    let code = mail.code("ann@example.com").await;

    let form = page.form("/email/confirm");
    let none = browser.send(&form).await;
    assert!(none.answer.status == 400 && none.says("Enter the code") && none.says("href=\"#code\""));
    let wrong = browser.send(&form.clone().with("code", "AAAAA-BBBBB")).await;
    assert!(wrong.answer.status == 400 && wrong.says("wrong or has expired"));
    assert!(wrong.says("aria-invalid=\"true\" aria-describedby=\"code-problem code-hint\""));
    assert!(!wrong.says("AAAAA-BBBBB"), "what was typed as a code is not sent back");

    let page = browser.send(&wrong.form("/email/confirm").with("code", &code.to_lowercase())).await;
    assert!(page.says("Your email address is confirmed.") && page.says("Confirmed"), "{}", page.html());
    assert!(!page.path.contains(&code) && !page.says("Not confirmed yet"));
    assert!(mail.server.app.accounts.find(&ann.did).await.unwrap().unwrap().email_confirmed_at.is_some());
    assert!(page.forms().iter().all(|form| !form.action.contains("email")), "nothing is left to do");
}

#[tokio::test]
async fn an_address_is_changed_with_a_code_from_the_one_before_once_that_is_confirmed() {
    let mail = MailServer::start().await;
    let ann = mail.server.account("ann").await;
    mail.server.account("bob").await;
    let (browser, page) = at_account(&mail.server, "ann").await;

    // Not confirmed yet: no code.
    let page = browser.open(&page.link("Change address")).await;
    let form = page.form("/email/change");
    assert!(form.fields.iter().all(|(name, _)| name != "code"));
    for (typed, told) in
        [("no address", "Enter a valid email address"), ("Bob@example.com", "Another account already uses")]
    {
        let page = browser.send(&form.clone().with("email", typed)).await;
        assert!(page.answer.status == 400 && page.says(told) && page.says("href=\"#email\""), "{typed}");
        assert_eq!(page.form("/email/change").text("email"), typed);
    }
    let page = browser.send(&form.with("email", "ann@second.example")).await;
    assert!(page.says("Your email address has been changed.") && page.says("ann@second.example"));
    assert!(page.says("Not confirmed yet") && !page.path.contains("second"));

    let page = browser.send(&page.form("/email/code")).await;
    let code = mail.code("ann@second.example").await;
    let page = browser.send(&page.form("/email/confirm").with("code", &code)).await;

    // Confirmed now: a code from there.
    let page = browser.open(&page.link("Change address")).await;
    let form = page.form("/email/change").with("email", "ann@third.example");
    let refused = browser.send(&form).await;
    assert!(refused.answer.status == 400 && refused.says("Enter the code") && refused.says("href=\"#code\""));
    let page = browser.send(&page.form("/email/code")).await;
    let code = mail.code("ann@second.example").await;
    let refused = browser.send(&form.clone().with("code", "AAAAA-BBBBB")).await;
    assert!(refused.answer.status == 400 && refused.says("wrong or has expired"));
    let form = page.form("/email/change").with("email", "ann@third.example").with("code", &code);
    let page = browser.send(&form).await;
    assert!(page.says("Your email address has been changed.") && page.says("Not confirmed yet"));
    let ann = mail.server.app.accounts.find(&ann.did).await.unwrap().unwrap();
    assert_eq!((ann.email.as_deref(), ann.email_confirmed_at), (Some("ann@third.example"), None));
}

#[tokio::test]
async fn only_its_owner_who_signed_in_not_long_ago_may() {
    let mail = MailServer::start().await;
    let ann = mail.server.account("ann").await;
    mail.server.account("bob").await;
    let (browser, page) = at_account(&mail.server, "bob").await;
    let change = browser.open(&page.link("Change address")).await;
    let code = browser.open(&page.link("I have a code")).await;
    let forms = [
        page.form("/email/code"),
        code.form("/email/confirm").with("code", "AAAAA-BBBBB"),
        change.form("/email/change").with("email", "bob@second.example"),
    ];
    for form in &forms {
        let (of_ann, forged) = (form.clone().with("did", ann.did.as_str()), form.clone().with("csrf", "0"));
        assert_eq!(browser.send(&of_ann).await.answer.status, 401, "{}", form.action);
        assert_eq!(browser.send(&forged).await.answer.status, 400, "{}", form.action);
        let foreign = browser.post(form, &[("origin", "https://evil.example")]).await;
        assert_eq!(foreign.status, 400, "{}", form.action);
        let reloaded = browser.open(&form.action).await;
        assert_eq!(reloaded.heading(), "Your account", "a reload of the answer");
    }
    mail.server.clock.advance(Duration::from_hours(8 * 24));
    for form in &forms {
        assert_eq!(browser.send(form).await.answer.status, 401, "{}", form.action);
    }
    assert_eq!(mail.emails().await, [""; 0]);
}

#[tokio::test]
async fn codes_are_limited_as_they_are_for_clients() {
    let mail = MailServer::start().await;
    mail.server.account("ann").await;
    let (browser, page) = at_account(&mail.server, "ann").await;
    let form = page.form("/email/code");
    for _ in 0..5 {
        assert_eq!(browser.send(&form).await.answer.status, 200);
    }
    let answer = browser.send(&form).await.answer;
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn without_mail_the_page_says_so_and_has_no_button_for_it() {
    let server = TestServer::start(&[]).await;
    server.account("ann").await;
    let (browser, page) = at_account(&server, "ann").await;
    assert!(page.says("send email, so you") && page.says("ann@example.com"));
    let page = browser.open(&format!("{}?step=confirm", page.path)).await;
    assert!(page.forms().iter().all(|form| !form.action.contains("email")));
    let page = browser.open(&page.link("Change address")).await;
    assert!(page.forms().iter().all(|form| !form.action.ends_with("/email/code")));
    let page = browser.send(&page.form("/email/change").with("email", "ann@second.example")).await;
    assert!(page.says("Your email address has been changed."));
}

#[tokio::test]
async fn a_deactivated_account_is_activated_from_its_page() {
    for (trouble, status) in [(None, 200), (Some(Trouble::Status(500)), 502)] {
        let server = TestServer::start(&[]).await;
        let (directory, host) = (FakeDirectory::start().await, FakeHost::start("admin word").await);
        host.configure(&format!("PDS_DID_PLC_URL={}", directory.url()));
        if let Some(trouble) = trouble {
            host.trouble("com.atproto.admin.updateSubjectStatus", trouble);
        }
        add_host(&server.app.fleet, "oak", &host).await;
        let did = host.make_account(&directory, "ann.test", server.app.ring.rotation());
        let ann = server.add_account(NewAccount { did, ..new_account("ann") }).await;

        let (browser, page) = at_account(&server, "ann").await;
        assert!(page.forms().iter().all(|form| form.action != "/account/reactivate"), "it is active");
        server.deactivate(&ann).await;
        let page = browser.open("/account").await;
        assert!(page.says("Your account is deactivated"));
        let page = browser.send(&page.form("/reactivate")).await;
        assert_eq!(page.answer.status, status, "{}", page.html());
        let done = status == 200;
        assert_eq!(page.says("Your account is active again."), done);
        assert_eq!(page.says("reactivate your account. Try again"), !done);
        assert_eq!(page.says("Your account is deactivated"), !done);
        let standing = server.app.accounts.find(&ann.did).await.unwrap().unwrap().standing();
        assert_eq!(standing == Standing::Active, done);
    }
}
