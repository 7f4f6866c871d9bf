//! A command that changes the fleet ends when the running servers work with the change.

use std::time::{Duration, Instant};

use genkan_testing::Plan;

use crate::store::on_each_database;

on_each_database!(
    a_host_takes_an_account_as_soon_as_it_is_added,
    a_change_binds_as_soon_as_its_command_ends,
    a_stopped_server_is_named_in_bounded_time,
);

async fn a_host_takes_an_account_as_soon_as_it_is_added(plan: Plan) {
    let net = plan.await;
    net.command(&["host", "remove", "host-0"]).await.ok();
    assert_eq!(net.try_sign_up("alice").await.summary(), "503 NotEnoughResources");

    let host = net.host(0);
    host.configure(&net.command(&["host", "prepare", "--name", "oak", "--url", &host.url()]).await.ok());
    let password_file = net.secret_file("oak.password", &host.admin_password());
    let add = ["host", "add", &host.url(), "--name", "oak", "--admin-password-file", &password_file];
    net.command(&add).await.ok();
    net.sign_up("alice").await;
}

async fn a_change_binds_as_soon_as_its_command_ends(plan: Plan) {
    let net = plan.await;
    for (round, (stop, go)) in [
        (&["drain", "host-0"][..], &["enable", "host-0"][..]),
        (&["retire", "host-0"], &["enable", "host-0"]),
        (&["set", "host-0", "--weight", "0"], &["set", "host-0", "--weight", "1"]),
    ]
    .into_iter()
    .enumerate()
    {
        net.command(&[&["host"], stop].concat()).await.ok();
        assert_eq!(net.try_sign_up("later").await.summary(), "503 NotEnoughResources", "{stop:?}");
        net.command(&[&["host"], go].concat()).await.ok();
        net.sign_up(&format!("user{round}")).await;
    }
}

async fn a_stopped_server_is_named_in_bounded_time(plan: Plan) {
    let net = plan.await;
    let drained = loop {
        // It has started, is at work, and has just given a sign of life.
        net.command(&["host", "set", "host-0", "--region", "south"]).await.ok();
        net.genkan().suspend();
        let start = Instant::now();
        let drained = net.command(&["host", "drain", "host-0"]).await;
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        // It may have been stopped in the middle of a write, and then holds SQLite's only lock.
        if !drained.output.contains("database is locked") {
            break drained;
        }
        net.genkan().resume();
    };
    assert_eq!(drained.status, 3, "{}", drained.output);
    for words in ["host-0", "is recorded", &format!("process {} ", net.genkan().process_id())] {
        assert!(drained.output.contains(words), "{words:?} is missing: {}", drained.output);
    }

    // It reads the change once it goes on, and the next command finds it at work.
    net.genkan().resume();
    net.command(&["host", "set", "host-0", "--region", "north"]).await.ok();
    assert_eq!(net.try_sign_up("alice").await.summary(), "503 NotEnoughResources");
}
