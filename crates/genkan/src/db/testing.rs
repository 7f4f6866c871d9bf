//! Fresh databases for tests: a SQLite file, or a schema of its own in `GENKAN_TEST_POSTGRES`.

use std::path::PathBuf;

use sqlx::Executor as _;

use super::{DatabaseUrl, Db, PoolSize};
use crate::base::random;

/// Mounts each `async fn name(db: Db)` twice: as `sqlite::name`, and as `postgres::name`, which
/// is ignored unless asked for (it needs `GENKAN_TEST_POSTGRES`).
macro_rules! on_each_database {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() {
                let fresh = $crate::db::testing::Fresh::sqlite().await;
                super::$name(fresh.db.clone()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            #[ignore = "needs GENKAN_TEST_POSTGRES"]
            async fn $name() {
                let fresh = $crate::db::testing::Fresh::postgres().await;
                super::$name(fresh.db.clone()).await;
                fresh.drop_schema().await;
            })+
        }
    };
}
pub(crate) use on_each_database;

pub(crate) struct Fresh {
    pub(crate) db: Db,
    folder: Option<PathBuf>,
    schema: Option<(String, String)>,
}

impl Fresh {
    pub(crate) async fn sqlite() -> Self {
        let folder = std::env::temp_dir().join(format!("genkan-test-{}", random::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let db = Db::open(&DatabaseUrl::sqlite(&folder.join("test.db")), PoolSize::default()).await.unwrap();
        Self { db, folder: Some(folder), schema: None }
    }

    pub(crate) async fn postgres() -> Self {
        let server =
            std::env::var("GENKAN_TEST_POSTGRES").expect("GENKAN_TEST_POSTGRES names a database for tests");
        let schema = format!("test_{}", random::id());
        administer(&server, &format!("CREATE SCHEMA {schema}")).await;
        let joint = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{joint}options=-csearch_path%3D{schema}");
        let size = PoolSize { connections: 4, ..PoolSize::default() };
        let db = Db::open(&DatabaseUrl::postgres(url), size).await.unwrap();
        Self { db, folder: None, schema: Some((server, schema)) }
    }

    pub(crate) async fn drop_schema(self) {
        if let Some((server, schema)) = &self.schema {
            self.db.close().await;
            administer(server, &format!("DROP SCHEMA {schema} CASCADE")).await;
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

async fn administer(server: &str, statement: &str) {
    use sqlx::Connection as _;
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(server).await.unwrap();
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))).await.unwrap();
    connection.close().await.unwrap();
}
