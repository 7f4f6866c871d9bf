#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| genkan_fuzz_targets::documents::repo_proof(bytes));
