//! A listener on loopback that keeps a journal of what it was asked and whose behaviour a test can
//! spoil.
//!
//! A [`Wire`] is how the listener treats connections; a [`Trouble`] is how it treats one kind of
//! request.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::Gate;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer.
pub type Reply = Response<Body>;

/// How the listener treats connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Correct HTTP.
    Well,
    /// The port is closed.
    Refusing,
    /// Accepts, reads, and never says a word.
    Silent,
    /// Reads one head, answers with exactly these bytes, and closes.
    Raw(Bytes),
    /// Reads one head, answers with exactly these bytes, stays connected and sends nothing more.
    RawThenSilent(Bytes),
    /// Answers the first request of a connection and closes it at the second.
    ClosingReused,
}

/// How the listener treats one kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Does nothing and answers this status, with a JSON error.
    Status(u16),
    /// Does nothing and answers this, as JSON.
    Refusal(u16, &'static str),
    /// Does nothing and closes the connection.
    CutBefore,
    /// Does it, and closes the connection instead of answering.
    CutAfter,
    /// Does it, and never answers.
    SilentAfter,
    /// Does it, and breaks off after the first piece of the body.
    CutMidBody,
    /// Waits first, and then answers.
    Slow(Duration),
    /// Waits until the test opens the gate, then does it.
    Held(Gate),
    /// Never answers.
    Silent,
    /// Carries the request out, and answers 200 with something that is not JSON.
    Garbage,
}

/// A request as received.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// What kind of request it is: for hosts, the NSID.
    pub name: String,
    /// The verb.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, without `?`.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
}

impl SeenRequest {
    /// Returns a header's text, or an empty text without the header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A request to be answered.
#[derive(Debug)]
pub struct ReceivedCall {
    /// The request as the journal records it.
    pub seen: SeenRequest,
    /// Its body.
    pub body: Incoming,
}

/// The function with which a simulated server answers a request.
pub type Handler = Arc<dyn Fn(ReceivedCall) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// A listener on loopback.
pub struct Loopback {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    name_of: fn(&Parts) -> String,
    handler: Handler,
    journal: Mutex<Vec<SeenRequest>>,
    troubles: Mutex<Vec<Rule>>,
    open: AtomicUsize,
}

struct Rule {
    name: String,
    trouble: Trouble,
    left: Option<usize>,
}

impl Loopback {
    /// Listens on a port of the operating system's choice. `name_of` returns the kind of a request.
    pub async fn start(name_of: fn(&Parts) -> String, make: impl FnOnce(SocketAddr) -> Handler) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name_of,
            handler: make(address),
            journal: Mutex::default(),
            troubles: Mutex::default(),
            open: AtomicUsize::new(0),
        });
        let running = tokio::spawn(accept(listener, Wire::Well, Arc::clone(&shared)));
        Self { address, shared, running: Mutex::new(Some(running)) }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every connection, and treats new ones in this way.
    pub async fn set_wire(&self, wire: Wire) {
        let running = locked(&self.running).take();
        // The lock is released before the await. The old task must be gone before its port can be
        // bound again.
        if let Some(running) = running {
            running.abort();
            let _ = running.await;
        }
        if wire == Wire::Refusing {
            return;
        }
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                // The kernel frees the port a moment after the listener is dropped.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        *locked(&self.running) = Some(tokio::spawn(accept(listener, wire, Arc::clone(&self.shared))));
    }

    /// Applies a trouble to every request of this kind (`*`: of any kind) until [`Self::mend`].
    pub fn trouble(&self, name: &str, trouble: Trouble) {
        locked(&self.shared.troubles).push(Rule { name: name.to_owned(), trouble, left: None });
    }

    /// Applies a trouble to the next `times` requests of this kind.
    pub fn trouble_times(&self, name: &str, trouble: Trouble, times: usize) {
        locked(&self.shared.troubles).push(Rule { name: name.to_owned(), trouble, left: Some(times) });
    }

    /// Removes all troubles.
    pub fn mend(&self) {
        locked(&self.shared.troubles).clear();
    }

    /// How often a kind of request was received.
    pub fn asked(&self, name: &str) -> usize {
        locked(&self.shared.journal).iter().filter(|seen| seen.name == name).count()
    }

    /// The last request of a kind.
    pub fn last(&self, name: &str) -> Option<SeenRequest> {
        locked(&self.shared.journal).iter().rev().find(|seen| seen.name == name).cloned()
    }

    /// All requests so far, in order.
    pub fn journal(&self) -> Vec<SeenRequest> {
        locked(&self.shared.journal).clone()
    }

    /// Empties the journal.
    pub fn forget(&self) {
        locked(&self.shared.journal).clear();
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Loopback({})", self.address)
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        if let Some(running) = locked(&self.running).take() {
            running.abort();
        }
    }
}

async fn accept(listener: TcpListener, wire: Wire, shared: Arc<Shared>) {
    // Dropped with this task, so that the connections end with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let guard = Open::new(Arc::clone(&shared));
                connections.spawn(serve(stream, wire.clone(), guard));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts a connection while it is open.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(mut stream: TcpStream, wire: Wire, open: Open) {
    let closes_reused = match wire {
        Wire::Well => false,
        Wire::ClosingReused => true,
        Wire::Refusing => return,
        Wire::Silent => {
            let mut nothing = [0; 4096];
            // Reading on keeps the connection open until the client closes it.
            while stream.read(&mut nothing).await.is_ok_and(|length| length > 0) {}
            return;
        }
        Wire::Raw(ref bytes) | Wire::RawThenSilent(ref bytes) => {
            let mut head = Vec::new();
            let mut piece = [0; 4096];
            // The end of the head can fall between two reads, so the whole head is searched each
            // time.
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece).await {
                    Ok(length @ 1..) => head.extend_from_slice(piece.get(..length).unwrap_or_default()),
                    _ => return,
                }
            }
            let _ = stream.write_all(bytes).await;
            if matches!(wire, Wire::RawThenSilent(_)) {
                while stream.read(&mut piece).await.is_ok_and(|length| length > 0) {}
            }
            let _ = stream.shutdown().await;
            return;
        }
    };
    let requests = AtomicUsize::new(0);
    let service = service_fn(|request| {
        let is_reuse = requests.fetch_add(1, Ordering::SeqCst) > 0;
        let shared = Arc::clone(&open.0);
        async move {
            if closes_reused && is_reuse {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            shared.answer(request).await
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    /// An error closes the connection.
    async fn answer(&self, request: http::Request<Incoming>) -> Result<Reply, io::Error> {
        let cut = || io::Error::from(io::ErrorKind::ConnectionReset);
        let (parts, body) = request.into_parts();
        let name = (self.name_of)(&parts);
        let seen = SeenRequest {
            name: name.clone(),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
        };
        // Written before the trouble applies: tests count requests that were never answered.
        locked(&self.journal).push(seen.clone());
        let trouble = self.take_trouble(&name);
        match &trouble {
            Some(Trouble::Status(status)) => return Ok(refusal(*status, "TestTrouble", "as the test asked")),
            Some(Trouble::Refusal(status, name)) => return Ok(refusal(*status, name, "as the test asked")),
            Some(Trouble::CutBefore) => return Err(cut()),
            // The client's timeout ends this future.
            Some(Trouble::Silent) => std::future::pending().await,
            Some(Trouble::Slow(wait)) => tokio::time::sleep(*wait).await,
            Some(Trouble::Held(gate)) => gate.pass().await,
            _ => {}
        }
        // A begun request is completed even if the caller disconnects, as in the servers that this
        // one stands for.
        let doing = tokio::spawn((self.handler)(ReceivedCall { seen, body }));
        let reply = doing.await.map_err(|_| cut())?;
        match trouble {
            Some(Trouble::CutAfter) => Err(cut()),
            Some(Trouble::SilentAfter) => std::future::pending().await,
            Some(Trouble::Garbage) => Ok(Response::new(whole("<html>surely not JSON"))),
            Some(Trouble::CutMidBody) => Ok(broken_off(reply)),
            _ => Ok(reply),
        }
    }

    fn take_trouble(&self, name: &str) -> Option<Trouble> {
        let mut troubles = locked(&self.troubles);
        // Rules apply in the order in which they were added. One that is used up is skipped.
        let rule = troubles
            .iter_mut()
            .find(|rule| (rule.name == "*" || rule.name == name) && rule.left != Some(0))?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.trouble.clone())
    }
}

/// Returns half of the first piece and then an error, so the announced length is never reached.
fn broken_off(reply: Reply) -> Reply {
    let (mut parts, body) = reply.into_parts();
    // The length must promise more than is sent, or the client would take the half for the whole.
    parts.headers.entry(http::header::CONTENT_LENGTH).or_insert(http::HeaderValue::from_static("1000000"));
    let pieces = body.into_data_stream().take(1).map(|piece| {
        let piece = piece?;
        Ok(Frame::data(piece.slice(..piece.len() / 2)))
    });
    let broken = stream::once(async {
        // Let the first piece leave before the end.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    });
    Response::from_parts(parts, BodyExt::boxed_unsync(StreamBody::new(pieces.chain(broken))))
}

/// A body that is complete at once.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// An answer of JSON.
pub fn json(status: u16, value: &serde_json::Value) -> Reply {
    Response::builder()
        .status(status)
        .header("content-type", "application/json; charset=utf-8")
        .body(whole(value.to_string()))
        .unwrap()
}

/// A refusal as XRPC has it.
pub fn refusal(status: u16, name: &str, message: &str) -> Reply {
    json(status, &serde_json::json!({ "error": name, "message": message }))
}

/// Locks a value that stays consistent even if a holder panics.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
