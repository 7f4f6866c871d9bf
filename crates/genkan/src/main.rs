//! The `genkan` binary.

use std::process::ExitCode;

/// mimalloc: memory stays flat under many small, short-lived buffers on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    genkan::cli::run()
}
