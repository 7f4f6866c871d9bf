//! A fake directory and a fake host, with which a real Genkan signs an account up. Afterwards the
//! stub replaces the host.

use std::io::BufRead as _;

use anyhow::Result;
use genkan_testing::{FakeDirectory, FakeHost};

/// Runs both until standard input ends.
///
/// Prints the directory's URL and the host's. Reads the host's settings up to a line that holds one
/// full stop, and then prints `configured`.
pub(crate) async fn serve(admin_password: &str) -> Result<()> {
    let directory = FakeDirectory::start().await;
    let host = FakeHost::start(admin_password).await;
    // The bench reads this line, and starts Genkan with the directory's URL.
    println!("{} {}", directory.url(), host.url());
    let settings = tokio::task::spawn_blocking(|| {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.take_while(|line| line != ".").collect::<Vec<_>>().join("\n")
    })
    .await?;
    host.configure(&settings);
    println!("configured");
    tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().map_while(Result::ok).for_each(drop))
        .await?;
    Ok(())
}
