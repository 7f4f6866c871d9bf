//! The state that an operation gives to a DID.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::crypto::PublicKey;
use crate::syntax::Handle;

/// The state of a `did:plc`: the keys that may change it, and the content of its document (did:plc,
/// "DID PLC Operations").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// Keys that may sign the next operation, as `did:key`: one to five, in falling order of
    /// authority.
    pub rotation_keys: Vec<String>,
    /// Keys of the document by name, as `did:key`.
    pub verification_methods: BTreeMap<String, String>,
    /// Other names of the account, handles among them as `at://…`.
    pub also_known_as: Vec<String>,
    /// Services by name.
    pub services: BTreeMap<String, Service>,
}

/// A service, such as the account's PDS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its kind.
    pub r#type: String,
    /// Its URL.
    pub endpoint: String,
}

impl Data {
    /// The state of an ordinary account.
    pub fn of_account(
        rotation_keys: Vec<String>,
        signing_key: &PublicKey,
        handle: &Handle,
        pds_endpoint: &str,
    ) -> Self {
        let mut data = Self { rotation_keys, ..Self::default() };
        data.set_signing_key(signing_key);
        data.set_handle(handle);
        data.set_pds_endpoint(pds_endpoint);
        data
    }

    /// The first valid handle.
    pub fn handle(&self) -> Option<Handle> {
        // Names of other kinds, and handles that cannot be read, are passed over.
        self.also_known_as.iter().find_map(|name| name.strip_prefix("at://")?.parse().ok())
    }

    /// Replaces the first handle, or inserts the handle before all other names.
    pub fn set_handle(&mut self, handle: &Handle) {
        let name = format!("at://{handle}");
        match self.also_known_as.iter_mut().find(|name| name.starts_with("at://")) {
            // Replaced in its place: other names and further handles keep their order.
            Some(old) => *old = name,
            None => self.also_known_as.insert(0, name),
        }
    }

    /// The URL of the account's PDS as it is written, unchecked.
    pub fn pds_endpoint(&self) -> Option<&str> {
        self.services.get(PDS).map(|service| service.endpoint.as_str())
    }

    /// Names another PDS.
    pub fn set_pds_endpoint(&mut self, endpoint: &str) {
        let service =
            Service { r#type: "AtprotoPersonalDataServer".to_owned(), endpoint: endpoint.to_owned() };
        self.services.insert(PDS.to_owned(), service);
    }

    /// The key that signs for the account, as `did:key`.
    pub fn signing_key(&self) -> Option<&str> {
        self.verification_methods.get(SIGNING_KEY).map(String::as_str)
    }

    /// Names another signing key.
    pub fn set_signing_key(&mut self, key: &PublicKey) {
        self.verification_methods.insert(SIGNING_KEY.to_owned(), key.to_did_key());
    }

    /// Checks what the directory would refuse.
    ///
    /// # Errors
    ///
    /// [`Error::RotationKeyCount`], [`Error::UnsupportedKey`] or [`Error::RepeatedRotationKey`].
    pub fn check(&self) -> Result<(), Error> {
        // The directory's limits (did:plc, "Operation Serialization, Signing, and Validation").
        if !(1..=5).contains(&self.rotation_keys.len()) {
            return Err(Error::RotationKeyCount);
        }
        for key in self.rotation_keys.iter().chain(self.verification_methods.values()) {
            PublicKey::from_did_key(key).map_err(|_| Error::UnsupportedKey(key.clone()))?;
        }
        // Five keys at most, so comparing every pair is cheap.
        let mut seen = self.rotation_keys.iter().enumerate();
        if seen.any(|(at, key)| self.rotation_keys.iter().skip(at + 1).any(|other| other == key)) {
            return Err(Error::RepeatedRotationKey);
        }
        Ok(())
    }
}

const PDS: &str = "atproto_pds";
const SIGNING_KEY: &str = "atproto";
