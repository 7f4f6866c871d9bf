//! Public keys as text: base58btc in multibase, with or without the multicodec in front
//! (atproto Cryptography, "Public Key Encoding").

use super::{Curve, Error};

/// A key's bytes and curve from a multikey, `z` and base58 of the codec and the compressed point.
pub(super) fn read_multikey(text: &str) -> Result<(Curve, [u8; COMPRESSED]), Error> {
    let mut buffer = [0; 2 + COMPRESSED];
    let bytes = decode(text, &mut buffer)?;
    let (curve, point) = match bytes {
        // The multicodecs 0xe7 (secp256k1-pub) and 0x1200 (p256-pub) as varints.
        [0xe7, 0x01, point @ ..] => (Curve::K256, point),
        [0x80, 0x24, point @ ..] => (Curve::P256, point),
        _ => return Err(Error::UnsupportedKey),
    };
    Ok((curve, point.try_into().map_err(|_| Error::NotAPublicKey)?))
}

/// The point's bytes from the older spelling, in which a type beside it tells the curve.
pub(super) fn read_bare(text: &str) -> Result<Vec<u8>, Error> {
    let mut buffer = [0; UNCOMPRESSED];
    decode(text, &mut buffer).map(<[u8]>::to_vec)
}

/// `z` and base58 of the codec and the compressed point.
pub(super) fn write_multikey(curve: Curve, point: &[u8]) -> String {
    let codec = match curve {
        Curve::K256 => [0xe7, 0x01],
        Curve::P256 => [0x80, 0x24],
    };
    let bytes = [codec.as_slice(), point].concat();
    format!("z{}", bs58::encode(bytes).into_string())
}

const COMPRESSED: usize = 33;
const UNCOMPRESSED: usize = 65;

fn decode<'a>(text: &str, buffer: &'a mut [u8]) -> Result<&'a [u8], Error> {
    let digits = text.strip_prefix('z').ok_or(Error::NotAPublicKey)?;
    // Base58 takes quadratic time. Decoding stops with an error where the buffer ends, so that a
    // long text costs no more than a key.
    let length = bs58::decode(digits).onto(&mut *buffer).map_err(|_| Error::NotAPublicKey)?;
    buffer.get(..length).ok_or(Error::NotAPublicKey)
}
