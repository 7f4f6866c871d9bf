//! Hosts of a fleet for tests.

use std::sync::Arc;
use std::time::Duration;

use genkan_protocol::syntax::Did;
use genkan_testing::FakeHost;

use super::host::Health;
use super::{Admission, Fleet, Host, HostChanges, HostClient, HostState};
use crate::base::fetch::UnguardedClient;
use crate::base::{Clock, Origin, Secret};

/// Adds a fake host to the fleet under this name.
pub(crate) async fn add_host(fleet: &Fleet, name: &str, host: &FakeHost) {
    let (did, password) = (host.did().parse().unwrap(), host.admin_password());
    add_host_at(fleet, name, &host.url().parse().unwrap(), did, &password).await;
}

/// Adds a host with this origin.
pub(crate) async fn add_host_of_origin(fleet: &Fleet, name: &str, origin: &Origin) {
    let did = format!("did:web:{name}.example.com").parse().unwrap();
    add_host_at(fleet, name, origin, did, "admin word").await;
}

/// Adds a host that no test calls, with a made-up origin.
pub(crate) async fn add_absent_host(fleet: &Fleet, name: &str) {
    let origin = format!("http://{name}.localhost:9").parse().unwrap();
    let did = format!("did:web:{name}.example.com").parse().unwrap();
    add_host_at(fleet, name, &origin, did, "admin word").await;
}

async fn add_host_at(fleet: &Fleet, name: &str, origin: &Origin, did: Did, password: &str) {
    fleet.prepare(&name.into(), origin, None).await.unwrap();
    let admission = Admission {
        did,
        admin_password: Secret::new(password.to_owned()),
        version: None,
        blob_limit: None,
        changes: HostChanges::default(),
    };
    fleet.admit(&name.into(), admission).await.unwrap();
}

/// Returns a healthy host without a fleet. Only its name and origin matter.
pub(crate) fn host_at(id: &str, origin: Origin) -> Arc<Host> {
    let now = Clock::of_process().now();
    Arc::new(Host {
        id: id.into(),
        did: "did:web:host.example".parse().unwrap(),
        origin,
        state: HostState::Enabled,
        weight: 1,
        capacity: None,
        region: String::new(),
        sign_ups_per_hour: None,
        admin_password: Secret::new(String::new()),
        version: None,
        blob_limit: None,
        health: Arc::new(Health::new(true, now, now)),
    })
}

/// Returns a client of hosts with a limit of 5 seconds.
pub(crate) fn host_client() -> HostClient {
    HostClient::new(UnguardedClient::new(None).unwrap(), Duration::from_secs(5))
}
