//! Genkan killed at every step of a sign-up, and at random: a restart leaves whole accounts and
//! nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use genkan_testing::network::within;
use genkan_testing::{Plan, TestNetwork, Trouble, User};
use http::Method;
use serde_json::json;

use crate::store::on_each_database;

on_each_database!(
    a_kill_before_anything_was_sent,
    a_kill_after_the_hosts_answer_was_lost,
    a_kill_when_an_operation_was_published_in_vain,
    a_kill_when_the_host_made_the_account,
    a_kill_when_all_is_done_but_the_answer,
    a_kill_while_undoing,
    kills_at_random,
);

const CREATE: &str = "com.atproto.server.createAccount";
const KILLS: usize = 6;
/// A restart settles what was left within this time.
const SETTLED: Duration = Duration::from_mins(1);

async fn a_kill_before_anything_was_sent(plan: Plan) {
    killed_at("signup.recorded", plan, |_| {}).await;
}

async fn a_kill_after_the_hosts_answer_was_lost(plan: Plan) {
    killed_at("signup.sent", plan, |net| net.host(0).trouble_times(CREATE, Trouble::CutAfter, 1)).await;
}

async fn a_kill_when_an_operation_was_published_in_vain(plan: Plan) {
    killed_at("signup.updating", plan, |net| net.host(0).fail_after_publishing(1)).await;
}

async fn a_kill_when_the_host_made_the_account(plan: Plan) {
    killed_at("signup.made", plan, |_| {}).await;
}

async fn a_kill_when_all_is_done_but_the_answer(plan: Plan) {
    killed_at("signup.done", plan, |_| {}).await;
}

async fn a_kill_while_undoing(plan: Plan) {
    killed_at("signup.undoing", plan, |net| net.host(0).fail_after_publishing(4)).await;
}

/// Kills Genkan at a named point of Alice's sign-up, starts it again, and looks at what is left.
async fn killed_at(point: &str, plan: Plan, spoil: impl FnOnce(&TestNetwork)) {
    let mut net = plan.await;
    // The failpoint is for one run only: the restart below is without it.
    net.restart_with(&[("GENKAN_TEST_CRASH_AT".to_owned(), point.to_owned())]).await;
    spoil(&net);
    assert_eq!(
        ask(&net, &User::form("alice")).await,
        None,
        "{point} was passed by:\n{}",
        net.genkan().output()
    );
    assert!(net.genkan_mut().is_gone(Duration::from_secs(20)).await, "{point} was never reached");
    net.restart().await;
    assert_settles(&net).await;
    // The host works again, so that Alice's repeated request can succeed.
    net.host(0).fail_after_publishing(0);
    // Her handle is neither taken by another person nor blocked by the interrupted sign-up.
    let alice = insist(&net, "alice").await;
    assert_settles(&net).await;
    net.sign_in(&alice.handle, &alice.password).await.ok();
    let post = json!({ "repo": alice.did, "collection": "app.bsky.feed.post", "record": {} });
    net.client_of(&alice).procedure("com.atproto.repo.createRecord", &post).await.ok();
}

/// The real network's story strikes more often; here each database has its half-dozen.
async fn kills_at_random(plan: Plan) {
    let mut net = plan.hosts(2).await;
    let asked = Arc::new(AtomicU64::new(0));
    let mut chance = Chance::seeded();
    // Printed, so that a failed run can be repeated with the same kills.
    println!("seed {}", chance.0);
    for _ in 0..KILLS {
        let is_over = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = (0..3)
            .map(|_| {
                let (client, asked, is_over) = (net.visitor(), Arc::clone(&asked), Arc::clone(&is_over));
                tokio::spawn(async move {
                    while !is_over.load(Ordering::SeqCst) {
                        let name = format!("user{}", asked.fetch_add(1, Ordering::SeqCst));
                        let request = client.request(Method::POST, &format!("/xrpc/{CREATE}"));
                        let request = request.header("content-type", "application/json");
                        // Most of these requests fail when the process is killed. Their results are
                        // checked after the restart.
                        let _ = client.try_send(request.body(User::form(&name).to_string()).unwrap()).await;
                    }
                })
            })
            .collect();
        // A random moment, so the kill hits every step sooner or later.
        tokio::time::sleep(Duration::from_millis(chance.below(400))).await;
        net.genkan_mut().kill();
        is_over.store(true, Ordering::SeqCst);
        // The tasks must end before the restart, or they would send new requests to the new
        // process.
        for asking in load {
            asking.await.unwrap();
        }
        net.restart().await;
    }
    assert_settles(&net).await;
    let started = asked.load(Ordering::SeqCst);
    // The same form is sent again. An account that was created is opened by its password, although
    // the client lost the answer.
    // In small groups, because every request hashes a password.
    for names in (0..started).collect::<Vec<_>>().chunks(6) {
        let all = names.iter().map(async |index| insist(&net, &format!("user{index}")).await);
        futures_util::future::join_all(all).await;
    }
    assert_settles(&net).await;
    let whole = net.hosts().iter().map(|host| host.accounts().len() as u64).sum::<u64>();
    assert_eq!(whole, started);
}

/// The status, if there was an answer.
async fn ask(net: &TestNetwork, form: &serde_json::Value) -> Option<u16> {
    let client = net.visitor();
    let request =
        client.request(Method::POST, &format!("/xrpc/{CREATE}")).header("content-type", "application/json");
    client.try_send(request.body(form.to_string()).unwrap()).await.ok().map(|answer| answer.status)
}

async fn insist(net: &TestNetwork, name: &str) -> User {
    let mut made = None;
    within(SETTLED, "the account is made", async || {
        let answer = net.try_sign_up(name).await;
        assert!(answer.status == 200 || answer.status >= 502, "{name}: {}", answer.transcript());
        made = (answer.status == 200).then(|| User::of(name, &answer));
        made.is_some()
    })
    .await;
    made.unwrap()
}

/// Within a minute: each DID of the directory has its whole account here and on its host, or is
/// ended; no host has another.
async fn assert_settles(net: &TestNetwork) {
    let start = Instant::now();
    loop {
        let unsettled = unsettled(net).await;
        if unsettled.is_empty() {
            return;
        }
        assert!(start.elapsed() < SETTLED, "{}\n{}", unsettled.join("\n"), net.genkan().output());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn unsettled(net: &TestNetwork) -> Vec<String> {
    let mut left = Vec::new();
    for did in net.directory().dids() {
        let kept: Vec<_> = net.hosts().iter().filter_map(|host| host.account(&did)).collect();
        if net.directory().is_tombstoned(&did) {
            if !kept.is_empty() {
                left.push(format!("{did} is ended, but a host keeps it"));
            }
            continue;
        }
        let data = net.directory().data(&did).unwrap();
        let handle = data.handle().unwrap();
        let [account] = kept.as_slice() else {
            left.push(format!("{did} ({handle}) is kept by {} hosts", kept.len()));
            continue;
        };
        if data.signing_key() != Some(account.key.public().to_did_key().as_str()) {
            left.push(format!("{did} has another key than its host"));
        }
        let resolved =
            net.visitor().query("com.atproto.identity.resolveHandle", &[("handle", handle.as_str())]).await;
        if resolved.status != 200 || resolved.text("/did") != did.as_str() {
            left.push(format!("{handle} does not lead to {did}: {}", resolved.transcript()));
        }
    }
    for host in net.hosts() {
        for account in host.accounts() {
            if net.directory().operations(&account.did).is_empty() {
                left.push(format!("{} is on a host, but in no directory", account.did));
            }
        }
    }
    left
}

/// A small generator, so that a run can be told from another by its seed.
struct Chance(u64);

impl Chance {
    fn seeded() -> Self {
        let now = u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
        Self(now | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
