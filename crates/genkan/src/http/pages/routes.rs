//! The addresses of the pages.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use http::Request;

use super::account::{activation, apps, email, page, password, sign_ins};
use super::call::Call;
use super::reply::Reply;
use super::service::Pages;
use super::theme::{Theme, ThemeError};
use super::trouble::Trouble;
use super::{authorize, consent, external, sign_in, sign_up};
use crate::app::App;
use crate::links::CALLBACK;

/// Every page, and the files that pages load.
pub(crate) fn routes(app: &App) -> Result<Router, ThemeError> {
    let pages = Pages { app: app.clone(), theme: Theme::of(&app.config)? };
    macro_rules! page {
        ($show:path) => {
            get(async |State(pages): State<Pages>, request: Request<Body>| pages.page(request, $show).await)
        };
    }
    macro_rules! form {
        ($take:path) => {
            post(async |State(pages): State<Pages>, request: Request<Body>| pages.form(request, $take).await)
        };
    }
    let routes = Router::new()
        .route("/oauth/authorize", page!(authorize::show))
        .route("/oauth/authorize/sign-in", form!(sign_in::take))
        .route("/oauth/authorize/sign-up", form!(sign_up::take))
        .route("/oauth/authorize/choose", form!(authorize::choose))
        .route("/oauth/authorize/consent", form!(consent::take))
        .route("/oauth/authorize/reject", form!(consent::reject))
        .route("/oauth/authorize/reactivate", form!(authorize::reactivate))
        .route(CALLBACK, page!(external::back))
        .route("/account", page!(page::first))
        .route("/account/u/{did}", page!(page::show))
        .route("/account/email/code", page!(page::first).merge(form!(email::send_code)))
        .route("/account/email/confirm", page!(page::first).merge(form!(email::confirm)))
        .route("/account/email/change", page!(page::first).merge(form!(email::change)))
        .route("/account/reactivate", page!(page::first).merge(form!(activation::reactivate)))
        .route("/account/sign-in", page!(sign_in::show).merge(form!(sign_in::take)))
        .route("/account/sign-up", page!(sign_up::show).merge(form!(sign_up::take)))
        .route("/account/revoke", form!(apps::revoke))
        .route("/account/reset-password", page!(password::show).merge(form!(password::take)))
        .route("/account/sign-out", form!(sign_ins::sign_out))
        .route("/account/{*rest}", page!(nothing))
        .merge(pages.theme.routes());
    Ok(routes.with_state(pages))
}

async fn nothing(_: Pages, _: Call) -> Result<Reply, Trouble> {
    Err(Trouble::NotFound)
}
