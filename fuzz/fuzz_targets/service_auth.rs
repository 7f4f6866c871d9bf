#![no_main]
use genkan_protocol::service_auth;

libfuzzer_sys::fuzz_target!(|token: &str| {
    if let Ok(parsed) = service_auth::parse(token) {
        assert!(parsed.check("", Some(""), 0).is_err());
    }
});
