//! The body of every session answer: `createAccount`, `createSession`, `refreshSession`,
//! `getSession`.

use genkan_protocol::did_document::DidDocument;
use genkan_protocol::plc;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::accounts::{Account, Standing};
use crate::app::App;
use crate::fleet::Host;
use crate::identity::HomeRecords;
use crate::sessions::SessionTokens;

/// The tokens, the account and its DID document.
///
/// Clients call the PDS that `didDoc` names from then on. So it is left out only while the document
/// names another PDS than the account's host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_jwt: Option<String>,
    handle: String,
    did: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    did_doc: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_confirmed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_auth_factor: Option<bool>,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

impl SessionAnswer {
    /// The answer with a new pair of tokens.
    pub(crate) async fn opened(app: &App, opened: SessionTokens) -> Self {
        let mut answer = Self::of(app, &opened.account).await;
        answer.access_jwt = Some(opened.tokens.access.expose().clone());
        answer.refresh_jwt = Some(opened.tokens.refresh.expose().clone());
        answer
    }

    /// The answer for an app that may not see the e-mail address.
    pub(crate) fn without_email(self) -> Self {
        Self { email: None, email_confirmed: None, email_auth_factor: None, ..self }
    }

    pub(crate) async fn of(app: &App, account: &Account) -> Self {
        let standing = account.standing();
        Self {
            access_jwt: None,
            refresh_jwt: None,
            handle: account.handle.to_string(),
            did: account.did.to_string(),
            did_doc: home_document(app, account).await,
            email: account.email.clone(),
            email_confirmed: Some(account.email_confirmed_at.is_some()),
            // Clients expect the member. Genkan has no second factor by e-mail.
            email_auth_factor: Some(false),
            active: standing == Standing::Active,
            status: standing.status(),
        }
    }
}

/// The account's DID document, if it names the account's home.
///
/// It comes from Genkan's copy. If there is none and the PLC directory does not answer in time, the
/// document is built from Genkan's own records.
async fn home_document(app: &App, account: &Account) -> Option<Box<RawValue>> {
    // Clients take the PDS from this document, so it must name the host that has the account now.
    let host = app.fleet.host(&account.host)?;
    let records = HomeRecords {
        did: &account.did,
        handle: &account.handle,
        host: &host.origin,
        host_key: &account.host_key,
        is_active: account.standing() == Standing::Active,
    };
    match app.home_documents.find(records).await {
        Ok(document) if document.facts.pds.as_ref() == Ok(&host.origin) => Some(document.text.clone()),
        Ok(_) => None,
        // The directory says that the DID no longer exists. A document of Genkan's own would
        // contradict it.
        Err(cause) if !cause.is_passing() => None,
        Err(_) => to_raw_value(&by_our_records(account, &host)).ok(),
    }
}

fn by_our_records(account: &Account, host: &Host) -> DidDocument {
    let data = plc::Data::of_account(Vec::new(), &account.host_key, &account.handle, host.origin.as_str());
    DidDocument::of_plc_data(&account.did, &data)
}
