//! `[telemetry]`: logs.

use super::problem::Findings;
use super::section::section;
use super::value::Setting;

section! {
    /// Logs.
    pub struct Telemetry = "telemetry" {
        /// Format of log lines.
        log_format: LogFormat { env: "GENKAN_LOG_FORMAT", default: "text" },
        /// Minimum severity of log lines.
        log_level: LogLevel { env: "GENKAN_LOG_LEVEL", default: "info" },
        /// Whether each request is logged.
        request_log: bool { env: "GENKAN_REQUEST_LOG", default: "true" },
    }
}

impl Telemetry {
    #[expect(
        clippy::unused_self,
        reason = "every section has a check; each value of this one is good by its type"
    )]
    const fn check(&self, _found: &mut Findings) {}
}

/// An enum of words.
macro_rules! keywords {
    ($(#[doc = $doc:literal])+ pub enum $Name:ident as $form:literal { $($Variant:ident = $word:literal),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Name { $($Variant),+ }

        impl $Name {
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$Variant => $word),+ }
            }
        }

        impl Setting for $Name {
            const FORM: &'static str = $form;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$Variant),)+
                    _ => Err("is not one of the choices".to_owned()),
                }
            }

            fn show(&self) -> Option<String> {
                Some(self.as_str().to_owned())
            }
        }
    };
}

pub(super) use keywords;

keywords! {
    /// Format of log lines.
    pub enum LogFormat as "text or json" { Text = "text", Json = "json" }
}

keywords! {
    /// Minimum severity of log lines.
    pub enum LogLevel as "error, warn, info, debug or trace" {
        Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace",
    }
}
