//! A directory and a host that a real Genkan can sign an account up with, before the stub takes the host's place.

use std::io::BufRead as _;

use anyhow::Result;
use genkan_testing::{FakeDirectory, FakeHost};

/// Prints the directory's URL and the host's, takes the host's settings up to a line of one full stop, says so, and
/// stays until its input ends.
pub(crate) async fn serve(admin_password: &str) -> Result<()> {
    let directory = FakeDirectory::start().await;
    let host = FakeHost::start(admin_password).await;
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
