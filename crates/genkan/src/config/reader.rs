//! Finds the value of each key and records where it came from.

use std::path::Path;

use super::environment::Environment;
use super::key::{Key, Preset};
use super::problem::{Findings, Problem, Problems};
use super::secret_file::{read_lines, read_secret};
use super::suggest::nearest;
use super::toml_file::{TomlFile, suggestion};
use super::value::Setting;

/// `GENKAN_*` variables that are not keys.
const OTHERS: [&str; 1] = [CONFIG_FILE];
/// The variable that names the TOML file.
pub(crate) const CONFIG_FILE: &str = "GENKAN_CONFIG";

#[derive(Debug)]
pub(super) struct Reader<'a> {
    environment: &'a Environment,
    file: TomlFile,
    shown: Vec<EffectiveSetting>,
    problems: Vec<Problem>,
}

/// A key with its effective value, for `genkan config show`.
#[derive(Debug)]
pub(crate) struct EffectiveSetting {
    pub(crate) key: &'static Key,
    /// `[sealed]` for secrets. `None` where the key is absent.
    pub(crate) value: Option<String>,
    pub(crate) source: Source,
}

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    /// Set by this variable, or by this key of the file.
    Set(String),
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment, file: Option<&Path>, known: &[&'static Key]) -> Self {
        let mut problems = Vec::new();
        unknown_names(environment, known, &mut problems);
        for name in environment.unreadable() {
            problems.push(Problem {
                setting: name.to_owned(),
                wrong: "is not UTF-8 text".to_owned(),
                mend: "set it to UTF-8 text".to_owned(),
            });
        }
        let file = file.map(|path| TomlFile::read(path, known, &mut problems)).unwrap_or_default();
        Self { environment, file, shown: Vec::new(), problems }
    }

    pub(super) fn read<T: Setting>(&mut self, key: &'static Key) -> Option<T> {
        self.read_or(key, || None)
    }

    /// Reads a key whose default is derived from other keys.
    ///
    /// `derive` returns `None` when those could not be read: their own problems are enough to
    /// report.
    pub(super) fn read_or<T: Setting>(
        &mut self,
        key: &'static Key,
        derive: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let (value, source) = match self.find(key) {
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
            Ok(Some((text, setting))) => match T::parse(text.trim()) {
                Ok(value) => (value, Source::Set(setting)),
                Err(reason) => {
                    // A secret is not repeated in an error, which ends up in logs.
                    let shown = if T::SECRET { String::new() } else { format!("{text:?} ") };
                    self.problems.push(Problem {
                        setting,
                        wrong: format!("{shown}{reason}"),
                        mend: format!("use {}", T::FORM),
                    });
                    return None;
                }
            },
            Ok(None) => match key.default {
                Preset::Value(text) => (T::parse(text).expect("defaults are valid"), Source::Default),
                Preset::Derived(_) => (derive()?, Source::Default),
                Preset::Absent => {
                    (T::absent().expect("only optional keys go without a default"), Source::Default)
                }
                Preset::Required(example) => {
                    self.problems.push(Problem {
                        setting: key.env.to_owned(),
                        wrong: "is required".to_owned(),
                        mend: format!("set it, for example, to {example}"),
                    });
                    return None;
                }
            },
        };
        self.shown.push(EffectiveSetting { key, value: value.show(), source });
        Some(value)
    }

    /// Adds what a check found, with the name under which each setting was written.
    pub(super) fn add(&mut self, found: Findings) {
        for (env, wrong, mend) in found.0 {
            let source = self.shown.iter().find(|shown| shown.key.env == env).map(|shown| &shown.source);
            let setting = match source {
                Some(Source::Set(name)) => name.clone(),
                _ => env.to_owned(),
            };
            self.problems.push(Problem { setting, wrong, mend });
        }
    }

    pub(super) fn finish(self) -> (Vec<EffectiveSetting>, Problems) {
        (self.shown, Problems(self.problems))
    }

    /// Returns the text of a key, and the variable or file key that holds it.
    fn find(&self, key: &Key) -> Result<Option<(String, String)>, Problem> {
        if let Some(file_env) = key.file_env()
            && let Some(path) = self.environment.value(&file_env)
        {
            // Set twice, one of the values would be ignored in silence.
            if self.environment.value(key.env).is_some() {
                return Err(Problem {
                    setting: file_env,
                    wrong: format!("{} is set as well", key.env),
                    mend: "remove one of them".to_owned(),
                });
            }
            let read = if key.secret { read_secret } else { read_lines };
            return match read(Path::new(path)) {
                Ok(text) => Ok(Some((text, file_env))),
                Err((wrong, mend)) => Err(Problem { setting: file_env, wrong, mend }),
            };
        }
        if let Some(text) = self.environment.value(key.env) {
            return Ok(Some((text.to_owned(), key.env.to_owned())));
        }
        if let Some(alias) = key.alias
            && let Some(text) = self.environment.value(alias.name)
        {
            return Ok(Some(((alias.translate)(text), alias.name.to_owned())));
        }
        Ok(self.file.value(key).map(|(text, place)| (text.to_owned(), place)))
    }
}

fn unknown_names(environment: &Environment, known: &[&'static Key], problems: &mut Vec<Problem>) {
    let names: Vec<String> = known
        .iter()
        .flat_map(|key| [Some(key.env.to_owned()), key.file_env()])
        .flatten()
        .chain(OTHERS.map(str::to_owned))
        .collect();
    for name in environment.genkan_names() {
        if !names.iter().any(|known| known == name) {
            let mend = match name
                .strip_suffix("_FILE")
                .filter(|name| known.iter().any(|key| key.env == *name))
            {
                Some(name) => format!("set {name} instead; only secrets and lists can be read from a file"),
                None => suggestion(nearest(name, names.iter().map(String::as_str)), "", ""),
            };
            let wrong = "unknown setting".to_owned();
            problems.push(Problem { setting: name.to_owned(), wrong, mend });
        }
    }
}
