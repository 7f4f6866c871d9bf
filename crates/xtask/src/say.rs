//! What the commands tell people, on standard error: standard output is for what programs read.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

pub fn line(text: &str) {
    eprintln!("{text}");
}

/// Something that takes a while: said when it begins, and with its duration when it is done.
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

/// `0.4 s`, `41 s`, `3 min 20 s`.
pub fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        whole @ 10..100 => format!("{whole} s"),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// `text` in an ANSI colour or weight, when a person is looking.
pub fn paint(code: &str, text: &str) -> String {
    if std::io::stderr().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
