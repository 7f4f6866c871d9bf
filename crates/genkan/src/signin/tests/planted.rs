//! Cookies that another program has too: planted before a sign-in, or kept from before a rotation.

use std::time::Duration;

use genkan_protocol::syntax::Did;
use sqlx::Row as _;

use super::harness::SignInHarness;
use crate::base::random;
use crate::db::{Db, on_each_database, sweep};
use crate::signin::cookies::KEEP_UNUSED;
use crate::signin::service::{LOST_ANSWER, ROTATE_EVERY, SWEEPS, TOLERANCE};
use crate::signin::{Cookies, Persistence, Visit};

on_each_database!(
    a_cookie_from_before_a_sign_in_gets_no_newer_one_by_a_decision,
    a_request_that_began_before_a_sign_in_does_not_see_it,
    a_sign_in_with_an_older_cookie_carries_nothing_of_another,
    two_tabs_that_sign_in_at_once_keep_what_was_there_before,
    a_linked_sign_in_belongs_to_the_cookie_that_it_gave,
    stolen_cookies_without_a_row_stay_unknown,
    cookies_without_a_row_end_as_those_with_one,
);

const LINKED: &str = "did:plc:linkedlinkedlinkedlinked";

/// A browser whose cookies are known to another program, with a row or without.
struct Planted {
    harness: SignInHarness,
    cookies: Cookies,
    ann: Did,
    bob: Did,
}

impl Planted {
    async fn both(db: &Db) -> [Self; 2] {
        [Self::new(db, true).await, Self::new(db, false).await]
    }

    async fn new(db: &Db, has_row: bool) -> Self {
        let harness = SignInHarness::new(db.clone());
        let number = random::id();
        let name = |who: &str| format!("{who}{number}");
        let (ann, bob) = (harness.account(&name("ann")).await, harness.account(&name("bob")).await);
        if !has_row {
            harness.sign_ins.spend_all();
        }
        let cookies = harness.visit(None).await.to_set().unwrap().clone();
        Self { harness, cookies, ann, bob }
    }

    async fn visit(&self) -> Visit {
        self.harness.visit(Some(&self.cookies)).await
    }

    /// Ann signs in, and gets these cookies.
    async fn ann_signs_in(&self) -> Cookies {
        let mut visit = self.visit().await;
        self.harness.sign_in(&mut visit, &self.ann, Persistence::Remembered).await;
        visit.to_set().unwrap().clone()
    }

    async fn dids(&self, cookies: &Cookies) -> Vec<String> {
        self.harness.dids(&self.harness.visit(Some(cookies)).await, None).await
    }
}

async fn a_cookie_from_before_a_sign_in_gets_no_newer_one_by_a_decision(db: Db) {
    for world in Planted::both(&db).await {
        let began_before = world.visit().await;
        let owners = world.ann_signs_in().await;
        for mut visit in [world.visit().await, began_before] {
            world.harness.sign_ins.rotate(&mut visit).await.unwrap();
            world.harness.sign_ins.sign_out(&mut visit, &world.bob).await.unwrap();
            assert!(visit.to_set().is_none());
            assert_eq!(world.harness.dids(&visit, None).await, Vec::<String>::new());
        }
        assert_eq!(world.dids(&owners).await, [world.ann.as_str()], "and the owner noticed nothing");
    }
}

async fn a_request_that_began_before_a_sign_in_does_not_see_it(db: Db) {
    for world in Planted::both(&db).await {
        let began_before = world.visit().await;
        let owners = world.ann_signs_in().await;
        assert_eq!(world.harness.dids(&began_before, None).await, Vec::<String>::new());
        assert_eq!(world.dids(&owners).await, [world.ann.as_str()]);
    }
}

async fn a_sign_in_with_an_older_cookie_carries_nothing_of_another(db: Db) {
    for began_before in [true, false] {
        for world in Planted::both(&db).await {
            let early = world.visit().await;
            let owners = world.ann_signs_in().await;
            let mut visit = if began_before { early } else { world.visit().await };
            world.harness.sign_in(&mut visit, &world.bob, Persistence::Remembered).await;
            let taken = visit.to_set().unwrap().clone();
            assert_eq!(world.dids(&taken).await, [world.bob.as_str()]);
            // Nor does the owner's next sign-in come to it, and the owner does not see the other one's.
            assert_eq!(world.dids(&owners).await, Vec::<String>::new());
            let mut owner = world.harness.visit(Some(&owners)).await;
            world.harness.sign_in(&mut owner, &world.ann, Persistence::Remembered).await;
            assert_eq!(world.dids(owner.to_set().unwrap()).await, [world.ann.as_str()]);
            assert_eq!(world.dids(&taken).await, Vec::<String>::new());
        }
    }
}

async fn two_tabs_that_sign_in_at_once_keep_what_was_there_before(db: Db) {
    let world = Planted::new(&db, true).await;
    let before = world.ann_signs_in().await;
    let mut tabs = [world.harness.visit(Some(&before)).await, world.harness.visit(Some(&before)).await];
    for tab in &mut tabs {
        world.harness.sign_in(tab, &world.bob, Persistence::Remembered).await;
    }
    let found = world.dids(tabs[1].to_set().unwrap()).await;
    assert!(found.contains(&world.ann.to_string()) && found.contains(&world.bob.to_string()), "{found:?}");
}

async fn a_linked_sign_in_belongs_to_the_cookie_that_it_gave(db: Db) {
    let linked: Did = LINKED.parse().unwrap();
    for world in Planted::both(&db).await {
        let (harness, began_before) = (&world.harness, world.visit().await);
        let mut visit = world.visit().await;
        for keep in [Persistence::Visit, Persistence::OneRequest("req-1")] {
            harness.sign_ins.sign_in_linked(&mut visit, &linked, keep).await.unwrap();
        }
        let own = visit.to_set().expect("another cookie").clone();
        let is_in = async |visit: &Visit, keep: Persistence<'_>| {
            harness.sign_ins.linked_in(visit, keep).await.unwrap().contains(&linked)
        };
        let back = harness.visit(Some(&own)).await;
        assert!(
            is_in(&back, Persistence::Visit).await && is_in(&back, Persistence::OneRequest("req-1")).await
        );
        assert!(!is_in(&back, Persistence::OneRequest("req-2")).await);
        assert!(!is_in(&back, Persistence::Remembered).await);
        assert_eq!(harness.dids(&back, Some("req-1")).await, Vec::<String>::new(), "it has no home here");
        let older = world.visit().await;
        assert_eq!(older.device, visit.device);
        for other in [&began_before, &older] {
            for keep in [Persistence::Visit, Persistence::OneRequest("req-1")] {
                assert!(!is_in(other, keep).await);
            }
        }
        harness.wait(ROTATE_EVERY);
        let rotated = harness.visit(Some(&own)).await;
        assert!(is_in(&rotated, Persistence::Visit).await);
    }
}

async fn stolen_cookies_without_a_row_stay_unknown(db: Db) {
    let world = Planted::new(&db, false).await;
    let device = world.visit().await.device;
    let owners = world.ann_signs_in().await;
    world.harness.visit(Some(&owners)).await;
    world.harness.wait(LOST_ANSWER + TOLERANCE);
    for _ in 0..3 {
        for cookies in [&world.cookies, &owners] {
            assert_ne!(world.harness.visit(Some(cookies)).await.device, device);
        }
        sweep_all(&world.harness).await;
    }
    assert_eq!(noticed(&db).await, 1, "once");
    // The row ends after the cookies.
    world.harness.wait(KEEP_UNUSED * 8);
    sweep_all(&world.harness).await;
    let rows = sqlx::query("SELECT id FROM devices WHERE id = $1").bind(device.as_str());
    assert!(rows.fetch_optional(db.reader()).await.unwrap().is_none());
    assert_ne!(world.visit().await.device, device);
}

async fn noticed(db: &Db) -> i64 {
    let text = "SELECT COUNT(*) AS number FROM audit WHERE action = 'signin.stale_cookie'";
    sqlx::query(text).fetch_one(db.reader()).await.unwrap().get("number")
}

async fn sweep_all(harness: &SignInHarness) {
    sweep::all(&harness.db, harness.clock.now(), SWEEPS).await.unwrap();
}

async fn cookies_without_a_row_end_as_those_with_one(db: Db) {
    for world in Planted::both(&db).await {
        let device = world.visit().await.device;
        world.harness.wait(KEEP_UNUSED);
        world.harness.wait(Duration::from_millis(1));
        sweep_all(&world.harness).await;
        assert_ne!(world.visit().await.device, device);
    }
}
