//! `cargo demo`, `cargo verify`, `cargo xtask …`.

fn main() {}
