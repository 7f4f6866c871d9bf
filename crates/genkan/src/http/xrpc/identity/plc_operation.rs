//! `com.atproto.identity.requestPlcOperationSignature`, `signPlcOperation`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use genkan_protocol::plc::{Operation, Service};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::http::XrpcInput;
use crate::http::caller::Caller;
use crate::http::deadline::Waiting;
use crate::http::language::language;
use crate::http::method::method;
use crate::limits::{Limit, code_for};
use crate::mail::Reason;
use crate::moves::Changes;
use crate::wire::error::XrpcError;

method!(RequestPlcOperationSignature, "com.atproto.identity.requestPlcOperationSignature");
method!(SignPlcOperation, "com.atproto.identity.signPlcOperation");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignInput {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    rotation_keys: Option<Vec<String>>,
    #[serde(default)]
    also_known_as: Option<Vec<String>>,
    #[serde(default)]
    verification_methods: Option<BTreeMap<String, String>>,
    #[serde(default)]
    services: Option<BTreeMap<String, Service>>,
}

#[derive(Serialize)]
pub(crate) struct SignOutput {
    operation: Operation,
}

pub(crate) async fn request_plc_operation_signature(
    State(app): State<App>,
    caller: Caller<RequestPlcOperationSignature>,
    headers: HeaderMap,
) -> Result<(), XrpcError> {
    let key = code_for(Reason::PlcOperation.as_str(), caller.account.did.as_str());
    app.count_attempt(Limit::RequestMail, &key).await?;
    Ok(app.emails.send_code(&caller.account, Reason::PlcOperation, language(&headers)).await?)
}

/// Signs an operation. The client submits it.
pub(crate) async fn sign_plc_operation(
    State(app): State<App>,
    caller: Caller<SignPlcOperation>,
    Waiting(client): Waiting,
    XrpcInput(input): XrpcInput<SignInput>,
) -> Result<Json<SignOutput>, XrpcError> {
    let Some(token) = input.token.filter(|token| !token.is_empty()) else {
        return Err(XrpcError::invalid("email confirmation token required to sign PLC operations"));
    };
    let changes = Changes {
        rotation_keys: input.rotation_keys,
        also_known_as: input.also_known_as,
        verification_methods: input.verification_methods,
        services: input.services,
    };
    let operation = app.moves.sign(&caller.account, changes, &token, caller.actor(), &client).await?;
    Ok(Json(SignOutput { operation }))
}
