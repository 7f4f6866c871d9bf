//! `com.atproto.identity.*`: handles, as far as Genkan answers for them, and operations that Genkan signs.

pub(super) mod plc_operation;
pub(super) mod resolve_handle;
pub(super) mod update_handle;

use http::StatusCode;

use crate::http::answers::handle_taken;
use crate::wire::error::{XrpcError, bad_request};
use crate::{moves, renames};

impl From<renames::Error> for XrpcError {
    fn from(error: renames::Error) -> Self {
        use renames::Error as E;
        match error {
            E::Handle(problem) => problem.into(),
            E::Taken => handle_taken(),
            E::UnderWay => {
                Self::unavailable("Another change of this handle is under way, try again in a moment")
            }
            E::NoAccount => bad_request("AccountNotFound", "Account not found"),
            E::NotOurs => Self::invalid(
                "This identity was taken out of our hands: change its handle with its own rotation key",
            ),
            E::Refused(_) => {
                let text = "The PLC directory refused the change; nothing was changed";
                Self::new(StatusCode::BAD_GATEWAY, "UpstreamFailure", text).because(error)
            }
            E::Unfinished => Self::unavailable(
                "The PLC directory does not answer; the change is recorded and will be made",
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
                "This identity was taken out of our hands: sign its operations with its own rotation key",
            ),
            E::Unfit(problem) => Self::invalid(format!("The PLC directory would refuse this: {problem}")),
            E::Directory(_) => {
                Self::unavailable("The PLC directory does not answer; the same code is still good")
                    .because(error)
            }
            E::Storage(cause) => cause.into(),
        }
    }
}
