#![no_main]
use genkan_protocol::oauth::scope::Scope;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(scope) = text.parse::<Scope>() {
        assert_eq!(scope.to_string().parse::<Scope>().unwrap(), scope);
    }
});
