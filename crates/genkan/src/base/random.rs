//! Random bytes, from the operating system's generator only.

use data_encoding::BASE32_NOPAD;

/// Returns a new identifier: 128 random bits as 26 lower-case base32 characters.
pub(crate) fn id() -> String {
    BASE32_NOPAD.encode(&bytes::<16>()).to_ascii_lowercase()
}

/// Returns `N` random bytes.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the random generator")]
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).expect("the operating system's random generator answers");
    out
}

/// Returns a random fraction in `0.0..1.0`, for choices that need no secrecy.
pub(crate) fn fraction() -> f64 {
    let bits = u32::from_le_bytes(bytes::<4>());
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_their_length() {
        let (first, second) = (id(), id());
        assert_ne!(first, second);
        assert_eq!(first.len(), 26);
        assert!((0.0..1.0).contains(&fraction()));
    }
}
