//! The names by which places are shared.

/// Whom a call goes to: a host and port, and the registrable name above the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::base::fetch) struct Server {
    pub(super) host: Box<str>,
    pub(super) name: Box<str>,
}

impl Server {
    pub(in crate::base::fetch) fn new(host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase();
        let name = registrable(&host);
        // An address, or a name of one label. The operator listed it, and each port is a server of
        // its own.
        let name = if name.len() == host.len() && is_listed(&host) {
            format!("{host}:{port}")
        } else {
            name.to_owned()
        };
        Self { host: format!("{host}:{port}").into(), name: name.into() }
    }
}

fn is_listed(host: &str) -> bool {
    host.starts_with('[') || !host.contains('.') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Returns the part of a host's name that its owner paid for, or a longer part that several owners
/// share.
///
/// It is the last two labels, or three under a country's second level such as `co.uk`. A list of
/// public suffixes would also part the customers of `github.io` and the like, but there an attacker
/// gets any number of names for nothing. They share one share.
fn registrable(host: &str) -> &str {
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return host;
    }
    let mut dots = host.rmatch_indices('.').map(|(index, _)| index);
    let (Some(last), Some(second)) = (dots.next(), dots.next()) else { return host };
    let (top, below) = (&host[last + 1..], &host[second + 1..last]);
    let is_second_level = top.len() == 2 && SECOND_LEVEL.contains(&below);
    match (is_second_level, dots.next()) {
        (true, Some(third)) => &host[third + 1..],
        (true, None) => host,
        (false, _) => &host[second + 1..],
    }
}

/// Labels under which countries register names.
const SECOND_LEVEL: &[&str] = &[
    "ac", "co", "com", "edu", "gob", "gov", "gv", "id", "ltd", "me", "mil", "ne", "net", "nom", "or", "org",
    "plc", "sch",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains_share_the_name_that_was_registered() {
        for (host, name) in [
            ("example.com", "example.com"),
            ("a.example.com", "example.com"),
            ("b.a.Example.com", "example.com"),
            ("a.example.co.uk", "example.co.uk"),
            ("example.co.uk", "example.co.uk"),
            ("co.uk", "co.uk"),
            ("a.example.uk", "example.uk"),
            ("a.b.workers.dev", "workers.dev"),
            ("com.example.dev", "example.dev"),
            ("localhost", "localhost:443"),
            ("127.0.0.1", "127.0.0.1:443"),
            ("[::1]", "[::1]:443"),
        ] {
            assert_eq!(&*Server::new(host, 443).name, name, "{host}");
        }
        assert_eq!(&*Server::new("Example.com", 443).host, "example.com:443");
    }
}
