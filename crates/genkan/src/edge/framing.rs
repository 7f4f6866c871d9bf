//! Strict reading of HTTP/1 request heads, before the library reads them.
//!
//! The library forgives what another server might read differently: a bare line feed, no `Host` or two, both
//! kinds of length. Whoever stands before or behind us must see the same requests as we do, so a connection's
//! bytes are followed here from head to body to next head, and the first doubt ends it. Nothing is changed or
//! copied; only a line that is cut by the end of a read is kept until its rest comes.

/// Follows one connection.
#[derive(Debug)]
pub(super) struct Framing {
    limits: HeadLimits,
    at: At,
    head: Head,
    /// The beginning of a line whose end has not come yet.
    cut: Vec<u8>,
}

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    pub(super) bytes: usize,
    pub(super) fields: usize,
    pub(super) target: usize,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Two readers might not agree on it.
    Ambiguous(&'static str),
    /// The head is too large, or has too many fields.
    HeadTooLarge,
    /// The request's target is too long.
    TargetTooLong,
    /// The verb is none that we would ever serve.
    Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk, its line end among them.
    Chunk(u64),
    Trailer,
}

/// What a head has said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: usize,
    fields: usize,
    has_request_line: bool,
    hosts: u8,
    length: Option<u64>,
    is_chunked: bool,
}

impl Framing {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { limits, at: At::Head, head: Head::default(), cut: Vec::new() }
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_within_head(&self) -> bool {
        self.at == At::Head && self.head.bytes > 0
    }

    /// Whether nothing has begun.
    pub(super) fn is_between_requests(&self) -> bool {
        self.at == At::Head && self.head.bytes == 0
    }

    /// Takes what was just read.
    pub(super) fn follow(&mut self, mut fresh: &[u8]) -> Result<(), Fault> {
        while !fresh.is_empty() {
            fresh = match self.at {
                At::Head | At::ChunkSize | At::Trailer => self.take_line(fresh)?,
                At::Body(left) => {
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
    fn take_line<'a>(&mut self, fresh: &'a [u8]) -> Result<&'a [u8], Fault> {
        let Some(end) = memchr::memchr(b'\n', fresh) else {
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

    /// Counts bytes of a head; of chunk sizes and trailers, too, which must not be endless either.
    fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.head.bytes += bytes;
        if self.head.bytes <= self.limits.bytes {
            return Ok(());
        }
        let in_target = self.at == At::Head && !self.head.has_request_line;
        Err(if in_target { Fault::TargetTooLong } else { Fault::HeadTooLarge })
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let line = line.strip_suffix(b"\r\n").ok_or(Fault::Ambiguous("a line does not end in CR LF"))?;
        if memchr::memchr2(b'\r', 0, line).is_some() {
            return Err(Fault::Ambiguous("a line has CR or NUL in it"));
        }
        match self.at {
            At::ChunkSize => self.chunk_size(line),
            At::Trailer => {
                if line.is_empty() {
                    self.next_head();
                }
                Ok(())
            }
            _ if !self.head.has_request_line => self.request_line(line),
            _ if line.is_empty() => self.head_ends(),
            _ => self.field(line),
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        // An empty line before a request is forgiven (RFC 9112 §2.2).
        if line.is_empty() {
            return Ok(());
        }
        let mut words = line.split(|byte| *byte == b' ');
        let (verb, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if target.len() > self.limits.target {
            return Err(Fault::TargetTooLong);
        }
        if verb.iter().any(u8::is_ascii_lowercase) || matches!(verb, b"TRACE" | b"CONNECT") {
            return Err(Fault::Verb);
        }
        self.head.has_request_line = true;
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.head.fields += 1;
        if self.head.fields > self.limits.fields {
            return Err(Fault::HeadTooLarge);
        }
        if line.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
            return Err(Fault::Ambiguous("a field is folded"));
        }
        let name_ends = memchr::memchr(b':', line).ok_or(Fault::Ambiguous("a field has no colon"))?;
        let (name, value) = line.split_at(name_ends);
        let value = || value.get(1..).unwrap_or_default().trim_ascii();
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.head.hosts = self.head.hosts.saturating_add(1);
                if !is_host(value()) {
                    return Err(Fault::Ambiguous("Host is not a host"));
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = number(value(), 10).ok_or(Fault::Ambiguous("Content-Length is not a number"))?;
                if self.head.length.replace(length).is_some() {
                    return Err(Fault::Ambiguous("Content-Length is there twice"));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.head.is_chunked || !value().eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Ambiguous("Transfer-Encoding is not one chunked"));
                }
                self.head.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn head_ends(&mut self) -> Result<(), Fault> {
        let head = std::mem::take(&mut self.head);
        if head.hosts != 1 {
            return Err(Fault::Ambiguous("Host is not there exactly once"));
        }
        self.at = match (head.is_chunked, head.length) {
            (true, Some(_)) => return Err(Fault::Ambiguous("the length is said in two ways")),
            (true, None) => At::ChunkSize,
            (false, None | Some(0)) => At::Head,
            (false, Some(length)) => At::Body(length),
        };
        Ok(())
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Fault> {
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = number(digits.trim_ascii_end(), 16).ok_or(Fault::Ambiguous("a chunk has no size"))?;
        self.head = Head::default();
        self.at = match size.checked_add(2) {
            _ if size == 0 => At::Trailer,
            Some(with_line_end) => At::Chunk(with_line_end),
            None => return Err(Fault::Ambiguous("a chunk has no size")),
        };
        Ok(())
    }

    fn next_head(&mut self) {
        self.at = At::Head;
        self.head = Head::default();
    }
}

/// Splits off at most so many bytes, and says how many they were.
fn split(bytes: &[u8], most: u64) -> (u64, &[u8]) {
    let taken = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    (taken as u64, bytes.split_at(taken).1)
}

/// Digits and nothing else, as many as fit.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        sum.checked_mul(u64::from(radix))?.checked_add(u64::from(char::from(*byte).to_digit(radix)?))
    })
}

/// A name or an address, with or without a port.
fn is_host(value: &[u8]) -> bool {
    let host = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    match value.strip_prefix(b"[") {
        Some(bracketed) => match memchr::memchr(b']', bracketed) {
            Some(end) => {
                let (address, port) = bracketed.split_at(end);
                !address.is_empty() && address.iter().all(host) && port.iter().skip(1).all(host)
            }
            None => false,
        },
        None => {
            !value.is_empty()
                && value.iter().all(host)
                && value.iter().filter(|byte| **byte == b':').nth(1).is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 5, target: 100 };

    /// Follows the bytes whole and cut at every place: both must say the same.
    fn follow(bytes: &str) -> Result<bool, Fault> {
        let mut whole = Framing::new(LIMITS);
        let outcome = whole.follow(bytes.as_bytes()).map(|()| whole.at == At::Head && whole.head.bytes == 0);
        let mut pieces = Framing::new(LIMITS);
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
            "Host: a\nX: y",
            "Host: a\r\nX: y\rz",
            "Host: a\r\nX: y\0z",
            "Host: a\r\nno colon",
        ] {
            assert!(matches!(follow(&head(fields)), Err(Fault::Ambiguous(_))), "{fields:?}");
        }
        for chunks in ["x\r\n", "\r\n", "-1\r\n", "1\n", "fffffffffffffffff\r\n"] {
            let request = head("Host: a\r\nTransfer-Encoding: chunked") + chunks;
            assert!(matches!(follow(&request), Err(Fault::Ambiguous(_))), "{chunks:?}");
        }
    }

    #[test]
    fn heads_have_limits() {
        let long = |count| "a".repeat(count);
        assert_eq!(follow(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(99))), Ok(true));
        assert_eq!(
            follow(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(100))),
            Err(Fault::TargetTooLong)
        );
        assert_eq!(follow(&long(1001)), Err(Fault::TargetTooLong));
        assert_eq!(
            follow(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(1000))),
            Err(Fault::HeadTooLarge)
        );
        assert_eq!(follow(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(4))), Ok(true));
        assert_eq!(
            follow(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(5))),
            Err(Fault::HeadTooLarge)
        );
        let endless = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;";
        assert_eq!(follow(&format!("{endless}{}", long(1000))), Err(Fault::HeadTooLarge));
    }

    #[test]
    fn verbs_that_nobody_serves_are_told_so() {
        for verb in ["get", "Get", "TRACE", "CONNECT", "pOST"] {
            assert_eq!(follow(&format!("{verb} / HTTP/1.1\r\nHost: a\r\n\r\n")), Err(Fault::Verb), "{verb}");
        }
    }
}
