//! Steps that tests of pages take again and again.

use genkan_testing::{Answer, Browser, Page, PageForm};
use serde_json::Value;

use crate::accounts::Account;
use crate::db::audit::Actor;
use crate::http::testing::{PASSWORD, TestServer};

pub(super) const CLIENT: &str = "https://app.example.com/client.json";
pub(super) const WIDE: &str = "atproto transition:generic transition:email";

impl TestServer {
    /// Deactivates an account as if its owner had asked for it and the host had done it.
    pub(super) async fn deactivate(&self, account: &Account) {
        let (did, mut tx) = (&account.did, self.app.db.begin().await.unwrap());
        let actor = Actor::Account(did);
        assert!(self.app.accounts.set_deactivated(&mut tx, did, true, actor).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// Stores a request of [`CLIENT`] and returns the path to which it sends the browser.
    pub(super) async fn pushed(&self, change: Value) -> String {
        self.stored_request(CLIENT, change).await
    }

    /// A browser at the consent page for a request of [`CLIENT`].
    pub(super) async fn consent(&self, name: &str, change: Value) -> (Browser, Page) {
        let browser = self.browser();
        let page = self.at_consent(&browser, &self.pushed(change).await, name).await;
        (browser, page)
    }
}

pub(super) fn sign_in(page: &Page, name: &str) -> PageForm {
    page.form("/sign-in").with("identifier", name).with("password", PASSWORD)
}

pub(super) fn location(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{}", answer.transcript());
    answer.header("location")
}
