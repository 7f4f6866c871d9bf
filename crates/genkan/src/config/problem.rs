//! What is wrong with a configuration, a line each.

use std::fmt;

/// One thing to mend: the setting as the operator wrote it, what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// A variable's name, or a key's with its section and file.
    pub setting: String,
    pub wrong: String,
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.setting, self.wrong, self.mend)
    }
}

/// Everything that is wrong, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// What a check found, told by the key's own variable; the reader knows where the value came from.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(super) Vec<(&'static str, String, String)>);

impl Findings {
    pub(super) fn add(&mut self, env: &'static str, wrong: impl Into<String>, mend: impl Into<String>) {
        self.0.push((env, wrong.into(), mend.into()));
    }
}
