//! Documents from other servers.

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::did_document::DidDocument;
use genkan_protocol::oauth::permission_set::PermissionSet;
use genkan_protocol::oauth::scope::{Include, Scope};
use genkan_protocol::plc::Operation;
use genkan_protocol::repo_proof::verify_record;

/// A DID document. It is written back as it was read.
pub fn did_document(json: &[u8]) {
    let Ok(document) = serde_json::from_slice::<DidDocument>(json) else { return };
    let _ = (document.handle(), document.signing_key());
    if let Ok(origin) = document.pds_origin() {
        let endpoint = document.pds_endpoint().expect("an origin is read from an endpoint");
        assert!(endpoint.to_ascii_lowercase().contains(origin.host()));
    }
    let written = serde_json::to_vec(&document).expect("a document has a JSON form");
    let again: DidDocument = serde_json::from_slice(&written).expect("a written document is read");
    assert_eq!(again, document);
}

/// An operation of the PLC directory. Writing it keeps its name and its state.
pub fn plc_operation(json: &[u8]) {
    let Ok(operation) = serde_json::from_slice::<Operation>(json) else { return };
    let written = serde_json::to_vec(&operation).expect("an operation has a JSON form");
    let again: Operation = serde_json::from_slice(&written).expect("a written operation is read");
    assert_eq!((again.cid(), again.data()), (operation.cid(), operation.data()));
}

/// A proof that a repository holds a record. The fuzzer has no key, so no proof is good.
pub fn repo_proof(file: &[u8]) {
    let key = PublicKey::from_did_key("did:key:zDnaeoWRg63nSivFX4xPNhxyJKYw5BaGYi7yNcejErtV3dBaU");
    let did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().expect("it is a DID");
    assert!(verify_record(file, &did, &key.expect("it is a key"), "a.b.c", "self").is_err());
}

/// A permission set. It grants nothing outside of its own namespace.
pub fn permission_set(json: &[u8]) {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(json) else { return };
    let nsid = "com.example.set".parse().expect("it is an NSID");
    let Ok(set) = PermissionSet::parse(&document, &nsid) else { return };
    let _ = (set.title(&["de-AT", "en"]), set.detail(&[]));
    for scope in set.expand(&Include { nsid, audience: None }) {
        assert!(matches!(scope, Scope::Repo(_) | Scope::Rpc(_)));
        assert!(scope.to_string().contains("com.example."));
        assert_eq!(scope.to_string().parse(), Ok(scope));
    }
}
