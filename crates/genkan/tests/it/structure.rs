//! Rules about the inside of rooms, enforced: no circles between files, and one owner for
//! each table.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{self, Source};

/// Each file of a room can be read after the files that it uses, so none may use itself through others.
///
/// Only `mod.rs` may: it is the map of its folder. Files of a folder count as one below their folder's
/// name.
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

/// A file for SQL, or one of the ground rooms' files that is about one table of its own.
fn may_hold_sql(source: &Source) -> bool {
    let parts: Vec<&str> = source.path.trim_end_matches(".rs").split('/').collect();
    parts.contains(&"sql") || OWNERS.contains(&source.path.as_str())
}

/// Files outside of a `sql.rs` that own a table.
const OWNERS: [&str; 6] = [
    "db/audit.rs",
    "db/feed.rs",
    "db/migrate.rs",
    "db/replicas.rs",
    "limits/shared.rs",
    "sessions/generations.rs",
];

/// The tables that the SQL in a file names.
fn tables_of(code: &str) -> BTreeSet<String> {
    let mut tables = BTreeSet::new();
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

/// What each file uses of the others.
struct Uses {
    edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
    count: usize,
}

impl Uses {
    fn of(sources: &[Source]) -> Self {
        let modules: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
        let mut exports: BTreeMap<(Vec<String>, String), Vec<String>> = BTreeMap::new();
        let mut named: Vec<(&Source, Vec<Vec<String>>)> = Vec::new();
        for source in sources {
            let mut paths = Vec::new();
            // A path into another crate has no file here.
            for (is_public, path) in imports(&source.bare) {
                let Some(path) = absolute(&source.module, &path, &modules) else { continue };
                if is_public && let Some(name) = path.last() {
                    exports.insert((source.module.clone(), name.clone()), path.clone());
                }
                paths.push(path);
            }
            for path in inline_paths(&source.bare) {
                paths.extend(absolute(&source.module, &path, &modules));
            }
            named.push((source, paths));
        }
        let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
        let mut count = 0;
        for (source, paths) in named {
            for path in paths {
                count += 1;
                let owner = owner(&path, &modules, &exports, 0);
                edges.entry(source.module.clone()).or_default().extend(owner);
            }
        }
        Self { edges, count }
    }

    /// Which units of a folder use which others. A unit is a file or a folder in it.
    fn between_units_of(&self, folder: &[String]) -> BTreeMap<String, BTreeSet<String>> {
        let unit = |module: &[String]| Some(module.strip_prefix(folder)?.first()?.clone());
        let mut between: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, targets) in &self.edges {
            let Some(from) = unit(from) else { continue };
            let others = targets.iter().filter_map(|to| unit(to)).filter(|to| *to != from);
            between.entry(from.clone()).or_default().extend(others);
        }
        between
    }
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

/// The paths of all `use` declarations, and whether they export what they name.
fn imports(bare: &str) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    for (index, _) in bare.match_indices("use ") {
        let before = bare[..index].trim_end_matches(' ');
        let is_public = before.ends_with("pub") || before.ends_with(')');
        let begins = before.is_empty() || before.ends_with(['\n', ';', '}', '{']) || is_public;
        let Some((tree, _)) = bare[index + 4..].split_once(';') else { continue };
        if begins {
            let mut paths = Vec::new();
            flatten(&[], tree, &mut paths);
            found.extend(paths.into_iter().map(|path| (is_public, path)));
        }
    }
    found
}

/// Writes the paths of a tree such as `a::{b, c::{d, e}}` out.
fn flatten(prefix: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    if let Some((head, list)) = tree.split_once('{') {
        let segments = head.split("::").map(str::trim).filter(|segment| !segment.is_empty());
        let prefix = [prefix, &segments.map(str::to_owned).collect::<Vec<_>>()].concat();
        let list = list.trim_end().strip_suffix('}').unwrap_or(list);
        let (mut depth, mut start) = (0_usize, 0);
        for (index, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    flatten(&prefix, &list[start..index], paths);
                    start = index + 1;
                }
                _ => {}
            }
        }
        return flatten(&prefix, &list[start..], paths);
    }
    let path = tree.split_once(" as ").map_or(tree, |(path, _)| path);
    let segments = path.split("::").map(str::trim).filter(|segment| !segment.is_empty());
    let path = [prefix, &segments.map(str::to_owned).collect::<Vec<_>>()].concat();
    if !path.is_empty() {
        paths.push(path);
    }
}

/// Paths in the code itself that begin with `crate`, `super` or `self`.
fn inline_paths(bare: &str) -> Vec<Vec<String>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = bare.split(|c: char| !is_part(c));
    let paths =
        words.filter(|word| ["crate::", "super::", "self::"].iter().any(|start| word.starts_with(start)));
    paths.map(|word| word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()).collect()
}

/// A path from the root of the crate, or `None` for one into another crate.
fn absolute(module: &[String], path: &[String], modules: &BTreeSet<&[String]>) -> Option<Vec<String>> {
    let first = path.first()?.as_str();
    let up = path.iter().take_while(|part| *part == "super").count();
    match first {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([module.get(..module.len().checked_sub(up)?)?, &path[up..]].concat()),
        _ => {
            let child = [module, &path[..1]].concat();
            modules.contains(child.as_slice()).then(|| [module, path].concat())
        }
    }
}

/// The file in which that which a path names is declared; re-exports are followed.
fn owner(
    path: &[String],
    modules: &BTreeSet<&[String]>,
    exports: &BTreeMap<(Vec<String>, String), Vec<String>>,
    depth: usize,
) -> Option<Vec<String>> {
    // The longest known module wins. What follows it in the path is an item in that module.
    let length = (1..=path.len()).rev().find(|length| modules.contains(&path[..*length]))?;
    let module = path[..length].to_vec();
    let Some(name) = path.get(length) else { return Some(module) };
    match exports.get(&(module.clone(), name.clone())) {
        // The depth bounds chains of re-exports that lead back to themselves.
        Some(target) if target != path && depth < 8 => {
            owner(&[target, &path[length + 1..]].concat(), modules, exports, depth + 1)
        }
        _ => Some(module),
    }
}

/// Doors decode, call one method and encode: a transaction is begun by a room.
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
