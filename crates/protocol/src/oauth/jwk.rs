//! Public keys as JSON (RFC 7517), their thumbprints (RFC 7638), and sets of keys.
//!
//! Only keys that verify one of the [`Algorithm`]s are kept. A key with private parts is refused:
//! it is compromised by having been sent.
//!
//! ```
//! use genkan_protocol::crypto::P256PrivateKey;
//! use genkan_protocol::oauth::jwk::{Error, Jwk, JwkSet};
//! use genkan_protocol::oauth::jws::Algorithm;
//!
//! let key = Jwk::of(&P256PrivateKey::from_bytes(&[7; 32]).unwrap().public()).named("key 1");
//! let set = serde_json::to_vec(&JwkSet { keys: vec![key.clone()] }).unwrap();
//! assert_eq!(JwkSet::parse(&set)?.find("key 1", Algorithm::Es256), Some(&key));
//! assert_eq!(Jwk::parse(br#"{"kty":"oct","k":"c2VjcmV0"}"#), Err(Error::Private));
//! # Ok::<(), Error>(())
//! ```

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::jws::Algorithm;
pub use super::thumbprint::{Thumbprint, ThumbprintError};
use crate::crypto::{self, PublicKey};
use crate::jwt::present;

/// A public key that verifies signatures: on P-256, K-256 or P-384, or RSA of 2048 to 4096 bits.
///
/// Whether a point lies on its curve is checked only when a signature is.
#[derive(Clone, PartialEq, Eq)]
pub struct Jwk {
    material: Material,
    kid: Option<Box<str>>,
    alg: Option<Algorithm>,
    published: bool,
}

/// The numbers of a key.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Material {
    /// A point in SEC 1's uncompressed form: 4, x, y. Bytes beyond the curve's length are zero.
    Ec(Curve, [u8; 97]),
    /// Big-endian without leading zeros.
    Rsa { modulus: Box<[u8]>, exponent: Box<[u8]> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    K256,
    P384,
}

/// Why a key or a set of keys is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the JSON of a key, or a number of the wrong length.
    #[error("the key is malformed")]
    Malformed,
    /// A private or symmetric key.
    #[error("the key has private parts")]
    Private,
    /// A type, curve, algorithm, size or use that is not supported.
    #[error("the key is of an unsupported kind")]
    Unsupported,
    /// More than [`JwkSet::MAX_KEYS`] keys in a set.
    #[error("there are too many keys")]
    TooMany,
}

impl Jwk {
    /// Reads a key. Unknown members are ignored.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let wire: WireJwk<'_> = serde_json::from_slice(json).map_err(|_| Error::Malformed)?;
        wire.read()
    }

    /// A key on one of the protocol's two curves, without `kid`, `use` and `alg`.
    pub fn of(key: &PublicKey) -> Self {
        let curve = match key.curve() {
            crypto::Curve::K256 => Curve::K256,
            crypto::Curve::P256 => Curve::P256,
        };
        let mut point = [0; 97];
        // Both curves have 65 bytes here. The rest of the array, which only P-384 needs, stays
        // zero.
        for (to, from) in point.iter_mut().zip(key.to_sec1_uncompressed()) {
            *to = from;
        }
        Self { material: Material::Ec(curve, point), kid: None, alg: None, published: false }
    }

    /// The key with the members that a published set needs: `kid`, `use: sig`, and `alg` where the
    /// curve has only one.
    #[must_use]
    pub fn named(mut self, kid: &str) -> Self {
        self.kid = Some(kid.into());
        self.alg = match &self.material {
            Material::Ec(curve, _) => Some(curve.algorithm()),
            Material::Rsa { .. } => self.alg,
        };
        self.published = true;
        self
    }

    /// The name that its owner gave it (`kid`), 1 to 512 bytes.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The algorithm that its owner restricts it to (`alg`).
    pub fn alg(&self) -> Option<Algorithm> {
        self.alg
    }

    /// Whether this key can verify signatures of this algorithm.
    pub fn fits(&self, alg: Algorithm) -> bool {
        if self.alg.is_some_and(|own| own != alg) {
            return false;
        }
        match &self.material {
            Material::Ec(curve, _) => curve.algorithm() == alg,
            Material::Rsa { .. } => alg.is_rsa(),
        }
    }

    /// The SHA-256 thumbprint (RFC 7638 §3).
    pub fn thumbprint(&self) -> Thumbprint {
        // The required members in the order of their names, without spaces (RFC 7638 §3.2), fed to
        // the hash as they come.
        let mut hash = Sha256::new();
        match &self.material {
            Material::Ec(curve, _) => {
                let (x, y) = self.coordinates();
                hash.update(b"{\"crv\":\"");
                hash.update(curve.name());
                hash.update(b"\",\"kty\":\"EC\",\"x\":\"");
                hash_base64url(&mut hash, x);
                hash.update(b"\",\"y\":\"");
                hash_base64url(&mut hash, y);
            }
            Material::Rsa { modulus, exponent } => {
                hash.update(b"{\"e\":\"");
                hash_base64url(&mut hash, exponent);
                hash.update(b"\",\"kty\":\"RSA\",\"n\":\"");
                hash_base64url(&mut hash, modulus);
            }
        }
        hash.update(b"\"}");
        Thumbprint::of(hash.finalize().into())
    }

    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    /// The coordinates of a point; both empty for an RSA key.
    fn coordinates(&self) -> (&[u8], &[u8]) {
        match &self.material {
            Material::Ec(curve, _) => self.material.point().split_at(1).1.split_at(curve.coordinate()),
            Material::Rsa { .. } => (&[], &[]),
        }
    }
}

impl Material {
    /// The point without the bytes beyond its curve's length; empty for RSA.
    pub(super) fn point(&self) -> &[u8] {
        match self {
            Self::Ec(curve, point) => point.split_at(1 + 2 * curve.coordinate()).0,
            Self::Rsa { .. } => &[],
        }
    }
}

impl Curve {
    fn named(name: &str) -> Option<Self> {
        [Self::P256, Self::K256, Self::P384].into_iter().find(|curve| curve.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::K256 => "secp256k1",
            Self::P384 => "P-384",
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::Es256,
            Self::K256 => Algorithm::Es256k,
            Self::P384 => Algorithm::Es384,
        }
    }

    /// The length of a coordinate in bytes.
    fn coordinate(self) -> usize {
        match self {
            Self::P256 | Self::K256 => 32,
            Self::P384 => 48,
        }
    }
}

/// A set of public keys, `{"keys":[…]}` (RFC 7517 §5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JwkSet {
    /// The keys, in their order.
    pub keys: Vec<Jwk>,
}

impl JwkSet {
    /// The most keys that a set may have.
    pub const MAX_KEYS: usize = 64;

    /// Reads a set. Keys of unsupported kinds are left out (RFC 7517 §5).
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`]; or [`Error::Malformed`] or [`Error::Private`] when a single key is.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let wire: WireSet<'_> = serde_json::from_slice(json).map_err(|_| Error::Malformed)?;
        if wire.keys.len() > Self::MAX_KEYS {
            return Err(Error::TooMany);
        }
        let mut keys = Vec::with_capacity(wire.keys.len());
        for key in wire.keys {
            match Jwk::parse(key.get().as_bytes()) {
                Ok(key) => keys.push(key),
                // A set may hold keys for other servers or newer algorithms. One of them must not
                // disable the keys that can be used.
                Err(Error::Unsupported) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { keys })
    }

    /// The first key with this name that fits the algorithm.
    pub fn find(&self, kid: &str, alg: Algorithm) -> Option<&Jwk> {
        self.keys.iter().find(|key| key.kid() == Some(kid) && key.fits(alg))
    }
}

#[derive(Deserialize)]
struct WireSet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl Serialize for Jwk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.material {
            Material::Ec(curve, _) => {
                let (x, y) = self.coordinates();
                map.serialize_entry("kty", "EC")?;
                map.serialize_entry("crv", curve.name())?;
                map.serialize_entry("x", &URL_SAFE_NO_PAD.encode(x))?;
                map.serialize_entry("y", &URL_SAFE_NO_PAD.encode(y))?;
            }
            Material::Rsa { modulus, exponent } => {
                map.serialize_entry("kty", "RSA")?;
                map.serialize_entry("n", &URL_SAFE_NO_PAD.encode(modulus))?;
                map.serialize_entry("e", &URL_SAFE_NO_PAD.encode(exponent))?;
            }
        }
        if let Some(kid) = &self.kid {
            map.serialize_entry("kid", kid)?;
        }
        if self.published {
            map.serialize_entry("use", "sig")?;
        }
        if let Some(alg) = &self.alg {
            map.serialize_entry("alg", alg)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Jwk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WireJwk::deserialize(deserializer)?.read().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Jwk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Jwk").field(&self.kid()).field(&self.thumbprint()).finish()
    }
}

#[derive(Deserialize)]
struct WireJwk<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(default, deserialize_with = "present")]
    crv: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    x: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    y: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    n: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    e: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    kid: Option<Box<str>>,
    #[serde(default, deserialize_with = "present")]
    alg: Option<Text<'a>>,
    #[serde(default, rename = "use", deserialize_with = "present")]
    purpose: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    key_ops: Option<Vec<Text<'a>>>,
    #[serde(default, deserialize_with = "present")]
    d: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    p: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    q: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    dp: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    dq: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    qi: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    oth: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    k: Option<IgnoredAny>,
}

/// A text, borrowed where the JSON spells it without escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl WireJwk<'_> {
    fn read(self) -> Result<Jwk, Error> {
        // Before anything else: also a key of an unsupported kind must not leak in silence.
        if self.is_private() {
            return Err(Error::Private);
        }
        let may_verify = |ops: &Vec<Text<'_>>| ops.iter().any(|operation| operation.0 == "verify");
        // A key for encryption must not verify signatures (RFC 7517 §4.2, §4.3).
        if self.purpose.as_ref().is_some_and(|purpose| purpose.0 != "sig")
            || self.key_ops.as_ref().is_some_and(|ops| !may_verify(ops))
        {
            return Err(Error::Unsupported);
        }
        let alg = match &self.alg {
            // An unknown algorithm makes the key unsupported and not malformed, so that a set with
            // it can still be read.
            Some(alg) => Some(alg.0.parse::<Algorithm>().map_err(|_| Error::Unsupported)?),
            None => None,
        };
        if self.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID) {
            return Err(Error::Malformed);
        }
        let material = match &*self.kty {
            "EC" => self.read_point()?,
            "RSA" => self.read_rsa()?,
            _ => return Err(Error::Unsupported),
        };
        // A key that names an algorithm of another kind contradicts itself.
        let published = self.purpose.is_some();
        let key = Jwk { material, kid: self.kid, alg, published };
        if alg.is_some_and(|alg| !key.fits(alg)) {
            return Err(Error::Malformed);
        }
        Ok(key)
    }

    fn is_private(&self) -> bool {
        [&self.d, &self.p, &self.q, &self.dp, &self.dq, &self.qi, &self.oth, &self.k]
            .into_iter()
            .any(Option::is_some)
    }

    fn read_point(&self) -> Result<Material, Error> {
        let curve = Curve::named(required(self.crv.as_ref())?).ok_or(Error::Unsupported)?;
        let mut point = [0; 97];
        // The mark of an uncompressed point (SEC 1 §2.3.3).
        point[0] = 4;
        let length = curve.coordinate();
        for (text, at) in [(required(self.x.as_ref())?, 1), (required(self.y.as_ref())?, 1 + length)] {
            let place = point.get_mut(at..at + length).ok_or(Error::Malformed)?;
            // Leading zeros are part of a coordinate (RFC 7518 §6.2.1.2).
            if URL_SAFE_NO_PAD.decode_slice(text, place) != Ok(length) {
                return Err(Error::Malformed);
            }
        }
        Ok(Material::Ec(curve, point))
    }

    fn read_rsa(&self) -> Result<Material, Error> {
        let modulus = number(required(self.n.as_ref())?)?;
        let exponent = number(required(self.e.as_ref())?)?;
        // An exponent of more than four bytes only makes verifying slow; nearly all keys have
        // 65537.
        if !(RSA_BYTES.contains(&modulus.len())) || exponent.len() > 4 {
            return Err(Error::Unsupported);
        }
        Ok(Material::Rsa { modulus, exponent })
    }
}

const MAX_KID: usize = 512;

/// 2048 to 4096 bits: shorter keys are weak, longer ones are slow to verify with.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

fn required<'a>(text: Option<&'a Text<'_>>) -> Result<&'a str, Error> {
    text.map(|text| &*text.0).ok_or(Error::Malformed)
}

fn number(text: &str) -> Result<Box<[u8]>, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Malformed)?;
    match bytes.first() {
        // RFC 7518 §6.3.1.1: no leading zeros, so that a key has only one thumbprint.
        None | Some(0) => Err(Error::Malformed),
        Some(_) => Ok(bytes.into()),
    }
}

/// Hashes the base64url of bytes without keeping it. Chunks of 48 bytes, a multiple of three, leave
/// no remainder between them.
fn hash_base64url(hash: &mut Sha256, bytes: &[u8]) {
    let mut text = [0; 64];
    for chunk in bytes.chunks(48) {
        let length = URL_SAFE_NO_PAD.encode_slice(chunk, &mut text).expect("48 bytes are 64 characters");
        hash.update(text.split_at(length).0);
    }
}
