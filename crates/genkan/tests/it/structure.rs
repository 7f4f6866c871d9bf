//! Rules about the inside of rooms, enforced: no circles between files, and one owner for
//! each table.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{self, Source};
use crate::uses::Uses;

/// Each file of a room can be read after the files that it uses, so none may use itself through
/// others.
///
/// Only `mod.rs` may: it is the map of its folder. Files of a folder count as one below their
/// folder's name.
#[test]
fn no_circle_between_the_files_of_a_room() {
    let sources = sources::program();
    let uses = Uses::of(&sources);
    let mut circles = Vec::new();
    for folder in folders(&sources) {
        let edges = uses.between_units_of(&folder);
        // Every unit is tried as a start, so every circle is found from each of its units.
        for unit in edges.keys() {
            let Some(path) = way_back(&edges, unit) else { continue };
            let circle = format!("{}: {}", folder.join("/"), path.join(" → "));
            // Each circle is told once, by its first unit.
            if path.iter().min() == Some(unit) {
                circles.push(circle);
            }
        }
    }
    // A change of the code's style could blind the parser. Then the test would pass without testing
    // anything.
    assert!(uses.count > 500, "the test reads imports: it saw {}", uses.count);
    assert!(circles.is_empty(), "\n{}\n", circles.join("\n"));
}

#[test]
fn each_table_has_one_owner_and_its_sql_is_there() {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for source in sources::program() {
        let tables = tables_of(&source.code);
        if !tables.is_empty() && !may_hold_sql(&source) {
            wrong.push(format!("{}: SQL belongs to a file that owns a table", source.path));
        }
        for table in tables {
            owners.entry(table).or_default().insert(sources::room(&source).to_owned());
        }
    }
    assert!(owners.len() > 25, "the test reads SQL: it saw {} tables", owners.len());
    for (table, rooms) in owners {
        if rooms.len() > 1 {
            wrong.push(format!("{table} has several owners: {rooms:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// PostgreSQL lets a removal wait for a transaction that renews the row, and then removes it all the
/// same, unless the condition is outside of the subquery as well. `db::sweep::OldRows` puts it there.
#[test]
fn removal_in_batches_is_written_in_one_place() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources::program() {
        seen += source.code.matches("OldRows {").count();
        let texts = source.code.split('"').skip(1).step_by(2);
        let batches =
            texts.filter(|text| text.trim_start().starts_with("DELETE") && text.contains(" LIMIT "));
        // It keeps a number of rows for one account, and removes none for its age.
        let batches = batches.filter(|text| !text.contains("NOT IN"));
        if source.path != "db/sweep.rs" && batches.count() > 0 {
            wrong.push(source.path);
        }
    }
    assert!(seen > 15, "the test reads sweeps: it saw {seen}");
    assert!(wrong.is_empty(), "use OldRows in {wrong:?}");
}

/// A file for SQL, or one of the ground rooms' files that is about one table of its own.
fn may_hold_sql(source: &Source) -> bool {
    let parts: Vec<&str> = source.path.trim_end_matches(".rs").split('/').collect();
    parts.contains(&"sql") || OWNERS.contains(&source.path.as_str())
}

/// Files outside of a `sql.rs` that own a table.
const OWNERS: [&str; 8] = [
    "db/audit.rs",
    // Catalogues of the databases themselves.
    "db/dialect.rs",
    "db/feed.rs",
    "db/migrate.rs",
    "db/watch.rs",
    "db/replicas.rs",
    "limits/shared.rs",
    "sessions/generations.rs",
];

/// The tables that the SQL in a file names.
fn tables_of(code: &str) -> BTreeSet<String> {
    // The rows of a sweep, and those with turns, name their table without SQL.
    let mut tables: BTreeSet<String> = ["OldRows {", "Turns {"]
        .into_iter()
        .flat_map(|start| code.split(start).skip(1))
        .filter_map(|rows| rows.split_once("table: \"")?.1.split_once('"'))
        .map(|(table, _)| table.to_owned())
        .collect();
    // Every second piece between quotes is the content of a string.
    for text in code.split('"').skip(1).step_by(2) {
        let first = text.split_whitespace().next().unwrap_or_default();
        if !["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first) {
            continue;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.windows(2) {
            // Names are lower case in this project's SQL, so keywords and punctuation fall away.
            let name = pair[1].trim_matches(|c: char| !(c.is_ascii_lowercase() || c == '_'));
            // `ON CONFLICT … DO UPDATE SET` names no table.
            if ["FROM", "INTO", "UPDATE", "JOIN"].contains(&pair[0])
                && pair[1].starts_with(name)
                && !name.is_empty()
            {
                tables.insert(name.to_owned());
            }
        }
    }
    tables
}

/// The way from a unit over others back to it, if there is one.
fn way_back(edges: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        // The order of the search does not matter: any way back is a circle.
        for next in edges.get(way.last()?).into_iter().flatten() {
            if next == start {
                return Some([way, vec![start.to_owned()]].concat());
            }
            if seen.insert(next.clone()) {
                ways.push([way.clone(), vec![next.clone()]].concat());
            }
        }
    }
    None
}

/// The folders below `src`; the rooms among each other are checked by `layers`.
fn folders(sources: &[Source]) -> BTreeSet<Vec<String>> {
    let parents = sources.iter().filter_map(|source| source.module.split_last());
    parents.map(|(_, parent)| parent.to_vec()).filter(|parent| !parent.is_empty()).collect()
}

/// `Connector::rerouted` leads a connection away from the address that was checked. It is public so that
/// tests of other crates can see where a connection would go.
#[test]
fn only_tests_reroute_connections() {
    let program = sources::program();
    let wrong: Vec<&str> = program
        .iter()
        .filter(|source| source.code.contains("rerouted"))
        .map(|source| source.path.as_str())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Doors decode, call one method and encode: a transaction is begun by a room.
/// Replicas must agree on every time that they compare, store or sign, so rooms get the database's
/// clock (`Db::clock`).
#[test]
fn no_room_reads_the_clock_of_its_own_machine() {
    let allowed = [
        // They measure the difference, and date a step of the schema before there is a pool.
        ("base/clock.rs", "Clock::of_process and SystemTime"),
        ("db/database.rs", "the offset that operators see"),
        ("db/migrate.rs", "the date of a step of the schema"),
        // The start of the process, as Prometheus compares it with the machine's own clock.
        ("serving.rs", "genkan_start_time_seconds"),
    ];
    let ways = ["Clock::of_process", "Self::of_process()", "SystemTime"];
    let mut reads = BTreeSet::new();
    for source in sources::program() {
        if ways.iter().any(|way| source.bare.contains(way)) {
            reads.insert(source.path);
        }
    }
    let allowed: BTreeSet<String> = allowed.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(reads, allowed, "rooms take the clock that they are given");
}

#[test]
fn no_door_begins_a_transaction() {
    let doors = ["http", "cli", "jobs", "edge"];
    let wrong: Vec<String> = sources::program()
        .into_iter()
        .filter(|source| doors.contains(&sources::room(source)) && source.code.contains(".begin().await"))
        .map(|source| source.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
