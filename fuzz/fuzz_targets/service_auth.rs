#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| genkan_fuzz_targets::tokens::service_auth(bytes));
