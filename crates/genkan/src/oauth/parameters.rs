//! The parameters of a pushed request, as they are stored with the request, its code, and in part
//! with its grant.

use serde::{Deserialize, Serialize};

use genkan_protocol::oauth::request::{Prompt, ResponseMode};

use super::scope::RequestedScope;

/// The checked parameters of a pushed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RequestParameters {
    pub(super) redirect_uri: String,
    /// The requested scope, which contains `atproto`.
    pub(super) scope: RequestedScope,
    pub(super) state: String,
    pub(super) code_challenge: String,
    #[serde(with = "response_mode")]
    pub(super) response_mode: ResponseMode,
    #[serde(with = "prompt")]
    pub(super) prompt: Option<Prompt>,
    pub(super) login_hint: Option<String>,
    pub(super) ui_locales: Vec<String>,
    /// Thumbprint of the key that the code and the grant are bound to. `None` for a client with
    /// Bearer tokens.
    #[serde(default)]
    pub(super) dpop_key: Option<String>,
    pub(super) client_auth: ClientAuth,
    /// Milliseconds since the epoch.
    pub(super) at: i64,
}

/// How a client authenticated. Its grant requires the same afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub(crate) enum ClientAuth {
    None,
    PrivateKeyJwt {
        alg: String,
        kid: String,
        /// The key's thumbprint.
        key: String,
    },
}

impl ClientAuth {
    pub(super) const fn is_confidential(&self) -> bool {
        matches!(self, Self::PrivateKeyJwt { .. })
    }

    /// Whether a client with this authentication may continue a grant that began with `self`: with
    /// the same key, or from no key to one.
    pub(super) fn may_go_on_as(&self, now: &Self) -> bool {
        matches!(self, Self::None) || self == now
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data has a JSON form")
    }
}

impl RequestParameters {
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data has a JSON form")
    }
}

/// Serialised by its name in requests.
mod response_mode {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::ResponseMode;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(mode: &ResponseMode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(mode.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ResponseMode, D::Error> {
        ResponseMode::read(&String::deserialize(from)?)
            .ok_or_else(|| D::Error::custom("unknown response_mode"))
    }
}

/// Serialised by its name in requests.
mod prompt {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    use super::Prompt;

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(prompt: &Option<Prompt>, to: S) -> Result<S::Ok, S::Error> {
        prompt.map(Prompt::as_str).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Prompt>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        Prompt::read(&text).map(Some).ok_or_else(|| D::Error::custom("unknown prompt"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_begin_to_prove_itself_and_never_stop() {
        let key =
            |kid: &str| ClientAuth::PrivateKeyJwt { alg: "ES256".into(), kid: kid.into(), key: kid.into() };
        assert!(ClientAuth::None.may_go_on_as(&ClientAuth::None));
        assert!(ClientAuth::None.may_go_on_as(&key("a")));
        assert!(key("a").may_go_on_as(&key("a")));
        assert!(!key("a").may_go_on_as(&key("b")));
        assert!(!key("a").may_go_on_as(&ClientAuth::None));
    }
}
