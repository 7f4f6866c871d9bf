//! Several Genkans on one PostgreSQL whose clocks differ.

use std::time::Duration;

use genkan_testing::network::{Genkan, TestNetwork, within};
use genkan_testing::{Plan, Trouble, User};
use serde_json::json;

use crate::store::on_postgres;

on_postgres!(
    revocations_reach_replicas_whose_clocks_are_off,
    a_replica_with_a_fast_clock_takes_no_lease_of_another,
);

/// A Genkan whose wall clock is off by so many seconds. Its monotonic clock is right.
async fn with_clock(net: &TestNetwork, seconds: &str) -> Genkan {
    let library = std::env::var("GENKAN_TEST_FAKETIME").expect("GENKAN_TEST_FAKETIME names libfaketime");
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    net.another_genkan_with(&[
        set("LD_PRELOAD", &library),
        set("FAKETIME", seconds),
        set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ])
    .await
}

async fn revocations_reach_replicas_whose_clocks_are_off(plan: Plan) {
    let net = plan.await;
    for (round, seconds) in ["-90s", "+90s"].into_iter().enumerate() {
        let off = with_clock(&net, seconds).await;
        for (number, kind) in KINDS.into_iter().enumerate() {
            let user = net.sign_up(&format!("user-{round}-{number}")).await;
            let app = json!({ "name": "phone" });
            let made =
                net.client_of(&user).procedure("com.atproto.server.createAppPassword", &app).await.ok();
            let with_app_password = net.sign_in(&user.handle, &made.text("/password")).await.ok();
            let token = match kind {
                Kind::AppPassword => with_app_password.text("/accessJwt"),
                _ => user.access.clone(),
            };
            // Both have the token in memory, which is what the revocation must reach.
            let at = [net.visitor().bearer(&token), off.client().bearer(&token)];
            for client in &at {
                client.query("app.bsky.feed.getTimeline", &[]).await.ok();
            }
            // The one with the right clock and the other one take turns.
            let revoking = if number % 2 == 0 { net.visitor() } else { off.client() };
            kind.revoke(&net, revoking, &user).await;
            for client in &at {
                within(Duration::from_secs(5), "the revocation is known", async || {
                    client.query("com.atproto.server.getSession", &[]).await.status != 200
                })
                .await;
            }
        }
        let metrics = off.ops().get("/metrics").await.ok();
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let line = metrics.lines().find(|line| line.starts_with("genkan_clock_offset_seconds ")).unwrap();
        let offset: i64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        let expected: i64 = seconds.trim_end_matches('s').parse().unwrap();
        assert!((offset - expected).abs() <= 1, "{line}");
        assert!(off.output().contains("clock and the database's differ"), "{}", off.output());
        assert!(!net.printed().contains("clock and the database's differ"), "its clock is right");
    }
}

/// What ends a session.
#[derive(Clone, Copy)]
enum Kind {
    SignOut,
    AppPassword,
    Takedown,
    Password,
    Deletion,
}

const KINDS: [Kind; 5] = [Kind::SignOut, Kind::AppPassword, Kind::Takedown, Kind::Password, Kind::Deletion];

impl Kind {
    async fn revoke(self, net: &TestNetwork, at: genkan_testing::Client, user: &User) {
        let operator = net.operator();
        match self {
            Self::SignOut => at.bearer(&user.refresh).call("com.atproto.server.deleteSession").await.ok(),
            Self::AppPassword => {
                let input = json!({ "name": "phone" });
                at.bearer(&user.access).procedure("com.atproto.server.revokeAppPassword", &input).await.ok()
            }
            Self::Takedown => {
                let input = json!({
                    "subject": { "$type": "com.atproto.admin.defs#repoRef", "did": user.did },
                    "takedown": { "applied": true },
                });
                operator.procedure("com.atproto.admin.updateSubjectStatus", &input).await.ok()
            }
            Self::Password => {
                let input = json!({ "did": user.did, "password": "another-secret" });
                operator.procedure("com.atproto.admin.updateAccountPassword", &input).await.ok()
            }
            Self::Deletion => {
                let input = json!({ "did": user.did });
                operator.procedure("com.atproto.admin.deleteAccount", &input).await.ok()
            }
        };
    }
}

async fn a_replica_with_a_fast_clock_takes_no_lease_of_another(plan: Plan) {
    let net = plan.await;
    let fast = with_clock(&net, "+90s").await;
    // Several runs of the fast one's job pass while the host works on the sign-up.
    net.host(0).trouble_times("com.atproto.server.createAccount", Trouble::Slow(Duration::from_secs(7)), 1);
    let answer = net.visitor().procedure("com.atproto.server.createAccount", &User::form("alice")).await;
    assert_eq!(answer.summary(), "200", "{}", answer.transcript());
    assert_eq!(net.host(0).asked("com.atproto.server.createAccount"), 1);
    drop(fast);
}
