#![no_main]
use genkan_protocol::crypto::PublicKey;
use genkan_protocol::repo_proof::verify_record;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let key = PublicKey::from_did_key("did:key:zDnaeoWRg63nSivFX4xPNhxyJKYw5BaGYi7yNcejErtV3dBaU").unwrap();
    assert!(verify_record(file, &"did:plc:a".parse().unwrap(), &key, "a.b.c", "self").is_err());
});
