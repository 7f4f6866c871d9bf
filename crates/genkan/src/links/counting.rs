//! A count of many rows that several runs of a job work on.

/// A count of the sessions in one state that is not complete yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Counting {
    pub(super) number: i64,
    /// The last session that was counted.
    pub(super) after: String,
}
