//! The `Authorization` header of a request (RFC 9110 §11.6.2).

use http::header::{AUTHORIZATION, HeaderMap};

/// What a request's `Authorization` header says about its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authorization<'a> {
    /// There is no such header.
    Missing,
    /// A bearer token (RFC 6750 §2.1).
    Bearer(&'a str),
    /// A token that is bound to a key, and valid only together with a proof (RFC 9449 §7.1).
    Dpop(&'a str),
    /// Base64 of a name and a password (RFC 7617 §2), not yet decoded.
    Basic(&'a str),
    /// Not exactly one scheme and one token, or a scheme that Genkan does not know.
    Malformed(Scheme),
    /// More than one such header: two readers might choose different ones.
    Repeated,
}

/// The scheme of a header that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Dpop,
    Other,
}

impl<'a> Authorization<'a> {
    /// Reads the header. Schemes are compared without regard to case.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Missing };
        // Two headers are refused before either is read: the edge, a handler and a host might each
        // pick a different one, and act for different accounts.
        if values.next().is_some() {
            return Self::Repeated;
        }
        // Bytes other than visible ASCII are not a token in any scheme.
        let text = value.to_str().unwrap_or_default();
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        let is_one_word = !token.is_empty() && !token.contains(' ');
        let is_scheme = |name: &str| scheme.eq_ignore_ascii_case(name);
        if is_scheme("bearer") {
            if is_one_word { Self::Bearer(token) } else { Self::Malformed(Scheme::Bearer) }
        } else if is_scheme("dpop") {
            if is_one_word { Self::Dpop(token) } else { Self::Malformed(Scheme::Dpop) }
        // A Basic credential is checked by its decoder. Padding spaces around it are harmless.
        } else if is_scheme("basic") {
            Self::Basic(token.trim())
        } else {
            Self::Malformed(Scheme::Other)
        }
    }

    /// Whether the scheme is `DPoP`, even if its token is malformed.
    pub(crate) const fn is_dpop(&self) -> bool {
        matches!(self, Self::Dpop(_) | Self::Malformed(Scheme::Dpop))
    }

    /// Whether the scheme is `Bearer`, even if its token is malformed.
    pub(crate) const fn is_bearer(&self) -> bool {
        matches!(self, Self::Bearer(_) | Self::Malformed(Scheme::Bearer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_header_of_a_known_scheme_and_one_token_is_read() {
        let long = "a".repeat(5000);
        for (lines, expected) in [
            (&[][..], Authorization::Missing),
            (&["Bearer abc"], Authorization::Bearer("abc")),
            (&["bEARER abc.def-_~+/="], Authorization::Bearer("abc.def-_~+/=")),
            (&["DPoP abc"], Authorization::Dpop("abc")),
            (&["dpop abc"], Authorization::Dpop("abc")),
            (&["Basic YTpi"], Authorization::Basic("YTpi")),
            (&["basic  YTpi "], Authorization::Basic("YTpi")),
            (&["Basic"], Authorization::Basic("")),
            (&["Bearer"], Authorization::Malformed(Scheme::Bearer)),
            (&["Bearer "], Authorization::Malformed(Scheme::Bearer)),
            (&["Bearer a b"], Authorization::Malformed(Scheme::Bearer)),
            (&["Bearer  a"], Authorization::Malformed(Scheme::Bearer)),
            (&["DPoP"], Authorization::Malformed(Scheme::Dpop)),
            (&["DPoP a b"], Authorization::Malformed(Scheme::Dpop)),
            (&["abc"], Authorization::Malformed(Scheme::Other)),
            (&[""], Authorization::Malformed(Scheme::Other)),
            (&["Digest abc"], Authorization::Malformed(Scheme::Other)),
            (&["Bearer\tabc"], Authorization::Malformed(Scheme::Other)),
            (&["Bearer ä"], Authorization::Malformed(Scheme::Other)),
            (&["Bearer a", "Bearer a"], Authorization::Repeated),
            (&["Bearer a", "Basic YTpi"], Authorization::Repeated),
            (&[long.as_str()], Authorization::Malformed(Scheme::Other)),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(AUTHORIZATION, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            assert_eq!(Authorization::of(&headers), expected, "{lines:?}");
        }
    }
}
