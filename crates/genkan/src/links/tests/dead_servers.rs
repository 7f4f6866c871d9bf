//! Recurring work at twenty servers that do not answer, and at one that does.

use genkan_testing::network::eventually;
use genkan_testing::{FakePds, Gate, Trouble};

use super::harness::LinkHarness;
use crate::db::{Db, on_each_database};
use crate::links::LinkId;
use crate::links::error::Reason;
use crate::links::service::DAY;
use crate::links::sql::links;

on_each_database!(
    twenty_dead_servers_hold_up_no_revocation_at_another_one,
    twenty_dead_servers_hold_up_no_refresh_of_an_idle_session
);

const DEAD: usize = 20;

/// A session at each of [`DEAD`] servers, and then one at a server that answers.
struct DeadServers {
    harness: LinkHarness,
    dead: Vec<FakePds>,
    links: Vec<LinkId>,
}

impl DeadServers {
    async fn start(db: Db) -> Self {
        let mut dead = Vec::new();
        for _ in 0..DEAD {
            dead.push(FakePds::start().await);
        }
        let others: Vec<&FakePds> = dead.iter().collect();
        let harness = LinkHarness::start_with(db, "https://genkan.example.com", &others).await;
        let mut links = Vec::new();
        for (number, pds) in dead.iter().enumerate() {
            let handle = format!("n{number}.example.com");
            let did = pds.make_account(&harness.directory, &handle);
            harness.names.publish(&handle, &[did.as_str()]);
            links.push(harness.link_of(&handle).await);
        }
        links.push(harness.link().await);
        Self { harness, dead, links }
    }

    /// Lets calls of this kind hang at the dead servers.
    fn hang(&self, path: &str) -> Gate {
        let gate = Gate::closed();
        for pds in &self.dead {
            pds.trouble(path, Trouble::Held(gate.clone()));
        }
        gate
    }
}

async fn twenty_dead_servers_hold_up_no_revocation_at_another_one(db: Db) {
    let servers = DeadServers::start(db).await;
    let harness = &servers.harness;
    let gate = servers.hang("/oauth/revoke");
    // They end in another process, which stops before it tells a server.
    let mut tx = harness.db.apart().begin().await.unwrap();
    for link in &servers.links {
        assert!(links::end(&mut tx, link, Reason::GrantEnded, harness.now()).await.unwrap());
    }
    tx.commit().await.unwrap();
    let links = harness.links.clone();
    let telling = tokio::spawn(async move { links.tell_servers().await });
    eventually("the healthy server is told", async || harness.pds.sessions()[0].ended.is_some()).await;
    assert!(servers.dead.iter().all(|pds| pds.sessions()[0].ended.is_none()));
    gate.open();
    telling.await.unwrap().unwrap();
}

async fn twenty_dead_servers_hold_up_no_refresh_of_an_idle_session(db: Db) {
    let servers = DeadServers::start(db).await;
    let harness = &servers.harness;
    let gate = servers.hang("/oauth/token");
    harness.pass(DAY * 31);
    let links = harness.links.clone();
    let keeping = tokio::spawn(async move { links.keep_alive().await });
    eventually("the healthy session is refreshed", async || harness.pds.sessions()[0].refreshes == 1).await;
    assert!(servers.dead.iter().all(|pds| pds.sessions()[0].refreshes == 0));
    gate.open();
    keeping.await.unwrap().unwrap();
}
