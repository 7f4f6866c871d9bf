//! The XRPC methods that Genkan answers.
//!
//! The handler of `com.atproto.server.createSession` is in `server/create_session.rs`, and so on.
//! To add a method: a row in `routing/table.rs`; a handler here, which declares the method's type
//! with `method!`; and its line below.

mod admin;
mod identity;
mod server;
mod temp;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::middleware::from_fn_with_state;

use super::deadline::{ANSWER_WITHIN, answer_in_time};
use super::methods::Methods;
use crate::app::App;

pub(crate) fn routes(app: &App) -> Router {
    let in_time = from_fn_with_state(ANSWER_WITHIN, answer_in_time);
    methods().refuse_unanswered().with_state(app.clone()).layer(in_time)
}

/// One line per method.
fn methods() -> Methods<App> {
    Methods::new()
        .answer(server::create_account::CreateAccount, server::create_account::create_account)
        .answer(server::create_session::CreateSession, server::create_session::create_session)
        .answer(server::get_session::GetSession, server::get_session::get_session)
        .answer(server::refresh_session::RefreshSession, server::refresh_session::refresh_session)
        .answer(server::delete_session::DeleteSession, server::delete_session::delete_session)
        .answer(server::activation::ActivateAccount, server::activation::activate_account)
        .answer(server::activation::DeactivateAccount, server::activation::deactivate_account)
        .answer(server::app_passwords::CreateAppPassword, server::app_passwords::create_app_password)
        .answer(server::app_passwords::ListAppPasswords, server::app_passwords::list_app_passwords)
        .answer(server::app_passwords::RevokeAppPassword, server::app_passwords::revoke_app_password)
        .answer(server::invite_codes::CreateInviteCode, server::invite_codes::create_invite_code)
        .answer(server::invite_codes::CreateInviteCodes, server::invite_codes::create_invite_codes)
        .answer(server::invite_codes::GetAccountInviteCodes, server::invite_codes::get_account_invite_codes)
        .answer(
            server::email_confirmation::RequestEmailConfirmation,
            server::email_confirmation::request_email_confirmation,
        )
        .answer(server::email_confirmation::ConfirmEmail, server::email_confirmation::confirm_email)
        .answer(server::email_update::RequestEmailUpdate, server::email_update::request_email_update)
        .answer(server::email_update::UpdateEmail, server::email_update::update_email)
        .answer(server::password_reset::RequestPasswordReset, server::password_reset::request_password_reset)
        .answer(server::password_reset::ResetPassword, server::password_reset::reset_password)
        .answer(
            server::account_deletion::RequestAccountDelete,
            server::account_deletion::request_account_delete,
        )
        .answer(server::account_deletion::DeleteAccount, server::account_deletion::delete_account)
        .answer(
            identity::plc_operation::RequestPlcOperationSignature,
            identity::plc_operation::request_plc_operation_signature,
        )
        .answer(identity::plc_operation::SignPlcOperation, identity::plc_operation::sign_plc_operation)
        .answer(identity::resolve_handle::ResolveHandle, identity::resolve_handle::resolve_handle)
        .answer(identity::update_handle::UpdateHandle, identity::update_handle::update_handle)
        .answer(admin::send_email::SendEmail, admin::send_email::send_email)
        .answer(admin::accounts::GetAccountInfo, admin::accounts::get_account_info)
        .answer(admin::accounts::GetAccountInfos, admin::accounts::get_account_infos)
        .answer(admin::accounts::UpdateAccountEmail, admin::accounts::update_account_email)
        .answer(admin::accounts::UpdateAccountPassword, admin::accounts::update_account_password)
        .answer(admin::accounts::DeleteAccount, admin::accounts::delete_account)
        .answer(admin::subject_status::UpdateSubjectStatus, admin::subject_status::update_subject_status)
        .answer(admin::invites::DisableInviteCodes, admin::invites::disable_invite_codes)
        .answer(admin::invites::GetInviteCodes, admin::invites::get_invite_codes)
        .answer(temp::check_signup_queue::CheckSignupQueue, temp::check_signup_queue::check_signup_queue)
        .answer(
            temp::check_handle_availability::CheckHandleAvailability,
            temp::check_handle_availability::check_handle_availability,
        )
        .answer(temp::dereference_scope::DereferenceScope, temp::dereference_scope::dereference_scope)
}
