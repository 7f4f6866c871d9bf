//! Browser sign-ins on both databases.

mod cookies;
mod harness;
mod lost_answers;
mod planted;
mod sign_ins;
