//! Attempts to sign in: how they are counted, and from where an account is known.
//!
//! Every door that checks an account's password asks [`Attempts::admit`] first. An attempt counts
//! by address, by account and address, and by account. An address or browser that signed in to the
//! account in the last 30 days, or is signed in, has an allowance of its own, so guesses from elsewhere
//! do not lock the owner out.

use std::net::IpAddr;
use std::time::Duration;

use data_encoding::HEXLOWER;
use genkan_protocol::syntax::Did;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::sql::addresses;
use super::{DeviceId, Visit, sql};
use crate::accounts::{Account, Rank, Requester};
use crate::base::{Clock, Timestamp};
use crate::db::sweep::{Batch, SweepRange};
use crate::db::{self, Db, Tx};
use crate::keys::Ring;
use crate::limits::{
    AttemptError, ClientNetwork, Limit, RateLimits, account_and_address, address, name_of, sites,
};

/// An attempt to sign in, before the password is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    /// The account that the identifier names, if there is one.
    pub(crate) account: Option<&'a Account>,
    /// As typed.
    pub(crate) identifier: &'a str,
    pub(crate) client: IpAddr,
    /// The browser, on the pages.
    pub(crate) browser: Option<&'a Visit>,
}

/// An attempt that is within its limits. The password may be checked.
#[must_use = "tell `Attempts` how it ended"]
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) requester: Requester,
    network: ClientNetwork,
    /// The account as the limits name it.
    name: String,
    did: Option<Did>,
    /// When the address last signed in to the account.
    known_at: Option<Timestamp>,
    /// What was counted, and when.
    counted: Vec<(Limit, String)>,
    at: Timestamp,
}

/// Counts attempts to sign in, and knows from where accounts were signed in to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Attempts {
    db: Db,
    clock: Clock,
    limits: RateLimits,
    /// Addresses are stored as keyed hashes.
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attempts")
    }
}

impl Attempts {
    pub(crate) fn new(db: Db, clock: Clock, limits: RateLimits, ring: &Ring) -> Self {
        Self { db, clock, limits, key: ring.derived("known addresses") }
    }

    /// Counts an attempt before the password is checked, so that attempts at the same time cannot
    /// exceed a limit.
    pub(crate) async fn admit(&self, attempt: &Attempt<'_>) -> Result<Admitted, AttemptError> {
        let network = ClientNetwork::of(attempt.client);
        let did = attempt.account.map(|account| account.did.clone());
        let name = name_of(did.as_ref().map(Did::as_str), attempt.identifier);
        let known_at = match &did {
            Some(did) => addresses::seen_at(&self.db, did, &self.hash(network)).await?,
            None => None,
        };
        let browser = match (attempt.browser, &did) {
            // An attacker has no such browser, and so cannot use up its count.
            (Some(visit), Some(did)) if !visit.is_older => {
                let is_known = self.knows_device(did, &visit.device).await?;
                is_known.then(|| format!("{} {did}", visit.device.as_str()))
            }
            _ => None,
        };
        let now = self.clock.now();
        let is_known_address = known_at.is_some_and(|at| now.since(at) <= KNOWN_FOR);
        let is_known = browser.is_some() || is_known_address;
        let mut counted = Vec::with_capacity(6);
        if let Some(browser) = browser {
            counted.push((Limit::SignInAccount, browser));
        } else {
            // The address first. Those that it refuses do not count against the account.
            if !is_known_address {
                counted.push((Limit::SignInAddress, address(attempt.client)));
                if let Some([site, customer]) = sites(attempt.client) {
                    counted.push((Limit::SignInSite, site));
                    counted.push((Limit::SignInCustomer, customer));
                }
            }
            // The allowance of a known address, and limits for any other.
            let pair = account_and_address(&name, attempt.client);
            counted.push((Limit::CreateSession, pair.clone()));
            counted.push((Limit::SignInAccount, pair));
            if !is_known_address {
                counted.push((Limit::SignInAccount, name.clone()));
            }
        }
        self.limits.attempt_all(&self.db, &counted, now).await?;
        let rank = if is_known {
            Rank::Known
        } else if self.limits.has_wrong_passwords(&name, network, now) {
            Rank::Suspect
        } else {
            Rank::Ordinary
        };
        let requester = Requester { rank, client: Some(network) };
        Ok(Admitted { requester, network, name, did, known_at, counted, at: now })
    }

    /// Records that the password was wrong. Further attempts come later in the queue for hashing.
    pub(crate) fn failed(&self, admitted: &Admitted) {
        self.limits.count_wrong_password(&admitted.name, admitted.network, self.clock.now());
    }

    /// Records that the account was signed in to from this address. A failure is logged only: the
    /// sign-in is good.
    pub(crate) async fn succeeded(&self, admitted: &Admitted) {
        let Some(did) = &admitted.did else { return };
        let now = self.clock.now();
        // One write a day: sign-ins of an app with a server must not write each time.
        if admitted.known_at.is_some_and(|at| now.since(at) < NOTE_EVERY) {
            return;
        }
        if let Err(cause) = self.store(did, &self.hash(admitted.network), now).await {
            let cause = &cause as &dyn std::error::Error;
            tracing::warn!(account.did = did.as_str(), cause, "the address of a sign-in was not recorded");
        }
    }

    /// Records that the account was signed in to in this browser. It stays known when the sign-in has
    /// ended, and at other addresses.
    pub(crate) async fn succeeded_in(&self, admitted: &Admitted, visit: &Visit) {
        self.succeeded(admitted).await;
        if let Some(did) = &admitted.did {
            self.note_browser(did, visit).await;
        }
    }

    /// Records the browser in which an account was created or signed in to. A failure is logged only.
    pub(crate) async fn note_browser(&self, did: &Did, visit: &Visit) {
        if let Err(cause) = self.store(did, &self.hash_of_device(&visit.device), self.clock.now()).await {
            let cause = &cause as &dyn std::error::Error;
            tracing::warn!(account.did = did.as_str(), cause, "the browser of a sign-in was not recorded");
        }
    }

    /// Takes back what an attempt counted, for a repeated sign-up by its owner: a client repeats it
    /// until the account is there, and may sign in afterwards.
    pub(crate) async fn take_back(&self, admitted: &Admitted) -> db::Result<()> {
        self.limits.take_back(&self.db, &admitted.counted, admitted.at).await
    }

    async fn store(&self, did: &Did, hash: &str, now: Timestamp) -> db::Result<()> {
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            addresses::put(&mut tx, did, hash, now).await?;
            addresses::trim(&mut tx, did, MOST_ADDRESSES).await?;
            tx.commit().await
        })
        .await
    }

    /// Records the address from which an account is created, as part of `tx`.
    pub(crate) async fn note_sign_up(&self, tx: &mut Tx, did: &Did, client: IpAddr) -> db::Result<()> {
        addresses::put(tx, did, &self.hash(ClientNetwork::of(client)), self.clock.now()).await
    }

    /// Whether the account was created or signed in to from this address in the last 30 days.
    pub(crate) async fn knows_address(&self, did: &Did, client: IpAddr) -> db::Result<bool> {
        let seen = addresses::seen_at(&self.db, did, &self.hash(ClientNetwork::of(client))).await?;
        Ok(seen.is_some_and(|at| self.clock.now().since(at) <= KNOWN_FOR))
    }

    /// Removes the addresses of an account that is deleted, as part of `tx`.
    pub(crate) async fn forget(&self, tx: &mut Tx, did: &Did) -> db::Result<()> {
        addresses::forget(tx, did).await
    }

    /// Whether the account is signed in in this browser, or was signed in to in the last 30 days.
    async fn knows_device(&self, did: &Did, device: &DeviceId) -> db::Result<bool> {
        if sql::is_on(self.db.reader(), device, did).await? {
            return Ok(true);
        }
        let seen = addresses::seen_at(&self.db, did, &self.hash_of_device(device)).await?;
        Ok(seen.is_some_and(|at| self.clock.now().since(at) <= KNOWN_FOR))
    }

    /// With a key, because all IPv4 addresses can be hashed in minutes.
    fn hash(&self, network: ClientNetwork) -> String {
        self.hash_of(&network.to_string())
    }

    /// No address begins in this way, so browsers and addresses can be in one table.
    fn hash_of_device(&self, device: &DeviceId) -> String {
        self.hash_of(&format!("device {}", device.as_str()))
    }

    fn hash_of(&self, text: &str) -> String {
        let digest = Sha256::new().chain_update(*self.key).chain_update(text).finalize();
        HEXLOWER.encode(digest.get(..16).unwrap_or(&digest))
    }
}

/// Removes a batch of addresses that were last seen too long ago.
pub(crate) async fn sweep_addresses(db: &Db, range: SweepRange) -> db::Result<Batch> {
    addresses::sweep(db, range.keeping(KNOWN_FOR)).await
}

/// How long an address or a browser is known after its last sign-in.
pub(super) const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);
/// How often the sign-ins from an address are recorded.
const NOTE_EVERY: Duration = Duration::from_hours(24);
/// How many addresses and browsers of an account are known. The oldest goes first.
const MOST_ADDRESSES: i64 = 50;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::accounts::Accounts;
    use crate::accounts::testing::{add, new_account};
    use crate::base::seal::Sealer;
    use crate::base::{ManualClock, Secret};
    use crate::config::Config;
    use crate::db::feed::Feed;
    use crate::db::on_each_database;
    use crate::telemetry::metrics::Metrics;

    on_each_database!(
        guesses_from_many_addresses_are_bounded_and_lock_no_known_address_out,
        one_address_tries_a_few_accounts_only,
        one_ipv6_customer_tries_a_few_accounts_only,
        all_names_of_an_account_count_together,
        wrong_passwords_move_strangers_back_in_the_queue,
        an_address_is_known_for_thirty_days,
        an_account_knows_its_latest_addresses,
    );

    struct AttemptHarness {
        db: Db,
        attempts: Attempts,
        accounts: Accounts,
        clock: ManualClock,
    }

    impl AttemptHarness {
        async fn new(db: Db) -> Self {
            let hand = ManualClock::at(Timestamp::from_seconds(1_000_000_000));
            let clock = hand.clock();
            let ring = Ring::open(&db, &clock, Sealer::new(&Secret::new([4; 32])), None).await.unwrap();
            let rates = [
                ("GENKAN_RATE_LIMITS_ENABLED", "true"),
                ("GENKAN_RATE_CREATE_SESSION", "6/5m"),
                ("GENKAN_RATE_SIGN_IN_ACCOUNT", "8/15m"),
                ("GENKAN_RATE_SIGN_IN_ADDRESS", "4/15m"),
            ];
            let config = Config::for_tests_with(Path::new("/nowhere"), &rates);
            let limits = RateLimits::new(&config, &Metrics::default());
            let attempts = Attempts::new(db.clone(), clock.clone(), limits, &ring);
            let accounts = Accounts::new(db.clone(), clock.clone(), &Feed::new(db.clone()));
            Self { db, attempts, accounts, clock: hand }
        }

        async fn account(&self, name: &str) -> Account {
            let account = new_account(name);
            add(&self.db, &account).await.unwrap();
            self.accounts.find(&account.did).await.unwrap().unwrap()
        }

        async fn admit(&self, account: Option<&Account>, typed: &str, from: &str) -> Option<Admitted> {
            let client = from.parse().unwrap();
            let attempt = Attempt { account, identifier: typed, client, browser: None };
            match self.attempts.admit(&attempt).await {
                Ok(admitted) => Some(admitted),
                Err(AttemptError::OverLimit(_)) => None,
                Err(AttemptError::Storage(cause)) => panic!("{cause}"),
            }
        }

        async fn rank(&self, account: &Account, from: &str) -> Option<Rank> {
            Some(self.admit(Some(account), "", from).await?.requester.rank)
        }

        async fn sign_in(&self, account: &Account, from: &str) {
            let admitted = self.admit(Some(account), "", from).await.unwrap();
            self.attempts.succeeded(&admitted).await;
        }
    }

    async fn guesses_from_many_addresses_are_bounded_and_lock_no_known_address_out(db: Db) {
        let harness = AttemptHarness::new(db).await;
        let ann = harness.account("ann").await;
        harness.sign_in(&ann, "192.0.2.1").await;
        let mut admitted = 0;
        for number in 0..20 {
            let guess = harness.admit(Some(&ann), "ann.test", &format!("203.0.113.{number}")).await;
            if let Some(guess) = &guess {
                harness.attempts.failed(guess);
            }
            admitted += usize::from(guess.is_some());
        }
        assert_eq!(admitted, 7, "with the owner's first");
        assert_eq!(harness.rank(&ann, "192.0.2.1").await, Some(Rank::Known));
        // The address was not seen before, and there is no telling who it is.
        assert_eq!(harness.rank(&ann, "192.0.2.2").await, None);
        // The allowance is one of guesses too, if the guesses come from there.
        for _ in 0..4 {
            assert!(harness.rank(&ann, "192.0.2.1").await.is_some());
        }
        assert_eq!(harness.rank(&ann, "192.0.2.1").await, None);
    }

    async fn one_address_tries_a_few_accounts_only(db: Db) {
        let harness = AttemptHarness::new(db).await;
        let ann = harness.account("ann").await;
        harness.sign_in(&ann, "2001:db8:1:2::1").await;
        let mut tried = Vec::new();
        for number in 0..5 {
            let from = format!("2001:db8:1:2::{number}");
            tried.push(harness.admit(None, &format!("victim-{number}.test"), &from).await.is_some());
        }
        assert_eq!(tried, [true, true, true, false, false], "one network is one client");
        assert_eq!(harness.rank(&ann, "2001:db8:1:2::9").await, Some(Rank::Known));
    }

    async fn one_ipv6_customer_tries_a_few_accounts_only(db: Db) {
        let harness = AttemptHarness::new(db).await;
        let ann = harness.account("ann").await;
        harness.sign_in(&ann, "2001:db8:0:1::1").await;
        let mut next = 0;
        let mut tried = async |networks: Vec<String>| {
            let mut admitted = 0;
            for network in networks {
                next += 1;
                let victim = format!("victim-{next}.test");
                admitted +=
                    usize::from(harness.admit(None, &victim, &format!("{network}::1")).await.is_some());
            }
            admitted
        };
        let of_site = (0..40).map(|last| format!("2001:db8:0:1{last:02x}")).collect();
        assert_eq!(tried(of_site).await, 16, "four times the limit of an address for a /56");
        let of_customer = (2..250).map(|site| format!("2001:db8:0:{site:x}00")).collect();
        // The owner's own sign-in is one of them.
        assert_eq!(tried(of_customer).await, 64 - 16 - 1, "and 16 times for a /48");
        assert_eq!(tried(vec!["2001:db8:1:1".to_owned()]).await, 1, "another customer");
        assert_eq!(harness.rank(&ann, "2001:db8:0:1::9").await, Some(Rank::Known));
    }

    async fn all_names_of_an_account_count_together(db: Db) {
        let harness = AttemptHarness::new(db).await;
        let ann = harness.account("ann").await;
        let names = ["ann.test", "ANN.test", "@ann.test", " ann.test ", "Ann@example.com", ann.did.as_str()];
        let mut tried = 0;
        for (number, name) in names.iter().cycle().take(12).enumerate() {
            let account = harness.accounts.find_by_identifier(name).await.unwrap();
            assert!(account.is_some(), "{name:?}");
            let from = format!("203.0.113.{number}");
            tried += usize::from(harness.admit(account.as_ref(), name, &from).await.is_some());
        }
        assert_eq!(tried, 8);
    }

    async fn wrong_passwords_move_strangers_back_in_the_queue(db: Db) {
        let harness = AttemptHarness::new(db).await;
        let (ann, bob, carol) =
            (harness.account("ann").await, harness.account("bob").await, harness.account("carol").await);
        harness.sign_in(&ann, "192.0.2.1").await;
        for _ in 0..3 {
            let guess = harness.admit(Some(&ann), "ann.test", "203.0.113.1").await.unwrap();
            assert_eq!(guess.requester.rank, Rank::Ordinary, "a mistake");
            harness.attempts.failed(&guess);
        }
        assert_eq!(harness.rank(&ann, "203.0.113.2").await, Some(Rank::Suspect), "the account");
        assert_eq!(harness.rank(&bob, "203.0.113.1").await, Some(Rank::Suspect), "the address");
        assert_eq!(harness.rank(&carol, "203.0.113.2").await, Some(Rank::Ordinary));
        assert_eq!(harness.rank(&ann, "192.0.2.1").await, Some(Rank::Known));
    }

    async fn an_address_is_known_for_thirty_days(db: Db) {
        let harness = AttemptHarness::new(db).await;
        let ann = harness.account("ann").await;
        harness.sign_in(&ann, "192.0.2.1").await;
        harness.clock.advance(KNOWN_FOR);
        assert_eq!(sweep_addresses(&harness.db, harness.clock.now().into()).await.unwrap().removed, 0);
        assert_eq!(harness.rank(&ann, "192.0.2.1").await, Some(Rank::Known));
        harness.sign_in(&ann, "192.0.2.1").await;
        harness.clock.advance(KNOWN_FOR);
        assert_eq!(harness.rank(&ann, "192.0.2.1").await, Some(Rank::Known), "it signed in again");
        harness.clock.advance(Duration::from_millis(1));
        assert_eq!(harness.rank(&ann, "192.0.2.1").await, Some(Rank::Ordinary));
        assert_eq!(sweep_addresses(&harness.db, harness.clock.now().into()).await.unwrap().removed, 1);
        let mut tx = harness.db.begin().await.unwrap();
        harness.attempts.note_sign_up(&mut tx, &ann.did, "192.0.2.1".parse().unwrap()).await.unwrap();
        harness.attempts.forget(&mut tx, &ann.did).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!harness.attempts.knows_address(&ann.did, "192.0.2.1".parse().unwrap()).await.unwrap());
    }

    async fn an_account_knows_its_latest_addresses(db: Db) {
        let harness = AttemptHarness::new(db).await;
        let ann = harness.account("ann").await;
        for number in 0..=MOST_ADDRESSES {
            let network = ClientNetwork::of(format!("192.0.2.{number}").parse().unwrap());
            let hash = harness.attempts.hash(network);
            harness.attempts.store(&ann.did, &hash, harness.clock.now()).await.unwrap();
            harness.clock.advance(Duration::from_mins(1));
        }
        let knows = async |address: &str| {
            harness.attempts.knows_address(&ann.did, address.parse().unwrap()).await.unwrap()
        };
        assert_eq!(
            [knows("192.0.2.0").await, knows("192.0.2.1").await, knows("192.0.2.50").await],
            [false, true, true]
        );
    }
}
