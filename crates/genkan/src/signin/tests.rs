//! Browser sign-ins on both databases, with a manual clock.

use std::time::Duration;

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use super::attempts::Admitted;
use super::service::{FOR_ONE_REQUEST, KEEP, KEEP_UNUSED, LOST_ANSWER, ROTATE_EVERY, TOLERANCE};
use super::types::FRESH;
use super::*;
use crate::accounts::testing::{add, new_account};
use crate::accounts::{Accounts, AppPasswords, NewAccount, Passwords, Rank, Requester};
use crate::base::seal::Sealer;
use crate::base::{Clock, ManualClock, Secret, Timestamp, WaitingClient};
use crate::config::Config;
use crate::db::audit::Actor;
use crate::db::feed::Feed;
use crate::db::{Db, on_each_database, sweep};
use crate::keys::Ring;
use crate::limits::{AttemptError, RateLimits};
use crate::telemetry::metrics::Metrics;

on_each_database!(
    a_browser_is_known_by_its_cookies,
    over_the_budget_a_browser_gets_its_row_when_it_signs_in,
    the_cookie_rotates_and_its_old_value_is_a_sign_of_theft,
    a_browser_whose_answer_was_lost_stays_signed_in,
    a_lost_answer_of_a_request_that_rotated_twice_signs_nobody_out,
    a_slow_answer_undoes_no_good_one,
    two_lost_answers_of_parallel_requests_sign_nobody_out,
    a_form_that_is_sent_twice_signs_nobody_out,
    a_lost_answer_undoes_only_the_sign_in_that_it_was_for,
    of_many_late_requests_one_rotates_the_cookie,
    a_late_cookie_does_not_carry_the_sign_in_that_replaced_it,
    a_browser_that_moved_gets_a_new_cookie,
    a_cookie_from_before_a_sign_in_is_worth_nothing_for_it,
    a_sign_in_is_remembered_or_for_one_request,
    a_browser_is_known_for_thirty_days_after_a_sign_in,
    a_password_for_an_unknown_account_takes_as_much_work,
    only_the_owners_own_password_counts,
    a_sign_out_is_of_one_account_and_one_browser,
    everything_of_an_account_ends_at_once,
    a_password_that_was_changed_meanwhile_opens_nothing,
    expired_rows_are_swept,
    the_database_has_no_cookie,
);

const PASSWORD: &str = "a password of their own";
const BY: Requester = Requester::TRUSTED;

struct SignInHarness {
    db: Db,
    sign_ins: SignIns,
    passwords: Passwords,
    accounts: Accounts,
    clock: ManualClock,
}

impl SignInHarness {
    fn new(db: Db) -> Self {
        let clock = ManualClock::at(Timestamp::from_seconds(1_000_000_000));
        let feed = Feed::new(db.clone());
        let accounts = Accounts::new(db.clone(), clock.clock(), &feed);
        let passwords = Passwords::new(1, 8);
        let key = [7; 32].into();
        let sign_ins = SignIns::new(db.clone(), clock.clock(), accounts.clone(), passwords.clone(), key);
        Self { db, sign_ins, passwords, accounts, clock }
    }

    fn wait(&self, time: Duration) {
        self.clock.advance(time);
    }

    async fn sign_in(&self, visit: &mut Visit, did: &Did, keep: Persistence<'_>) {
        let account = self.accounts.find(did).await.unwrap().unwrap();
        self.sign_ins.sign_in(visit, &account, keep).await.unwrap();
    }

    async fn account(&self, name: &str) -> Did {
        let password_hash = self.passwords.hash(&secret(PASSWORD), BY).await.unwrap();
        let account = NewAccount { password_hash, ..new_account(name) };
        add(&self.db, &account).await.unwrap();
        account.did
    }

    async fn take_down(&self, did: &Did) {
        let mut tx = self.db.begin().await.unwrap();
        let done = self.accounts.set_taken_down(&mut tx, did, Some("T-1"), Actor::Operator).await;
        assert!(done.unwrap());
        tx.commit().await.unwrap();
    }

    async fn visit(&self, cookies: Option<&Cookies>) -> Visit {
        self.sign_ins.visit(cookies, &seen("192.0.2.1")).await.unwrap()
    }

    async fn attempts(&self) -> Attempts {
        let clock = self.clock.clock();
        let ring = Ring::open(&self.db, &clock, Sealer::new(&secret_key()), None).await.unwrap();
        let rates = [("GENKAN_RATE_LIMITS_ENABLED", "true"), ("GENKAN_RATE_SIGN_IN_ACCOUNT", "8/15m")];
        let config = Config::for_tests_with(std::path::Path::new("/nowhere"), &rates);
        Attempts::new(self.db.clone(), clock, RateLimits::new(&config, &Metrics::default()), &ring)
    }

    /// An attempt of this browser from an address without sign-ins. `None` if a limit refuses it.
    async fn attempt(&self, attempts: &Attempts, visit: Option<&Visit>, did: &Did) -> Option<Admitted> {
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
    async fn rank(&self, visit: &Visit, did: &Did) -> Rank {
        self.attempt(&self.attempts().await, Some(visit), did).await.unwrap().requester.rank
    }

    async fn dids(&self, visit: &Visit, request: Option<&str>) -> Vec<String> {
        let found = self.sign_ins.signed_in(visit, request).await.unwrap();
        found.into_iter().map(|one| one.account.did.to_string()).collect()
    }
}

fn seen(address: &str) -> BrowserInfo {
    BrowserInfo { address: address.parse().unwrap(), user_agent: "Firefox".to_owned() }
}

fn secret_key() -> Secret<[u8; 32]> {
    Secret::new([4; 32])
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

async fn a_browser_is_known_by_its_cookies(db: Db) {
    let harness = SignInHarness::new(db);
    let first = harness.visit(None).await;
    let again = harness.visit(first.to_set()).await;
    assert_eq!(again.device, first.device);
    // A known browser keeps its cookie until it is time to rotate it.
    assert!(again.to_set().is_none());

    let other = harness.visit(None).await;
    assert_ne!(other.device, first.device);
    let unknown = Cookies::fresh();
    assert!(harness.sign_ins.peek(Some(&unknown), &seen("192.0.2.1")).await.unwrap().is_none());
    assert!(harness.sign_ins.peek(None, &seen("192.0.2.1")).await.unwrap().is_none());
    assert_ne!(harness.visit(Some(&unknown)).await.device.as_str(), unknown.device_hash());
}

async fn over_the_budget_a_browser_gets_its_row_when_it_signs_in(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    harness.sign_ins.spend_all();
    let first = harness.visit(None).await;
    let planted = first.to_set().unwrap().clone();
    let mut again = harness.visit(Some(&planted)).await;
    assert_eq!((&again.device, again.to_set().is_none()), (&first.device, true));
    harness.sign_ins.rotate(&mut again).await.unwrap();
    harness.sign_ins.sign_out(&mut again, &ann).await.unwrap();
    assert_eq!((devices(&harness.db).await, again.to_set().is_none()), (0, true), "nothing is stored");
    assert_eq!(harness.dids(&again, None).await, Vec::<String>::new());

    let mut tab = harness.visit(Some(&planted)).await;
    harness.sign_in(&mut again, &ann, Persistence::Remembered).await;
    assert_eq!((devices(&harness.db).await, &again.device), (1, &first.device));
    let own = again.to_set().unwrap().clone();
    assert_eq!(harness.dids(&harness.visit(Some(&own)).await, None).await, [ann.as_str()]);
    // A cookie from before the sign-in is worth nothing for it, as any other.
    let stale = harness.visit(Some(&planted)).await;
    assert_eq!((&stale.device, stale.to_set().is_none()), (&first.device, true));
    assert_eq!(harness.dids(&stale, None).await, Vec::<String>::new());
    // Another tab of this browser signs in at the same time.
    harness.sign_in(&mut tab, &ann, Persistence::Remembered).await;
    assert_eq!((devices(&harness.db).await, &tab.device), (1, &first.device));
    assert_eq!(harness.dids(&harness.visit(tab.to_set()).await, None).await, [ann.as_str()]);
    harness.wait(LOST_ANSWER + Duration::from_millis(1));
    harness.visit(Some(&planted)).await;
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);

    let other = SignIns::new(
        harness.db.clone(),
        harness.clock.clock(),
        harness.accounts.clone(),
        harness.passwords.clone(),
        [8; 32].into(),
    );
    let planted = harness.visit(None).await;
    assert!(other.peek(planted.to_set(), &seen("192.0.2.1")).await.unwrap().is_none(), "another key");
}

async fn devices(db: &Db) -> i64 {
    sqlx::query("SELECT COUNT(*) AS number FROM devices").fetch_one(db.reader()).await.unwrap().get("number")
}

async fn the_cookie_rotates_and_its_old_value_is_a_sign_of_theft(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();

    harness.wait(ROTATE_EVERY);
    let rotated = harness.visit(Some(&old)).await;
    let new = rotated.to_set().unwrap().clone();
    assert_ne!(new.session_hash(), old.session_hash());
    assert_eq!(harness.dids(&rotated, None).await, [ann.as_str()]);

    // A request that was under way during the rotation still has the old cookie.
    harness.wait(TOLERANCE);
    let late = harness.visit(Some(&old)).await;
    assert_eq!((&late.device, late.to_set().is_none()), (&rotated.device, true));
    assert_eq!(harness.dids(&late, None).await, [ann.as_str()]);
    assert!(harness.visit(Some(&new)).await.to_set().is_none());

    // From here on only a thief, or a browser restored from a backup, has the old cookie.
    harness.wait(LOST_ANSWER);
    let stolen = harness.visit(Some(&old)).await;
    assert_ne!(stolen.device, rotated.device);
    assert_eq!(harness.dids(&stolen, None).await, Vec::<String>::new());
    let owner = harness.visit(Some(&new)).await;
    assert_ne!(owner.device, rotated.device, "the device is gone for whoever has its cookies");
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);
}

async fn a_browser_whose_answer_was_lost_stays_signed_in(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();
    harness.wait(ROTATE_EVERY);
    let lost = harness.visit(Some(&old)).await.to_set().unwrap().clone();

    harness.wait(LOST_ANSWER);
    let late = harness.visit(Some(&old)).await;
    assert_eq!(harness.dids(&late, None).await, [ann.as_str()]);
    let next = late.to_set().expect("another cookie").clone();
    assert!(![&old, &lost].map(Cookies::session_hash).contains(&next.session_hash()));
    // Other requests that were under way with the old cookie.
    harness.wait(TOLERANCE);
    let parallel = harness.visit(Some(&old)).await;
    assert_eq!((&parallel.device, parallel.to_set().is_none()), (&visit.device, true));
    assert_eq!(harness.dids(&harness.visit(Some(&next)).await, None).await, [ann.as_str()]);

    // It was accepted once. The second time is a theft, within the minute too.
    harness.wait(Duration::from_millis(1));
    assert_ne!(harness.visit(Some(&old)).await.device, visit.device);
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);
    assert_ne!(harness.visit(Some(&next)).await.device, visit.device);
}

/// A request that comes after a while rotates the cookie when it begins, and again when it is
/// decided. The browser gets only the last cookie.
async fn a_lost_answer_of_a_request_that_rotated_twice_signs_nobody_out(db: Db) {
    for (decision, wait) in
        ["sign in", "sign out", "decide", "move"].into_iter().flat_map(|one| [(one, 1), (one, 10)])
    {
        let harness = SignInHarness::new(db.clone());
        let name = |who: &str| format!("{who}-{}-{wait}", decision.replace(' ', "-"));
        let (ann, bob) = (harness.account(&name("ann")).await, harness.account(&name("bob")).await);
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        let old = visit.to_set().unwrap().clone();
        let mut lost = if decision == "move" {
            harness.wait(LOST_ANSWER);
            harness.sign_ins.visit(Some(&old), &seen("192.0.2.9")).await.unwrap()
        } else {
            harness.wait(ROTATE_EVERY);
            harness.visit(Some(&old)).await
        };
        match decision {
            "sign out" => harness.sign_ins.sign_out(&mut lost, &bob).await.unwrap(),
            "decide" => harness.sign_ins.rotate(&mut lost).await.unwrap(),
            _ => harness.sign_in(&mut lost, &bob, Persistence::Remembered).await,
        }

        harness.wait(Duration::from_secs(wait));
        let late = harness.sign_ins.visit(Some(&old), &seen("192.0.2.9")).await.unwrap();
        assert_eq!(late.device, visit.device, "{decision}, {wait} s later");
        assert_eq!(harness.dids(&late, None).await, [ann.as_str()], "{decision}, {wait} s later");
        assert_eq!(late.to_set().is_some(), wait > TOLERANCE.as_secs());
    }
}

/// Two programs have the cookies: one came late with the old one, the other has the one that the
/// first did not get.
async fn a_late_cookie_does_not_carry_the_sign_in_that_replaced_it(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let planted = visit.to_set().unwrap().clone();
    harness.wait(Duration::from_secs(10));
    let mut visit = harness.visit(Some(&planted)).await;
    harness.sign_in(&mut visit, &bob, Persistence::Remembered).await;
    let owners = visit.to_set().unwrap().clone();

    harness.wait(TOLERANCE * 2);
    let late = harness.visit(Some(&planted)).await;
    assert_eq!(harness.dids(&late, None).await, [ann.as_str()], "what it could do before, and no more");
    let next = late.to_set().unwrap().clone();
    assert_eq!(harness.dids(&harness.visit(Some(&next)).await, None).await, [ann.as_str()]);
    // The other one's cookie may have come with a slow answer. Whichever of them comes again shows
    // that there are two.
    harness.wait(TOLERANCE * 2);
    let owner = harness.visit(Some(&owners)).await;
    assert_eq!(harness.dids(&owner, None).await, [ann.as_str()]);
    let last = owner.to_set().unwrap().clone();
    harness.wait(TOLERANCE * 2);
    assert_ne!(harness.visit(Some(&next)).await.device, visit.device);
    assert_ne!(harness.visit(Some(&last)).await.device, visit.device);
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap(), []);
}

/// An answer is slow, the browser asks again meanwhile, and then the slow answer replaces the cookie of
/// the second one.
async fn a_slow_answer_undoes_no_good_one(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();
    harness.wait(ROTATE_EVERY);
    let slow = harness.visit(Some(&old)).await.to_set().unwrap().clone();
    harness.wait(Duration::from_secs(6));
    let second = harness.visit(Some(&old)).await.to_set().unwrap().clone();

    harness.wait(Duration::from_secs(3));
    let tolerated = harness.visit(Some(&slow)).await;
    assert_eq!((&tolerated.device, tolerated.to_set().is_none()), (&visit.device, true));
    harness.wait(Duration::from_secs(3));
    let back = harness.visit(Some(&slow)).await;
    assert_eq!(harness.dids(&back, None).await, [ann.as_str()]);
    let third = back.to_set().expect("another cookie").clone();
    // Requests that were under way with either.
    for cookies in [&slow, &second] {
        assert_eq!(harness.visit(Some(cookies)).await.device, visit.device);
    }
    assert_eq!(harness.dids(&harness.visit(Some(&third)).await, None).await, [ann.as_str()]);
    // Neither is accepted a second time.
    harness.wait(TOLERANCE * 2);
    let newer = {
        harness.wait(ROTATE_EVERY);
        harness.visit(Some(&third)).await.to_set().unwrap().clone()
    };
    assert_ne!(harness.visit(Some(&second)).await.device, visit.device);
    assert_ne!(harness.visit(Some(&newer)).await.device, visit.device);
}

async fn two_lost_answers_of_parallel_requests_sign_nobody_out(db: Db) {
    for shows_first in [false, true] {
        let harness = SignInHarness::new(db.clone());
        let name = |who: &str| format!("{who}{}", if shows_first { "x" } else { "y" });
        let (ann, bob) = (harness.account(&name("ann")).await, harness.account(&name("bob")).await);
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        let old = visit.to_set().unwrap().clone();
        harness.wait(ROTATE_EVERY);
        let first = harness.visit(Some(&old)).await.to_set().unwrap().clone();
        let mut second = harness.visit(Some(&old)).await;
        harness.wait(Duration::from_secs(1));
        harness.sign_in(&mut second, &bob, Persistence::Remembered).await;

        harness.wait(TOLERANCE * 2);
        let late = harness.visit(Some(if shows_first { &first } else { &old })).await;
        assert_eq!(late.device, visit.device);
        assert_eq!(harness.dids(&late, None).await, [ann.as_str()]);
    }
}

/// The browser keeps the answer to either request.
async fn a_form_that_is_sent_twice_signs_nobody_out(db: Db) {
    for (number, (wait, keeps_first, seconds)) in [
        (ROTATE_EVERY, true, 1),
        (ROTATE_EVERY, false, 1),
        (ROTATE_EVERY, true, 10),
        (ROTATE_EVERY, false, 10),
        (Duration::from_secs(1), true, 10),
        (Duration::from_secs(1), false, 10),
    ]
    .into_iter()
    .enumerate()
    {
        let harness = SignInHarness::new(db.clone());
        let (ann, bob) =
            (harness.account(&format!("ann{number}")).await, harness.account(&format!("bob{number}")).await);
        let mut visit = harness.visit(None).await;
        harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
        let old = visit.to_set().unwrap().clone();
        harness.wait(wait);
        // Only the first of them may rotate the cookie, and the second is decided first.
        let mut rotating = harness.visit(Some(&old)).await;
        let mut other = harness.visit(Some(&old)).await;
        harness.sign_in(&mut other, &bob, Persistence::Remembered).await;
        harness.wait(Duration::from_millis(10));
        harness.sign_in(&mut rotating, &bob, Persistence::Remembered).await;
        let kept = if keeps_first { &rotating } else { &other };
        harness.wait(Duration::from_secs(seconds));
        let next = harness.visit(kept.to_set()).await;
        assert_eq!(next.device, visit.device, "{number}");
        assert!(harness.dids(&next, None).await.contains(&ann.to_string()), "{number}");
    }
}

/// The password of an account that is signed in is typed again, and the answer is lost.
async fn a_lost_answer_undoes_only_the_sign_in_that_it_was_for(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let (first, old) = (harness.clock.now(), visit.to_set().unwrap().clone());
    harness.wait(FRESH * 2);
    let mut again = harness.visit(Some(&old)).await;
    harness.sign_in(&mut again, &ann, Persistence::Remembered).await;

    harness.wait(TOLERANCE * 2);
    let late = harness.visit(Some(&old)).await;
    let found = harness.sign_ins.signed_in(&late, None).await.unwrap();
    assert_eq!(found.iter().map(|one| (&one.account.did, one.at)).collect::<Vec<_>>(), [(&ann, first)]);
    assert!(!found[0].is_fresh(harness.clock.now()), "it may not act without the password");
}

async fn of_many_late_requests_one_rotates_the_cookie(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let old = visit.to_set().unwrap().clone();
    harness.wait(ROTATE_EVERY);
    harness.visit(Some(&old)).await;
    harness.wait(TOLERANCE * 2);
    let late: Vec<_> = (0..8)
        .map(|_| {
            let (sign_ins, old) = (harness.sign_ins.clone(), old.clone());
            tokio::spawn(async move { sign_ins.visit(Some(&old), &seen("192.0.2.1")).await.unwrap() })
        })
        .collect();
    let mut given = Vec::new();
    for one in late {
        let one = one.await.unwrap();
        assert_eq!(one.device, visit.device);
        given.extend(one.to_set().cloned());
    }
    assert_eq!(given.len(), 1, "one of them got a new cookie");
    assert_eq!(harness.dids(&harness.visit(given.first()).await, None).await, [ann.as_str()]);
}

async fn a_browser_that_moved_gets_a_new_cookie(db: Db) {
    let harness = SignInHarness::new(db);
    let first = harness.visit(None).await;
    let cookies = first.to_set().unwrap();
    let moved = harness.sign_ins.visit(Some(cookies), &seen("192.0.2.9")).await.unwrap();
    assert_eq!(moved.device, first.device);
    assert_ne!(moved.to_set().unwrap().session_hash(), cookies.session_hash());
    let other = BrowserInfo { user_agent: "curl".to_owned(), ..seen("192.0.2.9") };
    assert!(harness.sign_ins.visit(moved.to_set(), &other).await.unwrap().to_set().is_some());
}

async fn a_cookie_from_before_a_sign_in_is_worth_nothing_for_it(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    let before = visit.to_set().unwrap().clone();
    harness.wait(Duration::from_secs(1));
    let mut visit = harness.visit(Some(&before)).await;
    harness.sign_in(&mut visit, &bob, Persistence::Remembered).await;
    let after = visit.to_set().unwrap().clone();
    assert_ne!(after.session_hash(), before.session_hash());

    let stale = harness.visit(Some(&before)).await;
    assert_eq!(stale.device, visit.device);
    assert_eq!(harness.dids(&stale, None).await, [ann.as_str()], "what it could do before, and no more");
    let after = harness.visit(Some(&after)).await;
    for (visit, rank) in [(&stale, Rank::Ordinary), (&after, Rank::Known)] {
        assert_eq!(harness.rank(visit, &ann).await, rank);
    }
    assert_eq!(harness.dids(&after, None).await, [bob.as_str(), ann.as_str()]);
}

async fn a_sign_in_is_remembered_or_for_one_request(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    harness.wait(FRESH + Duration::from_millis(1));
    let mut visit = harness.visit(visit.to_set()).await;
    let old = harness.sign_ins.signed_in(&visit, None).await.unwrap();
    let now = harness.clock.now();
    assert!(!old[0].is_fresh(now));

    // Bob signs in for one request. Ann does too, although she is remembered here.
    harness.sign_in(&mut visit, &bob, Persistence::OneRequest("req-1")).await;
    harness.sign_in(&mut visit, &ann, Persistence::OneRequest("req-1")).await;
    for (request, expected) in [(Some("req-2"), vec![&ann]), (None, vec![&ann])] {
        assert_eq!(
            harness.dids(&visit, request).await,
            expected.into_iter().map(Did::to_string).collect::<Vec<_>>()
        );
    }
    let mut both = harness.dids(&visit, Some("req-1")).await;
    both.sort();
    assert_eq!(both, [ann.as_str(), bob.as_str()]);
    let here = harness.sign_ins.signed_in(&visit, Some("req-1")).await.unwrap();
    assert!(here.iter().all(|one| one.is_fresh(now)), "the newer sign-in counts");
    assert_eq!(harness.sign_ins.devices_of(&bob).await.unwrap(), []);

    harness.wait(FOR_ONE_REQUEST + Duration::from_millis(1));
    assert_eq!(harness.dids(&visit, Some("req-1")).await, [ann.as_str()]);
}

/// Also if it was for one request, and while guesses use up what the account has.
async fn a_browser_is_known_for_thirty_days_after_a_sign_in(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let attempts = harness.attempts().await;
    let mut visit = harness.visit(None).await;
    let account = harness.accounts.find(&ann).await.unwrap();
    let home = Attempt {
        account: account.as_ref(),
        identifier: "",
        client: [192, 0, 2, 1].into(),
        browser: Some(&visit),
    };
    let admitted = attempts.admit(&home).await.unwrap();
    harness.sign_in(&mut visit, &ann, Persistence::OneRequest("req-1")).await;
    attempts.succeeded_in(&admitted, &visit).await;

    let mut cookies = visit.to_set().unwrap().clone();
    for days in [0, 1, 28] {
        harness.wait(Duration::from_hours(days * 24) + Duration::from_mins(20));
        sweep::all(&harness.db, harness.clock.now(), SWEEPS).await.unwrap();
        let visit = harness.visit(Some(&cookies)).await;
        cookies = visit.to_set().unwrap().clone();
        assert!(harness.dids(&visit, Some("req-1")).await.is_empty(), "it is not signed in");
        while harness.attempt(&attempts, None, &ann).await.is_some() {}
        let known = harness.attempt(&attempts, Some(&visit), &ann).await.expect("an allowance of its own");
        assert_eq!(known.requester.rank, Rank::Known, "{days} days later");
        assert_ne!(harness.rank(&visit, &bob).await, Rank::Known, "to another account it is a stranger");
    }
    harness.wait(Duration::from_hours(2 * 24));
    let later = harness.visit(Some(&cookies)).await;
    assert_eq!(harness.rank(&later, &ann).await, Rank::Ordinary);
    harness.wait(KEEP_UNUSED * 8);
    sweep::all(&harness.db, harness.clock.now(), SWEEPS).await.unwrap();
    assert_ne!(harness.visit(later.to_set()).await.device, visit.device);
}

/// Otherwise the duration of a sign-in would reveal whether the account exists.
async fn a_password_for_an_unknown_account_takes_as_much_work(db: Db) {
    let harness = SignInHarness::new(db);
    harness.account("ann").await;
    // With a queue of zero, every password check is refused as busy.
    let clock = harness.clock.clock();
    let (accounts, passwords) = (harness.accounts.clone(), Passwords::new(1, 0));
    let full = SignIns::new(harness.db.clone(), clock, accounts, passwords, [7; 32].into());
    for identifier in ["ann.test", "eve.test", ""] {
        let found = full.recognise(identifier, &secret("wrong"), BY).await;
        assert!(matches!(found, Err(Error::Busy)), "{identifier}");
    }
}

async fn only_the_owners_own_password_counts(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    for identifier in ["ann.test", "@ann.test", "ANN@example.com", ann.as_str()] {
        let found = harness.sign_ins.recognise(identifier, &secret(PASSWORD), BY).await.unwrap();
        assert_eq!(found.did, ann, "{identifier}");
    }
    let app_passwords = AppPasswords::new(harness.db.clone(), Clock::of_process());
    // An app password opens sessions of apps, but never the pages.
    let (_, for_app) = app_passwords
        .create(&ann, "app", true, Actor::Genkan, &WaitingClient::patient())
        .await
        .unwrap()
        .unwrap();
    for (identifier, password) in [
        ("ann.test", "wrong"),
        ("ann.test", ""),
        ("ann.test", for_app.expose().as_str()),
        ("eve.test", PASSWORD),
        ("", PASSWORD),
        ("ann.test", &"x".repeat(600)),
    ] {
        let found = harness.sign_ins.recognise(identifier, &secret(password), BY).await;
        assert!(matches!(found, Err(Error::WrongPassword)), "{identifier} {password}");
    }
    harness.take_down(&ann).await;
    assert!(matches!(
        harness.sign_ins.recognise("ann.test", &secret(PASSWORD), BY).await,
        Err(Error::TakenDown)
    ));
}

async fn a_sign_out_is_of_one_account_and_one_browser(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut desk = harness.visit(None).await;
    let mut phone = harness.visit(None).await;
    for did in [&ann, &bob] {
        harness.sign_in(&mut desk, did, Persistence::Remembered).await;
    }
    harness.sign_in(&mut phone, &ann, Persistence::Remembered).await;
    assert_eq!(harness.sign_ins.devices_of(&ann).await.unwrap().len(), 2);

    // A sign-out changes the cookie too, so that a copy of the old one is worth nothing.
    let before = desk.to_set().unwrap().session_hash();
    harness.sign_ins.sign_out(&mut desk, &ann).await.unwrap();
    assert_ne!(desk.to_set().unwrap().session_hash(), before);
    assert_eq!(harness.dids(&desk, None).await, [bob.as_str()]);
    assert_eq!(harness.dids(&phone, None).await, [ann.as_str()]);

    assert!(!harness.sign_ins.sign_out_at(&phone.device, &bob).await.unwrap());
    assert!(harness.sign_ins.sign_out_at(&phone.device, &ann).await.unwrap());
    assert_eq!(harness.dids(&phone, None).await, Vec::<String>::new());
}

async fn everything_of_an_account_ends_at_once(db: Db) {
    let harness = SignInHarness::new(db);
    let (ann, bob) = (harness.account("ann").await, harness.account("bob").await);
    let mut visit = harness.visit(None).await;
    harness.sign_in(&mut visit, &ann, Persistence::Remembered).await;
    harness.sign_in(&mut visit, &ann, Persistence::OneRequest("req-1")).await;
    harness.sign_in(&mut visit, &bob, Persistence::Remembered).await;
    let mut tx = harness.db.begin().await.unwrap();
    harness.sign_ins.end_all(&mut tx, &ann).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(harness.dids(&visit, Some("req-1")).await, [bob.as_str()]);

    harness.take_down(&bob).await;
    assert_eq!(harness.dids(&visit, None).await, Vec::<String>::new(), "taken down");
}

async fn expired_rows_are_swept(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let passing = harness.visit(None).await;
    let mut kept = harness.visit(None).await;
    harness.sign_in(&mut kept, &ann, Persistence::Remembered).await;
    harness.sign_in(&mut kept, &ann, Persistence::OneRequest("req-1")).await;
    let now = || harness.clock.now();
    assert_eq!(sweep::all(&harness.db, now(), SWEEPS).await.unwrap(), 0);

    harness.wait(KEEP_UNUSED + Duration::from_millis(1));
    assert_eq!(
        sweep::all(&harness.db, now(), SWEEPS).await.unwrap(),
        2,
        "the request's sign-in, the browser without one"
    );
    assert_ne!(harness.visit(passing.to_set()).await.device, passing.device);
    let kept = harness.visit(kept.to_set()).await;
    assert_eq!(harness.dids(&kept, None).await, [ann.as_str()]);

    harness.wait(KEEP + Duration::from_millis(1));
    assert_eq!(sweep::all(&harness.db, now(), SWEEPS).await.unwrap(), 2);
    assert_ne!(harness.visit(kept.to_set()).await.device, kept.device);
}

async fn the_database_has_no_cookie(db: Db) {
    let harness = SignInHarness::new(db);
    let visit = harness.visit(None).await;
    let cookies = visit.to_set().unwrap();
    let row = sqlx::query("SELECT id, session FROM devices").fetch_one(harness.db.reader()).await.unwrap();
    let (id, session): (String, String) = (row.get("id"), row.get("session"));
    for kept in [id, session] {
        assert!(!cookies.device().expose().contains(&kept) && !cookies.session().expose().contains(&kept));
        assert_eq!(kept.len(), 64);
    }
}

async fn a_password_that_was_changed_meanwhile_opens_nothing(db: Db) {
    let harness = SignInHarness::new(db);
    let ann = harness.account("ann").await;
    let mut visit = harness.visit(None).await;
    // The password is checked before the change, and the sign-in is stored after it.
    let recognised = harness.sign_ins.recognise(ann.as_str(), &secret(PASSWORD), BY).await.unwrap();
    let mut tx = harness.db.begin().await.unwrap();
    harness.accounts.set_password_hash(&mut tx, &ann, "another").await.unwrap();
    harness.sign_ins.end_all(&mut tx, &ann).await.unwrap();
    tx.commit().await.unwrap();
    let late = harness.sign_ins.sign_in(&mut visit, &recognised, Persistence::Remembered).await;
    assert!(matches!(late, Err(Error::WrongPassword)), "{late:?}");
    assert!(harness.dids(&visit, None).await.is_empty());
}
