//! The purposes of keys.

/// The purpose of a key of the table `keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    HostSigning,
    PlcRotation,
    Internal,
}

impl Purpose {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::HostSigning => "host_signing",
            Self::PlcRotation => "plc_rotation",
            Self::Internal => "internal",
        }
    }
}

/// The purpose of a web key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WebPurpose {
    /// Access tokens addressed to Genkan itself.
    Tokens,
    /// Client assertions for external authorization servers.
    Client,
}

impl WebPurpose {
    pub(super) const ALL: [Self; 2] = [Self::Tokens, Self::Client];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Client => "client",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}
