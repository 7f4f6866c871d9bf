use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::oauth::client_assertion::{self, Error as AssertionError, UnverifiedAssertion};
use genkan_protocol::oauth::client_id::ClientId;
use genkan_protocol::oauth::client_metadata::{ApplicationType, ClientMetadata};
use genkan_protocol::oauth::jwk::{Jwk, JwkSet};
use genkan_protocol::oauth::redirect_uri::RedirectUri;
use genkan_protocol::oauth::server_metadata::{AuthorizationServer, Error, ProtectedResource};
use serde_json::{Value, json};

use crate::base64url;

const ID: &str = "https://app.example.com/oauth/client.json";

fn client() -> ClientId {
    ClientId::parse(ID, &[]).unwrap()
}

#[test]
fn client_ids_are_public_urls() {
    for good in [ID, "https://example.com/a", "https://example.com/a?b=c", "https://a.b.example.com/x/y.json"]
    {
        let id = ClientId::parse(good, &[]).unwrap();
        assert!(id.as_str() == good && !id.is_development(), "{good}");
    }
    for bad in [
        "",
        "x",
        "client",
        // Anyone on the way could replace a document that is fetched without TLS.
        "http://example.com/a",
        "https://example.com",
        "https://example.com/",
        "https://example.com/a/",
        "https://example.com/a#b",
        "https://example.com/a#",
        "https://user@example.com/a",
        "https://:p@example.com/a",
        // Addresses in any spelling, and names that resolve only on a private network.
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://2130706433/a",
        "https://0x7f.1/a",
        "https://localhost/a",
        "https://intranet/a",
        "https://app.local/a",
        "https://app.test/a",
        "https://app.example/a",
        "https://app.localhost/a",
        "https://app.invalid/a",
        // A second spelling of the same URL would be a second client.
        "https://example.com./a",
        "https://example.com:8443/a",
        "https://example.com:443/a",
        "https://example.com/b/../a",
        "https://example.com/./a",
        "https://EXAMPLE.com/a",
        "HTTPS://example.com/a",
        "https:example.com/a",
        "https:\\\\example.com\\a",
        " https://example.com/a",
        "https://example.com/a\n",
        "https://ex\u{e4}mple.com/a",
        "ftp://example.com/a",
        "data:text/html,x",
    ] {
        assert!(ClientId::parse(bad, &[]).is_err(), "{bad}");
    }
    assert!(ClientId::parse(&format!("https://example.com/{}", "a".repeat(2048)), &[]).is_err());
    // Only an origin that the operator listed may be private, and only exactly that one.
    let inside = ["http://127.0.0.1:4000".to_owned()];
    assert!(ClientId::parse("http://127.0.0.1:4000/client.json", &inside).is_ok());
    assert!(ClientId::parse("http://127.0.0.1:4001/client.json", &inside).is_err());
    assert!(ClientId::parse("http://127.0.0.1:4000/", &inside).is_err());
}

#[test]
fn clients_in_development_say_all_in_their_name() {
    for good in [
        "http://localhost",
        "http://localhost/",
        "http://localhost?scope=atproto",
        "http://localhost/?scope=atproto",
    ] {
        let id = ClientId::parse(good, &[]).unwrap();
        let metadata = ClientMetadata::of_development(&id).unwrap();
        assert_eq!(metadata.scope, "atproto");
        assert!(
            metadata.allows_redirect("http://127.0.0.1:5173/")
                && metadata.allows_redirect("http://[::1]:80/")
        );
        assert!(
            !metadata.allows_redirect("http://localhost/") && !metadata.allows_redirect("http://127.0.0.1/x")
        );
        assert!(!metadata.is_confidential() && metadata.refreshes);
    }
    let id =
        "http://localhost?redirect_uri=http%3A%2F%2F127.0.0.1%3A8080%2Fcb&scope=atproto+transition%3Ageneric";
    let metadata = ClientMetadata::of_development(&ClientId::parse(id, &[]).unwrap()).unwrap();
    assert_eq!(metadata.scope, "atproto transition:generic");
    assert!(
        metadata.allows_redirect("http://127.0.0.1:8080/cb")
            && !metadata.allows_redirect("http://127.0.0.1:8081/cb")
    );
    for bad in [
        "http://localhost:80",
        "http://localhost:3000",
        "http://localhost/x",
        "http://localhost#",
        "http://localhost.evil.com/",
        "http://localhost//",
        "https://localhost",
    ] {
        assert!(ClientId::parse(bad, &[]).is_err(), "{bad}");
    }
    for bad in [
        "scope=x",
        "scope=atproto&scope=atproto",
        "scope=atproto+atproto",
        "other=x",
        "redirect_uri=https://evil.com/",
        "redirect_uri=http://localhost/",
        "redirect_uri=http://10.0.0.1/",
        "redirect_uri=",
    ] {
        let id = ClientId::parse(&format!("http://localhost?{bad}"), &[]).unwrap();
        assert!(ClientMetadata::of_development(&id).is_err(), "{bad}");
    }
    assert!(ClientMetadata::of_development(&client()).is_err());
}

#[test]
fn redirects_are_of_their_kinds() {
    use ApplicationType::{Native, Web};
    for (text, kind, good) in [
        ("https://app.example.com/cb", Web, true),
        // A web app may have its page on another origin than its document.
        ("https://other.example.com/cb?x=y", Web, true),
        ("https://app.example.com/cb", Native, true),
        // A native app proves its https address by the origin of its document.
        ("https://other.example.com/cb", Native, false),
        ("https://intranet/cb", Web, false),
        ("https://app.local/cb", Web, false),
        ("https://user@app.example.com/cb", Web, false),
        ("https://app.example.com/cb#x", Web, false),
        ("https://*.example.com/cb", Web, false),
        ("https://app.example.com/c b", Web, false),
        ("http://app.example.com/cb", Web, false),
        ("http://app.example.com/cb", Native, false),
        ("http://127.0.0.1/cb", Native, true),
        // Loopback, for programs that open a port while the person signs in (RFC 8252 §7.3).
        ("http://127.0.0.1:8080/cb", Native, true),
        ("http://[::1]/cb", Native, true),
        ("http://127.0.0.1/cb", Web, false),
        ("http://127.0.0.2/cb", Native, false),
        ("http://localhost/cb", Native, false),
        ("http://localhost:3000/cb", Native, false),
        // A scheme is the reversed host of the document, so that two apps cannot share it.
        ("com.example.app:/cb", Native, true),
        ("com.example.app:/", Native, true),
        ("com.example.app:/cb", Web, false),
        ("com.example.app://cb", Native, false),
        ("com.example.app:///cb", Native, false),
        ("com.example.app:cb", Native, false),
        ("com.example.other:/cb", Native, false),
        ("com.example:/cb", Native, false),
        ("myapp:/cb", Native, false),
        ("javascript:alert(1)", Native, false),
        ("data:text/html,x", Native, false),
        ("/cb", Web, false),
        ("", Web, false),
    ] {
        assert_eq!(RedirectUri::parse(text, &client(), kind).is_ok(), good, "{text} {kind:?}");
    }
}

#[test]
fn redirects_match_exactly_but_for_a_loopback_port() {
    let web = RedirectUri::parse("https://app.example.com/cb", &client(), ApplicationType::Web).unwrap();
    assert!(web.matches("https://app.example.com/cb"));
    for other in [
        // Compared byte by byte: parsers disagree on what is equal.
        "https://app.example.com/cb/",
        "https://app.example.com/cb?x",
        "https://app.example.com/CB",
        "https://APP.example.com/cb",
        "https://app.example.com/c",
        "https://app.example.com/cb/../cb",
        "https://app.example.com:443/cb",
    ] {
        assert!(!web.matches(other), "{other}");
    }
    let native = |text| RedirectUri::parse(text, &client(), ApplicationType::Native).unwrap();
    let any_port = native("http://127.0.0.1/cb?x=y");
    for (asked, good) in [
        ("http://127.0.0.1:5000/cb?x=y", true),
        ("http://127.0.0.1/cb?x=y", true),
        ("http://127.0.0.1:5000/cb", false),
        ("http://127.0.0.1:5000/other?x=y", false),
        ("http://[::1]:5000/cb?x=y", false),
        ("http://localhost:5000/cb?x=y", false),
        ("https://127.0.0.1:5000/cb?x=y", false),
        ("http://a@127.0.0.1:5000/cb?x=y", false),
        ("http://127.0.0.1:5000/cb?x=y#z", false),
    ] {
        assert_eq!(any_port.matches(asked), good, "{asked}");
    }
    let one_port = native("http://127.0.0.1:8080/cb");
    assert!(one_port.matches("http://127.0.0.1:8080/cb") && !one_port.matches("http://127.0.0.1:8081/cb"));
}

fn document() -> Value {
    let key = Jwk::of(&P256PrivateKey::from_bytes(&[7; 32]).unwrap().public()).named("one");
    json!({
        "client_id": ID, "redirect_uris": ["https://app.example.com/cb"], "scope": "atproto repo:*",
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES256", "jwks": {"keys": [key]}, "dpop_bound_access_tokens": true,
        "client_uri": "https://app.example.com/oauth", "client_name": "App", "contacts": ["unknown members are fine"],
    })
}

#[test]
fn documents_are_checked_member_by_member() {
    let read = |document: &Value| ClientMetadata::parse(document.to_string().as_bytes(), &client());
    let good = read(&document()).unwrap();
    assert!(good.is_confidential() && good.refreshes && good.allows_redirect("https://app.example.com/cb"));
    for (member, value) in [
        ("client_id", json!("https://app.example.com/other.json")),
        ("client_id", json!(null)),
        ("redirect_uris", json!(null)),
        ("redirect_uris", json!([])),
        ("redirect_uris", json!("https://app.example.com/cb")),
        ("redirect_uris", json!(["http://localhost/cb"])),
        ("redirect_uris", json!(vec!["https://app.example.com/cb"; 10_000])),
        ("response_types", json!(["token"])),
        ("grant_types", json!(["refresh_token"])),
        ("grant_types", json!(["authorization_code", "implicit"])),
        ("grant_types", json!(["authorization_code", "authorization_code"])),
        ("scope", json!(null)),
        ("scope", json!("repo:*")),
        ("scope", json!("atproto atproto")),
        ("scope", json!("atproto ".to_owned() + &"repo:a.b.c ".repeat(10_000))),
        ("token_endpoint_auth_method", json!("client_secret_basic")),
        ("token_endpoint_auth_signing_alg", json!("none")),
        ("token_endpoint_auth_signing_alg", json!("HS256")),
        ("jwks", json!({"keys": []})),
        ("jwks", json!({"keys": [{"kty": "EC", "d": "x"}]})),
        ("jwks_uri", json!("https://app.example.com/jwks")),
        ("application_type", json!("desktop")),
        ("dpop_bound_access_tokens", json!("true")),
        ("subject_type", json!("pairwise")),
        ("client_uri", json!("https://other.example.com/")),
        ("client_uri", json!("https://app.example.com/oauth/cli")),
        ("client_uri", json!("javascript:alert(1)")),
        ("logo_uri", json!("data:image/png,x")),
        ("tos_uri", json!("http://app.example.com/tos")),
        ("policy_uri", json!("https://intranet/")),
        ("client_name", json!("x".repeat(3000))),
        ("client_name", json!(7)),
        ("default_max_age", json!(5)),
        ("tls_client_certificate_bound_access_tokens", json!(true)),
        ("authorization_details_types", json!(["payment"])),
    ] {
        let mut changed = document();
        changed[member] = value.clone();
        assert_eq!(read(&changed).unwrap_err().field, member, "{value}");
    }
    for member in [
        "client_id",
        "redirect_uris",
        "scope",
        "token_endpoint_auth_method",
        "token_endpoint_auth_signing_alg",
        "jwks",
    ] {
        let mut less = document();
        less.as_object_mut().unwrap().remove(member);
        assert_eq!(read(&less).unwrap_err().field, member);
    }
    assert_eq!(read(&document()).unwrap().require_binding(), Ok(()));
    for unbound in [Some(json!(false)), None] {
        let mut changed = document();
        changed.as_object_mut().unwrap().remove("dpop_bound_access_tokens");
        if let Some(value) = unbound {
            changed["dpop_bound_access_tokens"] = value;
        }
        let refused = read(&changed).unwrap().require_binding();
        assert_eq!(refused.unwrap_err().field, "dpop_bound_access_tokens");
    }
    let mut native = document();
    native["application_type"] = json!("native");
    assert_eq!(read(&native).unwrap_err().field, "token_endpoint_auth_method");
    let mut public = document();
    public["token_endpoint_auth_method"] = json!("none");
    assert_eq!(read(&public).unwrap_err().field, "token_endpoint_auth_signing_alg");
    public.as_object_mut().unwrap().remove("token_endpoint_auth_signing_alg");
    assert!(!read(&public).unwrap().is_confidential());
    assert!(read(&json!([])).is_err());
}

const ISSUER: &str = "https://entryway.example.com";
const NOW: i64 = 1_700_000_000;

#[test]
fn assertions_are_checked_claim_by_claim() {
    let key = P256PrivateKey::from_bytes(&[7; 32]).unwrap();
    let jwk = Jwk::of(&key.public()).named("one");
    let keys = JwkSet { keys: vec![jwk.clone()] };
    let judge = |header: Value, claims: &Value| {
        let signed = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let token = format!("{signed}.{}", base64url(key.sign(signed.as_bytes())));
        UnverifiedAssertion::parse(&token)?.verify(&keys, &client(), ISSUER, NOW)
    };
    let header = || json!({"alg": "ES256", "kid": "one"});
    let claims = json!({"iss": ID, "sub": ID, "aud": ISSUER, "iat": NOW, "jti": "j", "exp": NOW + 60});
    let good = judge(header(), &claims).unwrap();
    assert_eq!(
        (&*good.jti, good.exp, good.forget_at, &*good.kid, good.jkt),
        ("j", Some(NOW + 60), NOW + 61, "one", jwk.thumbprint())
    );
    for (member, value, good) in [
        ("aud", json!([ISSUER, "x"]), true),
        ("iat", json!(NOW - 60), true),
        ("iat", json!(NOW + 60), true),
        ("iss", json!("x"), false),
        ("sub", json!("x"), false),
        ("aud", json!("https://entryway.example.com/"), false),
        ("aud", json!([]), false),
        ("iat", json!(NOW - 61), false),
        ("iat", json!(NOW + 61), false),
        ("exp", json!(NOW), false),
        ("nbf", json!(NOW + 61), false),
        ("jti", json!(""), false),
        ("jti", json!(null), false),
    ] {
        let mut changed = claims.clone();
        changed[member] = value.clone();
        assert_eq!(judge(header(), &changed).is_ok(), good, "{member}: {value}");
    }
    assert_eq!(judge(json!({"alg": "ES256"}), &claims), Err(AssertionError::NoKid));
    assert_eq!(judge(json!({"alg": "ES256", "kid": "two"}), &claims), Err(AssertionError::UnknownKey));
    assert_eq!(judge(json!({"alg": "RS256", "kid": "one"}), &claims), Err(AssertionError::UnknownKey));
    assert!(judge(json!({"alg": "ES256", "kid": "one", "typ": "dpop+jwt"}), &claims).is_err());
}

#[test]
fn an_assertion_that_we_make_is_one_that_we_would_take() {
    let key = P256PrivateKey::from_bytes(&[7; 32]).unwrap();
    let keys = JwkSet { keys: vec![Jwk::of(&key.public()).named("one")] };
    let token = client_assertion::sign(&key, "one", ID, ISSUER, "a name", NOW);
    let judge = |now| UnverifiedAssertion::parse(&token)?.verify(&keys, &client(), ISSUER, now);
    let good = judge(NOW).unwrap();
    assert_eq!((&*good.jti, good.exp), ("a name", Some(NOW + 30)));
    assert_eq!(judge(NOW + 30), Err(AssertionError::BadTime));
}

/// The reference server accepts no lead and an age of 60 seconds.
#[test]
fn an_assertion_that_we_make_is_valid_where_a_clock_is_behind_or_ahead() {
    let key = P256PrivateKey::from_bytes(&[7; 32]).unwrap();
    let token = client_assertion::sign(&key, "one", ID, ISSUER, "a name", NOW);
    let claims = data_encoding::BASE64URL_NOPAD.decode(token.split('.').nth(1).unwrap().as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    for now in [NOW - 5, NOW, NOW + 25] {
        assert!((0..=60).contains(&(now - iat)) && exp > now, "{claims}");
    }
}

#[test]
fn servers_are_taken_as_clients_take_them() {
    let host = "https://pds.example.com";
    let ours = serde_json::to_value(AuthorizationServer::of_genkan(ISSUER)).unwrap();
    let read =
        |document: &Value| AuthorizationServer::parse(document.to_string().as_bytes(), ISSUER, Some(host));
    assert!(read(&ours).is_ok());
    assert!(ours.get("protected_resources").is_none());
    assert_eq!(ours["client_id_metadata_document_supported"], true);
    for (member, value) in [
        ("issuer", json!("https://entryway.example.com/")),
        ("authorization_endpoint", json!("http://entryway.example.com/oauth/authorize")),
        ("token_endpoint", json!("")),
        ("pushed_authorization_request_endpoint", json!("javascript:x")),
        ("response_types_supported", json!(["token"])),
        ("code_challenge_methods_supported", json!([])),
        ("token_endpoint_auth_methods_supported", json!(["none"])),
        ("token_endpoint_auth_signing_alg_values_supported", json!(["ES256", "none"])),
        ("dpop_signing_alg_values_supported", json!(["RS256"])),
        ("authorization_response_iss_parameter_supported", json!(false)),
        ("client_id_metadata_document_supported", json!(false)),
        ("require_pushed_authorization_requests", json!(false)),
        ("grant_types_supported", json!(["authorization_code"])),
        ("scopes_supported", Value::Null),
        ("token_endpoint_auth_methods_supported", Value::Null),
        ("protected_resources", json!(["https://other.example.com"])),
    ] {
        let mut changed = ours.clone();
        changed[member] = value;
        assert_eq!(read(&changed), Err(Error::Unsuitable(member)));
    }
    let mut listed = ours;
    listed["protected_resources"] = json!(["https://other.example.com"]);
    assert!(AuthorizationServer::parse(listed.to_string().as_bytes(), ISSUER, None).is_ok());
    listed["protected_resources"] = json!([host]);
    assert!(read(&listed).is_ok());
    listed["token_endpoint"] = json!(5);
    assert_eq!(read(&listed), Err(Error::Malformed));
    let ours = serde_json::to_string(&ProtectedResource::of_genkan(ISSUER)).unwrap();
    assert_eq!(ProtectedResource::parse_issuer(ours.as_bytes(), ISSUER), Ok(ISSUER.to_owned()));
    assert!(ProtectedResource::parse_issuer(ours.as_bytes(), host).is_err());
    for servers in [json!([]), json!([ISSUER, host]), json!(["https://x.com/path"]), json!(["http://x.com"])]
    {
        let document = json!({"resource": host, "authorization_servers": servers});
        assert!(ProtectedResource::parse_issuer(document.to_string().as_bytes(), host).is_err(), "{servers}");
    }
}
