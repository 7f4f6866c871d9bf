use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::jwt;
use genkan_protocol::oauth::dpop::{Error, Expected, ProofClaims, ProofKey, ath, verify};
use genkan_protocol::oauth::jwk::Jwk;
use genkan_protocol::oauth::nonce::Nonces;
use serde_json::{Value, json};

use crate::base64url;

const NOW: i64 = 1_700_000_000_500;
const SECONDS: i64 = NOW / 1000;

fn nonces() -> Nonces {
    Nonces::new(&[3; 32], Nonces::INTERVAL)
}

fn expected() -> Expected<'static> {
    Expected {
        method: "POST",
        origin: "https://entryway.example.com",
        path: "/oauth/par",
        access_token: None,
        now_millis: NOW,
    }
}

fn private() -> P256PrivateKey {
    P256PrivateKey::from_bytes(&[7; 32]).unwrap()
}

fn header() -> Value {
    json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": Jwk::of(&private().public())})
}

fn claims() -> Value {
    json!({
        "jti": "one", "htm": "POST", "htu": "https://entryway.example.com/oauth/par", "iat": SECONDS,
        "nonce": nonces().next(NOW).as_str(),
    })
}

fn proof(header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
    format!("{signed}.{}", base64url(private().sign(signed.as_bytes())))
}

fn judge(member: &str, value: &Value) -> Result<(), Error> {
    let mut changed = claims();
    changed[member] = value.clone();
    verify(&proof(&header(), &changed), &expected(), &nonces()).map(drop)
}

#[test]
fn genkans_own_proofs_are_valid() {
    let key = ProofKey::new(private());
    let nonce = nonces().next(NOW);
    let made = key.sign(&ProofClaims {
        jti: "one",
        htm: "POST",
        htu: "https://entryway.example.com/oauth/par",
        iat: SECONDS,
        nonce: Some(nonce.as_str()),
        ath: None,
    });
    let read = verify(&made, &expected(), &nonces()).unwrap();
    assert_eq!((read.jkt, &*read.jti, read.iat), (key.thumbprint(), "one", SECONDS));
    assert_eq!(format!("{key:?}").matches("[sealed]").count(), 1);
}

#[test]
fn the_example_of_the_rfc_verifies() {
    // RFC 9449 §4.1, figure 2. It has no nonce, and everything else is checked before.
    let example = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
    let at = Expected {
        origin: "https://server.example.com",
        path: "/token",
        now_millis: 1_562_262_616_000,
        ..expected()
    };
    assert_eq!(verify(example, &at, &nonces()), Err(Error::UseNonce));
    let other_path = Expected { path: "/other", ..at };
    assert_eq!(verify(example, &other_path, &nonces()), Err(Error::WrongUrl));
}

#[test]
fn the_header_is_checked() {
    assert!(verify(&proof(&header(), &claims()), &expected(), &nonces()).is_ok());
    let mut private_jwk = serde_json::to_value(Jwk::of(&private().public())).unwrap();
    private_jwk["d"] = json!(base64url([7; 32]));
    let other = Jwk::of(&P256PrivateKey::from_bytes(&[8; 32]).unwrap().public());
    for (member, value, error) in [
        ("typ", json!("JWT"), jwt::Error::WrongType),
        ("typ", json!("DPoP+jwt"), jwt::Error::WrongType),
        ("alg", json!("none"), jwt::Error::WrongAlgorithm),
        ("alg", json!("HS256"), jwt::Error::WrongAlgorithm),
        ("alg", json!("ES256K"), jwt::Error::WrongAlgorithm),
        ("alg", json!("ES512"), jwt::Error::WrongAlgorithm),
        ("jwk", private_jwk, jwt::Error::Malformed),
        ("jwk", json!({"kty": "oct", "k": "AA"}), jwt::Error::Malformed),
        ("jwk", json!(null), jwt::Error::Malformed),
        ("jwk", json!(other), jwt::Error::BadSignature),
        ("crit", json!(["exp"]), jwt::Error::Malformed),
    ] {
        let mut changed = header();
        changed[member] = value.clone();
        let judged = verify(&proof(&changed, &claims()), &expected(), &nonces());
        assert_eq!(judged, Err(Error::Token(error)), "{member}: {value}");
        assert_eq!(judged.unwrap_err().code(), "invalid_dpop_proof");
    }
    for not_a_token in ["", "a", "a.b", "a.b.c", "....", &"a".repeat(10_000)] {
        assert!(verify(not_a_token, &expected(), &nonces()).is_err());
    }
}

#[test]
fn each_claim_is_checked() {
    let malformed = Error::Token(jwt::Error::BadClaims);
    for (member, value, error) in [
        ("iat", json!(SECONDS - 191), Error::BadTime),
        ("iat", json!(SECONDS + 181), Error::BadTime),
        ("iat", json!(i64::MAX), Error::BadTime),
        ("iat", json!(i64::MIN), Error::BadTime),
        ("iat", json!(null), malformed),
        ("iat", json!("1700000000"), malformed),
        ("jti", json!(""), Error::BadId),
        ("jti", json!("j".repeat(1025)), Error::BadId),
        ("jti", json!(null), malformed),
        ("jti", json!(5), malformed),
        ("htm", json!("post"), Error::WrongMethod),
        ("htm", json!("GET"), Error::WrongMethod),
        ("htm", json!(null), malformed),
        ("htu", json!(null), malformed),
        ("nonce", json!(""), Error::UseNonce),
        ("nonce", json!("x".repeat(43)), Error::UseNonce),
        ("nonce", json!(nonces().next(NOW - 180_000).as_str()), Error::UseNonce),
        ("nonce", json!(nonces().next(NOW + 60_000).as_str()), Error::UseNonce),
        ("nonce", json!(null), malformed),
        ("ath", json!(ath("token")), Error::WrongToken),
        ("ath", json!(null), malformed),
    ] {
        assert_eq!(judge(member, &value), Err(error), "{member}: {value}");
    }
    for (member, value) in [
        ("iat", json!(SECONDS - 190)),
        ("iat", json!(SECONDS + 180)),
        ("nonce", json!(nonces().next(NOW - 60_000).as_str())),
        ("nonce", json!(nonces().next(NOW - 120_000).as_str())),
    ] {
        assert_eq!(judge(member, &value), Ok(()), "{member}: {value}");
    }
    let mut without = claims();
    without.as_object_mut().unwrap().remove("nonce");
    let judged = verify(&proof(&header(), &without), &expected(), &nonces()).unwrap_err();
    assert_eq!(judged.code(), "use_dpop_nonce");
}

#[test]
fn the_url_is_compared_by_origin_and_path() {
    for same in [
        "https://entryway.example.com/oauth/par?x=y",
        "https://entryway.example.com/oauth/par#x",
        "HTTPS://Entryway.Example.COM/oauth/par",
        "https://entryway.example.com:443/oauth/par",
        "https://entryway.example.com/oauth/./token/../par",
    ] {
        assert_eq!(judge("htu", &json!(same)), Ok(()), "{same}");
    }
    for other in [
        "",
        "/oauth/par",
        "http://entryway.example.com/oauth/par",
        "https://entryway.example.com/oauth/par/",
        "https://entryway.example.com/oauth/PAR",
        "https://entryway.example.com/oauth/token",
        "https://entryway.example.com:8443/oauth/par",
        "https://entryway.example.com.evil.com/oauth/par",
        "https://user@entryway.example.com/oauth/par",
        "https://user:pass@entryway.example.com/oauth/par",
        "https://evil.com/https://entryway.example.com/oauth/par",
        "https://entryway.example.com",
        "javascript:alert(1)",
    ] {
        assert_eq!(judge("htu", &json!(other)), Err(Error::WrongUrl), "{other}");
    }
}

#[test]
fn the_token_has_to_be_the_one_proved_for() {
    let with_token = Expected { access_token: Some("token"), ..expected() };
    let judge = |claims: &Value| verify(&proof(&header(), claims), &with_token, &nonces()).map(drop);
    assert_eq!(judge(&claims()), Err(Error::WrongToken));
    let mut bound = claims();
    bound["ath"] = json!(ath("token"));
    assert_eq!(judge(&bound), Ok(()));
    bound["ath"] = json!(ath("Token"));
    assert_eq!(judge(&bound), Err(Error::WrongToken));
    // A wrong nonce shows first, so that the next attempt brings everything.
    bound["nonce"] = json!("old");
    assert_eq!(judge(&bound), Err(Error::UseNonce));
}

#[test]
fn nonces_follow_each_other() {
    let nonces = nonces();
    let handed_out = nonces.next(NOW);
    let interval = 60_000;
    let start = NOW.div_euclid(interval) * interval;
    assert_eq!(nonces.next(start), handed_out);
    assert_eq!(nonces.next(start + interval - 1), handed_out);
    assert_ne!(nonces.next(start + interval), handed_out);
    // Handed out as the next one: good in its own interval and one to either side.
    for (at, good) in
        [(-1, false), (0, true), (interval, true), (3 * interval - 1, true), (3 * interval, false)]
    {
        assert_eq!(nonces.accepts(handed_out.as_str(), start + at), good, "{at}");
    }
    let other = Nonces::new(&[4; 32], Nonces::INTERVAL);
    assert!(!other.accepts(handed_out.as_str(), NOW));
    assert_eq!(format!("{nonces:?}"), "[sealed]");
    // By hand: HMAC-SHA256 of be64(28333334) under 32 bytes of 3.
    assert_eq!(handed_out.as_str(), "C81g-u7jcXyQaLSYOEaQI0NDOoCPwpY4RIt-XL6ez7M");
}
