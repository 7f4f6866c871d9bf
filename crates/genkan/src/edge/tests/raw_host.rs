//! Hosts by their bytes: each connection does what a test says, correct HTTP or not.
//!
//! A host that speaks correct HTTP and knows accounts is `genkan_testing::FakeHost`.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use genkan_testing::Gate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A host that does with each connection what it was told.
pub(super) struct RawHost {
    pub(super) origin: String,
    pub(super) port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// A connection from the edge to a raw host.
pub(super) struct HostConnection {
    pub(super) stream: TcpStream,
    heard: Arc<Mutex<Vec<String>>>,
    /// Counts from 1.
    pub(super) number: usize,
}

impl RawHost {
    pub(super) async fn start<F: Future<Output = ()> + Send + 'static>(
        behave: impl Fn(HostConnection) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, connections) = (Arc::default(), Arc::default());
        let task = serve(listener, Arc::clone(&heard), Arc::clone(&connections), behave);
        Self { origin: format!("http://127.0.0.1:{port}"), port, heard, connections, task }
    }

    /// Every request's head, and body if announced.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The host behind TLS, at a name.
    pub(super) async fn behind_tls(self, tls: tokio_rustls::rustls::ServerConfig) -> Self {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let inner = self.port;
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust us hangs up.
                    let Ok(mut outer) = acceptor.accept(stream).await else { return };
                    let mut inner = TcpStream::connect(("127.0.0.1", inner)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        Self { origin, ..self }
    }

    /// Closes the listener. Connections that are open stay.
    pub(super) async fn close(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Listens on the same port again after [`Self::close`], and answers well.
    pub(super) async fn reopen(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.task = serve(listener, Arc::clone(&self.heard), Arc::clone(&self.connections), answers_ok);
    }
}

/// Accepts connections and lets each behave as the test says.
fn serve<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    behave: impl Fn(HostConnection) -> F + Send + Sync + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::spawn(behave(HostConnection { stream, heard: Arc::clone(&heard), number }));
        }
    })
}

impl HostConnection {
    /// One request, or `None` when the connection has ended.
    pub(super) async fn request(&mut self) -> Option<String> {
        let message = read_message(&mut self.stream).await;
        if message.is_empty() {
            return None;
        }
        self.heard.lock().unwrap().push(message.clone());
        Some(message)
    }

    /// The head of a request, whose body is left unread.
    pub(super) async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        String::from_utf8(head).ok()
    }

    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }
}

/// Answers every request with a small JSON object.
pub(super) async fn answers_ok(mut connection: HostConnection) {
    while connection.request().await.is_some() {
        connection.say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"ok\":true}").await;
    }
}

/// The behaviour of a host's connections.
pub(super) type Behaviour = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Answers every request with these bytes.
pub(super) fn answers(bytes: &'static str) -> impl Fn(HostConnection) -> Behaviour {
    move |mut connection| {
        Box::pin(async move {
            while connection.request().await.is_some() {
                connection.say(bytes).await;
            }
        })
    }
}

/// Answers the first request with these bytes and closes.
pub(super) fn answers_once(bytes: &str) -> impl Fn(HostConnection) -> Behaviour + use<> {
    let bytes = Arc::<str>::from(bytes);
    move |mut connection| {
        let bytes = Arc::clone(&bytes);
        Box::pin(async move {
            connection.request().await;
            connection.say(&*bytes).await;
        })
    }
}

/// Waits with the answer to the first request until the gate is open, says `ok` and closes.
pub(super) fn answers_at(gate: &Gate) -> impl Fn(HostConnection) -> Behaviour + use<> {
    let gate = gate.clone();
    move |mut connection| {
        let gate = gate.clone();
        Box::pin(async move {
            connection.request().await;
            gate.pass().await;
            connection
                .say("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok")
                .await;
        })
    }
}

/// Reads a request and says nothing.
pub(super) async fn stays_silent(mut connection: HostConnection) {
    connection.request().await;
    std::future::pending::<()>().await;
}

/// Reads a head and as much of a body as it announces.
pub(super) async fn read_message(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => all.push(byte),
            Err(_) => return String::from_utf8_lossy(&all).into_owned(),
        }
    }
    let head = String::from_utf8_lossy(&all).into_owned();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0_usize);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8_lossy(&body)
}
