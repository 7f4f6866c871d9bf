//! The type by which a handler names its row of the routing table.

use crate::routing::Row;

/// A method that Genkan answers.
pub(crate) trait Method: Send + Sync + 'static {
    /// Its row of the routing table.
    const ROW: &'static Row;
}

/// Declares the type of a method: `method!(GetSession, "com.atproto.server.getSession");`
///
/// Without a row of that name whose rule is `Local`, the program does not compile.
macro_rules! method {
    ($name:ident, $nsid:literal) => {
        #[doc = concat!("`", $nsid, "`")]
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;

        impl $crate::http::method::Method for $name {
            const ROW: &'static $crate::routing::Row = $crate::routing::table::answered($nsid);
        }
    };
}
pub(crate) use method;
