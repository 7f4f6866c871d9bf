//! Tokens that somebody made up, changed, or took where they do not belong.

use data_encoding::BASE64URL_NOPAD;
use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::jwt::{self, session};
use genkan_testing::network::claims_of;
use genkan_testing::{Client, Plan, TestNetwork, User};
use serde_json::{Value, json};

use crate::store::on_each_database;

on_each_database!(
    forged_access_tokens_are_refused_at_every_door,
    forged_refresh_tokens_are_refused,
    a_token_that_names_another_host_is_out_of_date,
    authorization_comes_once_and_well_formed,
);

/// A local method, one that is forwarded, and a read of one's own.
const DOORS: &[&str] = &["com.atproto.server.getSession", "app.bsky.feed.getTimeline"];

fn signed(key: &K256PrivateKey, header: &Value, claims: &Value) -> String {
    jwt::sign_with_header(key, header, claims)
}

fn encoded(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

fn changed(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

const INVALID: &str = "400 InvalidToken";

/// Every way to spoil a good token, and the name of its refusal.
fn spoiled(net: &TestNetwork, user: &User, good: &str, typ: &str) -> Vec<(String, String, &'static str)> {
    let key = net.key_of(net.home_of(&user.did)).clone();
    let foreign = K256PrivateKey::from_bytes(&[9; 32]).unwrap();
    let claims = claims_of(good);
    let parts: Vec<&str> = good.split('.').collect();
    // As the good one has it: a refresh token names its key.
    let header: Value =
        serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[0].as_bytes()).unwrap()).unwrap();
    let with = |name: &str, value: Value| changed(&header, name, value);
    let point = BASE64URL_NOPAD.encode(&key.public().to_sec1_compressed());
    let mut cases: Vec<(String, String, &'static str)> = Vec::new();
    let mut add = |case: &str, token: String, expected| cases.push((case.to_owned(), token, expected));

    for (name, value) in [
        ("aud", json!("did:web:other.example")),
        ("aud", json!([claims["aud"]])),
        ("aud", Value::Null),
        ("sub", json!("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")),
        ("sub", json!("not a did")),
        ("sub", Value::Null),
        ("scope", json!("com.atproto.everything")),
        ("scope", json!("com.atproto.access com.atproto.appPass")),
        ("scope", Value::Null),
        ("exp", Value::Null),
        ("exp", json!("9999999999")),
        ("jti", Value::Null),
        ("cnf", json!({ "jkt": "x" })),
        ("lxm", json!("com.atproto.server.getSession")),
    ] {
        // Of another's account, or of none, it is an invalid token or a session that is not there.
        let expected = if name == "sub" && value == json!("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa") {
            "400 InvalidToken|400 ExpiredToken"
        } else {
            INVALID
        };
        let case = format!("{name} = {value}");
        add(&case, signed(&key, &header, &changed(&claims, name, value)), expected);
    }
    add("expired", signed(&key, &header, &changed(&claims, "exp", json!(1_000_000_000))), "400 ExpiredToken");
    add("signed by another key", signed(&foreign, &header, &claims), INVALID);
    add(
        "bringing its key",
        signed(&foreign, &with("jwk", json!({ "kty": "EC", "x": point })), &claims),
        INVALID,
    );
    add("with a URL of keys", signed(&foreign, &with("jku", json!("http://127.0.0.1:1/")), &claims), INVALID);
    add("with crit", signed(&key, &with("crit", json!(["exp"])), &claims), INVALID);
    for other in ["JWT", "dpop+jwt", "refresh+jwt", "at+jwt", ""] {
        if other != typ {
            add(&format!("typ {other}"), signed(&key, &with("typ", json!(other)), &claims), INVALID);
        }
    }
    add("no typ", signed(&key, &with("typ", Value::Null), &claims), INVALID);
    for algorithm in ["none", "None", "HS256", "ES256", "RS256", "EdDSA", "es256k"] {
        let header = with("alg", json!(algorithm));
        let unsigned = format!("{}.{}.", encoded(&header), encoded(&claims));
        add(&format!("alg {algorithm}, unsigned"), unsigned.clone(), INVALID);
        add(&format!("alg {algorithm}, signed"), signed(&key, &header, &claims), INVALID);
        add(&format!("alg {algorithm}, another's signature"), format!("{unsigned}{}", parts[2]), INVALID);
    }
    let hmac = hs256(&key.public().to_sec1_compressed(), &with("alg", json!("HS256")), &claims);
    add("HMAC by the public key", hmac, INVALID);

    let altered = changed(&claims, "scope", json!("com.atproto.access.more"));
    add("claims exchanged", format!("{}.{}.{}", parts[0], encoded(&altered), parts[2]), INVALID);
    add("no signature", format!("{}.{}.", parts[0], parts[1]), INVALID);
    add("two parts", format!("{}.{}", parts[0], parts[1]), INVALID);
    add("four parts", format!("{good}.{}", parts[2]), INVALID);
    add("padded", format!("{good}="), INVALID);
    add("not a token", "garbage".to_owned(), INVALID);
    add("dots", "..".to_owned(), INVALID);
    add("nine KiB", format!("{}.{}.{}", parts[0], "A".repeat(9 * 1024), parts[2]), INVALID);
    let twice = format!("{{\"aud\":\"x\",{}", claims.to_string().trim_start_matches('{'));
    let twice = format!("{}.{}", parts[0], BASE64URL_NOPAD.encode(twice.as_bytes()));
    let signature = BASE64URL_NOPAD.encode(&key.sign(twice.as_bytes()));
    add("a member twice", format!("{twice}.{signature}"), INVALID);
    let mut bytes = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
    bytes[10] ^= 1;
    add(
        "a bit of the signature",
        format!("{}.{}.{}", parts[0], parts[1], BASE64URL_NOPAD.encode(&bytes)),
        INVALID,
    );
    cases
}

fn hs256(key: &[u8], header: &Value, claims: &Value) -> String {
    use sha2::{Digest, Sha256};
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message.as_bytes()).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    format!("{message}.{}", BASE64URL_NOPAD.encode(&outer))
}

fn is_one_of(summary: &str, expected: &str) -> bool {
    expected.split('|').any(|one| one == summary)
}

async fn forged_access_tokens_are_refused_at_every_door(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    // Tokens that were seen good before must not make the bad ones good.
    for door in DOORS {
        net.client_of(&alice).query(door, &[]).await.ok();
    }
    net.host(0).forget();
    let mut wrong = Vec::new();
    for (case, token, expected) in spoiled(&net, &alice, &alice.access, "at+jwt") {
        for door in DOORS {
            let answer = net.visitor().bearer(&token).query(door, &[]).await;
            if !is_one_of(&answer.summary(), expected) {
                wrong.push(format!("{door}: {case}: {} instead of {expected}", answer.summary()));
            }
        }
    }
    for door in DOORS {
        let answer = net.visitor().bearer(&alice.refresh).query(door, &[]).await;
        assert_eq!(answer.summary(), "400 InvalidToken", "the refresh token at {door}");
        let answer = net.visitor().query(door, &[]).await;
        assert_eq!(answer.summary(), "401 AuthMissing", "{door}");
        assert_ne!(answer.header("www-authenticate"), "", "{door}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(net.host(0).journal().iter().filter(|seen| seen.name.starts_with("app.")).count(), 0);
    for door in DOORS {
        net.client_of(&alice).query(door, &[]).await.ok();
    }
}

async fn forged_refresh_tokens_are_refused(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let mut wrong = Vec::new();
    for (case, token, expected) in spoiled(&net, &alice, &alice.refresh, "refresh+jwt") {
        let answer = net.refresh(&token).await;
        if !is_one_of(&answer.summary(), expected) {
            wrong.push(format!("refresh: {case}: {} instead of {expected}", answer.summary()));
        }
        let answer = net.sign_out(&token).await;
        let ends = expected == "400 ExpiredToken" || case.starts_with("sub = \"did:plc");
        if !(answer.summary() == "400 InvalidToken" || ends && answer.status == 200) {
            wrong.push(format!("sign-out: {case}: {}", answer.summary()));
        }
    }
    assert_eq!(net.refresh(&alice.access).await.summary(), "400 InvalidToken");
    assert_eq!(net.sign_out(&alice.access).await.summary(), "400 InvalidToken");
    assert_eq!(net.visitor().call("com.atproto.server.refreshSession").await.summary(), "401 AuthMissing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn a_token_that_names_another_host_is_out_of_date(plan: Plan) {
    let net = plan.hosts(2).await;
    let alice = net.sign_up("alice").await;
    let home = net.home_of(&alice.did).did();
    let other = net.hosts().iter().find(|host| host.did() != home).unwrap();
    let claims =
        session::verify_access(&alice.access, &net.key_of(net.home_of(&alice.did)).public()).unwrap();
    let moved = session::AccessClaims { aud: other.did(), ..claims };
    let token = session::sign_access(net.key_of(other), &moved);
    for door in DOORS {
        let answer = net.visitor().bearer(&token).query(door, &[]).await;
        assert_eq!(answer.summary(), "400 ExpiredToken", "{door}");
        assert_eq!(other.asked(door), 0);
    }
}

async fn authorization_comes_once_and_well_formed(plan: Plan) {
    let net = plan.await;
    let alice = net.sign_up("alice").await;
    let with = |value: &str| net.visitor().with("authorization", value);
    let token = &alice.access;
    for door in DOORS {
        let twice: Client = net.client_of(&alice).with("authorization", &format!("Bearer {token}"));
        assert_eq!(twice.query(door, &[]).await.summary(), "400 InvalidRequest", "{door}");
        for (value, expected) in [
            (format!("Token {token}"), "400 InvalidToken"),
            (format!("Basic {token}"), "400 InvalidToken"),
            (token.clone(), "400 InvalidToken"),
            ("Bearer".to_owned(), "400 InvalidToken"),
            (format!("Bearer {token} more"), "400 InvalidToken"),
            (format!("DPoP {token}"), "401 invalid_dpop_proof"),
        ] {
            let answer = with(&value).query(door, &[]).await;
            assert_eq!(answer.summary(), expected, "{door} {}", value.split(' ').next().unwrap());
        }
        with(&format!("bearer {token}")).query(door, &[]).await.ok();
    }
    assert_eq!(net.host(0).asked("app.bsky.feed.getTimeline"), 1);
}
