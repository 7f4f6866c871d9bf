//! The picture of `ARCHITECTURE.md`, enforced: imports point down only.
//!
//! Reads every `crate::room` in the sources. Comments and tests are left out: a test may use any room.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::sources;

/// From the top down. A room may use all of the lines below its own, and of its own line what an arrow says.
const PICTURE: [Line; 7] = [
    Line { rooms: &["serving", "app"], arrows: Arrows::ToTheRight },
    // The wiring is what doors are handed; see `DOORS`.
    Line { rooms: &["edge", "http", "cli", "jobs"], arrows: Arrows::None },
    Line { rooms: &["signup", "moves", "renames", "forward", "standing", "recovery"], arrows: Arrows::None },
    Line { rooms: &["credentials"], arrows: Arrows::None },
    Line { rooms: &["sessions", "oauth", "links", "routing"], arrows: Arrows::None },
    Line { rooms: &["signin", "accounts", "fleet", "identity", "mail"], arrows: Arrows::ToTheRight },
    Line {
        rooms: &["keys", "wire", "limits", "db", "telemetry", "config", "base"],
        arrows: Arrows::ToTheRight,
    },
];

/// The rooms that may take the whole wiring.
const DOORS: [&str; 3] = ["http", "cli", "jobs"];

struct Line {
    rooms: &'static [&'static str],
    arrows: Arrows,
}

/// Which rooms of a line may use others of it.
enum Arrows {
    None,
    ToTheRight,
}

#[test]
fn imports_point_down_only() {
    let mut wrong = BTreeSet::new();
    let mut seen = 0;
    for source in sources::program() {
        let (room, path) = (sources::room(&source), &source.path);
        if ["lib", "main"].contains(&room) {
            continue;
        }
        assert!(
            line_of(room).is_some(),
            "{path}: the room {room} is not in the picture; see ARCHITECTURE.md"
        );
        for used in rooms_used(&source.bare) {
            seen += 1;
            if !may_use(room, &used) {
                wrong.insert(format!("{path}: {room} must not use {used}"));
            }
        }
    }
    assert!(seen > 50, "the test reads the sources: it saw {seen} imports");
    assert!(wrong.is_empty(), "\n{}\n", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_table_is_the_picture() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md")).unwrap();
    let drawn = page.split("```").find(|block| block.contains("wiring")).unwrap();
    for line in PICTURE {
        let row = drawn.lines().find(|row| row.split_whitespace().any(|word| word == line.rooms[0])).unwrap();
        let words: Vec<&str> = row.split_whitespace().filter(|word| line.rooms.contains(word)).collect();
        assert_eq!(words, line.rooms, "{row}");
    }
}

#[test]
fn the_rule_is_the_one_that_is_drawn() {
    for (from, to, allowed) in [
        ("http", "accounts", true),
        ("http", "app", true),
        ("edge", "http", false),
        ("edge", "app", false),
        ("http", "edge", false),
        ("edge", "wire", true),
        ("http", "wire", true),
        ("wire", "http", false),
        ("wire", "limits", true),
        ("wire", "keys", false),
        ("jobs", "http", false),
        ("accounts", "http", false),
        ("signup", "sessions", true),
        ("sessions", "signup", false),
        ("sessions", "routing", false),
        ("accounts", "fleet", true),
        ("fleet", "accounts", false),
        ("db", "base", true),
        ("base", "db", false),
        ("app", "edge", true),
        ("serving", "app", true),
        ("cli", "serving", true),
        ("forward", "app", false),
        ("standing", "credentials", true),
        ("credentials", "standing", false),
        ("oauth", "credentials", false),
        ("accounts", "nowhere", false),
    ] {
        assert_eq!(may_use(from, to), allowed, "{from} → {to}");
    }
    let text = "//! crate::http\nuse crate::{db, keys::Ring, fleet::{Host, HostId}};\nlet x = crate::base::Clock::System; // crate::cli\n\
        #[cfg(test)]\nuse crate::edge;\n#[cfg(test)]\nmod tests {\n use crate::cli;\n}\nuse crate::limits;\n";
    let code = sources::without_tests(&sources::without_comments(text));
    let used: Vec<String> = rooms_used(&code).into_iter().collect();
    assert_eq!(used, ["base", "db", "fleet", "keys", "limits"]);
}

fn may_use(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    if line_of(to) == Some(0) && line_of(from) != Some(0) {
        return DOORS.contains(&from);
    }
    let (Some(upper), Some(lower)) = (line_of(from), line_of(to)) else { return false };
    if upper != lower {
        return upper < lower;
    }
    let line = &PICTURE[upper];
    match line.arrows {
        Arrows::None => false,
        Arrows::ToTheRight => {
            let place = |room| line.rooms.iter().position(|other| *other == room);
            place(from) < place(to)
        }
    }
}

fn line_of(room: &str) -> Option<usize> {
    PICTURE.iter().position(|line| line.rooms.contains(&room))
}

/// Every room that the text names after `crate::`, in a path or in the braces of a `use`.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => rooms.extend(heads(list)),
            None => rooms.extend(word(after)),
        }
    }
    rooms
}

/// The first word of each entry of a braced list that has just been opened.
fn heads(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut depth, mut start) = (0_i32, true);
    for (index, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            _ if start && !character.is_whitespace() => {
                found.extend(word(&list[index..]));
                start = false;
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> Option<String> {
    let end = text
        .find(|character: char| !(character.is_ascii_lowercase() || character == '_'))
        .unwrap_or(text.len());
    // `crate::Config` or a macro at the root is no room.
    (end > 0).then(|| text[..end].to_owned())
}
