use genkan_protocol::crypto::P256PrivateKey;
use genkan_protocol::oauth::dpop::{ProofClaims, ProofKey, ath};
use genkan_protocol::oauth::pkce::Challenge;
use serde_json::json;

use super::*;
use crate::call::{Answer, Client};

const CLIENT: &str =
    "http://localhost?scope=atproto%20transition%3Ageneric&redirect_uri=http%3A%2F%2F127.0.0.1%2Fback";
const BACK: &str = "http://127.0.0.1/back";

/// An app in development.
struct App {
    client: Client,
    key: ProofKey,
    nonce: String,
    count: u32,
}

impl App {
    fn of(pds: &FakePds) -> Self {
        let key = ProofKey::new(P256PrivateKey::from_bytes(&[9; 32]).unwrap());
        Self { client: Client::new(&pds.url()), key, nonce: String::new(), count: 0 }
    }

    fn proof(&mut self, method: &str, path: &str, token: Option<&str>) -> String {
        self.count += 1;
        let iat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.key.sign(&ProofClaims {
            jti: &self.count.to_string(),
            htm: method,
            htu: &format!("{}{path}", self.client.origin()),
            iat: i64::try_from(iat).unwrap(),
            nonce: Some(&self.nonce).filter(|nonce| !nonce.is_empty()).map(String::as_str),
            ath: token.map(ath).as_deref(),
        })
    }

    async fn once(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let proof = self.proof("POST", path, None);
        let client = self.client.clone().with("dpop", &proof);
        let form = serde_html_form::to_string(fields).unwrap();
        let answer = client.post(path, "application/x-www-form-urlencoded", form).await;
        answer.header("dpop-nonce").clone_into(&mut self.nonce);
        answer
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let fields = [&[("client_id", CLIENT)], fields].concat();
        let answer = self.once(path, &fields).await;
        if answer.summary() == "400 use_dpop_nonce" { self.once(path, &fields).await } else { answer }
    }

    async fn call(&mut self, nsid: &str, token: &str) -> Answer {
        let path = format!("/xrpc/{nsid}");
        let proof = self.proof("GET", &path, Some(token));
        let client = self.client.clone().with("dpop", &proof);
        let answer = client.with("authorization", &format!("DPoP {token}")).get(&path).await;
        answer.header("dpop-nonce").clone_into(&mut self.nonce);
        answer
    }

    async fn sign_in(&mut self, hint: &str) -> Answer {
        let verifier = "v".repeat(43);
        let challenge = Challenge::of(&verifier).to_string();
        let pushed = self
            .post(
                "/oauth/par",
                &[
                    ("response_type", "code"),
                    ("code_challenge_method", "S256"),
                    ("code_challenge", &challenge),
                    ("scope", "atproto transition:generic"),
                    ("state", "the state"),
                    ("redirect_uri", BACK),
                    ("login_hint", hint),
                ],
            )
            .await;
        assert_eq!(pushed.status, 201, "{}", pushed.transcript());
        let query = serde_html_form::to_string([
            ("client_id", CLIENT),
            ("request_uri", &pushed.text("/request_uri")),
        ]);
        let sent = self.client.get(&format!("/oauth/authorize?{}", query.unwrap())).await;
        let back = sent.header("location").strip_prefix("http://127.0.0.1/back?").unwrap().to_owned();
        let back: BTreeMap<String, String> = serde_html_form::from_str(&back).unwrap();
        assert_eq!(back.get("state").map(String::as_str), Some("the state"));
        assert_eq!(back.get("iss").map(String::as_str), Some(self.client.origin()));
        let code = back.get("code").unwrap();
        self.post(
            "/oauth/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", BACK),
                ("code_verifier", &verifier),
            ],
        )
        .await
    }

    async fn refresh(&mut self, token: &str) -> Answer {
        self.post("/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }
}

#[tokio::test]
async fn an_app_signs_in_calls_and_refreshes_once_per_token() {
    let directory = FakeDirectory::start().await;
    let pds = FakePds::start().await;
    pds.make_account(&directory, "other.example.com");
    let did = pds.make_account(&directory, "ann.example.com");
    let mut app = App::of(&pds);
    let first = app.sign_in("ann.example.com").await.ok();
    assert_eq!(first.text("/sub"), did.as_str());
    assert_eq!(
        app.call("com.atproto.repo.listMissingBlobs", &first.text("/access_token")).await.summary(),
        "401 use_dpop_nonce"
    );
    let called = app.call("com.atproto.repo.listMissingBlobs", &first.text("/access_token")).await.ok();
    assert_eq!(called.text("/did"), did.as_str());

    let second = app.refresh(&first.text("/refresh_token")).await.ok();
    assert_ne!(second.text("/access_token"), first.text("/access_token"));
    assert_eq!(pds.sessions()[0].refreshes, 1);
    assert_eq!(app.refresh(&first.text("/refresh_token")).await.summary(), "400 invalid_grant");
    assert_eq!(pds.sessions()[0].ended, Some("replayed"));
    assert_eq!(app.refresh(&second.text("/refresh_token")).await.summary(), "400 invalid_grant");
    app.call("x.y.z", &second.text("/access_token")).await;
    let called = app.call("x.y.z", &second.text("/access_token")).await;
    assert_eq!(called.summary(), "401 invalid_token");
}

#[tokio::test]
async fn quirks_change_the_answers() {
    let directory = FakeDirectory::start().await;
    let pds = FakePds::start().await;
    pds.make_account(&directory, "ann.example.com");
    pds.set(|quirks| {
        quirks.nonce_each = true;
        quirks.token_answer.insert("sub".to_owned(), json!("did:plc:other"));
        quirks.server_metadata.insert("scopes_supported".to_owned(), Value::Null);
    });
    let mut app = App::of(&pds);
    let tokens = app.sign_in("").await.ok();
    assert_eq!(tokens.text("/sub"), "did:plc:other");
    let stale = app.nonce.clone();
    app.refresh(&tokens.text("/refresh_token")).await.ok();
    app.nonce = stale;
    assert_eq!(app.once("/oauth/token", &[]).await.summary(), "400 use_dpop_nonce");
    let metadata = app.client.get("/.well-known/oauth-authorization-server").await.json();
    assert!(metadata.get("issuer").is_some() && metadata.get("scopes_supported").is_none());
}

#[tokio::test]
async fn an_account_moves_to_a_place_behind_the_same_server() {
    let directory = FakeDirectory::start().await;
    let old = FakePds::start().await;
    let new = FakePds::start_behind(&old).await;
    let did = old.make_account(&directory, "ann.example.com");
    new.take_over(&directory, &did);
    assert_eq!(directory.data(&did).unwrap().pds_endpoint(), Some(new.url().as_str()));
    let named = Client::new(&new.url()).get("/.well-known/oauth-protected-resource").await;
    assert_eq!(named.text("/authorization_servers/0"), old.issuer());
}
