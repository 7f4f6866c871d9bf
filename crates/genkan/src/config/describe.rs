//! The configuration as text: the documentation page, and the effective settings.

use std::fmt::Write as _;

use super::key::{Key, Preset};
use super::load::sections;
use super::reader::{EffectiveSetting, Source};

/// Returns the text of `docs/configuration.md`.
pub(crate) fn configuration_page() -> String {
    let mut page = PREFACE.to_owned();
    for (section, doc, keys) in sections() {
        let _ = writeln!(page, "\n## `[{section}]`\n\n{}\n", paragraph(doc));
        let _ = writeln!(page, "| key | variable | meaning | value | default |");
        let _ = writeln!(page, "|---|---|---|---|---|");
        for key in keys {
            let _ = writeln!(page, "{}", row(key));
        }
    }
    page
}

/// Returns one line per key, with value and source. Secrets are shown as `[sealed]`.
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

Every setting has an environment variable and a key in a TOML file, which `--config` or
`GENKAN_CONFIG` names. Genkan uses the first of these that is set: the `GENKAN_*` variable, the
reference PDS's `PDS_*` variable for the same setting, the key in the file, the default. An empty
variable counts as not set. An unknown `GENKAN_*` variable or an unknown key is an error.

Where a row says *or a file*, the variable with `_FILE` appended may name a file that holds the value.
A secret is the whole content of a file that other users of the machine cannot read. A list has one
value per line, and `#` begins a comment. In variables, the values of a list are separated by commas;
in the TOML file, write a TOML list. `off` removes the default of an optional setting.

`genkan config check` lists every problem. `genkan config show` prints each effective value and where
it came from.

The section `[external]` was called `[elsewhere]` in earlier releases. Genkan still reads it under that name.
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
        Preset::Required(example) => format!("**required**, e.g. `{example}`"),
        Preset::Absent => "none".to_owned(),
        Preset::Value(text) => format!("`{text}`"),
        Preset::Derived(words) => words.to_owned(),
    };
    let form = if key.list { format!("a list; each value is {}", key.form) } else { key.form.to_owned() };
    format!("| `{}` | {variable} | {} | {form} | {default} |", key.name, paragraph(key.doc))
}

fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
