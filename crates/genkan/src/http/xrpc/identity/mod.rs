//! `com.atproto.identity.*`: handles, and PLC operations that Genkan signs.

pub(super) mod plc_operation;
pub(super) mod resolve_handle;
pub(super) mod update_handle;

use http::StatusCode;

use crate::http::answers::handle_taken;
use crate::wire::error::bad_request;
use crate::wire::{XrpcError, messages};
use crate::{moves, renames};

impl From<renames::Error> for XrpcError {
    fn from(error: renames::Error) -> Self {
        use renames::Error as E;
        match error {
            E::Handle(problem) => problem.into(),
            E::Taken => handle_taken(),
            E::UnderWay => {
                Self::unavailable("another change of this handle is in progress; try again in a moment")
            }
            E::NoAccount => bad_request("AccountNotFound", messages::ACCOUNT_NOT_FOUND),
            E::NotOurs => Self::invalid(
                "this server no longer controls the identity; change its handle with your own rotation key",
            ),
            E::Refused(_) => {
                let text = "the PLC directory refused the change, and nothing was changed";
                Self::new(StatusCode::BAD_GATEWAY, "UpstreamFailure", text).because(error)
            }
            E::Unfinished => Self::unavailable(
                "the PLC directory does not answer; the change is recorded and will be made later",
            ),
            E::Storage(cause) => cause.into(),
        }
    }
}

impl From<moves::Error> for XrpcError {
    fn from(error: moves::Error) -> Self {
        use moves::Error as E;
        match error {
            E::Code(cause) => cause.into(),
            E::NotOurs => Self::invalid(
                "this server no longer controls the identity; sign its operations with your own rotation key",
            ),
            E::Unfit(problem) => {
                Self::invalid(format!("the PLC directory would refuse this operation: {problem}"))
            }
            E::Directory(_) => {
                Self::unavailable("the PLC directory does not answer; the same code can be used again")
                    .because(error)
            }
            E::Storage(cause) => cause.into(),
        }
    }
}
