use genkan_protocol::crypto::{Curve, PublicKey};
use genkan_protocol::jwt;
use genkan_protocol::service_auth::{Claims, Error, parse, sign};
use p256::ecdsa::signature::Signer;
use serde_json::{Value, json};

use crate::{base64url, data, key, token};

const US: &str = "did:web:entryway.example.com";
const METHOD: &str = "com.atproto.server.getSession";
const NOW: i64 = 1_700_000_000;

fn claims() -> Claims {
    Claims {
        iss: "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap(),
        iss_fragment: None,
        aud: US.to_owned(),
        lxm: Some(METHOD.parse().unwrap()),
        iat: Some(NOW),
        exp: NOW + 60,
        jti: Some("one".to_owned()),
    }
}

fn judge(token: &str) -> Result<Claims, Error> {
    parse(token)?.verify(&key(1).public(), US, Some(METHOD), NOW)
}

#[test]
fn tokens_of_the_reference_verify() {
    let data = data!("jwt.json");
    let key = PublicKey::from_did_key(data["did_key"].as_str().unwrap()).unwrap();
    let mut seen = 0;
    for case in data["ours"].as_array().unwrap() {
        let token = case["token"].as_str().unwrap();
        if case["kind"] != "service" {
            assert_eq!(parse(token).unwrap_err(), Error::Token(jwt::Error::WrongType));
            continue;
        }
        seen += 1;
        let read = parse(token).unwrap();
        let known = &case["claims"];
        let claims = read.verify(&key, US, known["lxm"].as_str(), NOW).unwrap();
        let issuer = known["iss"].as_str().unwrap();
        assert_eq!(issuer.split('#').next(), Some(read.issuer().as_str()));
        assert_eq!(issuer.split('#').nth(1), read.issuer_fragment());
        assert_eq!(claims.lxm.as_ref().map(genkan_protocol::syntax::Nsid::as_str), known["lxm"].as_str());
        assert_eq!(claims.iat, known["iat"].as_i64());
        assert_eq!(Some(claims.exp), known["exp"].as_i64());
        assert_eq!(claims.jti.as_deref(), known["jti"].as_str());
        assert_eq!(sign_with_private(&data, &claims), token);
    }
    assert_eq!(seen, 2);
}

fn sign_with_private(data: &Value, claims: &Claims) -> String {
    sign(
        &genkan_protocol::crypto::K256PrivateKey::from_hex(data["private"].as_str().unwrap()).unwrap(),
        claims,
    )
}

#[test]
fn each_claim_is_checked() {
    let token = sign(&key(1), &claims());
    assert_eq!(judge(&token), Ok(claims()));
    let read = parse(&token).unwrap();
    let public = key(1).public();
    assert_eq!(read.verify(&public, "did:web:other.com", Some(METHOD), NOW), Err(Error::WrongAudience));
    assert_eq!(read.verify(&public, US, Some("com.atproto.server.getsession"), NOW), Err(Error::WrongMethod));
    assert!(read.verify(&public, US, None, NOW).is_ok());
    assert!(read.verify(&public, US, Some(METHOD), NOW + 59).is_ok());
    assert_eq!(read.verify(&public, US, Some(METHOD), NOW + 60), Err(Error::Expired));
    assert_eq!(
        read.verify(&key(2).public(), US, Some(METHOD), NOW),
        Err(Error::Token(jwt::Error::BadSignature))
    );
    let general = sign(&key(1), &Claims { lxm: None, ..claims() });
    assert_eq!(judge(&general), Err(Error::WrongMethod));
    assert!(parse(&general).unwrap().verify(&public, US, None, NOW).is_ok());
}

#[test]
fn tokens_for_other_uses_are_refused() {
    let body = r#"{"iss":"did:plc:a","aud":"x","exp":9}"#;
    for typ in ["at+jwt", "refresh+jwt", "dpop+jwt", "AT+JWT", "application/at+jwt", "Application/DPoP+jwt"] {
        let header = format!(r#"{{"typ":"{typ}","alg":"ES256K"}}"#);
        assert_eq!(
            parse(&token(&header, body, 1)).unwrap_err(),
            Error::Token(jwt::Error::WrongType),
            "{typ}"
        );
    }
    for header in [
        r#"{"alg":"ES256K"}"#,
        r#"{"typ":"JWT","alg":"ES256"}"#,
        r#"{"typ":"appl\u00efcation","alg":"ES256K"}"#,
    ] {
        assert!(parse(&token(header, body, 1)).is_ok(), "{header}");
    }
    for alg in ["none", "HS256", "RS256"] {
        let header = format!(r#"{{"typ":"JWT","alg":"{alg}"}}"#);
        assert_eq!(
            parse(&token(&header, body, 1)).unwrap_err(),
            Error::Token(jwt::Error::WrongAlgorithm),
            "{alg}"
        );
    }
    let own_key = token(r#"{"alg":"ES256K","jwk":{}}"#, body, 1);
    assert_eq!(parse(&own_key).unwrap_err(), Error::Token(jwt::Error::Malformed));
}

#[test]
fn claims_of_another_shape_are_refused() {
    let good = json!({ "iss": "did:plc:a", "aud": US, "exp": NOW + 60, "lxm": METHOD });
    let judge = |claims: &Value| judge(&token(r#"{"typ":"JWT","alg":"ES256K"}"#, &claims.to_string(), 1));
    assert!(judge(&good).is_ok());
    for (member, value) in [
        ("iss", json!(null)),
        ("iss", json!("alice.example.com")),
        ("iss", json!("did:plc:a#")),
        ("iss", json!("did:plc:a#b#c")),
        ("iss", json!("did:plc:a#b/c")),
        ("iss", json!("#atproto")),
        ("aud", json!([US])),
        ("exp", json!("1")),
        ("exp", json!(1.5)),
        ("iat", json!("x")),
        ("lxm", json!("x")),
        ("lxm", json!("*")),
        ("lxm", json!([METHOD])),
        ("jti", json!(1)),
    ] {
        let mut changed = good.clone();
        changed[member] = value.clone();
        assert_eq!(judge(&changed), Err(Error::Token(jwt::Error::BadClaims)), "{member}: {value}");
    }
    let mut fragment = good;
    fragment["iss"] = json!("did:plc:a#atproto_labeler");
    assert_eq!(judge(&fragment).unwrap().iss_fragment.as_deref(), Some("atproto_labeler"));
}

#[test]
fn keys_on_p256_hold_to_the_lower_s() {
    let private = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let point = private.verifying_key().to_sec1_point(true);
    let public = PublicKey::from_sec1(Curve::P256, point.as_bytes()).unwrap();
    let body = json!({ "iss": "did:plc:a", "aud": US, "exp": NOW + 60 });
    let signed = format!("{}.{}", base64url(r#"{"alg":"ES256"}"#), base64url(body.to_string()));
    let made: p256::ecdsa::Signature = private.sign(signed.as_bytes());
    let low = made.normalize_s();
    let high = p256::ecdsa::Signature::from_scalars(low.r(), -*low.s()).unwrap();
    let verify = |signature: p256::ecdsa::Signature| {
        let token = format!("{signed}.{}", base64url(signature.to_bytes()));
        parse(&token).unwrap().verify(&public, US, None, NOW)
    };
    assert!(verify(low).is_ok());
    assert_eq!(verify(high), Err(Error::Token(jwt::Error::BadSignature)));
    let token = format!("{signed}.{}", base64url(low.to_bytes()));
    assert_eq!(
        parse(&token).unwrap().verify(&key(1).public(), US, None, NOW),
        Err(Error::Token(jwt::Error::WrongAlgorithm))
    );
}
