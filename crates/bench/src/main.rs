//! `genkan-bench stub`, `genkan-bench load` and `genkan-bench idle`: what stands before and behind a proxy that is
//! measured. Both speak just enough HTTP/1.1 to cost next to nothing, on one thread each.
//!
//! `cargo xtask bench forward` starts them; by hand they are of use with `perf`.

mod app;
mod load;
mod neighbours;
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
                connections.parse().context("how many connections?")?,
                seconds.parse().context("for how many seconds?")?,
                load::request(target, fields),
            );
            runtime.block_on(tokio::task::LocalSet::new().run_until(load.run()))
        }
        ["idle", address, connections, target, fields @ ..] => {
            let connections = connections.parse().context("how many connections?")?;
            runtime.block_on(load::idle(parse(address)?, connections, &load::request(target, fields)))
        }
        ["app", address, origin, identifier, password] => {
            let person =
                app::Person { identifier: (*identifier).to_owned(), password: (*password).to_owned() };
            let serving = app::serve(parse(address)?, origin, person);
            runtime.block_on(tokio::task::LocalSet::new().run_until(serving))
        }
        ["neighbours", admin_password] => runtime.block_on(neighbours::serve(admin_password)),
        _ => bail!(
            "genkan-bench stub ADDRESS\n\
             genkan-bench load ADDRESS CONNECTIONS SECONDS TARGET [FIELD…]\n\
             genkan-bench idle ADDRESS CONNECTIONS TARGET [FIELD…]\n\
             genkan-bench app ADDRESS ORIGIN IDENTIFIER PASSWORD\n\
             genkan-bench neighbours ADMIN_PASSWORD"
        ),
    }
}

fn parse(address: &str) -> Result<SocketAddr> {
    address.parse().with_context(|| format!("{address} is no address"))
}
