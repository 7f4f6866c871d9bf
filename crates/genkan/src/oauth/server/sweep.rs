//! Removal of rows that nothing can use any more.

use std::time::Duration;

use crate::db::sweep::{Sweep, sweep};
use crate::oauth::sql;

/// The sweeps of this room. A grant stays for a day after its end, and its code with it.
pub(crate) const SWEEPS: &[Sweep] = &[
    sweep!("used proofs", |db, range| sql::seen::sweep(db, range)),
    sweep!("authorization requests", |db, range| sql::requests::sweep(db, range)),
    sweep!("ended grants", |db, range| sql::grants::sweep_ended(db, range.keeping(DAY))),
    sweep!("idle grants", |db, range| sql::grants::sweep_idle(db, range.keeping(DAY))),
    sweep!("codes", |db, range| sql::codes::sweep(db, range.keeping(DAY))),
    // `keep` renews a scope at most once an hour, so ninety days are far beyond the last token that
    // refers to it.
    sweep!("scopes", |db, range| sql::scopes::sweep(db, range.keeping(DAY * 90))),
    sweep!("clients", |db, range| sql::clients::sweep(
        db,
        range.until.minus(DAY),
        range.until,
        range.until.plus(DAY)
    )),
    sweep!("permission sets without a document", |db, range| sql::permission_sets::sweep(
        db,
        range.keeping(DAY)
    )),
    sweep!("unused permission sets", |db, range| sql::permission_sets::sweep_unused(db, range.keeping(DAY))),
    // A grant that is in use is refreshed every three months at least.
    sweep!("permission sets of long ago", |db, range| {
        sql::permission_sets::sweep_used(db, range.keeping(DAY * 400))
    }),
];

const DAY: Duration = Duration::from_hours(24);
