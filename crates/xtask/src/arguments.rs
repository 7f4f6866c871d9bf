//! Command lines of flags, options with a value, and words.

use anyhow::{Context as _, Result, bail};

/// The part of a command line that has not been read yet.
#[derive(Debug)]
pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn new(arguments: impl Iterator<Item = String>) -> Self {
        Self(arguments.collect())
    }

    /// Takes `--name` off the line and returns whether it was there.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|argument| argument != name);
        self.0.len() != before
    }

    /// Takes `--name value` or `--name=value` off the line and returns the value.
    pub fn option(&mut self, name: &str) -> Result<Option<String>> {
        let with_equals = format!("{name}=");
        let Some(at) =
            self.0.iter().position(|argument| argument == name || argument.starts_with(&with_equals))
        else {
            return Ok(None);
        };
        let found = self.0.remove(at);
        if let Some(value) = found.strip_prefix(&with_equals) {
            return Ok(Some(value.to_owned()));
        }
        if at == self.0.len() {
            bail!("{name} needs a value");
        }
        Ok(Some(self.0.remove(at)))
    }

    /// Takes the first word that does not begin with `-` off the line.
    pub fn word(&mut self) -> Option<String> {
        let at = self.0.iter().position(|argument| !argument.starts_with('-'))?;
        Some(self.0.remove(at))
    }

    /// Refuses whatever is left on the line.
    pub fn end(self) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(unknown) => bail!("{unknown} is not an option of this command; try --help"),
        }
    }

    /// Takes an option off the line whose value is a whole number.
    pub fn number(&mut self, name: &str) -> Result<Option<usize>> {
        self.option(name)?
            .map(|text| text.parse().with_context(|| format!("{name} needs a number")))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_options_and_words_come_in_any_order() {
        let mut line = arguments("--hosts 3 --json forward --data=/here");
        assert!(line.flag("--json"));
        assert_eq!(line.number("--hosts").unwrap(), Some(3));
        assert_eq!(line.option("--data").unwrap().as_deref(), Some("/here"));
        assert_eq!(line.word().as_deref(), Some("forward"));
        line.end().unwrap();
    }

    #[test]
    fn unknown_options_and_missing_values_are_refused() {
        assert!(arguments("--jsn").end().is_err());
        assert!(arguments("--data").option("--data").is_err());
        assert!(arguments("--hosts many").number("--hosts").is_err());
    }
}
