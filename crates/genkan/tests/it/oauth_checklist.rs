//! Holds `docs/oauth-checklist.md` to the sources: every line is there, every test it names exists and says its line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of each list.
const LISTS: [(&str, usize); 3] = [("A", 23), ("B", 25), ("", 75)];

#[test]
fn every_line_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/oauth-checklist.md")).unwrap();
    let tests = RustTests::of(&root.join("crates"));
    let stories = stories(&root.join("network/stories"));
    let lines = lines(&page);
    let mut wrong = Vec::new();
    for (list, count) in LISTS {
        for number in 1..=count {
            let line = format!("{list}{number}");
            let named = lines.get(&line).cloned().unwrap_or_default();
            if named.is_empty() {
                wrong.push(format!("{line} has no test"));
            }
            wrong.extend(named.iter().filter_map(|name| fault(name, list, number, &tests, &stories)));
        }
    }
    assert!(wrong.is_empty(), "docs/oauth-checklist.md:\n{}", wrong.join("\n"));
    let expected: usize = LISTS.iter().map(|(_, count)| count).sum();
    assert_eq!(lines.len(), expected, "lines beyond the lists");
}

fn fault(name: &str, list: &str, number: usize, tests: &RustTests, stories: &str) -> Option<String> {
    if name.contains(' ') {
        let told = stories.contains(&format!("test('{name}'")) || stories.contains(&format!("test(`{name}`"));
        return (!told).then(|| format!("{list}{number}: no story is called {name:?}"));
    }
    match tests.bodies.get(name) {
        None => Some(format!("{list}{number}: there is no test {name}")),
        Some(body) if says(name, body, list, number) => None,
        Some(_) => Some(format!("{list}{number}: {name} does not say that it is for this line")),
    }
}

/// In the test's name (`b08_…`, `row_30_31_…`), or at the beginning of a text or comment in its body.
fn says(name: &str, body: &str, list: &str, number: usize) -> bool {
    if list.is_empty() {
        let by_name = name
            .strip_prefix("row_")
            .is_some_and(|rest| leading_numbers(&rest.replace('_', ", ")).contains(&number));
        return by_name || texts(body).any(|text| leading_numbers(text).contains(&number));
    }
    let prefix = list.to_lowercase();
    let by_name = [format!("{prefix}{number}_"), format!("{prefix}{number:02}_")];
    let label = format!("6.{list}.{number}");
    by_name.iter().any(|start| name.starts_with(start.as_str()))
        || body.match_indices(&label).any(|(at, _)| {
            body.get(at + label.len()..)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
        })
}

/// `53, 54: alive` or `row 39 and 40`: 53 and 54, 39 and 40.
fn leading_numbers(text: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut rest = text.trim_start().strip_prefix("row ").unwrap_or_else(|| text.trim_start());
    loop {
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(number) = rest[..end].parse() else { return numbers };
        rest = &rest[end..];
        // 6.B.4 and 127.0.0.1 are no rows.
        if rest.starts_with('.') && rest[1..].starts_with(|next: char| next.is_ascii_alphanumeric()) {
            return numbers;
        }
        numbers.push(number);
        let Some(next) = rest.strip_prefix(", ").or_else(|| rest.strip_prefix(" and ")) else {
            return numbers;
        };
        rest = next;
    }
}

/// What stands in quotes or after `//`.
fn texts(body: &str) -> impl Iterator<Item = &str> {
    body.lines().flat_map(|line| {
        let (code, comment) = line.split_once("// ").unwrap_or((line, ""));
        code.split('"').skip(1).step_by(2).chain([comment])
    })
}

/// The lines of the page's tables: what is in backquotes in the last column.
fn lines(page: &str) -> BTreeMap<String, Vec<String>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")).filter_map(|row| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let &[line, _, tests] = cells.as_slice() else { return None };
        line.ends_with(|last: char| last.is_ascii_digit()).then_some((line, tests))
    });
    rows.map(|(line, tests)| {
        let names = tests.split('`').skip(1).step_by(2).map(str::to_owned);
        (line.to_owned(), names.collect())
    })
    .collect()
}

/// Every function of the sources by its name. A name that is there twice has both bodies.
struct RustTests {
    bodies: BTreeMap<String, String>,
}

impl RustTests {
    fn of(folder: &Path) -> Self {
        let mut bodies: BTreeMap<String, String> = BTreeMap::new();
        for file in files(folder, "rs") {
            let text = fs::read_to_string(&file).unwrap();
            let all: Vec<&str> = text.lines().collect();
            for (at, line) in all.iter().enumerate() {
                let Some((before, rest)) = line.split_once("fn ") else { continue };
                if !matches!(before.trim(), "" | "async") {
                    continue;
                }
                let name: String =
                    rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                let indent = line.len() - line.trim_start().len();
                let end = format!("{}}}", " ".repeat(indent));
                let body = all[at..].iter().take_while(|line| **line != end);
                let body: Vec<&str> = body.copied().collect();
                bodies.entry(name).or_default().push_str(&body.join("\n"));
            }
        }
        Self { bodies }
    }
}

fn stories(folder: &Path) -> String {
    files(folder, "mjs").iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

fn files(folder: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, kind));
        } else if path.extension().is_some_and(|end| end == kind) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_line_is_said_by_name_or_by_text() {
    assert!(says("b08_x", "", "B", 8) && !says("b08_x", "", "B", 80));
    assert!(says("x", "assert!(a, \"6.B.2: so\")", "B", 2) && !says("x", "\"6.B.25\"", "B", 2));
    assert!(says("row_30_31_35_what", "", "", 31) && !says("row_30_31_35_what", "", "", 3));
    assert!(says("x", "(\"12 slash\", 1)", "", 12) && says("x", "// 39 and 40: fewer", "", 40));
    assert!(says("x", "assert!(b, \"53, 54: alive\")", "", 54) && !says("x", "\"127.0.0.1\"", "", 127));
    assert!(!says("x", "\"6.B.12\"", "", 6) && !says("x", "let a = 12;", "", 12));
}
