//! Removal of rows that nothing can use any more.

use std::time::Duration;

use crate::db::sweep::{Sweep, sweep};
use crate::oauth::sql;

/// The sweeps of this room. A grant stays for a day after its end, and its code with it.
pub(crate) const SWEEPS: &[Sweep] = &[
    sweep!("used proofs", |db, now| sql::seen::sweep(db, now)),
    sweep!("authorization requests", |db, now| sql::requests::sweep(db, now)),
    sweep!("ended grants", |db, now| sql::grants::sweep_ended(db, now.minus(DAY))),
    sweep!("idle grants", |db, now| sql::grants::sweep_idle(db, now.minus(DAY))),
    sweep!("codes", |db, now| sql::codes::sweep(db, now.minus(DAY))),
    // `keep` renews a scope at most once an hour, so ninety days are far beyond the last token that
    // refers to it.
    sweep!("scopes", |db, now| sql::scopes::sweep(db, now.minus(DAY * 90))),
    sweep!("clients", |db, now| sql::clients::sweep(db, now.minus(DAY), now, now.plus(DAY))),
    sweep!("permission sets without a document", |db, now| sql::permission_sets::sweep(db, now.minus(DAY))),
    sweep!("unused permission sets", |db, now| sql::permission_sets::sweep_unused(db, now.minus(DAY))),
    // A grant that is in use is refreshed every three months at least.
    sweep!("permission sets of long ago", |db, now| {
        sql::permission_sets::sweep_used(db, now.minus(DAY * 400))
    }),
];

const DAY: Duration = Duration::from_hours(24);
