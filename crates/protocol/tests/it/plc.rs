use genkan_protocol::crypto::{K256PrivateKey, PublicKey};
use genkan_protocol::plc::{self, Data, Error, Operation};
use genkan_protocol::syntax::Handle;
use serde_json::Value;

use crate::{data, key};

fn read(operation: &Value) -> Operation {
    serde_json::from_value(operation.clone()).unwrap()
}

fn keys(texts: &[String]) -> Vec<PublicKey> {
    texts.iter().map(|text| PublicKey::from_did_key(text).unwrap()).collect()
}

#[test]
fn operations_are_those_of_the_reference() {
    for history in data!("plc.json")["histories"].as_array().unwrap() {
        let key = K256PrivateKey::from_hex(history["private"].as_str().unwrap()).unwrap();
        let mut before: Option<Operation> = None;
        for entry in history["operations"].as_array().unwrap() {
            let operation = read(&entry["operation"]);
            assert_eq!(operation.cid(), entry["cid"].as_str().unwrap());
            assert_eq!(serde_json::to_value(&operation).unwrap(), entry["operation"]);

            // Each operation is made again from its state, and must come out byte by byte as the
            // reference made it.
            let made = match (&before, operation.data()) {
                (None, Some(data)) => {
                    let (did, made) = plc::genesis(data, &key);
                    assert_eq!(did.as_str(), history["did"].as_str().unwrap());
                    assert_eq!(made.did(), Some(did));
                    made
                }
                (Some(before), Some(data)) => plc::update(&before.cid(), data, &key),
                (Some(before), None) => plc::tombstone(&before.cid(), &key),
                (None, None) => panic!("a history begins with a tombstone"),
            };
            assert_eq!(made, operation);
            assert_eq!(made.prev(), before.as_ref().map(Operation::cid).as_deref());
            assert!(before.is_none() || made.did().is_none());

            let state = before.as_ref().unwrap_or(&operation).data().unwrap();
            let signer = usize::try_from(history["signer"].as_u64().unwrap()).unwrap();
            assert_eq!(operation.verify_signature(&keys(&state.rotation_keys)), Ok(signer));
            before = Some(operation);
        }
    }
}

#[test]
fn the_state_reads_as_the_directory_shows_it() {
    for history in data!("plc.json")["histories"].as_array().unwrap() {
        let shown: Data = serde_json::from_value(history["data"].clone()).unwrap();
        let operations = history["operations"].as_array().unwrap();
        // The last operation is a tombstone, which has no state.
        let last = read(&operations[operations.len() - 2]["operation"]);
        assert_eq!(last.data(), Some(shown));
    }
}

#[test]
fn the_setters_do_what_the_reference_does() {
    for history in data!("plc.json")["histories"].as_array().unwrap() {
        let states: Vec<_> = history["operations"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| read(&entry["operation"]).data())
            .collect();
        let mut data = states[0].clone();
        data.set_handle(&"renamed.example.com".parse().unwrap());
        assert_eq!(data, states[1]);
        data.set_pds_endpoint("https://other.example.com");
        assert_eq!(data, states[2]);
        assert_eq!(data.pds_endpoint(), Some("https://other.example.com"));
        data.set_signing_key(&PublicKey::from_did_key(states[3].signing_key().unwrap()).unwrap());
        assert_eq!(data, states[3]);
        assert_eq!(data.check(), Ok(()));
    }
}

#[test]
fn the_oldest_operations_are_understood() {
    for entry in data!("plc.json")["old"].as_array().unwrap() {
        let operation = read(&entry["operation"]);
        let state = operation.data().unwrap();
        assert_eq!(operation.cid(), entry["cid"].as_str().unwrap());
        assert_eq!(operation.did().unwrap().as_str(), entry["did"].as_str().unwrap());
        assert_eq!(state, serde_json::from_value(entry["data"].clone()).unwrap());
        // The first key is the recovery key. The oldest accounts were signed with the second.
        assert_eq!(operation.verify_signature(&keys(&state.rotation_keys)), Ok(1));
        assert_eq!(serde_json::to_value(&operation).unwrap(), entry["operation"]);
    }
}

fn account() -> Data {
    let handle: Handle = "alice.example.com".parse().unwrap();
    Data::of_account(vec![key(1).public().to_did_key()], &key(2).public(), &handle, "https://pds.example.com")
}

#[test]
fn a_changed_operation_no_longer_verifies() {
    let (_, operation) = plc::genesis(account(), &key(1));
    let rotation = [key(3).public(), key(1).public()];
    assert_eq!(operation.verify_signature(&rotation), Ok(1));
    assert_eq!(operation.verify_signature(&rotation[..1]), Err(Error::BadSignature));
    assert_eq!(operation.verify_signature(&[]), Err(Error::BadSignature));
    let good = serde_json::to_value(&operation).unwrap();
    for (pointer, value) in [
        ("/alsoKnownAs/0", "at://mallory.example.com"),
        ("/services/atproto_pds/endpoint", "https://evil.example.com"),
        ("/verificationMethods/atproto", "did:key:x"),
        ("/rotationKeys/0", "did:key:x"),
        ("/prev", "bafy"),
    ] {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value.into();
        assert_eq!(read(&changed).verify_signature(&rotation), Err(Error::BadSignature), "{pointer}");
        assert_ne!(read(&changed).cid(), operation.cid(), "{pointer}");
    }
    let sig = good["sig"].as_str().unwrap();
    // Other spellings of a valid signature would give one operation several CIDs.
    for wrong in [
        format!("{sig}=="),
        format!("{sig}A"),
        sig[..84].to_owned(),
        sig.replace(['-', '_'], "+"),
        String::new(),
    ] {
        if wrong == sig {
            continue;
        }
        let mut changed = good.clone();
        changed["sig"] = wrong.clone().into();
        assert_eq!(read(&changed).verify_signature(&rotation), Err(Error::MalformedSignature), "{wrong}");
    }
}

#[test]
fn json_of_another_shape_is_refused() {
    let (_, operation) = plc::genesis(account(), &key(1));
    let good = serde_json::to_value(&operation).unwrap();
    for member in ["type", "rotationKeys", "verificationMethods", "alsoKnownAs", "services", "prev", "sig"] {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(member);
        assert!(serde_json::from_value::<Operation>(changed).is_err(), "{member}");
    }
    let mut more = good.clone();
    more["more"] = 1.into();
    assert!(serde_json::from_value::<Operation>(more).is_err());
    let mut other = good;
    other["type"] = "create".into();
    assert!(serde_json::from_value::<Operation>(other).is_err());
}

#[test]
fn states_the_directory_refuses_are_refused() {
    let with = |change: fn(&mut Data)| {
        let mut data = account();
        change(&mut data);
        data.check()
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|data| data.rotation_keys.clear()), Err(Error::RotationKeyCount));
    assert_eq!(
        with(|data| data.rotation_keys.extend((2..=6).map(|byte| key(byte).public().to_did_key()))),
        Err(Error::RotationKeyCount)
    );
    assert_eq!(
        with(|data| data.rotation_keys.push(key(1).public().to_did_key())),
        Err(Error::RepeatedRotationKey)
    );
    assert!(matches!(
        with(|data| data.rotation_keys.push("did:key:z6Mk".to_owned())),
        Err(Error::UnsupportedKey(_))
    ));
}
