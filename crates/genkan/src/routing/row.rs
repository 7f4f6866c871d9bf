//! A row of the routing table: what Genkan does with one method, or with a family of methods.

use genkan_protocol::jwt::session::Scope;
use genkan_protocol::oauth::scope::{self, AccountAction, AccountAttribute, Identity, RepoAction};

/// What Genkan does with one method, or with all methods whose names begin alike.
#[derive(Debug)]
pub(crate) struct Row {
    /// An NSID, or the beginning of many NSIDs followed by `*`.
    pub(crate) method: &'static str,
    pub(crate) kind: MethodKind,
    pub(crate) rule: Rule,
    /// Who may call it. [`Callers::Anyone`] where Genkan does not answer: there the PDS decides.
    pub(crate) callers: Callers,
    pub(crate) body_limit: BodyLimit,
    pub(crate) weight: Weight,
    /// Whether it is also forwarded for accounts whose PDS is external.
    pub(crate) external: bool,
    /// What a linked account's grant must allow before it is forwarded.
    pub(crate) linked_scope: LinkedScope,
    /// Whether the answer is a file of a user's choosing, which browsers must save and not show.
    pub(crate) is_file: bool,
    /// What a PDS does with it.
    pub(crate) handling: Handling,
}

/// What a PDS does with a method that is forwarded to it. As at the reference PDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handling {
    /// Answers it alone and soon, so its silence is a failure of the PDS.
    Alone,
    /// Answers it itself, but may wait for another server, or works as long as the caller's input
    /// takes. Its silence says nothing about the PDS.
    Helped,
    /// Passes it on to the service that `atproto-proxy` names, or to its default service.
    PassedOn,
    /// Calls the service that the input names in `serviceDid`. A PDS without an app view may pass it
    /// on to the service that `atproto-proxy` names.
    Addressed,
}

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodKind {
    /// By `GET` or `HEAD`.
    Query,
    /// By `POST`.
    Procedure,
    /// By a WebSocket.
    Subscription,
    /// Unknown to Genkan: by `GET`, `HEAD` or `POST`.
    Any,
}

/// Who answers a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Genkan itself. A handler names this row; see `http::xrpc`.
    Local,
    /// Genkan, one day. Until then callers who may call it are told 501 with this message.
    NotYet(&'static str),
    /// The caller's PDS, with the caller's own token.
    CallerHome,
    /// The PDS of the account that the parameter names, without credentials.
    Target {
        parameter: Parameter,
        /// Whether callers who read their own account keep their token, so that owners of
        /// deactivated and taken-down accounts can still export their data.
        self_read: bool,
    },
    /// Genkan refuses it with 501, and the message says where to go instead.
    NotHere(&'static str),
}

/// The query parameter that names a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// A DID or a handle.
    Repo,
    /// A DID.
    Did,
}

impl Parameter {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Repo => "repo",
            Self::Did => "did",
        }
    }
}

/// Who may call a method that Genkan answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callers {
    /// Everyone. If the input proves something, such as a password, the handler checks it.
    Anyone,
    /// The bearer of a refresh token.
    RefreshToken,
    /// An account, by one of the ways that the access lists.
    Account(AccountAccess),
    /// The operator, by the admin password.
    Operator,
    /// The operator, or the account's host by that host's own admin password.
    OperatorOrHost,
    /// The operator, or an account by one of the ways that the access lists.
    OperatorOrAccount(AccountAccess),
}

/// The ways in which an account may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountAccess {
    /// The scopes of session tokens that may call it.
    pub(crate) sessions: &'static [Scope],
    /// What an OAuth grant must hold for its app to call it.
    pub(crate) apps: AppAccess,
    /// Whether the account's host may call it with service auth.
    ///
    /// Only for the protected methods: a host never issues a service token for these to its users,
    /// so such a token comes from the host itself.
    pub(crate) hosts: bool,
    /// Whether an account that is taken down may call it. Otherwise it is told 401
    /// `AccountTakedown`.
    pub(crate) taken_down: bool,
}

/// What an OAuth grant must hold for its app to call a method. As at the reference PDS, method by
/// method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppAccess {
    /// Nothing beyond `atproto`.
    Any,
    Account(AccountAttribute, AccountAction),
    Identity(Identity),
    /// No grant is enough. The message says what people do instead.
    Never(&'static str),
}

/// Which setting limits the bytes of a method's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLimit {
    /// `limits.own_body`, for methods that Genkan answers.
    Own,
    /// `limits.forwarded_body`
    Forwarded,
    /// `limits.upload`
    Upload,
    /// `limits.import`
    Import,
    /// 64 KiB, since Genkan reads the whole input before it forwards it.
    ReadAhead,
}

/// How an external PDS counts a call against its rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// As a write if it is called by `POST`, otherwise as a read.
    ByVerb,
    /// As a write, and against the limit on uploads too.
    Upload,
    /// Only against the limit on repository exports.
    Export,
}

/// What a linked account's grant must allow, as far as the method's name tells. The account's own
/// PDS checks the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkedScope {
    /// Nothing beyond `atproto`.
    Any,
    /// Each of these writes, in some collection.
    Writes(&'static [RepoAction]),
    /// Any write, in some collection.
    SomeWrite,
    /// Uploads of some type.
    Blob,
    /// The import of a repository.
    Import,
    /// Tokens for some service.
    Service,
}

impl Row {
    /// A method that Genkan answers.
    pub(super) const fn answered(method: &'static str, kind: MethodKind, callers: Callers) -> Self {
        Self { callers, ..Self::new(method, kind, Rule::Local) }
    }

    /// A method that Genkan will answer one day.
    pub(super) const fn not_yet(
        method: &'static str,
        kind: MethodKind,
        callers: Callers,
        message: &'static str,
    ) -> Self {
        Self { callers, ..Self::new(method, kind, Rule::NotYet(message)) }
    }

    /// A method that Genkan refuses, saying where to go instead.
    pub(super) const fn refused(method: &'static str, kind: MethodKind, message: &'static str) -> Self {
        Self::new(method, kind, Rule::NotHere(message))
    }

    /// A method that a PDS answers.
    pub(super) const fn forwarded(method: &'static str, kind: MethodKind, rule: Rule) -> Self {
        Self { body_limit: BodyLimit::Forwarded, ..Self::new(method, kind, rule) }
    }

    /// A method that a PDS answers, an external PDS too.
    pub(super) const fn external(method: &'static str, kind: MethodKind, rule: Rule) -> Self {
        Self { external: true, ..Self::forwarded(method, kind, rule) }
    }

    pub(super) const fn body(self, body_limit: BodyLimit) -> Self {
        Self { body_limit, ..self }
    }

    pub(super) const fn weight(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    pub(super) const fn linked(self, linked_scope: LinkedScope) -> Self {
        Self { linked_scope, ..self }
    }

    pub(super) const fn file(self) -> Self {
        Self { is_file: true, ..self }
    }

    pub(super) const fn alone(self) -> Self {
        Self { handling: Handling::Alone, ..self }
    }

    pub(super) const fn helped(self) -> Self {
        Self { handling: Handling::Helped, ..self }
    }

    pub(super) const fn addressed(self) -> Self {
        Self { handling: Handling::Addressed, body_limit: BodyLimit::ReadAhead, ..self }
    }

    const fn new(method: &'static str, kind: MethodKind, rule: Rule) -> Self {
        Self {
            method,
            kind,
            rule,
            callers: Callers::Anyone,
            body_limit: BodyLimit::Own,
            weight: Weight::ByVerb,
            external: false,
            linked_scope: LinkedScope::Any,
            is_file: false,
            handling: Handling::PassedOn,
        }
    }
}

impl AppAccess {
    /// The scope value that a grant must cover, as apps ask for it. `None` if no scope value is
    /// needed.
    pub(crate) fn scope(self) -> Option<String> {
        match self {
            Self::Any | Self::Never(_) => None,
            Self::Account(attribute, action) => {
                Some(scope::Scope::Account(scope::Account { attribute, action }).to_string())
            }
            Self::Identity(attribute) => Some(scope::Scope::Identity(attribute).to_string()),
        }
    }
}

impl Callers {
    /// An account, its host included, as long as it is not taken down. Apps by their grant.
    pub(super) const fn account(sessions: &'static [Scope], apps: AppAccess) -> Self {
        Self::Account(AccountAccess { sessions, apps, hosts: true, taken_down: false })
    }

    /// An account, its host included, even if it is taken down. Apps by their grant.
    pub(super) const fn even_taken_down(sessions: &'static [Scope], apps: AppAccess) -> Self {
        Self::Account(AccountAccess { sessions, apps, hosts: true, taken_down: true })
    }
}
