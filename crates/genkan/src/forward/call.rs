//! A call to forward. The edge creates it once, and every file of this room takes it.

use std::net::IpAddr;

use genkan_protocol::syntax::Did;
use http::HeaderValue;
use http::request::Parts;
use http1::Answerer;

use super::error::Error;
use super::proxied_service::{self, ATPROTO_PROXY, WebName};
use super::shares::Holder;
use crate::base::fetch::Names;
use crate::limits::ClientNetwork;
use crate::routing::{Handling, Route, Row};

/// A call to forward: what the edge has read from a request.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The row of the method in the routing table, which says what is special about the method.
    pub(crate) row: &'static Row,
    /// Where it goes, as far as the request alone shows, and the token that it presents.
    pub(crate) route: Route<'a>,
    /// The head of the request.
    pub(crate) request: &'a Parts,
    pub(crate) client: &'a Client,
}

/// The client that sent a call.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    /// The address as a header value, for hosts of the fleet.
    pub(crate) address: HeaderValue,
}

impl Client {
    /// Who holds the place of a call at a server: the account, if one is known.
    pub(super) fn holder<'a>(&self, account: Option<&'a Did>) -> Holder<'a> {
        account.map_or_else(|| Holder::Stranger(self.network()), Holder::Account)
    }

    pub(super) fn network(&self) -> ClientNetwork {
        ClientNetwork::of(self.ip)
    }
}

impl Call<'_> {
    /// Who answers the call, as far as the call shows.
    pub(super) fn answerer(&self) -> Answerer {
        // A PDS ignores the header for methods that it answers itself. One that does not could wait
        // for a server of the caller's choosing.
        let is_alone = self.row.handling == Handling::Alone;
        if is_alone && !self.request.headers.contains_key(ATPROTO_PROXY) {
            Answerer::Server
        } else {
            Answerer::Behind
        }
    }

    /// Refuses a call that its PDS would pass on to a service that no server of the operator may
    /// connect to, as far as its text tells. Returns the name that has to be looked up.
    pub(super) fn check_service(&self, names: &Names) -> Result<Option<WebName<'_>>, Error> {
        match self.row.handling {
            Handling::PassedOn | Handling::Addressed => {
                proxied_service::check(&self.request.headers, names).map_err(Error::BadService)
            }
            // The PDS ignores the header.
            Handling::Alone | Handling::Helped => Ok(None),
        }
    }

    /// Whether `atproto-proxy` reaches a host. A value that was not checked because the host ignores
    /// it is dropped, unless its name `is_known_public`: some host may be made differently.
    pub(super) fn passes_service(&self, names: &Names, is_known_public: impl Fn(&str) -> bool) -> bool {
        if matches!(self.row.handling, Handling::PassedOn | Handling::Addressed) {
            return true;
        }
        match proxied_service::check(&self.request.headers, names) {
            Ok(Some(WebName(name))) => is_known_public(name),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Whether `atproto-proxy` reaches an external PDS, which resolves the name by rules of its own.
    pub(super) fn passes_service_to_external(&self, names: &Names) -> bool {
        matches!(self.row.handling, Handling::PassedOn | Handling::Addressed)
            || proxied_service::check(&self.request.headers, names).is_ok()
    }

    /// Path and query, as received.
    pub(super) fn target(&self) -> &str {
        self.request.uri.path_and_query().map_or("/", |target| target.as_str())
    }
}
