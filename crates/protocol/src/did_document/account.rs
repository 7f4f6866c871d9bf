//! What a DID document says about an account, read without keeping the document.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{PdsError, is_named, pds_origin_of, read_key};
use crate::crypto::PublicKey;
use crate::json_bounds::{self, JsonBoundsError};
use crate::origin::Origin;
use crate::syntax::{Did, Handle};

/// The handle, PDS and signing key that an account's DID document names.
///
/// Anyone can publish a document and choose its size. These facts take a few KiB at most, and no
/// tree is built of the rest of the document.
///
/// ```
/// use genkan_protocol::did_document::AccountFacts;
///
/// let document = br##"{
///     "id": "did:web:example.com",
///     "alsoKnownAs": ["at://alice.example.com"],
///     "service": [{
///         "id": "#atproto_pds",
///         "type": "AtprotoPersonalDataServer",
///         "serviceEndpoint": "https://pds.example.com"
///     }],
///     "more": [1, 2, 3]
/// }"##;
/// let facts = AccountFacts::parse(document, &"did:web:example.com".parse()?)?;
/// assert_eq!(facts.handle.unwrap().as_str(), "alice.example.com");
/// assert_eq!(facts.pds.unwrap().as_str(), "https://pds.example.com");
/// assert_eq!(facts.signing_key, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFacts {
    /// The DID that the document is about.
    pub id: Did,
    /// The first valid handle that the document claims. It counts only if it resolves to this DID,
    /// which the resolver checks (atproto Handle, "Handle Resolution").
    pub handle: Option<Handle>,
    /// The origin of the account's PDS; see [`super::DidDocument::pds_origin`].
    pub pds: Result<Origin, PdsError>,
    /// The key that signs for the account, `#atproto`.
    pub signing_key: Option<PublicKey>,
}

/// Why a document is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountFactsError {
    /// Not the JSON of a DID document.
    #[error("it is not a DID document")]
    Malformed,
    /// Its `id` is another DID.
    #[error("the DID document is another DID's")]
    AnotherDid,
    /// Too many levels or values.
    #[error("the DID document is not read: {0}")]
    TooLarge(#[from] JsonBoundsError),
}

impl AccountFacts {
    /// Reads the document that was found for `did`.
    ///
    /// # Errors
    ///
    /// [`AccountFactsError`] when it is no such document.
    pub fn parse(json: &[u8], did: &Did) -> Result<Self, AccountFactsError> {
        json_bounds::check(json)?;
        let wire: WireDocument<'_> =
            serde_json::from_slice(json).map_err(|_| AccountFactsError::Malformed)?;
        // A server that answers with another DID's document could otherwise redirect an account.
        if wire.id != *did {
            return Err(AccountFactsError::AnotherDid);
        }
        Ok(Self {
            handle: wire.also_known_as.iter().find_map(|name| name.strip_prefix("at://")?.parse().ok()),
            pds: wire.pds(),
            signing_key: wire.signing_key(),
            id: wire.id,
        })
    }

    /// Whether this is the handle that the document claims.
    pub fn claims_handle(&self, handle: &Handle) -> bool {
        self.handle.as_ref() == Some(handle)
    }
}

/// The members that are read. What is unknown is skipped without being kept.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDocument<'a> {
    id: Did,
    #[serde(default)]
    also_known_as: Vec<String>,
    #[serde(borrow, default)]
    verification_method: Vec<WireMethod<'a>>,
    #[serde(borrow, default)]
    service: Vec<WireService<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMethod<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    public_key_multibase: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireService<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    /// A URL for a PDS, any JSON for other services.
    #[serde(borrow)]
    service_endpoint: &'a RawValue,
}

impl WireDocument<'_> {
    fn pds(&self) -> Result<Origin, PdsError> {
        // The first service of this name decides, whatever it is. A later one does not stand in
        // for it.
        let service = self.service.iter().find(|service| is_named(&self.id, &service.id, "#atproto_pds"));
        let service = service.filter(|service| service.kind == "AtprotoPersonalDataServer");
        let endpoint = service.and_then(|service| serde_json::from_str(service.service_endpoint.get()).ok());
        let endpoint: String = endpoint.ok_or(PdsError::Missing)?;
        pds_origin_of(&endpoint)
    }

    fn signing_key(&self) -> Option<PublicKey> {
        let methods = &self.verification_method;
        let method = methods.iter().find(|method| is_named(&self.id, &method.id, "#atproto"))?;
        read_key(&method.kind, method.public_key_multibase.as_deref()?)
    }
}
