//! Permission sets: published lists of permissions that `include:` scopes stand for (atproto
//! Permission, "Permission Sets").

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::scope::{Include, Names, Repo, RepoAction, Rpc, Scope};
use crate::syntax::Nsid;

/// A permission set with at most [`MAX_ENTRIES`] permissions and [`MAX_NAMES`] names.
#[derive(Clone, Debug, PartialEq)]
pub struct PermissionSet {
    title: LocalizedText,
    detail: LocalizedText,
    permissions: Vec<Map<String, Value>>,
}

/// Why a document is not accepted as a permission set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a lexicon document.
    #[error("not a lexicon document")]
    NotALexicon,
    /// The document has another name.
    #[error("the document's \"id\" is another one")]
    WrongId,
    /// The lexicon defines something else.
    #[error("the lexicon is not a permission set")]
    NotAPermissionSet,
    /// More than [`MAX_ENTRIES`] permissions or [`MAX_NAMES`] names.
    #[error("the permission set is too large")]
    TooLarge,
}

/// The most permissions that a set may have.
pub const MAX_ENTRIES: usize = 512;

/// The most names of methods and collections that a set may have, over all permissions.
pub const MAX_NAMES: usize = 2048;

/// The longest title or detail that is kept, in bytes; a longer one is treated as missing.
pub const MAX_TEXT: usize = 2048;

const MAX_LANGUAGES: usize = 256;

impl PermissionSet {
    /// Reads the lexicon document of this name, the value of the record
    /// `com.atproto.lexicon.schema/<name>`.
    pub fn parse(document: &Value, nsid: &Nsid) -> Result<Self, Error> {
        let document = WireDocument::deserialize(document).map_err(|_| Error::NotALexicon)?;
        if document.lexicon != 1 {
            return Err(Error::NotALexicon);
        }
        // A record may be published under any key, so the document itself must have the requested
        // name.
        if document.id != nsid.as_str() {
            return Err(Error::WrongId);
        }
        let main = document.defs.get("main").and_then(Value::as_object).ok_or(Error::NotAPermissionSet)?;
        if main.get("type").and_then(Value::as_str) != Some("permission-set") {
            return Err(Error::NotAPermissionSet);
        }
        let listed = main.get("permissions").and_then(Value::as_array).ok_or(Error::NotAPermissionSet)?;
        // Anyone can publish a set. Its size is bounded before it is expanded, since each name is
        // compared later.
        if listed.len() > MAX_ENTRIES || names_in(listed) > MAX_NAMES {
            return Err(Error::TooLarge);
        }
        // Entries that are no objects, or that a newer lexicon defines, grant nothing and do no
        // harm.
        let permissions = listed.iter().filter_map(Value::as_object).cloned().collect();
        let (title, detail) = (LocalizedText::read(main, "title"), LocalizedText::read(main, "detail"));
        Ok(Self { title, detail, permissions })
    }

    /// The title in the first of the languages (BCP 47) that it has, or else without a language.
    pub fn title(&self, languages: &[&str]) -> Option<&str> {
        self.title.choose(languages)
    }

    /// The description in the first of the languages (BCP 47) that it has, or else without a
    /// language.
    pub fn detail(&self, languages: &[&str]) -> Option<&str> {
        self.detail.choose(languages)
    }

    /// The permissions that an `include:` of this set stands for. An entry that is malformed, or
    /// names something outside of the set's own namespace, is left out; the others count.
    pub fn expand(&self, include: &Include) -> Vec<Scope> {
        self.permissions.iter().filter_map(|entry| read_permission(entry, include)).collect()
    }
}

/// A text in several languages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LocalizedText {
    text: Option<String>,
    by_language: BTreeMap<String, String>,
}

impl LocalizedText {
    fn read(main: &Map<String, Value>, name: &str) -> Self {
        let fits = |text: &&str| text.len() <= MAX_TEXT;
        let text = main.get(name).and_then(Value::as_str).filter(fits).map(str::to_owned);
        let listed = main.get(&format!("{name}:lang")).and_then(Value::as_object);
        let by_language = listed
            .into_iter()
            .flatten()
            // The publisher chooses how many texts there are, and they stay in the cache.
            .take(MAX_LANGUAGES)
            .filter_map(|(language, text)| {
                // Language tags are compared without case (RFC 5646 §2.1.1).
                Some((language.to_ascii_lowercase(), text.as_str().filter(fits)?.to_owned()))
            })
            .collect();
        Self { text, by_language }
    }

    /// For each language an exact match comes first, then the language without its region.
    fn choose(&self, languages: &[&str]) -> Option<&str> {
        let find = |language: &&str| {
            let language = language.to_ascii_lowercase();
            let whole = self.by_language.get(&language);
            // Without a text for `de-AT`, the text for `de` is used (RFC 4647 §3.4).
            whole.or_else(|| self.by_language.get(language.split('-').next()?))
        };
        languages.iter().find_map(find).or(self.text.as_ref()).map(String::as_str)
    }
}

fn names_in(permissions: &[Value]) -> usize {
    let members = permissions.iter().filter_map(Value::as_object).flat_map(Map::values);
    members.filter_map(Value::as_array).map(Vec::len).sum()
}

fn read_permission(entry: &Map<String, Value>, include: &Include) -> Option<Scope> {
    if text(entry, "type")? != "permission" {
        return None;
    }
    match text(entry, "resource")? {
        "repo" => read_repo(entry, include).map(Scope::Repo),
        // Only these two: a set must not grant `account`, `identity` or `blob`.
        "rpc" => read_rpc(entry, include).map(Scope::Rpc),
        _ => None,
    }
}

fn read_repo(entry: &Map<String, Value>, include: &Include) -> Option<Repo> {
    // As in a scope: an unknown member may restrict the permission, so the entry grants nothing.
    if !has_only(entry, &["collection", "action"]) {
        return None;
    }
    let collections = own_names(entry, "collection", include)?;
    let actions = match entry.get("action") {
        None => RepoAction::ALL.to_vec(),
        Some(_) => RepoAction::read(texts(entry, "action")?)?,
    };
    Some(Repo { collections, actions })
}

fn read_rpc(entry: &Map<String, Value>, include: &Include) -> Option<Rpc> {
    if !has_only(entry, &["lxm", "aud", "inheritAud"]) {
        return None;
    }
    let audience = match (entry.get("aud"), entry.get("inheritAud")) {
        // A set cannot name a service of its own: either any service, or the one that the app asked
        // for.
        (Some(Value::String(any)), None) if any == "*" => None,
        (None, Some(Value::Bool(true))) => Some(include.audience.clone()?),
        _ => return None,
    };
    Some(Rpc { methods: own_names(entry, "lxm", include)?, audience })
}

/// Reads names that are all within the set's own namespace. `*` is refused: no set has authority
/// over all names.
fn own_names(entry: &Map<String, Value>, member: &str, include: &Include) -> Option<Names> {
    match Names::read(texts(entry, member)?)? {
        // `*` is refused as well: a set has authority over its own namespace only.
        Names::These(names) if names.iter().all(|name| include.has_authority_over(name)) => {
            Some(Names::These(names))
        }
        _ => None,
    }
}

fn has_only(entry: &Map<String, Value>, known: &[&str]) -> bool {
    entry.keys().all(|key| key == "type" || key == "resource" || known.contains(&&**key))
}

fn text<'a>(entry: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    entry.get(member)?.as_str()
}

fn texts<'a>(entry: &'a Map<String, Value>, member: &str) -> Option<Vec<&'a str>> {
    entry.get(member)?.as_array()?.iter().map(Value::as_str).collect()
}

#[derive(Deserialize)]
struct WireDocument {
    lexicon: u64,
    id: String,
    defs: Map<String, Value>,
}
