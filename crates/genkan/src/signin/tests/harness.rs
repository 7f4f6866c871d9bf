//! A world for tests of this room, with a manual clock.

use std::path::Path;
use std::time::Duration;

use genkan_protocol::syntax::Did;

use crate::accounts::testing::{add, new_account};
use crate::accounts::{Accounts, NewAccount, Passwords, Rank, Requester};
use crate::base::seal::Sealer;
use crate::base::{ManualClock, Secret, Timestamp, WaitingClient};
use crate::config::Config;
use crate::db::Db;
use crate::db::audit::Actor;
use crate::db::feed::Feed;
use crate::keys::Ring;
use crate::limits::{AttemptError, RateLimits};
use crate::signin::attempts::Admitted;
use crate::signin::{Attempt, Attempts, BrowserInfo, Cookies, Persistence, SignIns, Visit};
use crate::telemetry::metrics::Metrics;

pub(super) const PASSWORD: &str = "a password of their own";
pub(super) const BY: Requester = Requester::TRUSTED;

pub(super) struct SignInHarness {
    pub(super) db: Db,
    pub(super) sign_ins: SignIns,
    pub(super) passwords: Passwords,
    pub(super) accounts: Accounts,
    pub(super) clock: ManualClock,
}

impl SignInHarness {
    pub(super) fn new(db: Db) -> Self {
        let clock = ManualClock::at(Timestamp::from_seconds(1_000_000_000));
        let feed = Feed::new(db.clone());
        let accounts = Accounts::new(db.clone(), clock.clock(), &feed);
        let passwords = Passwords::new(1, 8);
        let key = [7; 32].into();
        let sign_ins = SignIns::new(db.clone(), clock.clock(), accounts.clone(), passwords.clone(), key);
        Self { db, sign_ins, passwords, accounts, clock }
    }

    pub(super) fn wait(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub(super) async fn sign_in(&self, visit: &mut Visit, did: &Did, keep: Persistence<'_>) {
        let account = self.accounts.find(did).await.unwrap().unwrap();
        self.sign_ins.sign_in(visit, &account, keep).await.unwrap();
    }

    pub(super) async fn account(&self, name: &str) -> Did {
        let password_hash = self.passwords.hash(&secret(PASSWORD), BY).await.unwrap();
        let account = NewAccount { password_hash, ..new_account(name) };
        add(&self.db, &account).await.unwrap();
        account.did
    }

    pub(super) async fn take_down(&self, did: &Did) {
        let mut tx = self.db.begin().await.unwrap();
        let done = self.accounts.set_taken_down(&mut tx, did, Some("T-1"), Actor::Operator).await;
        assert!(done.unwrap());
        tx.commit().await.unwrap();
    }

    pub(super) async fn visit(&self, cookies: Option<&Cookies>) -> Visit {
        self.sign_ins.visit(cookies, &seen("192.0.2.1")).await.unwrap()
    }

    pub(super) async fn attempts(&self) -> Attempts {
        let clock = self.clock.clock();
        let ring = Ring::open(&self.db, &clock, Sealer::new(&secret_key()), None).await.unwrap();
        let rates = [("GENKAN_RATE_LIMITS_ENABLED", "true"), ("GENKAN_RATE_SIGN_IN_ACCOUNT", "8/15m")];
        let config = Config::for_tests_with(Path::new("/nowhere"), &rates);
        Attempts::new(self.db.clone(), clock, RateLimits::new(&config, &Metrics::default()), &ring)
    }

    /// An attempt of this browser from an address without sign-ins. `None` if a limit refuses it.
    pub(super) async fn attempt(
        &self,
        attempts: &Attempts,
        visit: Option<&Visit>,
        did: &Did,
    ) -> Option<Admitted> {
        let account = self.accounts.find(did).await.unwrap();
        let client = [192, 0, 2, 200].into();
        let attempt = Attempt { account: account.as_ref(), identifier: "", client, browser: visit };
        match attempts.admit(&attempt).await {
            Ok(admitted) => Some(admitted),
            Err(AttemptError::OverLimit(_)) => None,
            Err(AttemptError::Storage(cause)) => panic!("{cause}"),
        }
    }

    /// The rank of an attempt of this browser, from an address without sign-ins.
    pub(super) async fn rank(&self, visit: &Visit, did: &Did) -> Rank {
        self.attempt(&self.attempts().await, Some(visit), did).await.unwrap().requester.rank
    }

    pub(super) async fn dids(&self, visit: &Visit, request: Option<&str>) -> Vec<String> {
        let found = self.sign_ins.signed_in(visit, request).await.unwrap();
        found.into_iter().map(|one| one.account.did.to_string()).collect()
    }
}

pub(super) fn seen(address: &str) -> BrowserInfo {
    seen_by(WaitingClient::default(), address)
}

pub(super) fn seen_by(client: WaitingClient, address: &str) -> BrowserInfo {
    BrowserInfo { address: address.parse().unwrap(), user_agent: "Firefox".to_owned(), client }
}

fn secret_key() -> Secret<[u8; 32]> {
    Secret::new([4; 32])
}

pub(super) fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}
