//! The external URLs that Genkan may connect to at all, judged before any lookup.

use http::Uri;

use crate::base::Origin;

/// A URL that passed the checks: the origin to connect to, and the path to request there.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) origin: Origin,
    pub(crate) path_and_query: String,
    /// Whether the operator listed exactly this origin. Its addresses are not checked then.
    pub(crate) listed: bool,
}

/// Why Genkan does not connect to a URL. Each reason is final: trying again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it is not an absolute URL")]
    NotAUrl,
    #[error("only https is allowed")]
    NotHttps,
    #[error("only port 443 is allowed")]
    Port,
    #[error("user name or password in the URL")]
    UserInformation,
    #[error("IP addresses are not allowed, only names")]
    AddressLiteral,
    #[error("it is not a public DNS name")]
    NotAName,
    #[error("the name is reserved for special use")]
    SpecialName,
    #[error("the name leads to an address that is not public ({0})")]
    Address(&'static str),
}

impl Target {
    /// Checks `url`. `listed` are the private origins that the operator allows, each exactly.
    pub(crate) fn check(url: &Uri, listed: &[Origin]) -> Result<Self, Refusal> {
        // Only absolute URLs have both. A relative one has no target of its own.
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(Refusal::NotAUrl);
        };
        // `https://good.example@evil.example` shows one host and leads to another.
        if authority.as_str().contains('@') {
            return Err(Refusal::UserInformation);
        }
        let origin: Origin = format!("{scheme}://{authority}").parse().map_err(|_| match scheme {
            "http" | "https" => Refusal::NotAUrl,
            _ => Refusal::NotHttps,
        })?;
        let path_and_query = url.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        // A listed origin skips the rules below: the operator vouches for exactly this scheme, host
        // and port.
        if listed.contains(&origin) {
            return Ok(Self { origin, path_and_query, listed: true });
        }
        if !origin.is_https() {
            return Err(Refusal::NotHttps);
        }
        check_name(origin.host())?;
        // Other ports could make Genkan talk to services that are not web servers.
        if origin.port() != 443 {
            return Err(Refusal::Port);
        }
        Ok(Self { origin, path_and_query, listed: false })
    }
}

/// Checks that `host` is a public DNS name: at least two labels, no special-use domain, and no form
/// that a resolver could read as an address.
pub(crate) fn check_name(host: &str) -> Result<(), Refusal> {
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(Refusal::AddressLiteral);
    }
    let labels: Vec<&str> = host.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    // Some resolvers read `127.1`, `0x7f.1` and `2130706433` as addresses. No top-level domain
    // begins with a digit.
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(Refusal::AddressLiteral);
    }
    // Resolvers in private networks often answer these names with internal addresses.
    if SPECIAL.contains(&last.to_ascii_lowercase().as_str()) {
        return Err(Refusal::SpecialName);
    }
    if host.len() > 253 || labels.len() < 2 || !labels.iter().all(|label| is_label(label)) {
        return Err(Refusal::NotAName);
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Top-level domains that never name a public server: special-use domains (RFC 6761, RFC 6762,
/// RFC 9476), and names that private networks commonly use.
const SPECIAL: &[&str] = &[
    "local",
    "localhost",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "arpa",
    "test",
    "invalid",
    "example",
    "onion",
    "alt",
    "lan",
    "home",
    "corp",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, listed: &[&str]) -> Result<Target, Refusal> {
        let listed: Vec<Origin> = listed.iter().map(|origin| origin.parse().unwrap()).collect();
        Target::check(&url.parse().map_err(|_| Refusal::NotAUrl)?, &listed)
    }

    #[test]
    fn refuses_what_is_not_a_public_https_name() {
        for (url, why) in [
            ("/path", Refusal::NotAUrl),
            ("http://good.example.com/", Refusal::NotHttps),
            ("ftp://good.example.com/", Refusal::NotHttps),
            ("https://user@good.example.com/", Refusal::UserInformation),
            ("https://user:word@good.example.com/", Refusal::UserInformation),
            ("https://good.example.com:8443/", Refusal::Port),
            ("https://good.example.com:80/", Refusal::Port),
            ("https://127.0.0.1/", Refusal::AddressLiteral),
            ("https://8.8.8.8/", Refusal::AddressLiteral),
            ("https://127.1/", Refusal::AddressLiteral),
            ("https://2130706433/", Refusal::AddressLiteral),
            ("https://0x7f.0x1/", Refusal::AddressLiteral),
            ("https://[::1]/", Refusal::AddressLiteral),
            ("https://[2606:4700::1111]/", Refusal::AddressLiteral),
            ("https://localhost/", Refusal::SpecialName),
            ("https://a.localhost/", Refusal::SpecialName),
            ("https://printer.LOCAL/", Refusal::SpecialName),
            ("https://a.internal/", Refusal::SpecialName),
            ("https://localhost.localdomain/", Refusal::SpecialName),
            ("https://a.intranet/", Refusal::SpecialName),
            ("https://a.private/", Refusal::SpecialName),
            ("https://1.0.0.127.in-addr.arpa/", Refusal::SpecialName),
            ("https://a.test/", Refusal::SpecialName),
            ("https://a.invalid/", Refusal::SpecialName),
            ("https://a.example/", Refusal::SpecialName),
            ("https://a.onion/", Refusal::SpecialName),
            ("https://a.alt/", Refusal::SpecialName),
            ("https://com/", Refusal::NotAName),
            ("https://good.example.com./", Refusal::NotAName),
            ("https://-a.example.com/", Refusal::NotAName),
            ("https://a..com/", Refusal::NotAName),
            ("https://a_b.example.com/", Refusal::NotAName),
        ] {
            assert_eq!(check(url, &[]).map(|_| ()), Err(why), "{url}");
        }
    }

    #[test]
    fn takes_public_names_and_keeps_path_and_query() {
        let target = check("https://Good.Example.com/.well-known/did.json?a=b", &[]).unwrap();
        assert_eq!(target.origin.as_str(), "https://good.example.com");
        assert_eq!(target.path_and_query, "/.well-known/did.json?a=b");
        assert!(!target.listed);
        assert_eq!(check("https://good.example.com", &[]).unwrap().path_and_query, "/");
        assert!(check("https://xn--bcher-kva.example.com:443/", &[]).is_ok());
    }

    #[test]
    fn a_listed_origin_passes_only_exactly() {
        let listed = ["http://localhost:2583", "https://10.0.0.7"];
        assert!(check("http://localhost:2583/x", &listed).unwrap().listed);
        assert!(check("https://10.0.0.7/x", &listed).unwrap().listed);
        for url in [
            "http://localhost:2584/",
            "https://localhost:2583/",
            "http://127.0.0.1:2583/",
            "http://10.0.0.7/",
        ] {
            assert!(check(url, &listed).is_err(), "{url}");
        }
        assert_eq!(check("http://me@localhost:2583/", &listed).map(|_| ()), Err(Refusal::UserInformation));
    }
}
