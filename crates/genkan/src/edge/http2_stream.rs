//! The tasks of HTTP/2 streams. Each runs on its connection's thread, and ends when its client takes
//! too little of the answer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::activity::Activity;
use super::intake::StreamIntake;

tokio::task_local! {
    static INTAKE: Rc<StreamIntake>;
}

/// The intake of the HTTP/2 stream that the present task serves. `None` on HTTP/1.1.
pub(super) fn intake() -> Option<Rc<StreamIntake>> {
    INTAKE.try_with(Rc::clone).ok()
}

/// Runs the streams of an HTTP/2 connection on the connection's own thread.
#[derive(Clone, Debug)]
pub(super) struct OnThisThread(pub(super) Rc<Activity>);

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        let activity = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let intake = Rc::<StreamIntake>::default();
            let mut stream = pin!(INTAKE.scope(Rc::clone(&intake), future));
            poll_fn(|cx| {
                // The library waits for the client's window and polls nothing else. So only the end
                // of the whole task can end the stream: dropped before its end, it is reset.
                if intake.is_too_slow() {
                    return Poll::Ready(());
                }
                let polled = stream.as_mut().poll(cx).map(|_| ());
                if polled.is_pending() && intake.has_waiting() && intake.register(cx) {
                    activity.watch(&intake);
                }
                polled
            })
            .await;
        });
    }
}
