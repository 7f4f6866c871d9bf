//! A plain HTTP client for tests. It opens one connection per call, and neither retries nor follows
//! redirects.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Returns the body as JSON, or null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Returns a string in the JSON body, by its JSON pointer.
    ///
    /// # Panics
    ///
    /// If the body has no string there.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> String {
        match self.json().pointer(pointer).and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => panic!("no text at {pointer} of {}", self.transcript()),
        }
    }

    /// Returns the status, and the error's name if the body has one: `400 InvalidToken`.
    pub fn summary(&self) -> String {
        match self.json().get("error").and_then(Value::as_str) {
            Some(name) => format!("{} {name}", self.status),
            None => self.status.to_string(),
        }
    }

    /// Returns the message of an error.
    pub fn message(&self) -> String {
        self.json().get("message").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The description of an OAuth error (RFC 6749 §5.2).
    pub fn description(&self) -> String {
        self.json().get("error_description").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Returns a header's text, or an empty text without the header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the status and the body, for messages of failed tests.
    pub fn transcript(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    /// Returns the answer itself if its status is 200.
    ///
    /// # Panics
    ///
    /// If the status is another one.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "often that it was 200 is all one wants to know")]
    pub fn ok(self) -> Self {
        assert!(self.status == 200, "{}", self.transcript());
        self
    }
}

/// Why a call got no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The port is closed.
    Unreachable(io::Error),
    /// The connection ended or the answer was not HTTP.
    Broken(hyper::Error),
}

/// A client of one origin (`http://127.0.0.1:1234`), with or without a bearer token.
#[derive(Clone, Debug)]
pub struct Client {
    origin: String,
    headers: HeaderMap,
}

impl Client {
    /// Makes a client of `origin` without a token.
    pub fn new(origin: &str) -> Self {
        Self { origin: origin.trim_end_matches('/').to_owned(), headers: HeaderMap::new() }
    }

    /// Adds a header to every request of this client.
    ///
    /// # Panics
    ///
    /// If the value cannot be a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    /// Sends this bearer token with every request of this client.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// Returns the origin that it calls.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Calls a query.
    pub async fn query(&self, nsid: &str, parameters: &[(&str, &str)]) -> Answer {
        let query = serde_html_form::to_string(parameters).unwrap();
        let joint = if query.is_empty() { "" } else { "?" };
        self.get(&format!("/xrpc/{nsid}{joint}{query}")).await
    }

    /// Calls a procedure with a JSON body.
    pub async fn procedure(&self, nsid: &str, input: &Value) -> Answer {
        self.post(&format!("/xrpc/{nsid}"), "application/json", input.to_string()).await
    }

    /// Calls a procedure without a body.
    pub async fn call(&self, nsid: &str) -> Answer {
        let request = self.request(Method::POST, &format!("/xrpc/{nsid}"));
        // No content type: some servers refuse one on a call without a body.
        self.send(request.body(Full::new(Bytes::new())).unwrap()).await
    }

    /// Gets a path.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).body(Full::new(Bytes::new())).unwrap()).await
    }

    /// Posts to a path.
    pub async fn post(&self, path: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", kind);
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    /// Builds a request with this client's headers.
    ///
    /// # Panics
    ///
    /// Never: the builder keeps its errors for later.
    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Panics
    ///
    /// If no answer arrives.
    pub async fn send<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.try_send(request).await.unwrap_or_else(|why| panic!("{} did not answer: {why:?}", self.origin))
    }

    /// Sends a request and reads the whole answer.
    pub async fn try_send<B>(&self, request: Request<B>) -> Result<Answer, NoAnswer>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = self.open(request).await?.into_parts();
        let body = body.collect().await.map_err(NoAnswer::Broken)?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Sends a request and returns the answer with its body still to be read.
    pub async fn open<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, NoAnswer>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let authority = self.authority().to_owned();
        let stream = TcpStream::connect(&authority).await.map_err(NoAnswer::Unreachable)?;
        // Nagle's algorithm would delay small writes and distort tests that measure time.
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(NoAnswer::Broken)?;
        // The connection must be polled while the answer is awaited. It ends with its last request.
        tokio::spawn(connection);
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", authority.parse().unwrap());
        }
        sender.send_request(request).await.map_err(NoAnswer::Broken)
    }

    /// Sends exactly these bytes, and reads until the other side closes or sends nothing for two
    /// seconds.
    ///
    /// # Panics
    ///
    /// If the port is closed.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.authority()).await.unwrap();
        // A server may refuse a request before it has read all of it.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut piece = vec![0; 65536];
        // The timeout is per read. Without it, a server that keeps the connection open would block
        // the test.
        while let Ok(Ok(length @ 1..)) =
            tokio::time::timeout(Duration::from_secs(2), stream.read(&mut piece)).await
        {
            answer.extend_from_slice(piece.get(..length).unwrap_or_default());
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Returns the host and port.
    pub fn authority(&self) -> &str {
        self.origin.strip_prefix("http://").unwrap_or(&self.origin)
    }
}
