//! The operator's rules for handles.

use std::collections::HashSet;

use genkan_protocol::syntax::{Did, Handle};

use super::reserved::RESERVED;
use super::{Error, Freshness, Handles};

/// The rules by which Genkan gives out handles.
#[derive(Clone, Debug)]
pub(crate) struct HandlePolicy {
    /// The handle domains, each with its leading dot.
    domains: Vec<String>,
    reserved: HashSet<String>,
    /// On a development network, custom handles under `.test` are accepted.
    development: bool,
}

/// The kind of domain that a handle is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleKind {
    /// A handle domain of this service, which gives the handle out.
    Service,
    /// The owner's domain. The handle has to lead to the owner's DID.
    Custom,
}

/// Why a handle is refused. The texts go to clients, which match some of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    /// `InvalidHandle`
    #[error("{0}")]
    Invalid(&'static str),
    /// `HandleNotAvailable`
    #[error("Reserved handle")]
    Reserved,
    /// `UnsupportedDomain`
    #[error("Not a supported handle domain")]
    UnsupportedDomain,
    /// `InvalidHandle`: a custom handle that does not resolve, or resolves to another DID.
    #[error("External handle did not resolve to DID")]
    DoesNotLeadHere,
    /// The handle could not be looked up (503).
    #[error("the handle could not be resolved just now")]
    Passing(Error),
}

/// Whether a name is one that Genkan gives out: one label under one of its domains, each with its
/// leading dot.
///
/// A name with more labels may belong to another server.
pub(crate) fn is_given_out(domains: &[String], name: &str) -> bool {
    domains.iter().any(|domain| {
        name.strip_suffix(domain.as_str()).is_some_and(|label| !label.is_empty() && !label.contains('.'))
    })
}

impl HandlePolicy {
    /// Creates the rules. `reserved` is the operator's own list, in addition to the built-in one.
    pub(crate) fn new(domains: Vec<String>, reserved: &[String], development: bool) -> Self {
        let built_in = RESERVED.split_ascii_whitespace().map(str::to_owned);
        let own = reserved.iter().map(|name| name.trim().to_ascii_lowercase());
        Self { domains, reserved: built_in.chain(own).collect(), development }
    }

    /// Whether the handle is under one of Genkan's domains.
    pub(crate) fn is_service_handle(&self, handle: &Handle) -> bool {
        is_given_out(&self.domains, handle.as_str())
    }

    /// Judges a handle for a new account, which must be under one of Genkan's domains.
    pub(crate) fn for_sign_up(&self, typed: &str) -> Result<Handle, PolicyError> {
        match self.judge(typed)? {
            (handle, HandleKind::Service) => Ok(handle),
            (_, HandleKind::Custom) => Err(PolicyError::UnsupportedDomain),
        }
    }

    /// Judges a handle by its text alone, without a lookup.
    pub(crate) fn judge(&self, typed: &str) -> Result<(Handle, HandleKind), PolicyError> {
        let handle: Handle = typed.trim().parse().map_err(|_| PolicyError::Invalid("Invalid handle"))?;
        if let Some(label) = self.label(&handle) {
            self.check_label(label)?;
            return Ok((handle, HandleKind::Service));
        }
        // The bare domain is the operator's.
        if self.domains.iter().any(|domain| domain.trim_start_matches('.') == handle.as_str()) {
            return Err(PolicyError::Reserved);
        }
        if handle.has_disallowed_tld() || (handle.is_test() && !self.development) {
            return Err(PolicyError::Invalid("Handle TLD is invalid or disallowed"));
        }
        Ok((handle, HandleKind::Custom))
    }

    /// Judges a handle for the account `did`. A custom handle is resolved now.
    pub(crate) async fn for_account(
        &self,
        typed: &str,
        did: &Did,
        handles: &Handles,
    ) -> Result<(Handle, HandleKind), PolicyError> {
        let (handle, kind) = self.judge(typed)?;
        if kind == HandleKind::Custom {
            // Resolved now and not from the cache: the owner has usually set the record up a moment
            // ago.
            match handles.resolve(&handle, Freshness::Asked).await {
                Ok(found) if found == *did => {}
                Err(error) if error.is_passing() => return Err(PolicyError::Passing(error)),
                Ok(_) | Err(_) => return Err(PolicyError::DoesNotLeadHere),
            }
        }
        Ok((handle, kind))
    }

    /// Returns the part before the longest matching handle domain.
    fn label<'a>(&self, handle: &'a Handle) -> Option<&'a str> {
        let labels = self.domains.iter().filter_map(|domain| handle.as_str().strip_suffix(domain.as_str()));
        // The shortest label belongs to the longest domain.
        labels.min_by_key(|label| label.len())
    }

    fn check_label(&self, label: &str) -> Result<(), PolicyError> {
        if label.contains('.') {
            return Err(PolicyError::Invalid("Invalid characters in handle"));
        }
        if label.len() < MIN_LABEL {
            return Err(PolicyError::Invalid("Handle too short"));
        }
        if label.len() > MAX_LABEL {
            return Err(PolicyError::Invalid("Handle too long"));
        }
        if self.reserved.contains(label) {
            return Err(PolicyError::Reserved);
        }
        Ok(())
    }
}

/// The lengths that hosts accept in `com.atproto.admin.updateAccountHandle`.
const MIN_LABEL: usize = 3;
const MAX_LABEL: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Clock;
    use crate::base::fetch::test_dns::{Reply, TestDns};
    use crate::base::fetch::{Dns, GuardedClient, tls};

    fn policy(development: bool) -> HandlePolicy {
        let domains = [".example.com", ".people.example.com", ".example.net", ".test"];
        HandlePolicy::new(domains.map(str::to_owned).to_vec(), &["Acme".to_owned()], development)
    }

    #[test]
    fn service_handles_have_one_part_of_fitting_length() {
        use PolicyError as P;
        for (typed, expected) in [
            ("alice.example.com", Ok(())),
            ("ALICE.Example.Com", Ok(())),
            (" alice.example.net ", Ok(())),
            ("abc.test", Ok(())),
            ("alice.people.example.com", Ok(())),
            ("a-very-long-name-1.test", Ok(())),
            ("a-very-long-name-12.test", Err(P::Invalid("Handle too long"))),
            ("al.example.com", Err(P::Invalid("Handle too short"))),
            ("a.lice.example.com", Err(P::Invalid("Invalid characters in handle"))),
            ("al_ice.example.com", Err(P::Invalid("Invalid handle"))),
            ("alice", Err(P::Invalid("Invalid handle"))),
            ("", Err(P::Invalid("Invalid handle"))),
            ("admin.example.com", Err(P::Reserved)),
            ("www.example.net", Err(P::Reserved)),
            ("acme.test", Err(P::Reserved)),
            ("example.com", Err(P::Reserved)),
            ("alice.example.org", Err(P::UnsupportedDomain)),
            ("alice.notexample.com", Err(P::UnsupportedDomain)),
            ("alice.local", Err(P::Invalid("Handle TLD is invalid or disallowed"))),
        ] {
            assert_eq!(policy(false).for_sign_up(typed).map(|_| ()), expected, "{typed}");
        }
    }

    #[tokio::test]
    async fn a_custom_handle_has_to_lead_to_its_account() {
        let dns = TestDns::start(|name, _| match name {
            "_atproto.mine.example.org." => Reply::texts(&[&["did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"]]),
            "_atproto.theirs.example.org." => Reply::texts(&[&["did=did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"]]),
            "_atproto.down.example.org." => Reply::ServerFailure,
            _ => Reply::NoSuchName,
        })
        .await;
        let dns = Dns::new(&[dns.address()]).unwrap();
        let guarded = GuardedClient::new(dns, tls::client_config(None).unwrap(), Vec::new());
        let handles = Handles::new(&guarded, Clock::of_process(), std::time::Duration::from_secs(5));
        let me = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
        let policy = policy(false);
        let ask = async |typed: &str| policy.for_account(typed, &me, &handles).await.map(|(_, kind)| kind);
        assert_eq!(ask("mine.example.org").await, Ok(HandleKind::Custom));
        assert_eq!(ask("theirs.example.org").await, Err(PolicyError::DoesNotLeadHere));
        assert_eq!(ask("nobody.example.org").await, Err(PolicyError::DoesNotLeadHere));
        assert!(matches!(ask("down.example.org").await, Err(PolicyError::Passing(_))));
        assert_eq!(ask("alice.example.com").await, Ok(HandleKind::Service));
    }

    #[test]
    fn the_built_in_names_are_names() {
        let names: Vec<&str> = RESERVED.split_ascii_whitespace().collect();
        assert!(names.len() >= 200, "{}", names.len());
        for name in &names {
            assert!((MIN_LABEL..=MAX_LABEL).contains(&name.len()), "{name} could not be given out anyway");
            assert!(format!("{name}.example.com").parse::<Handle>().is_ok(), "{name}");
        }
        let distinct: HashSet<&&str> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "a name is there twice");
    }
}
