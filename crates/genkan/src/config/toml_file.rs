//! The TOML file: sections of keys.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::key::Key;
use super::problem::{Problem, io_reason};
use super::suggest::nearest;

/// Former names of sections, with the present ones. Files with a former name are still read.
const FORMER_SECTIONS: [(&str, &str); 1] = [("elsewhere", "external")];

/// Values of the file by `section.key`, in the form that environment variables have.
#[derive(Debug, Default)]
pub(super) struct TomlFile {
    values: BTreeMap<String, Entry>,
    name: String,
}

#[derive(Debug)]
struct Entry {
    text: String,
    /// The path as the file has it: its section may have a former name.
    written: String,
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
                    format!("cannot be read: {}", io_reason(&error)),
                    "pass a readable file with --config or GENKAN_CONFIG",
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
                        format!("invalid TOML in line {line}: {}", error.message().replace('\n', " ")),
                        "fix that line",
                    );
                    return Self { name, ..Self::default() };
                }
            },
        };
        let mut values = BTreeMap::new();
        let mut sections: Vec<&str> = known.iter().map(|key| key.section).collect();
        // Keys of one section stand together, so equal names are adjacent.
        sections.dedup();
        for (written_section, content) in &table {
            let Value::Table(keys) = content else {
                problem(
                    format!("{written_section} is outside of any section"),
                    &format!("move it into one of [{}]", sections.join("], [")),
                );
                continue;
            };
            let section = present_name(written_section);
            if !sections.contains(&section) {
                let near = nearest(section, sections.iter().copied());
                problem(format!("unknown section [{section}]"), &suggestion(near, "[", "]"));
                continue;
            }
            // With both names, it would be unclear which of two values counts.
            if section != written_section && table.contains_key(section) {
                problem(
                    format!("[{written_section}] is the former name of [{section}], which the file has too"),
                    &format!("move all its settings into [{section}]"),
                );
                continue;
            }
            for (key, value) in keys {
                let (path, written) = (format!("{section}.{key}"), format!("{written_section}.{key}"));
                let paths: Vec<String> = known.iter().map(|known| known.path()).collect();
                if !paths.contains(&path) {
                    let near = nearest(&path, paths.iter().map(String::as_str));
                    problem(format!("unknown setting {written}"), &suggestion(near, "", ""));
                    continue;
                }
                match text_of(value) {
                    Some(text) => drop(values.insert(path, Entry { text, written })),
                    None => problem(
                        format!("{written} is not text, a number, true, false or a list of texts"),
                        "see docs/configuration.md for its form",
                    ),
                }
            }
        }
        Self { values, name }
    }

    /// Returns the value of a key, and the name of the key and file for messages.
    pub(super) fn value(&self, key: &Key) -> Option<(&str, String)> {
        let entry = self.values.get(&key.path())?;
        Some((&entry.text, format!("{} in {}", entry.written, self.name)))
    }
}

fn present_name(section: &str) -> &str {
    let renamed = FORMER_SECTIONS.iter().find(|(former, _)| *former == section);
    renamed.map_or(section, |(_, present)| present)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Array(list) => {
            let texts: Option<Vec<&str>> =
                // The items are joined by commas, as in a variable. An item with a comma would
                // become two.
                list.iter().map(|value| value.as_str().filter(|text| !text.contains(','))).collect();
            texts.map(|texts| texts.join(","))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

/// What to do about an unknown name: the nearest known one, or where all names are listed.
pub(super) fn suggestion(near: Option<&str>, before: &str, after: &str) -> String {
    match near {
        Some(name) => format!("did you mean {before}{name}{after}?"),
        None => "remove it, or look up its name in docs/configuration.md".to_owned(),
    }
}
