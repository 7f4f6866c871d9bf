//! `com.atproto.admin.updateSubjectStatus` for whole accounts. Calls for records and blobs go to
//! the host.

use axum::Json;
use axum::extract::State;
use genkan_protocol::syntax::Did;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::db::audit::Actor;
use crate::http::XrpcInput;
use crate::http::admin_auth::Operator;
use crate::http::method::method;
use crate::standing::{self, Deletion};
use crate::wire::error::XrpcError;

method!(UpdateSubjectStatus, "com.atproto.admin.updateSubjectStatus");

#[derive(Deserialize)]
pub(crate) struct Input {
    subject: Value,
    takedown: Option<Attribute>,
    deactivated: Option<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    applied: bool,
    r#ref: Option<String>,
}

pub(crate) async fn update_subject_status(
    State(app): State<App>,
    _: Operator<UpdateSubjectStatus>,
    XrpcInput(input): XrpcInput<Input>,
) -> Result<Json<Value>, XrpcError> {
    let field = |name: &str| input.subject.get(name).and_then(Value::as_str);
    let (Some("com.atproto.admin.defs#repoRef"), Some(did)) = (field("$type"), field("did")) else {
        let text = "Only whole accounts here (com.atproto.admin.defs#repoRef); call the account's host for records and blobs";
        return Err(XrpcError::invalid(text));
    };
    let takedown = input.takedown.as_ref();
    let deactivated = input.deactivated.as_ref();
    if takedown.is_some_and(|it| it.applied) && deactivated.is_some_and(|it| !it.applied) {
        return Err(XrpcError::invalid("an account cannot be taken down and activated at once"));
    }
    // The DID is parsed only if the call changes something. An invalid DID is then an account that
    // does not exist.
    let account = || did.parse::<Did>().map_err(|_| XrpcError::from(standing::Error::NotFound));
    if let Some(takedown) = takedown {
        let did = &account()?;
        if takedown.applied {
            let reference = takedown.r#ref.clone().unwrap_or_else(|| app.clock.now().rfc3339());
            app.standings.take_down(did, &reference, Actor::Operator).await?;
        } else {
            app.standings.restore(did, Actor::Operator).await?;
        }
    }
    if let Some(deactivated) = deactivated {
        let did = &account()?;
        if deactivated.applied {
            app.standings.deactivate(did, Deletion::AsBefore, Actor::Operator).await?;
        } else {
            app.standings.activate(did, Actor::Operator).await?;
        }
    }
    // The answer repeats the subject of the request, as the lexicon demands.
    let mut answer = json!({ "subject": input.subject });
    if let (Some(takedown), Some(object)) = (takedown, answer.as_object_mut()) {
        let mut told = json!({ "applied": takedown.applied });
        // Clients that check answers against the lexicon refuse `null`, so a missing reference is
        // left out.
        if let (Some(reference), Some(told)) = (&takedown.r#ref, told.as_object_mut()) {
            told.insert("ref".to_owned(), json!(reference));
        }
        object.insert("takedown".to_owned(), told);
    }
    Ok(Json(answer))
}
