#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| genkan_fuzz_targets::http::answer_chunks(bytes));
