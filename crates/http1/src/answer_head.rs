//! Strict reading of an answer's head.
//!
//! What a server says about its answer's length decides where the next answer begins, and so who
//! receives it. A head that two readers might read differently is therefore refused. Only the
//! fields that the caller keeps become header values.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use crate::answer_framing::AnswerFraming;

/// The head of an answer.
#[derive(Debug)]
pub struct AnswerHead {
    /// The status, which is never 1xx: interim answers are skipped.
    pub status: StatusCode,
    /// The fields that the caller kept, and `Content-Length` where there is one.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: AnswerFraming,
    /// How long the connection may be used again.
    pub keep: KeepAlive,
}

/// How long a server keeps its connection for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// The server closes it, or it leaves doubt about where this answer ends.
    Close,
    /// The server names no limit.
    Unlimited,
    /// The server closes it when it was idle for this long.
    AtMost(Duration),
}

/// The caller's choice of an answer's fields. It also learns from fields that it does not keep.
///
/// Framing fields (`Content-Length`, `Transfer-Encoding`, `Connection`, `Keep-Alive`) are not
/// shown.
pub trait AnswerFields {
    /// How many headers the caller adds later: the map gets room for them at once.
    const ADDED: usize = 0;

    /// Looks at one field. `Some` keeps its value under that name.
    ///
    /// The name is in lower case. Fields with a name of more than 32 bytes are not shown.
    fn keep(&mut self, name: &str, value: &[u8]) -> Option<HeaderName>;
}

/// Keeps every field that a header map can hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAll;

impl AnswerFields for KeepAll {
    fn keep(&mut self, name: &str, _: &[u8]) -> Option<HeaderName> {
        HeaderName::from_bytes(name.as_bytes()).ok()
    }
}

/// The bytes are not an HTTP answer, or two readers might read them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not framed as HTTP requires")]
pub struct MalformedAnswer;

/// Reads one head, which ends with its empty line. Returns `None` for an interim answer (1xx),
/// which the final one follows.
///
/// `to_head` says that the request's verb was `HEAD`: such an answer has no body, whatever its
/// fields say (RFC 9112 §6.3).
///
/// ```
/// use http1::{AnswerFraming, KeepAll, read_answer_head};
///
/// let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n".into();
/// let head = read_answer_head(&head, false, &mut KeepAll)?.expect("it is not an interim answer");
/// assert_eq!(head.headers["content-type"], "text/plain");
/// assert_eq!(head.framing, AnswerFraming::Length(5));
///
/// let smuggler = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".into();
/// assert!(read_answer_head(&smuggler, false, &mut KeepAll).is_err());
/// # Ok::<(), http1::MalformedAnswer>(())
/// ```
///
/// # Errors
///
/// [`MalformedAnswer`] when the head leaves doubt. The connection must not be used any more.
pub fn read_answer_head<F: AnswerFields>(
    head: &Bytes,
    to_head: bool,
    fields: &mut F,
) -> Result<Option<AnswerHead>, MalformedAnswer> {
    if has_bare_line_feed(head) {
        return Err(MalformedAnswer);
    }
    // Left uninitialised: writing 100 empty fields first costs more than reading the ten that come.
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, head, &mut room)
        .map_err(|_| MalformedAnswer)?;
    if outcome.is_partial() {
        return Err(MalformedAnswer);
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(MalformedAnswer)?;
    // Genkan's side never asks for another protocol, and what follows would not be HTTP.
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(MalformedAnswer);
    }
    // Fields of an interim answer say nothing about the final one, so they are not even read.
    if status.is_informational() {
        return Ok(None);
    }
    let mut said = FramingFields::default();
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + F::ADDED);
    for field in parsed.headers.iter() {
        let mut lower = [0; LONGEST_NAME];
        // Longer names are not shown to `AnswerFields::keep`, and none of them affects framing.
        let Some(name) = lowered(field.name, &mut lower) else { continue };
        if said.take(name, field.value)? {
            continue;
        }
        if let Some(name) = fields.keep(name, field.value) {
            // The value shares the memory of the head that was read.
            let value =
                HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| MalformedAnswer)?;
            headers.append(name, value);
        }
    }
    if let Some(length) = said.length
        && status != StatusCode::NO_CONTENT
    {
        headers.append(CONTENT_LENGTH, length.into());
    }
    // Removed at the end, because `Connection` may come after the fields that it names.
    for name in said.named {
        headers.remove(name);
    }
    let is_old = parsed.version != Some(1);
    // HTTP/1.0 has no chunks. A server of that version would mean the bytes literally, up to the
    // connection's end.
    if said.is_chunked && is_old {
        return Err(MalformedAnswer);
    }
    let is_bodiless = to_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let framing = match (said.is_chunked, said.length) {
        // Both lengths at once are the classic ambiguity (RFC 9112 §6.1).
        (true, Some(_)) => return Err(MalformedAnswer),
        // Before the arms below: these answers may carry a length, but never a body.
        _ if is_bodiless => AnswerFraming::Over,
        (true, None) => AnswerFraming::chunked(),
        (false, Some(length)) => AnswerFraming::length(length),
        // Neither field: the body lasts until the connection closes, which HTTP/1.0 servers rely
        // on.
        (false, None) => AnswerFraming::UntilClose,
    };
    // A server that announces a body for a 204 may also send it. Those bytes would be taken for the
    // next answer.
    let is_doubtful = status == StatusCode::NO_CONTENT && (said.is_chunked || said.length.unwrap_or(0) > 0);
    // HTTP/1.1 keeps connections by default and HTTP/1.0 closes them (RFC 9112 §9.3).
    let stays = said.connection.unwrap_or(!is_old);
    let keep = match said.timeout {
        _ if !stays || is_doubtful || framing == AnswerFraming::UntilClose => KeepAlive::Close,
        // The server's clock started earlier than ours, by the time that the answer travelled. One
        // second covers it.
        Some(seconds) => KeepAlive::AtMost(Duration::from_secs(seconds.saturating_sub(1))),
        None => KeepAlive::Unlimited,
    };
    Ok(Some(AnswerHead { status, headers, framing, keep }))
}

/// The framing fields' statements about the body and the connection.
#[derive(Debug, Default)]
struct FramingFields {
    length: Option<u64>,
    is_chunked: bool,
    /// Whether the connection stays, if `Connection` says so.
    connection: Option<bool>,
    /// The timeout of `Keep-Alive`, in seconds.
    timeout: Option<u64>,
    /// Fields that `Connection` names: they are for this connection only (RFC 9110 §7.6.1).
    named: Vec<HeaderName>,
}

impl FramingFields {
    /// Takes a framing field. Returns whether it was one.
    fn take(&mut self, name: &str, value: &[u8]) -> Result<bool, MalformedAnswer> {
        match name {
            "content-length" => {
                let length = decimal(value.trim_ascii()).ok_or(MalformedAnswer)?;
                // Even two equal lengths are refused: a reader that joins them sees "5, 5".
                if self.length.replace(length).is_some() {
                    return Err(MalformedAnswer);
                }
            }
            "transfer-encoding" => {
                // Only `chunked` alone says where the body ends. Any other coding would have to be
                // decoded first.
                if self.is_chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(MalformedAnswer);
                }
                self.is_chunked = true;
            }
            "connection" => self.connection(value),
            "keep-alive" => {
                self.timeout = value
                    // Other parameters, such as `max`, do not matter: a connection that the server
                    // closes earlier is noticed before its next use.
                    .split(|byte| *byte == b',')
                    .find_map(|part| decimal(part.trim_ascii().strip_prefix(b"timeout=")?));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn connection(&mut self, value: &[u8]) {
        for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if word.eq_ignore_ascii_case(b"close") {
                // If both are said, closing is the safe reading.
                self.connection = Some(false);
            } else if word.eq_ignore_ascii_case(b"keep-alive") {
                self.connection.get_or_insert(true);
            } else if let Ok(name) = HeaderName::from_bytes(word)
                // The body's length is always passed on, even if the server names it here.
                && name != CONTENT_LENGTH
            {
                self.named.push(name);
            }
        }
    }
}

/// The name in lower case, if it fits.
fn lowered<'a>(name: &str, room: &'a mut [u8; LONGEST_NAME]) -> Option<&'a str> {
    let room = room.get_mut(..name.len())?;
    room.copy_from_slice(name.as_bytes());
    room.make_ascii_lowercase();
    std::str::from_utf8(room).ok()
}

/// Reads a number of digits and nothing else. Returns `None` for more than 18 digits.
fn decimal(text: &[u8]) -> Option<u64> {
    // 18 digits stay below 2^63, so the sum cannot overflow. A sign, a space or a list is not a
    // number.
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// Whether a line ends in a line feed alone. `httparse` forgives that; not every reader does.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head)
        .any(|at| at.checked_sub(1).and_then(|before| head.get(before)) != Some(&b'\r'))
}

/// Returns where the first head in these bytes ends, if its end has come. The first `seen` bytes
/// were searched before and have no end.
pub(crate) fn find_end(bytes: &[u8], seen: usize) -> Option<usize> {
    // The four bytes that end a head may have been cut by the end of the last read.
    let from = seen.saturating_sub(3);
    memchr::memmem::find(bytes.get(from..)?, b"\r\n\r\n").map(|at| from + at + 4)
}

const MAX_FIELDS: usize = 100;
/// The longest name that is read.
const LONGEST_NAME: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<AnswerHead>, MalformedAnswer> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        assert_eq!(find_end(&bytes, 0), Some(bytes.len()), "{text:?}");
        read_answer_head(&bytes, false, &mut KeepAll)
    }

    fn framing(fields: &str) -> Result<AnswerFraming, MalformedAnswer> {
        head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).map(|head| head.unwrap().framing)
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        assert_eq!(framing("Content-Length: 3\r\n"), Ok(AnswerFraming::length(3)));
        assert_eq!(framing("content-length:0\r\n"), Ok(AnswerFraming::Over));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(AnswerFraming::chunked()));
        assert_eq!(framing("x: y\r\n"), Ok(AnswerFraming::UntilClose));
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for fields in ["content-length: 5\r\n", "transfer-encoding: chunked\r\n", ""] {
            for line in ["HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified"] {
                let head = head(&format!("{line}\r\n{fields}\r\n")).unwrap().unwrap();
                assert_eq!(head.framing, AnswerFraming::Over, "{line} {fields}");
            }
            let bytes = Bytes::from(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            let head = read_answer_head(&bytes, true, &mut KeepAll).unwrap().unwrap();
            assert_eq!((head.framing, head.keep), (AnswerFraming::Over, KeepAlive::Unlimited), "{fields}");
        }
        let doubtful = head("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n").unwrap().unwrap();
        assert_eq!(doubtful.keep, KeepAlive::Close, "what follows might be taken for an answer");
    }

    /// What two readers may read differently is no answer.
    #[test]
    fn doubtful_heads_are_refused() {
        for fields in [
            "content-length: 1\r\ncontent-length: 1",
            "content-length: 1\r\nContent-Length: 2",
            "content-length: 1, 1",
            "content-length: +1",
            "content-length: -1",
            "content-length: 0x1",
            "content-length: 1 1",
            "content-length:",
            "content-length: 9999999999999999999",
            "content-length: 1\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 1",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: chunked, chunked",
            "transfer-encoding: identity",
            "transfer-encoding: xchunked",
            "transfer-encoding:",
            "x: y\r\n folded",
            "x: y\r\n\tfolded",
            "x: y\nz: a",
            "x: y\0z",
            "x: y\rz",
            "no colon",
            "space : y",
            ": y",
        ] {
            assert_eq!(framing(&format!("{fields}\r\n")), Err(MalformedAnswer), "{fields:?}");
        }
        for line in [
            "HTTP/1.1 banana",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 099 x",
            "HTTP/2.0 200 OK",
            "HTTP/0.9 200 OK",
            "ICY 200 OK",
            "rubbish",
            "HTTP/1.1 101 Switching Protocols",
            "",
        ] {
            assert!(head(&format!("{line}\r\ncontent-length: 1\r\n\r\n")).is_err(), "{line:?}");
        }
        assert!(head("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(framing(&"x: y\r\n".repeat(MAX_FIELDS)).is_ok());
        assert_eq!(framing(&"x: y\r\n".repeat(MAX_FIELDS + 1)), Err(MalformedAnswer));
    }

    #[test]
    fn interim_answers_are_not_the_answer() {
        for code in ["100 Continue", "102 Processing", "103 Early Hints"] {
            assert!(head(&format!("HTTP/1.1 {code}\r\nlink: x\r\n\r\n")).unwrap().is_none(), "{code}");
        }
    }

    #[test]
    fn a_connection_is_kept_as_its_host_says() {
        let keep = |version: &str, fields: &str| {
            head(&format!("HTTP/{version} 200 OK\r\ncontent-length: 1\r\n{fields}\r\n"))
                .unwrap()
                .unwrap()
                .keep
        };
        assert_eq!(keep("1.1", ""), KeepAlive::Unlimited);
        assert_eq!(keep("1.1", "connection: x, Close\r\n"), KeepAlive::Close);
        assert_eq!(keep("1.1", "connection: keep-alive\r\nconnection: close\r\n"), KeepAlive::Close);
        assert_eq!(keep("1.1", "connection: close, keep-alive\r\n"), KeepAlive::Close);
        assert_eq!(keep("1.0", ""), KeepAlive::Close);
        assert_eq!(keep("1.0", "connection: keep-alive\r\n"), KeepAlive::Unlimited);
        let seconds = |seconds| KeepAlive::AtMost(Duration::from_secs(seconds));
        assert_eq!(keep("1.1", "keep-alive: max=9, timeout=5\r\n"), seconds(4));
        assert_eq!(keep("1.1", "keep-alive: timeout=0\r\n"), seconds(0));
        assert_eq!(keep("1.1", "keep-alive: timeout=soon\r\n"), KeepAlive::Unlimited);
        assert_eq!(
            head("HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap().keep,
            KeepAlive::Close,
            "it ends with its body"
        );
    }

    /// Keeps two fields, as a caller might.
    struct TwoFields;

    impl AnswerFields for TwoFields {
        fn keep(&mut self, name: &str, _: &[u8]) -> Option<HeaderName> {
            ["etag", "vary"].contains(&name).then(|| HeaderName::from_bytes(name.as_bytes()).unwrap())
        }
    }

    #[test]
    fn only_kept_fields_become_headers_and_connection_takes_its_own_back() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: x\r\nVary: a\r\nvary: b\r\n\
             X-Much-Longer-Than-Any-Name-That-Is-Looked-At: x\r\nConnection: etag, content-length\r\n\
             Content-Length: 007\r\n\r\n";
        let head = read_answer_head(&Bytes::from_static(text.as_bytes()), false, &mut TwoFields);
        let headers = head.unwrap().unwrap().headers;
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(lines, ["content-length: 7", "vary: a", "vary: b"]);
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_reads_cut_it() {
        let text = b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nrest\r\n\r\n";
        let whole = text.len() - b"rest\r\n\r\n".len();
        for cut in 0..text.len() {
            let seen = text.get(..cut).unwrap();
            if find_end(seen, 0).is_none() {
                assert_eq!(find_end(text, cut), Some(whole), "{cut}");
            } else {
                assert!(cut >= whole);
            }
        }
    }
}
