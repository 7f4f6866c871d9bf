//! Nonces for DPoP proofs, without a store (RFC 9449 §8): `base64url(HMAC-SHA256(secret,
//! be64(counter)))`.
//!
//! The counter is the time divided by an interval. The *next* nonce is handed out, and the
//! previous, current and next ones are accepted, so a nonce is good for two to three intervals.
//! Processes that share the secret agree without talking to each other.
//!
//! ```
//! use genkan_protocol::oauth::nonce::Nonces;
//!
//! let nonces = Nonces::new(&[7; 32], Nonces::INTERVAL);
//! let now_millis = 1_700_000_000_000;
//! let nonce = nonces.next(now_millis);
//! assert!(nonces.accepts(nonce.as_str(), now_millis + 2 * 60_000));
//! assert!(!nonces.accepts(nonce.as_str(), now_millis + 3 * 60_000));
//! ```

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use subtle::ConstantTimeEq;

/// A nonce, 43 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce([u8; 43]);

impl Nonce {
    /// The nonce as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64url is ASCII")
    }
}

impl AsRef<str> for Nonce {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Nonce({})", self.as_str())
    }
}

/// Issues and checks nonces. Computes three of them per interval, however many requests come.
pub struct Nonces {
    key: hmac::Key,
    interval_millis: i64,
    window: RwLock<Option<Window>>,
}

impl Nonces {
    /// The default interval. A nonce lives for two to three intervals.
    pub const INTERVAL: Duration = Duration::from_mins(1);

    /// Takes a secret that all instances share, and the interval; one below a second counts as a
    /// second.
    pub fn new(secret: &[u8; 32], interval: Duration) -> Self {
        let interval_millis = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1000);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), interval_millis, window: RwLock::new(None) }
    }

    /// The nonce to hand out at this time.
    pub fn next(&self, now_millis: i64) -> Nonce {
        self.window(now_millis).next
    }

    /// Whether a nonce is good at this time. Compares in constant time.
    pub fn accepts(&self, nonce: &str, now_millis: i64) -> bool {
        // `next` is the one that is handed out, so a nonce is accepted for two to three intervals.
        let Window { previous, current, next, .. } = self.window(now_millis);
        let same = |good: Nonce| good.0.as_slice().ct_eq(nonce.as_bytes());
        // `|` and not `||`: all three are compared, whichever matches.
        (same(previous) | same(current) | same(next)).into()
    }

    fn window(&self, now_millis: i64) -> Window {
        // Rounded down, also before 1970: a division that rounds toward zero would give two
        // intervals the counter 0.
        let counter = now_millis.div_euclid(self.interval_millis);
        // A poisoned lock holds a whole window all the same: `Window` is copied in and out.
        let known = *self.window.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = known.filter(|window| window.counter == counter) {
            return window;
        }
        let made = Window {
            counter,
            previous: self.nonce(counter.wrapping_sub(1)),
            current: self.nonce(counter),
            next: self.nonce(counter.wrapping_add(1)),
        };
        // Two threads may compute one window at the same time. They get equal nonces, so it does
        // not matter which of them stores its result.
        *self.window.write().unwrap_or_else(PoisonError::into_inner) = Some(made);
        made
    }

    fn nonce(&self, counter: i64) -> Nonce {
        let tag = hmac::sign(&self.key, &counter.to_be_bytes());
        let mut text = [0; 43];
        URL_SAFE_NO_PAD.encode_slice(tag, &mut text).expect("32 bytes are 43 characters");
        Nonce(text)
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[sealed]")
    }
}

#[derive(Clone, Copy)]
struct Window {
    counter: i64,
    previous: Nonce,
    current: Nonce,
    next: Nonce,
}
