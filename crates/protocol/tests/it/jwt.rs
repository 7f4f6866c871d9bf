//! The reader of tokens, against what `jose` makes and against what attackers make.

use genkan_protocol::crypto::{Curve, PublicKey};
use genkan_protocol::jwt::{Algorithm, Error, MAX_LENGTH, Unverified};
use serde_json::Value;

use crate::{base64url, data, key, token};

#[test]
fn tokens_of_the_reference_verify() {
    for case in data!("jwt.json")["jose"].as_array().unwrap() {
        let key = PublicKey::from_did_key(case["did_key"].as_str().unwrap()).unwrap();
        let token = Unverified::parse(case["token"].as_str().unwrap()).unwrap();
        assert_eq!(token.header().typ.as_deref(), Some("at+jwt"));
        let claims: Value = serde_json::from_slice(token.verify_either_s(&key).unwrap()).unwrap();
        assert_eq!(claims, case["claims"]);
        assert_eq!(token.verify(&key).is_ok(), case["low_s"].as_bool().unwrap());
        let (right, wrong) = match key.curve() {
            Curve::K256 => (token.verify_es256k(&key), token.verify_es256(&key)),
            Curve::P256 => (token.verify_es256(&key), token.verify_es256k(&key)),
        };
        assert_eq!(right.is_ok(), case["low_s"].as_bool().unwrap());
        assert_eq!(wrong, Err(Error::WrongAlgorithm));
        let other = crate::key(9).public();
        assert!(token.verify_either_s(&other).is_err());
    }
}

fn verdict(token: &str) -> Result<(), Error> {
    Unverified::parse(token)?.verify_es256k(&key(1).public()).map(drop)
}

const HEADER: &str = r#"{"typ":"x","alg":"ES256K"}"#;

#[test]
fn a_plain_token_is_valid() {
    assert_eq!(verdict(&token(HEADER, "{}", 1)), Ok(()));
    assert_eq!(verdict(&token(HEADER, "{}", 2)), Err(Error::BadSignature));
}

#[test]
fn another_algorithm_never_passes() {
    for alg in ["none", "None", "NONE", "HS256", "RS256", "ES256", "ES256k", "es256k", "ES384", "EdDSA", ""] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        assert_eq!(verdict(&token(&header, "{}", 1)), Err(Error::WrongAlgorithm), "{alg}");
        let unsigned = format!("{}.{}.", base64url(&header), base64url("{}"));
        assert_eq!(verdict(&unsigned), Err(Error::WrongAlgorithm), "{alg} without signature");
    }
    assert_eq!(
        Unverified::parse(&token(r#"{"alg":"none"}"#, "{}", 1)).unwrap().header().alg,
        Algorithm::Other
    );
}

#[test]
fn the_public_key_is_no_secret_to_sign_with() {
    // HMAC-SHA-256 by hand, keyed with every spelling of the public key an attacker has.
    use sha2::{Digest, Sha256};
    let hmac = |secret: &[u8], message: &[u8]| {
        let mut block = [0; 64];
        if secret.len() > 64 {
            block[..32].copy_from_slice(&Sha256::digest(secret));
        } else {
            block[..secret.len()].copy_from_slice(secret);
        }
        let inner =
            Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
        Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
    };
    let public = key(1).public();
    for secret in
        [public.to_did_key().into_bytes(), public.to_sec1_compressed(), public.to_sec1_uncompressed()]
    {
        for alg in ["HS256", "ES256K"] {
            let signed = format!("{}.{}", base64url(format!(r#"{{"alg":"{alg}"}}"#)), base64url("{}"));
            let forged = format!("{signed}.{}", base64url(hmac(&secret, signed.as_bytes())));
            assert!(verdict(&forged).is_err(), "{alg}");
        }
    }
}

#[test]
fn crit_is_refused_whatever_it_says() {
    for crit in [r#"["exp"]"#, "[]", "null", "false", r#"["b64"],"b64":false"#] {
        let header = format!(r#"{{"alg":"ES256K","crit":{crit}}}"#);
        assert_eq!(verdict(&token(&header, "{}", 1)), Err(Error::Malformed), "{crit}");
    }
}

#[test]
fn keys_in_the_header_are_seen_and_never_used() {
    for member in ["jwk", "jku", "x5c", "x5u"] {
        // Signed by the attacker, with the attacker's key in the header.
        let header = format!(r#"{{"alg":"ES256K","{member}":"{}"}}"#, key(2).public());
        let forged = token(&header, "{}", 2);
        assert!(Unverified::parse(&forged).unwrap().header().has_own_key, "{member}");
        assert_eq!(verdict(&forged), Err(Error::BadSignature), "{member}");
    }
    assert!(!Unverified::parse(&token(HEADER, "{}", 1)).unwrap().header().has_own_key);
}

#[test]
fn headers_and_claims_are_plain_objects() {
    for header in [
        "",
        "null",
        "[]",
        "\"ES256K\"",
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":["ES256K"]}"#,
        r#"{"alg":"ES256K"}x"#,
        r#"{"alg":"ES256K"}{}"#,
        r#"{"alg":"none","alg":"ES256K"}"#,
        r#"{"alg":"ES256K","\u0061lg":"none"}"#,
        r#"{"alg":"ES256K","typ":null}"#,
        r#"{"alg":"ES256K","typ":["at+jwt"]}"#,
        r#"{"alg":"ES256K","kid":7}"#,
        r#"{"alg":"ES256K","x":1,"x":1}"#,
        "{\"alg\":\"ES256K\",\"x\":\"\n\"}",
    ] {
        assert_eq!(verdict(&token(header, "{}", 1)), Err(Error::Malformed), "{header}");
    }
    for claims in
        ["", "null", "[]", "5", r#"{"a":1,"a":2}"#, r#"{"a":1}x"#, "{\"a\":NaN}", "{'a':1}", "\u{feff}{}"]
    {
        assert_eq!(verdict(&token(HEADER, claims, 1)), Err(Error::Malformed), "{claims}");
    }
    let not_utf8 = format!("{}.{}", base64url(HEADER), base64url(b"{\"a\":\"\xff\"}"));
    let signature = base64url(key(1).sign(not_utf8.as_bytes()));
    assert_eq!(verdict(&format!("{not_utf8}.{signature}")), Err(Error::Malformed));
}

#[test]
fn depth_does_not_exhaust_the_stack() {
    for depth in [17, 1000, 2500] {
        let claims = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(verdict(&token(HEADER, &claims, 1)), Err(Error::Malformed), "{depth}");
        let unclosed = format!("{{\"a\":{}", "{\"a\":".repeat(depth / 2));
        assert_eq!(verdict(&token(HEADER, &unclosed, 1)), Err(Error::Malformed), "{depth}");
    }
}

#[test]
fn there_is_one_spelling_of_a_token() {
    // One byte of claims more or less makes each part end in 0, 2 or 4 spare bits.
    for claims in ["{}", "{ }", "{  }"] {
        let good = token(HEADER, claims, 1);
        assert_eq!(verdict(&good), Ok(()));
        let parts: Vec<_> = good.split('.').map(str::to_owned).collect();
        for at in 0..3 {
            let with = |part: String| {
                let mut parts = parts.clone();
                parts[at] = part;
                parts.join(".")
            };
            for wrong in [
                format!("{}=", parts[at]),
                format!("{}==", parts[at]),
                format!(" {}", parts[at]),
                format!("{}\n", parts[at]),
                format!("{}A", parts[at]),
                format!("+{}", &parts[at][1..]),
                format!("/{}", &parts[at][1..]),
                format!("\u{0}{}", parts[at]),
                format!("é{}", parts[at]),
            ] {
                assert!(verdict(&with(wrong.clone())).is_err(), "{wrong}");
            }
            // The last character with its spare bits set says the same bytes to a lenient reader.
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let last =
                alphabet.iter().position(|letter| Some(letter) == parts[at].as_bytes().last()).unwrap();
            let other = alphabet[last ^ 1] as char;
            let changed = format!("{}{other}", &parts[at][..parts[at].len() - 1]);
            assert!(verdict(&with(changed)).is_err(), "part {at} of {claims}");
        }
        for wrong in [
            format!("{good}."),
            format!(".{good}"),
            format!("{good}.{}", parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}..{}", parts[0], parts[2]),
            format!(".{}.{}", parts[1], parts[2]),
            format!("Bearer {good}"),
            good.replace('.', ","),
        ] {
            assert!(verdict(&wrong).is_err(), "{wrong}");
        }
    }
    for wrong in ["", ".", "..", "...", "a.b.c"] {
        assert_eq!(verdict(wrong), Err(Error::Malformed), "{wrong}");
    }
}

#[test]
fn the_higher_s_is_refused_for_what_we_sign() {
    let good = token(HEADER, "{}", 1);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let signature = secp256k1_other_s(key(1).sign(signed.as_bytes()));
    let twin = format!("{signed}.{}", base64url(signature));
    assert_eq!(verdict(&twin), Err(Error::BadSignature));
    let parsed = Unverified::parse(&twin).unwrap();
    assert!(parsed.verify_either_s(&key(1).public()).is_ok());
}

/// Subtracts `s` from the order of the curve.
fn secp256k1_other_s(mut signature: [u8; 64]) -> [u8; 64] {
    let order = data_encoding::HEXUPPER
        .decode(b"FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141")
        .unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i16::from(order[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + at] = difference.to_le_bytes()[0];
    }
    signature
}

#[test]
fn signatures_of_other_lengths_are_refused() {
    let good = token(HEADER, "{}", 1);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let made = key(1).sign(signed.as_bytes());
    for wrong in [&made[..63], &[made.as_slice(), &[0]].concat(), &[], &[0; 64], &[0xff; 64]] {
        assert_eq!(verdict(&format!("{signed}.{}", base64url(wrong))), Err(Error::BadSignature));
    }
}

#[test]
fn long_tokens_are_not_looked_at() {
    let filled = |length: usize| {
        let claims = format!(r#"{{"a":"{}"}}"#, "x".repeat(length));
        token(HEADER, &claims, 1)
    };
    let mut length = 5900;
    while filled(length + 1).len() <= MAX_LENGTH {
        length += 1;
    }
    assert_eq!(verdict(&filled(length)), Ok(()));
    assert_eq!(verdict(&filled(length + 1)), Err(Error::Malformed));
    assert_eq!(verdict(&"a".repeat(10_000_000)), Err(Error::Malformed));
}

#[test]
fn claims_do_not_show() {
    let shown = format!("{:?}", Unverified::parse(&token(HEADER, r#"{"sub":"secret"}"#, 1)).unwrap());
    assert!(!shown.contains("secret"), "{shown}");
}
