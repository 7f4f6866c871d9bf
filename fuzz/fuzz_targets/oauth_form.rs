#![no_main]
use genkan_protocol::oauth::request::{AuthorizationRequest, Form, TokenRequest};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(form) = Form::parse(body) {
        assert!(AuthorizationRequest::parse(&form).is_err() || form.get("state").is_some());
        assert!(TokenRequest::parse(&form).is_err() || form.get("grant_type").is_some());
    }
});
