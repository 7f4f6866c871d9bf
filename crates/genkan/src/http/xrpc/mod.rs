//! The XRPC methods that Genkan answers itself. `com.atproto.server.createSession` is
//! `server/create_session.rs`, and so on.

mod admin;
mod identity;
mod server;
mod temp;

use axum::Router;

use super::{procedure, query};
use crate::app::App;

/// One line per method.
pub(crate) fn routes(app: &App) -> Router {
    let sessions = Router::new()
        .route("/xrpc/com.atproto.server.createAccount", procedure(server::create_account::create_account))
        .route("/xrpc/com.atproto.server.createSession", procedure(server::create_session::create_session))
        .route("/xrpc/com.atproto.server.getSession", query(server::get_session::get_session))
        .route("/xrpc/com.atproto.server.refreshSession", procedure(server::refresh_session::refresh_session))
        .route("/xrpc/com.atproto.server.deleteSession", procedure(server::delete_session::delete_session))
        .route("/xrpc/com.atproto.server.activateAccount", procedure(server::activation::activate_account))
        .route(
            "/xrpc/com.atproto.server.deactivateAccount",
            procedure(server::activation::deactivate_account),
        )
        .route(
            "/xrpc/com.atproto.server.createAppPassword",
            procedure(server::app_passwords::create_app_password),
        )
        .route("/xrpc/com.atproto.server.listAppPasswords", query(server::app_passwords::list_app_passwords))
        .route(
            "/xrpc/com.atproto.server.revokeAppPassword",
            procedure(server::app_passwords::revoke_app_password),
        )
        .route(
            "/xrpc/com.atproto.server.createInviteCode",
            procedure(server::invite_codes::create_invite_code),
        )
        .route(
            "/xrpc/com.atproto.server.createInviteCodes",
            procedure(server::invite_codes::create_invite_codes),
        )
        .route(
            "/xrpc/com.atproto.server.getAccountInviteCodes",
            query(server::invite_codes::get_account_invite_codes),
        );
    let by_mail = Router::new()
        .route(
            "/xrpc/com.atproto.server.requestEmailConfirmation",
            procedure(server::email_confirmation::request_email_confirmation),
        )
        .route("/xrpc/com.atproto.server.confirmEmail", procedure(server::email_confirmation::confirm_email))
        .route(
            "/xrpc/com.atproto.server.requestEmailUpdate",
            procedure(server::email_update::request_email_update),
        )
        .route("/xrpc/com.atproto.server.updateEmail", procedure(server::email_update::update_email))
        .route(
            "/xrpc/com.atproto.server.requestPasswordReset",
            procedure(server::password_reset::request_password_reset),
        )
        .route("/xrpc/com.atproto.server.resetPassword", procedure(server::password_reset::reset_password))
        .route(
            "/xrpc/com.atproto.server.requestAccountDelete",
            procedure(server::account_deletion::request_account_delete),
        )
        .route("/xrpc/com.atproto.server.deleteAccount", procedure(server::account_deletion::delete_account))
        .route(
            "/xrpc/com.atproto.identity.requestPlcOperationSignature",
            procedure(identity::plc_operation::request_plc_operation_signature),
        )
        .route(
            "/xrpc/com.atproto.identity.signPlcOperation",
            procedure(identity::plc_operation::sign_plc_operation),
        )
        .route("/xrpc/com.atproto.admin.sendEmail", procedure(admin::send_email::send_email));
    let identity = Router::new()
        .route("/xrpc/com.atproto.identity.resolveHandle", query(identity::resolve_handle::resolve_handle))
        .route("/xrpc/com.atproto.identity.updateHandle", procedure(identity::update_handle::update_handle));
    let admin = Router::new()
        .route("/xrpc/com.atproto.admin.getAccountInfo", query(admin::accounts::get_account_info))
        .route("/xrpc/com.atproto.admin.getAccountInfos", query(admin::accounts::get_account_infos))
        .route("/xrpc/com.atproto.admin.updateAccountEmail", procedure(admin::accounts::update_account_email))
        .route(
            "/xrpc/com.atproto.admin.updateAccountPassword",
            procedure(admin::accounts::update_account_password),
        )
        .route("/xrpc/com.atproto.admin.deleteAccount", procedure(admin::accounts::delete_account))
        .route(
            "/xrpc/com.atproto.admin.updateSubjectStatus",
            procedure(admin::subject_status::update_subject_status),
        )
        .route("/xrpc/com.atproto.admin.disableInviteCodes", procedure(admin::invites::disable_invite_codes))
        .route("/xrpc/com.atproto.admin.getInviteCodes", query(admin::invites::get_invite_codes));
    let temp = Router::new()
        .route("/xrpc/com.atproto.temp.checkSignupQueue", query(temp::check_signup_queue::check_signup_queue))
        .route(
            "/xrpc/com.atproto.temp.checkHandleAvailability",
            query(temp::check_handle_availability::check_handle_availability),
        )
        .route("/xrpc/com.atproto.temp.dereferenceScope", query(temp::dereference_scope::dereference_scope));
    sessions.merge(by_mail).merge(identity).merge(admin).merge(temp).with_state(app.clone())
}
