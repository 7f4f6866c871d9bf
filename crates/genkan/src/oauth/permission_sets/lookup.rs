//! The lookup of a permission set: from its name to the verified record.

use genkan_protocol::oauth::permission_set::PermissionSet;
use genkan_protocol::repo_proof;
use genkan_protocol::syntax::{Did, Nsid};
use http::header::ACCEPT;
use http::{Request, StatusCode};
use http_body_util::Full;

use super::{CAR, COLLECTION, PermissionSets, Stranger, TOTAL};
use crate::base::Origin;
use crate::base::fetch::{self, DnsError, GuardedClient, GuardedError, Limits, TextsError};
use crate::identity::Freshness;

impl PermissionSets {
    /// Looks a set up and verifies its record.
    pub(super) async fn look_up(
        &self,
        nsid: &Nsid,
        stranger: Option<Stranger>,
    ) -> Result<String, LookUpError> {
        let guarded = match stranger {
            Some(stranger) => self.inner.guarded.caused_by(stranger.network),
            None => self.inner.guarded.clone(),
        };
        let did = authority(&guarded, nsid).await?;
        let document = self.inner.documents.resolve(&did, Freshness::Remembered).await;
        let document = document.map_err(|error| format!("its authority {did}: {error}"))?;
        let host = document.pds.clone().map_err(|error| format!("its authority {did}: {error}"))?;
        let key =
            document.signing_key.clone().ok_or_else(|| format!("its authority {did} has no signing key"))?;
        let url =
            format!("{host}/xrpc/com.atproto.sync.getRecord?did={did}&collection={COLLECTION}&rkey={nsid}");
        let answer = self.record_at(&host, &url, &guarded).await?;
        if answer.status != StatusCode::OK {
            return Err(format!("its authority's host answered {}", answer.status.as_u16()).into());
        }
        // The authority's signature proves the record, so the server that sends it need not be
        // trusted.
        let record = repo_proof::verify_record(&answer.body, &did, &key, COLLECTION, nsid.as_str())
            .map_err(|error| error.to_string())?;
        // Only a record that parses is stored. A broken new version does not replace the last good
        // copy.
        PermissionSet::parse(&record, nsid).map_err(|error| error.to_string())?;
        Ok(record.to_string())
    }

    /// Asks the authority's host for the record.
    async fn record_at(
        &self,
        host: &Origin,
        url: &str,
        guarded: &GuardedClient,
    ) -> Result<fetch::Answer, LookUpError> {
        let limits = Limits { total: TOTAL, ..Limits::DOCUMENT };
        // A host of the fleet is asked where Genkan always reaches it. From here its public address
        // may lead nowhere, or through Genkan's own door.
        if self.inner.fleet.all().iter().any(|own| own.origin == *host) {
            let request = Request::get(url).header(ACCEPT, CAR).body(Full::default());
            let request = request.map_err(|_| "its authority's host has no usable address")?;
            let answer = self.inner.unguarded.send(request, limits.total, limits.body_bytes).await;
            return answer.map_err(|error| format!("its authority's host: {error}").into());
        }
        guarded.get(url, CAR, &limits).await.map_err(|error| match error {
            GuardedError::Busy => LookUpError::Busy,
            error => format!("its authority's host: {error}").into(),
        })
    }
}

/// Finds the DID with authority over a name. Its TXT record is under the name without its last part,
/// reversed.
async fn authority(guarded: &GuardedClient, nsid: &Nsid) -> Result<Did, LookUpError> {
    let mut parts: Vec<&str> = nsid.as_str().split('.').collect();
    parts.pop();
    parts.reverse();
    let name = format!("_lexicon.{}", parts.join("."));
    let texts = guarded.texts(&name, TOTAL / 2).await.map_err(|error| match error {
        TextsError::Dns(DnsError::NoRecord) => format!("{name} has no TXT record").into(),
        TextsError::Dns(DnsError::Failed(_)) => format!("{name} could not be looked up").into(),
        TextsError::Busy => LookUpError::Busy,
    })?;
    let mut named = texts.iter().filter_map(|text| text.strip_prefix("did="));
    // With two different answers, chance would decide who has authority over the name.
    match (named.next(), named.next()) {
        (Some(did), None) => did.trim().parse().map_err(|_| format!("{name} names no DID").into()),
        (None, _) => Err(format!("{name} has no TXT record \"did=…\"").into()),
        (Some(_), Some(_)) => Err(format!("{name} names several DIDs").into()),
    }
}

/// Why a lookup has no document.
pub(super) enum LookUpError {
    /// Too many external servers are being asked.
    Busy,
    /// In words for the app's developer.
    Because(String),
}

impl From<String> for LookUpError {
    fn from(why: String) -> Self {
        Self::Because(why)
    }
}

impl From<&str> for LookUpError {
    fn from(why: &str) -> Self {
        Self::Because(why.to_owned())
    }
}
