//! Requests that are completed by an account of another server.
//!
//! That server has signed the person in and granted some of what was asked for, or all. Here the app is named, and the
//! person says whether it gets it. What it gets is what was granted there: no more, and no less either, since only that
//! server looks into each request.

use std::collections::HashSet;

use genkan_protocol::oauth::scope::{Scope, Scopes};
use genkan_protocol::syntax::Did;

use super::problem::Problem;
use super::view::{ConsentView, OpenRequest, Redirect};
use crate::oauth::scope::{ApprovedScope, RequestedScope};
use crate::oauth::service::OAuth;

/// An account of another server that has signed in for one request.
#[derive(Clone, Debug)]
pub(crate) struct LinkedAccount {
    /// Of the link; the grant will have the same.
    pub(crate) id: String,
    pub(crate) did: Did,
    /// Confirmed in both directions. An account without a confirmed handle has its DID here.
    pub(crate) handle: String,
    /// What its server granted, values between spaces.
    pub(crate) scope: String,
}

impl OAuth {
    /// Of what was asked for, what its server granted. Servers tell what a permission set stands for and not its name:
    /// the set is kept if all of it was granted, and otherwise what was of it.
    async fn granted(&self, opened: &OpenRequest, linked: &LinkedAccount) -> Result<ApprovedScope, Problem> {
        let granted = Scopes::parse(&linked.scope);
        let mut allowed: Vec<String> = Vec::new();
        for asked in opened.request.pushed.scope.values() {
            let is_granted =
                asked.parse::<Scope>().is_ok_and(|scope| granted.iter().any(|(_, own)| *own == scope));
            if is_granted {
                allowed.push(asked.to_owned());
            } else if let Some(set) = self.sets.view(asked).await? {
                let covered: Vec<_> = set.expanded.iter().filter(|scope| granted.covers(scope)).collect();
                if !covered.is_empty() && covered.len() == set.expanded.len() {
                    allowed.push(asked.to_owned());
                } else {
                    allowed.extend(covered.into_iter().map(ToString::to_string));
                }
            }
        }
        // Two permission sets may stand for the same scope value.
        let mut seen = HashSet::new();
        allowed.retain(|value| seen.insert(value.clone()));
        Ok(ApprovedScope::of_values(&allowed))
    }

    /// What the account is asked to allow.
    pub(crate) async fn consent_view_linked(
        &self,
        opened: &OpenRequest,
        linked: &LinkedAccount,
    ) -> Result<ConsentView, Problem> {
        let did = linked.did.as_str();
        let granted = self.granted(opened, linked).await?;
        let permissions = self.permissions(opened, did, granted.values(), false).await?;
        let (did, handle) = (linked.did.clone(), linked.handle.clone());
        Ok(ConsentView { client: opened.client.clone(), did, handle, permissions })
    }

    /// The person allows it. Refused if the app named another account, or the server granted less than `atproto`.
    pub(crate) async fn approve_linked(
        &self,
        opened: &OpenRequest,
        linked: &LinkedAccount,
    ) -> Result<Redirect, Problem> {
        let granted = self.granted(opened, linked).await?;
        if !granted.has_atproto() || !opened.wants(linked.did.as_str(), &linked.handle) {
            return self.reject(opened).await;
        }
        let link = Some(linked.id.clone());
        self.give_code(opened, &linked.did, granted, link, self.clock.now()).await
    }
}

impl OpenRequest {
    /// Whether this account may complete the request: if the client named one, it would refuse another's token.
    pub(crate) fn wants(&self, did: &str, handle: &str) -> bool {
        self.login_hint.as_deref().is_none_or(|hint| hint == did || hint == handle)
    }

    pub(crate) fn scope(&self) -> &RequestedScope {
        &self.request.pushed.scope
    }
}
