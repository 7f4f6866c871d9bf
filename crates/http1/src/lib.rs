//! An HTTP/1.1 client for one thread, and a strict reader of HTTP/1.1 requests.
//!
//! It is made for a gateway, which passes requests on to a few servers and streams the answers
//! back. It knows nothing of what the requests are about.
//!
//! # How a request travels
//!
//! ```text
//!              Pool ── admit ──► Permit          one request is under way until the Permit drops
//!                │
//! Exchange ── send ──► UpstreamConnection        an idle one of the pool, or a new one
//!                         │      ▲
//!      head and Upload ───┘      └─── Answer     the head has come: status, headers, framing, keep
//!                                       │
//!                                  AnswerBody    reads on; gives the connection back at its end
//! ```
//!
//! * A [`Pool`] has the connections of one thread to one server, and shares a [`Breaker`] with the
//!   pools of other threads. [`Pool::admit`] refuses at once when the server is busy or failing.
//! * An [`Exchange`] has a [`RequestHead`], which the caller implements. [`Exchange::send`] takes
//!   the body and returns when the answer's head has come, or says whose fault it is that none did:
//!   [`Error`]. It counts answers and failures in the pool's breaker. No status counts: a server passes
//!   on those of servers behind it. Where another server may have to answer, neither does silence: see
//!   [`Answerer`].
//! * An [`AnswerBody`] streams. A reader that is slow slows the server down, and a reader that
//!   drops the body before its end closes the connection, because the unread rest would be taken
//!   for the next answer.
//! * An [`Upload`] counts and limits a request's body. A small body can be kept for a second try
//!   ([`KeptBody`]), for servers that name a nonce in their first answer.
//! * [`Deadlines`] ends the wait for an answer's head without a timer per request. Its owner calls
//!   [`Deadlines::scan`] a few times a second, and [`Pool::close_old`] now and then.
//!
//! All of it belongs to one thread and uses `Rc`; only breakers are shared. There are no tasks and
//! no channels: the task that wants the answer does the work.
//!
//! # Reading strictly
//!
//! A gateway stands between parsers. An attacker who finds two of them that disagree about where a
//! message ends can put bytes into other people's messages. So everything here refuses what is
//! ambiguous instead of repairing it: [`RequestFraming`] for requests, [`read_answer_head`] and
//! [`AnswerFraming`] for answers.
//!
//! # An example
//!
//! ```
//! use std::rc::Rc;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use http::Method;
//! use http_body_util::{BodyExt, Empty};
//! use http1::*;
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! /// A `GET` without fields of its own.
//! struct Get;
//!
//! impl RequestHead for Get {
//!     type Fields = KeepAll;
//!     type Error = Error;
//!
//!     fn method(&self) -> &Method {
//!         &Method::GET
//!     }
//!
//!     fn target(&self) -> &str {
//!         "/"
//!     }
//!
//!     fn write_fields(&self, fields: &mut FieldWriter<'_>) -> Result<(), Error> {
//!         fields.field("accept", b"*/*");
//!         Ok(())
//!     }
//!
//!     fn answer_fields(&self) -> KeepAll {
//!         KeepAll
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let authority = listener.local_addr()?.to_string().parse()?;
//! # tokio::spawn(async move {
//! #     let (mut stream, _) = listener.accept().await.unwrap();
//! #     let mut request = [0; 1024];
//! #     stream.read(&mut request).await.unwrap();
//! #     stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
//! # });
//! # let ring = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
//! # let tls = tokio_rustls::rustls::ClientConfig::builder_with_provider(ring)
//! #     .with_safe_default_protocol_versions()?
//! #     .with_root_certificates(tokio_rustls::rustls::RootCertStore::empty())
//! #     .with_no_client_auth();
//! let second = Duration::from_secs(1);
//! let rules = BreakerRules { failures: 5, window: 10 * second, pause: 10 * second };
//! let limits = PoolLimits { connect: 5 * second, at_once: 100, idle: 10, keep: 30 * second };
//! let pool = Rc::new(Pool::<Empty<Bytes>>::new(
//!     Endpoint::new(false, &authority),
//!     None,
//!     Connector::new(Arc::new(tls)),
//!     Arc::new(Breaker::new(rules)),
//!     limits,
//!     Deadlines::new(),
//! ));
//!
//! let permit = pool.admit(Answerer::Server)?;
//! let exchange = Exchange {
//!     head: &Get,
//!     length: BodyLength::None,
//!     progress: None,
//!     answer_within: 30 * second,
//!     limits: UploadLimits { idle: 30 * second, slow_grace: 10 * second, slow_rate: 1024 },
//! };
//! let answer = exchange.send(&permit, None).await?;
//! let (status, headers, body) = answer.into_parts(permit, 30 * second, 1 << 20);
//! assert_eq!(status, 200);
//! assert_eq!(headers["content-length"], "5");
//! assert_eq!(body.collect().await?.to_bytes(), "hello");
//! # Ok(())
//! # }
//! ```

mod addresses;
mod answer_body;
mod answer_framing;
mod answer_head;
mod breaker;
mod clock;
mod connect;
mod connection;
mod deadlines;
mod error;
mod exchange;
mod outgoing;
mod pool;
mod race;
mod request_framing;
mod request_head;
mod stream;
mod upload;

pub use answer_body::{AnswerBody, CutOff};
pub use answer_framing::{AnswerFraming, Chunk, Piece};
pub use answer_head::{AnswerFields, AnswerHead, KeepAlive, KeepAll, MalformedAnswer, read_answer_head};
pub use breaker::{Answerer, Breaker, BreakerRules, Open, Trial};
pub use connect::{Connector, Endpoint};
pub use deadlines::{Deadlines, Elapsed};
pub use error::{Cause, Error};
pub use exchange::{Answer, Exchange, UploadLimits};
pub use pool::{Permit, Pool, PoolLimits};
pub use race::race;
pub use request_framing::{HeadLimits, RequestFault, RequestFraming};
pub use request_head::{BodyLength, FieldWriter, RequestHead, write_request_head};
pub use stream::write_parts;
pub use upload::{KEPT_AT_MOST, KeepBudget, KeptBody, Upload, UploadProgress, UploadState};
