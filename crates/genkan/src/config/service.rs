//! `[service]`: who Genkan is to the world.

use genkan_protocol::syntax::Did;

use super::key::section;
use super::problem::Findings;
use crate::base::Origin;

section! {
    /// Who Genkan is to the world.
    pub struct Service = "service" {
        /// The origin that people and apps know. Plain `http` is for loopback only.
        public_url: Origin { env: "GENKAN_PUBLIC_URL", alias: "PDS_HOSTNAME" by origin_of_hostname, example: "https://example.com" },
        /// Genkan's own DID: the `aud` of refresh tokens and of what hosts sign for it.
        did: Did {
            env: "GENKAN_SERVICE_DID", alias: "PDS_SERVICE_DID",
            derived: "did:web: of the host and port of public_url" => public_url.as_ref().and_then(did_of_origin)
        },
        /// Allows the domains that are set apart for tests (`.test` and others), and short passwords of the operator's own.
        development: bool { env: "GENKAN_DEVELOPMENT", default: "false" },
        /// Domains below which people choose their handles, each with a leading dot. The first is offered first.
        handle_domains: Vec<String> {
            env: "GENKAN_HANDLE_DOMAINS", alias: "PDS_SERVICE_HANDLE_DOMAINS",
            derived: "the host of public_url; `.test` on loopback" => public_url.as_ref().map(handle_domains_of)
        },
        /// The name that people see.
        name: String { env: "GENKAN_NAME", default: "Genkan" },
        /// A page with the privacy policy, told by `describeServer`.
        privacy_policy_url: Option<String> { env: "GENKAN_PRIVACY_POLICY_URL", alias: "PDS_PRIVACY_POLICY_URL" },
        /// A page with the terms of service, told by `describeServer`.
        terms_of_service_url: Option<String> { env: "GENKAN_TERMS_OF_SERVICE_URL", alias: "PDS_TERMS_OF_SERVICE_URL" },
        /// Where people reach the operator, told by `describeServer`.
        contact_email: Option<String> { env: "GENKAN_CONTACT_EMAIL", alias: "PDS_CONTACT_EMAIL_ADDRESS" },
    }
}

impl Service {
    fn check(&self, found: &mut Findings) {
        if !self.public_url.is_https() && !self.public_url.is_loopback() {
            found.add(
                "GENKAN_PUBLIC_URL",
                format!("{} is not https", self.public_url),
                "use https://; plain http is for loopback addresses only",
            );
        }
        if self.handle_domains.is_empty() {
            found.add("GENKAN_HANDLE_DOMAINS", "names no domain", "name at least one, such as .example.com");
        }
        for domain in &self.handle_domains {
            if let Some((wrong, mend)) = self.wrong_with_domain(domain) {
                found.add("GENKAN_HANDLE_DOMAINS", wrong, mend);
            }
        }
        for (env, url) in [
            ("GENKAN_PRIVACY_POLICY_URL", &self.privacy_policy_url),
            ("GENKAN_TERMS_OF_SERVICE_URL", &self.terms_of_service_url),
        ] {
            if let Some(url) = url
                && !is_web_address(url)
            {
                found.add(
                    env,
                    format!("{url:?} is not a web address"),
                    "write one that begins with https://",
                );
            }
        }
        if let Some(email) = &self.contact_email
            && !email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
        {
            found.add(
                "GENKAN_CONTACT_EMAIL",
                format!("{email:?} is not an e-mail address"),
                "write name@example.com",
            );
        }
    }

    fn wrong_with_domain(&self, domain: &str) -> Option<(String, String)> {
        let Some(name) = domain.strip_prefix('.') else {
            return Some((format!("{domain:?} has no leading dot"), format!("write .{domain}")));
        };
        let good_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        // 3 to 18 characters are put before it, and a handle has 253 at most.
        if name.len() > 230 || !name.split('.').all(good_label) {
            return Some((
                format!("{domain:?} is not a domain"),
                "write it in lower case with letters, digits and hyphens, such as .example.com".to_owned(),
            ));
        }
        let top = name.rsplit('.').next().unwrap_or_default();
        if SPECIAL_TOP_LEVEL_DOMAINS.contains(&top) && !self.development {
            return Some((
                format!("{domain:?} is set apart for special uses and never resolves"),
                "name a domain of yours, or set GENKAN_DEVELOPMENT=true on a development network".to_owned(),
            ));
        }
        None
    }
}

/// Top-level domains that the handle specification refuses, and `.test`, which it allows in development.
const SPECIAL_TOP_LEVEL_DOMAINS: [&str; 9] =
    ["alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"];

fn is_web_address(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|url| {
        url.host().is_some_and(|host| !host.is_empty()) && matches!(url.scheme_str(), Some("https" | "http"))
    })
}

/// The reference PDS has a host name here, and means plain `http` when it is `localhost`.
fn origin_of_hostname(hostname: &str) -> String {
    match hostname {
        "localhost" => "http://localhost:2583".to_owned(),
        name => format!("https://{name}"),
    }
}

/// `did:web` writes the port with an escaped colon.
fn did_of_origin(origin: &Origin) -> Option<Did> {
    let authority = origin.authority().as_str().replace(':', "%3A");
    format!("did:web:{authority}").parse().ok()
}

fn handle_domains_of(origin: &Origin) -> Vec<String> {
    vec![if origin.is_loopback() { ".test".to_owned() } else { format!(".{}", origin.host()) }]
}
