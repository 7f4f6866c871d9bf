#![no_main]
use genkan_protocol::did_document::DidDocument;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Ok(document) = serde_json::from_slice::<DidDocument>(json) {
        let _ = (document.pds_endpoint(), document.handle(), document.signing_key());
        assert!(serde_json::to_vec(&document).is_ok());
    }
});
