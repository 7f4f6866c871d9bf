//! A replay of the committed corpus, and of mutations of it, on stable Rust.
//!
//! Mutations come from a generator with a fixed seed, so that every run tries the same inputs in
//! the same order. A faster machine only tries more of them.

#![expect(clippy::disallowed_methods, reason = "a replay is bounded by real time")]

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::Target;

/// The outcome of one target.
#[derive(Debug)]
pub struct Replay {
    /// The number of inputs that were tried.
    pub inputs: usize,
    /// The first input that made the target panic.
    pub failure: Option<Vec<u8>>,
}

/// Reads the inputs of a target's corpus, in the order of their names.
pub fn corpus(folder: &Path, target: &Target) -> Result<Vec<Vec<u8>>> {
    let folder = folder.join(target.name);
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(!files.is_empty(), "{} has no inputs", folder.display());
    files.iter().map(|file| fs::read(file).with_context(|| format!("reading {}", file.display()))).collect()
}

/// Tries every input of a corpus, then mutations of it until the time is up.
pub fn replay(target: &Target, corpus: &[Vec<u8>], time: Duration) -> Replay {
    let started = Instant::now();
    let mut inputs = 0;
    for input in corpus {
        inputs += 1;
        if !holds(target, input) {
            return Replay { inputs, failure: Some(input.clone()) };
        }
    }
    let mut generator = Generator::seeded(target.name);
    let mut pool = corpus.to_vec();
    while started.elapsed() < time {
        let input = generator.mutation_of(&pool);
        inputs += 1;
        if !holds(target, &input) {
            return Replay { inputs, failure: Some(input) };
        }
        // Some mutations are mutated further, so that the corpus drifts away from its seeds.
        if inputs.is_multiple_of(8) {
            let place = corpus.len() + generator.below(POOL);
            match pool.get_mut(place) {
                Some(old) => *old = input,
                None => pool.push(input),
            }
        }
    }
    Replay { inputs, failure: None }
}

/// The number of mutations that are kept to be mutated further.
const POOL: usize = 64;

/// The longest mutation, in bytes.
const LONGEST: usize = 4096;

fn holds(target: &Target, input: &[u8]) -> bool {
    // A target takes bytes and returns nothing, so a panic cannot leave broken state.
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok()
}

/// An input as a Rust string literal, for use in a test.
#[derive(Debug)]
pub struct EscapedInput<'a>(pub &'a [u8]);

impl fmt::Display for EscapedInput<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A small generator of pseudo-random numbers (xorshift64), the same on every machine.
#[derive(Debug)]
struct Generator(u64);

impl Generator {
    fn seeded(name: &str) -> Self {
        // FNV-1a of the name. It is never zero for these names, at which xorshift would stay.
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (bound.max(1) as u64)).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        match self.below(4) {
            // Bytes that have a meaning in most of the grammars.
            0 | 1 => *self.choose(b"\0\r\n\t :;,.?&=#%/\\\"'[]{}<>@+-_~*09azAZ\x7f\x80\xff"),
            2 => u8::try_from(0x20 + self.below(0x5f)).unwrap_or(b' '),
            _ => u8::try_from(self.below(256)).unwrap_or_default(),
        }
    }

    fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let at = self.below(items.len());
        items.get(at).expect("the list is not empty, and the index is below its length")
    }

    /// Makes one to four random changes to one of the inputs.
    fn mutation_of(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.choose(pool).clone();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = (at + 1 + self.below(16)).min(input.len());
            match self.below(7) {
                0 | 1 => {
                    let byte = self.byte();
                    if let Some(place) = input.get_mut(at) {
                        *place = byte;
                    }
                }
                2 => input.insert(at, self.byte()),
                3 if at < end => drop(input.drain(at..end)),
                4 => {
                    let copied = input.get(at..end).unwrap_or_default().to_vec();
                    let to = self.below(input.len() + 1);
                    input.splice(to..to, copied);
                }
                5 => {
                    let other = self.choose(pool);
                    let from = self.below(other.len() + 1);
                    let part = other.get(from..).unwrap_or_default();
                    input.truncate(at);
                    input.extend_from_slice(part);
                }
                _ => {
                    if let Some(place) = input.get_mut(at) {
                        *place ^= 1 << self.below(8);
                    }
                }
            }
            input.truncate(LONGEST);
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(run: fn(&[u8])) -> bool {
        let target = Target { name: "finds", run };
        replay(&target, &[b"seed".to_vec()], Duration::from_secs(5)).failure.is_some()
    }

    #[test]
    fn a_target_that_breaks_its_promise_is_found() {
        assert!(finds(|bytes| assert!(bytes != b"seed", "the seed itself")));
        assert!(finds(|bytes| assert!(!bytes.contains(&0xff), "a byte that mutation brings")));
        assert!(finds(|bytes| assert!(bytes.len() < 40, "an input that only repeated mutation reaches")));
    }

    #[test]
    fn mutations_are_the_same_on_each_run() {
        let pool = [b"one".to_vec(), b"another".to_vec()];
        let run = || {
            let mut generator = Generator::seeded("name");
            (0..100).map(|_| generator.mutation_of(&pool)).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}
