//! The next step of an opened request: a page, an approval without a page, or a refusal.

use std::collections::HashSet;

use genkan_protocol::oauth::error::OAuthErrorCode as Code;
use genkan_protocol::oauth::request::Prompt;
use genkan_protocol::syntax::Did;

use super::problem::Problem;
use super::view::{Choice, ConsentView, OpenRequest, Page, Permission};
use crate::accounts::{Account, Standing};
use crate::base::Timestamp;
use crate::oauth::service::OAuth;
use crate::oauth::sql::consents;
use crate::signin::SignIn;

/// The next step of an opened request.
#[derive(Clone, Debug)]
pub(in crate::oauth) enum Decision<'a> {
    Show(Page),
    /// Approval without a page.
    Approve(&'a SignIn),
    Refuse(Code, &'static str),
}

/// An account that could complete the request.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    signed_in: &'a SignIn,
    /// Whether the password was typed recently enough.
    fresh: bool,
    active: bool,
    /// Whether everything requested was granted before, and this client may rely on it.
    granted: bool,
}

impl OAuth {
    pub(in crate::oauth) async fn weigh<'a>(
        &self,
        opened: &OpenRequest,
        signed_in: &'a [SignIn],
    ) -> Result<Decision<'a>, Problem> {
        let now = self.now();
        let mut candidates = Vec::new();
        for one in signed_in {
            // With a hint, other accounts in this browser are not offered: the app expects the
            // hinted one.
            if one.account.standing() != Standing::TakenDown && is_hinted(opened, &one.account) {
                candidates.push(self.candidate(opened, one, now).await?);
            }
        }
        Ok(decide(opened.prompt, opened.login_hint.is_some(), &candidates))
    }

    pub(in crate::oauth) async fn weigh_one<'a>(
        &self,
        opened: &OpenRequest,
        signed_in: &'a SignIn,
    ) -> Result<Decision<'a>, Problem> {
        let account = &signed_in.account;
        if account.standing() == Standing::TakenDown || !is_hinted(opened, account) {
            return Ok(Decision::Show(Page::SignIn));
        }
        let candidate = self.candidate(opened, signed_in, self.now()).await?;
        Ok(decide_on(candidate, matches!(opened.prompt, None | Some(Prompt::Login | Prompt::SelectAccount))))
    }

    pub(in crate::oauth) async fn view_of_consent(
        &self,
        opened: &OpenRequest,
        account: &Account,
    ) -> Result<ConsentView, Problem> {
        let asked = opened.request.pushed.scope.values();
        let permissions = self.permissions(opened, &account.did, asked, true).await?;
        let (did, handle) = (account.did.clone(), account.handle.to_string());
        Ok(ConsentView { client: opened.client.clone(), did, handle, permissions })
    }

    /// Describes the scope values, and marks those that are new to this account.
    pub(in crate::oauth) async fn permissions<'a>(
        &self,
        opened: &OpenRequest,
        did: &Did,
        values: impl Iterator<Item = &'a str> + Clone,
        may_choose: bool,
    ) -> Result<Vec<Permission>, Problem> {
        let known = self.granted_before(opened, did).await?;
        let sets = self.sets.views(values.clone()).await?;
        let mut permissions = Vec::new();
        for value in values {
            // Only known values were kept when the request was pushed.
            let Ok(scope) = value.parse() else { continue };
            permissions.push(Permission {
                scope,
                value: value.to_owned(),
                new: !known.contains(value),
                optional: may_choose && value != "atproto",
                set: sets.get(value).cloned(),
            });
        }
        // The sort is stable, so the other values keep the order of the request.
        permissions.sort_by_key(|permission| permission.value != "atproto");
        Ok(permissions)
    }

    async fn candidate<'a>(
        &self,
        opened: &OpenRequest,
        signed_in: &'a SignIn,
        now: Timestamp,
    ) -> Result<Candidate<'a>, Problem> {
        let known = self.granted_before(opened, &signed_in.account.did).await?;
        // Anyone can pretend to be a public client, so earlier consents to one prove nothing.
        let believed = opened.client.trusted || opened.request.pushed.client_auth.is_confidential();
        Ok(Candidate {
            signed_in,
            fresh: is_fresh(opened, signed_in, now),
            active: signed_in.account.standing() == Standing::Active,
            granted: believed && opened.request.pushed.scope.values().all(|value| known.contains(value)),
        })
    }

    async fn granted_before(&self, opened: &OpenRequest, did: &Did) -> Result<HashSet<String>, Problem> {
        // Any program on the machine has the same development client id.
        if opened.client.development {
            return Ok(HashSet::new());
        }
        let known = consents::of(&self.db, did, &opened.request.client_id).await?;
        Ok(known.into_iter().collect())
    }
}

/// Whether the account may complete the request at all.
pub(in crate::oauth) fn is_wanted(opened: &OpenRequest, signed_in: &SignIn, now: Timestamp) -> bool {
    is_hinted(opened, &signed_in.account) && is_fresh(opened, signed_in, now)
}

/// Whether the account is the one that the client named, if it named one. The client would refuse
/// another account's token.
fn is_hinted(opened: &OpenRequest, account: &Account) -> bool {
    opened.wants(&account.did, account.handle.as_str())
}

fn is_fresh(opened: &OpenRequest, signed_in: &SignIn, now: Timestamp) -> bool {
    // `prompt=login` demands a sign-in after the push. An older one does not count, however recent
    // it is.
    let asked_again = opened.prompt == Some(Prompt::Login)
        && signed_in.at < Timestamp::from_millis(opened.request.pushed.at);
    signed_in.is_fresh(now) && !asked_again
}

fn decide<'a>(prompt: Option<Prompt>, hinted: bool, candidates: &[Candidate<'a>]) -> Decision<'a> {
    match (prompt, candidates) {
        (Some(Prompt::Create), _) => Decision::Show(Page::SignUp),
        (Some(Prompt::None), _) => decide_silently(candidates),
        (_, []) => Decision::Show(Page::SignIn),
        // Only a hint chooses for the person: the only account in this browser need not be the one
        // that they want to use.
        (None | Some(Prompt::Consent), [one]) if hinted => decide_on(*one, prompt.is_none()),
        _ => Decision::Show(Page::Choose(candidates.iter().map(choice).collect())),
    }
}

fn decide_on(one: Candidate<'_>, may_be_silent: bool) -> Decision<'_> {
    let did = one.signed_in.account.did.clone();
    // The password comes before reactivation and consent, because both act for the account.
    if !one.fresh {
        Decision::Show(Page::SignIn)
    } else if !one.active {
        Decision::Show(Page::Reactivate(did))
    } else if one.granted && may_be_silent {
        Decision::Approve(one.signed_in)
    } else {
        Decision::Show(Page::Consent(did))
    }
}

// `prompt=none` must never show a page (OpenID Connect Core §3.1.2.1), so each case is an answer to
// the client.
fn decide_silently<'a>(candidates: &[Candidate<'a>]) -> Decision<'a> {
    let mut active = candidates.iter().filter(|one| one.active);
    match (active.next(), active.next()) {
        (None, _) => Decision::Refuse(Code::LoginRequired, "No account is signed in"),
        (Some(_), Some(_)) => {
            Decision::Refuse(Code::AccountSelectionRequired, "More than one account is signed in")
        }
        (Some(one), None) if !one.fresh => Decision::Refuse(Code::LoginRequired, "The sign-in is too old"),
        (Some(one), None) if !one.granted => Decision::Refuse(Code::ConsentRequired, "Consent is required"),
        (Some(one), None) => Decision::Approve(one.signed_in),
    }
}

fn choice(candidate: &Candidate<'_>) -> Choice {
    Choice { account: candidate.signed_in.account.clone(), needs_password: !candidate.fresh }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::testing::account;

    fn said(decision: &Decision<'_>) -> &'static str {
        match decision {
            Decision::Show(Page::SignIn) => "sign in",
            Decision::Show(Page::SignUp) => "sign up",
            Decision::Show(Page::Choose(choices)) if choices.iter().all(|one| one.needs_password) => {
                "choose, each with its password"
            }
            Decision::Show(Page::Choose(_)) => "choose",
            Decision::Show(Page::Consent(_)) => "consent",
            Decision::Show(Page::Reactivate(_)) => "reactivate",
            Decision::Approve(_) => "approve",
            Decision::Refuse(code, _) => code.as_str(),
        }
    }

    /// The table of the contract's §1.5.
    #[test]
    fn a_request_comes_to_the_page_that_it_needs() {
        let signed_in = SignIn { account: account(), at: Timestamp::from_millis(0) };
        let good = Candidate { signed_in: &signed_in, fresh: true, active: true, granted: true };
        let stale = Candidate { fresh: false, ..good };
        let fewer = Candidate { granted: false, ..good };
        let asleep = Candidate { active: false, ..good };
        let cases: &[(Option<Prompt>, bool, &[Candidate<'_>], &str)] = &[
            (Some(Prompt::None), false, &[], "login_required"),
            (Some(Prompt::None), false, &[good, good], "account_selection_required"),
            (Some(Prompt::None), false, &[stale], "login_required"),
            (Some(Prompt::None), false, &[fewer], "consent_required"),
            (Some(Prompt::None), false, &[good], "approve"),
            (Some(Prompt::None), false, &[asleep], "login_required"),
            (Some(Prompt::None), true, &[good], "approve"),
            (None, true, &[good], "approve"),
            (None, true, &[fewer], "consent"),
            (None, true, &[stale], "sign in"),
            (None, true, &[asleep], "reactivate"),
            (None, true, &[], "sign in"),
            (None, false, &[good], "choose"),
            (None, false, &[], "sign in"),
            (Some(Prompt::Consent), true, &[good], "consent"),
            (Some(Prompt::Consent), false, &[good], "choose"),
            (Some(Prompt::SelectAccount), true, &[good], "choose"),
            (Some(Prompt::SelectAccount), false, &[], "sign in"),
            (Some(Prompt::Login), false, &[stale], "choose, each with its password"),
            (Some(Prompt::Login), true, &[stale], "choose, each with its password"),
            (Some(Prompt::Login), false, &[], "sign in"),
            (Some(Prompt::Create), false, &[good], "sign up"),
        ];
        for (prompt, hinted, candidates, expected) in cases {
            assert_eq!(
                said(&decide(*prompt, *hinted, candidates)),
                *expected,
                "{prompt:?} {hinted} {candidates:?}"
            );
        }
    }
}
