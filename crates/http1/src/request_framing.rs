//! Strict reading of HTTP/1 requests, before another library parses them.
//!
//! A server library usually forgives what another server might read differently: a bare line feed,
//! a missing or second `Host`, both kinds of length. If the servers on either side of Genkan
//! disagree about where a request ends, one client can put bytes into another client's request
//! (request smuggling). So [`RequestFraming`] follows a connection's bytes from head to body to the
//! next head, and the first ambiguity ends the connection (RFC 9112 §6.3, §11.2). It changes and
//! copies nothing. It keeps only a line that the end of a read has cut, until the rest comes.

/// Follows the requests of one connection.
///
/// ```
/// use http1::{HeadLimits, RequestFault, RequestFraming};
///
/// let mut framing = RequestFraming::new(HeadLimits { bytes: 8192, fields: 100, target: 4096 });
/// framing.follow(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-").unwrap();
/// assert!(framing.is_within_head());
/// framing.follow(b"Length: 2\r\n\r\nab").unwrap();
/// assert!(framing.is_between_requests());
/// assert!(matches!(framing.follow(b"GET / HTTP/1.1\n"), Err(RequestFault::Ambiguous(_))));
/// ```
#[derive(Debug)]
pub struct RequestFraming {
    limits: HeadLimits,
    at: At,
    head: Head,
    /// The beginning of a line whose end has not come yet.
    cut: Vec<u8>,
}

/// How large a request's head may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the whole head; also of one chunk-size line, and of all trailers.
    pub bytes: usize,
    /// Fields of a head.
    pub fields: usize,
    /// Bytes of the request's target.
    pub target: usize,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// Two readers might not agree on what the bytes mean.
    #[error("{0}")]
    Ambiguous(&'static str),
    /// The head has too many bytes or fields.
    #[error("the request's head is too large")]
    HeadTooLarge,
    /// The request's target has too many bytes.
    #[error("the request's target is too long")]
    TargetTooLong,
    /// The verb is in lower case, or is `TRACE` or `CONNECT`, which no ordinary server serves.
    #[error("the request's verb is not served")]
    Verb,
}

/// Where in a request the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    /// A body, of which this many bytes are still to come.
    Body(u64),
    ChunkSize,
    /// A chunk, of which this many bytes are still to come, its line end included.
    Chunk(u64),
    Trailer,
}

/// The statements of a head's fields so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: usize,
    fields: usize,
    has_request_line: bool,
    hosts: u8,
    length: Option<u64>,
    is_chunked: bool,
}

impl RequestFraming {
    /// A reader at the beginning of a connection.
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, at: At::Head, head: Head::default(), cut: Vec::new() }
    }

    /// Whether a head has begun and not ended.
    pub fn is_within_head(&self) -> bool {
        self.at == At::Head && self.head.bytes > 0
    }

    /// Whether the next byte begins a request.
    pub fn is_between_requests(&self) -> bool {
        self.at == At::Head && self.head.bytes == 0
    }

    /// Follows the bytes that were just read, wherever reads have cut them.
    ///
    /// # Errors
    ///
    /// A [`RequestFault`] when the connection has to end. Nothing may be followed after it.
    pub fn follow(&mut self, mut fresh: &[u8]) -> Result<(), RequestFault> {
        // One read may contain the end of a body, several whole requests (pipelining) and the start
        // of another.
        while !fresh.is_empty() {
            fresh = match self.at {
                At::Head | At::ChunkSize | At::Trailer => self.take_line(fresh)?,
                At::Body(left) => {
                    // Bodies are skipped unread. Only their length matters here.
                    let (taken, rest) = split(fresh, left);
                    self.at = if taken == left { At::Head } else { At::Body(left - taken) };
                    rest
                }
                At::Chunk(left) => {
                    let (taken, rest) = split(fresh, left);
                    self.at = if taken == left { At::ChunkSize } else { At::Chunk(left - taken) };
                    rest
                }
            };
        }
        Ok(())
    }

    /// Takes bytes up to the end of a line.
    fn take_line<'a>(&mut self, fresh: &'a [u8]) -> Result<&'a [u8], RequestFault> {
        let Some(end) = memchr::memchr(b'\n', fresh) else {
            // Counted before it is kept, so `cut` never grows beyond the limit of a head.
            self.count(fresh.len())?;
            self.cut.extend_from_slice(fresh);
            return Ok(&[]);
        };
        let (line, rest) = fresh.split_at(end + 1);
        self.count(line.len())?;
        if self.cut.is_empty() {
            self.line(line)?;
        } else {
            let mut whole = std::mem::take(&mut self.cut);
            whole.extend_from_slice(line);
            self.line(&whole)?;
        }
        Ok(rest)
    }

    /// Counts bytes of a head, a chunk-size line or trailers, none of which may be endless.
    fn count(&mut self, bytes: usize) -> Result<(), RequestFault> {
        self.head.bytes += bytes;
        if self.head.bytes <= self.limits.bytes {
            return Ok(());
        }
        // Before the end of the request line, the target is the part that does not end.
        let in_target = self.at == At::Head && !self.head.has_request_line;
        Err(if in_target { RequestFault::TargetTooLong } else { RequestFault::HeadTooLarge })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), RequestFault> {
        let line = line
            // Some readers accept a bare LF as a line end and others do not. They would see
            // different fields.
            .strip_suffix(b"\r\n")
            .ok_or(RequestFault::Ambiguous("lines of the request head must end in CR LF"))?;
        // A bare CR ends a line for some readers, and NUL ends the text for those written in C.
        if memchr::memchr2(b'\r', 0, line).is_some() {
            return Err(RequestFault::Ambiguous("CR and NUL are not allowed in the request head"));
        }
        match self.at {
            At::ChunkSize => self.chunk_size(line),
            At::Trailer => {
                if line.is_empty() {
                    self.next_head();
                }
                Ok(())
            }
            // The order of the arms matters: an empty line before the request line is skipped, and
            // one after it ends the head.
            _ if !self.head.has_request_line => self.request_line(line),
            _ if line.is_empty() => self.head_ends(),
            _ => self.field(line),
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), RequestFault> {
        // Some old clients send an empty line after a body. A server should skip it (RFC 9112
        // §2.2).
        if line.is_empty() {
            return Ok(());
        }
        let mut words = line.split(|byte| *byte == b' ');
        // The words are not checked further: the server library parses the line again and refuses
        // what is malformed.
        let (verb, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if target.len() > self.limits.target {
            return Err(RequestFault::TargetTooLong);
        }
        // Verbs are case-sensitive (RFC 9110 §9.1). A server behind Genkan might fold `get` to
        // `GET` and treat it as a read, so lower case is refused.
        if verb.iter().any(u8::is_ascii_lowercase) || matches!(verb, b"TRACE" | b"CONNECT") {
            return Err(RequestFault::Verb);
        }
        self.head.has_request_line = true;
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), RequestFault> {
        self.head.fields += 1;
        if self.head.fields > self.limits.fields {
            return Err(RequestFault::HeadTooLarge);
        }
        // Obsolete line folding (RFC 9112 §5.2): some readers join the line to the field before it.
        if line.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
            return Err(RequestFault::Ambiguous("folded header lines are not allowed"));
        }
        // A space before the colon needs no check of its own: such a name equals none below, and
        // the server library refuses it (RFC 9112 §5.1).
        let name_ends =
            memchr::memchr(b':', line).ok_or(RequestFault::Ambiguous("a header line has no colon"))?;
        let (name, value) = line.split_at(name_ends);
        let value = || value.get(1..).unwrap_or_default().trim_ascii();
        // Only three fields decide where a request begins and ends. Their lengths rule out nearly
        // all other fields before any letter is compared.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.head.hosts = self.head.hosts.saturating_add(1);
                if !is_host(value()) {
                    return Err(RequestFault::Ambiguous("the Host header is not a valid host"));
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length =
                    number(value(), 10).ok_or(RequestFault::Ambiguous("Content-Length must be a number"))?;
                // Even two equal lengths are refused: a reader that joins them sees "1, 1".
                if self.head.length.replace(length).is_some() {
                    return Err(RequestFault::Ambiguous("duplicate Content-Length header"));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                // Some readers decode any other coding, or `chunked` twice, and others do not.
                if self.head.is_chunked || !value().eq_ignore_ascii_case(b"chunked") {
                    return Err(RequestFault::Ambiguous("the only transfer coding allowed is chunked, once"));
                }
                self.head.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn head_ends(&mut self) -> Result<(), RequestFault> {
        let head = std::mem::take(&mut self.head);
        // Two readers may route a request with no or two hosts differently (RFC 9112 §3.2).
        if head.hosts != 1 {
            return Err(RequestFault::Ambiguous("exactly one Host header is required"));
        }
        self.at = match (head.is_chunked, head.length) {
            // The classic smuggling request: one reader believes the length, the other the chunks.
            (true, Some(_)) => {
                return Err(RequestFault::Ambiguous(
                    "Content-Length and Transfer-Encoding must not be combined",
                ));
            }
            (true, None) => At::ChunkSize,
            // A request without either field has no body (RFC 9112 §6.3), like one of length zero.
            // The next head follows.
            (false, None | Some(0)) => At::Head,
            (false, Some(length)) => At::Body(length),
        };
        Ok(())
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), RequestFault> {
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size =
            number(digits.trim_ascii_end(), 16).ok_or(RequestFault::Ambiguous("invalid chunk size"))?;
        // The count starts again, so that the limit applies to each line and not to the whole body.
        self.head = Head::default();
        self.at = match size.checked_add(2) {
            // A chunk of size zero is the last one. It has no data and no line end of its own.
            _ if size == 0 => At::Trailer,
            Some(with_line_end) => At::Chunk(with_line_end),
            None => return Err(RequestFault::Ambiguous("invalid chunk size")),
        };
        Ok(())
    }

    fn next_head(&mut self) {
        self.at = At::Head;
        self.head = Head::default();
    }
}

/// Splits off at most this many bytes. Returns their number and the rest.
fn split(bytes: &[u8], most: u64) -> (u64, &[u8]) {
    let taken = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    (taken as u64, bytes.split_at(taken).1)
}

/// Reads a number of digits and nothing else, no sign or space. Returns `None` for more than 18
/// digits.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        // 18 hexadecimal digits can exceed 64 bits, so both steps are checked.
        sum.checked_mul(u64::from(radix))?.checked_add(u64::from(char::from(*byte).to_digit(radix)?))
    })
}

/// Whether a `Host` is a name or an address, with or without a port (RFC 9110 §7.2).
fn is_host(value: &[u8]) -> bool {
    // Stricter than RFC 3986 §3.2.2: no escapes and no user name, which servers read differently.
    let host = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    match value.strip_prefix(b"[") {
        Some(bracketed) => match memchr::memchr(b']', bracketed) {
            Some(end) => {
                let (address, port) = bracketed.split_at(end);
                // `port` begins with the bracket itself, which is skipped.
                !address.is_empty() && address.iter().all(host) && port.iter().skip(1).all(host)
            }
            None => false,
        },
        None => {
            !value.is_empty()
                && value.iter().all(host)
                // At most one colon, before the port: an IPv6 address must be in brackets.
                && value.iter().filter(|byte| **byte == b':').nth(1).is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 5, target: 100 };

    /// Follows the bytes whole and cut at every place: both must say the same.
    fn follow(bytes: &str) -> Result<bool, RequestFault> {
        let mut whole = RequestFraming::new(LIMITS);
        let outcome = whole.follow(bytes.as_bytes()).map(|()| whole.at == At::Head && whole.head.bytes == 0);
        let mut pieces = RequestFraming::new(LIMITS);
        let by_bytes = bytes.as_bytes().chunks(1).try_for_each(|byte| pieces.follow(byte));
        assert_eq!(by_bytes.map(|()| pieces.at == At::Head && pieces.head.bytes == 0), outcome, "{bytes:?}");
        outcome
    }

    #[test]
    fn plain_requests_pass_one_after_the_other() {
        for good in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nhost: a.example:80\r\n\r\nGET /b HTTP/1.1\r\nHOST:[::1]:80\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             2;x=y\r\nab\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(follow(good), Ok(true), "{good:?}");
        }
        assert_eq!(follow("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(false));
        assert_eq!(follow("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"), Ok(false));
    }

    /// What two readers may read differently ends the connection.
    #[test]
    fn doubtful_heads_are_refused() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        for fields in [
            "X: y",
            "Host: a\r\nHost: a",
            "Host: a\r\nhost: b",
            "Host:",
            "Host: a b",
            "Host: a/b",
            "Host: a@b",
            "Host: a,b",
            "Host: a:1:2",
            "Host: [::1",
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 1",
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 2",
            "Host: a\r\nContent-Length: +1",
            "Host: a\r\nContent-Length: -1",
            "Host: a\r\nContent-Length: 1, 1",
            "Host: a\r\nContent-Length: 0x1",
            "Host: a\r\nContent-Length:",
            "Host: a\r\nContent-Length: 99999999999999999999",
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Host: a\r\nTransfer-Encoding: gzip, chunked",
            "Host: a\r\nTransfer-Encoding: identity",
            "Host: a\r\nTransfer-Encoding: chunked, chunked",
            "Host: a\r\nTransfer-Encoding: xchunked",
            "Host: a\r\nX: y\r\n folded",
            "Host: a\r\nX: y\r\n\tfolded",
            "Host: a\r\nX: y\r\n folded: with a colon",
            "Host: a\nX: y",
            "Host: a\r\nX: y\rz",
            "Host: a\r\nX: y\0z",
            "Host: a\r\nno colon",
        ] {
            assert!(matches!(follow(&head(fields)), Err(RequestFault::Ambiguous(_))), "{fields:?}");
        }
        for chunks in ["x\r\n", "\r\n", "-1\r\n", "1\n", "fffffffffffffffff\r\n"] {
            let request = head("Host: a\r\nTransfer-Encoding: chunked") + chunks;
            assert!(matches!(follow(&request), Err(RequestFault::Ambiguous(_))), "{chunks:?}");
        }
    }

    #[test]
    fn heads_have_limits() {
        let long = |count| "a".repeat(count);
        assert_eq!(follow(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(99))), Ok(true));
        assert_eq!(
            follow(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(100))),
            Err(RequestFault::TargetTooLong)
        );
        assert_eq!(follow(&long(1001)), Err(RequestFault::TargetTooLong));
        assert_eq!(
            follow(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(1000))),
            Err(RequestFault::HeadTooLarge)
        );
        assert_eq!(follow(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(4))), Ok(true));
        assert_eq!(
            follow(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(5))),
            Err(RequestFault::HeadTooLarge)
        );
        let endless = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;";
        assert_eq!(follow(&format!("{endless}{}", long(1000))), Err(RequestFault::HeadTooLarge));
    }

    #[test]
    fn verbs_that_are_not_served_are_a_fault_of_their_own() {
        for verb in ["get", "Get", "TRACE", "CONNECT", "pOST"] {
            assert_eq!(
                follow(&format!("{verb} / HTTP/1.1\r\nHost: a\r\n\r\n")),
                Err(RequestFault::Verb),
                "{verb}"
            );
        }
    }
}
