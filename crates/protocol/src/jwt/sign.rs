//! Signing of tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::crypto::{K256PrivateKey, P256PrivateKey};

/// Signs claims under the header `{"typ":…,"alg":"ES256K"}`, with `kid` last when there is one.
///
/// # Panics
///
/// When the claims have no JSON form.
pub fn sign<T: Serialize>(key: &K256PrivateKey, typ: &str, kid: Option<&str>, claims: &T) -> String {
    sign_with_header(key, &HeaderToSign { typ, alg: "ES256K", kid }, claims)
}

/// Signs claims under any header. Its `alg` must be `ES256K`; that is not checked.
///
/// # Panics
///
/// When header or claims have no JSON form.
pub fn sign_with_header<H: Serialize, T: Serialize>(key: &K256PrivateKey, header: &H, claims: &T) -> String {
    assemble(header, claims, |signed| key.sign(signed))
}

/// Signs claims under the header `{"typ":…,"alg":"ES256","kid":…}`.
///
/// # Panics
///
/// When the claims have no JSON form.
pub fn sign_es256<T: Serialize>(key: &P256PrivateKey, typ: &str, kid: &str, claims: &T) -> String {
    assemble(&HeaderToSign { typ, alg: "ES256", kid: Some(kid) }, claims, |signed| key.sign(signed))
}

fn assemble<H: Serialize, T: Serialize>(
    header: &H,
    claims: &T,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
) -> String {
    let mut token = String::with_capacity(512);
    encode(header, &mut token);
    token.push('.');
    encode(claims, &mut token);
    // The signature covers the encoded text, so it is made before the second dot is written (RFC
    // 7515 §5.1).
    let signature = sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

#[derive(Serialize)]
struct HeaderToSign<'a> {
    typ: &'a str,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

fn encode<T: Serialize>(part: &T, token: &mut String) {
    let json = serde_json::to_vec(part).expect("headers and claims are plain data");
    URL_SAFE_NO_PAD.encode_string(json, token);
}
