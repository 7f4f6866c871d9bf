#![no_main]
use genkan_protocol::oauth::jwk::Jwk;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Ok(key) = Jwk::parse(json) {
        let shown = serde_json::to_vec(&key).unwrap();
        assert_eq!(Jwk::parse(&shown).unwrap().thumbprint(), key.thumbprint());
    }
});
