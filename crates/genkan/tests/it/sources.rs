//! Genkan's own sources, as the tests of its structure read them: without comments and tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One source file of the server.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path below `src`, such as `oauth/sql/grants.rs`.
    pub(crate) path: String,
    /// The module that the file is: `oauth/sql/grants.rs` and `oauth/mod.rs` are
    /// `oauth::sql::grants` and `oauth`.
    pub(crate) module: Vec<String>,
    /// The code without comments and without items for tests; strings are kept.
    pub(crate) code: String,
    /// `code` with the contents of its strings removed.
    pub(crate) bare: String,
}

/// Every file below `src` that is part of the program. A module that is declared below
/// `#[cfg(test)]` is for tests, and is left out with all that it contains.
pub(crate) fn program() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    let mut sources: Vec<Source> = Vec::new();
    let mut tests = BTreeSet::new();
    for file in paths {
        let path = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let module = module_of(&path);
        let text = without_comments(&fs::read_to_string(&file).unwrap());
        for name in test_modules(&text) {
            tests.insert([module.clone(), vec![name]].concat());
        }
        let code = without_tests(&text);
        let bare = without_strings(&code);
        sources.push(Source { path, module, code, bare });
    }
    sources.retain(|source| !tests.iter().any(|test| source.module.starts_with(test)));
    sources
}

/// The room that a file belongs to: its folder below `src`, or its own name there.
pub(crate) fn room(source: &Source) -> &str {
    source.module.first().map_or("", String::as_str)
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|end| end == "rs") {
            paths.push(path);
        }
    }
}

fn module_of(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The names in declarations such as `#[cfg(test)] mod tests;`.
fn test_modules(text: &str) -> Vec<String> {
    let after = text.split(FOR_TESTS).skip(1);
    after
        .filter_map(|rest| {
            let rest = skip_visibility(rest.trim_start());
            let (name, _) = rest.strip_prefix("mod ")?.split_once([';', '{'])?;
            Some(name.trim().to_owned())
        })
        .collect()
}

fn skip_visibility(text: &str) -> &str {
    match text.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => {
            rest.split_once(')').map_or(text, |(_, rest)| rest.trim_start())
        }
        Some(rest) if rest.starts_with(' ') => rest.trim_start(),
        _ => text,
    }
}

/// Removes each item that follows `#[cfg(test)]`, wherever in the file it is.
pub(crate) fn without_tests(text: &str) -> String {
    // Braces in strings would confuse the search for the end of an item. `bare` has the same
    // length, so its positions are valid in `text`.
    let bare = without_strings(text);
    let mut kept = String::new();
    let mut from = 0;
    while let Some(found) = bare[from..].find(FOR_TESTS) {
        kept.push_str(&text[from..from + found]);
        let item = from + found + FOR_TESTS.len();
        from = item + end_of_item(&bare[item..]);
    }
    kept.push_str(&text[from..]);
    kept
}

const FOR_TESTS: &str = "#[cfg(test)]";

/// Where an item ends: after its `;`, or after the brace that closes its body.
fn end_of_item(bare: &str) -> usize {
    let mut depth = 0_usize;
    for (index, byte) in bare.bytes().enumerate() {
        match byte {
            b';' if depth == 0 => return index + 1,
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && byte == b'}' {
                    return index + 1;
                }
            }
            _ => {}
        }
    }
    bare.len()
}

/// The kinds of text that a reader of Rust has to tell apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    LineComment,
    BlockComment(usize),
    /// A string, and how many `#` close it when it is raw.
    Text {
        hashes: Option<usize>,
    },
}

/// Replaces comments by spaces, and keeps everything else at its place.
pub(crate) fn without_comments(text: &str) -> String {
    blank(text, |part| matches!(part, Part::LineComment | Part::BlockComment(_)))
}

/// Replaces what is in strings by spaces, and keeps everything else at its place.
pub(crate) fn without_strings(text: &str) -> String {
    blank(text, |part| matches!(part, Part::Text { .. }))
}

/// Replaces the parts that `is_blank` names by spaces. Line ends stay, so that lines can be
/// counted.
fn blank(text: &str, is_blank: impl Fn(Part) -> bool) -> String {
    let bytes = text.as_bytes();
    let mut result = Vec::with_capacity(bytes.len());
    let mut part = Part::Code;
    let mut index = 0;
    while index < bytes.len() {
        // The byte before is needed to tell the `r` of a raw string from the last letter of a name.
        let (next, length) = step(part, &bytes[index..], index.checked_sub(1).map(|before| bytes[before]));
        // What opens or closes a part belongs to the part.
        let hidden = is_blank(part) || (part == Part::Code && next != Part::Code && is_blank(next));
        let bytes = &bytes[index..index + length];
        if hidden {
            result.extend(bytes.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        } else {
            result.extend_from_slice(bytes);
        }
        part = next;
        index += length;
    }
    String::from_utf8(result).expect("parts begin and end at ASCII characters")
}

/// What the text is after its next few bytes, and how many those are.
fn step(part: Part, rest: &[u8], before: Option<u8>) -> (Part, usize) {
    match part {
        Part::Code => begin(rest, before),
        Part::LineComment if rest[0] == b'\n' => (Part::Code, 1),
        // Block comments nest in Rust.
        Part::BlockComment(depth) if rest.starts_with(b"/*") => (Part::BlockComment(depth + 1), 2),
        Part::BlockComment(0) if rest.starts_with(b"*/") => (Part::Code, 2),
        Part::BlockComment(depth) if rest.starts_with(b"*/") => (Part::BlockComment(depth - 1), 2),
        // An escaped character is skipped whole, so that `\"` does not end the string.
        Part::Text { hashes: None } if rest[0] == b'\\' => (part, rest.len().min(2)),
        Part::Text { hashes: None } if rest[0] == b'"' => (Part::Code, 1),
        Part::Text { hashes: Some(hashes) }
            if rest[0] == b'"' && rest[1..].iter().take_while(|byte| **byte == b'#').count() >= hashes =>
        {
            (Part::Code, 1 + hashes)
        }
        _ => (part, until_next(rest, b"\n/*\"\\")),
    }
}

/// How far it is to the next of some bytes, which may change what the text is; at least one byte.
fn until_next(rest: &[u8], marks: &[u8]) -> usize {
    rest.iter().skip(1).position(|byte| marks.contains(byte)).map_or(rest.len(), |found| found + 1)
}

/// What begins in code here.
fn begin(rest: &[u8], before: Option<u8>) -> (Part, usize) {
    if rest.starts_with(b"//") {
        return (Part::LineComment, 2);
    }
    if rest.starts_with(b"/*") {
        return (Part::BlockComment(0), 2);
    }
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest[0] {
        b'"' => (Part::Text { hashes: None }, 1),
        // `r"…"` and `r#"…"#`, but not a raw identifier such as `r#type`.
        b'r' if !in_word => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) == Some(&b'"') {
                (Part::Text { hashes: Some(hashes) }, 2 + hashes)
            } else {
                (Part::Code, 1)
            }
        }
        // A character that could be taken for the begin of a string: `'"'` and `'\''`.
        // The position is after the escaped character, which may itself be a quote.
        b'\'' if rest.starts_with(b"'\\") => {
            let end = rest[2..].iter().skip(1).position(|byte| *byte == b'\'').map_or(1, |end| end + 4);
            (Part::Code, end.min(rest.len()))
        }
        b'\'' if rest.get(2) == Some(&b'\'') => (Part::Code, 3),
        _ => (Part::Code, until_next(rest, b"/\"'r")),
    }
}

#[test]
fn comments_strings_and_tests_are_told_apart() {
    let text = "let a = \"x // y\"; // note \"\nlet b = '\"'; /* one /* two */ */ let c = r#\"{\"#;\n\
        #[cfg(test)]\nmod tests { fn f() { let s = \"}\"; } }\nlet d = '\\''; use crate::after;\n";
    let code = without_tests(&without_comments(text));
    assert!(code.contains("\"x // y\"") && !code.contains("note") && !code.contains("two"), "{code}");
    assert!(!code.contains("mod tests") && code.contains("use crate::after"), "{code}");
    let bare = without_strings(&code);
    assert!(!bare.contains("x // y") && bare.contains("let c = "), "{bare}");
}
