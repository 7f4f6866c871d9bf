//! `[keys]`: the secrets that an operator may bring along.

use super::Service;
use super::key::section;
use super::problem::Findings;
use crate::base::Secret;

section! {
    /// The secrets that an operator may bring along. What is not given is made at the first start and kept, sealed, with the data.
    pub struct Keys = "keys" {
        /// Seals every other secret in the database. Several Genkans on one database need the same.
        sealing_key: Option<Secret<[u8; 32]>> { env: "GENKAN_SEALING_KEY" },
        /// The sealing key from before, as long as something is left that it sealed; `genkan key rotate-sealing` says when it can go.
        sealing_key_older: Option<Secret<[u8; 32]>> { env: "GENKAN_SEALING_KEY_OLDER" },
        /// The secp256k1 private key that signs PLC operations. It takes and gives identities: keep a copy in a safe place.
        plc_rotation_key: Option<Secret<[u8; 32]>> {
            env: "GENKAN_PLC_ROTATION_KEY", alias: "PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX"
        },
        /// The password of `com.atproto.admin.*` calls to Genkan. Without it there are none.
        admin_password: Option<Secret<String>> { env: "GENKAN_ADMIN_PASSWORD", alias: "PDS_ADMIN_PASSWORD" },
        /// A `did:key` of the operator's, put before Genkan's own among the rotation keys of every new account.
        recovery_did_key: Option<String> { env: "GENKAN_RECOVERY_DID_KEY", alias: "PDS_RECOVERY_DID_KEY" },
    }
}

impl Keys {
    fn check(&self, found: &mut Findings) {
        if self.sealing_key.as_ref().is_some_and(is_weak) {
            found.add("GENKAN_SEALING_KEY", "is not random", MAKE_ANOTHER);
        }
        if self.sealing_key_older.is_some() && self.sealing_key.is_none() {
            found.add(
                "GENKAN_SEALING_KEY_OLDER",
                "is given without GENKAN_SEALING_KEY",
                "give the new key as GENKAN_SEALING_KEY; in the data folder's sealing.key, older keys are further lines",
            );
        }
        if let Some(key) = &self.plc_rotation_key {
            if is_weak(key) {
                found.add("GENKAN_PLC_ROTATION_KEY", "is not random", MAKE_ANOTHER);
            } else if genkan_protocol::crypto::K256PrivateKey::from_bytes(key.expose()).is_err() {
                found.add("GENKAN_PLC_ROTATION_KEY", "is not a secp256k1 private key", MAKE_ANOTHER);
            } else if self.sealing_key.as_ref().is_some_and(|sealing| sealing == key) {
                found.add("GENKAN_PLC_ROTATION_KEY", "is the sealing key too", MAKE_ANOTHER);
            }
        }
        if let Some(key) = &self.recovery_did_key
            && genkan_protocol::crypto::PublicKey::from_did_key(key).is_err()
        {
            found.add("GENKAN_RECOVERY_DID_KEY", format!("{key:?} is not a did:key"), "write did:key:z…");
        }
    }

    pub(super) fn check_for(&self, service: &Service, found: &mut Findings) {
        if let Some(password) = &self.admin_password
            && password.expose().chars().count() < ADMIN_PASSWORD_LENGTH
            && !service.development
        {
            found.add(
                "GENKAN_ADMIN_PASSWORD",
                format!("has fewer than {ADMIN_PASSWORD_LENGTH} characters"),
                "use a longer one, such as `openssl rand -hex 16` prints",
            );
        }
    }
}

const ADMIN_PASSWORD_LENGTH: usize = 16;
const MAKE_ANOTHER: &str = "make another with `openssl rand -hex 32`";

/// Of 32 random bytes fewer than 16 different ones is a matter of 1 in 10¹²; a typed or repeated key has fewer.
fn is_weak(key: &Secret<[u8; 32]>) -> bool {
    let mut bytes = *key.expose();
    bytes.sort_unstable();
    bytes.chunk_by(PartialEq::eq).count() < 16
}
