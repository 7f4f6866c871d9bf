//! Name look-ups in-process, so that the address that was checked is the one that is dialled.

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

/// Asks the configured name servers, or those of the machine.
#[derive(Clone)]
pub(crate) struct Dns {
    resolver: Arc<TokioResolver>,
}

/// How a look-up failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DnsError {
    /// The name servers know that there is nothing; asking again soon is of no use.
    #[error("the name has no such record")]
    NoRecord,
    /// Nobody answered, or with an error.
    #[error("name look-up failed: {0}")]
    Failed(Arc<str>),
}

impl Dns {
    /// `servers` empty: those of `/etc/resolv.conf`.
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

    /// Every address of `name`, IPv4 first.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let found = self.resolver.lookup_ip(absolute(name)?).await.map_err(|error| failed(&error))?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        if addresses.is_empty() { Err(DnsError::NoRecord) } else { Ok(addresses) }
    }

    /// The TXT records of `name`, the parts of each joined. Records that are not UTF-8 are left out.
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let found = self.resolver.txt_lookup(absolute(name)?).await.map_err(|error| failed(&error))?;
        let texts = found.answers().iter().filter_map(|record| match &record.data {
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

/// With the final dot: no search list of the machine is tried.
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
    options.timeout = Duration::from_secs(2);
    options.attempts = 1;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Strangers' names are looked up in the world, not in the machine's own table.
    options.use_hosts_file = ResolveHosts::Never;
    // Our own caches know when they may be passed by; one here would not.
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
