//! Messages for people, on standard error. Standard output is for what programs read.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

pub fn line(text: &str) {
    eprintln!("{text}");
}

/// A step that takes a while. It is announced at its start, and its duration is printed at its end.
#[derive(Debug)]
pub struct Step {
    what: String,
    started: Instant,
}

impl Step {
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        line(&format!("  {} {what} …", paint("2", "·")));
        Self { what, started: Instant::now() }
    }

    pub fn done(self, detail: &str) {
        let took = seconds(self.started.elapsed());
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        line(&format!("  {} {} … {took}{detail}", paint("32", "✓"), self.what));
    }
}

/// A duration in words: `0.4 s`, `41 s`, `3 min 20 s`.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        whole @ 10..100 => format!("{whole} s"),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// `text` in an ANSI colour or weight, if standard error is a terminal.
pub fn paint(code: &str, text: &str) -> String {
    if std::io::stderr().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
