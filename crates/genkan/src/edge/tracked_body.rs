//! The body of an answer on its way to the client.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http1::CutOff;

use super::activity::Activity;
use super::intake::StreamIntake;
use crate::forward::AnswerBody;

/// An answer's body, which ends its request when it is dropped.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: AnswerBody,
    activity: Rc<Activity>,
    /// `None` on HTTP/1.1, where the connection itself shows what its client takes.
    intake: Option<Rc<StreamIntake>>,
    /// The rest of a piece of which the beginning was handed over.
    rest: Option<Bytes>,
}

impl TrackedBody {
    pub(super) const fn new(
        body: AnswerBody,
        activity: Rc<Activity>,
        intake: Option<Rc<StreamIntake>>,
    ) -> Self {
        Self { body, activity, intake, rest: None }
    }

    /// Hands over the next piece on HTTP/2.
    ///
    /// The library polls for a piece when the client has room for more than all pieces before. It
    /// then takes the whole piece, although the client may have room for one byte only. So pieces
    /// are small, or the client's progress could not be seen.
    fn poll_piece(
        &mut self,
        intake: &StreamIntake,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        intake.all_taken();
        let mut data = match self.rest.take() {
            Some(rest) => rest,
            None => match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            },
        };
        let length = piece(data.len(), self.body.is_end_stream());
        if length < data.len() {
            self.rest = Some(data.split_off(length));
        }
        intake.hand_over(data.len());
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

/// The length of the next piece of so many bytes.
fn piece(length: usize, is_last: bool) -> usize {
    if length > PIECE {
        PIECE
    } else if is_last && length > SMALL {
        // The library drops the body with its last piece, although the client may not have taken
        // it. A last byte that goes alone leaves only when the client has room for it.
        length - 1
    } else {
        length
    }
}

/// The most bytes that are handed over at once: a frame of the default size (RFC 9113 §4.2).
const PIECE: usize = 16 << 10;
/// A body of at most so many bytes is handed over as a whole. It waits in the library's memory,
/// and costs less there than one more frame for each small answer.
const SMALL: usize = 1 << 10;

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = self.get_mut();
        match this.intake.take() {
            None => Pin::new(&mut this.body).poll_frame(cx),
            Some(intake) => {
                let polled = this.poll_piece(&intake, cx);
                this.intake = Some(intake);
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.len() as u64);
        match self.body.size_hint().exact() {
            Some(length) => SizeHint::with_exact(length + rest),
            None => SizeHint::default(),
        }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.activity.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_goes_in_pieces_and_its_last_byte_alone() {
        let pieces = |mut length: usize| {
            let mut all = Vec::new();
            while length > 0 {
                all.push(piece(length, true));
                length -= all.last().unwrap();
            }
            all
        };
        assert_eq!(pieces(SMALL), [SMALL]);
        assert_eq!(pieces(5000), [4999, 1]);
        assert_eq!(pieces(PIECE + 1), [PIECE, 1]);
        assert_eq!(pieces(2 * PIECE), [PIECE, PIECE - 1, 1]);
        assert_eq!(piece(5000, false), 5000, "more follows, so the library keeps the body");
    }
}
