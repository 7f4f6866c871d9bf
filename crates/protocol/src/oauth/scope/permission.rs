//! The permissions that an app can request one by one (atproto Permission, "Resource Types").

use super::syntax::{Syntax, single, write};
use super::target::{Audience, Names};
use crate::syntax::Nsid;

/// `repo`: writing records in some collections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repo {
    /// The collections.
    pub collections: Names,
    /// The allowed actions, in the order of [`RepoAction::ALL`]; at least one.
    pub actions: Vec<RepoAction>,
}

/// An action on a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepoAction {
    /// Creating one.
    Create,
    /// Replacing one.
    Update,
    /// Deleting one.
    Delete,
}

/// `rpc`: calling methods of a service as the account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rpc {
    /// The methods.
    pub methods: Names,
    /// The service. `None`: any service, and then the methods are named one by one.
    pub audience: Option<Audience>,
}

/// `blob`: uploading files of some types.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Blob {
    /// Media ranges (`*/*`, `type/*` or `type/subtype`) in lower case; sorted, without one that
    /// another includes.
    pub accept: Vec<String>,
}

/// `account`: a setting of the account at its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// The setting.
    pub attribute: AccountAttribute,
    /// The allowed action.
    pub action: AccountAction,
}

/// A setting of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountAttribute {
    /// The e-mail address.
    Email,
    /// The repository as a whole.
    Repo,
    /// Whether the account is active.
    Status,
}

/// An action on a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountAction {
    /// Reading it.
    Read,
    /// Changing it, and reading it.
    Manage,
}

/// `identity`: the account's handle and DID document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The handle.
    Handle,
    /// The whole DID document. Its holder can take the account away.
    Any,
}

/// `include`: the permissions of a published set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Include {
    /// The name of the permission set.
    pub nsid: Nsid,
    /// The service for its `rpc` permissions that leave it open.
    pub audience: Option<Audience>,
}

impl Repo {
    pub(super) fn read(syntax: &Syntax<'_>) -> Option<Self> {
        // An unknown parameter may restrict the permission. Ignored, it would grant more than was
        // asked for.
        if !syntax.has_only(&["collection", "action"]) {
            return None;
        }
        let collections = Names::read(syntax.all_or_positional("collection")?)?;
        // No `action` means all of them; an empty or unknown one is an error, not "none".
        let actions = syntax.all("action");
        let actions = if actions.is_empty() { RepoAction::ALL.to_vec() } else { RepoAction::read(actions)? };
        Some(Self { collections, actions })
    }

    pub(super) fn write(&self) -> String {
        let actions: Vec<_> = if self.actions == RepoAction::ALL {
            vec![]
        } else {
            self.actions.iter().map(|action| action.as_str()).collect()
        };
        write("repo", "collection", &[("collection", &self.collections.texts()), ("action", &actions)])
    }
}

impl RepoAction {
    /// All actions, which a scope without `action` means.
    pub const ALL: [Self; 3] = [Self::Create, Self::Update, Self::Delete];

    /// The action as scopes spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// Reads a list and sorts it. `None`: an action is unknown, or the list is empty.
    pub(in crate::oauth) fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Vec<Self>> {
        let known = |text| Self::ALL.into_iter().find(|action| action.as_str() == text);
        let mut actions = texts.into_iter().map(known).collect::<Option<Vec<_>>>()?;
        actions.sort_unstable();
        // Sorted and without repetition, so that equal permissions have equal texts.
        actions.dedup();
        (!actions.is_empty()).then_some(actions)
    }
}

impl Rpc {
    pub(super) fn read(syntax: &Syntax<'_>) -> Option<Self> {
        if !syntax.has_only(&["lxm", "aud"]) {
            return None;
        }
        let methods = Names::read(syntax.all_or_positional("lxm")?)?;
        // `aud` has no default: a permission to call any service must be asked for as `*`.
        let audience = match single(&syntax.all("aud"))? {
            "*" => None,
            service => Some(service.parse().ok()?),
        };
        // All methods of all services would be everything that the account may do anywhere. The
        // specification has no such permission.
        (methods != Names::Any || audience.is_some()).then_some(Self { methods, audience })
    }

    pub(super) fn write(&self) -> String {
        let audience = self.audience.as_ref().map_or("*", Audience::as_str);
        write("rpc", "lxm", &[("lxm", &self.methods.texts()), ("aud", &[audience])])
    }
}

impl Blob {
    pub(super) fn read(syntax: &Syntax<'_>) -> Option<Self> {
        if !syntax.has_only(&["accept"]) {
            return None;
        }
        let mut accept: Vec<_> =
            syntax.all_or_positional("accept")?.iter().map(|range| range.to_ascii_lowercase()).collect();
        if accept.is_empty() || !accept.iter().all(|range| is_range(range)) {
            return None;
        }
        // It includes every other range, so the canonical form has it alone.
        if accept.iter().any(|range| range == "*/*") {
            return Some(Self { accept: vec!["*/*".to_owned()] });
        }
        // The canonical form has no range that another one includes: `image/png` goes when
        // `image/*` is there.
        accept.sort_unstable();
        accept.dedup();
        let whole: Vec<_> =
            accept.iter().filter_map(|range| range.strip_suffix('*')).map(str::to_owned).collect();
        accept.retain(|range| range.ends_with('*') || !whole.iter().any(|kind| range.starts_with(kind)));
        Some(Self { accept })
    }

    pub(super) fn write(&self) -> String {
        let accept: Vec<_> = self.accept.iter().map(String::as_str).collect();
        write("blob", "accept", &[("accept", &accept)])
    }

    /// Whether files of this media type may be uploaded.
    pub fn includes(&self, mime: &str) -> bool {
        let mime = mime.to_ascii_lowercase();
        let matches = |range: &String| match range.strip_suffix('*') {
            Some("*/") => true,
            // The prefix keeps its slash: `image/` does not include `imagery/x`.
            Some(kind) => mime.starts_with(kind),
            None => *range == mime,
        };
        is_type(&mime) && self.accept.iter().any(matches)
    }
}

/// Whether a text is `type/subtype` of visible ASCII, without wildcards.
fn is_type(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'*'))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
}

fn is_range(text: &str) -> bool {
    match text.strip_suffix("/*") {
        Some("*") => true,
        Some(kind) => is_type(&format!("{kind}/x")),
        None => is_type(text),
    }
}

impl Account {
    pub(super) fn read(syntax: &Syntax<'_>) -> Option<Self> {
        if !syntax.has_only(&["attr", "action"]) {
            return None;
        }
        let attribute = match single(&syntax.all_or_positional("attr")?)? {
            "email" => AccountAttribute::Email,
            "repo" => AccountAttribute::Repo,
            "status" => AccountAttribute::Status,
            _ => return None,
        };
        // `manage` includes `read`, so the stronger of several actions counts.
        let mut action = AccountAction::Read;
        for given in syntax.all("action") {
            action = action.max(match given {
                "read" => AccountAction::Read,
                "manage" => AccountAction::Manage,
                _ => return None,
            });
        }
        Some(Self { attribute, action })
    }

    pub(super) fn write(self) -> String {
        let action: &[&str] = match self.action {
            AccountAction::Read => &[],
            AccountAction::Manage => &["manage"],
        };
        write("account", "attr", &[("attr", &[self.attribute.as_str()]), ("action", action)])
    }
}

impl AccountAttribute {
    /// The attribute as scopes spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Repo => "repo",
            Self::Status => "status",
        }
    }
}

impl Identity {
    pub(super) fn read(syntax: &Syntax<'_>) -> Option<Self> {
        if !syntax.has_only(&["attr"]) {
            return None;
        }
        match single(&syntax.all_or_positional("attr")?)? {
            "handle" => Some(Self::Handle),
            "*" => Some(Self::Any),
            _ => None,
        }
    }

    pub(super) fn write(self) -> String {
        let attribute = match self {
            Self::Handle => "handle",
            Self::Any => "*",
        };
        write("identity", "attr", &[("attr", &[attribute])])
    }
}

impl Include {
    pub(super) fn read(syntax: &Syntax<'_>) -> Option<Self> {
        if !syntax.has_only(&["nsid", "aud"]) {
            return None;
        }
        let nsid = single(&syntax.all_or_positional("nsid")?)?.parse().ok()?;
        // Absent, the `rpc` permissions of the set that inherit the service are left out on
        // expansion.
        let given = syntax.all("aud");
        let audience = if given.is_empty() { None } else { Some(single(&given)?.parse().ok()?) };
        Some(Self { nsid, audience })
    }

    pub(super) fn write(&self) -> String {
        let audience: Vec<_> = self.audience.iter().map(Audience::as_str).collect();
        write("include", "nsid", &[("nsid", &[self.nsid.as_str()]), ("aud", &audience)])
    }

    /// Whether a permission set of this name may grant permissions for another name: one in its own
    /// group or below it (atproto Permission, "Namespace Authority").
    pub fn has_authority_over(&self, other: &Nsid) -> bool {
        let name = self.nsid.as_str();
        // The group keeps its last dot, so that `com.example` does not reach into `com.example2`.
        let group = name.len() - self.nsid.name().len();
        name.get(..group).is_some_and(|group| other.as_str().starts_with(group))
    }
}
