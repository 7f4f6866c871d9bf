//! The databases that stories run on.

use genkan_testing::Plan;

/// Mounts stories (`async fn story(plan: Plan)`) on `SQLite` and on PostgreSQL.
macro_rules! on_each_database {
    ($($story:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    super::$story($crate::store::sqlite()).await;
                }
            )+
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs GENKAN_TEST_POSTGRES"]
                async fn $story() {
                    let schema = $crate::store::Schema::make().await;
                    super::$story(schema.plan()).await;
                    schema.drop().await;
                }
            )+
        }
    };
}
pub(crate) use on_each_database;

/// Mounts stories that need what only PostgreSQL has: several Genkans on one database.
macro_rules! on_postgres {
    ($($story:ident),+ $(,)?) => {
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs GENKAN_TEST_POSTGRES"]
                async fn $story() {
                    let schema = $crate::store::Schema::make().await;
                    super::$story(schema.plan()).await;
                    schema.drop().await;
                }
            )+
        }
    };
}
pub(crate) use on_postgres;

/// A network on a file of its own.
pub(crate) fn sqlite() -> Plan {
    Plan::new(env!("CARGO_BIN_EXE_genkan"))
}

/// A schema of its own in the PostgreSQL that is there for tests.
pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    pub(crate) async fn make() -> Self {
        let server =
            std::env::var("GENKAN_TEST_POSTGRES").expect("GENKAN_TEST_POSTGRES names a database for tests");
        let name =
            format!("story_{}_{}", std::process::id(), std::time::UNIX_EPOCH.elapsed().unwrap().as_micros());
        let this = Self { server, name };
        execute(&this.server, &format!("CREATE SCHEMA {}", this.name)).await;
        this
    }

    pub(crate) fn url(&self) -> String {
        let joint = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{joint}options=-csearch_path%3D{}", self.server, self.name)
    }

    pub(crate) fn plan(&self) -> Plan {
        sqlite().set("GENKAN_DATABASE_URL", &self.url()).set("GENKAN_DATABASE_CONNECTIONS", "4")
    }

    /// Not done when the story panics, so that one can look at what it left.
    pub(crate) async fn drop(self) {
        execute(&self.server, &format!("DROP SCHEMA {} CASCADE", self.name)).await;
    }
}

/// Runs one statement on a connection of its own.
pub(crate) async fn execute(url: &str, statement: &str) {
    use sqlx::{Connection as _, Executor as _};
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))).await.unwrap();
    connection.close().await.unwrap();
}
