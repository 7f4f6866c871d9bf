//! The shares of linked accounts at their PDS, beside those of strangers.

use std::time::Duration;

use super::external_reads::ZOE;
use super::linked::{POST, ZOES, post};
use super::network::{ExternalSetup, Network, eventually, summary};
use super::raw_host::{RawHost, answers_at, answers_ok};
use crate::config::Rate;

/// Anyone may ask for reads, and a PDS counts them together with linked calls.
#[tokio::test]
async fn reads_of_strangers_leave_a_linked_account_its_calls() {
    let there = RawHost::start(answers_ok).await;
    let mut setup = ExternalSetup::listing(&[&there]);
    setup.policy.fair.calls = Rate { count: 40, per: Duration::from_mins(5) };
    setup.policy.fair.wait = Duration::from_millis(10);
    let network = Network::with_external(setup, |_| {}).await;
    network.lives(ZOE, ZOE, &there.origin);
    network.external().link = Some((there.origin.parse().unwrap(), 1));
    let read = format!("GET /xrpc/com.atproto.sync.getLatestCommit?did={ZOE}");
    let mut refused = 0;
    while refused < 10 {
        refused += usize::from(summary(&network.ask(&read, "").await) == "429 RateLimitExceeded");
    }
    for _ in 0..4 {
        assert_eq!(summary(&post(&network, POST, ZOES, "{}").await), "200 -");
    }
    // Her own reads are calls of hers, although they go without her credentials.
    assert_eq!(summary(&network.ask(&read, ZOES).await), "200 -");
    assert_eq!(summary(&network.ask(&read, "").await), "429 RateLimitExceeded");
}

/// The reads' answers never begin, so their places are not given back.
#[tokio::test]
async fn reads_of_strangers_leave_a_linked_account_places_at_its_pds() {
    let gate = genkan_testing::Gate::closed();
    let there = RawHost::start(answers_at(&gate)).await;
    let mut setup = ExternalSetup::listing(&[&there]);
    // All reads are of one client, which may hold an eighth.
    setup.policy.at_once = 48;
    setup.policy.reads.streams = 100;
    setup.policy.reads.streams_in_all = 100;
    let network = Network::with_external(setup, |_| {}).await;
    network.lives(ZOE, ZOE, &there.origin);
    network.external().link = Some((there.origin.parse().unwrap(), 1));
    let read = format!("GET /xrpc/com.atproto.sync.getLatestCommit?did={ZOE}");
    let reads = async { futures_util::future::join_all((0..20).map(|_| network.ask(&read, ""))).await };
    let linked = async {
        eventually("six reads are at the PDS", || there.heard().len() == 6).await;
        let posting = post(&network, POST, ZOES, "{}");
        let opening = async {
            eventually("the linked call is there too", || there.heard().len() == 7).await;
            gate.open();
        };
        tokio::join!(posting, opening).0
    };
    assert_eq!(summary(&tokio::join!(reads, linked).1), "200 -");
}

/// The answers never begin, so the account's places are not given back.
#[tokio::test]
async fn a_linked_account_gets_an_eighth_of_the_places_at_its_pds() {
    let gate = genkan_testing::Gate::closed();
    let there = RawHost::start(answers_at(&gate)).await;
    let mut setup = ExternalSetup::listing(&[&there]);
    setup.policy.at_once = 48;
    let network = Network::with_external(setup, |_| {}).await;
    network.lives(ZOE, ZOE, &there.origin);
    network.external().link = Some((there.origin.parse().unwrap(), 1));
    let held = futures_util::future::join_all((0..6).map(|_| post(&network, POST, ZOES, "{}")));
    let others = async {
        eventually("six calls are at the PDS", || there.heard().len() == 6).await;
        let refused = post(&network, POST, ZOES, "{}").await;
        let read = format!("GET /xrpc/com.atproto.sync.getLatestCommit?did={ZOE}");
        let reading = network.ask(&read, "");
        let opening = async {
            eventually("a stranger's read is there too", || there.heard().len() == 7).await;
            gate.open();
        };
        (refused, tokio::join!(reading, opening).0)
    };
    // A seventh call at the PDS would wait for the gate, which then never opens.
    let both = tokio::time::timeout(Duration::from_mins(1), async { tokio::join!(held, others) }).await;
    let (held, (refused, read)) = both.expect("the seventh call is refused at once");
    assert_eq!(summary(&refused), "429 RateLimitExceeded");
    assert!(refused.contains("this account or address has too many concurrent requests"), "{refused}");
    assert_eq!(summary(&read), "200 -", "nobody else is refused");
    assert!(held.iter().all(|answer| summary(answer) == "200 -"), "{held:?}");
}
