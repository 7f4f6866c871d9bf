//! Tests from outside: of the sources, and of the program as operators run it.

mod layers;
mod program;
