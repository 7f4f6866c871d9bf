//! The settings of the operator, read once at the start.
//!
//! A *key* is one setting. A *section* is a struct of keys, in a file of this folder. Its
//! `section!` declaration is the only description of its keys: loading, `genkan config show`,
//! `genkan config check` and `docs/configuration.md` all use it.
//!
//! The value of a key comes from the first of: the environment (`GENKAN_*`), the reference PDS's
//! variable for the same setting (`PDS_*`), the TOML file, the default. No other room reads the
//! environment.

#[cfg(test)]
mod bad_configs;
mod brand;
mod database;
mod describe;
mod directory;
mod environment;
mod external;
mod fleet;
mod key;
mod keys;
mod limits;
mod links;
mod listen;
mod load;
mod mail;
mod network;
mod oauth;
mod problem;
mod reader;
mod secret_file;
mod section;
mod service;
mod sessions;
mod sign_up;
mod suggest;
mod telemetry;
mod toml_file;
mod value;

pub use brand::{Brand, Colour};
pub use database::{Database, DatabaseUrl};
pub use directory::Directory;
pub use environment::Environment;
pub use external::{External, TargetReads};
pub use fleet::Fleet;
pub use keys::Keys;
pub use limits::Limits;
pub use links::Links;
pub use listen::Listen;
pub use load::Config;
pub use mail::{Mail, Sender, SmtpTls, SmtpUrl};
pub use network::Network;
pub use oauth::OAuth;
pub use problem::{Problem, Problems};
pub use service::Service;
pub use sessions::Sessions;
pub use sign_up::SignUp;
pub use telemetry::{LogFormat, LogLevel, Telemetry};
pub use value::{Rate, Size};

pub(crate) use describe::{configuration_page, show};
pub(crate) use load::Reading;
pub(crate) use reader::{EffectiveSetting, Source};
