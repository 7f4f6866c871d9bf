//! `[keys]`: secrets that the operator can supply.

use super::Service;
use super::problem::Findings;
use super::section::section;
use crate::base::Secret;

section! {
    /// Secrets that the operator can supply. Genkan generates missing keys at the first start: the
    /// sealing key in the data folder, the rotation key sealed in the database.
    pub struct Keys = "keys" {
        /// Key that encrypts every other secret in the database. Processes that share a database
        /// need the same key.
        sealing_key: Option<Secret<[u8; 32]>> { env: "GENKAN_SEALING_KEY" },
        /// Previous sealing key, as long as the database contains values that it sealed. `genkan
        /// key rotate-sealing` reseals them and says when this setting can be removed.
        sealing_key_older: Option<Secret<[u8; 32]>> { env: "GENKAN_SEALING_KEY_OLDER" },
        /// secp256k1 private key that signs PLC operations. It controls the identities of all
        /// accounts: keep a copy in a safe place.
        plc_rotation_key: Option<Secret<[u8; 32]>> {
            env: "GENKAN_PLC_ROTATION_KEY", alias: "PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX"
        },
        /// Password for `com.atproto.admin.*` calls to Genkan. Without it, Genkan refuses these
        /// calls.
        admin_password: Option<Secret<String>> { env: "GENKAN_ADMIN_PASSWORD", alias: "PDS_ADMIN_PASSWORD" },
        /// Recovery key of the operator (`did:key`), placed before Genkan's own key among the
        /// rotation keys of new accounts.
        recovery_did_key: Option<String> { env: "GENKAN_RECOVERY_DID_KEY", alias: "PDS_RECOVERY_DID_KEY" },
    }
}

impl Keys {
    fn check(&self, found: &mut Findings) {
        if self.sealing_key.as_ref().is_some_and(is_weak) {
            found.add("GENKAN_SEALING_KEY", "is not random", GENERATE);
        }
        if self.sealing_key_older.is_some() && self.sealing_key.is_none() {
            found.add(
                "GENKAN_SEALING_KEY_OLDER",
                "is set without GENKAN_SEALING_KEY",
                "set GENKAN_SEALING_KEY to the new key, or add the older key as a further line to sealing.key in the data folder",
            );
        }
        if let Some(key) = &self.plc_rotation_key {
            if is_weak(key) {
                found.add("GENKAN_PLC_ROTATION_KEY", "is not random", GENERATE);
            } else if genkan_protocol::crypto::K256PrivateKey::from_bytes(key.expose()).is_err() {
                found.add("GENKAN_PLC_ROTATION_KEY", "is not a secp256k1 private key", GENERATE);
            } else if self.sealing_key.as_ref().is_some_and(|sealing| sealing == key) {
                found.add("GENKAN_PLC_ROTATION_KEY", "is the same key as GENKAN_SEALING_KEY", GENERATE);
            }
        }
        if let Some(key) = &self.recovery_did_key
            && genkan_protocol::crypto::PublicKey::from_did_key(key).is_err()
        {
            found.add(
                "GENKAN_RECOVERY_DID_KEY",
                format!("{key:?} is not a did:key"),
                "use a public key of the form did:key:z…",
            );
        }
    }

    pub(super) fn check_for(&self, service: &Service, found: &mut Findings) {
        if let Some(password) = &self.admin_password
            && password.expose().chars().count() < ADMIN_PASSWORD_LENGTH
            && !service.development
        {
            found.add(
                "GENKAN_ADMIN_PASSWORD",
                format!("is shorter than {ADMIN_PASSWORD_LENGTH} characters"),
                "generate one with `openssl rand -hex 16`",
            );
        }
    }
}

const ADMIN_PASSWORD_LENGTH: usize = 16;
const GENERATE: &str = "generate one with `openssl rand -hex 32`";

/// Whether a key was typed or repeated instead of generated.
///
/// Fewer than 16 different bytes among 32 random ones have a probability of about 10⁻¹².
fn is_weak(key: &Secret<[u8; 32]>) -> bool {
    let mut bytes = *key.expose();
    bytes.sort_unstable();
    bytes.chunk_by(PartialEq::eq).count() < 16
}
