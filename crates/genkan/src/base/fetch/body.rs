//! Reading a response body within limits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

/// Why a body was not read to its end.
#[derive(Debug)]
pub(super) enum BodyError {
    TooLarge,
    /// No byte arrived within the idle limit.
    Idle,
    Cut(hyper::Error),
}

/// Reads all of `body`, at most `limit` bytes. An announced length above it fails at once.
pub(super) async fn read(mut body: Incoming, limit: usize, idle: Duration) -> Result<Bytes, BodyError> {
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |announced| announced > limit) {
        return Err(BodyError::TooLarge);
    }
    let mut all = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::Idle)?;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        if let Ok(data) = frame.map_err(BodyError::Cut)?.into_data() {
            if all.len() + data.len() > limit {
                return Err(BodyError::TooLarge);
            }
            all.extend_from_slice(&data);
        }
    }
}
