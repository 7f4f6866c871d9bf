//! Test runners whose output is passed on and counted.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::outcome::Counts;
use crate::guard;
use crate::say::{line, seconds};

/// A program that runs longer than this hangs, and is killed.
const GIVE_UP_AFTER: Duration = Duration::from_mins(25);

/// Runs a program, passes its output on, and returns the counts that it prints. A program that
/// prints no counts is one check, by its exit status.
pub(super) fn run(command: &mut Command) -> Result<Counts> {
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    // The guard kills the program if this process is killed, because a child outlives its parent.
    guard::watch(child.id())?;
    let counts = Arc::new(Mutex::new(None));
    let stdout = child.stdout.take().map(|stream| pass_on(stream, std::io::stdout(), &counts));
    let stderr = child.stderr.take().map(|stream| pass_on(stream, std::io::stderr(), &counts));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > GIVE_UP_AFTER {
            line(&format!("{name} did not end within {} and is killed", seconds(GIVE_UP_AFTER)));
            // The loop goes on until the status can be read, so that no zombie is left.
            child.kill()?;
        }
        sleep(Duration::from_millis(20));
    };
    guard::forget(child.id());
    // The last lines, with the summary, may still be in the pipes when the program has ended.
    for reader in [stdout, stderr].into_iter().flatten() {
        // A reader returns nothing, and ends with its stream.
        let _ = reader.join();
    }
    let counted = counts.lock().expect("no reader panics").take();
    Ok(match counted {
        None => Counts::one(status.success()),
        // A runner can fail without a failed test, when it does not compile or crashes.
        Some(counts) if !status.success() => Counts { failed: counts.failed.max(1), ..counts },
        Some(counts) => counts,
    })
}

fn pass_on(
    stream: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    counts: &Arc<Mutex<Option<Counts>>>,
) -> std::thread::JoinHandle<()> {
    let counts = Arc::clone(counts);
    spawn(move || {
        // Split by bytes and not by `lines`, which stops at the first line that is not UTF-8.
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            // The reader of this output may have gone. The counting goes on without it.
            let _ = to.write_all(&line).and_then(|()| to.write_all(b"\n"));
            if let Some(more) = counts_in(&without_colours(&String::from_utf8_lossy(&line))) {
                let mut counts = counts.lock().expect("no reader panics");
                *counts = Some(counts.unwrap_or_default().and(more));
            }
        }
    })
}

/// Returns the counts in a line of a test runner's summary, for nextest, `cargo test` and Node's
/// runner, and for the plain line `3 passed, 0 failed, 1 skipped` of the Python story.
fn counts_in(line: &str) -> Option<Counts> {
    // A runner shows the output of a failed test again, indented. Such a line does not count, so
    // nothing is trimmed here but the line of nextest, whose own summary is indented.
    if let Some(rest) = line.strip_prefix("ℹ ") {
        let (what, number) = rest.split_once(' ')?;
        let number = number.parse().ok()?;
        return match what {
            "pass" => Some(Counts { passed: number, ..Counts::default() }),
            "fail" | "cancelled" => Some(Counts { failed: number, ..Counts::default() }),
            "skipped" | "todo" => Some(Counts { skipped: number, ..Counts::default() }),
            _ => None,
        };
    }
    if let Some(rest) = line.trim_start().strip_prefix("Summary [") {
        // nextest counts tests as skipped that this stage leaves out on purpose and another stage
        // runs.
        let counts = rest.split_once("run:")?.1;
        let failed = number_before(counts, "failed") + number_before(counts, "timed out");
        return Some(Counts { passed: number_before(counts, "passed"), failed, skipped: 0 });
    }
    if let Some(rest) = line.strip_prefix("test result: ") {
        return Some(Counts {
            passed: number_before(rest, "passed"),
            failed: number_before(rest, "failed"),
            skipped: 0,
        });
    }
    let plain = line.split(", ").all(|part| {
        let mut words = part.split(' ');
        words.next().is_some_and(|word| word.parse::<usize>().is_ok())
            && words.next().is_some_and(|word| ["passed", "failed", "skipped"].contains(&word))
            && words.next().is_none()
    });
    plain.then(|| Counts {
        passed: number_before(line, "passed"),
        failed: number_before(line, "failed"),
        skipped: number_before(line, "skipped"),
    })
}

/// Returns the number in front of the first `word`, or 0 if the word is not there.
fn number_before(text: &str, word: &str) -> usize {
    let Some((before, _)) = text.split_once(word) else { return 0 };
    before.split_whitespace().next_back().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            // An escape sequence of colours ends with its first letter.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{Counts, counts_in, run, without_colours};
    use std::process::Command;

    fn counts(passed: usize, failed: usize, skipped: usize) -> Counts {
        Counts { passed, failed, skipped }
    }

    #[test]
    fn every_runner_s_summary_is_counted() {
        let nextest =
            "     Summary [   1.234s] 120 tests run: 117 passed (1 slow), 2 failed, 1 timed out, 9 skipped";
        assert_eq!(counts_in(nextest), Some(counts(117, 3, 0)));
        assert_eq!(
            counts_in("test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out"),
            Some(counts(5, 1, 0))
        );
        assert_eq!(counts_in("ℹ pass 7"), Some(counts(7, 0, 0)));
        assert_eq!(counts_in("ℹ fail 2"), Some(counts(0, 2, 0)));
        assert_eq!(counts_in("ℹ duration_ms 12"), None);
        assert_eq!(counts_in("3 passed, 0 failed, 1 skipped"), Some(counts(3, 0, 1)));
        assert_eq!(counts_in("it passed, she failed"), None);
        assert_eq!(counts_in("    test result: FAILED. 0 passed; 1 failed; 0 ignored"), None);
        assert_eq!(counts_in(""), None);
    }

    #[test]
    fn colours_do_not_hide_a_summary() {
        assert_eq!(without_colours("\x1b[32;1mSummary\x1b[0m [ 1s]"), "Summary [ 1s]");
    }

    #[test]
    fn a_runner_that_fails_without_a_failed_test_has_failed() {
        let script = "echo 'ℹ pass 3'; exit 1";
        let ended = run(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(ended, Counts { passed: 3, failed: 1, skipped: 0 });
        assert_eq!(run(Command::new("sh").args(["-c", "exit 1"])).unwrap().failed, 1);
        assert_eq!(run(Command::new("sh").args(["-c", "exit 0"])).unwrap().passed, 1);
    }
}
