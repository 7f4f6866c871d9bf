//! The texts of statements as the source has them.

use std::fs;
use std::path::Path;

use super::exceptions::INSERTED;
use super::literals::literals;

/// A statement's text, in the parts between its gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// The file and the line of the text.
    pub(super) place: String,
    parts: Vec<String>,
}

impl Pattern {
    fn new(place: &str, text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((part, after)) = rest.split_once('{') {
            parts.push(one_line(part));
            rest = after.split_once('}').map_or("", |(_, rest)| rest);
        }
        parts.push(one_line(rest));
        Self { place: place.to_owned(), parts }
    }

    /// Whether an executed text, in one line, came from this place.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((first, others)) = self.parts.split_first() else { return false };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        let Some((last, middle)) = others.split_last() else { return rest.is_empty() };
        for part in middle {
            let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
            rest = after;
        }
        rest.ends_with(last.as_str())
    }

    /// Whether an executed text contains these parts.
    fn is_in(&self, text: &str) -> bool {
        let mut rest = text;
        self.parts.iter().all(|part| rest.split_once(part.as_str()).map(|(_, after)| rest = after).is_some())
    }

    pub(super) fn text(&self) -> String {
        self.parts.join(" … ")
    }
}

/// Returns a text with single spaces.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The statements of some source.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) statements: Vec<Pattern>,
    /// Pieces that the program puts into statements.
    fragments: Vec<Pattern>,
    /// Texts with a gap of which the check does not know what is inserted.
    pub(super) unknown: Vec<Pattern>,
}

impl Texts {
    /// Reads the program's source without its tests.
    pub(super) fn of_program() -> Self {
        Self::of(&sources(|is_test| !is_test))
    }

    /// Reads the tests of all crates.
    pub(super) fn of_tests() -> Self {
        Self::of(&sources(|is_test| is_test))
    }

    fn of(sources: &[(String, String)]) -> Self {
        let mut texts = Self::default();
        for (file, code) in sources {
            for literal in literals(code) {
                let place = format!("{file}:{}", literal.line);
                if !is_statement(&literal.text) {
                    if is_fragment(&literal.text) {
                        texts.fragments.push(Pattern::new(&place, &literal.text));
                    }
                    continue;
                }
                // What ends with a space is continued elsewhere.
                let is_open = literal.text.ends_with(' ') && !literal.text.ends_with("} ");
                let text = one_line(&literal.text) + if is_open { " {}" } else { "" };
                match fill(&text, sources) {
                    Some(filled) => {
                        texts.statements.extend(filled.iter().map(|text| Pattern::new(&place, text)));
                    }
                    None => texts.unknown.push(Pattern::new(&place, &text)),
                }
            }
        }
        texts
    }

    /// Returns the statements and fragments that none of these texts contains.
    pub(super) fn missing_in<'a>(&'a self, executed: &[String]) -> Vec<&'a Pattern> {
        let statements =
            self.statements.iter().filter(|pattern| !executed.iter().any(|text| pattern.matches(text)));
        let fragments =
            self.fragments.iter().filter(|pattern| !executed.iter().any(|text| pattern.is_in(text)));
        statements.chain(fragments).collect()
    }

    /// Whether one of the statements became this text.
    pub(super) fn has(&self, text: &str) -> bool {
        self.statements.iter().chain(&self.unknown).any(|pattern| pattern.matches(text))
    }
}

/// Whether a text is a statement that reads or changes rows. In small letters, a sentence may begin
/// with such a verb too.
pub(super) fn is_statement(text: &str) -> bool {
    let text = one_line(text) + " ";
    let is_in_small = text.starts_with("insert into ")
        || text.starts_with("delete from ")
        || text.starts_with("select ") && text.contains(" from ")
        || text.starts_with("update ") && text.contains(" set ");
    is_in_small || VERBS.iter().any(|verb| text.starts_with(verb))
}

/// Returns the texts of all steps of the schema. They have no time limit, and may read whole tables.
pub(super) fn migrations() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    files.map(|text| one_line(&text)).collect::<Vec<_>>().join(" ")
}

const VERBS: [&str; 5] = ["SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "WITH "];

/// Whether a literal that begins with no verb is part of a statement.
fn is_fragment(text: &str) -> bool {
    let has_parameter = text.split('$').skip(1).any(|after| after.starts_with(|c: char| c.is_ascii_digit()));
    let mut words = text.split(|sign: char| !sign.is_ascii_alphabetic() && sign != '_');
    has_parameter || words.any(|word| WORDS.contains(&word))
}

/// Words in capitals that occur in statements and nowhere else in the source.
const WORDS: [&str; 8] = ["WHERE", "RETURNING", "VALUES", "LIMIT", "JOIN", "CONFLICT", "NULL", "ORDER"];

/// Returns the texts that a text becomes, one for each value of its gaps, or `None` if these are
/// unknown.
fn fill(text: &str, sources: &[(String, String)]) -> Option<Vec<String>> {
    if let Some((_, values)) = INSERTED.iter().find(|(of, _)| *of == text) {
        let gap = gaps(text).find(|gap| is_variable(gap))?;
        return Some(values.iter().map(|value| replaced(text, gap, value)).collect());
    }
    if text.contains("{$table}") {
        let tables = sources.iter().flat_map(|(_, code)| values_after(code, "leases_on!(", ""));
        return Some(tables.map(|table| replaced(text, "$table", table)).collect());
    }
    let of_type = |name: &'static str| sources.iter().flat_map(move |(_, code)| code.split(name).skip(1));
    if text.contains("{is_old}") {
        let text = text.replace("{is_old}", "{time} < $1 AND {time} >= $2{only}");
        return Some(of_type("OldRows {").filter_map(|rows| of_value(&text, rows, OLD_ROWS)).collect());
    }
    if text.contains("{only}") && text.contains("{column}") {
        return Some(of_type("Turns {").filter_map(|turns| of_value(text, turns, TURNS)).collect());
    }
    if text.contains("{table}") && text.contains("{column}") {
        let columns = of_type("SealedColumn {");
        return Some(columns.filter_map(|column| of_value(text, column, SEALED_COLUMN)).collect());
    }
    gaps(text).all(|gap| !is_variable(gap)).then(|| vec![text.to_owned()])
}

const OLD_ROWS: &[&str] = &["table", "key", "time"];
const TURNS: &[&str] = &["table", "key", "column"];
const SEALED_COLUMN: &[&str] = &["table", "key", "column", "row"];

/// Returns the text for one value of a type whose fields name a table and columns of it. The definition
/// of the type has no values.
fn of_value(text: &str, value: &str, fields: &[&str]) -> Option<String> {
    let value = value.split_once('}')?.0;
    let mut text = text.to_owned();
    for field in fields {
        text = replaced(&text, field, values_after(value, field, ": ").next()?);
    }
    let only = match values_after(value, "only", ": Some(").next() {
        Some(only) => format!(" AND {only}"),
        None if value.contains("only: None") => String::new(),
        // A variable has it.
        None => "{*}".to_owned(),
    };
    Some(text.replace("{only}", &only))
}

/// Returns the literals that follow `name` and `joint` in the code.
fn values_after<'a>(code: &'a str, name: &str, joint: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("{name}{joint}\"");
    code.match_indices(&start)
        .map(|(at, start)| &code[at + start.len()..])
        .filter_map(|rest| rest.split_once('"').map(|(value, _)| value))
        .collect::<Vec<_>>()
        .into_iter()
}

fn gaps(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|after| after.split_once('}').map(|(gap, _)| gap))
}

/// Whether the values of a gap are many. Constants and macros have one, and `{clock}` one for each
/// database.
fn is_variable(gap: &str) -> bool {
    let is_constant = !gap.is_empty() && !gap.contains(|sign: char| sign.is_lowercase());
    !is_constant && !gap.contains('!') && gap != "clock" && gap != "*"
}

fn replaced(text: &str, gap: &str, value: &str) -> String {
    let value = if value == "*" { "{*}" } else { value };
    text.replace(&format!("{{{gap}}}"), value)
}

/// Returns names and texts of files: those of tests, or the others.
fn sources(are_wanted: impl Fn(bool) -> bool + Copy) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if are_wanted(true) {
        // Other crates hold helpers of tests.
        visit(&root.join("tests"), true, are_wanted, &mut found);
        visit(&root.join("../testing/src"), true, are_wanted, &mut found);
        visit(&root.join("../xtask/src"), true, are_wanted, &mut found);
    }
    visit(&root.join("src"), false, are_wanted, &mut found);
    found
}

fn visit(
    folder: &Path,
    are_tests: bool,
    are_wanted: impl Fn(bool) -> bool + Copy,
    found: &mut Vec<(String, String)>,
) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "statements" {
            continue;
        }
        let is_test = are_tests || ["tests", "testing"].contains(&name.as_str()) || name.ends_with("_tests");
        if path.is_dir() {
            visit(&path, is_test, are_wanted, found);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path).display().to_string();
        let (code, tests) = source.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&source, ""));
        let code = if is_test { source.as_str() } else { code };
        if are_wanted(is_test) {
            found.push((place, code.to_owned()));
        } else if are_wanted(true) {
            found.push((place, tests.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> Texts {
        Texts::of(&[("a.rs".to_owned(), code.to_owned())])
    }

    fn missing(code: &str, executed: &[&str]) -> usize {
        of(code).missing_in(&executed.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).len()
    }

    #[test]
    fn a_text_matches_only_itself() {
        let code = "\"SELECT a FROM b WHERE c = $1\"";
        assert_eq!(of(code).statements[0].place, "a.rs:1");
        assert_eq!(missing(code, &["SELECT a FROM b WHERE c = $1"]), 0);
        assert_eq!(missing(code, &["SELECT a FROM b WHERE c = $1 AND d = $2"]), 1);
        assert_eq!(missing(code, &["SELECT a FROM b"]), 1);
    }

    #[test]
    fn constants_and_macros_are_anything() {
        let code = "format!(\"SELECT {COLUMNS} FROM b\") concat!(\"UPDATE b SET c WHERE \", open!())";
        assert_eq!(missing(code, &["SELECT x, y FROM b", "UPDATE b SET c WHERE d"]), 0);
        assert_eq!(missing(code, &["SELECT x, y FROM b WHERE z", "UPDATE b SET d"]), 2);
    }

    #[test]
    fn a_variable_part_must_be_listed() {
        assert_eq!(of("format!(\"SELECT a FROM {table}\")").unknown.len(), 1);
        assert_eq!(of("format!(\"SELECT a FROM {}\", table)").unknown.len(), 1);
        assert_eq!(of("push_str(\"SELECT a FROM \")").unknown.len(), 1);
        assert_eq!(of("\"SELECT 1 FROM accounts WHERE {column} = $1\"").statements.len(), 3);
        let old = "OldRows { table: \"b\", key: \"c\", time: \"d\", only: Some(\"e\") } \
            OldRows { table: \"f\", key: \"g\", time: \"h\", only: None } \"DELETE FROM {table} WHERE {is_old}\"";
        assert_eq!(missing(old, &["DELETE FROM f WHERE h < $1 AND h >= $2"]), 1);
        assert_eq!(missing(old, &["DELETE FROM b WHERE d < $1 AND d >= $2 AND e"]), 1);
        let leases = "leases_on!(\"b\") leases_on!(\"c\") concat!(\"DELETE FROM \", $table, \" WHERE d\")";
        assert_eq!(missing(leases, &["DELETE FROM c WHERE d"]), 1);
    }

    #[test]
    fn statements_are_told_from_sentences() {
        assert!(is_statement("\n  SELECT\n 1") && is_statement("select a from b"));
        assert!(is_statement("update a set b = 1") && !is_statement("update the host first"));
        assert!(!is_statement("Select a host from the list"));
    }

    #[test]
    fn every_piece_of_a_statement_must_be_in_one() {
        let code = "if x { \"AND a = $3\" } else { \"\" }";
        assert_eq!(missing(code, &["SELECT b FROM c WHERE d = $1"]), 1);
        assert_eq!(missing(code, &["SELECT b FROM c WHERE d = $1 AND a = $3"]), 0);
        assert_eq!(missing("\"costs $ and words\" \"GENKAN_HEAD_LIMIT\"", &[]), 0);
    }
}
