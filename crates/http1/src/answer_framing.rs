//! Where an answer's body ends (RFC 9112 §6).
//!
//! Takes bodies out of the bytes that were read, piece by piece and without copying. A body is over
//! when its framing says so and not before: a body that was cut short never looks whole.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::answer_head::MalformedAnswer;

/// How the rest of an answer's body is framed.
///
/// ```
/// use bytes::BytesMut;
/// use http1::{AnswerFraming, Piece};
///
/// let mut framing = AnswerFraming::chunked();
/// let mut read = BytesMut::from("5\r\nhello\r\n0\r\n");
/// assert_eq!(framing.take(&mut read), Ok(Piece::Data("hello".into())));
/// assert_eq!(framing.take(&mut read), Ok(Piece::NotYet));
/// read.extend_from_slice(b"\r\n");
/// assert_eq!(framing.take(&mut read), Ok(Piece::Over));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFraming {
    /// The body has ended, or the answer has no body.
    Over,
    /// This many bytes, and at least one, are still to come.
    Length(u64),
    /// Chunks (RFC 9112 §7.1), followed by trailers, which are dropped.
    Chunked(Chunk),
    /// Every byte until the connection ends.
    UntilClose,
}

/// Where in a chunked body the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// A chunk's first line, with its size.
    Size,
    /// A chunk's data, of which this many bytes, and at least one, are still to come.
    Data(u64),
    /// The line end after a chunk's data.
    End,
    /// The fields after the last chunk, of which this many bytes have come.
    Trailer(usize),
}

/// The next part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the body, and at least one.
    Data(Bytes),
    /// More bytes have to be read first.
    NotYet,
    /// The body has ended.
    Over,
}

impl AnswerFraming {
    /// A body of this length.
    pub const fn length(length: u64) -> Self {
        if length == 0 { Self::Over } else { Self::Length(length) }
    }

    /// The beginning of a chunked body.
    pub const fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    /// Whether the body has ended.
    pub fn is_over(self) -> bool {
        self == Self::Over
    }

    /// How long the rest of the body is, where its framing says so.
    pub const fn rest(self) -> Option<u64> {
        match self {
            Self::Over => Some(0),
            Self::Length(left) => Some(left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next piece out of the bytes that were read.
    ///
    /// # Errors
    ///
    /// [`MalformedAnswer`] when the chunks leave doubt about where they end.
    pub fn take(&mut self, read: &mut BytesMut) -> Result<Piece, MalformedAnswer> {
        match self {
            Self::Over => Ok(Piece::Over),
            Self::Length(left) => {
                let Some(data) = split(read, left) else { return Ok(Piece::NotYet) };
                if *left == 0 {
                    *self = Self::Over;
                }
                Ok(Piece::Data(data))
            }
            // Only the end of the connection ends this body, so `close` decides and not an empty
            // read.
            Self::UntilClose if read.is_empty() => Ok(Piece::NotYet),
            Self::UntilClose => Ok(Piece::Data(read.split().freeze())),
            Self::Chunked(_) => self.take_chunk(read),
        }
    }

    fn take_chunk(&mut self, read: &mut BytesMut) -> Result<Piece, MalformedAnswer> {
        while let Self::Chunked(at) = self {
            match at {
                Chunk::Data(left) => {
                    let Some(data) = split(read, left) else { return Ok(Piece::NotYet) };
                    if *left == 0 {
                        *at = Chunk::End;
                    }
                    return Ok(Piece::Data(data));
                }
                Chunk::Size => {
                    let Some(end) = line(read, MAX_SIZE_LINE)? else { return Ok(Piece::NotYet) };
                    // The line's own end is taken only with the whole line: a cut line stays in
                    // `read` until the rest comes.
                    let size = chunk_size(read.get(..end).unwrap_or_default())?;
                    read.advance(end + 2);
                    *at = if size == 0 { Chunk::Trailer(0) } else { Chunk::Data(size) };
                }
                Chunk::End => {
                    if read.len() < 2 {
                        return Ok(Piece::NotYet);
                    }
                    // A chunk that is longer than it said would be read as the next chunk's size.
                    if !read.starts_with(b"\r\n") {
                        return Err(MalformedAnswer);
                    }
                    read.advance(2);
                    *at = Chunk::Size;
                }
                Chunk::Trailer(so_far) => {
                    // All trailers count together, or many short ones would be endless.
                    let most = MAX_TRAILER.checked_sub(*so_far).ok_or(MalformedAnswer)?;
                    let Some(end) = line(read, most)? else { return Ok(Piece::NotYet) };
                    read.advance(end + 2);
                    *so_far += end + 2;
                    if end == 0 {
                        *self = Self::Over;
                    }
                }
            }
        }
        Ok(Piece::Over)
    }

    /// Notes that the connection has ended.
    ///
    /// # Errors
    ///
    /// [`MalformedAnswer`] when the body is not whole.
    pub fn close(&mut self) -> Result<(), MalformedAnswer> {
        match self {
            Self::Over | Self::UntilClose => {
                *self = Self::Over;
                Ok(())
            }
            // A body that was cut short must not look whole (RFC 9112 §8).
            Self::Length(_) | Self::Chunked(_) => Err(MalformedAnswer),
        }
    }
}

/// Splits off the bytes that have come of the next `left`, and subtracts them. Returns `None` if
/// none have come.
fn split(read: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    // Bytes beyond `left` stay in `read`: the line end of a chunk, or what no answer announced.
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    if count == 0 {
        return None;
    }
    *left -= count as u64;
    Some(read.split_to(count).freeze())
}

/// Returns where the first line ends, if its end has come. A line ends in CR LF and contains no
/// other CR or LF.
fn line(read: &[u8], most: usize) -> Result<Option<usize>, MalformedAnswer> {
    match memchr::memchr2(b'\r', b'\n', read) {
        // The limit applies to a whole line too, not only to one whose end has not come: the
        // outcome must not depend on how reads cut the bytes.
        Some(end) if end > most => Err(MalformedAnswer),
        Some(end) => match read.get(end..) {
            Some([b'\r', b'\n', ..]) => Ok(Some(end)),
            // The LF may come with the next read.
            Some(b"\r") => Ok(None),
            _ => Err(MalformedAnswer),
        },
        None if read.len() > most => Err(MalformedAnswer),
        None => Ok(None),
    }
}

/// Reads a chunk's first line: hexadecimal digits, optionally followed by extensions.
fn chunk_size(line: &[u8]) -> Result<u64, MalformedAnswer> {
    let end = memchr::memchr(b';', line).unwrap_or(line.len());
    // Some servers pad the size with spaces on the right. No reader takes those for digits.
    let digits = line.get(..end).unwrap_or_default().trim_ascii_end();
    // 15 digits are below 2^60, so that no sum below can overflow.
    if digits.is_empty() || digits.len() > 15 {
        return Err(MalformedAnswer);
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        char::from(*byte).to_digit(16).map(|digit| sum * 16 + u64::from(digit)).ok_or(MalformedAnswer)
    })
}

/// Bytes of a chunk's first line, extensions included.
const MAX_SIZE_LINE: usize = 1024;
/// Bytes of the fields after the last chunk.
const MAX_TRAILER: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a body whose bytes come in pieces of this size: its data, and what is left over.
    fn body(
        mut framing: AnswerFraming,
        bytes: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), MalformedAnswer> {
        let (mut read, mut data) = (BytesMut::new(), Vec::new());
        let mut pieces = bytes.chunks(step);
        loop {
            match framing.take(&mut read)? {
                Piece::Data(piece) => {
                    assert!(!piece.is_empty());
                    data.extend_from_slice(&piece);
                }
                Piece::NotYet => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None => framing.close()?,
                },
                Piece::Over => {
                    let rest = pieces.flatten();
                    return Ok((data, read.iter().chain(rest).copied().collect()));
                }
            }
        }
    }

    /// However reads cut it, it is the same body.
    fn bodies(framing: AnswerFraming, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), MalformedAnswer> {
        let whole = body(framing, bytes, usize::MAX);
        for step in 1..bytes.len().clamp(2, 40) {
            assert_eq!(body(framing, bytes, step), whole, "{framing:?} in steps of {step}");
        }
        whole
    }

    fn whole(data: &str, rest: &str) -> (Vec<u8>, Vec<u8>) {
        (data.into(), rest.into())
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        assert_eq!(bodies(AnswerFraming::length(5), b"hello"), Ok(whole("hello", "")));
        assert_eq!(bodies(AnswerFraming::length(5), b"helloHTTP/1.1"), Ok(whole("hello", "HTTP/1.1")));
        assert_eq!(bodies(AnswerFraming::length(0), b"x"), Ok(whole("", "x")));
        assert_eq!(bodies(AnswerFraming::UntilClose, b"hello"), Ok(whole("hello", "")));
        assert_eq!(bodies(AnswerFraming::UntilClose, b""), Ok(whole("", "")));
        let chunked = AnswerFraming::chunked();
        assert_eq!(bodies(chunked, b"0\r\n\r\n"), Ok(whole("", "")));
        assert_eq!(
            bodies(chunked, b"5\r\nhello\r\n00A;x=y\r\n0123456789\r\n0\r\nx: y\r\n\r\nmore"),
            Ok(whole("hello0123456789", "more"))
        );
        assert_eq!(bodies(chunked, b"1 \r\na\r\n0 ; x\r\n\r\n"), Ok(whole("a", "")));
    }

    #[test]
    fn a_body_that_is_cut_short_is_not_whole() {
        assert_eq!(bodies(AnswerFraming::length(5), b"hell"), Err(MalformedAnswer));
        assert_eq!(bodies(AnswerFraming::length(u64::MAX), b"hell"), Err(MalformedAnswer));
        let whole = b"5\r\nhello\r\n0\r\nx: y\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(bodies(AnswerFraming::chunked(), &whole[..end]), Err(MalformedAnswer), "{end}");
        }
    }

    #[test]
    fn chunks_that_leave_doubt_are_refused() {
        for bytes in [
            "zz\r\n",
            "-1\r\nx",
            "+1\r\nx",
            "0x1\r\nx",
            " 1\r\nx",
            "\r\n",
            ";x\r\n",
            "1\nx\r\n0\r\n\r\n",
            "1\rx\r\nx\r\n",
            "1;x\ny\r\nx\r\n0\r\n\r\n",
            "1000000000000000\r\nx",
            "fffffffffffffffff\r\nx",
            "1\r\nxy\r\n0\r\n\r\n",
            // A reader that skips the line end without a look finds a good last chunk.
            "1\r\nxyz0\r\n\r\n",
            "1\r\nx\n0\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\n",
        ] {
            assert_eq!(bodies(AnswerFraming::chunked(), bytes.as_bytes()), Err(MalformedAnswer), "{bytes:?}");
        }
        let endless = |start: &str, count: usize| format!("{start}{}", "x".repeat(count));
        let extension = endless("1;", MAX_SIZE_LINE);
        assert_eq!(body(AnswerFraming::chunked(), extension.as_bytes(), 7), Err(MalformedAnswer));
        let trailer = format!("0\r\n{}", "x: y\r\n".repeat(MAX_TRAILER / 6 + 1));
        assert_eq!(body(AnswerFraming::chunked(), trailer.as_bytes(), 1000), Err(MalformedAnswer));
        assert_eq!(
            body(AnswerFraming::chunked(), endless("0\r\n", MAX_TRAILER + 1).as_bytes(), 1000),
            Err(MalformedAnswer)
        );
    }
}
