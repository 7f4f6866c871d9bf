//! The protocol crate against data made by the reference implementations, against attacks, and
//! against itself.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod crypto;
mod did_document;
mod jwt;
mod oauth;
mod plc;
mod properties;
mod repo_proof;
mod service_auth;
mod session;
mod syntax;
mod wycheproof;

/// Parses one of the files in `tests/data`.
macro_rules! data {
    ($name:literal) => {
        serde_json::from_str::<serde_json::Value>(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/",
            $name
        )))
        .unwrap()
    };
}
pub(crate) use data;

pub(crate) fn hex(value: &serde_json::Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::BASE64URL_NOPAD.encode(bytes.as_ref())
}

/// A private key that is made up.
pub(crate) fn key(byte: u8) -> genkan_protocol::crypto::K256PrivateKey {
    genkan_protocol::crypto::K256PrivateKey::from_bytes(&[byte; 32]).unwrap()
}

/// Signs any header and claims, however wrong they are.
pub(crate) fn token(header: &str, claims: &str, byte: u8) -> String {
    let signed = format!("{}.{}", base64url(header), base64url(claims));
    let signature = key(byte).sign(signed.as_bytes());
    format!("{signed}.{}", base64url(signature))
}
