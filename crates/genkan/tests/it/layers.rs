//! The pictures of `ARCHITECTURE.md`, enforced: imports point down only, among the rooms and inside of the
//! three largest.
//!
//! Reads every `crate::room` in the sources. Comments and tests are left out: a test may use any
//! room.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::sources;
use crate::uses::Uses;

/// From the top down. A room may use all of the lines below its own, and of its own line what an
/// arrow says.
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

/// The files and folders of the three largest rooms, each from the top down by the rule of [`PICTURE`].
const INSIDE: [(&str, &[Line]); 3] = [
    (
        "http",
        &[
            Line { rooms: &["router"], arrows: Arrows::None },
            Line { rooms: &["xrpc", "oauth", "pages", "ops"], arrows: Arrows::None },
            Line { rooms: &["describe_server", "landing", "tls_check", "well_known"], arrows: Arrows::None },
            Line { rooms: &["methods", "admin_auth", "caller", "method"], arrows: Arrows::ToTheRight },
            Line {
                rooms: &[
                    "answers",
                    "deadline",
                    "health",
                    "json",
                    "language",
                    "session_answer",
                    "state",
                    "verbs",
                ],
                arrows: Arrows::None,
            },
        ],
    ),
    (
        "oauth",
        &[
            Line { rooms: &["server", "resource"], arrows: Arrows::None },
            Line { rooms: &["service"], arrows: Arrows::None },
            Line { rooms: &["clients", "permission_sets", "tokens", "grant_links"], arrows: Arrows::None },
            Line { rooms: &["sql", "grant", "parameters", "scope"], arrows: Arrows::ToTheRight },
            Line { rooms: &["call", "client_trust", "error", "ids"], arrows: Arrows::None },
        ],
    ),
    (
        "forward",
        &[
            Line { rooms: &["destination"], arrows: Arrows::None },
            Line { rooms: &["home", "reads", "linked"], arrows: Arrows::None },
            Line { rooms: &["engine"], arrows: Arrows::None },
            Line { rooms: &["answer", "pools", "rooms"], arrows: Arrows::None },
            Line { rooms: &["external", "headers"], arrows: Arrows::None },
            Line { rooms: &["call"], arrows: Arrows::None },
            Line { rooms: &["addressee", "proxied_service", "shares"], arrows: Arrows::None },
            Line { rooms: &["limits", "error_body", "error"], arrows: Arrows::None },
        ],
    ),
];

/// The rooms that may take the whole wiring.
const DOORS: [&str; 3] = ["http", "cli", "jobs"];

struct Line {
    /// Rooms, or in [`INSIDE`] the files and folders of one.
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
fn imports_inside_of_a_room_point_down_only() {
    let sources = sources::program();
    let uses = Uses::of(&sources);
    let mut wrong = Vec::new();
    for (room, lines) in &INSIDE {
        let mut seen = 0;
        for (from, targets) in uses.between_units_of(&[(*room).to_owned()]) {
            let drawn = line_in(lines, &from).is_some();
            assert!(drawn, "{room}/{from} is not in the picture of its room; see ARCHITECTURE.md");
            for to in targets {
                seen += 1;
                if !points_down(lines, &from, &to) {
                    wrong.push(format!("{room}/{from} must not use {room}/{to}"));
                }
            }
        }
        assert!(seen > 15, "the test reads the sources of {room}: it saw {seen} imports");
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_tables_are_the_pictures() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md")).unwrap();
    let drawn = page.split("```").find(|block| block.contains("wiring")).unwrap();
    for line in PICTURE {
        let row = drawn.lines().find(|row| row.split_whitespace().any(|word| word == line.rooms[0])).unwrap();
        assert_draws(row, &line);
    }
    let drawn = page.split("```").find(|block| block.contains(" http ") && block.contains("router")).unwrap();
    let mut rows = drawn.lines().filter(|row| !row.trim().is_empty());
    for (room, lines) in INSIDE {
        for (number, line) in lines.iter().enumerate() {
            let row = rows.next().unwrap();
            assert_eq!(row.split_whitespace().next() == Some(room), number == 0, "{row}");
            assert_draws(row, line);
        }
    }
    assert_eq!(rows.next(), None);
}

/// A row of a picture names what a line does, in its order.
#[track_caller]
fn assert_draws(row: &str, line: &Line) {
    let words: Vec<&str> = row.split_whitespace().filter(|word| line.rooms.contains(word)).collect();
    assert_eq!(words, line.rooms, "{row}");
}

#[test]
fn the_rule_inside_of_a_room_is_the_one_that_is_drawn() {
    for (room, from, to, allowed) in [
        ("http", "router", "pages", true),
        ("http", "pages", "router", false),
        ("http", "oauth", "pages", false),
        ("http", "caller", "method", true),
        ("http", "method", "caller", false),
        ("oauth", "server", "tokens", true),
        ("oauth", "server", "resource", false),
        ("oauth", "tokens", "server", false),
        ("oauth", "sql", "service", false),
        ("forward", "destination", "linked", true),
        ("forward", "reads", "external", true),
        ("forward", "external", "engine", false),
        ("forward", "home", "linked", false),
        ("forward", "home", "nowhere", false),
    ] {
        let (_, lines) = INSIDE.iter().find(|(name, _)| *name == room).unwrap();
        assert_eq!(points_down(lines, from, to), allowed, "{room}: {from} → {to}");
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
    points_down(&PICTURE, from, to)
}

/// Whether `to` is drawn below `from`, or to the right of it on a line with arrows.
fn points_down(lines: &[Line], from: &str, to: &str) -> bool {
    let (Some(upper), Some(lower)) = (line_in(lines, from), line_in(lines, to)) else { return false };
    if upper != lower {
        return upper < lower;
    }
    let line = &lines[upper];
    match line.arrows {
        Arrows::None => false,
        Arrows::ToTheRight => {
            let place = |room| line.rooms.iter().position(|other| *other == room);
            place(from) < place(to)
        }
    }
}

fn line_of(room: &str) -> Option<usize> {
    line_in(&PICTURE, room)
}

fn line_in(lines: &[Line], room: &str) -> Option<usize> {
    lines.iter().position(|line| line.rooms.contains(&room))
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
