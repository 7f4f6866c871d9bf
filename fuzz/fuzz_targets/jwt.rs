#![no_main]
use genkan_protocol::jwt::{Unverified, session};

libfuzzer_sys::fuzz_target!(|token: &str| {
    assert!(session::peek_audience(token).is_none() || Unverified::parse(token).is_ok());
});
