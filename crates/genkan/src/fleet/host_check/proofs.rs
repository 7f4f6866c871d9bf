//! The proofs, one function each.

use std::time::Duration;

use genkan_protocol::crypto::{K256PrivateKey, PublicKey};
use genkan_protocol::jwt::session::{AccessClaims, Scope, sign_access};
use genkan_protocol::plc::{Data, genesis};
use genkan_protocol::service_auth;
use genkan_protocol::syntax::{Did, Handle};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::checker::{HostChecker, Subject, is_public, needs_a_name};
use super::findings::{Finding, HostCheck, Proof, Verdict};
use crate::base::fetch::Answer;
use crate::base::random;
use crate::fleet::host_client::{Credential, Description, HostError, refusal};

impl HostChecker {
    /// Makes every proof that is possible. An unreachable host has one finding.
    pub(crate) async fn check(&self, subject: &Subject) -> HostCheck {
        let mut findings = Vec::new();
        let mut note = |proof, verdict| findings.push(Finding { proof, verdict });
        // Without an answer nothing else can be proven, so the check ends with this one finding.
        let version = match self.client.health(&subject.origin, REACH).await {
            Ok(version) => version,
            Err(error) => {
                note(
                    Proof::Reachable,
                    bad(
                        error.to_string(),
                        format!("start the host, and let Genkan reach it at {}", subject.origin),
                    ),
                );
                return HostCheck { findings, version: None, description: None };
            }
        };
        let description = match self.client.describe_server(&subject.origin).await {
            Ok(description) => description,
            Err(error) => {
                note(
                    Proof::Reachable,
                    bad(error.to_string(), format!("check that a PDS answers at {}", subject.origin)),
                );
                return HostCheck { findings, version, description: None };
            }
        };
        note(Proof::Reachable, good(format!("it is {}", description.did)));
        note(Proof::Version, judge_version(version.as_deref()));
        let (url, entryway_url) = says_of_itself(self, subject).await;
        let in_entryway_mode = !entryway_url.is_bad();
        note(Proof::Url, url);
        note(Proof::EntrywayUrl, entryway_url);
        note(Proof::HandleDomains, handle_domains(self, &description));
        note(Proof::AdminPassword, admin_password(self, subject).await);
        // A host without an entryway answers the next calls by other rules, so they would prove
        // nothing.
        if in_entryway_mode {
            note(Proof::SigningKey, signing_key(self, subject, &description.did).await);
            note(Proof::RotationKey, rotation_key(self, subject).await);
            let proxy = plc_proxy(self, subject, &description.did).await;
            // The next proof uses a DID that only the PLC proxy knows. Without the proxy it would fail
            // for that reason.
            let through = matches!(proxy, Verdict::Good { .. });
            note(Proof::PlcProxy, proxy);
            if through {
                note(Proof::EntrywayDid, entryway_did(self, subject).await);
            }
        }
        note(Proof::Clock, clock(self, subject).await);
        HostCheck { findings, version, description: Some(description) }
    }
}

fn judge_version(version: Option<&str>) -> Verdict {
    let Some(version) = version else { return open("the host does not say its version") };
    if version.starts_with(TRIED) {
        return good(version.to_owned());
    }
    open(&format!(
        "it is {version}; Genkan was tested with {TRIED}x, and the checks below say whether this one works"
    ))
}

/// Compares the host's own URL and its entryway's, as its OAuth protected resource metadata (RFC
/// 9728) gives them.
async fn says_of_itself(of: &HostChecker, subject: &Subject) -> (Verdict, Verdict) {
    let said: Value = match of.client.page(&subject.origin, "/.well-known/oauth-protected-resource").await {
        Ok(answer) if answer.status == StatusCode::OK => {
            serde_json::from_slice(&answer.body).unwrap_or_default()
        }
        Ok(answer) => {
            let why = format!("its OAuth metadata answered {}", answer.status.as_u16());
            return (open(&why), open(&why));
        }
        Err(error) => return (open(&error.to_string()), open(&error.to_string())),
    };
    let own = said.get("resource").and_then(Value::as_str).unwrap_or_default();
    let url = if own == subject.origin.as_str() {
        good(own.to_owned())
    } else {
        bad(
            format!("it calls itself {own:?}, not {}", subject.origin),
            "set PDS_HOSTNAME (and PDS_PORT) so that they make the URL under which it is added".to_owned(),
        )
    };
    let issuer = said.pointer("/authorization_servers/0").and_then(Value::as_str).unwrap_or_default();
    let wanted = of.expected.public_url.as_str();
    let entryway = if issuer == wanted {
        good(wanted.to_owned())
    // A PDS without an entryway names itself as its authorization server.
    } else if issuer == own {
        bad("it has no entryway".to_owned(), format!("set PDS_ENTRYWAY_URL={wanted}"))
    } else {
        bad(format!("its entryway is {issuer:?}"), format!("set PDS_ENTRYWAY_URL={wanted}"))
    };
    (url, entryway)
}

fn handle_domains(of: &HostChecker, description: &Description) -> Verdict {
    let wanted = &of.expected.handle_domains;
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|domain| !description.available_user_domains.contains(domain))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return good(wanted.join(", "));
    }
    bad(
        format!(
            "it lacks the handle domain {}, and would look such handles up in the DNS",
            missing.join(", ")
        ),
        format!("set PDS_SERVICE_HANDLE_DOMAINS={}", wanted.join(",")),
    )
}

/// Asks about an account that does not exist: "not found" for the right password, 401 for a wrong
/// one.
async fn admin_password(of: &HostChecker, subject: &Subject) -> Verdict {
    let path = format!("com.atproto.admin.getAccountInfo?did={}", unused_did());
    let credential = Credential::Admin(&subject.admin_password);
    match of.client.call(&subject.origin, Method::GET, &path, None, &credential).await {
        Ok(_) => good("accepted".to_owned()),
        Err(error) if error.is_refusal(400, "NotFound") => good("accepted".to_owned()),
        Err(HostError::Refused { status: 401 | 403, .. }) => bad(
            "it refuses the admin password".to_owned(),
            "give the value of its PDS_ADMIN_PASSWORD; for a host of the fleet: `genkan host set NAME \
             --admin-password-file FILE`"
                .to_owned(),
        ),
        Err(error) => open(&error.to_string()),
    }
}

/// Presents a token for an account that does not exist: "not found" if the signature is accepted,
/// `InvalidToken` if not.
async fn signing_key(of: &HostChecker, subject: &Subject, host: &Did) -> Verdict {
    let Some(key) = of.ring.host_key(subject.name.as_str()) else {
        return open("Genkan has no key for this host");
    };
    let now = of.clock.now().as_seconds();
    let claims = AccessClaims {
        aud: host.to_string(),
        sub: unused_did(),
        scope: Scope::Access,
        iat: now,
        // Long enough for a host with a somewhat wrong clock, which has a finding of its own.
        exp: now + 120,
        jti: random::id(),
    };
    let token = sign_access(&key.private, &claims);
    let path = "com.atproto.server.checkAccountStatus";
    let credential = Credential::Bearer(&token);
    match of.client.call(&subject.origin, Method::GET, path, None, &credential).await {
        Err(error) if error.is_refusal(400, "InvalidToken") => bad(
            "it does not accept tokens signed with this host's key".to_owned(),
            format!(
                "set PDS_ENTRYWAY_JWT_VERIFY_KEY_K256_PUBLIC_KEY_HEX={}",
                data_encoding::HEXLOWER.encode(&key.public.to_sec1_compressed())
            ),
        ),
        Err(error) if error.is_refusal(400, "ExpiredToken") => bad(
            "it takes a fresh token for expired".to_owned(),
            "correct the host's clock, or run a time service on it".to_owned(),
        ),
        Ok(_) => good("accepted".to_owned()),
        Err(error) if error.is_refusal(400, "NotFound") || error.is_refusal(403, "AccountNotFound") => {
            good("accepted".to_owned())
        }
        Err(error) => open(&error.to_string()),
    }
}

/// Asks for an account with a signing key that the host never reserved. The host objects to that
/// key only after it has found our rotation key in the operation and accepted the signature. It
/// creates nothing.
async fn rotation_key(of: &HostChecker, subject: &Subject) -> Verdict {
    let rotation = of.ring.rotation();
    let handle = probe_handle(of);
    let data = Data::of_account(
        vec![rotation.public().to_did_key()],
        &unreserved_key(),
        &handle,
        subject.origin.as_str(),
    );
    let (did, operation) = genesis(data, rotation);
    let body = json!({ "did": did, "handle": handle, "plcOp": operation });
    match ask_for_account(of, subject, &Credential::None, body).await {
        Err(error) if error.is_unreserved_key() => good("accepted".to_owned()),
        Err(error) if error.is_refusal(400, "IncompatibleDidDoc") => bad(
            "it expects another rotation key in operations".to_owned(),
            format!("set PDS_ENTRYWAY_PLC_ROTATION_KEY={}", rotation.public().to_did_key()),
        ),
        Err(error) => open(&error.to_string()),
        Ok(_) => open("it accepted an operation that it should refuse"),
    }
}

/// Presents a service token of a DID that only our PLC proxy knows. The host accepts it only if it
/// asks that proxy for the DID.
async fn plc_proxy(of: &HostChecker, subject: &Subject, host: &Did) -> Verdict {
    let Some(proxy) = &of.expected.front_url else {
        return open("GENKAN_DIRECTORY_FRONT_LISTEN is empty: this Genkan has no PLC proxy");
    };
    if needs_a_name(proxy) {
        return bad(
            format!("hosts do not resolve DIDs at an IP address, and the PLC proxy is at {proxy}"),
            "set GENKAN_DIRECTORY_FRONT_URL to a name (http://localhost:2585 on the same machine)".to_owned(),
        );
    }
    match of.client.page(proxy, "/_health").await {
        Ok(answer) if answer.status == StatusCode::OK => {}
        Ok(_) | Err(_) => {
            return open(&format!("no PLC proxy answers at {proxy}; start `genkan serve`, then check again"));
        }
    }
    match with_probe_token(of, subject, host.as_str()).await {
        // The token was accepted, so the host objects to the missing operation.
        Err(error) if error.is_missing_operation() => good(proxy.to_string()),
        // A directory that does not know the DID gave this answer, so it was not Genkan's proxy.
        Err(HostError::Refused { status: 401, message, .. }) => {
            bad(format!("it asks another PLC directory ({message})"), format!("set PDS_DID_PLC_URL={proxy}"))
        }
        Err(error) if is_public(proxy) => bad(
            format!("it cannot reach {proxy} ({error})"),
            format!("set PDS_DID_PLC_URL={proxy}, and let the host reach that address"),
        ),
        Err(error) => bad(
            format!("it cannot reach {proxy} ({error})"),
            format!(
                "set PDS_DID_PLC_URL={proxy}, and either PDS_DISABLE_SSRF_PROTECTION=true, or give the PLC proxy \
                 an https name on port 443 (GENKAN_DIRECTORY_FRONT_URL)"
            ),
        ),
        Ok(_) => open("it answered a probe with 200"),
    }
}

/// Presents a probe token addressed to Genkan. The host accepts it if Genkan's DID is the DID of
/// its entryway.
async fn entryway_did(of: &HostChecker, subject: &Subject) -> Verdict {
    let did = &of.expected.service_did;
    match with_probe_token(of, subject, did.as_str()).await {
        // The token was accepted, so the host objects to the missing operation.
        Err(error) if error.is_missing_operation() => good(did.to_string()),
        Err(error) if error.is_refusal(401, "BadJwtAudience") => {
            bad("its entryway has another DID".to_owned(), format!("set PDS_ENTRYWAY_DID={did}"))
        }
        Err(error) => open(&error.to_string()),
        Ok(_) => open("it answered a probe with 200"),
    }
}

async fn with_probe_token(of: &HostChecker, subject: &Subject, audience: &str) -> Result<Answer, HostError> {
    let probe = of.prober.fresh();
    let now = of.clock.now().as_seconds();
    let claims = service_auth::Claims {
        iss: probe.did.clone(),
        iss_fragment: None,
        aud: audience.to_owned(),
        lxm: CREATE_ACCOUNT.parse().ok(),
        iat: Some(now),
        exp: now + 60,
        jti: Some(random::id()),
    };
    let token = service_auth::sign(&probe.key, &claims);
    let body = json!({ "handle": probe_handle(of) });
    ask_for_account(of, subject, &Credential::Bearer(&token), body).await
}

async fn ask_for_account(
    of: &HostChecker,
    subject: &Subject,
    credential: &Credential<'_>,
    body: Value,
) -> Result<Answer, HostError> {
    of.client.call(&subject.origin, Method::POST, CREATE_ACCOUNT, Some(body), credential).await
}

/// Compares clocks by the `Date` of an answer, which has whole seconds.
async fn clock(of: &HostChecker, subject: &Subject) -> Verdict {
    let answer =
        match of.client.exchange(&subject.origin, Method::GET, "_health", None, &Credential::None).await {
            Ok(answer) if answer.status.is_success() => answer,
            Ok(answer) => return open(&refusal(&answer).to_string()),
            Err(error) => return open(&error.to_string()),
        };
    let date = answer.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return open("it sends no Date header");
    };
    let theirs = theirs.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let ours = Duration::from_millis(u64::try_from(of.clock.now().as_millis()).unwrap_or(0));
    let apart = ours.abs_diff(theirs);
    if apart <= SKEW {
        return good("within 2 s of Genkan's".to_owned());
    }
    bad(
        format!("it differs by {} s from Genkan's", apart.as_secs()),
        "run a time service on both machines, because tokens carry times in seconds".to_owned(),
    )
}

/// A well-formed DID that no account has.
fn unused_did() -> Did {
    "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().expect("a constant, and a DID")
}

fn probe_handle(of: &HostChecker) -> Handle {
    let domain = of.expected.handle_domains.first().map_or(".example.com", String::as_str);
    format!("genkan-probe{domain}").parse().expect("a handle domain has a leading dot and is a domain")
}

/// Returns the public half of a key whose private half is dropped.
fn unreserved_key() -> PublicKey {
    loop {
        if let Ok(key) = K256PrivateKey::from_bytes(&random::bytes::<32>()) {
            return key.public();
        }
    }
}

const fn good(detail: String) -> Verdict {
    Verdict::Good { detail }
}

const fn bad(wrong: String, mend: String) -> Verdict {
    Verdict::Bad { wrong, mend }
}

fn open(why: &str) -> Verdict {
    Verdict::Open { why: why.to_owned() }
}

const CREATE_ACCOUNT: &str = "com.atproto.server.createAccount";
/// The limit of the first call, which tells whether the host runs at all.
const REACH: Duration = Duration::from_secs(5);
/// The start of the versions that the proofs were tested with.
const TRIED: &str = "0.5.";
/// `Date` has whole seconds, and the answer takes a moment; more than this is a wrong clock.
const SKEW: Duration = Duration::from_secs(2);
