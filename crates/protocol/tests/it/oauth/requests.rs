use genkan_protocol::oauth::error::{OAuthError, OAuthErrorCode};
use genkan_protocol::oauth::request::{AuthorizationRequest, Form, Prompt, ResponseMode, TokenRequest};
use serde_json::json;

fn par() -> Vec<(&'static str, &'static str)> {
    vec![
        ("client_id", "https://app.example.com/oauth/client.json"),
        ("response_type", "code"),
        ("scope", "atproto"),
        ("state", "s"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ]
}

fn push(name: &'static str, value: &'static str) -> Result<AuthorizationRequest, OAuthError> {
    let mut pairs = par();
    pairs.retain(|(known, _)| *known != name);
    pairs.push((name, value));
    AuthorizationRequest::parse(&Form::from_pairs(pairs)?)
}

#[test]
fn requests_are_read_parameter_by_parameter() {
    use OAuthErrorCode as Code;
    let plain = push("response_mode", "fragment").unwrap();
    assert_eq!(plain.response_mode, ResponseMode::Fragment);
    assert_eq!(push("prompt", "create").unwrap().prompt, Some(Prompt::Create));
    assert_eq!(
        push("login_hint", "Alice.Example.com").unwrap().login_hint.unwrap().as_str(),
        "alice.example.com"
    );
    assert_eq!(push("ui_locales", "fr-CA <b> en").unwrap().ui_locales, ["fr-CA", "en"]);
    assert_eq!(push("state", " \u{e9}&").unwrap().state, " \u{e9}&");
    for (name, value, code) in [
        ("response_type", "token", Code::UnsupportedResponseType),
        ("response_type", "", Code::InvalidRequest),
        ("scope", "", Code::InvalidScope),
        ("scope", "repo:*", Code::InvalidScope),
        ("scope", "atproto openid", Code::InvalidScope),
        ("state", "", Code::InvalidRequest),
        ("code_challenge", "", Code::InvalidRequest),
        ("code_challenge", "short", Code::InvalidRequest),
        ("code_challenge_method", "plain", Code::InvalidRequest),
        ("code_challenge_method", "", Code::InvalidRequest),
        ("dpop_jkt", "x", Code::InvalidRequest),
        ("login_hint", "<script>", Code::InvalidRequest),
        ("login_hint", "did:key:z123", Code::InvalidRequest),
        ("prompt", "maybe", Code::InvalidRequest),
        ("response_mode", "web_message", Code::InvalidRequest),
        ("nonce", "x", Code::InvalidRequest),
        ("claims", "{}", Code::InvalidRequest),
        ("id_token_hint", "x", Code::InvalidRequest),
        ("request", "e30.e30.", Code::RequestNotSupported),
        ("authorization_details", "[]", Code::InvalidAuthorizationDetails),
    ] {
        assert_eq!(push(name, value).unwrap_err().code, code, "{name}={value}");
    }
    let repeated = Form::parse(b"state=a&scope=b&state=a").unwrap_err();
    assert_eq!(
        serde_json::to_value(&repeated).unwrap(),
        json!({"error": "invalid_request", "error_description": "parameter \"state\" is repeated"})
    );
    let many: Vec<_> = (0..65).map(|number| (number.to_string(), "x")).collect();
    assert!(Form::from_pairs(many).is_err());
}

#[test]
fn token_requests_and_assertions_are_read() {
    let parse = |body: &str| TokenRequest::parse(&Form::parse(body.as_bytes()).unwrap());
    let verifier = "v".repeat(43);
    let good =
        format!("grant_type=authorization_code&code=c&redirect_uri=https%3A%2F%2Fa&code_verifier={verifier}");
    assert_eq!(
        parse(&good),
        Ok(TokenRequest::Code { code: "c".to_owned(), redirect_uri: "https://a".to_owned(), verifier })
    );
    assert!(parse("grant_type=refresh_token&refresh_token=r").is_ok());
    assert_eq!(parse("grant_type=password").unwrap_err().code, OAuthErrorCode::UnsupportedGrantType);
    for bad in ["", "grant_type=refresh_token", "grant_type=authorization_code&code=c&redirect_uri=x"] {
        assert_eq!(parse(bad).unwrap_err().code, OAuthErrorCode::InvalidRequest, "{bad}");
    }
    let form = |body: &str| {
        Form::parse(body.as_bytes()).unwrap().client_assertion().map(|one| one.map(str::to_owned))
    };
    let known = "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    assert_eq!(form(&format!("{known}&client_assertion=x")), Ok(Some("x".to_owned())));
    assert_eq!(form("a=b"), Ok(None));
    assert!(form(known).is_err() && form("client_assertion=x").is_err());
    assert_eq!(
        form("client_assertion=x&client_assertion_type=y").unwrap_err().code,
        OAuthErrorCode::InvalidClient
    );
}
