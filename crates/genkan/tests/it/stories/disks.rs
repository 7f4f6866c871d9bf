//! A disk that fails: at every single write of a request, for a while, or because it is full.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use genkan_testing::network::within;
use genkan_testing::{Plan, TestNetwork, User};
use tempfile::TempDir;

/// What one page takes in SQLite's write-ahead log: the page and the head of its frame.
const FRAME: u64 = 4096 + 24;
/// Genkan must work again within this time.
const SETTLED: Duration = Duration::from_mins(1);

/// A disk that fails in the middle of a request, and works again after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_at_any_point_costs_one_request() {
    let (_folder, net) = with_a_limited_disk().await;
    let mut alice = net.sign_up("alice").await;
    // Bytes that a refresh and a sign-up write before the disk fails: 0 pages, 1 page, ...
    let mut failed_refreshes = 0;
    for pages in 0.. {
        limit_disk(&net, Some(log_size(&net) + pages * FRAME));
        let answer = net.refresh(&alice.refresh).await;
        let is_over = answer.status == 200 && log_size(&net) < limit_of(&net);
        limit_disk(&net, None);
        assert_is_answer(&answer.summary(), &net);
        failed_refreshes += u64::from(answer.status == 503);
        // Whatever became of the first, the token is good for another one.
        let again = net.refresh(&alice.refresh).await;
        assert_eq!(again.summary(), "200", "after {pages} pages:\n{}", net.genkan().output());
        alice = alice.with_session(&again);
        if is_over {
            break;
        }
    }
    assert!(failed_refreshes > 0, "no write of a refresh failed");

    let mut failed = Vec::new();
    for pages in 0.. {
        let name = format!("user{pages}");
        limit_disk(&net, Some(log_size(&net) + pages * FRAME));
        let answer = net.try_sign_up(&name).await;
        let is_over = answer.status == 200 && log_size(&net) < limit_of(&net);
        limit_disk(&net, None);
        assert_is_answer(&answer.summary(), &net);
        net.refresh(&alice.refresh).await.ok();
        if answer.status != 200 {
            failed.push(name);
        }
        if is_over {
            break;
        }
    }
    assert!(failed.len() > 3, "few writes of a sign-up failed: {failed:?}");
    for name in failed {
        within(SETTLED, "an interrupted sign-up can be repeated", async || {
            let answer = net.try_sign_up(&name).await;
            assert!([200, 503].contains(&answer.status), "{name}: {}", answer.transcript());
            answer.status == 200
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_refuses_writes_for_a_while_stops_nothing_else() {
    let (_folder, net) = with_a_limited_disk().await;
    let alice = net.sign_up("alice").await;
    limit_disk(&net, Some(log_size(&net)));
    assert_stops_only_writes(&net, &alice).await;
    limit_disk(&net, None);
    assert_recovers(&net, alice).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_nothing_but_writes() {
    let folder = tempfile::tempdir().unwrap();
    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        println!("not run: this machine permits no mount namespaces");
        return;
    }
    // The server gets a small disk for its data, which only it and this test see.
    let net = Plan::new(wrapper(
        &folder,
        "[ \"$1\" = serve ] || exec \"$PROGRAM\" \"$@\"
         exec unshare -rm sh -ec '
           cp -a \"$GENKAN_DATA_DIR\" \"$GENKAN_DATA_DIR.copy\"
           mount -t tmpfs -o size=4m none \"$GENKAN_DATA_DIR\"
           cp -a \"$GENKAN_DATA_DIR.copy/.\" \"$GENKAN_DATA_DIR\"
           chmod 700 \"$GENKAN_DATA_DIR\"
           exec \"$PROGRAM\" serve'",
    ))
    .await;
    let alice = net.sign_up("alice").await;
    let data = net.database_file().parent().unwrap().to_owned();
    let filler = Path::new("/proc")
        .join(net.genkan().process_id().to_string())
        .join("root")
        .join(data.strip_prefix("/").unwrap())
        .join("filler");
    // Written until the disk is full.
    std::fs::write(&filler, vec![1; 8 << 20]).unwrap_err();
    let mut index = 0;
    within(SETTLED, "a write fails", async || {
        index += 1;
        let answer = net.try_sign_up(&format!("user{index}")).await;
        assert_is_answer(&answer.summary(), &net);
        answer.status == 503
    })
    .await;
    assert_stops_only_writes(&net, &alice).await;
    std::fs::remove_file(&filler).unwrap();
    assert_recovers(&net, alice).await;
}

/// The file or its write-ahead log is deleted, or another one is put in its place, as when a backup
/// is restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_file_ends_the_server_before_a_write_is_acknowledged() {
    for (lost, is_replaced) in [("genkan.db", false), ("genkan.db", true), ("genkan.db-wal", false)] {
        let mut net = Plan::new(env!("CARGO_BIN_EXE_genkan")).await;
        let alice = net.sign_up("alice").await;
        let database = net.database_file().with_file_name(lost);
        if is_replaced {
            let copy = database.with_extension("copy");
            std::fs::copy(&database, &copy).unwrap();
            std::fs::rename(&copy, &database).unwrap();
        } else {
            std::fs::remove_file(&database).unwrap();
        }
        // Several at once, so that one of them is before the end of the process.
        let refresh = || async {
            let client = net.visitor().bearer(&alice.refresh);
            let request = client.request(http::Method::POST, "/xrpc/com.atproto.server.refreshSession");
            client.try_send(request.body(String::new()).unwrap()).await.ok().map(|answer| answer.status)
        };
        let answers = futures_util::future::join_all((0..8).map(|_| refresh())).await;
        assert!(!answers.contains(&Some(200)), "{answers:?}");
        assert_eq!(net.genkan_mut().end(SETTLED).await, Some(1), "{}", net.genkan().output());
        assert!(net.genkan().output().contains(&format!("{lost} was deleted or replaced")));
    }
}

async fn assert_stops_only_writes(net: &TestNetwork, alice: &User) {
    within(SETTLED, "it is not ready", async || readiness(net).await == NOT_READY).await;
    let answer = net.refresh(&alice.refresh).await;
    assert_is_answer(&answer.summary(), net);
    if answer.status == 503 {
        assert_ne!(answer.header("retry-after"), "");
    }
    net.client_of(alice).query("com.atproto.server.getSession", &[]).await.ok();
    net.client_of(alice).query("app.bsky.feed.getTimeline", &[]).await.ok();
}

async fn assert_recovers(net: &TestNetwork, alice: User) {
    within(SETTLED, "it is ready again", async || readiness(net).await == "200 ready").await;
    let again = net.refresh(&alice.refresh).await;
    again.clone().ok();
    net.sign_up("bob").await;
    net.refresh(&alice.with_session(&again).refresh).await.ok();
}

const NOT_READY: &str = "503 not ready: the database cannot write";

async fn readiness(net: &TestNetwork) -> String {
    let answer = net.genkan().ops().get("/readyz").await;
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body).trim_end())
}

fn assert_is_answer(summary: &str, net: &TestNetwork) {
    assert!(["200", "503 NotEnoughResources"].contains(&summary), "{summary}\n{}", net.genkan().output());
}

/// A network whose files cannot grow past a limit. Past it, the kernel fails writes with an I/O
/// error, as a broken disk does.
async fn with_a_limited_disk() -> (TempDir, TestNetwork) {
    let folder = tempfile::tempdir().unwrap();
    // Without this, the kernel would also send a signal, which ends the process.
    let program = wrapper(&folder, "trap '' XFSZ; exec \"$PROGRAM\" \"$@\"");
    let net = Plan::new(program).await;
    (folder, net)
}

/// Limits the size of the files that Genkan writes.
fn limit_disk(net: &TestNetwork, bytes: Option<u64>) {
    let size = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let pid = net.genkan().process_id().to_string();
    let limit = format!("--fsize={size}:unlimited");
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

fn limit_of(net: &TestNetwork) -> u64 {
    let pid = net.genkan().process_id().to_string();
    let told = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize", "--output=SOFT", "--noheadings", "--raw"])
        .output()
        .unwrap();
    String::from_utf8(told.stdout).unwrap().trim().parse().unwrap()
}

/// The size of the write-ahead log, to which every write of the database goes first.
fn log_size(net: &TestNetwork) -> u64 {
    let mut log = net.database_file().into_os_string();
    log.push("-wal");
    std::fs::metadata(log).unwrap().len()
}

/// A script that starts Genkan, whose path it has as `$PROGRAM`.
fn wrapper(folder: &TempDir, commands: &str) -> PathBuf {
    let path = folder.path().join("genkan");
    let script = format!(
        "#!/bin/sh\nexport PATH=/usr/bin:/bin:/usr/sbin:/sbin\nexport PROGRAM='{}'\n{commands}\n",
        env!("CARGO_BIN_EXE_genkan")
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
