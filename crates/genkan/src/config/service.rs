//! `[service]`: names and addresses of the service.

use genkan_protocol::syntax::Did;

use super::problem::{Findings, HTTPS_ONLY};
use super::section::section;
use crate::base::Origin;

section! {
    /// Names and addresses by which clients and hosts know the service.
    pub struct Service = "service" {
        /// Public origin of the service, as clients reach it. Plain `http` is allowed for loopback
        /// addresses only.
        public_url: Origin { env: "GENKAN_PUBLIC_URL", alias: "PDS_HOSTNAME" by origin_of_hostname, example: "https://example.com" },
        /// DID of the service: the audience (`aud`) of refresh tokens and of the service tokens
        /// that hosts sign for it.
        did: Did {
            env: "GENKAN_SERVICE_DID", alias: "PDS_SERVICE_DID",
            derived: "did:web: of the host and port of public_url" => public_url.as_ref().and_then(did_of_origin)
        },
        /// Development mode: allows handle domains that are reserved for tests, such as `.test`,
        /// an admin password shorter than 16 characters, and services in `atproto-proxy` whose names
        /// do not exist. Do not use it in production.
        development: bool { env: "GENKAN_DEVELOPMENT", default: "false" },
        /// Domains under which users choose their handles, each with a leading dot. The first one
        /// is the default.
        handle_domains: Vec<String> {
            env: "GENKAN_HANDLE_DOMAINS", alias: "PDS_SERVICE_HANDLE_DOMAINS",
            derived: "the host of public_url; `.test` on loopback" => public_url.as_ref().map(handle_domains_of)
        },
        /// Name of the service on pages and in emails.
        name: String { env: "GENKAN_NAME", default: "Genkan" },
        /// URL of the privacy policy, published by `describeServer`.
        privacy_policy_url: Option<String> { env: "GENKAN_PRIVACY_POLICY_URL", alias: "PDS_PRIVACY_POLICY_URL" },
        /// URL of the terms of service, published by `describeServer`.
        terms_of_service_url: Option<String> { env: "GENKAN_TERMS_OF_SERVICE_URL", alias: "PDS_TERMS_OF_SERVICE_URL" },
        /// Email address of the operator, published by `describeServer`.
        contact_email: Option<String> { env: "GENKAN_CONTACT_EMAIL", alias: "PDS_CONTACT_EMAIL_ADDRESS" },
    }
}

impl Service {
    fn check(&self, found: &mut Findings) {
        if !self.public_url.is_https() && !self.public_url.is_loopback() {
            found.add("GENKAN_PUBLIC_URL", format!("{} does not use https", self.public_url), HTTPS_ONLY);
        }
        if self.handle_domains.is_empty() {
            found.add("GENKAN_HANDLE_DOMAINS", "is empty", "set at least one domain, such as .example.com");
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
                found.add(env, format!("{url:?} is not a web URL"), "use a URL that begins with https://");
            }
        }
        if let Some(email) = &self.contact_email
            && !email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
        {
            found.add(
                "GENKAN_CONTACT_EMAIL",
                format!("{email:?} is not an email address"),
                "use the form name@example.com",
            );
        }
    }

    fn wrong_with_domain(&self, domain: &str) -> Option<(String, String)> {
        let Some(name) = domain.strip_prefix('.') else {
            return Some((format!("{domain:?} has no leading dot"), format!("use .{domain}")));
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
        // A handle has 253 characters at most, and 3 to 18 of them come before the domain.
        if name.len() > 230 || !name.split('.').all(good_label) {
            return Some((
                format!("{domain:?} is not a domain"),
                "use lower-case letters, digits and hyphens, such as .example.com".to_owned(),
            ));
        }
        let top = name.rsplit('.').next().unwrap_or_default();
        if SPECIAL_TOP_LEVEL_DOMAINS.contains(&top) && !self.development {
            return Some((
                format!("{domain:?} is reserved for special use and does not resolve on the internet"),
                "use a domain that you own, or set GENKAN_DEVELOPMENT=true for a development network"
                    .to_owned(),
            ));
        }
        None
    }
}

/// Top-level domains that the handle specification forbids, and `.test`, which it allows in
/// development.
const SPECIAL_TOP_LEVEL_DOMAINS: [&str; 9] =
    ["alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"];

fn is_web_address(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|url| {
        url.host().is_some_and(|host| !host.is_empty()) && matches!(url.scheme_str(), Some("https" | "http"))
    })
}

/// Translates the reference PDS's value, a host name. It means plain `http` when it is `localhost`.
fn origin_of_hostname(hostname: &str) -> String {
    match hostname {
        "localhost" => "http://localhost:2583".to_owned(),
        name => format!("https://{name}"),
    }
}

/// Returns the `did:web` of an origin. A port follows an escaped colon.
fn did_of_origin(origin: &Origin) -> Option<Did> {
    let authority = origin.authority().as_str().replace(':', "%3A");
    format!("did:web:{authority}").parse().ok()
}

fn handle_domains_of(origin: &Origin) -> Vec<String> {
    vec![if origin.is_loopback() { ".test".to_owned() } else { format!(".{}", origin.host()) }]
}
