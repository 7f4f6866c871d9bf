//! How far the operator trusts a client.

/// How far the operator trusts a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientTrust {
    /// The operator has not decided.
    Known,
    /// The client's name and logo are shown, and it is treated as one that authenticates.
    Trusted,
    /// The client gets nothing.
    Blocked,
}

impl ClientTrust {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Trusted => "trusted",
            Self::Blocked => "blocked",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Known, Self::Trusted, Self::Blocked].into_iter().find(|one| one.as_str() == text)
    }
}

/// What precedes the id of a blocked client in the subject of a note. No id of a grant has a space.
pub(in crate::oauth) const BLOCKED: &str = "client ";
