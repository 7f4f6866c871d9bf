//! The configuration told to people: the page of the documentation, and what is in force.

use std::fmt::Write as _;

use super::key::{Key, Preset};
use super::reader::{EffectiveSetting, Source};
use super::sections;

/// `docs/configuration.md`.
pub(crate) fn configuration_page() -> String {
    let mut page = PREFACE.to_owned();
    for (section, doc, keys) in sections() {
        let _ = writeln!(page, "\n## `[{section}]`\n\n{}\n", paragraph(doc));
        let _ = writeln!(page, "| key | variable | what | written as | default |");
        let _ = writeln!(page, "|---|---|---|---|---|");
        for key in keys {
            let _ = writeln!(page, "{}", row(key));
        }
    }
    page
}

/// One line a key: value and source. Secrets are `[sealed]`.
pub(crate) fn show(shown: &[EffectiveSetting]) -> String {
    let mut text = String::new();
    let mut section = "";
    for entry in shown {
        if entry.key.section != section {
            section = entry.key.section;
            let _ = writeln!(text, "{}[{section}]", if text.is_empty() { "" } else { "\n" });
        }
        let value = entry.value.as_deref().unwrap_or("(none)");
        let source = match &entry.source {
            Source::Default => "default",
            Source::Set(name) => name,
        };
        let _ = writeln!(text, "{} = {value}  # {source}", entry.key.name);
    }
    text
}

const PREFACE: &str = "\
<!-- Made by `genkan docs configuration`. Change the declarations in crates/genkan/src/config instead. -->

# Configuration

Every setting has a variable and a key in a TOML file, which `--config` or `GENKAN_CONFIG` names. The first of
these that is set counts: the `GENKAN_*` variable, the reference PDS's `PDS_*` variable for the same thing, the
file, the default. An empty variable counts as not set. A `GENKAN_*` variable or a key of the file that Genkan does not know is an error.

Where it says *or a file*, the variable with `_FILE` at its end may name a file that holds the value: a secret by
itself, in a file that others on the machine may not read; a list with a value a line, where `#` begins a comment.
In variables, lists have commas between their values; in the file they are TOML lists. `off` takes an optional value away.

`genkan config check` names everything that is wrong, and `genkan config show` tells each value and where it came from.
";

fn row(key: &Key) -> String {
    let mut variable = format!("`{}`", key.env);
    if key.from_file {
        variable.push_str(" *or a file*");
    }
    if let Some(alias) = key.alias {
        let _ = write!(variable, "<br>`{}`", alias.name);
    }
    let default = match key.default {
        Preset::Required(example) => format!("**must be set**, e.g. `{example}`"),
        Preset::Absent => "none".to_owned(),
        Preset::Value(text) => format!("`{text}`"),
        Preset::Derived(words) => words.to_owned(),
    };
    let form = if key.list { format!("a list of: {}", key.form) } else { key.form.to_owned() };
    format!("| `{}` | {variable} | {} | {form} | {default} |", key.name, paragraph(key.doc))
}

fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
