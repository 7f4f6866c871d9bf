//! Moving a request to its host, as fast as the host takes it and the client sends it.
//!
//! At most the head and one piece of the body are held. The next piece is asked for when the last one has gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

use super::dial::Wire;
use super::request_head::Length;
use super::upload::{State, Upload};

/// What of a request has not been sent yet.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Bytes of ours that go before the piece: the head, or the frame of a chunk. Used again for each request.
    lead: Vec<u8>,
    /// Bytes of the lead that have gone.
    gone: usize,
    /// What the client has sent.
    piece: Bytes,
    upload: Option<Upload>,
    length: Length,
    is_done: bool,
}

/// Why a request cannot be sent to its end.
#[derive(Debug)]
pub(super) enum SendError {
    /// The host takes no more. What it says by reading tells why.
    Host,
    /// The client is at fault; its upload's progress says how.
    Client,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            lead: Vec::new(),
            gone: 0,
            piece: Bytes::new(),
            upload: None,
            length: Length::None,
            is_done: true,
        }
    }

    /// Begins a request. Its head is to be written into the bytes that come back.
    pub(super) fn begin(&mut self, upload: Option<Upload>, length: Length) -> &mut Vec<u8> {
        self.lead.clear();
        self.gone = 0;
        self.piece = Bytes::new();
        self.upload = upload;
        self.length = length;
        self.is_done = false;
        &mut self.lead
    }

    /// Whether the whole request has gone.
    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    /// Sends what can be sent now. Ready when all has gone.
    pub(super) fn poll(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while !self.is_done {
            let waits_for_client = self.piece.is_empty() && self.poll_client(cx)?.is_pending();
            if self.gone < self.lead.len() || !self.piece.is_empty() {
                let count = ready!(self.poll_write(wire, cx)).map_err(|_| SendError::Host)?;
                if count == 0 {
                    return Poll::Ready(Err(SendError::Host));
                }
                self.went(count);
                continue;
            }
            // Over TLS, what was written may wait for its record to be sent.
            let flushed = Pin::new(&mut *wire).poll_flush(cx).map_err(|_| SendError::Host)?;
            if waits_for_client || flushed.is_pending() {
                return Poll::Pending;
            }
            if let Some(upload) = self.upload.take() {
                upload.tell(State::Done);
            }
            self.is_done = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Gets the next piece, if one is to come.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
        if self.length == Length::None {
            // The last piece was taken before.
            return Poll::Ready(Ok(()));
        }
        loop {
            match ready!(upload.poll_data(cx)) {
                // A chunk of no bytes would be the last one.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    match &mut self.length {
                        Length::Chunked { is_first } => {
                            let line_end = if std::mem::take(is_first) { "" } else { "\r\n" };
                            let frame = format!("{line_end}{:x}\r\n", data.len());
                            forget(&mut self.lead, &mut self.gone);
                            self.lead.extend_from_slice(frame.as_bytes());
                        }
                        Length::Known(left) => {
                            let Some(rest) = left.checked_sub(data.len() as u64) else {
                                upload.tell(State::Broken);
                                return Poll::Ready(Err(SendError::Client));
                            };
                            *left = rest;
                            if rest == 0 {
                                self.length = Length::None;
                            }
                        }
                        Length::None => {}
                    }
                    self.piece = data;
                    return Poll::Ready(Ok(()));
                }
                Some(Err(_)) => return Poll::Ready(Err(SendError::Client)),
                None => {
                    match self.length {
                        Length::Known(1..) => {
                            upload.tell(State::Broken);
                            return Poll::Ready(Err(SendError::Client));
                        }
                        Length::Chunked { is_first } => {
                            forget(&mut self.lead, &mut self.gone);
                            let end: &[u8] = if is_first { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" };
                            self.lead.extend_from_slice(end);
                        }
                        _ => {}
                    }
                    self.length = Length::None;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn poll_write(&self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let lead = self.lead.get(self.gone..).unwrap_or_default();
        let wire = Pin::new(wire);
        if self.piece.is_empty() {
            wire.poll_write(cx, lead)
        } else if lead.is_empty() {
            wire.poll_write(cx, &self.piece)
        } else {
            wire.poll_write_vectored(cx, &[io::IoSlice::new(lead), io::IoSlice::new(&self.piece)])
        }
    }

    fn went(&mut self, count: usize) {
        let of_lead = count.min(self.lead.len() - self.gone);
        self.gone += of_lead;
        self.piece.advance(count - of_lead);
    }
}

/// Makes room for new bytes where all old ones have gone.
fn forget(lead: &mut Vec<u8>, gone: &mut usize) {
    if *gone == lead.len() {
        lead.clear();
        *gone = 0;
    }
}
