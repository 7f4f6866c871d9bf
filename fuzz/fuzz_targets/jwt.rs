#![no_main]
use genkan_protocol::jwt::{Unverified, session};

libfuzzer_sys::fuzz_target!(|token: &str| {
    assert!(session::key_hint(token).is_none() || Unverified::parse(token).is_ok());
});
