//! The service that signs PLC operations for owners.

use std::collections::BTreeMap;

use genkan_protocol::plc::{self, Data, Operation, Service};

use crate::accounts::{self, Account, CodeError, Emails};
use crate::base::{Clock, WaitingClient};
use crate::db::audit::{self, Actor};
use crate::db::{self, Db};
use crate::identity::{Directory, DirectoryError, HomeDocuments};
use crate::keys::Ring;
use crate::mail::Reason;

/// Why no operation was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Code(#[from] CodeError),
    /// Genkan has no key of the DID: its owner removed it, or the DID has a tombstone.
    #[error("Genkan may not change this DID")]
    NotOurs,
    /// The directory would refuse the operation.
    #[error("{0}")]
    Unfit(plc::Error),
    #[error("the PLC directory: {0}")]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Storage(#[from] db::Error),
}

/// The requested changes. The rest stays as in the last operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) rotation_keys: Option<Vec<String>>,
    pub(crate) also_known_as: Option<Vec<String>>,
    pub(crate) verification_methods: Option<BTreeMap<String, String>>,
    pub(crate) services: Option<BTreeMap<String, Service>>,
}

/// Signs PLC operations for accounts that move. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Moves {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) emails: Emails,
    pub(crate) ring: Ring,
    pub(crate) directory: Directory,
    pub(crate) home_documents: HomeDocuments,
}

impl Moves {
    /// Signs the next operation of an account's DID, authorized by a code from an email. Submits
    /// nothing. The code stays good if `client` does not wait for the operation.
    pub(crate) async fn sign(
        &self,
        account: &Account,
        changes: Changes,
        code: &str,
        actor: Actor<'_>,
        client: &WaitingClient,
    ) -> Result<Operation, Error> {
        let (did, now) = (account.did.as_str(), self.clock.now());
        // This only looks at the code. It is used up below, in the transaction that records the
        // signature.
        let checked = self.emails.check(&account.did, Reason::PlcOperation, code).await?;
        // Everything that can fail comes first: the code works only once.
        let last = match self.directory.log_last(&account.did).await {
            Ok(last) => last.ok_or(Error::NotOurs)?,
            Err(DirectoryError::Ended) => return Err(Error::NotOurs),
            Err(cause) => return Err(cause.into()),
        };
        let rotation = self.ring.rotation();
        let data = last.data().ok_or(Error::NotOurs)?;
        // The directory accepts operations only from keys in the last operation. The owner may have
        // removed Genkan's.
        if !data.rotation_keys.contains(&rotation.public().to_did_key()) {
            return Err(Error::NotOurs);
        }
        let data = changed(data, changes);
        data.check().map_err(Error::Unfit)?;
        let cid = last.cid();
        db::repeated(|| async {
            let mut tx = self.db.begin().await?;
            // The code could have been used by a parallel request since the check. Then this fails
            // and nothing is signed.
            checked.take(&mut tx).await?;
            // The audit record is committed before the operation leaves, so every signature is on
            // record.
            audit::record(&mut tx, now, actor, "plc.sign", did, &cid).await?;
            // The owner submits it from anywhere.
            self.home_documents.expect_change(&mut tx, &account.did).await?;
            accounts::note_change(&mut tx, &account.did).await?;
            Ok::<_, Error>(tx.commit_for(client).await?)
        })
        .await?;
        Ok(plc::update(&cid, data, rotation))
    }
}

fn changed(mut data: Data, changes: Changes) -> Data {
    if let Some(keys) = changes.rotation_keys {
        data.rotation_keys = keys;
    }
    if let Some(names) = changes.also_known_as {
        data.also_known_as = names;
    }
    if let Some(methods) = changes.verification_methods {
        data.verification_methods = methods;
    }
    if let Some(services) = changes.services {
        data.services = services;
    }
    data
}
