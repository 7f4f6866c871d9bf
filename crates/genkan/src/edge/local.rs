//! Requests that Genkan answers itself, on the control runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::Sleep;
use tower_service::Service as _;

use crate::forward::AnswerBody;

/// Lets the router answer on the control runtime. Returns `None` if the task panicked outside the
/// router's own guard.
///
/// The answer has a task of its own, so that a client that leaves does not cancel what was begun: a
/// sign-up ends in the same way whether or not its client waits.
pub(super) async fn answer(
    router: &Router,
    control: &Handle,
    request: Request<Incoming>,
    patience: Duration,
) -> Option<Response<AnswerBody>> {
    let request = request.map(|body| axum::body::Body::new(TimedBody { body, patience, timer: None }));
    let mut router = router.clone();
    let answering = control.spawn(async move { router.call(request).await });
    let Ok(response) = answering.await.ok()?;
    Some(response.map(AnswerBody::Local))
}

/// A request body with one time limit for all of it. The bodies that Genkan reads are small.
struct TimedBody {
    body: Incoming,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Late;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Late>>> {
        // Bytes that have arrived count even after the limit, which is meant for clients that send
        // nothing.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Late)));
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        timer.as_mut().poll(cx).map(|()| Some(Err(Late)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body was cut off or did not arrive in time.
#[derive(Debug, thiserror::Error)]
#[error("the request's body did not arrive")]
struct Late;
