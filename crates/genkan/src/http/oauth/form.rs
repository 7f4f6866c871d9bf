//! The form that a client posts.

use axum::extract::{FromRequest, Request};
use genkan_protocol::oauth::request::Form;
use http::StatusCode;
use http::header::CONTENT_ENCODING;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::error::Refusal;
use crate::wire::{media_type, messages};

/// A posted form, in which each parameter appears once.
#[derive(Debug)]
pub(super) struct PostedForm(pub(super) Form);

impl<S: Send + Sync> FromRequest<S> for PostedForm {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        // A compressed body would need a second bound for its unpacked size.
        if !media_type::is(request.headers(), FORM) || request.headers().contains_key(CONTENT_ENCODING) {
            let why = format!("Content-Type must be {FORM}, without a Content-Encoding");
            return Err(Refusal::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", why));
        }
        let body = match Limited::new(request.into_body(), LONGEST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let why = format!("the request body must not exceed {LONGEST} bytes");
                return Err(Refusal::of(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", why));
            }
            Err(_) => {
                return Err(Refusal::of(
                    StatusCode::BAD_REQUEST,
                    "invalid_request",
                    messages::TRUNCATED_BODY,
                ));
            }
        };
        Ok(Self(Form::parse(&body)?))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const LONGEST: usize = 64 * 1024;
