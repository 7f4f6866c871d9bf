use genkan_protocol::crypto::PublicKey;
use genkan_protocol::did_document::{AccountFacts, AccountFactsError, DidDocument, PdsError};
use genkan_protocol::json_bounds::{JsonBoundsError, MAX_VALUES};
use genkan_protocol::origin::OriginError;
use genkan_protocol::plc;
use genkan_protocol::syntax::Did;
use serde_json::{Value, json};

use crate::{data, key};

/// Reads a document. What is read of the account alone must be the same.
fn document(value: &Value) -> DidDocument {
    let document: DidDocument = serde_json::from_value(value.clone()).unwrap();
    let facts = AccountFacts::parse(value.to_string().as_bytes(), &document.id).unwrap();
    let AccountFacts { id, handle, pds, signing_key } = facts;
    assert_eq!((id, handle), (document.id.clone(), document.handle()), "{value}");
    assert_eq!((pds, signing_key), (document.pds_origin(), document.signing_key()), "{value}");
    document
}

#[test]
fn of_a_large_document_only_the_account_is_read() {
    let did: Did = "did:web:example.com".parse().unwrap();
    let with = |more: &str| {
        let text = format!(r#"{{"id":"{did}","more":{more},"alsoKnownAs":["at://ann.example.com"]}}"#);
        AccountFacts::parse(text.as_bytes(), &did)
    };
    let facts = with(&format!("\"{}\"", "[{\\\",".repeat(50_000))).unwrap();
    assert_eq!(facts.handle.unwrap().as_str(), "ann.example.com");
    assert_eq!(facts.pds, Err(PdsError::Missing));
    let deep = |levels: usize| with(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    assert!(deep(31).is_ok());
    assert_eq!(deep(32), Err(JsonBoundsError::TooDeep.into()));
    let many = |count: usize| with(&format!("[{}]", vec![r#"{"a":0}"#; count].join(",")));
    assert!(many(MAX_VALUES / 2 - 10).is_ok());
    assert_eq!(many(MAX_VALUES), Err(JsonBoundsError::TooMany.into()));
    let other = "did:web:other.example.com".parse().unwrap();
    let text = format!(r#"{{"id":"{did}"}}"#);
    assert_eq!(AccountFacts::parse(text.as_bytes(), &other), Err(AccountFactsError::AnotherDid));
    for wrong in [r#"{"id":"did:web:example.com""#, "{}", r#"{"id":"did:web:example.com","service":[{}]}"#] {
        assert_eq!(AccountFacts::parse(wrong.as_bytes(), &did), Err(AccountFactsError::Malformed), "{wrong}");
    }
}

#[test]
fn keys_in_the_manner_of_2019_are_understood() {
    for history in data!("plc.json")["histories"].as_array().unwrap() {
        let document = document(&history["document_of_2023"]);
        let data: plc::Data = serde_json::from_value(history["data"].clone()).unwrap();
        assert_eq!(document.signing_key().unwrap().to_did_key(), data.signing_key().unwrap());
        for (name, did_key) in &data.verification_methods {
            let key = document.key(&format!("#{name}")).unwrap();
            assert_eq!(key.to_did_key(), *did_key);
        }
        assert_eq!(document.pds_endpoint(), data.pds_endpoint());
        assert_eq!(document.handle(), data.handle());
        assert_eq!(serde_json::to_value(&document).unwrap(), history["document_of_2023"]);
    }
}

#[test]
fn the_directory_says_the_same_of_us_as_we_do() {
    for history in data!("plc.json")["histories"].as_array().unwrap() {
        let did: Did = history["did"].as_str().unwrap().parse().unwrap();
        let data: plc::Data = serde_json::from_value(history["data"].clone()).unwrap();
        let ours = DidDocument::of_plc_data(&did, &data);
        let theirs = document(&history["document_of_2023"]);
        assert_eq!(ours.also_known_as, theirs.also_known_as);
        assert_eq!(ours.service.len(), theirs.service.len());
        for service in &theirs.service {
            assert!(ours.service.contains(service));
        }
        for method in &theirs.verification_method {
            assert_eq!(ours.key(&method.id), theirs.key(&method.id));
        }
        let back: DidDocument = serde_json::from_str(&serde_json::to_string(&ours).unwrap()).unwrap();
        assert_eq!(back, ours);
    }
}

#[test]
fn it_is_rendered_as_the_public_directory_renders_it() {
    let did: Did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap();
    let signing = key(1).public();
    let data = plc::Data::of_account(
        vec![key(2).public().to_did_key()],
        &signing,
        &"alice.example.com".parse().unwrap(),
        "https://pds.example.com",
    );
    let rendered = serde_json::to_string(&DidDocument::of_plc_data(&did, &data)).unwrap();
    let expected = concat!(
        r#"{"@context":["https://www.w3.org/ns/did/v1","https://w3id.org/security/multikey/v1","#,
        r#""https://w3id.org/security/suites/secp256k1-2019/v1"],"id":"did:plc:ewvi7nxzyoun6zhxrhs64oiz","#,
        r#""alsoKnownAs":["at://alice.example.com"],"verificationMethod":[{"#,
        r#""id":"did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto","type":"Multikey","#,
        r#""controller":"did:plc:ewvi7nxzyoun6zhxrhs64oiz","publicKeyMultibase":"KEY"}],"#,
        r##""service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","##,
        r#""serviceEndpoint":"https://pds.example.com"}]}"#,
    );
    assert_eq!(rendered, expected.replace("KEY", &signing.to_multibase()));
}

#[test]
fn members_stand_in_the_order_of_the_directory() {
    let did: Did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap();
    let p256 = "did:key:zDnaeoWRg63nSivFX4xPNhxyJKYw5BaGYi7yNcejErtV3dBaU";
    let mut data = plc::Data::default();
    for (name, key) in
        [("zz", p256), ("atproto", &key(1).public().to_did_key()), ("b", "did:key:z6Mkunknown")]
    {
        data.verification_methods.insert(name.to_owned(), key.to_owned());
    }
    let document = DidDocument::of_plc_data(&did, &data);
    let names: Vec<_> =
        document.verification_method.iter().map(|method| method.id.rsplit('#').next().unwrap()).collect();
    assert_eq!(names, ["b", "zz", "atproto"]);
    assert_eq!(document.verification_method[0].public_key_multibase.as_deref(), Some("z6Mkunknown"));
    assert_eq!(document.key("#b"), None);
    assert_eq!(document.key("#zz"), Some(PublicKey::from_did_key(p256).unwrap()));
    let context: Vec<_> =
        document.context.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    assert_eq!(
        context[2..],
        [
            "https://w3id.org/security/suites/ecdsa-2019/v1",
            "https://w3id.org/security/suites/secp256k1-2019/v1"
        ]
    );
}

#[test]
fn documents_from_other_servers_are_read_with_care() {
    let bare = document(&json!({ "id": "did:web:example.com" }));
    assert_eq!((bare.pds_endpoint(), bare.handle(), bare.signing_key()), (None, None, None));

    let multibase = key(1).public().to_multibase();
    let rich = document(&json!({
        "id": "did:web:example.com",
        "alsoKnownAs": ["https://example.com", "at://not a handle", "at://Alice.Example.com", "at://bob.example.com"],
        "verificationMethod": [
            { "id": "did:web:other.com#atproto", "type": "Multikey", "publicKeyMultibase": key(2).public().to_multibase() },
            { "id": "#other", "type": "JsonWebKey2020", "controller": "x", "publicKeyJwk": { "kty": "EC" } },
            { "id": "did:web:example.com#atproto", "type": "Multikey", "controller": "x", "publicKeyMultibase": multibase },
        ],
        "service": [
            { "id": "#strange", "type": "Strange", "serviceEndpoint": { "uri": ["https://x"] }, "more": [1] },
            { "id": "did:web:example.com#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.example.com" },
            { "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://second.example.com" },
        ],
        "authentication": ["#atproto"],
    }));
    assert_eq!(rich.pds_endpoint(), Some("https://pds.example.com"));
    assert_eq!(rich.handle().unwrap().as_str(), "alice.example.com");
    assert!(rich.claims_handle(&"ALICE.example.com".parse().unwrap()));
    assert!(!rich.claims_handle(&"bob.example.com".parse().unwrap()));
    assert_eq!(rich.signing_key(), Some(key(1).public()));
    assert_eq!(rich.key("#other"), None);
    let written = serde_json::to_value(&rich).unwrap();
    assert_eq!(written["authentication"], json!(["#atproto"]));
    assert_eq!(written["verificationMethod"][1]["publicKeyJwk"], json!({ "kty": "EC" }));
    assert_eq!(written["service"][0]["more"], json!([1]));

    let service = |service: Value| document(&json!({ "id": "did:web:example.com", "service": [service] }));
    for wrong in [
        json!({ "id": "#atproto_pds", "type": "Other", "serviceEndpoint": "https://x" }),
        json!({ "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": ["https://x"] }),
        json!({ "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "ftp://x" }),
        json!({ "id": "atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://x" }),
        json!({ "id": "did:web:example.com.evil#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://x" }),
    ] {
        assert_eq!(service(wrong.clone()).pds_endpoint(), None, "{wrong}");
    }

    for wrong in [json!({}), json!([]), json!({ "id": "x" }), json!({ "id": "did:web:x", "service": "y" })] {
        assert!(serde_json::from_value::<DidDocument>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn a_pds_is_an_origin_with_at_most_a_slash_after_it() {
    let pds = |endpoint: &str| {
        document(&json!({ "id": "did:web:example.com", "service": [
            { "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint },
        ]}))
        .pds_origin()
    };
    for (endpoint, origin) in [
        ("https://pds.example.com", "https://pds.example.com"),
        ("https://pds.example.com/", "https://pds.example.com"),
        ("https://PDS.example.com:443/", "https://pds.example.com"),
        ("http://localhost:2583", "http://localhost:2583"),
    ] {
        assert_eq!(pds(endpoint).unwrap().as_str(), origin, "{endpoint}");
    }
    for (endpoint, error) in [
        ("https://pds.example.com//", PdsError::NotAnOrigin(OriginError::NotBare)),
        ("https://pds.example.com/base", PdsError::NotAnOrigin(OriginError::NotBare)),
        ("https://pds.example.com?x", PdsError::NotAnOrigin(OriginError::NotBare)),
        ("https://me@pds.example.com", PdsError::NotAnOrigin(OriginError::UserInformation)),
        ("https://", PdsError::NotAnOrigin(OriginError::NotAUrl)),
        ("wss://pds.example.com", PdsError::Missing),
    ] {
        assert_eq!(pds(endpoint), Err(error), "{endpoint}");
    }
}
