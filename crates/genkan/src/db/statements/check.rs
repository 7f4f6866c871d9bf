//! The check itself.

use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};

use super::exceptions::{may_be_unexecuted, may_walk, unused_index};
use super::large::{LARGE, SMALL, fill, is_large};
use super::plans::{walks_of_postgres, walks_of_sqlite};
use super::texts::{Texts, is_statement, migrations, one_line};
use crate::db::dialect::Dialect;
use crate::db::testing::Fresh;

/// The texts that the tests executed on PostgreSQL, with a zero byte between them.
fn executed() -> Vec<String> {
    let file = std::env::var("GENKAN_TEST_STATEMENTS").expect("GENKAN_TEST_STATEMENTS names a file");
    let texts = std::fs::read_to_string(file).unwrap();
    let texts: Vec<String> = texts.split('\0').map(one_line).filter(|text| !text.is_empty()).collect();
    assert!(texts.len() > 200, "the tests executed {} texts only", texts.len());
    texts
}

/// The executed texts that name a large table, without those that only tests have.
fn of_large_tables() -> Vec<String> {
    let (program, tests, migrations) = (Texts::of_program(), Texts::of_tests(), migrations());
    let names_large = |text: &str| {
        let is_letter = |sign: char| sign.is_alphanumeric() || sign == '_';
        text.split(|sign| !is_letter(sign)).any(is_large)
    };
    // A text that no literal explains is checked as well: the program may build it from parts.
    let mut executed = executed();
    executed.retain(|text| {
        let is_of_others = tests.has(text) || migrations.contains(text.as_str());
        is_statement(text) && names_large(text) && (program.has(text) || !is_of_others)
    });
    executed
}

fn refuse(problems: &[String]) {
    assert!(problems.is_empty(), "{} statements:\n\n{}\n", problems.len(), problems.join("\n\n"));
}

#[test]
#[ignore = "needs GENKAN_TEST_STATEMENTS"]
fn every_statement_is_executed_by_a_test() {
    let (program, executed) = (Texts::of_program(), executed());
    let unknown = program.unknown.iter().map(|pattern| {
        format!(
            "{}: a statement with a part that varies: {}\n    write each text whole, or list what is inserted \
             in INSERTED of db/statements/exceptions.rs",
            pattern.place,
            pattern.text()
        )
    });
    let missing = program.missing_in(&executed).into_iter();
    let missing = missing.filter(|pattern| !may_be_unexecuted(&pattern.text())).map(|pattern| {
        format!(
            "{}: no test on PostgreSQL executes this text: {}\n    write a test of its function with \
             `on_each_database!`, or remove it",
            pattern.place,
            pattern.text()
        )
    });
    refuse(&unknown.chain(missing).collect::<Vec<_>>());
}

#[tokio::test]
#[ignore = "needs GENKAN_TEST_STATEMENTS"]
async fn every_statement_has_an_index_on_postgres() {
    let fresh = Fresh::postgres().await;
    let mut connection = fresh.db.writer().inner.acquire().await.unwrap();
    connection.execute("SET statement_timeout = 0").await.unwrap();
    let tables = sqlx::query_scalar::<_, String>(
        "SELECT CAST(table_name AS TEXT) FROM information_schema.tables WHERE table_schema = current_schema()",
    );
    for table in tables.fetch_all(&mut *connection).await.unwrap() {
        let is_listed = is_large(&table) || SMALL.contains(&table.as_str());
        assert!(is_listed, "list {table} as a large or a small table in db/statements/large.rs");
    }
    fill(&mut connection).await;
    // The plan for any values, and not for those of one call.
    connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    let mut problems = Vec::new();
    for text in of_large_tables() {
        let plan = match plan_of_postgres(&mut connection, &text).await {
            Ok(plan) => plan,
            Err(cause) => {
                problems.push(format!("PostgreSQL does not plan this statement: {cause}\n    {text}"));
                continue;
            }
        };
        if let Some((index, why)) = unused_index(&text, &plan) {
            problems.push(problem(
                "PostgreSQL",
                &text,
                &[format!("more than the rows of {index}")],
                &plan,
                why,
            ));
            continue;
        }
        let walks = walks_of_postgres(&plan);
        if walks.is_empty() || may_walk(&text) {
            continue;
        }
        // Whether an index could serve it that the planner finds too expensive.
        connection.execute("SET enable_seqscan = off").await.unwrap();
        let again = plan_of_postgres(&mut connection, &text).await.unwrap();
        connection.execute("SET enable_seqscan = on").await.unwrap();
        let advice = if walks_of_postgres(&again).is_empty() {
            "an index serves it, but the planner expects too many rows: add a LIMIT or a condition"
        } else {
            NO_INDEX
        };
        problems.push(problem("PostgreSQL", &text, &walks, &plan, advice));
    }
    connection.close().await.unwrap();
    refuse(&problems);
}

const NO_INDEX: &str = "no index serves its condition: add one in migrations/, or change the condition";

fn problem(database: &str, text: &str, walks: &[String], plan: &[String], advice: &str) -> String {
    format!(
        "On {database} this statement reads {}:\n    {text}\n  {advice}.\n  The plan:\n    {}",
        walks.join(" and "),
        plan.join("\n    ")
    )
}

async fn plan_of_postgres(connection: &mut AnyConnection, text: &str) -> sqlx::Result<Vec<String>> {
    let values = (1..1000).take_while(|number| has_parameter(text, *number)).map(|_| "NULL");
    let values = values.collect::<Vec<_>>().join(", ");
    let values = if values.is_empty() { values } else { format!("({values})") };
    connection.execute(sqlx::raw_sql(AssertSqlSafe(format!("PREPARE planned AS {text}")))).await?;
    let explain = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN EXECUTE planned{values}")));
    let plan = connection.fetch_all(explain).await;
    connection.execute(sqlx::raw_sql("DEALLOCATE planned")).await?;
    plan?.iter().map(|row| row.try_get(0)).collect()
}

fn has_parameter(text: &str, number: usize) -> bool {
    text.split('$').skip(1).any(|after| {
        let digits = after.split(|sign: char| !sign.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()) == Some(number)
    })
}

#[tokio::test]
#[ignore = "needs GENKAN_TEST_STATEMENTS"]
async fn every_statement_has_an_index_on_sqlite() {
    // Genkan lets SQLite collect no statistics, so its plans do not depend on the rows.
    let fresh = Fresh::sqlite().await;
    let mut problems = Vec::new();
    for text in of_large_tables() {
        if may_walk(&text) {
            continue;
        }
        let text = text.replace(Dialect::Postgres.clock(), Dialect::Sqlite.clock());
        let explain = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")));
        match fresh.db.reader().fetch_all(explain).await {
            Ok(plan) => {
                let plan: Vec<String> = plan.iter().map(|row| row.try_get("detail").unwrap()).collect();
                if let Some((index, why)) = unused_index(&text, &plan) {
                    let walks = [format!("more than the rows of {index}")];
                    problems.push(problem("SQLite", &text, &walks, &plan, why));
                }
                let walks = walks_of_sqlite(&plan, &text);
                if !walks.is_empty() {
                    problems.push(problem("SQLite", &text, &walks, &plan, NO_INDEX));
                }
            }
            Err(cause) => problems.push(format!("SQLite does not plan this statement: {cause}\n    {text}")),
        }
    }
    assert!(LARGE.len() > 20, "the list of large tables has {}", LARGE.len());
    refuse(&problems);
}
