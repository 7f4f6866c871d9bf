//! Bounds on JSON that another server wrote, before it is read.
//!
//! A parsed value takes up to a hundred times the memory of its text: `{"a":0}` has 7 bytes, and
//! the map that it becomes has some 600. So a bound on a text's length alone bounds little.

/// Why a JSON text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonBoundsError {
    /// More than [`MAX_DEPTH`] levels.
    #[error("it is nested too deeply")]
    TooDeep,
    /// More than [`MAX_VALUES`] values.
    #[error("it has too many values")]
    TooMany,
}

/// The most levels of lists and objects.
pub const MAX_DEPTH: usize = 32;

/// The most values, counted over all levels.
pub const MAX_VALUES: usize = 16_384;

/// Checks the shape of a JSON text. Whether it is JSON at all is left to its reader.
///
/// ```
/// use genkan_protocol::json_bounds::{JsonBoundsError, MAX_VALUES, check};
///
/// assert_eq!(check(br#"{"id":"did:web:example.com","more":[1,[2],"a,[\"{"]}"#), Ok(()));
/// assert_eq!(check("[".repeat(33).as_bytes()), Err(JsonBoundsError::TooDeep));
/// assert_eq!(check("[],".repeat(MAX_VALUES).as_bytes()), Err(JsonBoundsError::TooMany));
/// ```
///
/// # Errors
///
/// [`JsonBoundsError`] when the text has too many levels or values.
pub fn check(json: &[u8]) -> Result<(), JsonBoundsError> {
    let (mut depth, mut values) = (0_usize, 0_usize);
    let mut rest = json.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => skip_text(&mut rest),
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            // Each value of a list or object but the first follows a comma.
            b',' => values += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(JsonBoundsError::TooDeep);
        }
        if values > MAX_VALUES {
            return Err(JsonBoundsError::TooMany);
        }
    }
    Ok(())
}

/// Skips the rest of a text, whose first quotation mark was read.
fn skip_text(rest: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return,
            // An escaped quotation mark does not end the text, and an escaped backslash escapes
            // nothing.
            b'\\' => drop(rest.next()),
            _ => {}
        }
    }
}
