#![no_main]
use genkan_protocol::syntax::Handle;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(parsed) = text.parse::<Handle>() {
        assert_eq!(parsed.to_string().parse(), Ok(parsed));
    }
});
