//! Holds `docs/oauth-checklist.md` to the sources: every line is there, every test it names runs,
//! and one of its assertions is for the line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sources::{without_comments, without_strings};

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
    // Without this check a line that is not in `LISTS` would never be looked at.
    let expected: usize = LISTS.iter().map(|(_, count)| count).sum();
    assert_eq!(lines.len(), expected, "lines beyond the lists");
}

fn fault(name: &str, list: &str, number: usize, tests: &RustTests, stories: &str) -> Option<String> {
    if name.contains(' ') {
        return story_fault(name, stories).map(|fault| format!("{list}{number}: {fault}"));
    }
    let Some(test) = tests.by_name.get(name) else {
        return Some(format!("{list}{number}: there is no test {name}"));
    };
    if !test.runs {
        return Some(format!("{list}{number}: {name} is a function that no test run calls"));
    }
    (!asserts(name, &test.body, list, number))
        .then(|| format!("{list}{number}: {name} has no assertion for this line"))
}

/// A story has to be there, to run, and to expect something.
fn story_fault(name: &str, stories: &str) -> Option<String> {
    let begins = [format!("test('{name}'"), format!("test(`{name}`")];
    let Some((_, told)) = begins.iter().find_map(|begin| stories.split_once(begin.as_str())) else {
        return Some(format!("no story is called {name:?}"));
    };
    // A story ends where the next one begins.
    let told = told.split("\ntest(").next().unwrap_or_default();
    let options = told.split("=>").next().unwrap_or_default();
    if options.contains("skip") || options.contains("todo") {
        return Some(format!("the story {name:?} is skipped"));
    }
    let expects = ["assert.", "waitFor", "expect(", "comeBack("].iter().any(|word| told.contains(word));
    (!expects).then(|| format!("the story {name:?} expects nothing"))
}

/// Whether an assertion of a test is for a line: by the test's name (`b08_…`, `row_30_31_…`), by a
/// text in the assertion, or by a label of a table whose assertion prints that label.
fn asserts(name: &str, body: &str, list: &str, number: usize) -> bool {
    let assertions = assertions(body);
    if assertions.is_empty() {
        return false;
    }
    let is_label = |text: &str| is_for(text, list, number);
    let labels_are_printed = assertions.iter().any(|one| prints_a_loop_variable(one, body));
    is_named_for(name, list, number)
        || assertions.iter().flat_map(|one| texts(one)).any(is_label)
        || (labels_are_printed && texts(body).any(is_label))
}

fn is_named_for(name: &str, list: &str, number: usize) -> bool {
    if list.is_empty() {
        return name
            .strip_prefix("row_")
            .is_some_and(|rest| leading_numbers(&rest.replace('_', ", ")).contains(&number));
    }
    let prefix = list.to_lowercase();
    [format!("{prefix}{number}_"), format!("{prefix}{number:02}_")]
        .iter()
        .any(|start| name.starts_with(start.as_str()))
}

/// `53, 54: alive` is for rows 53 and 54, `6.B.2: …` for line 2 of list B.
fn is_for(text: &str, list: &str, number: usize) -> bool {
    if list.is_empty() {
        return leading_numbers(text).contains(&number);
    }
    let label = format!("6.{list}.{number}");
    text.match_indices(&label)
        // `6.B.2` must not match in `6.B.25`.
        .any(|(at, _)| text[at + label.len()..].chars().next().is_none_or(|next| !next.is_ascii_digit()))
}

/// The arguments of each assertion. `within` is the one that waits until a condition holds.
fn assertions(body: &str) -> Vec<&str> {
    // Parentheses in strings would break the counting. The positions are the same in `body`.
    let bare = without_strings(body);
    let mut found = Vec::new();
    for word in ["assert!(", "assert_eq!(", "assert_ne!(", "assert_snapshot!(", "within("] {
        for (at, _) in bare.match_indices(word) {
            let start = at + word.len();
            let mut depth = 1;
            let end = bare[start..].char_indices().find(|(_, character)| {
                match character {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            found.push(&body[start..end.map_or(body.len(), |(end, _)| start + end)]);
        }
    }
    found
}

/// Whether a text of the assertion begins with a variable that a loop or a closure of the test
/// binds.
fn prints_a_loop_variable(assertion: &str, body: &str) -> bool {
    texts(assertion).any(|text| {
        let Some((name, _)) = text.strip_prefix('{').and_then(|rest| rest.split_once(['}', ':'])) else {
            return false;
        };
        !name.is_empty()
            && [
                format!("for ({name},"),
                format!("for {name} in"),
                format!("async |{name}: &str"),
                format!("|{name}: &str"),
            ]
            .iter()
            .any(|binding| body.contains(binding.as_str()))
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

/// The contents of string literals.
fn texts(code: &str) -> impl Iterator<Item = &str> {
    code.split('"').skip(1).step_by(2)
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
    by_name: BTreeMap<String, RustTest>,
}

#[derive(Default)]
struct RustTest {
    /// Without comments.
    body: String,
    /// It is a test by its attribute, or one that a macro mounts on the databases.
    runs: bool,
}

impl RustTests {
    fn of(folder: &Path) -> Self {
        let mut by_name: BTreeMap<String, RustTest> = BTreeMap::new();
        for file in files(folder, "rs") {
            Self::read(&without_comments(&fs::read_to_string(&file).unwrap()), &mut by_name);
        }
        Self { by_name }
    }

    fn read(text: &str, by_name: &mut BTreeMap<String, RustTest>) {
        let mounted: Vec<&str> = ["on_each_database!(", "on_postgres!("]
            .iter()
            .flat_map(|mount| text.split(mount).skip(1))
            .flat_map(|rest| rest.split(')').next().unwrap_or_default().split(','))
            .map(str::trim)
            .collect();
        let all: Vec<&str> = text.lines().collect();
        for (at, line) in all.iter().enumerate() {
            let Some((before, rest)) = line.split_once("fn ") else { continue };
            if !matches!(before.trim(), "" | "async") {
                continue;
            }
            let name: String =
                rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            let above: Vec<&str> = all[..at]
                .iter()
                .rev()
                .map(|line| line.trim())
                .take_while(|line| line.starts_with("#["))
                .collect();
            let is_test = above.iter().any(|one| *one == "#[test]" || one.starts_with("#[tokio::test"))
                && !above.iter().any(|one| one.starts_with("#[ignore"));
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            let lines: Vec<&str> = all[at..].iter().take_while(|line| **line != end).copied().collect();
            let found = by_name.entry(name.clone()).or_default();
            found.runs |= is_test || mounted.contains(&name.as_str());
            found.body.push_str(&lines.join("\n"));
        }
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
fn a_line_needs_an_assertion() {
    assert!(asserts("b08_x", "assert!(a);", "B", 8) && !asserts("b08_x", "assert!(a);", "B", 80));
    assert!(!asserts("b08_x", "let a = 8;", "B", 8), "a name alone holds nothing");
    assert!(
        asserts("x", "assert!(a, \"6.B.2: so\");", "B", 2)
            && !asserts("x", "assert!(a, \"6.B.25\");", "B", 2)
    );
    assert!(!asserts("x", "let a = \"6.B.2\"; assert!(a == b);", "B", 2), "a text that no assertion has");
    assert!(
        asserts("row_30_31_35_what", "assert!(a);", "", 31)
            && !asserts("row_30_31_35_what", "assert!(a);", "", 3)
    );
    let table = "for (row, a) in [(\"12 slash\", 1)] { assert_eq!(a, 1, \"{row}\"); }";
    assert!(asserts("x", table, "", 12) && !asserts("x", table, "", 13));
    assert!(!asserts("x", &table.replace("{row}", "so"), "", 12), "a label that no assertion prints");
    assert!(
        asserts("x", "assert!(b, \"53, 54: alive\");", "", 54)
            && !asserts("x", "assert!(b, \"127.0.0.1\");", "", 127)
    );
}

#[test]
fn a_test_has_to_run() {
    let text = "on_each_database!(mounted);\nasync fn mounted(db: Db) {\n}\nasync fn forgotten(db: Db) {\n}\n\
        #[test]\nfn plain() {\n}\n#[tokio::test]\n#[ignore = \"slow\"]\nasync fn ignored() {\n}\n";
    let mut tests = BTreeMap::new();
    RustTests::read(text, &mut tests);
    let runs: Vec<(&str, bool)> = tests.iter().map(|(name, test)| (name.as_str(), test.runs)).collect();
    assert_eq!(runs, [("forgotten", false), ("ignored", false), ("mounted", true), ("plain", true)]);
    assert!(story_fault("a", "test('a', async () => { assert.ok(1) })\ntest(").is_none());
    assert!(story_fault("a", "test('a', { skip: true }, async () => { assert.ok(1) })").is_some());
    assert!(story_fault("a", "test('a', async () => {})\ntest('b', async () => { assert.ok(1) })").is_some());
    assert!(story_fault("a", "").is_some());
}
