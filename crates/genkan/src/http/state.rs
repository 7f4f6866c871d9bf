//! The state of the layers around every local answer, and of the handlers that need only that.

use std::sync::Arc;

use crate::accounts::AccountHosts;
use crate::base::Clock;
use crate::config::Config;
use crate::limits::RateLimits;
use crate::oauth::OAuth;
use crate::telemetry::metrics::Metrics;
use crate::wire::TrustedPeers;

/// The state of the layers and of the handlers without a room of their own. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HttpState {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) account_hosts: AccountHosts,
    pub(crate) limits: RateLimits,
    pub(crate) metrics: Metrics,
    pub(crate) trusted_peers: TrustedPeers,
    /// The source of nonces for answers to proofs.
    pub(crate) oauth: OAuth,
}
