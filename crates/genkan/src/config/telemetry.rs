//! `[telemetry]`: what Genkan says about itself.

use super::key::section;
use super::problem::Findings;
use super::value::Setting;

section! {
    /// What Genkan says about itself.
    pub struct Telemetry = "telemetry" {
        /// How log lines are written.
        log_format: LogFormat { env: "GENKAN_LOG_FORMAT", default: "text" },
        /// The least weighty lines that are written.
        log_level: LogLevel { env: "GENKAN_LOG_LEVEL", default: "info" },
        /// Whether each request gets a line.
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
                    _ => Err("is none of the choices".to_owned()),
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
    /// How log lines are written.
    pub enum LogFormat as "text or json" { Text = "text", Json = "json" }
}

keywords! {
    /// How much is logged.
    pub enum LogLevel as "error, warn, info, debug or trace" {
        Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace",
    }
}
