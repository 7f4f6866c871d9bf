#![no_main]
use genkan_protocol::syntax::AtIdentifier;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(parsed) = text.parse::<AtIdentifier>() {
        assert_eq!(parsed.to_string().parse(), Ok(parsed));
    }
});
