//! The process environment, read once.

use std::collections::BTreeMap;

/// Variables by name. An empty value counts as not set, since container tools set variables so.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names of `GENKAN_*` and `PDS_*` variables whose value is not UTF-8.
    unreadable: Vec<String>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        let mut read = Self::default();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| is_ours(name)) else { continue };
            match value.into_string() {
                Ok(value) if value.is_empty() => {}
                Ok(value) => drop(read.variables.insert(name.to_owned(), value)),
                Err(_) => read.unreadable.push(name.to_owned()),
            }
        }
        read
    }

    /// Makes an environment of the given variables only.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = pairs
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { variables, unreadable: Vec::new() }
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    pub(super) fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.unreadable.iter().map(String::as_str)
    }

    /// Names of variables that only Genkan can be meant by, apart from those for its own tests.
    pub(super) fn genkan_names(&self) -> impl Iterator<Item = &str> {
        self.variables
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with("GENKAN_") && !name.starts_with("GENKAN_TEST_"))
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("GENKAN_") || name.starts_with("PDS_")
}
