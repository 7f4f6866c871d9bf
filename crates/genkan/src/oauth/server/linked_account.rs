//! Requests that an account of an external server completes.
//!
//! That server has signed the person in and granted all or some of the requested scope. Genkan
//! names the app, and the person decides whether it gets access. The app gets exactly what that
//! server granted, because only that server checks each request.

use std::collections::HashSet;

use genkan_protocol::oauth::scope::{Scope, Scopes};
use genkan_protocol::syntax::Did;

use super::problem::Problem;
use super::view::{ConsentView, OpenRequest, Redirect};
use crate::oauth::ids::GrantId;
use crate::oauth::scope::{ApprovedScope, ExpandedScope, RequestedScope};
use crate::oauth::service::OAuth;

/// An account of an external server that has signed in for one request.
#[derive(Clone, Debug)]
pub(crate) struct LinkedAccount {
    /// The id of the link, which the grant will have too.
    pub(crate) id: GrantId,
    pub(crate) did: Did,
    /// The confirmed handle, or the DID if no handle is confirmed.
    pub(crate) handle: String,
    /// The scope that its server granted.
    pub(crate) scope: ExpandedScope,
}

impl OAuth {
    /// Returns the part of the request that the account's server granted. Servers answer with the
    /// contents of a permission set and not with its name. So a set is kept if all of it was
    /// granted, and replaced by the granted values otherwise.
    async fn granted(&self, opened: &OpenRequest, linked: &LinkedAccount) -> Result<ApprovedScope, Problem> {
        // The account's own server has decided. Genkan grants what that server granted, and no
        // more.
        let granted = Scopes::parse(linked.scope.as_str());
        let sets = self.sets.views(opened.request.pushed.scope.values()).await?;
        let mut allowed: Vec<String> = Vec::new();
        for asked in opened.request.pushed.scope.values() {
            let is_granted =
                asked.parse::<Scope>().is_ok_and(|scope| granted.iter().any(|(_, own)| *own == scope));
            if is_granted {
                allowed.push(asked.to_owned());
            } else if let Some(set) = sets.get(asked) {
                let covered: Vec<_> = set.expanded.iter().filter(|scope| granted.covers(scope)).collect();
                // A set that is granted in part is replaced by its granted values, so that the
                // token claims nothing else.
                if !covered.is_empty() && covered.len() == set.expanded.len() {
                    allowed.push(asked.to_owned());
                } else {
                    allowed.extend(covered.into_iter().map(ToString::to_string));
                }
            }
        }
        // Two permission sets may contain the same scope value.
        let mut seen = HashSet::new();
        allowed.retain(|value| seen.insert(value.clone()));
        Ok(ApprovedScope::of_values(&allowed))
    }

    /// Describes what the account is asked to allow.
    pub(crate) async fn consent_view_linked(
        &self,
        opened: &OpenRequest,
        linked: &LinkedAccount,
    ) -> Result<ConsentView, Problem> {
        let granted = self.granted(opened, linked).await?;
        let permissions = self.permissions(opened, &linked.did, granted.values(), false).await?;
        let (did, handle) = (linked.did.clone(), linked.handle.clone());
        Ok(ConsentView { client: opened.client.clone(), did, handle, permissions })
    }

    /// Approves the request. It is refused if the app named another account, or if the server did
    /// not grant `atproto`.
    pub(crate) async fn approve_linked(
        &self,
        opened: &OpenRequest,
        linked: &LinkedAccount,
    ) -> Result<Redirect, Problem> {
        let granted = self.granted(opened, linked).await?;
        if !granted.has_atproto() || !opened.wants(&linked.did, &linked.handle) {
            return self.reject(opened).await;
        }
        let link = Some(linked.id.clone());
        self.give_code(opened, &linked.did, granted, link, self.now()).await
    }
}

impl OpenRequest {
    /// Whether this account may complete the request. If the client named an account, it would
    /// refuse another account's token.
    pub(crate) fn wants(&self, did: &Did, handle: &str) -> bool {
        self.login_hint.as_deref().is_none_or(|hint| *did == *hint || hint == handle)
    }

    pub(crate) fn scope(&self) -> &RequestedScope {
        &self.request.pushed.scope
    }
}
