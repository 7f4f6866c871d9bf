//! The time within which a request is answered.
//!
//! It counts from the head of the request, because the caller is checked before the body is read.
//! Only the time that the client takes for its body does not count: the edge has a limit for that.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::base::{WaitingClient, monotonic_now};
use crate::wire::XrpcError;

/// The longest time until a request is answered, without that of its body.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Answers 503 when the work takes longer than `limit`, for example because a host, the directory or the
/// database is silent. A procedure goes on without its client, so a repeated request finds what the
/// first one did.
pub(super) async fn answer_in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let goes_on = request.method() == Method::POST;
    let (deadline, request) = Deadline::begin(limit, request);
    let work = next.run(request);
    if goes_on {
        let late = "this takes longer than usual and goes on; send the same request again in a moment";
        deadline.go_on(work).await.unwrap_or_else(|| out_of_time(late))
    } else {
        let late = "this takes longer than usual; try again in a moment";
        deadline.stop(work).await.unwrap_or_else(|| out_of_time(late))
    }
}

fn out_of_time(message: &'static str) -> Response {
    XrpcError::unavailable(message).into_response()
}

/// The time in which one request must be answered, and its client.
pub(super) struct Deadline {
    limit: Duration,
    start: Instant,
    body: watch::Receiver<BodyWait>,
    client: Presence,
}

impl Deadline {
    /// Begins the time of a request. The request carries its client ([`Waiting`]) from then on.
    pub(super) fn begin(limit: Duration, mut request: Request) -> (Self, Request) {
        let client = WaitingClient::new();
        request.extensions_mut().insert(client.clone());
        let (wait, body) = watch::channel(BodyWait::default());
        let request = request.map(|inner| Body::new(TimedBody { inner, wait }));
        (Self { limit, start: monotonic_now(), body, client: Presence(client) }, request)
    }

    /// Does `work`, which ends with its time or its client. Returns `None` if the time ended first.
    pub(super) async fn stop<T>(self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.run_out() => None,
        }
    }

    /// Does `work`, which goes on without its client. Returns `None` if the time ended first.
    pub(super) async fn go_on<T>(self, work: impl Future<Output = T> + Send + 'static) -> Option<T>
    where
        T: Send + 'static,
    {
        // In a task of its own: the work must not stop between two steps.
        let mut task = tokio::spawn(work);
        tokio::select! {
            biased;
            done = &mut task => return Some(finished(done)),
            () = self.run_out() => {}
        }
        // The work may be committing what only this client learns of.
        if self.client.0.leave() { None } else { Some(finished(task.await)) }
    }

    /// Waits until the time is over.
    async fn run_out(&self) {
        let mut body = self.body.clone();
        loop {
            let wait = *body.borrow_and_update();
            let changed = async {
                if body.changed().await.is_err() {
                    // The body is gone, so the client is waited for no more.
                    pending::<()>().await;
                }
            };
            if wait.since.is_some() {
                changed.await;
                continue;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(self.start + self.limit + wait.total) => return,
            }
        }
    }
}

/// The result of a task that nothing cancels.
fn finished<T>(done: Result<T, JoinError>) -> T {
    match done {
        Ok(done) => done,
        // The layer around this one answers panics.
        Err(broken) => resume_unwind(broken.into_panic()),
    }
}

/// The client, until its request is answered or dropped.
struct Presence(WaitingClient);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The client of the request, as long as it waits for the answer.
pub(crate) struct Waiting(pub(crate) WaitingClient);

impl<S: Send + Sync> FromRequestParts<S> for Waiting {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Without a deadline the client has no other end to wait for.
        Ok(Self(parts.extensions.get().cloned().unwrap_or_default()))
    }
}

/// How long a client let Genkan wait for its body.
#[derive(Clone, Copy, Debug, Default)]
struct BodyWait {
    total: Duration,
    /// Since when it does now.
    since: Option<Instant>,
}

impl BodyWait {
    fn end(&mut self) -> bool {
        let Some(since) = self.since.take() else { return false };
        self.total += monotonic_now().duration_since(since);
        true
    }
}

/// A body that notes how long its next bytes are waited for.
struct TimedBody {
    inner: Body,
    wait: watch::Sender<BodyWait>,
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if polled.is_pending() {
            self.wait.send_if_modified(|wait| {
                let begins = wait.since.is_none();
                wait.since.get_or_insert_with(monotonic_now);
                begins
            });
        }
        let frame = ready!(polled);
        self.wait.send_if_modified(BodyWait::end);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        // A body can be dropped before its end, for example when it is too large.
        self.wait.send_if_modified(BodyWait::end);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{get, post};
    use futures_util::future::poll_immediate;
    use futures_util::stream;
    use http::StatusCode;
    use http::header::RETRY_AFTER;
    use http_body_util::BodyExt as _;
    use tokio::sync::{Semaphore, mpsc};
    use tower::ServiceExt as _;

    use super::*;

    /// A method that takes as long as the test wants, and notes that it came to its end.
    #[derive(Clone)]
    struct SlowMethod {
        gate: Arc<Semaphore>,
        ended: mpsc::UnboundedSender<()>,
    }

    impl SlowMethod {
        async fn work(self) -> &'static str {
            self.gate.acquire().await.unwrap().forget();
            self.ended.send(()).unwrap();
            "done"
        }
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_503_and_a_procedure_goes_on() {
        for (method, path, goes_on) in [(Method::GET, "/query", false), (Method::POST, "/procedure", true)] {
            let (ended, mut seen) = mpsc::unbounded_channel();
            let slow = SlowMethod { gate: Arc::new(Semaphore::new(0)), ended };
            let (query, procedure, gate) = (slow.clone(), slow.clone(), Arc::clone(&slow.gate));
            let routes = Router::new()
                .route("/query", get(move || query.work()))
                .route("/procedure", post(move |_: Bytes| procedure.work()))
                .layer(from_fn_with_state(Duration::from_millis(1), answer_in_time));
            drop(slow);
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = routes.oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert!(answer.headers().contains_key(RETRY_AFTER));
            gate.add_permits(1);
            // Every sender is gone when the work was dropped, so this waits in neither case.
            assert_eq!(seen.recv().await.is_some(), goes_on, "{path}");
        }
    }

    /// A caller whose check does not end, as long as a table is locked.
    struct SlowCaller;

    impl<S: Send + Sync> FromRequestParts<S> for SlowCaller {
        type Rejection = Infallible;

        async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
            pending().await
        }
    }

    #[tokio::test]
    async fn the_check_of_the_caller_counts() {
        let in_time = from_fn_with_state(Duration::from_millis(1), answer_in_time);
        let routes = Router::new().route("/", post(|_: SlowCaller, _: Bytes| pending::<()>())).layer(in_time);
        let request = Request::post("/").body(Body::from("not read")).unwrap();
        let answer = tokio::time::timeout(Duration::from_mins(1), routes.oneshot(request)).await;
        assert_eq!(answer.unwrap().unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn the_time_that_the_client_takes_for_its_body_does_not_count() {
        for sends_it in [true, false] {
            let (send, parts) = mpsc::unbounded_channel::<Result<&str, Infallible>>();
            let parts = stream::unfold(parts, async |mut parts| Some((parts.recv().await?, parts)));
            let (deadline, request) = Deadline::begin(Duration::ZERO, Request::new(Body::from_stream(parts)));
            let mut body = request.into_body();
            assert!(poll_immediate(body.frame()).await.is_none(), "the client has sent nothing yet");
            let mut run_out = Box::pin(deadline.run_out());
            assert!(poll_immediate(&mut run_out).await.is_none(), "the time stands still");
            let waited = sleep_for_a_moment().await;
            if sends_it {
                send.send(Ok("all of it")).unwrap();
                body.frame().await.unwrap().unwrap();
            } else {
                // A handler that does not want the rest.
                drop(body);
            }
            assert!(deadline.body.borrow().total >= waited);
            run_out.await;
        }
    }

    async fn sleep_for_a_moment() -> Duration {
        let start = monotonic_now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        start.elapsed()
    }

    #[tokio::test]
    async fn what_only_the_client_learns_of_is_not_committed_without_it() {
        let begin = || {
            let (deadline, request) = Deadline::begin(Duration::ZERO, Request::new(Body::empty()));
            let client: &WaitingClient = request.extensions().get().unwrap();
            (deadline, client.clone())
        };
        // The time is over before the commit.
        let (deadline, client) = begin();
        let (gate, (ended, mut outcome)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
        let (opened, work) = (Arc::clone(&gate), client);
        let commit = async move {
            opened.acquire().await.unwrap().forget();
            ended.send(work.detain()).unwrap();
        };
        assert_eq!(deadline.go_on(commit).await, None);
        gate.add_permits(1);
        assert_eq!(outcome.recv().await, Some(false));
        // The client disconnects before it.
        let (deadline, client) = begin();
        drop(deadline);
        assert!(!client.detain());
        // The commit has begun, so the client waits for its end.
        let (deadline, client) = begin();
        assert!(client.detain());
        let slow = async move {
            sleep_for_a_moment().await;
            "committed"
        };
        assert_eq!(deadline.go_on(slow).await, Some("committed"));
    }
}
