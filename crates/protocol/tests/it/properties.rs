//! What holds for every input.

use genkan_protocol::crypto::{K256PrivateKey, PublicKey};
use genkan_protocol::jwt::session::{AccessClaims, Scope, sign_access, verify_access};
use genkan_protocol::oauth::client_id::ClientId;
use genkan_protocol::oauth::client_metadata::ClientMetadata;
use genkan_protocol::oauth::request::{AuthorizationRequest, Form};
use genkan_protocol::oauth::scope::{self, Scopes};
use genkan_protocol::oauth::{jwk, jws};
use genkan_protocol::syntax::{AtIdentifier, Did, Handle, Nsid, Tid};
use genkan_protocol::{jwt, plc, service_auth};
use proptest::prelude::*;

proptest! {
    #[test]
    fn dids_print_what_was_parsed(text in "did:[a-z]{1,8}:[a-zA-Z0-9._:%-]{0,40}[a-zA-Z0-9._-]") {
        let did: Did = text.parse().unwrap();
        prop_assert_eq!(did.to_string(), &*text);
        prop_assert_eq!(format!("did:{}:{}", did.method(), did.identifier()), text);
    }

    #[test]
    fn handles_print_what_was_parsed_in_lower_case(text in "([a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?\\.){1,4}[a-zA-Z]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?") {
        let handle: Handle = text.parse().unwrap();
        prop_assert_eq!(handle.as_str(), text.to_lowercase());
        prop_assert_eq!(handle.to_string().parse::<Handle>().unwrap(), handle);
    }

    #[test]
    fn nsids_print_what_was_parsed(text in "[a-zA-Z]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?(\\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?){1,4}\\.[a-zA-Z][a-zA-Z0-9]{0,20}") {
        let nsid: Nsid = text.parse().unwrap();
        prop_assert_eq!(nsid.as_str(), &*text);
        prop_assert!(text.ends_with(nsid.name()));
    }

    #[test]
    fn whatever_parses_prints_and_parses_the_same(text in "\\PC{0,30}|[a-z0-9.:%-]{0,20}") {
        if let Ok(parsed) = text.parse::<AtIdentifier>() {
            prop_assert_eq!(parsed.to_string().parse::<AtIdentifier>().unwrap(), parsed);
        }
        if let Ok(parsed) = text.parse::<Tid>() {
            prop_assert_eq!(parsed.as_str(), text);
        }
    }

    #[test]
    fn checks_without_a_value_agree_with_the_parsers(text in "\\PC{0,30}|(did:[a-z]{1,3}:)?[a-z0-9.:%-]{0,24}|did:(plc|web):[a-z2-7.]{24}") {
        prop_assert_eq!(Nsid::check(&text).is_ok(), text.parse::<Nsid>().is_ok());
        prop_assert_eq!(Handle::check(&text).is_ok(), text.parse::<Handle>().is_ok());
        prop_assert_eq!(Did::check(&text).is_ok(), text.parse::<Did>().is_ok());
        if Did::is_of_account(&text) {
            let did: Did = text.parse().unwrap();
            prop_assert!(did.is_plc() || did.is_web() && did.identifier().parse::<Handle>().is_ok());
        }
    }

    #[test]
    fn keys_print_what_was_parsed(bytes in any::<[u8; 32]>(), message in any::<Vec<u8>>()) {
        if let Ok(private) = K256PrivateKey::from_bytes(&bytes) {
            let public = PublicKey::from_did_key(&private.public().to_did_key()).unwrap();
            prop_assert_eq!(&public, &private.public());
            prop_assert!(public.verify(&message, &private.sign(&message)).is_ok());
        }
    }

    #[test]
    fn access_tokens_say_what_was_signed(scope in 0..5_usize, iat: i64, exp: i64, aud in "\\PC{0,40}", jti in "\\PC{0,40}") {
        let sub = "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap();
        let claims = AccessClaims { scope: Scope::ALL[scope], sub, aud, iat, exp, jti };
        let token = sign_access(&crate::key(1), &claims);
        prop_assert_eq!(verify_access(&token, &crate::key(1).public()), Ok(claims));
    }

    #[test]
    fn a_token_with_one_byte_changed_is_refused(at in 0..1000_usize, byte in 0x21..0x7f_u8) {
        let sub = "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap();
        let claims = AccessClaims { scope: Scope::Access, sub, aud: "x".to_owned(), iat: 1, exp: 2, jti: "y".to_owned() };
        let good = sign_access(&crate::key(1), &claims);
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert_eq!(verify_access(&changed, &crate::key(1).public()).is_ok(), changed == good);
    }

    #[test]
    fn no_input_panics(text in "\\PC{0,60}|[A-Za-z0-9_.-]{0,80}", bytes in any::<Vec<u8>>()) {
        let _ = jwt::Unverified::parse(&text);
        let _ = service_auth::parse(&text);
        let _ = PublicKey::from_did_key(&format!("did:key:z{text}"));
        let _ = crate::key(1).public().verify(&bytes, &bytes);
        let _ = serde_json::from_slice::<plc::Operation>(&bytes);
        let token = crate::token(&format!("{{\"alg\":\"ES256K\",\"typ\":{text:?}}}"), &text, 1);
        let _ = service_auth::parse(&token);
    }

    #[test]
    fn operations_read_back(handle in "[a-z]{1,10}\\.[a-z]{2,5}", endpoint in "https://[a-z]{1,30}\\.com", names in prop::collection::btree_map("\\PC{0,30}", "\\PC{0,300}", 0..4)) {
        let mut data = plc::Data::of_account(
            vec![crate::key(1).public().to_did_key()], &crate::key(2).public(), &handle.parse().unwrap(), &endpoint);
        data.verification_methods.extend(names);
        let (did, operation) = plc::genesis(data.clone(), &crate::key(1));
        let back: plc::Operation = serde_json::from_str(&serde_json::to_string(&operation).unwrap()).unwrap();
        prop_assert_eq!(back.did(), Some(did));
        prop_assert_eq!(back.data(), Some(data));
        prop_assert_eq!(back.verify_signature(&[crate::key(1).public()]), Ok(0));
    }

    #[test]
    fn scopes_read_back_as_they_print(text in "(repo|rpc|blob|account|identity|include)(:[a-z.*%/0-9A-F]{0,24})?(\\?((lxm|aud|accept|attr|action|collection|nsid)=[a-z.*%/:#+0-9A-F]{0,24}&?){0,3})?|blob\\?(accept=[a-z+!~%A-F0-9]{1,6}/[a-z+!~']{1,6}&?){1,3}|repo:[a-z]{1,3}\\.[a-z]{1,3}\\.[a-z]{1,3}(\\?(action=(create|update|delete)&?){1,3})?") {
        if let Ok(read) = text.parse::<scope::Scope>() {
            prop_assert_eq!(read.to_string().parse::<scope::Scope>(), Ok(read.clone()), "{} {}", text, read);
        }
    }

    #[test]
    fn no_input_panics_oauth(text in "\\PC{0,60}|https?://[a-z.@:/?#%\\[\\]]{0,30}", bytes in any::<Vec<u8>>()) {
        let _ = Scopes::parse(&text);
        let _ = jws::Unverified::parse(&text);
        let _ = jwk::JwkSet::parse(&bytes);
        let _ = Form::parse(&bytes).map(|form| AuthorizationRequest::parse(&form).is_ok());
        if let Ok(id) = ClientId::parse(&text, &[]) {
            let _ = ClientMetadata::parse(&bytes, &id);
            let _ = ClientMetadata::of_development(&id);
        }
    }
}
