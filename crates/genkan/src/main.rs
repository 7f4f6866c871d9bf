//! The `genkan` binary.

fn main() {}
