//! The databases that stories run on.

use genkan_testing::{Plan, Schema};

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
                    let schema = genkan_testing::Schema::borrow().await;
                    super::$story($crate::store::postgres(&schema)).await;
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
                    let schema = genkan_testing::Schema::borrow().await;
                    super::$story($crate::store::postgres(&schema)).await;
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

/// A network on a borrowed schema.
pub(crate) fn postgres(schema: &Schema) -> Plan {
    sqlite().set("GENKAN_DATABASE_URL", &schema.url()).set("GENKAN_DATABASE_CONNECTIONS", "4")
}
