//! Where a host's body ends.
//!
//! Takes bodies out of what was read, piece by piece and without copying. A body is over when its framing says so
//! and not before: one that is cut short never looks whole.

use bytes::{Buf as _, Bytes, BytesMut};

use super::answer_head::Crooked;

/// How the rest of a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing more comes.
    Over,
    /// So many bytes, and at least one.
    Length(u64),
    Chunked(Chunk),
    /// All that comes until the connection ends.
    UntilClose,
}

/// Where we are in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    /// So many bytes of it are still to come, and at least one.
    Data(u64),
    /// The line end after its data.
    End,
    /// The fields after the last one, of which so many bytes have come.
    Trailer(usize),
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    /// Read more.
    NotYet,
    Over,
}

impl Framing {
    pub(super) const fn length(length: u64) -> Self {
        if length == 0 { Self::Over } else { Self::Length(length) }
    }

    pub(super) const fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    pub(super) fn is_over(self) -> bool {
        self == Self::Over
    }

    /// How long the rest of the body is, if it says.
    pub(super) const fn rest(self) -> Option<u64> {
        match self {
            Self::Over => Some(0),
            Self::Length(left) => Some(left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next piece out of what was read.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Piece, Crooked> {
        match self {
            Self::Over => Ok(Piece::Over),
            Self::Length(left) => {
                let Some(data) = split(read, left) else { return Ok(Piece::NotYet) };
                if *left == 0 {
                    *self = Self::Over;
                }
                Ok(Piece::Data(data))
            }
            Self::UntilClose if read.is_empty() => Ok(Piece::NotYet),
            Self::UntilClose => Ok(Piece::Data(read.split().freeze())),
            Self::Chunked(_) => self.take_chunk(read),
        }
    }

    fn take_chunk(&mut self, read: &mut BytesMut) -> Result<Piece, Crooked> {
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
                    let size = chunk_size(read.get(..end).unwrap_or_default())?;
                    read.advance(end + 2);
                    *at = if size == 0 { Chunk::Trailer(0) } else { Chunk::Data(size) };
                }
                Chunk::End => {
                    if read.len() < 2 {
                        return Ok(Piece::NotYet);
                    }
                    if !read.starts_with(b"\r\n") {
                        return Err(Crooked);
                    }
                    read.advance(2);
                    *at = Chunk::Size;
                }
                Chunk::Trailer(so_far) => {
                    let most = MAX_TRAILER.checked_sub(*so_far).ok_or(Crooked)?;
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

    /// The connection has ended.
    pub(super) fn close(&mut self) -> Result<(), Crooked> {
        match self {
            Self::Over | Self::UntilClose => {
                *self = Self::Over;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Crooked),
        }
    }
}

/// Splits off what is there of so many bytes, and counts it.
fn split(read: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    if count == 0 {
        return None;
    }
    *left -= count as u64;
    Some(read.split_to(count).freeze())
}

/// Where the line ends that begins here, if its end has come: it is CR LF, and no CR or LF is before it.
fn line(read: &[u8], most: usize) -> Result<Option<usize>, Crooked> {
    match memchr::memchr2(b'\r', b'\n', read) {
        Some(end) if end > most => Err(Crooked),
        Some(end) => match read.get(end..) {
            Some([b'\r', b'\n', ..]) => Ok(Some(end)),
            Some(b"\r") => Ok(None),
            _ => Err(Crooked),
        },
        None if read.len() > most => Err(Crooked),
        None => Ok(None),
    }
}

/// Hexadecimal digits, with or without extensions after them.
fn chunk_size(line: &[u8]) -> Result<u64, Crooked> {
    let end = memchr::memchr(b';', line).unwrap_or(line.len());
    let digits = line.get(..end).unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 {
        return Err(Crooked);
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        char::from(*byte).to_digit(16).map(|digit| sum * 16 + u64::from(digit)).ok_or(Crooked)
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
    fn body(mut framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>), Crooked> {
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
    fn bodies(framing: Framing, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Crooked> {
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
        assert_eq!(bodies(Framing::length(5), b"hello"), Ok(whole("hello", "")));
        assert_eq!(bodies(Framing::length(5), b"helloHTTP/1.1"), Ok(whole("hello", "HTTP/1.1")));
        assert_eq!(bodies(Framing::length(0), b"x"), Ok(whole("", "x")));
        assert_eq!(bodies(Framing::UntilClose, b"hello"), Ok(whole("hello", "")));
        assert_eq!(bodies(Framing::UntilClose, b""), Ok(whole("", "")));
        let chunked = Framing::chunked();
        assert_eq!(bodies(chunked, b"0\r\n\r\n"), Ok(whole("", "")));
        assert_eq!(
            bodies(chunked, b"5\r\nhello\r\n00A;x=y\r\n0123456789\r\n0\r\nx: y\r\n\r\nmore"),
            Ok(whole("hello0123456789", "more"))
        );
        assert_eq!(bodies(chunked, b"1 \r\na\r\n0 ; x\r\n\r\n"), Ok(whole("a", "")));
    }

    #[test]
    fn a_body_that_is_cut_short_is_not_whole() {
        assert_eq!(bodies(Framing::length(5), b"hell"), Err(Crooked));
        assert_eq!(bodies(Framing::length(u64::MAX), b"hell"), Err(Crooked));
        let whole = b"5\r\nhello\r\n0\r\nx: y\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(bodies(Framing::chunked(), &whole[..end]), Err(Crooked), "{end}");
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
            "1\r\nx\n0\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\n",
        ] {
            assert_eq!(bodies(Framing::chunked(), bytes.as_bytes()), Err(Crooked), "{bytes:?}");
        }
        let endless = |start: &str, count: usize| format!("{start}{}", "x".repeat(count));
        let extension = endless("1;", MAX_SIZE_LINE);
        assert_eq!(body(Framing::chunked(), extension.as_bytes(), 7), Err(Crooked));
        let trailer = format!("0\r\n{}", "x: y\r\n".repeat(MAX_TRAILER / 6 + 1));
        assert_eq!(body(Framing::chunked(), trailer.as_bytes(), 1000), Err(Crooked));
        assert_eq!(
            body(Framing::chunked(), endless("0\r\n", MAX_TRAILER + 1).as_bytes(), 1000),
            Err(Crooked)
        );
    }
}
