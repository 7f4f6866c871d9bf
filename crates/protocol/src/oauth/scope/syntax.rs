//! The grammar of one scope value, `name[:positional][?key=value&…]` (atproto Permission, "Scope
//! String Syntax").

use std::borrow::Cow;

use url::form_urlencoded;

/// The parts of a scope value, percent-decoded.
pub(super) struct Syntax<'a> {
    pub(super) name: &'a str,
    /// The value of the one parameter that may be written without its name.
    positional: Option<Cow<'a, str>>,
    parameters: Vec<(String, String)>,
}

impl<'a> Syntax<'a> {
    /// `None`: a character that OAuth does not allow in a scope (RFC 6749 §3.3), or broken
    /// percent-encoding.
    pub(super) fn parse(value: &'a str) -> Option<Self> {
        // The value later stands in a list that spaces separate, so a space in it would make two
        // scopes.
        if value.is_empty() || !value.bytes().all(is_allowed) {
            return None;
        }
        let (head, query) = match value.split_once('?') {
            Some((head, query)) => (head, Some(query)),
            None => (value, None),
        };
        let (name, positional) = match head.split_once(':') {
            Some((name, positional)) => (name, Some(decode(positional)?)),
            None => (head, None),
        };
        // Hosts read the query as a form, in which `+` is a space. `positional` has no such rule.
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let parameters = pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
        Some(Self { name, positional, parameters })
    }

    /// Whether all parameters are among these.
    pub(super) fn has_only(&self, known: &[&str]) -> bool {
        self.parameters.iter().all(|(key, _)| known.contains(&&**key))
    }

    /// The values of a parameter that may be repeated; empty if it is absent.
    pub(super) fn all(&self, key: &str) -> Vec<&str> {
        let values = self.parameters.iter().filter(|(found, _)| found == key);
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// The values of the parameter that may be positional. `None`: it is written both ways.
    pub(super) fn all_or_positional(&self, key: &str) -> Option<Vec<&str>> {
        let named = self.all(key);
        match &self.positional {
            None => Some(named),
            Some(positional) if named.is_empty() => Some(vec![positional]),
            // Written both ways, it would be unclear which value counts.
            Some(_) => None,
        }
    }
}

/// The value of a parameter that must be given exactly once.
pub(super) fn single<'v>(values: &[&'v str]) -> Option<&'v str> {
    match values {
        [value] => Some(value),
        _ => None,
    }
}

/// Writes a scope value in its canonical form: a single value of the positional parameter goes
/// before the `?`, everything else into the query.
pub(super) fn write(name: &str, positional: &str, parameters: &[(&str, &[&str])]) -> String {
    let mut text = name.to_owned();
    let mut query = String::new();
    for (key, values) in parameters {
        // Only a single value goes before the `?`. Several are repeated parameters.
        if let ([value], true) = (values, *key == positional) {
            text.push(':');
            // `+` stays as it is here, because this part is not read as a form.
            encode(value, b"-._*:/,@+", &mut text);
            continue;
        }
        for value in *values {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(key);
            query.push('=');
            // In the query `+` would be read as a space, so it is encoded.
            encode(value, b"-._*:/,@", &mut query);
        }
    }
    text + &query
}

/// Visible ASCII without quote and backslash (RFC 6749 §3.3).
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')
}

/// Percent-decoding (RFC 3986 §2.1). `None`: a `%` without two hexadecimal digits, or a result that
/// is not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        // A `%` without two digits is refused and not kept: two readers could decode it
        // differently.
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(*data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?.first()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Percent-encodes everything but letters, digits and the bytes in `plain`.
fn encode(value: &str, plain: &[u8], out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(byte.into());
        } else {
            out.push('%');
            out.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
}
