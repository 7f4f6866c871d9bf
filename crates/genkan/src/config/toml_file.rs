//! The TOML file: sections of keys, each value written as text.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::key::Key;
use super::problem::Problem;
use super::suggest::nearest;

/// Values of the file by `section.key`, in the form the environment would have them.
#[derive(Debug, Default)]
pub(super) struct TomlFile {
    values: BTreeMap<String, String>,
    name: String,
}

impl TomlFile {
    pub(super) fn read(path: &Path, known: &[&'static Key], problems: &mut Vec<Problem>) -> Self {
        let name = path.display().to_string();
        let mut problem = |wrong: String, mend: &str| {
            problems.push(Problem { setting: name.clone(), wrong, mend: mend.to_owned() });
        };
        let table = match std::fs::read_to_string(path) {
            Err(error) => {
                problem(
                    format!("cannot be read ({})", plain(&error)),
                    "name a readable file with --config or GENKAN_CONFIG",
                );
                return Self { name, ..Self::default() };
            }
            Ok(text) => match text.parse::<Table>() {
                Ok(table) => table,
                Err(error) => {
                    let line = error.span().map_or(1, |span| {
                        1 + text.get(..span.start).unwrap_or_default().matches('\n').count()
                    });
                    problem(
                        format!("is not TOML: line {line}: {}", error.message().replace('\n', " ")),
                        "correct that line",
                    );
                    return Self { name, ..Self::default() };
                }
            },
        };
        let mut values = BTreeMap::new();
        let mut sections: Vec<&str> = known.iter().map(|key| key.section).collect();
        sections.dedup();
        for (section, content) in table {
            let Value::Table(keys) = content else {
                problem(
                    format!("{section} stands outside of a section"),
                    &format!("put it below one of [{}]", sections.join("], [")),
                );
                continue;
            };
            if !sections.contains(&section.as_str()) {
                let near = nearest(&section, sections.iter().copied());
                problem(format!("there is no section [{section}]"), &meant(near, "[", "]"));
                continue;
            }
            for (key, value) in keys {
                let path = format!("{section}.{key}");
                let paths: Vec<String> = known.iter().map(|known| known.path()).collect();
                if !paths.contains(&path) {
                    let near = nearest(&path, paths.iter().map(String::as_str));
                    problem(format!("there is no setting {path}"), &meant(near, "", ""));
                    continue;
                }
                match text_of(&value) {
                    Some(text) => drop(values.insert(path, text)),
                    None => problem(
                        format!("{path} is neither a text, a number, true or false, nor a list of texts"),
                        "write it as docs/configuration.md says",
                    ),
                }
            }
        }
        Self { values, name }
    }

    /// The value and how to name its place.
    pub(super) fn value(&self, key: &Key) -> Option<(&str, String)> {
        let path = key.path();
        let value = self.values.get(&path)?;
        Some((value, format!("{path} in {}", self.name)))
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Array(list) => {
            let texts: Option<Vec<&str>> =
                list.iter().map(|value| value.as_str().filter(|text| !text.contains(','))).collect();
            texts.map(|texts| texts.join(","))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

pub(super) fn meant(near: Option<&str>, before: &str, after: &str) -> String {
    match near {
        Some(name) => format!("did you mean {before}{name}{after}?"),
        None => "remove it, or see docs/configuration.md for the names there are".to_owned(),
    }
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
