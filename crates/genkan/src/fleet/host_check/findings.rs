//! What the proofs find about a host.

use std::fmt;

use serde::Serialize;

use crate::fleet::host_client::Description;

/// The subject of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Proof {
    Reachable,
    Version,
    Url,
    EntrywayUrl,
    HandleDomains,
    SigningKey,
    AdminPassword,
    RotationKey,
    /// Serialised under the name of the settings, which programs read.
    #[serde(rename = "directory_front")]
    PlcProxy,
    EntrywayDid,
    Clock,
}

/// The result of a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub(crate) enum Verdict {
    Good {
        detail: String,
    },
    /// The host cannot work with Genkan until this is changed.
    Bad {
        wrong: String,
        mend: String,
    },
    /// The proof could not be made.
    Open {
        why: String,
    },
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) proof: Proof,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// All findings about one host, with what it reports about itself.
#[derive(Clone, Debug)]
pub(crate) struct HostCheck {
    pub(crate) findings: Vec<Finding>,
    pub(crate) version: Option<String>,
    pub(crate) description: Option<Description>,
}

impl HostCheck {
    /// Whether the host answered and no proof failed.
    pub(crate) fn passed(&self) -> bool {
        self.description.is_some() && !self.findings.iter().any(|finding| finding.verdict.is_bad())
    }
}

impl Verdict {
    pub(crate) const fn is_bad(&self) -> bool {
        matches!(self, Self::Bad { .. })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reachable => "reachable",
            Self::Version => "version",
            Self::Url => "URL",
            Self::EntrywayUrl => "entryway URL",
            Self::HandleDomains => "handle domains",
            Self::SigningKey => "signing key",
            Self::AdminPassword => "admin password",
            Self::RotationKey => "rotation key",
            Self::PlcProxy => "PLC proxy",
            Self::EntrywayDid => "entryway DID",
            Self::Clock => "clock",
        })
    }
}
