use genkan_protocol::crypto::{Curve, Error, K256PrivateKey, PublicKey};

use crate::{data, hex, key};

#[test]
fn keys_are_spelled_as_the_reference_spells_them() {
    for known in data!("crypto.json")["keys"].as_array().unwrap() {
        let did_key = known["did_key"].as_str().unwrap();
        let key = PublicKey::from_did_key(did_key).unwrap();
        assert_eq!(format!("{:?}", key.curve()), known["curve"].as_str().unwrap());
        assert_eq!(key.to_did_key(), did_key);
        assert_eq!(format!("did:key:{}", key.to_multibase()), did_key);
        assert_eq!(key.to_sec1_uncompressed_hex(), known["uncompressed"].as_str().unwrap());
        for point in [key.to_sec1_compressed(), key.to_sec1_uncompressed()] {
            assert_eq!(PublicKey::from_sec1(key.curve(), &point), Ok(key.clone()));
        }
        if key.curve() == Curve::K256 {
            let private = K256PrivateKey::from_hex(known["private"].as_str().unwrap()).unwrap();
            assert_eq!(private.public(), key);
            assert_eq!(private.to_bytes().as_slice(), hex(&known["private"]));
        }
    }
}

#[test]
fn did_keys_are_judged_as_by_the_reference() {
    for case in data!("crypto.json")["did_keys"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(PublicKey::from_did_key(text).is_ok(), case["valid"].as_bool().unwrap(), "{text}");
    }
}

#[test]
fn signatures_are_judged_as_by_the_reference() {
    for case in data!("crypto.json")["signatures"].as_array().unwrap() {
        let key = PublicKey::from_did_key(case["key"].as_str().unwrap()).unwrap();
        let (message, signature) = (hex(&case["message"]), hex(&case["signature"]));
        assert_eq!(key.verify(&message, &signature).is_ok(), case["strict"].as_bool().unwrap(), "{case}");
        assert_eq!(
            key.verify_either_s(&message, &signature).is_ok(),
            case["either_s"].as_bool().unwrap(),
            "{case}"
        );
    }
}

#[test]
fn our_signatures_are_those_of_the_reference() {
    let mut compared = 0;
    for case in data!("crypto.json")["signatures"].as_array().unwrap() {
        if case["curve"] != "K256" || case["private"].is_null() {
            continue;
        }
        let key = K256PrivateKey::from_hex(case["private"].as_str().unwrap()).unwrap();
        assert_eq!(key.sign(&hex(&case["message"])).as_slice(), hex(&case["signature"]));
        compared += 1;
    }
    assert_eq!(compared, 16);
}

#[test]
fn points_that_are_none_are_refused() {
    let good = key(1).public();
    let mut hybrid = good.to_sec1_uncompressed();
    hybrid[0] = 6 + (hybrid[64] & 1);
    let mut off_the_curve = good.to_sec1_uncompressed();
    off_the_curve[64] ^= 1;
    for curve in [Curve::K256, Curve::P256] {
        for point in [&hybrid, &off_the_curve, &vec![0; 33], &vec![0], &vec![], &vec![2; 32], &vec![4; 65]] {
            assert_eq!(PublicKey::from_sec1(curve, point), Err(Error::NotAPublicKey), "{point:?}");
        }
    }
}

#[test]
fn private_keys_out_of_range_are_refused() {
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    for text in
        [order, &"0".repeat(64), "", "1", &"1".repeat(63), &"1".repeat(65), &"g".repeat(64), &"é".repeat(32)]
    {
        assert_eq!(K256PrivateKey::from_hex(text).unwrap_err(), Error::NotAPrivateKey, "{text}");
    }
    let largest = order.to_uppercase().replace("4141", "4140");
    assert!(K256PrivateKey::from_hex(&largest).is_ok());
}

#[test]
fn private_keys_do_not_show() {
    assert_eq!(format!("{:?}", key(7)), "[sealed]");
}
