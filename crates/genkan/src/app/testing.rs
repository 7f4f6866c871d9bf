//! The whole wiring on a database, for tests of what several rooms do to one account.

use std::path::Path;

use super::App;
use crate::accounts::Account;
use crate::accounts::testing::{add, new_account};
use crate::base::Secret;
use crate::config::Config;
use crate::db::Db;
use crate::fleet::testing::add_absent_host;
use crate::telemetry::metrics::Metrics;

/// All services on this database, with a host that does not answer and Ann's account on it.
pub(crate) async fn app_with_ann(db: Db) -> (App, Account) {
    app_with_ann_and(db, &[]).await
}

/// All services on this database, with these settings, a host that does not answer, and Ann's account
/// on it.
pub(crate) async fn app_with_ann_and(db: Db, settings: &[(&str, &str)]) -> (App, Account) {
    let mut config = Config::for_tests_with(Path::new("/nowhere"), settings);
    config.keys.sealing_key = Some(Secret::new([9; 32]));
    let clock = db.clock();
    let app = App::build_on(db, config, clock, Metrics::default()).await.unwrap();
    add_absent_host(&app.fleet, "oak").await;
    let ann = new_account("ann");
    add(&app.db, &ann).await.unwrap();
    let ann = app.accounts.find(&ann.did).await.unwrap().unwrap();
    (app, ann)
}
