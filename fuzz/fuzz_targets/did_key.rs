#![no_main]
use genkan_protocol::crypto::PublicKey;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(key) = PublicKey::from_did_key(text) {
        assert_eq!(key.to_did_key(), text);
    }
});
