//! Failpoints: named points in the code at which a test can kill the process, to check the
//! recovery.

/// Aborts the process, as SIGKILL would, if `GENKAN_TEST_CRASH_AT` holds `name`.
///
/// Does nothing in release builds without the feature `failpoints`.
#[inline]
pub(crate) fn failpoint(name: &str) {
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    {
        static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| std::env::var("GENKAN_TEST_CRASH_AT").ok());
        if chosen.as_deref() == Some(name) {
            std::process::abort();
        }
    }
    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    let _ = name;
}
