//! Several Genkans on one PostgreSQL whose clocks differ.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use genkan_testing::network::{App, Genkan, TestNetwork, claims_of, within};
use genkan_testing::{Answer, Client, Plan, Trouble, User};
use http::Method;
use serde_json::{Value, json};

use crate::store::on_postgres;

on_postgres!(
    revocations_reach_replicas_whose_clocks_are_off,
    what_one_replica_issues_is_good_at_another,
    no_refresh_token_is_sent_twice,
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
    let net = plan.external_pds(1).await;
    for (round, seconds) in ["-90s", "+90s"].into_iter().enumerate() {
        let off = with_clock(&net, seconds).await;
        for (number, kind) in KINDS.into_iter().enumerate() {
            let victim = kind.victim(&net, &format!("user-{round}-{number}")).await;
            // Both have the token in memory, which is what the revocation must reach.
            let at = [net.visitor(), off.client()];
            for client in &at {
                victim.call(&net, client).await.ok();
            }
            // The one with the right clock and the other one take turns.
            let revoking = &at[number % 2];
            kind.revoke(&net, revoking.clone(), &victim).await;
            for client in &at {
                within(Duration::from_secs(5), "the revocation is known", async || {
                    victim.call(&net, client).await.status != 200
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
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    SignOut,
    AppPassword,
    Takedown,
    Password,
    Deletion,
    /// An app gives its access to a home account back.
    Grant,
    /// An app gives its access to a linked account back.
    Link,
}

const KINDS: [Kind; 7] = [
    Kind::SignOut,
    Kind::AppPassword,
    Kind::Takedown,
    Kind::Password,
    Kind::Deletion,
    Kind::Grant,
    Kind::Link,
];

/// Somebody with a session that ends.
enum Victim {
    Session { user: User, token: String },
    Home(App),
    Linked { app: App, did: String },
}

impl Victim {
    async fn call(&self, net: &TestNetwork, at: &Client) -> Answer {
        match self {
            Self::Session { token, .. } => {
                // The first is forwarded by the token in memory, and the second is Genkan's own.
                let at = at.clone().bearer(token);
                let forwarded = at.query("app.bsky.feed.getTimeline", &[]).await;
                if forwarded.status == 200 {
                    return at.query("com.atproto.server.getSession", &[]).await;
                }
                forwarded
            }
            Self::Home(app) => {
                app.ask(at, &net.origin(), Method::GET, "/xrpc/com.atproto.server.getSession", "").await
            }
            Self::Linked { app, did } => {
                app.ask(at, &net.origin(), Method::POST, CREATE, post_of(did).to_string()).await
            }
        }
    }
}

const SCOPE: &str = "atproto transition:generic";
const CREATE: &str = "/xrpc/com.atproto.repo.createRecord";

fn post_of(did: &str) -> Value {
    json!({ "repo": did, "collection": "app.bsky.feed.post", "record": { "text": "hi" } })
}

impl Kind {
    async fn victim(self, net: &TestNetwork, name: &str) -> Victim {
        if self == Self::Link {
            let did = net.external_pds(0).make_account(net.directory(), &format!("{name}.external.com"));
            let mut app = App::at(net.visitor(), &net.origin(), SCOPE);
            app.sign_in_external(did.as_str()).await;
            return Victim::Linked { app, did: did.to_string() };
        }
        let user = net.sign_up(name).await;
        match self {
            Self::Grant => Victim::Home(net.authorize(&user, SCOPE).await),
            Self::AppPassword => {
                let app = json!({ "name": "phone" });
                let made = net.client_of(&user).procedure("com.atproto.server.createAppPassword", &app).await;
                let session = net.sign_in(&user.handle, &made.ok().text("/password")).await.ok();
                Victim::Session { user, token: session.text("/accessJwt") }
            }
            _ => Victim::Session { token: user.access.clone(), user },
        }
    }

    async fn revoke(self, net: &TestNetwork, at: Client, victim: &Victim) {
        let user = match victim {
            Victim::Home(app) | Victim::Linked { app, .. } => {
                app.revoke_at(&at).await.ok();
                return;
            }
            Victim::Session { user, .. } => user,
        };
        let admin = net.operator_at(at.clone());
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
                admin.procedure("com.atproto.admin.updateSubjectStatus", &input).await.ok()
            }
            Self::Password => {
                let input = json!({ "did": user.did, "password": "another-secret" });
                admin.procedure("com.atproto.admin.updateAccountPassword", &input).await.ok()
            }
            Self::Deletion => {
                let input = json!({ "did": user.did });
                admin.procedure("com.atproto.admin.deleteAccount", &input).await.ok()
            }
            Self::Grant | Self::Link => unreachable!("an app revokes its own access"),
        };
    }
}

/// Behind a load balancer each request may reach another replica: what one of them issued must be
/// good at the other, although their clocks are three minutes apart.
async fn what_one_replica_issues_is_good_at_another(plan: Plan) {
    let net = plan.await;
    let (slow, fast) = (with_clock(&net, "-90s").await, with_clock(&net, "+90s").await);
    let alice = net.sign_up("alice").await;
    for first in [[&slow, &fast], [&fast, &slow]] {
        let clients = first.map(Genkan::client).to_vec();
        let mut app = App::across(clients.clone(), &net.origin(), SCOPE);
        // Any nonce, request or code that the other one refuses ends the sign-in.
        app.sign_in(&alice.handle, &alice.password).await;
        for _ in 0..4 {
            app.refresh().await.ok();
        }
        // The first call learns the nonce of calls; each other one must be accepted at once.
        let (path, origin) = ("/xrpc/com.atproto.server.getSession", net.origin());
        app.ask(&clients[0], &origin, Method::GET, path, "").await.ok();
        for client in [&clients[1], &clients[0], &clients[1]] {
            app.ask_once(client, &origin, Method::GET, path, "").await.ok();
        }
        // A session of the first is refreshed and used at the other, whose host checks the token.
        let input = json!({ "identifier": alice.handle, "password": alice.password });
        let session = clients[0].procedure("com.atproto.server.createSession", &input).await.ok();
        let other = clients[1].clone();
        let refresh = other.clone().bearer(&session.text("/refreshJwt"));
        let session = refresh.call("com.atproto.server.refreshSession").await.ok();
        let access = session.text("/accessJwt");
        other.bearer(&access).query("app.bsky.feed.getTimeline", &[]).await.ok();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let issued = claims_of(&access)["iat"].as_u64().unwrap();
        assert!(now.abs_diff(issued) < 30, "hosts compare {issued} with their own clock, {now}");
    }
}

/// A server accepts a refresh token once, and takes a second use for theft.
async fn no_refresh_token_is_sent_twice(plan: Plan) {
    let net = plan.external_pds(1).set("GENKAN_UPSTREAM_CONNECTIONS", "1024").await;
    let (slow, fast) = (with_clock(&net, "-90s").await, with_clock(&net, "+90s").await);
    let pds = net.external_pds(0);
    let did = pds.make_account(net.directory(), "zoe.external.com");
    let mut app = App::at(net.visitor(), &net.origin(), SCOPE);
    pds.set(|quirks| quirks.expires_in = Some(3));
    app.sign_in_external(did.as_str()).await;
    let body = post_of(did.as_str());
    for round in 1..=3 {
        within(Duration::from_secs(30), "the access token expires", async || {
            pds.access_tokens_have_expired()
        })
        .await;
        // Long enough that the later calls of this round need no refresh.
        let lifetime = if round == 3 { 3600 } else { 20 };
        pds.set(|quirks| quirks.expires_in = Some(lifetime));
        let calls = (0..60).map(|index| {
            let at = [net.genkan(), &slow, &fast][index % 3].client();
            let (app, origin, body) = (&app, net.origin(), body.to_string());
            async move { app.ask(&at, &origin, Method::POST, CREATE, body).await }
        });
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.status, 200, "{}", answer.transcript());
        }
        let sessions = pds.sessions();
        assert_eq!((sessions.len(), sessions[0].refreshes, sessions[0].ended), (1, round, None));
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
