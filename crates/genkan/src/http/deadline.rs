//! The time within which a method is answered.

use std::convert::Infallible;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::wire::XrpcError;

/// Answers 503 when the work takes longer than `limit`, for example because a host, the directory or the
/// database is silent. A procedure goes on without its client, so a repeated request finds what the
/// first one did.
pub(super) async fn answer_in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let goes_on = request.method() == Method::POST;
    let (request, read) = noting_the_end(request);
    let work = next.run(request);
    let late = async {
        // The client's own time for its body does not count: the edge has a limit for that.
        let _ = read.await;
        tokio::time::sleep(limit).await;
    };
    if goes_on {
        // In a task of its own: the work must not stop between two steps.
        let work = tokio::spawn(work);
        tokio::select! {
            biased;
            done = work => match done {
                Ok(response) => response,
                // The layer around this one answers panics.
                Err(broken) => resume_unwind(broken.into_panic()),
            },
            () = late => out_of_time("this takes longer than usual and goes on; send the same request again in a moment"),
        }
    } else {
        tokio::select! {
            biased;
            response = work => response,
            () = late => out_of_time("this takes longer than usual; try again in a moment"),
        }
    }
}

fn out_of_time(message: &'static str) -> Response {
    XrpcError::unavailable(message).into_response()
}

/// The longest time between the last byte of a request and its answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Returns the request, and what resolves as soon as its body was read or is not wanted.
fn noting_the_end(request: Request) -> (Request, oneshot::Receiver<Infallible>) {
    let (unread, read) = oneshot::channel();
    (request.map(|inner| Body::new(NotedBody { inner, _unread: unread })), read)
}

/// A body that drops its half of a channel when it is dropped itself.
struct NotedBody {
    inner: Body,
    _unread: oneshot::Sender<Infallible>,
}

impl HttpBody for NotedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{get, post};
    use http::StatusCode;
    use http::header::RETRY_AFTER;
    use tokio::sync::oneshot::error::TryRecvError;
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

    #[tokio::test]
    async fn the_time_begins_when_the_body_is_read_or_not_wanted() {
        let (request, mut read) = noting_the_end(Request::new(Body::from("all of it")));
        assert!(matches!(read.try_recv(), Err(TryRecvError::Empty)));
        assert_eq!(axum::body::to_bytes(request.into_body(), 100).await.unwrap(), "all of it");
        assert!(matches!(read.try_recv(), Err(TryRecvError::Closed)));
        let (request, mut read) = noting_the_end(Request::new(Body::from("not wanted")));
        drop(request);
        assert!(matches!(read.try_recv(), Err(TryRecvError::Closed)));
    }
}
