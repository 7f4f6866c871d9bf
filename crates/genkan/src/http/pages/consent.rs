//! The consent form: what the app requests, and the person's answer.

use super::call::{Call, Form};
use super::consent_page::page;
use super::flow::Flow;
use super::reply::Reply;
use super::trouble::Trouble;
use super::{Pages, external};
use crate::signin::SignIn;

pub(super) async fn show(pages: &Pages, call: &Call, flow: &Flow, one: &SignIn) -> Result<Reply, Trouble> {
    let view = pages.app.oauth.consent_view(&flow.opened, &one.account).await?;
    page(pages, call, flow, &view, None)
}

/// Handles the form: access is allowed with the ticked permissions, or denied.
pub(super) async fn take(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let flow = Flow::of_form(&pages, &call, &form).await?;
    if !form.text("link").is_empty() {
        return external::decide(&pages, &call, &form, flow).await;
    }
    let Some(one) = flow.signed_in_as(&pages, form.text("did")).await? else {
        // Either the form was manipulated or the sign-in has expired. In both cases this request
        // ends.
        pages.app.oauth.reject(&flow.opened).await?;
        return Err(Trouble::NotSignedIn);
    };
    let redirect = if form.text("answer") == "allow" {
        pages.app.oauth.approve(&flow.opened, &one, Some(&form.all("scope"))).await?
    } else {
        pages.app.oauth.reject(&flow.opened).await?
    };
    flow.leave(&pages, &call, &redirect).await
}

/// Returns to the app without an account, from any page of a flow.
pub(super) async fn reject(pages: Pages, call: Call, form: Form) -> Result<Reply, Trouble> {
    let flow = Flow::of_form(&pages, &call, &form).await?;
    external::forget(&pages, &flow).await?;
    let redirect = pages.app.oauth.reject(&flow.opened).await?;
    flow.leave(&pages, &call, &redirect).await
}
