//! Named places where a test may have the process killed, to prove what a restart makes of it.

/// Ends the process at once, as SIGKILL would, if `GENKAN_TEST_CRASH_AT` names this place.
///
/// Only in builds for development, or with the feature `crash-points`.
#[inline]
pub(crate) fn crash_point(name: &str) {
    #[cfg(any(debug_assertions, feature = "crash-points"))]
    {
        static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| std::env::var("GENKAN_TEST_CRASH_AT").ok());
        if chosen.as_deref() == Some(name) {
            std::process::abort();
        }
    }
    #[cfg(not(any(debug_assertions, feature = "crash-points")))]
    let _ = name;
}
