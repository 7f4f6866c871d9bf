//! What the fuzz target of this room calls. Not for use elsewhere.

use http::Method;

use super::row::Parameter;
use super::target::{Target, of_query};
use super::{decide, method, table};
use crate::wire::Authorization;

/// The method of a path. Outer `None`: outside of `/xrpc/`; inner `None`: not a method.
pub fn method(path: &str) -> Option<Option<&str>> {
    method::of_path(path).map(Result::ok)
}

/// The account that a query names in the parameter `repo` or `did`.
pub fn account(query: Option<&str>, parameter: &str) -> Option<String> {
    let parameter = if parameter == Parameter::Repo.as_str() { Parameter::Repo } else { Parameter::Did };
    Some(match of_query(query, parameter).ok()? {
        Target::Did(did) => did.into_owned(),
        Target::Handle(handle) => handle,
    })
}

/// Decides without a credential. Only a panic would be of interest.
pub fn decide(method: &str, query: Option<&str>) {
    let _ = decide::decide(table::row(method), &Method::GET, Authorization::Missing, query);
}
