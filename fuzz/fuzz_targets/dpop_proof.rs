#![no_main]
use genkan_protocol::oauth::dpop::{Expected, verify};
use genkan_protocol::oauth::nonce::Nonces;

libfuzzer_sys::fuzz_target!(|proof: &str| {
    let nonces = Nonces::new(&[0; 32], Nonces::INTERVAL);
    let expected =
        Expected { method: "GET", origin: "https://a.b", path: "/", access_token: None, now_millis: 0 };
    assert!(verify(proof, &expected, &nonces).is_err());
});
