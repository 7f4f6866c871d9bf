#![no_main]
use genkan_protocol::syntax::Nsid;

libfuzzer_sys::fuzz_target!(|text: &str| {
    assert_eq!(Nsid::check(text).is_ok(), text.parse::<Nsid>().is_ok_and(|nsid| nsid == text));
});
