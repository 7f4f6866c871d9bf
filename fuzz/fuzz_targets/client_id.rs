#![no_main]
use genkan_protocol::oauth::client_id::ClientId;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(id) = ClientId::parse(text, &[]) {
        assert!(id.as_str() == text && (id.is_development() || id.url().as_str() == text));
    }
});
