use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::jwt::Error;
use genkan_protocol::jwt::session::verify_access;
use genkan_protocol::oauth::access_token::{
    AccessClaims, Confirmation, Token, scope_reference, sign, sign_linked, token_id,
};
use genkan_protocol::oauth::jwk::Jwk;
use serde_json::json;

use crate::{key, token};

fn claims() -> AccessClaims {
    AccessClaims {
        iss: "https://entryway.example.com".to_owned(),
        aud: "did:web:pds.example.com".to_owned(),
        sub: "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap(),
        scope: "atproto".to_owned(),
        client_id: "https://app.example.com/client.json".to_owned(),
        cnf: Some(Confirmation { jkt: Jwk::of(&key(3).public()).thumbprint() }),
        jti: token_id([0xab; 16]),
        iat: 1_700_000_000,
        exp: 1_700_000_300,
    }
}

#[test]
fn home_tokens_are_as_hosts_want_them() {
    let made = sign(&key(1), &claims());
    // {"typ":"at+jwt","alg":"ES256K"}, byte for byte.
    assert!(made.starts_with("eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NksifQ."));
    assert_eq!(claims().jti, format!("tok-{}", "ab".repeat(16)));
    let read = Token::parse(&made).unwrap();
    assert_eq!(read.unverified_claims().aud, "did:web:pds.example.com");
    assert_eq!(read.verify(&key(1).public()), Ok(&claims()));
    assert_eq!(read.verify(&key(2).public()), Err(Error::BadSignature));
    // One kind does not pass as the other.
    assert_eq!(verify_access(&made, &key(1).public()), Err(Error::BadClaims));
}

#[test]
fn linked_tokens_name_their_key() {
    let private = P256PrivateKey::from_bytes(&[7; 32]).unwrap();
    let made = sign_linked(&private, "link-1", &claims());
    let read = Token::parse(&made).unwrap();
    assert_eq!(read.kid(), Some("link-1"));
    assert_eq!(read.verify(&private.public()), Ok(&claims()));
    assert!(read.verify(&key(1).public()).is_err());
}

#[test]
fn other_headers_and_claims_are_refused() {
    let good = serde_json::to_value(claims()).unwrap();
    let judge = |header: &str, claims: &serde_json::Value| {
        let made = token(header, &claims.to_string(), 1);
        Token::parse(&made)?.verify(&key(1).public()).map(drop)
    };
    let header = r#"{"typ":"at+jwt","alg":"ES256K"}"#;
    assert_eq!(judge(header, &good), Ok(()));
    for (header, error) in [
        (r#"{"typ":"at+jwt","alg":"ES256K","kid":"x"}"#, Error::Malformed),
        (r#"{"typ":"JWT","alg":"ES256K"}"#, Error::WrongType),
        (r#"{"typ":"at+jwt","alg":"ES256"}"#, Error::WrongAlgorithm),
        (r#"{"typ":"at+jwt","alg":"none"}"#, Error::WrongAlgorithm),
        (r#"{"typ":"at+jwt","alg":"ES256K","jwk":{}}"#, Error::Malformed),
    ] {
        assert_eq!(judge(header, &good), Err(error), "{header}");
    }
    for member in ["iss", "aud", "sub", "scope", "client_id", "jti", "iat", "exp"] {
        let mut less = good.clone();
        less.as_object_mut().unwrap().remove(member);
        assert_eq!(judge(header, &less), Err(Error::BadClaims), "{member}");
    }
    // Whether it has to be bound is for the reader to say.
    let mut unbound = good.clone();
    unbound.as_object_mut().unwrap().remove("cnf");
    assert_eq!(judge(header, &unbound), Ok(()));
    for (member, value) in
        [("cnf", json!({})), ("cnf", json!({"jkt": "x"})), ("jti", json!("tok-1")), ("jti", json!("x"))]
    {
        let mut changed = good.clone();
        changed[member] = value;
        assert_eq!(judge(header, &changed), Err(Error::BadClaims), "{member}");
    }
}

#[test]
fn references_follow_from_the_scope() {
    let one = scope_reference("atproto");
    assert_eq!(one, scope_reference("atproto"));
    assert_ne!(one, scope_reference("atproto repo:*"));
    // Put together apart from this code: base32 of 01 71 12 20 and the SHA-256 of 0x67 "atproto".
    assert_eq!(one, "ref:bafyreihm6xxdhytlzx4nod44s6yjbr4t6gtxkmehglx7owqjiqbyvb5o7y");
}
