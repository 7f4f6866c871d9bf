#![no_main]
use genkan_protocol::oauth::client_id::ClientId;
use genkan_protocol::oauth::client_metadata::ClientMetadata;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    let id = ClientId::parse("https://a.bc/d", &[]).unwrap();
    if let Ok(metadata) = ClientMetadata::parse(json, &id) {
        assert!(metadata.redirect_uris.iter().all(|declared| metadata.allows_redirect(declared.as_str())));
    }
});
