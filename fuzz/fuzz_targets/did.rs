#![no_main]
use genkan_protocol::syntax::Did;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(parsed) = text.parse::<Did>() {
        assert_eq!(parsed.to_string().parse(), Ok(parsed));
    }
});
