use genkan_protocol::crypto::{P256PrivateKey, PublicKey};
use genkan_protocol::jwt::Error;
use genkan_protocol::oauth::jwk::{self, Jwk, JwkSet, Thumbprint};
use genkan_protocol::oauth::jws::{Algorithm, Unverified};
use serde_json::{Value, json};

use crate::{base64url, data, key};

fn parse(json: &Value) -> Result<Jwk, jwk::Error> {
    Jwk::parse(json.to_string().as_bytes())
}

#[test]
fn tokens_of_every_algorithm_verify_by_their_own_key_only() {
    let cases = data!("jws.json");
    let cases = cases.as_array().unwrap();
    let mut verified = 0;
    for case in cases {
        let alg = case["alg"].as_str().unwrap();
        let token = case["token"].as_str().unwrap();
        let Ok(key) = parse(&case["jwk"]) else {
            // P-521 and RSA with 1024 bits.
            assert_eq!(parse(&case["jwk"]), Err(jwk::Error::Unsupported), "{alg}");
            continue;
        };
        assert_eq!(key.thumbprint().as_str(), case["thumbprint"].as_str().unwrap(), "{alg}");
        assert_eq!(parse(&case["private"]), Err(jwk::Error::Private), "{alg}");
        assert_eq!(serde_json::from_value::<Jwk>(serde_json::to_value(&key).unwrap()).unwrap(), key, "{alg}");
        let unverified = Unverified::parse(token).unwrap();
        let claims: Value = serde_json::from_slice(unverified.verify(&key).unwrap()).unwrap();
        assert_eq!(claims["sub"], alg);
        verified += 1;
        for other in cases.iter().filter(|other| other["jwk"] != case["jwk"]) {
            if let Ok(other) = parse(&other["jwk"]) {
                assert!(unverified.verify(&other).is_err(), "{alg}");
            }
        }
        let (signed, signature) = token.rsplit_once('.').unwrap();
        for wrong in ["", "AAAA", &"A".repeat(signature.len()), signature.split_at(40).0] {
            let wrong = format!("{signed}.{wrong}");
            assert_eq!(Unverified::parse(&wrong).unwrap().verify(&key), Err(Error::BadSignature), "{alg}");
        }
    }
    assert_eq!(verified, Algorithm::ALL.len());
}

#[test]
fn the_algorithm_cannot_be_swapped() {
    let cases = data!("jws.json");
    for case in cases.as_array().unwrap() {
        let Ok(key) = parse(&case["jwk"]) else { continue };
        let (_, rest) = case["token"].as_str().unwrap().split_once('.').unwrap();
        for alg in Algorithm::ALL.iter().filter(|alg| alg.as_str() != case["alg"]) {
            let header = base64url(format!(r#"{{"alg":"{alg}"}}"#));
            let token = format!("{header}.{rest}");
            assert!(Unverified::parse(&token).unwrap().verify(&key).is_err(), "{alg}");
        }
        for alg in ["none", "HS256", "ES512", "es256", ""] {
            let token = format!("{}.{rest}", base64url(format!(r#"{{"alg":"{alg}"}}"#)));
            assert_eq!(Unverified::parse(&token).unwrap_err(), Error::WrongAlgorithm, "{alg}");
        }
    }
}

#[test]
fn our_own_keys_sign_and_show() {
    let private = P256PrivateKey::from_bytes(&[7; 32]).unwrap();
    let key = Jwk::of(&private.public()).named("one");
    let signed = format!("{}.{}", base64url(r#"{"alg":"ES256"}"#), base64url("{}"));
    let token = format!("{signed}.{}", base64url(private.sign(signed.as_bytes())));
    assert_eq!(Unverified::parse(&token).unwrap().verify(&key), Ok(&b"{}"[..]));
    let shown = serde_json::to_value(JwkSet { keys: vec![key] }).unwrap();
    assert_eq!(shown["keys"][0]["kid"], "one");
    assert_eq!(shown["keys"][0]["use"], "sig");
    assert_eq!(shown["keys"][0]["alg"], "ES256");
    assert_eq!(format!("{private:?}"), "[sealed]");
    for bad in [[0; 32], [0xff; 32]] {
        assert!(P256PrivateKey::from_bytes(&bad).is_err());
    }
    let host = serde_json::to_value(Jwk::of(&crate::key(1).public())).unwrap();
    assert_eq!((&host["crv"], &host["kid"], &host["alg"]), (&json!("secp256k1"), &Value::Null, &Value::Null));
}

#[test]
fn thumbprints_are_those_of_rfc_7638() {
    // RFC 7638 §3.1.
    let key = json!({"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    let thumbprint = parse(&key).unwrap().thumbprint();
    assert_eq!(thumbprint.as_str(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(thumbprint.as_str().parse(), Ok(thumbprint));
    for wrong in
        ["", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9X", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xt"]
    {
        assert!(wrong.parse::<Thumbprint>().is_err(), "{wrong}");
    }
}

#[test]
fn odd_keys_are_refused() {
    let good = serde_json::to_value(Jwk::of(&key(1).public())).unwrap();
    assert!(parse(&good).is_ok());
    let long = base64url([1; 33]);
    let short = base64url([1; 31]);
    for (member, value, error) in [
        ("kty", json!("oct"), jwk::Error::Unsupported),
        ("kty", json!("OKP"), jwk::Error::Unsupported),
        ("kty", json!("RSA"), jwk::Error::Malformed),
        ("kty", json!("ec"), jwk::Error::Unsupported),
        ("crv", json!("P-521"), jwk::Error::Unsupported),
        ("crv", json!("P-384"), jwk::Error::Malformed),
        ("crv", json!(null), jwk::Error::Malformed),
        ("x", json!(long), jwk::Error::Malformed),
        ("x", json!(short), jwk::Error::Malformed),
        ("x", json!(""), jwk::Error::Malformed),
        ("x", json!(7), jwk::Error::Malformed),
        ("y", json!("+".repeat(43)), jwk::Error::Malformed),
        ("y", json!(format!("{}=", base64url([1; 32]))), jwk::Error::Malformed),
        ("d", json!("AA"), jwk::Error::Private),
        ("d", json!(null), jwk::Error::Private),
        ("k", json!({}), jwk::Error::Private),
        ("alg", json!("ES256"), jwk::Error::Malformed),
        ("alg", json!("ECDH-ES"), jwk::Error::Unsupported),
        ("use", json!("enc"), jwk::Error::Unsupported),
        ("key_ops", json!(["sign"]), jwk::Error::Unsupported),
        ("kid", json!(""), jwk::Error::Malformed),
        ("kid", json!("k".repeat(513)), jwk::Error::Malformed),
    ] {
        let mut changed = good.clone();
        changed[member] = value.clone();
        assert_eq!(parse(&changed), Err(error), "{member}: {value}");
        assert!(serde_json::from_value::<Jwk>(changed).is_err());
    }
    let twice = good.to_string().replacen('{', "{\"kty\":\"EC\",", 1);
    assert_eq!(Jwk::parse(twice.as_bytes()), Err(jwk::Error::Malformed));
}

#[test]
fn a_point_off_its_curve_verifies_nothing() {
    for crv in ["P-256", "secp256k1"] {
        let off = json!({"kty": "EC", "crv": crv, "x": base64url([1; 32]), "y": base64url([1; 32])});
        let key = parse(&off).unwrap();
        let alg = if crv == "P-256" { "ES256" } else { "ES256K" };
        let token = format!(
            "{}.{}.{}",
            base64url(format!(r#"{{"alg":"{alg}"}}"#)),
            base64url("{}"),
            base64url([1; 64])
        );
        assert_eq!(Unverified::parse(&token).unwrap().verify(&key), Err(Error::BadSignature));
    }
}

#[test]
fn sets_leave_out_what_is_unknown() {
    let one = Jwk::of(&key(1).public()).named("one");
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}, one, Jwk::of(&key(2).public())]});
    let set = JwkSet::parse(set.to_string().as_bytes()).unwrap();
    assert_eq!(set.keys.len(), 2);
    assert_eq!(set.find("one", Algorithm::Es256k), Some(&one));
    assert_eq!(set.find("one", Algorithm::Es256), None);
    assert_eq!(set.find("two", Algorithm::Es256k), None);
    for (wrong, error) in [
        (json!({"keys": [one, {"kty": "oct", "k": "AA"}]}), jwk::Error::Private),
        (json!({"keys": [{"kty": "EC"}]}), jwk::Error::Malformed),
        (json!({"keys": vec![&one; 65]}), jwk::Error::TooMany),
        (json!({"keys": {}}), jwk::Error::Malformed),
        (json!([]), jwk::Error::Malformed),
    ] {
        assert_eq!(JwkSet::parse(wrong.to_string().as_bytes()), Err(error));
    }
}

#[test]
fn signatures_with_either_s_pass() {
    let private = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let public = P256PrivateKey::from_bytes(&[7; 32]).unwrap().public();
    let signed = format!("{}.{}", base64url(r#"{"alg":"ES256"}"#), base64url("{}"));
    let made: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(&private, signed.as_bytes());
    let low = made.normalize_s();
    let high = p256::ecdsa::Signature::from_scalars(low.r(), -*low.s()).unwrap();
    for signature in [low, high] {
        let token = format!("{signed}.{}", base64url(signature.to_bytes()));
        assert!(Unverified::parse(&token).unwrap().verify(&Jwk::of(&public)).is_ok());
    }
    assert!(PublicKey::from_did_key(&public.to_did_key()).is_ok());
}
