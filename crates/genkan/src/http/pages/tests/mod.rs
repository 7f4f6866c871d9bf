//! The pages as browsers meet them, on forms alone. Rows are those of the table of bad input in the
//! OAuth contract.

mod browsers;
mod email;
mod external;
mod protection;
mod request;
mod sign_in;
mod steps;
mod theme;
