//! Framing of HTTP/1.1 messages, against a second reader.

use bytes::{Bytes, BytesMut};
use http1::{AnswerFraming, HeadLimits, KeepAll, MalformedAnswer, Piece, RequestFault, RequestFraming};
use httparse::Status;

/// The bytes of one connection from a client. However they are cut, the outcome is one; and a
/// reader made of `httparse` that accepts them sees each request end at the same byte.
pub fn request_framing(bytes: &[u8]) {
    let whole = follow(bytes, bytes.len().max(1));
    assert_eq!(follow(bytes, 1), whole);
    assert_eq!(follow(bytes, 7), whole);
    let Ok(at) = whole else { return };
    if let Some(seen) = second_reader(bytes) {
        assert_eq!(at, seen);
    }
}

/// The place at which the bytes of a connection stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    BetweenRequests,
    WithinHead,
    WithinBody,
}

fn follow(bytes: &[u8], cut: usize) -> Result<Stop, RequestFault> {
    let mut framing = RequestFraming::new(HeadLimits { bytes: 4096, fields: 50, target: 1024 });
    bytes.chunks(cut).try_for_each(|piece| framing.follow(piece))?;
    Ok(if framing.is_between_requests() {
        Stop::BetweenRequests
    } else if framing.is_within_head() {
        Stop::WithinHead
    } else {
        Stop::WithinBody
    })
}

/// Reads requests as an ordinary server does. `None`: it refuses them, which is never wrong.
fn second_reader(bytes: &[u8]) -> Option<Stop> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut room = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut room);
        let Status::Complete(head) = request.parse(rest).ok()? else { return Some(Stop::WithinHead) };
        let field = |name: &str| {
            request
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case(name))
                .map(|field| field.value)
        };
        let body = rest.get(head..)?;
        rest = if field("transfer-encoding").is_some() {
            let Some(rest) = after_chunks(body)? else { return Some(Stop::WithinBody) };
            rest
        } else {
            let length = field("content-length").map_or(Some(0), number)?;
            let Some(rest) = body.get(length..) else { return Some(Stop::WithinBody) };
            rest
        };
    }
    Some(Stop::BetweenRequests)
}

/// The bytes after a chunked body. Outer `None`: refused; inner `None`: the body has not ended.
fn after_chunks(mut rest: &[u8]) -> Option<Option<&[u8]>> {
    loop {
        let Status::Complete((line, size)) = httparse::parse_chunk_size(rest).ok()? else {
            return Some(None);
        };
        rest = rest.get(line..)?;
        if size == 0 {
            let mut room = [httparse::EMPTY_HEADER; 64];
            return Some(match httparse::parse_headers(rest, &mut room).ok()? {
                Status::Complete((trailers, _)) => rest.get(trailers..),
                Status::Partial => None,
            });
        }
        let Some(after) = usize::try_from(size).ok()?.checked_add(2).and_then(|end| rest.get(end..)) else {
            return Some(None);
        };
        rest = after;
    }
}

fn number(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// The head of an answer. What its fields say of the body is what the framing does.
pub fn answer_head(bytes: &[u8]) {
    let (&first, head) = bytes.split_first().unwrap_or((&0, &[]));
    let to_head = first % 2 == 1;
    let Ok(Some(head)) = http1::read_answer_head(&Bytes::copy_from_slice(head), to_head, &mut KeepAll) else {
        return;
    };
    assert!(!head.status.is_informational());
    for name in ["transfer-encoding", "connection", "keep-alive"] {
        assert!(!head.headers.contains_key(name), "{name} is for one connection only");
    }
    if let AnswerFraming::Length(length) = head.framing {
        assert!(head.headers.get_all("content-length").iter().all(|said| *said == length.to_string()));
    }
    assert!(!to_head || head.framing == AnswerFraming::Over);
}

/// A chunked body. However it is cut, the data is one, and a reader made of `httparse` sees the
/// same.
pub fn answer_chunks(bytes: &[u8]) {
    let whole = unchunk(bytes, bytes.len().max(1));
    assert_eq!(unchunk(bytes, 1), whole);
    assert_eq!(unchunk(bytes, 5), whole);
    let Ok((_, is_over, rest)) = whole else { return };
    match after_chunks(bytes) {
        Some(Some(after)) => assert_eq!((is_over, rest), (true, after.len())),
        Some(None) => assert!(!is_over),
        None => {}
    }
}

/// The data, whether the body is over, and how many bytes follow it.
fn unchunk(bytes: &[u8], cut: usize) -> Result<(Vec<u8>, bool, usize), MalformedAnswer> {
    let mut framing = AnswerFraming::chunked();
    let (mut read, mut data) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        read.extend_from_slice(piece);
        while let Piece::Data(more) = framing.take(&mut read)? {
            data.extend_from_slice(&more);
        }
    }
    Ok((data, framing.is_over(), read.len()))
}
