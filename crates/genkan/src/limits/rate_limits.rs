//! The service that counts events and attempts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::client::ClientNetwork;
use super::error::AttemptError;
use super::limit::{Limit, OAuthEndpoint};
use super::memory::CountsInMemory;
use super::shared;
use super::verdict::{OverLimit, Verdict};
use crate::base::Timestamp;
use crate::config::{self, Rate};
use crate::db::sweep::{Batch, SweepRange};
use crate::db::{self, Db};
use crate::telemetry::metrics::{Counter, Metrics, RATE_LIMITED};

/// The rate limits. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub(crate) struct RateLimits {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    enabled: bool,
    global: Rate,
    host_ceiling: Rate,
    rates: config::Limits,
    memory: CountsInMemory,
    refused_globally: Counter,
    refused_hosts: Counter,
    metrics: Metrics,
}

impl RateLimits {
    pub(crate) fn new(config: &config::Config, metrics: &Metrics) -> Self {
        let refused = |limit| metrics.counter(&RATE_LIMITED, &[limit]);
        Self {
            inner: Arc::new(Inner {
                enabled: config.limits.rates_enabled,
                global: config.limits.global,
                host_ceiling: config.fleet.host_ceiling,
                rates: config.limits.clone(),
                memory: CountsInMemory::new(),
                refused_globally: refused("global"),
                refused_hosts: refused("host"),
                metrics: metrics.clone(),
            }),
        }
    }

    /// Counts one request of a client address. Returns `None` if limits are disabled.
    ///
    /// `host` is the registered host that passed the request on, if one did: hosts have a limit of
    /// their own. This runs for every request, so it takes about 100 ns and never awaits.
    pub(crate) fn request(&self, client: IpAddr, host: Option<&str>, now: Timestamp) -> Option<Verdict> {
        let inner = &*self.inner;
        if !inner.enabled {
            return None;
        }
        let client = ClientNetwork::of(client);
        // A client that a host names has a count of its own for that host. So no host can use up
        // the limit of an address that its requests never came from.
        let of_client = match host {
            Some(host) => inner.memory.count(&(host, client), inner.global, now),
            None => inner.memory.count(&client, inner.global, now),
        };
        if !of_client.allowed {
            inner.refused_globally.increment();
        }
        // A request through a host counts for the client and for the host, so that a faulty host
        // cannot use everything up.
        let Some(host) = host else { return Some(of_client) };
        let of_host = inner.memory.count(host, inner.host_ceiling, now);
        if !of_host.allowed {
            inner.refused_hosts.increment();
        }
        Some(of_client.tighter(of_host))
    }

    /// Counts one call of an endpoint, and refuses it if it is over the limit. Call this before the work.
    pub(crate) fn call(
        &self,
        endpoint: OAuthEndpoint,
        client: IpAddr,
        now: Timestamp,
    ) -> Result<(), OverLimit> {
        let inner = &*self.inner;
        if !inner.enabled {
            return Ok(());
        }
        let rate = match endpoint {
            OAuthEndpoint::Push => inner.rates.oauth_par,
            OAuthEndpoint::Token => inner.rates.oauth_token,
            OAuthEndpoint::Revoke => inner.rates.oauth_revoke,
        };
        // Each endpoint has a count of its own: many refreshes must not keep an app from signing
        // people in.
        let verdict = inner.memory.count(&(endpoint, ClientNetwork::of(client)), rate, now);
        if !verdict.allowed {
            inner.metrics.counter(&RATE_LIMITED, &[endpoint.name()]).increment();
        }
        verdict.check(now)
    }

    /// Whether the key of an account may be looked up because a token does not fit the known one.
    ///
    /// Not a setting, and not switched off with the limits: the requests go to the directory.
    pub(crate) fn is_key_lookup_due(&self, account: &str, now: Timestamp) -> bool {
        self.inner.memory.count(&("key lookup", account), KEY_LOOKUPS_OF_ACCOUNT, now).allowed
    }

    /// Whether this process may make another such lookup.
    pub(crate) fn has_key_lookup_left(&self, now: Timestamp) -> bool {
        self.inner.memory.count("key lookups", KEY_LOOKUPS, now).allowed
    }

    /// Counts a wrong password of an account's own, in the memory of this process.
    pub(crate) fn count_wrong_password(&self, name: &str, client: ClientNetwork, now: Timestamp) {
        let memory = &self.inner.memory;
        memory.count(&("wrong password", name), WRONG_PASSWORDS, now);
        memory.count(&("wrong password", client), WRONG_PASSWORDS, now);
    }

    /// Whether an account or an address had several wrong passwords in the last minutes.
    pub(crate) fn has_wrong_passwords(&self, name: &str, client: ClientNetwork, now: Timestamp) -> bool {
        let memory = &self.inner.memory;
        !memory.next(&("wrong password", name), WRONG_PASSWORDS, now).allowed
            || !memory.next(&("wrong password", client), WRONG_PASSWORDS, now).allowed
    }

    /// Refuses a client that gave too many wrong admin passwords, before its next one is compared.
    /// Each client address has a count of its own, so nobody locks the operator out from another.
    pub(crate) fn check_admin(&self, client: IpAddr, now: Timestamp) -> Result<(), OverLimit> {
        let inner = &*self.inner;
        if !inner.enabled {
            return Ok(());
        }
        let key = ("admin", ClientNetwork::of(client));
        let verdict = inner.memory.next(&key, inner.rates.admin_password, now);
        if !verdict.allowed {
            inner.metrics.counter(&RATE_LIMITED, &["adminPassword"]).increment();
        }
        verdict.check(now)
    }

    /// Counts a wrong admin password, in the memory of this process: a guess must not cost a write
    /// to the database.
    pub(crate) fn count_wrong_admin_password(&self, client: IpAddr, now: Timestamp) {
        let key = ("admin", ClientNetwork::of(client));
        self.inner.memory.count(&key, self.inner.rates.admin_password, now);
    }

    /// Counts one attempt for all replicas, and refuses it if it is over the limit.
    ///
    /// Handlers call this before the work. `key` identifies the client or account, as the functions
    /// of `client` build it.
    pub(crate) async fn attempt(
        &self,
        db: &Db,
        limit: Limit,
        key: &str,
        now: Timestamp,
    ) -> Result<(), AttemptError> {
        self.attempt_all(db, &[(limit, key.to_owned())], now).await
    }

    /// Counts one attempt against several limits, in one transaction. The first limit that refuses
    /// it is the last that counts it.
    ///
    /// Callers name the limits in one order: two transactions that lock counters in different
    /// orders would wait for each other.
    pub(crate) async fn attempt_all(
        &self,
        db: &Db,
        counted: &[(Limit, String)],
        now: Timestamp,
    ) -> Result<(), AttemptError> {
        if !self.inner.enabled {
            return Ok(());
        }
        let refused = db::repeated(|| self.attempt_once(db, counted, now)).await?;
        let Some((limit, over)) = refused else { return Ok(()) };
        self.inner.metrics.counter(&RATE_LIMITED, &[limit.name()]).increment();
        Err(over.into())
    }

    /// Counts an attempt, and returns the limit that refuses it.
    async fn attempt_once(
        &self,
        db: &Db,
        counted: &[(Limit, String)],
        now: Timestamp,
    ) -> Result<Option<(Limit, OverLimit)>, db::Error> {
        let mut tx = db.begin().await?;
        let mut refused = None;
        for (limit, key) in counted {
            let rates = self.inner.rates_of(*limit);
            // Both windows count each attempt, even if one of them has refused it. So repeated
            // attempts gain nothing.
            let verdicts = shared::count(&mut tx, limit.name(), key, &rates, now).await?;
            // The client sees one limit in its headers: the one that it will reach first.
            let Some(tightest) = verdicts.into_iter().reduce(Verdict::tighter) else { continue };
            if let Err(over) = tightest.check(now) {
                refused = Some((*limit, over));
                break;
            }
        }
        tx.commit().await?;
        Ok(refused)
    }

    /// Takes back an attempt that was counted at this time.
    pub(crate) async fn take_back(
        &self,
        db: &Db,
        counted: &[(Limit, String)],
        counted_at: Timestamp,
    ) -> Result<(), db::Error> {
        if !self.inner.enabled {
            return Ok(());
        }
        db::repeated(|| async {
            let mut tx = db.begin().await?;
            for (limit, key) in counted {
                let rates = self.inner.rates_of(*limit);
                shared::take_back(&mut tx, limit.name(), key, &rates, counted_at).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Removes a batch of counts of windows that have ended.
    pub(crate) async fn sweep(&self, db: &Db, range: SweepRange) -> Result<Batch, db::Error> {
        let rates = &self.inner.rates;
        // One age for all limits. Counts of shorter windows stay longer than necessary, which does
        // no harm.
        let longest = [
            rates.create_session,
            rates.create_session_daily,
            rates.sign_in_address,
            rates.sign_in_account,
            rates.create_account,
            rates.update_handle,
            rates.update_handle_daily,
            rates.request_mail,
            rates.request_mail_daily,
            rates.password_reset,
            rates.password_reset_daily,
            rates.use_code,
        ]
        .map(|rate| rate.per)
        .into_iter()
        .max()
        .unwrap_or_default();
        shared::sweep(db, range.keeping(longest)).await
    }
}

impl Inner {
    /// Returns the rates of a limit: one, or a second one over a longer period.
    fn rates_of(&self, limit: Limit) -> Vec<Rate> {
        let (short, long) = match limit {
            Limit::CreateSession => (self.rates.create_session, Some(self.rates.create_session_daily)),
            Limit::SignInAddress | Limit::SignInSite | Limit::SignInCustomer => {
                (self.rates.sign_in_address, None)
            }
            Limit::SignInAccount => (self.rates.sign_in_account, None),
            Limit::CreateAccount => (self.rates.create_account, None),
            Limit::UpdateHandle => (self.rates.update_handle, Some(self.rates.update_handle_daily)),
            Limit::RequestMail => (self.rates.request_mail, Some(self.rates.request_mail_daily)),
            Limit::PasswordReset | Limit::PasswordResetAtHost => {
                (self.rates.password_reset, Some(self.rates.password_reset_daily))
            }
            Limit::UseCode | Limit::UseCodeAtHost => (self.rates.use_code, None),
        };
        let times = match limit {
            Limit::SignInSite => ADDRESSES_OF_SITE,
            Limit::SignInCustomer => ADDRESSES_OF_CUSTOMER,
            Limit::PasswordResetAtHost | Limit::UseCodeAtHost => CLIENTS_OF_HOST,
            _ => 1,
        };
        let larger = |rate: Rate| Rate { count: rate.count.saturating_mul(times), ..rate };
        std::iter::once(short).chain(long).map(larger).collect()
    }
}

/// How many times the limit of one address the /56 of an IPv6 client has, and its /48.
const ADDRESSES_OF_SITE: u32 = 4;
const ADDRESSES_OF_CUSTOMER: u32 = 16;
/// How many times the limit of one client a host has for all of its clients together.
const CLIENTS_OF_HOST: u32 = 50;
/// How many wrong passwords are a person's mistakes.
const WRONG_PASSWORDS: Rate = Rate { count: 3, per: Duration::from_mins(15) };
/// How often the key of one account is looked up for tokens that do not fit the known key.
const KEY_LOOKUPS_OF_ACCOUNT: Rate = Rate { count: 5, per: Duration::from_mins(5) };
/// How many such lookups a process makes for all accounts.
const KEY_LOOKUPS: Rate = Rate { count: 60, per: Duration::from_mins(1) };

#[cfg(test)]
mod tests {
    use super::super::client::name_of;
    use super::super::verdict::window_start;
    use super::*;
    use crate::config::Config;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000_000);

    fn limits(pairs: &[(&str, &str)]) -> RateLimits {
        let all = [("GENKAN_PUBLIC_URL", "https://example.com")].into_iter().chain(pairs.iter().copied());
        let config = Config::load(&config::Environment::from_pairs(all), None).unwrap();
        RateLimits::new(&config, &Metrics::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_has_so_many_requests_in_a_window() {
        let limits = limits(&[("GENKAN_RATE_GLOBAL", "3/5m")]);
        let mut remaining = Vec::new();
        for _ in 0..4 {
            let verdict = limits.request(ip("192.0.2.1"), None, NOW).unwrap();
            remaining.push((verdict.allowed, verdict.remaining));
        }
        assert_eq!(remaining, [(true, 2), (true, 1), (true, 0), (false, 0)]);
        assert!(limits.request(ip("192.0.2.2"), None, NOW).unwrap().allowed);
        let verdict = limits.request(ip("192.0.2.1"), None, NOW).unwrap();
        assert_eq!(verdict.reset, window_start(NOW, Duration::from_mins(5)).plus(Duration::from_mins(5)));
        assert_eq!(verdict.retry_after(NOW), verdict.reset.since(NOW).as_secs());
        assert!(limits.request(ip("192.0.2.1"), None, verdict.reset).unwrap().allowed);
    }

    #[test]
    fn an_account_is_one_by_whatever_name() {
        let ann = Some("did:plc:ann");
        assert_eq!(name_of(ann, "ann.test"), name_of(ann, "Ann@example.com"));
        assert_eq!(name_of(None, "nobody.test"), name_of(None, " @@Nobody.test"));
        assert_ne!(name_of(None, "nobody.test"), name_of(None, "somebody.test"));
    }

    #[test]
    fn a_host_uses_up_no_limit_of_an_address_that_it_names() {
        let limits = limits(&[("GENKAN_RATE_GLOBAL", "2/5m")]);
        let ask = |host| limits.request(ip("192.0.2.1"), host, NOW).unwrap().allowed;
        assert_eq!([ask(Some("one")), ask(Some("one")), ask(Some("one"))], [true, true, false]);
        assert_eq!([ask(Some("two")), ask(None)], [true, true]);
    }

    #[test]
    fn a_few_wrong_passwords_are_a_mistake_and_more_are_guesses() {
        let limits = limits(&[]);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|address| ClientNetwork::of(ip(address)));
        for _ in 0..3 {
            assert!(!limits.has_wrong_passwords("ann", one, NOW));
            limits.count_wrong_password("ann", one, NOW);
        }
        assert!(limits.has_wrong_passwords("ann", other, NOW), "the account is guessed at");
        assert!(limits.has_wrong_passwords("bob", one, NOW), "the address guesses");
        assert!(!limits.has_wrong_passwords("bob", other, NOW));
        assert!(!limits.has_wrong_passwords("ann", one, NOW.plus(Duration::from_mins(15))));
    }

    #[test]
    fn one_customer_is_one_client() {
        let same = |one: &str, other: &str| ClientNetwork::of(ip(one)) == ClientNetwork::of(ip(other));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::2"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn a_host_has_a_ceiling_whomever_it_speaks_for() {
        let limits = limits(&[("GENKAN_HOST_CEILING", "2/5m")]);
        let ask =
            |client: u8| limits.request(IpAddr::from([192, 0, 2, client]), Some("one"), NOW).unwrap().allowed;
        assert_eq!([ask(1), ask(2), ask(3)], [true, true, false]);
        assert!(limits.request(ip("192.0.2.3"), Some("two"), NOW).unwrap().allowed);
    }

    #[test]
    fn each_endpoint_counts_for_itself() {
        let limits = limits(&[("GENKAN_RATE_OAUTH_PAR", "2/5m"), ("GENKAN_RATE_OAUTH_REVOKE", "1/5m")]);
        let ask = |endpoint| limits.call(endpoint, ip("192.0.2.1"), NOW).is_ok();
        assert_eq!(
            [ask(OAuthEndpoint::Push), ask(OAuthEndpoint::Push), ask(OAuthEndpoint::Push)],
            [true, true, false]
        );
        assert_eq!([ask(OAuthEndpoint::Revoke), ask(OAuthEndpoint::Revoke)], [true, false]);
        assert!(ask(OAuthEndpoint::Token));
        assert!(limits.call(OAuthEndpoint::Push, ip("192.0.2.2"), NOW).is_ok());
    }

    #[test]
    fn limits_can_be_switched_off() {
        let limits = limits(&[("GENKAN_RATE_LIMITS_ENABLED", "false"), ("GENKAN_RATE_GLOBAL", "1/5m")]);
        assert_eq!(limits.request(ip("192.0.2.1"), None, NOW), None);
    }

    #[test]
    fn the_tighter_verdict_is_reported() {
        let rate = Rate { count: 10, per: Duration::from_mins(5) };
        let daily = Rate { count: 300, per: Duration::from_hours(24) };
        let verdict = |rate, count| Verdict::of(rate, count, NOW);
        for (one, other, told) in
            [(1, 1, rate), (11, 11, rate), (1, 301, daily), (11, 301, daily), (1, 299, daily)]
        {
            assert_eq!(verdict(rate, one).tighter(verdict(daily, other)).rate, told, "{one} {other}");
            assert_eq!(verdict(daily, other).tighter(verdict(rate, one)).rate, told, "{one} {other}");
        }
    }
}
