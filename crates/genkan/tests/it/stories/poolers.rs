//! Genkan behind `PgBouncer`.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use genkan_testing::Process;
use genkan_testing::network::within;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};

use crate::store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs GENKAN_TEST_POSTGRES"]
async fn a_pooler_serves_in_session_mode_and_is_refused_in_transaction_mode() {
    let server = std::env::var("GENKAN_TEST_POSTGRES").unwrap();
    let pooler = Pooler::start(&server).await;
    let net = store::sqlite()
        .set("GENKAN_DATABASE_URL", &pooler.url("session"))
        .set("GENKAN_DATABASE_CONNECTIONS", "4")
        .await;
    let second = net.another_genkan().await;
    let alice = net.sign_up("alice").await;
    let alice = alice.with_session(&net.refresh(&alice.refresh).await.ok());
    let at_second = second.client().bearer(&alice.access);
    at_second.query("app.bsky.feed.getTimeline", &[]).await.ok();
    net.sign_out(&alice.refresh).await.ok();
    within(Duration::from_secs(5), "the other one refuses", async || {
        at_second.query("app.bsky.feed.getTimeline", &[]).await.summary() == "400 ExpiredToken"
    })
    .await;

    let url = ("GENKAN_DATABASE_URL".to_owned(), pooler.url("transaction"));
    let ran = net.command_with(&["host", "list"], &[url]).await;
    assert_eq!(ran.status, 2, "{}", ran.output);
    assert!(ran.output.contains("GENKAN_DATABASE_URL: a pooler"), "{}", ran.output);
    drop(net);
    drop(second);
    pooler.remove(&server).await;
}

struct Pooler {
    process: Process,
    port: u16,
    database: String,
    _folder: tempfile::TempDir,
}

impl Pooler {
    /// Starts `PgBouncer` before a new database of the server.
    async fn start(server: &str) -> Self {
        let program = std::env::var("GENKAN_TEST_PGBOUNCER").expect("GENKAN_TEST_PGBOUNCER names pgbouncer");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let database = format!("pooler_{port}");
        execute(server, &format!("CREATE DATABASE {database}")).await;
        let address = server.split('@').nth(1).unwrap();
        let (host, rest) = address.split_once(':').unwrap();
        let server_port = rest.split('/').next().unwrap();
        let target = format!("host={host} port={server_port} dbname={database} user=genkan");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgbouncer.ini");
        let config = format!(
            "[databases]\n\
             session = {target} pool_mode=session\n\
             transaction = {target} pool_mode=transaction\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\nignore_startup_parameters = extra_float_digits\ndefault_pool_size = 40\n"
        );
        std::fs::write(&file, config).unwrap();
        let mut arguments = vec![file.to_str().unwrap()];
        // It refuses to run as root.
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            arguments.extend(["-u", "nobody"]);
        }
        let process = Process::start(Path::new(&program), &arguments, &[]);
        within(Duration::from_secs(20), "PgBouncer listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self { process, port, database, _folder: folder }
    }

    fn url(&self, mode: &str) -> String {
        format!("postgres://genkan@127.0.0.1:{}/{mode}", self.port)
    }

    async fn remove(mut self, server: &str) {
        self.process.kill();
        execute(server, &format!("DROP DATABASE {} WITH (FORCE)", self.database)).await;
    }
}

async fn execute(server: &str, sql: &str) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(server).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
}
