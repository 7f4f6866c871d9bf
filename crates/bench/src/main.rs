//! The two ends of a bench: clients before the proxy under test, and a host's stand-in behind it.
//!
//! They speak just enough HTTP/1.1 to cost next to nothing, on one thread each.
//! `cargo xtask bench` starts them. Started by hand they are useful with `perf`.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time and connects on loopback")]

mod app;
mod fakes;
mod load;
mod stub;

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match words.as_slice() {
        ["stub", address] => runtime.block_on(stub::serve(parse(address)?)),
        ["load", address, connections, seconds, target, fields @ ..] => {
            let load = load::Load::same(
                parse(address)?,
                connections.parse().context("CONNECTIONS is a number")?,
                seconds.parse().context("SECONDS is a number")?,
                load::request(target, fields),
            );
            runtime.block_on(tokio::task::LocalSet::new().run_until(load.run()))
        }
        ["idle", address, connections, target, fields @ ..] => {
            let connections = connections.parse().context("CONNECTIONS is a number")?;
            runtime.block_on(load::idle(parse(address)?, connections, &load::request(target, fields)))
        }
        ["app", address, origin, identifier, password] => {
            let person =
                app::Person { identifier: (*identifier).to_owned(), password: (*password).to_owned() };
            let serving = app::serve(parse(address)?, origin, person);
            runtime.block_on(tokio::task::LocalSet::new().run_until(serving))
        }
        ["fakes", admin_password] => runtime.block_on(fakes::serve(admin_password)),
        _ => bail!("{USAGE}"),
    }
}

const USAGE: &str = "\
genkan-bench stub ADDRESS
    Answer every request at once, as a host behind the proxy.
genkan-bench load ADDRESS CONNECTIONS SECONDS TARGET [FIELD…]
    Send requests as fast as they are answered, and print the figures.
genkan-bench idle ADDRESS CONNECTIONS TARGET [FIELD…]
    Send one request on each connection, and hold all of them until standard input ends.
genkan-bench app ADDRESS ORIGIN IDENTIFIER PASSWORD
    Sign in as an OAuth app, and run the commands on standard input.
genkan-bench fakes ADMIN_PASSWORD
    Run a fake directory and a fake host, for a sign-up.

ADDRESS is an IP address and a port. A FIELD is one header field, such as `accept: */*`.";

fn parse(address: &str) -> Result<SocketAddr> {
    address.parse().with_context(|| format!("{address} is not an IP address and a port"))
}
