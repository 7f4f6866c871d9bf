//! Writing a request's head.

use http::{HeaderValue, Method};

use crate::answer_head::AnswerFields;
use crate::error::Error;

/// The head of one request, and the caller's choice of its answer's fields.
///
/// A request may be tried more than once, over another connection. Each try writes its fields
/// again, so that it can carry a new single-use signature.
pub trait RequestHead {
    /// What the caller keeps of the answer's head.
    type Fields: AnswerFields;
    /// The caller's error, which can also hold the errors of this crate.
    type Error: From<Error>;

    /// The verb.
    fn method(&self) -> &Method;

    /// Path and query.
    fn target(&self) -> &str;

    /// Writes all fields except `Host` and those that frame the body.
    ///
    /// # Errors
    ///
    /// The caller's own. The request is then not sent.
    fn write_fields(&self, fields: &mut FieldWriter<'_>) -> Result<(), Self::Error>;

    /// A fresh choice of the answer's fields, for one try.
    fn answer_fields(&self) -> Self::Fields;
}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// This many bytes.
    Known(u64),
    /// The length is unknown beforehand, so the body is sent in chunks.
    Chunked,
}

/// Writes fields of a head.
#[derive(Debug)]
pub struct FieldWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl FieldWriter<'_> {
    /// Writes one field. The caller ensures that name and value are valid: a line end in a value
    /// would begin another field.
    pub fn field(&mut self, name: &str, value: &[u8]) {
        self.field_of_parts(name, &[value]);
    }

    /// Writes one field whose value comes in parts.
    pub fn field_of_parts(&mut self, name: &str, value: &[&[u8]]) {
        let length: usize = value.iter().map(|part| part.len()).sum();
        self.out.reserve(name.len() + length + 4);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        for part in value {
            debug_assert!(!part.contains(&b'\n'), "{name} has a line end in it");
            self.out.extend_from_slice(part);
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Writes a whole head. The fields that frame the body are written here and never by a caller.
///
/// # Errors
///
/// That of [`RequestHead::write_fields`].
pub fn write_request_head<H: RequestHead>(
    out: &mut Vec<u8>,
    head: &H,
    host: &HeaderValue,
    length: BodyLength,
) -> Result<(), H::Error> {
    for part in [head.method().as_str(), " ", head.target(), " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut fields = FieldWriter { out };
    // First, as RFC 9110 §7.2 recommends.
    fields.field("host", host.as_bytes());
    head.write_fields(&mut fields)?;
    match length {
        BodyLength::Known(length) => {
            fields.field("content-length", HeaderValue::from(length).as_bytes());
        }
        BodyLength::Chunked => fields.field("transfer-encoding", b"chunked"),
        // Without a length, some servers wait for the body of a POST that has none.
        BodyLength::None if head.method() == Method::POST => fields.field("content-length", b"0"),
        BodyLength::None => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer_head::KeepAll;

    struct Head(Method);

    impl RequestHead for Head {
        type Fields = KeepAll;
        type Error = Error;

        fn method(&self) -> &Method {
            &self.0
        }

        fn target(&self) -> &'static str {
            "/a?b=c"
        }

        fn write_fields(&self, fields: &mut FieldWriter<'_>) -> Result<(), Error> {
            fields.field_of_parts("x", &[b"y", b"z"]);
            Ok(())
        }

        fn answer_fields(&self) -> KeepAll {
            KeepAll
        }
    }

    fn written(method: Method, length: BodyLength) -> String {
        let mut out = Vec::new();
        let host = HeaderValue::from_static("a.example");
        write_request_head(&mut out, &Head(method), &host, length).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_is_a_line_the_host_and_the_callers_fields() {
        let head = written(Method::GET, BodyLength::None);
        assert_eq!(head, "GET /a?b=c HTTP/1.1\r\nhost: a.example\r\nx: yz\r\n\r\n");
    }

    #[test]
    fn a_body_is_announced_here_alone() {
        let announced = |method, length| {
            let head = written(method, length);
            let rest = head.split("x: yz\r\n").nth(1).unwrap();
            rest.trim_end().to_owned()
        };
        assert_eq!(announced(Method::POST, BodyLength::Known(7)), "content-length: 7");
        assert_eq!(announced(Method::POST, BodyLength::Chunked), "transfer-encoding: chunked");
        assert_eq!(announced(Method::POST, BodyLength::None), "content-length: 0");
        assert_eq!(announced(Method::GET, BodyLength::None), "");
    }
}
