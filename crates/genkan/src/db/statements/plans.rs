//! What the databases' plans say about large tables.

use super::large::{LARGE, is_large};

/// Returns the walks through whole large tables, or whole indexes of them, in a plan of PostgreSQL.
pub(super) fn walks_of_postgres(plan: &[String]) -> Vec<String> {
    let mut walks = Vec::new();
    // The table whose rows the bitmap below is of.
    let mut bitmap_of = "";
    for (at, line) in plan.iter().enumerate() {
        let node = node_of(line);
        if let Some(table) = table_of(node, "Bitmap Heap Scan on ") {
            bitmap_of = table;
        }
        if let Some(table) = table_of(node, "Seq Scan on ") {
            walks.push(format!("every row of {table}"));
        }
        let by_index = node.starts_with("Index ").then(|| table_of(node, " on ")).flatten();
        let by_bitmap = node.starts_with("Bitmap Index Scan").then_some(bitmap_of);
        let Some(table) = by_index.or(by_bitmap).filter(|table| !table.is_empty()) else { continue };
        // The lines about the node itself, up to the next node.
        let own: Vec<&str> =
            plan[at + 1..].iter().take_while(|line| !line.contains("->")).map(|line| line.trim()).collect();
        let has_condition = own.iter().any(|line| line.starts_with("Index Cond:"));
        let has_filter = own.iter().any(|line| line.starts_with("Filter:"));
        if !has_condition && (has_filter || !is_limited(plan, at)) {
            walks.push(format!("a whole index of {table}"));
        }
    }
    walks
}

/// Whether a node is read only until a limit: no node between the limit and it reads all first.
fn is_limited(plan: &[String], at: usize) -> bool {
    let depth = |line: &str| line.len() - line.trim_start_matches([' ', '-', '>']).len();
    let mut below = depth(&plan[at]);
    for line in plan[..at].iter().rev().filter(|line| line.contains("->") || depth(line) == 0) {
        if depth(line) >= below {
            continue;
        }
        below = depth(line);
        let node = node_of(line);
        if node.starts_with("Limit") {
            return true;
        }
        if ["Sort", "Aggregate", "HashAggregate", "Hash"].iter().any(|all| node.starts_with(all)) {
            return false;
        }
    }
    false
}

/// Returns a node's name and what follows.
fn node_of(line: &str) -> &str {
    let node = line.trim_start_matches([' ', '-', '>']);
    node.strip_prefix("Parallel ").unwrap_or(node)
}

/// Returns the large table after `joint`.
fn table_of(node: &str, joint: &str) -> Option<&'static str> {
    let name = node.split_once(joint)?.1.split(' ').next()?;
    LARGE.iter().find(|table| **table == name).copied()
}

/// Returns the walks in a plan of SQLite for a statement. The plan names a table by its alias.
pub(super) fn walks_of_sqlite(plan: &[String], statement: &str) -> Vec<String> {
    let mut walks = Vec::new();
    // The first rows in the order of an index.
    let is_limited = statement.contains(" LIMIT ")
        && !statement.contains(" WHERE ")
        && !plan.iter().any(|line| line.contains("TEMP B-TREE FOR ORDER BY"));
    for line in plan {
        let Some((verb, rest)) = line.split_once(' ') else { continue };
        let name = rest.split(' ').next().unwrap_or_default();
        let Some(table) = named(statement, name) else { continue };
        let is_first_rows = is_limited && rest.contains(" INDEX ");
        if verb == "SCAN" && !is_first_rows || rest.contains(" AUTOMATIC ") {
            walks.push(format!("every row of {table}"));
        }
    }
    walks
}

/// Returns the large table that a statement gives this name.
fn named<'a>(statement: &'a str, name: &'a str) -> Option<&'a str> {
    let words: Vec<&str> =
        statement.split([' ', ',', '(', ')']).filter(|word| !word.is_empty() && *word != "AS").collect();
    let by_alias = words.windows(2).find(|two| two[1] == name && is_large(two[0])).map(|two| two[0]);
    by_alias.or_else(|| is_large(name).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walks(plan: &str) -> Vec<String> {
        walks_of_postgres(&plan.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn walks_are_told_from_searches() {
        assert_eq!(walks("Seq Scan on accounts  (cost=1)"), ["every row of accounts"]);
        assert_eq!(walks("Gather\n  ->  Parallel Seq Scan on links l  (cost=1)"), ["every row of links"]);
        assert!(walks("Seq Scan on hosts  (cost=1)").is_empty());
        assert!(walks("Index Scan using a on links  (cost=1)\n  Index Cond: (id = $1)").is_empty());
        assert_eq!(walks("Index Scan using a on links  (cost=1)"), ["a whole index of links"]);
        assert!(walks("Limit  (cost=1)\n  ->  Index Scan using a on links  (cost=1)").is_empty());
        let filtered =
            "Limit  (cost=1)\n  ->  Index Scan using a on links  (cost=1)\n        Filter: (b = $1)";
        assert_eq!(walks(filtered), ["a whole index of links"]);
        let sorted = "Limit  (cost=1)\n  ->  Sort\n        ->  Index Only Scan using a on links  (cost=1)";
        assert_eq!(walks(sorted), ["a whole index of links"]);
        let bitmap = "Bitmap Heap Scan on links  (cost=1)\n  Recheck Cond: (a)\n  ->  Bitmap Index Scan on b";
        assert_eq!(walks(bitmap), ["a whole index of links"]);
        assert!(walks(&format!("{bitmap}\n        Index Cond: (c = $1)")).is_empty());
    }

    #[test]
    fn walks_of_sqlite_are_told_from_searches() {
        let of = |line: &str, statement: &str| walks_of_sqlite(&[line.to_owned()], statement);
        assert_eq!(of("SCAN links", "SELECT a FROM links"), ["every row of links"]);
        assert_eq!(of("SCAN links USING INDEX b", "SELECT a FROM links"), ["every row of links"]);
        assert!(of("SCAN links USING INDEX b", "SELECT a FROM links ORDER BY b LIMIT 9").is_empty());
        assert_eq!(of("SCAN links USING INDEX b", "SELECT a FROM links WHERE c LIMIT 9").len(), 1);
        assert_eq!(of("SCAN l", "SELECT a FROM links AS l, hosts"), ["every row of links"]);
        assert_eq!(of("SCAN l", "SELECT a FROM (links l)"), ["every row of links"]);
        let automatic = "SEARCH l USING AUTOMATIC COVERING INDEX (a=?)";
        assert_eq!(of(automatic, "SELECT a FROM links l"), ["every row of links"]);
        assert!(of("SEARCH links USING INDEX b (state=?)", "SELECT a FROM links").is_empty());
        assert!(of("SCAN hosts", "SELECT a FROM hosts").is_empty());
    }
}
