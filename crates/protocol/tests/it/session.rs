use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::jwt::Error;
use genkan_protocol::jwt::session::{
    AccessClaims, KeyHint, Kind, RefreshClaims, Scope, key_hint, sign_access, sign_refresh, verify_access,
    verify_refresh,
};
use serde_json::{Value, json};

use crate::{data, key, token};

#[test]
fn our_tokens_are_those_of_the_reference() {
    let data = data!("jwt.json");
    let key = K256PrivateKey::from_hex(data["private"].as_str().unwrap()).unwrap();
    assert_eq!(key.public().to_did_key(), data["did_key"].as_str().unwrap());
    for case in data["ours"].as_array().unwrap() {
        let token = case["token"].as_str().unwrap();
        let claims = &case["claims"];
        match case["kind"].as_str().unwrap() {
            "access" => {
                let read = verify_access(token, &key.public()).unwrap();
                assert_eq!(serde_json::to_value(&read).unwrap(), *claims);
                assert_eq!(sign_access(&key, &read), token);
                assert_eq!(verify_refresh(token, &key.public()), Err(Error::WrongType));
            }
            "refresh" => {
                let read = verify_refresh(token, &key.public()).unwrap();
                assert_eq!(serde_json::to_value(&read).unwrap(), *claims);
                assert_eq!(sign_refresh(&key, case["header"]["kid"].as_str(), &read), token);
                assert_eq!(verify_access(token, &key.public()), Err(Error::WrongType));
            }
            _ => assert_eq!(verify_access(token, &key.public()), Err(Error::WrongType)),
        }
    }
}

fn access() -> AccessClaims {
    AccessClaims {
        scope: Scope::AppPass,
        sub: "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap(),
        aud: "did:web:pds.example.com".to_owned(),
        iat: 1_700_000_000,
        exp: 1_700_007_200,
        jti: "one".to_owned(),
    }
}

#[test]
fn a_peek_shows_what_chooses_the_key() {
    let token = sign_access(&key(1), &access());
    let hint = KeyHint { kind: Kind::Access, aud: "did:web:pds.example.com".to_owned(), kid: None };
    assert_eq!(key_hint(&token), Some(hint));
    let AccessClaims { sub, aud, iat, exp, jti, .. } = access();
    let refresh = RefreshClaims { scope: Scope::Refresh, sub, aud, iat, exp, jti };
    let hint = key_hint(&sign_refresh(&key(1), Some("key 7"), &refresh)).unwrap();
    assert_eq!((hint.kind, hint.kid.as_deref()), (Kind::Refresh, Some("key 7")));
    for wrong in ["", "a.b.c", &crate::token(r#"{"alg":"ES256K","typ":"JWT"}"#, r#"{"aud":"x"}"#, 1)] {
        assert_eq!(key_hint(wrong), None);
    }
}

#[test]
fn the_wrong_key_is_refused() {
    let token = sign_access(&key(1), &access());
    assert_eq!(verify_access(&token, &key(1).public()), Ok(access()));
    assert_eq!(verify_access(&token, &key(2).public()), Err(Error::BadSignature));
    let p256 = "did:key:zDnaeoWRg63nSivFX4xPNhxyJKYw5BaGYi7yNcejErtV3dBaU".parse().unwrap();
    assert_eq!(verify_access(&token, &p256), Err(Error::WrongAlgorithm));
}

const ACCESS: &str = r#"{"typ":"at+jwt","alg":"ES256K"}"#;

#[test]
fn the_type_must_be_exact() {
    let claims = serde_json::to_string(&access()).unwrap();
    for typ in ["JWT", "AT+JWT", "application/at+jwt", "at+jwt ", "dpop+jwt", ""] {
        let header = format!(r#"{{"typ":"{typ}","alg":"ES256K"}}"#);
        assert_eq!(
            verify_access(&token(&header, &claims, 1), &key(1).public()),
            Err(Error::WrongType),
            "{typ}"
        );
    }
    let untyped = token(r#"{"alg":"ES256K"}"#, &claims, 1);
    assert_eq!(verify_access(&untyped, &key(1).public()), Err(Error::WrongType));
    let own_key = token(r#"{"typ":"at+jwt","alg":"ES256K","jwk":{}}"#, &claims, 1);
    assert_eq!(verify_access(&own_key, &key(1).public()), Err(Error::Malformed));
}

#[test]
fn claims_of_another_shape_are_refused() {
    let good = serde_json::to_value(access()).unwrap();
    let judge = |claims: &Value| verify_access(&token(ACCESS, &claims.to_string(), 1), &key(1).public());
    assert_eq!(judge(&good), Ok(access()));
    for member in ["scope", "sub", "aud", "iat", "exp", "jti"] {
        let mut less = good.clone();
        less.as_object_mut().unwrap().remove(member);
        assert_eq!(judge(&less), Err(Error::BadClaims), "without {member}");
    }
    for (member, value) in [
        ("aud", json!(["did:web:pds.example.com"])),
        ("aud", json!(null)),
        ("sub", json!("alice.example.com")),
        ("sub", json!("did:plc:a\u{0}b")),
        ("scope", json!("com.atproto.access com.atproto.appPass")),
        ("scope", json!("com.atproto.refresh")),
        ("scope", json!("atproto")),
        ("scope", json!(["com.atproto.access"])),
        ("exp", json!("1700007200")),
        ("exp", json!(1.7e9)),
        ("exp", json!(1e300)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(null)),
        ("jti", json!(5)),
        ("lxm", json!("com.atproto.server.getSession")),
        ("lxm", json!(null)),
        ("cnf", json!({ "jkt": "x" })),
        ("cnf", json!(null)),
    ] {
        let mut changed = good.clone();
        changed[member] = value.clone();
        assert_eq!(judge(&changed), Err(Error::BadClaims), "{member}: {value}");
    }
    let mut more = good;
    more["iss"] = json!("did:web:entryway.example.com");
    assert_eq!(judge(&more), Ok(access()));
}

#[test]
fn a_refresh_token_has_the_refresh_scope_only() {
    let header = r#"{"typ":"refresh+jwt","alg":"ES256K"}"#;
    let mut claims = serde_json::to_value(access()).unwrap();
    assert_eq!(
        verify_refresh(&token(header, &claims.to_string(), 1), &key(1).public()),
        Err(Error::BadClaims)
    );
    claims["scope"] = json!("com.atproto.refresh");
    assert!(verify_refresh(&token(header, &claims.to_string(), 1), &key(1).public()).is_ok());
}

#[test]
fn scopes_read_and_write() {
    for scope in Scope::ALL {
        assert_eq!(scope.as_str().parse(), Ok(scope));
        assert_eq!(serde_json::to_value(scope).unwrap(), json!(scope.as_str()));
    }
    assert!("com.atproto.Access".parse::<Scope>().is_err());
}
