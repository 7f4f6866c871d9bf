//! Keys: settings as operators see them.

/// One setting, as operators see it.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    pub(crate) doc: &'static [&'static str],
    /// The form of a value, in words.
    pub(crate) form: &'static str,
    pub(crate) env: &'static str,
    pub(crate) alias: Option<Alias>,
    /// The default, or what the operator must set.
    pub(crate) default: Preset,
    pub(crate) secret: bool,
    pub(crate) list: bool,
    /// Whether `<env>_FILE` may name a file that holds the value.
    pub(crate) from_file: bool,
}

/// The value of a key that is not set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Preset {
    /// None: the operator must set the key. The text is an example.
    Required(&'static str),
    /// No value: the feature is off, or the list is empty.
    Absent,
    /// This value, as an operator would write it.
    Value(&'static str),
    /// Derived from other settings, as the text says.
    Derived(&'static str),
}

/// The reference PDS's variable for a setting, and the translation of its value.
#[derive(Clone, Copy)]
pub(crate) struct Alias {
    pub(crate) name: &'static str,
    pub(crate) translate: fn(&str) -> String,
}

impl std::fmt::Debug for Alias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Key {
    /// The name in the TOML file, with its section: `listen.workers`.
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    pub(crate) fn file_env(&self) -> Option<String> {
        self.from_file.then(|| format!("{}_FILE", self.env))
    }
}
