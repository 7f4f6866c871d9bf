//! Sending a request, as fast as the server takes it and its body comes.
//!
//! At most the head and one piece of the body are held. The next piece is requested when the last
//! one has been sent, so a slow server slows down the source of the body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::request_head::BodyLength;
use crate::stream::Stream;
use crate::upload::{Upload, UploadState};

/// The part of a request that has not been sent yet.
#[derive(Debug)]
pub(crate) struct Outgoing<B> {
    /// Bytes that go before the piece: the head, or the frame of a chunk. Each request reuses its
    /// memory.
    lead: Vec<u8>,
    /// Number of bytes of the lead that have been sent.
    gone: usize,
    /// A piece of the body.
    piece: Bytes,
    upload: Option<Upload<B>>,
    left: Left,
    is_done: bool,
}

/// The part of the body that has not been taken from its source yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Known(u64),
    Chunks { is_first: bool },
}

impl From<BodyLength> for Left {
    fn from(length: BodyLength) -> Self {
        match length {
            BodyLength::None => Self::Nothing,
            BodyLength::Known(length) => Self::Known(length),
            BodyLength::Chunked => Self::Chunks { is_first: true },
        }
    }
}

/// Why a request cannot be sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The server reads no more. Reading from it shows why.
    Server,
    /// The body is at fault. Its progress says how.
    Body,
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    pub(crate) fn new() -> Self {
        Self {
            lead: Vec::new(),
            gone: 0,
            piece: Bytes::new(),
            upload: None,
            left: Left::Nothing,
            is_done: true,
        }
    }

    /// Begins a request. The caller writes its head into the bytes that it gets.
    pub(crate) fn begin(&mut self, upload: Option<Upload<B>>, length: BodyLength) -> &mut Vec<u8> {
        self.lead.clear();
        self.gone = 0;
        self.piece = Bytes::new();
        self.upload = upload;
        self.left = length.into();
        self.is_done = false;
        &mut self.lead
    }

    /// Whether the whole request has been sent.
    pub(crate) const fn is_done(&self) -> bool {
        self.is_done
    }

    /// Sends what can be sent now. Ready when everything has been sent.
    pub(crate) fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while !self.is_done {
            // Asked before each write, so that the head and the first piece usually leave together.
            let waits_for_body = self.piece.is_empty() && self.poll_source(cx)?.is_pending();
            if self.gone < self.lead.len() || !self.piece.is_empty() {
                let count = ready!(self.poll_write(stream, cx)).map_err(|_| SendError::Server)?;
                // A write of no bytes means that the connection accepts no more. A retry would loop
                // forever.
                if count == 0 {
                    return Poll::Ready(Err(SendError::Server));
                }
                self.went(count);
                continue;
            }
            // Over TLS, written bytes may wait in a record that is not yet sent. Without this flush
            // the server would wait for them, and Genkan for its answer.
            let flushed = Pin::new(&mut *stream).poll_flush(cx).map_err(|_| SendError::Server)?;
            if waits_for_body || flushed.is_pending() {
                return Poll::Pending;
            }
            if let Some(upload) = self.upload.take() {
                upload.report(UploadState::Done);
            }
            self.is_done = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Gets the next piece, if there is one.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
        if self.left == Left::Nothing {
            // The last piece was taken before. The upload stays until that piece has been sent.
            return Poll::Ready(Ok(()));
        }
        loop {
            match ready!(upload.poll_data(cx)) {
                // An empty chunk would end the body.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    match &mut self.left {
                        Left::Chunks { is_first } => {
                            // The line end of one chunk goes with the size of the next, in one
                            // write.
                            let line_end = if std::mem::take(is_first) { "" } else { "\r\n" };
                            let frame = format!("{line_end}{:x}\r\n", data.len());
                            forget(&mut self.lead, &mut self.gone);
                            self.lead.extend_from_slice(frame.as_bytes());
                        }
                        Left::Known(left) => {
                            // A body longer than announced would be read as the next request.
                            let Some(rest) = left.checked_sub(data.len() as u64) else {
                                upload.report(UploadState::Broken);
                                return Poll::Ready(Err(SendError::Body));
                            };
                            *left = rest;
                            if rest == 0 {
                                self.left = Left::Nothing;
                            }
                        }
                        Left::Nothing => {}
                    }
                    self.piece = data;
                    return Poll::Ready(Ok(()));
                }
                Some(Err(_)) => return Poll::Ready(Err(SendError::Body)),
                None => {
                    match self.left {
                        // The body ended before its announced length. The server would wait for the
                        // rest, so the connection cannot be used again.
                        Left::Known(1..) => {
                            upload.report(UploadState::Broken);
                            return Poll::Ready(Err(SendError::Body));
                        }
                        Left::Chunks { is_first } => {
                            forget(&mut self.lead, &mut self.gone);
                            // The first `CR LF` ends the last chunk's data. Without any chunk there
                            // is none to end.
                            let end: &[u8] = if is_first { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" };
                            self.lead.extend_from_slice(end);
                        }
                        _ => {}
                    }
                    self.left = Left::Nothing;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn poll_write(&self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let lead = self.lead.get(self.gone..).unwrap_or_default();
        let stream = Pin::new(stream);
        if self.piece.is_empty() {
            stream.poll_write(cx, lead)
        } else if lead.is_empty() {
            stream.poll_write(cx, &self.piece)
        } else {
            // One call for both, so that a small request usually leaves in one packet.
            stream.poll_write_vectored(cx, &[io::IoSlice::new(lead), io::IoSlice::new(&self.piece)])
        }
    }

    fn went(&mut self, count: usize) {
        // A vectored write may end anywhere: within the lead, at its end, or within the piece.
        let of_lead = count.min(self.lead.len() - self.gone);
        self.gone += of_lead;
        self.piece.advance(count - of_lead);
    }
}

/// Empties the lead if all of it has been sent.
fn forget(lead: &mut Vec<u8>, gone: &mut usize) {
    if *gone == lead.len() {
        lead.clear();
        *gone = 0;
    }
}
