//! Reading the head of a host's answer, strictly.
//!
//! A host is the operator's own, yet what it says of its answer's length decides where the next answer begins, and
//! whose it is: whatever two readers might read differently is no answer. Of its headers, only those that may cross
//! are ever made into more than bytes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::answer_headers;
use super::framing::Framing;

/// What a host says before its answer's body.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) status: StatusCode,
    /// Only those that may cross.
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    pub(super) keep: Keep,
    /// What it says to a proof of ours.
    pub(super) to_us: ToUs,
}

/// What a host says to a request that carries our own token.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ToUs {
    /// The nonce that it wants to see next.
    pub(super) nonce: Option<String>,
    /// Its `WWW-Authenticate`.
    pub(super) challenge: Option<String>,
    /// Where it sends us, if we would go.
    pub(super) location: Option<String>,
}

impl ToUs {
    fn take(&mut self, name: &str, value: &[u8], asked: Asked) {
        let text = || std::str::from_utf8(value).ok().map(|text| text.trim().to_owned());
        match name {
            "dpop-nonce" if asked.token == Token::Ours => self.nonce = text(),
            "www-authenticate" if asked.token == Token::Ours => {
                self.challenge = match (self.challenge.take(), text()) {
                    (Some(before), Some(more)) => Some(format!("{before}, {more}")),
                    (before, more) => more.or(before),
                };
            }
            "location" if asked.follows => self.location = text(),
            _ => {}
        }
    }

    /// Whether the challenge names this error, whatever its scheme.
    pub(super) fn names(&self, error: &str) -> bool {
        self.challenge.as_ref().is_some_and(|challenge| challenge.contains(&format!("error=\"{error}\"")))
    }

    /// Whether the challenge is one for proofs, and names this error.
    pub(super) fn says(&self, error: &str) -> bool {
        let Some(challenge) = &self.challenge else { return false };
        let dpop = challenge.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("dpop "))
            || challenge.to_ascii_lowercase().contains(", dpop ");
        dpop && self.names(error)
    }
}

/// What a host says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It will close it.
    Not,
    AsLongAsWePlease,
    AtMost(Duration),
}

/// What the answer belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// It was a `HEAD`: no body follows, whatever the head says.
    pub(super) is_head: bool,
    pub(super) token: Token,
    /// We may go where the answer sends us.
    pub(super) follows: bool,
}

/// The token that a request carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    None,
    /// The caller's own.
    Callers,
    Ours,
}

impl Asked {
    pub(super) fn new(method: &Method, by_caller: bool, is_signed: bool) -> Self {
        let token = match (by_caller, is_signed) {
            (_, true) => Token::Ours,
            (true, false) => Token::Callers,
            (false, false) => Token::None,
        };
        Self { is_head: method == Method::HEAD, token, follows: false }
    }
}

/// It is not the head of an answer, or one that leaves doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crooked;

/// Reads one head, its empty line included. `None`: an interim answer; the one that counts is still to come.
pub(super) fn read(head: &Bytes, asked: Asked) -> Result<Option<AnswerHead>, Crooked> {
    if has_bare_line_feed(head) {
        return Err(Crooked);
    }
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, head, &mut fields)
        .map_err(|_| Crooked)?;
    if status.is_partial() {
        return Err(Crooked);
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Crooked)?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Crooked);
    }
    if status.is_informational() {
        return Ok(None);
    }
    let (mut said, mut to_us) = (Said::default(), ToUs::default());
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + answer_headers::MOST_ADDED);
    for field in parsed.headers.iter() {
        let mut lower = [0; LONGEST_NAME];
        // None of the names that mean anything here is longer.
        let Some(name) = lowered(field.name, &mut lower) else { continue };
        if said.take(name, field.value)? {
            continue;
        }
        if asked.token == Token::Ours || asked.follows {
            to_us.take(name, field.value, asked);
        }
        if let Some(name) = answer_headers::back_to_client(name, asked.token == Token::Callers) {
            let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| Crooked)?;
            headers.append(name, value);
        }
    }
    if let Some(length) = said.length
        && status != StatusCode::NO_CONTENT
    {
        headers.append(http::header::CONTENT_LENGTH, length.into());
    }
    for name in said.named {
        headers.remove(name);
    }
    let is_old = parsed.version != Some(1);
    if said.is_chunked && is_old {
        return Err(Crooked);
    }
    let is_bodiless = asked.is_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let framing = match (said.is_chunked, said.length) {
        (true, Some(_)) => return Err(Crooked),
        _ if is_bodiless => Framing::Over,
        (true, None) => Framing::chunked(),
        (false, Some(length)) => Framing::length(length),
        (false, None) => Framing::UntilClose,
    };
    // A body after an answer that has none would be taken for the next answer.
    let is_doubtful = status == StatusCode::NO_CONTENT && (said.is_chunked || said.length.unwrap_or(0) > 0);
    let stays = match said.connection {
        Some(stays) => stays,
        None => !is_old,
    };
    let keep = match said.timeout {
        _ if !stays || is_doubtful || framing == Framing::UntilClose => Keep::Not,
        // Its side of the clock began to run before ours.
        Some(seconds) => Keep::AtMost(Duration::from_secs(seconds.saturating_sub(1))),
        None => Keep::AsLongAsWePlease,
    };
    Ok(Some(AnswerHead { status, headers, framing, keep, to_us }))
}

/// What the fields say of the body and of the connection.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    is_chunked: bool,
    /// Whether the connection stays, if it says.
    connection: Option<bool>,
    /// Seconds.
    timeout: Option<u64>,
    /// Fields that are for this connection only.
    named: Vec<HeaderName>,
}

impl Said {
    /// Takes a field, if it is one of framing.
    fn take(&mut self, name: &str, value: &[u8]) -> Result<bool, Crooked> {
        match name {
            "content-length" => {
                let length = decimal(value.trim_ascii()).ok_or(Crooked)?;
                if self.length.replace(length).is_some() {
                    return Err(Crooked);
                }
            }
            "transfer-encoding" => {
                if self.is_chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Crooked);
                }
                self.is_chunked = true;
            }
            "connection" => self.connection(value),
            "keep-alive" => {
                self.timeout = value
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
                self.connection = Some(false);
            } else if word.eq_ignore_ascii_case(b"keep-alive") {
                self.connection.get_or_insert(true);
            } else if let Ok(name) = HeaderName::from_bytes(word)
                && name != http::header::CONTENT_LENGTH
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

/// Digits and nothing else, as many as fit.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// The parser forgives lines that end in nothing but a line feed; not every reader does.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head)
        .any(|at| at.checked_sub(1).and_then(|before| head.get(before)) != Some(&b'\r'))
}

/// Where the first head in these bytes ends, if its end has come. `seen` were looked at before.
pub(super) fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    memchr::memmem::find(bytes.get(from..)?, b"\r\n\r\n").map(|at| from + at + 4)
}

const MAX_FIELDS: usize = 100;
/// The longest name that is looked at.
const LONGEST_NAME: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(is_head: bool) -> Asked {
        Asked { is_head, token: Token::Callers, follows: false }
    }

    fn head(text: &str) -> Result<Option<AnswerHead>, Crooked> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        assert_eq!(end(&bytes, 0), Some(bytes.len()), "{text:?}");
        read(&bytes, asked(false))
    }

    fn framing(fields: &str) -> Result<Framing, Crooked> {
        head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).map(|head| head.unwrap().framing)
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        assert_eq!(framing("Content-Length: 3\r\n"), Ok(Framing::length(3)));
        assert_eq!(framing("content-length:0\r\n"), Ok(Framing::Over));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::chunked()));
        assert_eq!(framing("x: y\r\n"), Ok(Framing::UntilClose));
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for fields in ["content-length: 5\r\n", "transfer-encoding: chunked\r\n", ""] {
            for line in ["HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified"] {
                let head = head(&format!("{line}\r\n{fields}\r\n")).unwrap().unwrap();
                assert_eq!(head.framing, Framing::Over, "{line} {fields}");
            }
            let bytes = Bytes::from(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            let head = read(&bytes, asked(true)).unwrap().unwrap();
            assert_eq!((head.framing, head.keep), (Framing::Over, Keep::AsLongAsWePlease), "{fields}");
        }
        let doubtful = head("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n").unwrap().unwrap();
        assert_eq!(doubtful.keep, Keep::Not, "what follows might be taken for an answer");
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
            assert_eq!(framing(&format!("{fields}\r\n")), Err(Crooked), "{fields:?}");
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
        assert_eq!(framing(&"x: y\r\n".repeat(MAX_FIELDS + 1)), Err(Crooked));
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
        assert_eq!(keep("1.1", ""), Keep::AsLongAsWePlease);
        assert_eq!(keep("1.1", "connection: x, Close\r\n"), Keep::Not);
        assert_eq!(keep("1.1", "connection: keep-alive\r\nconnection: close\r\n"), Keep::Not);
        assert_eq!(keep("1.1", "connection: close, keep-alive\r\n"), Keep::Not);
        assert_eq!(keep("1.0", ""), Keep::Not);
        assert_eq!(keep("1.0", "connection: keep-alive\r\n"), Keep::AsLongAsWePlease);
        let seconds = |seconds| Keep::AtMost(Duration::from_secs(seconds));
        assert_eq!(keep("1.1", "keep-alive: max=9, timeout=5\r\n"), seconds(4));
        assert_eq!(keep("1.1", "keep-alive: timeout=0\r\n"), seconds(0));
        assert_eq!(keep("1.1", "keep-alive: timeout=soon\r\n"), Keep::AsLongAsWePlease);
        assert_eq!(
            head("HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap().keep,
            Keep::Not,
            "it ends with its body"
        );
    }

    #[test]
    fn only_what_may_cross_is_made_a_header() {
        let head = head(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=b\r\nETag: x\r\nVary: a\r\nvary: b\r\n\
             X-Much-Longer-Than-Any-Name-That-We-Know: x\r\nConnection: etag, content-length\r\n\
             Content-Length: 007\r\n\r\n",
        );
        let headers = head.unwrap().unwrap().headers;
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(lines, ["content-length: 7", "content-type: text/plain", "vary: a", "vary: b"]);
    }

    #[test]
    fn what_is_said_to_our_proof_is_for_us_alone() {
        let text = "HTTP/1.1 401 Unauthorized\r\nDPoP-Nonce: n\r\n\
            WWW-Authenticate: DPoP algs=\"ES256\", error=\"use_dpop_nonce\"\r\ncontent-length: 0\r\n\r\n";
        let read_as = |token| {
            let asked = Asked { is_head: false, token, follows: false };
            read(&Bytes::copy_from_slice(text.as_bytes()), asked).unwrap().unwrap()
        };
        let ours = read_as(Token::Ours);
        assert_eq!(ours.to_us.nonce.as_deref(), Some("n"));
        assert!(ours.to_us.says("use_dpop_nonce") && !ours.to_us.says("invalid_token"));
        assert_eq!(ours.headers.len(), 1);
        let own = read_as(Token::Callers);
        assert_eq!(own.to_us, ToUs::default());
        assert!(own.headers.contains_key("www-authenticate") && !own.headers.contains_key("dpop-nonce"));
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_reads_cut_it() {
        let text = b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nrest\r\n\r\n";
        let whole = text.len() - b"rest\r\n\r\n".len();
        for cut in 0..text.len() {
            let seen = text.get(..cut).unwrap();
            if end(seen, 0).is_none() {
                assert_eq!(end(text, cut), Some(whole), "{cut}");
            } else {
                assert!(cut >= whole);
            }
        }
    }
}
