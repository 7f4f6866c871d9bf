//! Operations: creating, signing, naming and checking them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::{Data, Error, Service};
use crate::crypto::{K256PrivateKey, PublicKey};
use crate::dag_cbor::{Cid, Value};
use crate::syntax::Did;

/// Creates the first operation of an account, and the DID that follows from it.
pub fn genesis(data: Data, key: &K256PrivateKey) -> (Did, Operation) {
    let operation = Operation::PlcOperation(PlcOperation::signed(data, None, key));
    (operation.hash_did(), operation)
}

/// Creates the operation that gives an account another state. `previous_cid` names the operation
/// that it follows.
pub fn update(previous_cid: &str, data: Data, key: &K256PrivateKey) -> Operation {
    Operation::PlcOperation(PlcOperation::signed(data, Some(previous_cid.to_owned()), key))
}

/// Creates the operation that ends an account. `previous_cid` names the operation that it follows.
pub fn tombstone(previous_cid: &str, key: &K256PrivateKey) -> Operation {
    let mut tombstone = Tombstone { prev: previous_cid.to_owned(), sig: String::new() };
    tombstone.sig = sign(tombstone.unsigned(), key);
    Operation::Tombstone(tombstone)
}

/// A signed operation, in the JSON of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Operation {
    /// The whole state of a DID.
    #[serde(rename = "plc_operation")]
    PlcOperation(PlcOperation),
    /// The end of a DID.
    #[serde(rename = "plc_tombstone")]
    Tombstone(Tombstone),
    /// The first operation of the oldest DIDs. It is read here, never created.
    #[serde(rename = "create")]
    LegacyCreate(LegacyCreate),
}

/// The whole state of a DID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlcOperation {
    /// Keys that may sign the next operation, in falling order of authority.
    pub rotation_keys: Vec<String>,
    /// Keys of the document by name.
    pub verification_methods: BTreeMap<String, String>,
    /// Other names.
    pub also_known_as: Vec<String>,
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// The CID of the operation before; null in the first.
    #[serde(deserialize_with = "required")]
    pub prev: Option<String>,
    /// The signature in base64url.
    pub sig: String,
}

/// The end of a DID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// The CID of the operation before.
    pub prev: String,
    /// The signature in base64url.
    pub sig: String,
}

/// The first operation of the oldest DIDs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LegacyCreate {
    /// The account's signing key, which may also sign operations.
    pub signing_key: String,
    /// The rotation key with the higher authority.
    pub recovery_key: String,
    /// The handle, with or without `at://`.
    pub handle: String,
    /// The host, with or without `https://`.
    pub service: String,
    /// Always null.
    #[serde(deserialize_with = "required")]
    pub prev: Option<String>,
    /// The signature in base64url.
    pub sig: String,
}

impl Operation {
    /// The operation's CID, to which the next one refers in `prev`.
    pub fn cid(&self) -> String {
        Cid::of(&self.to_dag_cbor()).to_string()
    }

    /// The DID that follows from a first operation. `None` for a later one.
    pub fn did(&self) -> Option<Did> {
        // The hash of a later operation is no DID, though it has the same form.
        self.prev().is_none().then(|| self.hash_did())
    }

    /// The CID of the operation before.
    pub fn prev(&self) -> Option<&str> {
        match self {
            Self::PlcOperation(operation) => operation.prev.as_deref(),
            Self::Tombstone(operation) => Some(&operation.prev),
            Self::LegacyCreate(operation) => operation.prev.as_deref(),
        }
    }

    /// The state that the operation gives to the DID. `None` for a tombstone.
    pub fn data(&self) -> Option<Data> {
        match self {
            Self::PlcOperation(operation) => Some(operation.data()),
            Self::Tombstone(_) => None,
            Self::LegacyCreate(operation) => Some(operation.data()),
        }
    }

    /// Checks the signature against the keys that may sign it: the rotation keys of the operation
    /// before, or of the operation itself when it is the first. Returns the index of the key that
    /// signed.
    ///
    /// # Errors
    ///
    /// [`Error::MalformedSignature`] or [`Error::BadSignature`].
    pub fn verify_signature(&self, keys: &[PublicKey]) -> Result<usize, Error> {
        let signature = URL_SAFE_NO_PAD.decode(self.sig()).map_err(|_| Error::MalformedSignature)?;
        // The length is checked here, so that a malformed signature is not reported as a wrong one.
        if signature.len() != 64 {
            return Err(Error::MalformedSignature);
        }
        let message = Value::map(self.unsigned()).to_bytes();
        // The index counts: a key with higher authority, which comes earlier, may overrule a later
        // one (did:plc, "Key Rotation & Account Recovery").
        keys.iter().position(|key| key.verify(&message, &signature).is_ok()).ok_or(Error::BadSignature)
    }

    /// The operation's DAG-CBOR, signature included.
    pub fn to_dag_cbor(&self) -> Vec<u8> {
        let mut members = self.unsigned();
        // `sig` sorts between other members, and `Value::map` puts it there.
        members.push(("sig", Value::text(self.sig())));
        Value::map(members).to_bytes()
    }

    fn sig(&self) -> &str {
        match self {
            Self::PlcOperation(operation) => &operation.sig,
            Self::Tombstone(operation) => &operation.sig,
            Self::LegacyCreate(operation) => &operation.sig,
        }
    }

    fn unsigned(&self) -> Vec<(&str, Value)> {
        match self {
            Self::PlcOperation(operation) => operation.unsigned(),
            Self::Tombstone(operation) => operation.unsigned(),
            Self::LegacyCreate(operation) => operation.unsigned(),
        }
    }

    fn hash_did(&self) -> Did {
        // 24 characters of base32 are 120 bits of the hash (did:plc, "Identifier Syntax").
        let hash = Sha256::digest(self.to_dag_cbor());
        let mut text = data_encoding::BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
        text.truncate(24);
        format!("did:plc:{text}").try_into().expect("base32 is allowed in a DID")
    }
}

impl PlcOperation {
    fn signed(data: Data, prev: Option<String>, key: &K256PrivateKey) -> Self {
        let Data { rotation_keys, verification_methods, also_known_as, services } = data;
        // Filled in below. The signed bytes do not contain `sig`, so its value does not matter
        // until then.
        let sig = String::new();
        let mut operation = Self { rotation_keys, verification_methods, also_known_as, services, prev, sig };
        operation.sig = sign(operation.unsigned(), key);
        operation
    }

    fn data(&self) -> Data {
        Data {
            rotation_keys: self.rotation_keys.clone(),
            verification_methods: self.verification_methods.clone(),
            also_known_as: self.also_known_as.clone(),
            services: self.services.clone(),
        }
    }

    fn unsigned(&self) -> Vec<(&str, Value)> {
        let methods = self.verification_methods.iter().map(|(name, key)| (name.as_str(), Value::text(key)));
        let services = self.services.iter().map(|(name, service)| {
            let members =
                vec![("type", Value::text(&service.r#type)), ("endpoint", Value::text(&service.endpoint))];
            (name.as_str(), Value::map(members))
        });
        vec![
            // The order here does not matter: DAG-CBOR has one order of members, and `to_bytes`
            // sorts.
            ("type", Value::text("plc_operation")),
            ("rotationKeys", Value::texts(&self.rotation_keys)),
            ("verificationMethods", Value::map(methods.collect())),
            ("alsoKnownAs", Value::texts(&self.also_known_as)),
            ("services", Value::map(services.collect())),
            ("prev", self.prev.as_deref().map_or(Value::Null, Value::text)),
        ]
    }
}

impl Tombstone {
    fn unsigned(&self) -> Vec<(&str, Value)> {
        vec![("type", Value::text("plc_tombstone")), ("prev", Value::text(&self.prev))]
    }
}

impl LegacyCreate {
    fn data(&self) -> Data {
        let mut data = Data {
            // The recovery key comes first, since rotation keys are in falling order of authority.
            rotation_keys: vec![self.recovery_key.clone(), self.signing_key.clone()],
            verification_methods: BTreeMap::from([("atproto".to_owned(), self.signing_key.clone())]),
            ..Data::default()
        };
        data.also_known_as.push(if self.handle.starts_with("at://") {
            self.handle.clone()
        } else {
            // Some of the oldest wrote their handle as a URL.
            format!("at://{}", self.handle.replacen("http://", "", 1).replacen("https://", "", 1))
        });
        let has_scheme = self.service.starts_with("http://") || self.service.starts_with("https://");
        data.set_pds_endpoint(&if has_scheme {
            self.service.clone()
        } else {
            format!("https://{}", self.service)
        });
        data
    }

    fn unsigned(&self) -> Vec<(&str, Value)> {
        vec![
            // The signed bytes have the old form. A rewrite as `plc_operation` would break the
            // signature.
            ("type", Value::text("create")),
            ("signingKey", Value::text(&self.signing_key)),
            ("recoveryKey", Value::text(&self.recovery_key)),
            ("handle", Value::text(&self.handle)),
            ("service", Value::text(&self.service)),
            ("prev", self.prev.as_deref().map_or(Value::Null, Value::text)),
        ]
    }
}

fn sign(unsigned: Vec<(&str, Value)>, key: &K256PrivateKey) -> String {
    URL_SAFE_NO_PAD.encode(key.sign(&Value::map(unsigned).to_bytes()))
}

/// Reads `prev`, which may be null but not absent: the signature covers the member.
fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}
