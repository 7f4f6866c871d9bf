use genkan_protocol::oauth::pkce::{Challenge, verifier_of};

#[test]
fn a_challenge_is_met_by_its_verifier() {
    // RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let challenge: Challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".parse().unwrap();
    assert!(challenge.is_met_by(verifier));
    assert_eq!(Challenge::of(verifier).to_string(), challenge.to_string());
    let made = verifier_of(&[0xff; 32]);
    assert!(Challenge::of(&made).is_met_by(&made) && made.len() == 43);
    for wrong in [
        String::new(),
        verifier.to_lowercase(),
        "a".repeat(42),
        format!("{verifier}="),
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned(),
    ] {
        assert!(!challenge.is_met_by(&wrong), "{wrong}");
    }
    for short in ["a".repeat(42), "a".repeat(129), format!("{} ", "a".repeat(50))] {
        assert!(!Challenge::of(&short).is_met_by(&short), "{short}");
    }
    for wrong in [
        "",
        verifier,
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
    ] {
        assert!(wrong == verifier || wrong.parse::<Challenge>().is_err(), "{wrong}");
    }
}
