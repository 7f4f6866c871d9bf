//! How commands print: text for people, JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

/// Standard output. Coloured only on a terminal, and not with `NO_COLOR`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let colour = !json && io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour }
    }

    /// Prints the value as JSON, or the text made of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            self.line(&serde_json::to_string_pretty(value)?)
        } else {
            self.line(text(value).trim_end_matches('\n'))
        }
    }

    /// Prints text as it is, with a line end.
    #[expect(clippy::unused_self, reason = "all printing goes through the output")]
    pub(crate) fn line(self, text: &str) -> anyhow::Result<()> {
        match writeln!(io::stdout().lock(), "{text}") {
            // The reader of the pipe (`| head`) has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.painted(text, "32")
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.painted(text, "31")
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.painted(text, "2")
    }

    fn painted(self, text: &str, code: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
