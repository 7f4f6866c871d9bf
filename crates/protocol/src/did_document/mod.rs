//! DID documents: the names, keys and services that a DID resolves to (atproto DID, "DID
//! Documents"; W3C DID Core §5).
//!
//! Unknown members are kept and written back, so that a document can be passed on whole.

mod account;
mod render;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::account::{AccountFacts, AccountFactsError};

use crate::crypto::{Curve, PublicKey};
use crate::origin::{Origin, OriginError};
use crate::syntax::{Did, Handle};

/// A DID document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DidDocument {
    /// The JSON-LD contexts as they were read.
    #[serde(rename = "@context", default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
    /// The DID that the document is about.
    pub id: Did,
    /// Other names, handles among them as `at://…`.
    #[serde(default)]
    pub also_known_as: Vec<String>,
    /// Public keys.
    #[serde(default)]
    pub verification_method: Vec<VerificationMethod>,
    /// Services, the PDS among them.
    #[serde(default)]
    pub service: Vec<Service>,
    /// Members unknown here.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A public key of a DID document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerificationMethod {
    /// The name, such as `#atproto`; the DID may stand in front.
    pub id: String,
    /// The kind of key.
    pub r#type: String,
    /// The DID that controls the key.
    #[serde(default)]
    pub controller: String,
    /// The key, for the kinds that spell it in multibase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_multibase: Option<String>,
    /// Members unknown here.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A service of a DID document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The name, such as `#atproto_pds`; the DID may stand in front.
    pub id: String,
    /// The kind of service.
    pub r#type: String,
    /// The address: a URL for the kinds that are read here, any JSON for others.
    pub service_endpoint: Value,
    /// Members unknown here.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Why a DID document names no usable PDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PdsError {
    /// No service `#atproto_pds` of the right type with an HTTP URL.
    #[error("no PDS is named")]
    Missing,
    /// The URL is more, or less, than an origin.
    #[error("the URL of the PDS {0}")]
    NotAnOrigin(#[from] OriginError),
}

impl DidDocument {
    /// The origin of the account's PDS (atproto DID, "DID Documents").
    ///
    /// One slash at the end of the URL is dropped: many documents have it. A path, a query or user
    /// information is refused. Plain `http:` is not: whether that is acceptable depends on who runs
    /// the host.
    ///
    /// # Errors
    ///
    /// [`PdsError::Missing`] when the account has no PDS, [`PdsError::NotAnOrigin`] when its URL
    /// cannot be used.
    ///
    /// ```
    /// # use genkan_protocol::did_document::{DidDocument, PdsError};
    /// let mut document: DidDocument = serde_json::from_value(serde_json::json!({
    ///     "id": "did:web:example.com",
    ///     "service": [{
    ///         "id": "#atproto_pds",
    ///         "type": "AtprotoPersonalDataServer",
    ///         "serviceEndpoint": "https://PDS.example.com/",
    ///     }],
    /// }))?;
    /// assert_eq!(document.pds_origin().unwrap().as_str(), "https://pds.example.com");
    ///
    /// document.service.clear();
    /// assert_eq!(document.pds_origin(), Err(PdsError::Missing));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn pds_origin(&self) -> Result<Origin, PdsError> {
        pds_origin_of(self.pds_endpoint().ok_or(PdsError::Missing)?)
    }

    /// The URL of the account's PDS as the document writes it; see [`DidDocument::pds_origin`] for
    /// one to connect to.
    pub fn pds_endpoint(&self) -> Option<&str> {
        self.service_endpoint("#atproto_pds", "AtprotoPersonalDataServer")
    }

    /// The URL of the first service with this name, such as `#atproto_labeler`. `None` when that
    /// service is of another kind, or its endpoint is not an `http:` or `https:` URL: a later
    /// service of the same name does not count.
    pub fn service_endpoint(&self, name: &str, kind: &str) -> Option<&str> {
        let service = self.service.iter().find(|service| self.is_named(&service.id, name))?;
        let endpoint = service.service_endpoint.as_str()?;
        (service.r#type == kind && is_http(endpoint)).then_some(endpoint)
    }

    /// The first valid handle that the document claims. It counts only if it resolves to this DID,
    /// which the resolver checks (atproto Handle, "Handle Resolution").
    pub fn handle(&self) -> Option<Handle> {
        self.also_known_as.iter().find_map(|name| name.strip_prefix("at://")?.parse().ok())
    }

    /// Whether this is the handle that the document claims.
    pub fn claims_handle(&self, handle: &Handle) -> bool {
        self.handle().as_ref() == Some(handle)
    }

    /// The key that signs for the account, `#atproto`.
    pub fn signing_key(&self) -> Option<PublicKey> {
        self.key("#atproto")
    }

    /// The first key with this name, such as `#atproto_label`. `None` when it is missing,
    /// malformed, or of an unknown kind.
    pub fn key(&self, name: &str) -> Option<PublicKey> {
        // The first of this name decides. A later one does not stand in for a key that cannot be
        // read.
        let method = self.verification_method.iter().find(|method| self.is_named(&method.id, name))?;
        read_key(&method.r#type, method.public_key_multibase.as_deref()?)
    }

    fn is_named(&self, id: &str, name: &str) -> bool {
        is_named(&self.id, id, name)
    }
}

/// Whether a member's id in the document of `did` is this name.
fn is_named(did: &Did, id: &str, name: &str) -> bool {
    // An id is relative (`#atproto`) or absolute (`did:…#atproto`). Another DID in front names
    // another document's member.
    id.strip_prefix(did.as_str()).unwrap_or(id) == name
}

/// Whether a URL leads to a server that could be called.
fn is_http(endpoint: &str) -> bool {
    endpoint.starts_with("https://") || endpoint.starts_with("http://")
}

/// The origin of a PDS whose URL a document writes.
fn pds_origin_of(endpoint: &str) -> Result<Origin, PdsError> {
    if !is_http(endpoint) {
        return Err(PdsError::Missing);
    }
    Ok(endpoint.strip_suffix('/').unwrap_or(endpoint).parse()?)
}

/// Reads a key of a kind that spells it in multibase.
fn read_key(kind: &str, multibase: &str) -> Option<PublicKey> {
    match kind {
        "Multikey" => PublicKey::from_multibase(multibase),
        "EcdsaSecp256k1VerificationKey2019" => PublicKey::from_bare_multibase(Curve::K256, multibase),
        "EcdsaSecp256r1VerificationKey2019" => PublicKey::from_bare_multibase(Curve::P256, multibase),
        _ => return None,
    }
    .ok()
}
