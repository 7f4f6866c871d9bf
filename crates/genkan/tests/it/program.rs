//! The program as operators run it: exit statuses, lines, signals.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn genkan(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_genkan"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command
}

fn ran(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = genkan(arguments, variables).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_wrong_configuration_is_status_2_and_a_line_each() {
    for arguments in [["config", "check"], ["serve", "--json"]] {
        let started = Instant::now();
        let (status, stdout, stderr) =
            ran(&arguments, &[("GENKAN_PUBLIC_URL", "http://example.com"), ("GENKAN_LISTENS", "x")]);
        assert_eq!((status, stdout.as_str()), (2, ""));
        assert_eq!(
            stderr,
            "GENKAN_LISTENS: unknown setting; did you mean GENKAN_LISTEN?\n\
             GENKAN_PUBLIC_URL: http://example.com does not use https; use https://; http:// is allowed for loopback addresses only\n"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_wrong_command_line_is_status_2() {
    let (status, _, stderr) = ran(&["sreve"], &[]);
    assert_eq!(status, 2);
    assert!(stderr.contains("serve"), "{stderr}");
}

#[test]
fn pages_and_settings_are_printed_without_colour() {
    let (status, page, _) = ran(&["docs", "configuration"], &[]);
    assert!(status == 0 && page.starts_with("<!--") && !page.contains('\u{1b}'));
    let secret = "0a1b2c3d4e5f60718293a4b5c6d7e8f90102030405060708090a0b0c0d0e0f10";
    let variables = [("GENKAN_PUBLIC_URL", "https://example.com"), ("GENKAN_SEALING_KEY", secret)];
    let (status, shown, _) = ran(&["config", "show", "--json"], &variables);
    let entries: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(status == 0 && !shown.contains("0a1b"));
    let sealing =
        entries.as_array().unwrap().iter().find(|entry| entry["key"] == "keys.sealing_key").unwrap();
    assert_eq!(
        (sealing["value"].as_str(), sealing["source"].as_str()),
        (Some("[sealed]"), Some("GENKAN_SEALING_KEY"))
    );
}

#[test]
fn what_keeps_the_server_from_starting_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.db");
    std::fs::write(&broken, "this is not a database, whatever its name says").unwrap();
    let url = format!("sqlite:{}", broken.display());
    let variables = settings(folder.path());
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain([("GENKAN_DATABASE_URL", url.as_str())])
        .collect();
    let started = Instant::now();
    let (status, _, stderr) = ran(&["serve"], &variables);
    assert_eq!((status, stderr.lines().count()), (2, 1), "{stderr}");
    assert!(stderr.starts_with("GENKAN_DATABASE_URL: ") && stderr.contains("broken.db"), "{stderr}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(std::fs::read(&broken).unwrap(), b"this is not a database, whatever its name says");
}

#[test]
fn a_port_that_is_taken_is_named() {
    for setting in ["GENKAN_LISTEN", "GENKAN_OPS_LISTEN", "GENKAN_DIRECTORY_FRONT_LISTEN"] {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let mut variables = settings(folder.path());
        variables.retain(|(name, _)| *name != setting);
        variables.push((setting, address.clone()));
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, _, stderr) = ran(&["serve"], &variables);
        assert_eq!((status, stderr.lines().count()), (2, 1), "{stderr}");
        assert!(stderr.starts_with(&format!("{setting}: cannot listen on {address} (")), "{stderr}");
    }
}

/// A database that accepts connections and says nothing.
#[test]
fn probes_are_answered_while_the_server_starts() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://genkan@{}/genkan", silent.local_addr().unwrap());
    let ops = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_genkan"))
        .arg("serve")
        .env_clear()
        .envs(settings(folder.path()))
        .envs([("GENKAN_DATABASE_URL", url), ("GENKAN_OPS_LISTEN", ops.to_string())])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let answers = loop {
        match (probe(ops, "/livez"), probe(ops, "/readyz")) {
            (Ok(alive), Ok(ready)) => break [alive, ready],
            (alive, ready) => assert!(Instant::now() < deadline, "{alive:?} {ready:?}"),
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("it ended with {status} before it answered");
        }
    };
    assert!(answers[0].starts_with("HTTP/1.1 200 "), "{answers:?}");
    assert!(answers[1].starts_with("HTTP/1.1 503 ") && answers[1].contains("starting"), "{answers:?}");
    assert!(!child.wait().unwrap().success());
}

/// What the operators' listener answers within a second.
fn probe(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_signal_stops_gently() {
    let mut server = Server::start();
    assert!(server.ask("/xrpc/_health").starts_with("HTTP/1.1 200 "));
    server.signal();
    let ended = server.child.wait().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", server.rest());
}

/// Commands that change the fleet wait for the servers that have a row.
#[tokio::test]
async fn a_second_signal_stops_at_once_and_leaves_no_row() {
    use sqlx::Connection as _;
    let mut server = Server::start();
    let mut open = TcpStream::connect(server.address).unwrap();
    // A request under way: its body does not come.
    open.write_all(
        b"POST /xrpc/com.atproto.server.createSession HTTP/1.1\r\nhost: localhost\r\n\
          content-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    )
    .unwrap();
    server.signal();
    server.wait_for("stopping");
    server.signal();
    assert_eq!(server.child.wait().unwrap().code(), Some(1), "{}", server.rest());
    sqlx::any::install_default_drivers();
    let database = server.folder.as_ref().unwrap().path().join("data/genkan.db");
    let mut on = sqlx::AnyConnection::connect(&format!("sqlite:{}", database.display())).await.unwrap();
    let rows = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM replicas").fetch_one(&mut on).await;
    assert_eq!(rows.unwrap(), 0);
}

#[test]
fn one_server_uses_a_sqlite_file_and_commands_work_beside_it() {
    let server = Server::start();
    let folder = server.folder.as_ref().unwrap().path();
    let (status, told) = run_in(folder, &["serve"]);
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains("another Genkan serves from") && told.contains("genkan.db"), "{told}");
    let (status, told) = run_in(folder, &["host", "list"]);
    assert_eq!(status, Some(0), "{told}");
    assert!(server.ask("/xrpc/_health").starts_with("HTTP/1.1 200 "));
}

#[test]
fn two_first_starts_at_once_make_one_database() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..4)
        .map(|_| {
            let folder = folder.path().to_owned();
            std::thread::spawn(move || run_in(&folder, &["host", "list"]))
        })
        .collect();
    for one in all {
        let (status, told) = one.join().unwrap();
        assert_eq!(status, Some(0), "{told}");
    }
}

/// The first step waits for the file's write lock, as one on a large table takes its time.
#[tokio::test]
async fn a_command_waits_for_a_slow_step_of_the_schema() {
    use sqlx::{Connection as _, Executor as _};

    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("data/genkan.db");
    std::fs::create_dir_all(database.parent().unwrap()).unwrap();
    sqlx::any::install_default_drivers();
    let url = format!("sqlite:{}?mode=rwc", database.display());
    let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
    other.execute("PRAGMA journal_mode = WAL").await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_genkan"))
        .args(["host", "list"])
        .env_clear()
        .envs(settings(folder.path()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    BufReader::new(command.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("schema is being brought up to date"), "{told}");
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(command.wait().unwrap().code(), Some(0));
}

/// A newer Genkan beside this one, with a change of the schema that this one does not understand.
#[tokio::test]
async fn a_server_stops_when_a_step_of_the_schema_excludes_it() {
    use sqlx::{Connection as _, Executor as _};

    let mut server = Server::start();
    let database = server.folder.as_ref().unwrap().path().join("data/genkan.db");
    sqlx::any::install_default_drivers();
    let mut newer = sqlx::AnyConnection::connect(&format!("sqlite:{}", database.display())).await.unwrap();
    newer.execute("PRAGMA busy_timeout = 20000").await.unwrap();
    newer
        .execute(
            "INSERT INTO schema_steps (version, name, checksum, oldest_binary, applied_at)
             VALUES (99999, 'later', '', 99999, 0)",
        )
        .await
        .unwrap();
    server.wait_for("stopping at once");
    assert_eq!(server.child.wait().unwrap().code(), Some(2), "{}", server.rest());
}

#[test]
fn a_lost_database_is_not_replaced_by_an_empty_one() {
    let server = Server::start();
    let folder = server.end();
    let (database, key) = (folder.path().join("data/genkan.db"), folder.path().join("data/sealing.key"));
    for is_missing in [true, false] {
        let _ = std::fs::remove_file(folder.path().join("data/genkan.db-wal"));
        if is_missing {
            std::fs::remove_file(&database).unwrap();
        } else {
            std::fs::write(&database, "").unwrap();
        }
        for command in [&["serve"][..], &["host", "list"]] {
            let (status, told) = run_in(folder.path(), command);
            assert_eq!(status, Some(2), "{command:?}: {told}");
            assert!(told.contains("genkan.db") && told.contains("sealing.key"), "{told}");
        }
        assert!(std::fs::metadata(&database).map_or(0, |found| found.len()) == 0, "nothing was created");
    }
    // The documented way to start afresh.
    std::fs::rename(&key, key.with_extension("aside")).unwrap();
    Server::start_in(folder);
}

#[test]
fn a_damaged_database_ends_the_server() {
    let server = Server::start();
    let folder = server.end();
    let database = folder.path().join("data/genkan.db");
    let mut bytes = std::fs::read(&database).unwrap();
    // The first page names the tables and stays whole, as do the pages of many tables.
    for page in bytes.chunks_mut(4096).skip(12).step_by(5) {
        page[..64].fill(0x55);
    }
    std::fs::write(&database, bytes).unwrap();
    let (status, told) = run_in(folder.path(), &["serve"]);
    assert_ne!(status, Some(0), "{told}");
    assert!(told.contains("genkan.db is damaged"), "{told}");
}

/// Runs a command to its end. Returns its exit status, and what it printed.
fn run_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_genkan"))
        .args(arguments)
        .env_clear()
        .envs(settings(folder))
        .output()
        .unwrap();
    let told = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&told).into_owned())
}

fn settings(folder: &Path) -> Vec<(&'static str, String)> {
    [
        ("GENKAN_PUBLIC_URL", "http://localhost:2583"),
        ("GENKAN_DEVELOPMENT", "true"),
        ("GENKAN_LISTEN", "127.0.0.1:0"),
        ("GENKAN_OPS_LISTEN", "127.0.0.1:0"),
        ("GENKAN_DIRECTORY_FRONT_LISTEN", "127.0.0.1:0"),
        ("GENKAN_DIRECTORY_FRONT_URL", "http://localhost:2585"),
        ("GENKAN_SHUTDOWN_LAG", "250ms"),
        ("GENKAN_SHUTDOWN_GRACE", "30s"),
        ("GENKAN_LOG_FORMAT", "json"),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.to_owned()))
    .chain([("GENKAN_DATA_DIR", folder.join("data").display().to_string())])
    .collect()
}

/// A server on an own folder and ports that the system chose.
struct Server {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    address: SocketAddr,
    folder: Option<tempfile::TempDir>,
}

impl Server {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(folder: tempfile::TempDir) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_genkan"))
            .arg("serve")
            .env_clear()
            .envs(settings(folder.path()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, lines, address, folder: Some(folder) };
        let line = server.wait_for("serving");
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        server.address = said["message"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        server
    }

    /// Reads log lines until one has these words.
    fn wait_for(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the server ended before it said {words:?}"
            );
            if line.contains(words) {
                return line;
            }
        }
    }

    fn rest(&mut self) -> String {
        let mut rest = String::new();
        let _ = self.lines.read_to_string(&mut rest);
        rest
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ends it in order, and returns its files.
    fn end(mut self) -> tempfile::TempDir {
        self.signal();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.rest());
        self.folder.take().unwrap()
    }

    fn signal(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
