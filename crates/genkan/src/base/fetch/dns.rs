//! DNS lookups in this process, so that connections go to exactly the address that was checked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};

/// A resolver that asks the configured DNS servers, or those of the machine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dns {
    resolver: Arc<TokioResolver>,
}

/// Why a lookup failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DnsError {
    /// The DNS servers answered that there is no such record. Asking again soon does not help.
    #[error("the name has no such record")]
    NoRecord,
    /// No server answered, or one answered with an error.
    #[error("name lookup failed: {0}")]
    Failed(Arc<str>),
}

impl Dns {
    /// Makes a resolver. Without `servers` it asks those in `/etc/resolv.conf`.
    pub(crate) fn new(servers: &[SocketAddr]) -> Result<Self, DnsError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| failed(&error))?
        } else {
            let servers = servers.iter().map(|server| name_server(*server)).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        set_options(builder.options_mut());
        let resolver = builder.build().map_err(|error| failed(&error))?;
        Ok(Self { resolver: Arc::new(resolver) })
    }

    /// Returns every address of `name`, IPv4 first.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let found = self.resolver.lookup_ip(absolute(name)?).await.map_err(|error| failed(&error))?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        // IPv4 first: a machine without IPv6 would fail on the other addresses before it reaches
        // these.
        addresses.sort_by_key(IpAddr::is_ipv6);
        if addresses.is_empty() { Err(DnsError::NoRecord) } else { Ok(addresses) }
    }

    /// Returns the TXT records of `name`, the parts of each joined. Skips those that are not UTF-8.
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let found = self.resolver.txt_lookup(absolute(name)?).await.map_err(|error| failed(&error))?;
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            // A TXT record is a list of strings of up to 255 bytes each. Long values continue in
            // the next one (RFC 1035 §3.3.14).
            RData::TXT(text) => String::from_utf8(text.txt_data.concat()).ok(),
            _ => None,
        });
        Ok(texts.collect())
    }
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// Makes the name absolute, so that the search list of the machine is not tried.
fn absolute(name: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(name).map_err(|_| DnsError::NoRecord)?;
    name.set_fqdn(true);
    Ok(name)
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    NameServerConfig::new(server.ip(), true, connections)
}

fn set_options(options: &mut ResolverOpts) {
    // Short, since the callers limit the lookup as a whole.
    options.timeout = Duration::from_secs(2);
    options.attempts = 1;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // An external name must not resolve to what the machine's own table says.
    options.use_hosts_file = ResolveHosts::Never;
    // The caches above know when a caller needs a fresh answer. A cache here would not.
    options.cache_size = 0;
}

fn failed(error: &NetError) -> DnsError {
    if error.is_no_records_found() { DnsError::NoRecord } else { DnsError::Failed(error.to_string().into()) }
}

#[cfg(test)]
mod tests {
    use super::super::test_dns::{Reply, TestDns};
    use super::*;

    #[tokio::test]
    async fn joins_the_parts_of_a_text_record_and_tells_nothing_from_failing() {
        let server = TestDns::start(|name, _| match name {
            "_atproto.alice.example.com." => Reply::texts(&[&["did=", "did:plc:abc"], &["other"]]),
            "broken.example.com." => Reply::ServerFailure,
            _ => Reply::NoSuchName,
        })
        .await;
        let dns = Dns::new(&[server.address()]).unwrap();
        assert_eq!(dns.texts("_atproto.alice.example.com").await.unwrap(), ["did=did:plc:abc", "other"]);
        assert_eq!(dns.texts("none.example.com").await, Err(DnsError::NoRecord));
        assert!(matches!(dns.texts("broken.example.com").await, Err(DnsError::Failed(_))));
        assert_eq!(dns.addresses("none.example.com").await, Err(DnsError::NoRecord));
    }

    #[tokio::test]
    async fn remembers_nothing_by_itself() {
        let server = TestDns::start(|_, count| {
            Reply::addresses(&[["192.0.2.1", "192.0.2.2"][usize::from(count > 2)]])
        })
        .await;
        let dns = Dns::new(&[server.address()]).unwrap();
        let first = dns.addresses("a.example.com").await.unwrap();
        let second = dns.addresses("a.example.com").await.unwrap();
        assert_ne!(first, second);
    }
}
