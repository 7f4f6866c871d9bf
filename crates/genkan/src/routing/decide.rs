//! The decision where a request goes, by its method, verb, credential and target.

use http::Method;

use super::row::{MethodKind, Parameter, Row, Rule};
use super::target::{self, NoTarget, Target};
use crate::wire::Authorization;

/// A token and the scheme by which it was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PresentedToken<'a> {
    Bearer(&'a str),
    /// Good only together with a proof.
    Dpop(&'a str),
}

/// Who answers a request, as far as the request alone tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision<'a> {
    /// Genkan.
    Local,
    /// A PDS.
    Forward(Route<'a>),
}

/// Where a forwarded request goes, before the token is checked and the account is found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// To the PDS of the account that this token speaks for.
    Caller { shown: PresentedToken<'a> },
    /// To the PDS of this account, without a credential. The token counts only where the operator
    /// does not allow reads without one.
    Target { account: Target<'a>, shown: Option<PresentedToken<'a>> },
    /// To the PDS of this account; with the token, if it is good and the account's own.
    SelfRead { account: Target<'a>, shown: PresentedToken<'a> },
}

/// Why a request goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The verb is not the one of this method.
    WrongVerb { allowed: &'static str },
    /// Genkan does not answer this method. The message says where to go.
    NotHere(&'static str),
    /// The method needs a token.
    NoToken {
        /// Whether the method is also forwarded to external PDSes.
        is_carried: bool,
    },
    /// There are two `Authorization` headers.
    TwoTokens,
    /// The `Authorization` header is not a usable token.
    BadScheme,
    /// As `BadScheme`, where a challenge has to tell apps that their token is not good.
    BadToken { by_proof: bool },
    /// The target's parameter is unusable.
    BadTarget(Parameter, NoTarget),
}

/// The token that was presented, if it is of a kind that speaks for accounts.
const fn presented<'a>(authorization: &Authorization<'a>) -> Option<PresentedToken<'a>> {
    match *authorization {
        Authorization::Bearer(token) => Some(PresentedToken::Bearer(token)),
        Authorization::Dpop(token) => Some(PresentedToken::Dpop(token)),
        Authorization::Missing
        | Authorization::Basic(_)
        | Authorization::Malformed(_)
        | Authorization::Repeated => None,
    }
}

/// Decides by the method's row.
pub(crate) fn decide<'a>(
    row: &'static Row,
    verb: &Method,
    authorization: Authorization<'a>,
    query: Option<&'a str>,
) -> Result<Decision<'a>, Refusal> {
    if let Rule::NotHere(message) = row.rule {
        return Err(Refusal::NotHere(message));
    }
    // The wrong verb is refused first: what follows is about a call that the method can have.
    if let Some(allowed) = forbidden(row.kind, verb) {
        return Err(Refusal::WrongVerb { allowed });
    }
    match (row.rule, authorization) {
        // Two readers might choose different ones, and one of them is a host behind Genkan.
        (_, Authorization::Repeated) => Err(Refusal::TwoTokens),
        (Rule::NotHere(message), _) => Err(Refusal::NotHere(message)),
        (Rule::Local | Rule::NotYet(_), _) => Ok(Decision::Local),
        (Rule::Target { parameter, self_read }, authorization) => {
            // The account is read before the token: a read without a valid target is refused in the
            // same way for everyone.
            let account = target::of_query(query, parameter)
                .map_err(|problem| Refusal::BadTarget(parameter, problem))?;
            Ok(Decision::Forward(match presented(&authorization) {
                Some(shown) if self_read => Route::SelfRead { account, shown },
                shown => Route::Target { account, shown },
            }))
        }
        (Rule::CallerHome, Authorization::Bearer(token)) => {
            Ok(Decision::Forward(Route::Caller { shown: PresentedToken::Bearer(token) }))
        }
        (Rule::CallerHome, Authorization::Dpop(token)) => {
            Ok(Decision::Forward(Route::Caller { shown: PresentedToken::Dpop(token) }))
        }
        (Rule::CallerHome, Authorization::Missing) => Err(Refusal::NoToken { is_carried: row.external }),
        (Rule::CallerHome, unusable @ (Authorization::Basic(_) | Authorization::Malformed(_))) => {
            // Apps with proofs, and apps of accounts at external PDSes, fetch another token only if
            // a challenge says so.
            let by_proof = unusable.is_dpop();
            Err(if by_proof || row.external { Refusal::BadToken { by_proof } } else { Refusal::BadScheme })
        }
    }
}

/// The verbs of this kind of method, if this verb is not one of them.
fn forbidden(kind: MethodKind, verb: &Method) -> Option<&'static str> {
    let reads = verb == Method::GET || verb == Method::HEAD;
    let (right, allowed) = match kind {
        MethodKind::Query | MethodKind::Subscription => (reads, "GET, HEAD"),
        MethodKind::Procedure => (verb == Method::POST, "POST"),
        MethodKind::Any => (reads || verb == Method::POST, "GET, HEAD, POST"),
    };
    (!right).then_some(allowed)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::routing::table;
    use crate::wire::authorization::Scheme;

    const SELF: &str = "did=did:plc:abcdefghijklmnopqrstuvwx&repo=alice.example";
    const BEARER: Authorization<'static> = Authorization::Bearer("token");
    const DPOP: Authorization<'static> = Authorization::Dpop("token");
    const FOREIGN: Authorization<'static> = Authorization::Malformed(Scheme::Other);

    fn of(shown: PresentedToken<'_>) -> Authorization<'_> {
        match shown {
            PresentedToken::Bearer(token) => Authorization::Bearer(token),
            PresentedToken::Dpop(token) => Authorization::Dpop(token),
        }
    }

    fn asked<'a>(
        method: &str,
        verb: &Method,
        credential: Authorization<'a>,
    ) -> Result<Decision<'a>, Refusal> {
        decide(table::row(method), verb, credential, Some(SELF))
    }

    fn did() -> Target<'static> {
        Target::Did(Cow::Borrowed("did:plc:abcdefghijklmnopqrstuvwx"))
    }

    fn handle() -> Target<'static> {
        Target::Handle("alice.example".to_owned())
    }

    /// Each row, asked by its right verb with and without a token, in the words of the contract.
    #[test]
    fn every_row_goes_where_the_contract_says() {
        let local = "createAccount createSession refreshSession deleteSession getSession createAppPassword \
            listAppPasswords revokeAppPassword getAccountInviteCodes createInviteCode createInviteCodes \
            requestEmailConfirmation confirmEmail requestEmailUpdate updateEmail requestPasswordReset resetPassword \
            requestAccountDelete deleteAccount activateAccount deactivateAccount describeServer";
        let identity = "resolveHandle updateHandle requestPlcOperationSignature signPlcOperation";
        let admin = "updateAccountHandle updateSubjectStatus deleteAccount getAccountInfo getAccountInfos \
            getSubjectStatus sendEmail updateAccountEmail updateAccountPassword disableAccountInvites \
            enableAccountInvites disableInviteCodes getInviteCodes";
        let temp = "checkSignupQueue dereferenceScope checkHandleAvailability requestPhoneVerification \
            revokeAccountCredentials addReservedHandle";
        let repo_writes =
            "applyWrites createRecord putRecord deleteRecord uploadBlob importRepo listMissingBlobs";
        let repo_reads = "getRecord listRecords describeRepo";
        let sync_reads =
            "getRepo getRecord getBlob listBlobs getLatestCommit getRepoStatus getBlocks getHead getCheckout";
        let sync_others = "listRepos listReposByCollection requestCrawl notifyOfUpdate listHosts getHostStatus somethingNew";
        // What Genkan answers itself cannot go astray, so a new such row need not be named above.
        let is_forwarded =
            |row: &Row| !row.method.ends_with('*') && !matches!(row.rule, Rule::Local | Rule::NotYet(_));
        let mut seen = 0;
        let mut each = |family: &str, names: &str, check: &dyn Fn(&str, &Method)| {
            for name in names.split_whitespace() {
                let method = format!("{family}.{name}");
                let verb = if table::row(&method).kind == MethodKind::Procedure {
                    Method::POST
                } else {
                    Method::GET
                };
                check(&method, &verb);
                check(&method.to_uppercase(), &verb);
                seen += usize::from(is_forwarded(table::row(&method)));
            }
        };
        let answered_here = |method: &str, verb: &Method| {
            for credential in [Authorization::Missing, BEARER, DPOP, FOREIGN] {
                assert_eq!(asked(method, verb, credential), Ok(Decision::Local), "{method}");
            }
        };
        let to_caller = |method: &str, verb: &Method| {
            for shown in [PresentedToken::Bearer("token"), PresentedToken::Dpop("token")] {
                assert_eq!(
                    asked(method, verb, of(shown)),
                    Ok(Decision::Forward(Route::Caller { shown })),
                    "{method}"
                );
            }
            let refused = asked(method, verb, Authorization::Missing);
            assert!(matches!(refused, Err(Refusal::NoToken { .. })), "{method}");
            let is_carried = table::row(method).external;
            for (scheme, by_proof) in [(Scheme::Other, false), (Scheme::Bearer, false), (Scheme::Dpop, true)]
            {
                let refused = asked(method, verb, Authorization::Malformed(scheme));
                let is_told = is_carried || by_proof;
                let expected = if is_told { Refusal::BadToken { by_proof } } else { Refusal::BadScheme };
                assert_eq!(refused, Err(expected), "{method}");
            }
        };
        each("com.atproto.server", local, &answered_here);
        each("com.atproto.identity", identity, &answered_here);
        each("com.atproto.admin", admin, &answered_here);
        each("com.atproto.temp", temp, &answered_here);
        each("com.atproto.repo", repo_writes, &to_caller);
        each("com.atproto.sync", sync_others, &to_caller);
        each("com.atproto.server", "getServiceAuth checkAccountStatus somethingNew", &to_caller);
        each(
            "com.atproto.identity",
            "getRecommendedDidCredentials submitPlcOperation resolveDid",
            &to_caller,
        );
        each("app.bsky.actor", "getPreferences putPreferences getProfile", &to_caller);
        each("app.bsky.notification", "registerPush unregisterPush listNotifications", &to_caller);
        each("com.atproto.repo", repo_reads, &|method, verb| {
            for credential in [Authorization::Missing, BEARER, DPOP, FOREIGN] {
                let decision =
                    Decision::Forward(Route::Target { account: handle(), shown: presented(&credential) });
                assert_eq!(asked(method, verb, credential), Ok(decision), "{method}");
            }
        });
        each("com.atproto.sync", sync_reads, &|method, verb| {
            for shown in [PresentedToken::Bearer("token"), PresentedToken::Dpop("token")] {
                let own = Decision::Forward(Route::SelfRead { account: did(), shown });
                assert_eq!(asked(method, verb, of(shown)), Ok(own), "{method}");
            }
            for credential in [Authorization::Missing, FOREIGN] {
                let decision = Decision::Forward(Route::Target { account: did(), shown: None });
                assert_eq!(asked(method, verb, credential), Ok(decision), "{method}");
            }
        });
        let nowhere = |method: &str, verb: &Method| {
            for credential in [Authorization::Missing, BEARER, DPOP, FOREIGN] {
                assert!(matches!(asked(method, verb, credential), Err(Refusal::NotHere(_))), "{method}");
            }
        };
        each("com.atproto.sync", "subscribeRepos", &nowhere);
        each("com.atproto.label", "subscribeLabels", &nowhere);
        each("com.atproto.server", "reserveSigningKey", &nowhere);
        each("com.atproto.admin", "searchAccounts somethingNew", &nowhere);
        assert_eq!(seen, table::ROWS.iter().filter(|row| is_forwarded(row)).count(), "a row is not covered");
    }

    #[test]
    fn each_kind_has_its_verbs() {
        for row in table::ROWS {
            let method = row.method.replace('*', "x.y.z");
            for verb in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "get", "FOO"] {
                let verb = Method::from_bytes(verb.as_bytes()).unwrap();
                let answer = asked(&method, &verb, BEARER);
                let reads = verb == Method::GET || verb == Method::HEAD;
                let allowed = match row.kind {
                    _ if matches!(row.rule, Rule::NotHere(_)) => continue,
                    MethodKind::Query | MethodKind::Subscription if !reads => "GET, HEAD",
                    MethodKind::Procedure if verb != Method::POST => "POST",
                    MethodKind::Any if !reads && verb != Method::POST => "GET, HEAD, POST",
                    _ => {
                        assert!(answer.is_ok(), "{verb} {method}");
                        continue;
                    }
                };
                assert_eq!(answer, Err(Refusal::WrongVerb { allowed }), "{verb} {method}");
            }
        }
    }

    #[test]
    fn a_target_is_named_once_and_two_tokens_are_refused() {
        let asked = |query| decide(table::row("com.atproto.sync.getRepo"), &Method::GET, BEARER, query);
        assert_eq!(asked(None), Err(Refusal::BadTarget(Parameter::Did, NoTarget::Missing)));
        assert_eq!(asked(Some("did=a&did=b")), Err(Refusal::BadTarget(Parameter::Did, NoTarget::Repeated)));
        assert_eq!(
            asked(Some("did=alice.example")),
            Err(Refusal::BadTarget(Parameter::Did, NoTarget::Invalid))
        );
        for method in
            ["com.atproto.sync.getRepo", "app.bsky.feed.getTimeline", "com.atproto.server.getSession"]
        {
            let answer = decide(table::row(method), &Method::GET, Authorization::Repeated, Some(SELF));
            assert_eq!(answer, Err(Refusal::TwoTokens), "{method}");
        }
    }
}
