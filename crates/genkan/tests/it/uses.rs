//! Which source files use which others, as the tests of the structure read it from paths.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::Source;

/// What each file uses of the others.
#[derive(Debug)]
pub(crate) struct Uses {
    edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
    /// Paths that were read.
    pub(crate) count: usize,
}

impl Uses {
    pub(crate) fn of(sources: &[Source]) -> Self {
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
    pub(crate) fn between_units_of(&self, folder: &[String]) -> BTreeMap<String, BTreeSet<String>> {
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
