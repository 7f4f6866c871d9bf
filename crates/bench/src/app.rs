//! An OAuth app that makes its proofs before a run, so that only the server's time is measured.
//!
//! It reads commands from standard input, one per line: `dpop SECONDS TARGET`, `issue COUNT` and
//! `refresh GRANTS SECONDS`. After its preparation a command prints `ready`. The next line starts
//! it, whatever it says. The figures are printed as those of [`crate::load`].

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use genkan_testing::Client;
use genkan_testing::network::App;
use http::Method;

use crate::load::{self, Counts, Load};

/// An account's name and password.
pub(crate) struct Person {
    pub(crate) identifier: String,
    pub(crate) password: String,
}

/// Runs the commands on standard input until it ends.
pub(crate) async fn serve(address: SocketAddr, origin: &str, person: Person) -> Result<()> {
    let host = origin.split("://").nth(1).context("an origin has a host")?;
    let client = Client::new(&format!("http://{address}")).with("host", host);
    let bench = Bench { address, origin: origin.to_owned(), client, person };
    let app = bench.grant().await;
    loop {
        let line = next_line().await?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => return Ok(()),
            ["dpop", seconds, target] => bench.dpop(&app, seconds.parse()?, target).await?,
            ["issue", count] => bench.issue(count.parse()?).await?,
            ["refresh", grants, seconds] => bench.refresh(grants.parse()?, seconds.parse()?).await?,
            _ => bail!("there is no command {line:?}"),
        }
    }
}

struct Bench {
    address: SocketAddr,
    origin: String,
    client: Client,
    person: Person,
}

impl Bench {
    fn app(&self) -> App {
        App::at(self.client.clone(), &self.origin, SCOPE)
    }

    async fn grant(&self) -> App {
        let mut app = self.app();
        app.sign_in(&self.person.identifier, &self.person.password).await;
        app
    }

    /// Sends requests that are forwarded to the host, each with a proof of its own.
    async fn dpop(&self, app: &App, seconds: f64, target: &str) -> Result<()> {
        // The access token is the app's first one: a run ends long before the token expires.
        let token = app.access.clone();
        // Learns the nonce, which all proofs of the run then have.
        app.ask(&self.client, &self.origin, Method::GET, target, "").await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds' worth")]
        let most = (seconds * MOST_PER_SECOND) as usize;
        let url = format!("{}{target}", self.origin);
        let requests = (0..most)
            .map(|_| {
                let proof = app.proof("GET", &url, Some(&token));
                load::request(target, &[&format!("authorization: DPoP {token}"), &format!("dpop: {proof}")])
            })
            .collect();
        ready().await?;
        let load = Load::each(self.address, CONNECTIONS, seconds, requests);
        load.run().await
    }

    /// Exchanges codes for tokens, on few connections at a time.
    async fn issue(&self, count: usize) -> Result<()> {
        // A sign-in takes a fixed time at least, against guessing. So several run at once.
        let mut codes = Vec::new();
        while codes.len() < count {
            let some = (codes.len()..count).take(AT_ONCE).map(|_| async {
                let app = self.app();
                let code = app.code(&self.person.identifier, &self.person.password).await;
                (app, code)
            });
            codes.extend(futures_util::future::join_all(some).await);
        }
        ready().await?;
        let counts = Rc::new(Counts::default());
        // Each task redeems its own codes, one after the other, so that the number of connections
        // is fixed.
        let shares: Vec<_> = (0..AT_ONCE).map(|_| Vec::new()).collect();
        let shares = codes.into_iter().enumerate().fold(shares, |mut shares, (at, one)| {
            if let Some(share) = shares.get_mut(at % AT_ONCE) {
                share.push(one);
            }
            shares
        });
        let began = Instant::now();
        let redeeming: Vec<_> = shares
            .into_iter()
            .map(|share| {
                let counts = Rc::clone(&counts);
                tokio::task::spawn_local(async move {
                    for (app, code) in share {
                        let began = Instant::now();
                        match app.redeem(&code).await.status {
                            200 => counts.answer(began, 0),
                            _ => counts.failure(),
                        }
                    }
                })
            })
            .collect();
        for one in redeeming {
            one.await?;
        }
        counts.print(began.elapsed());
        Ok(())
    }

    /// Refreshes some grants again and again, each on its own.
    async fn refresh(&self, grants: usize, seconds: f64) -> Result<()> {
        let mut apps = Vec::new();
        for _ in 0..grants {
            apps.push(self.grant().await);
        }
        ready().await?;
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(seconds);
        let counts = Rc::new(Counts::default());
        let refreshing: Vec<_> = apps
            .into_iter()
            .map(|mut app| {
                let counts = Rc::clone(&counts);
                tokio::task::spawn_local(async move {
                    // Each refresh needs the token of the one before, so a grant cannot be
                    // refreshed in parallel.
                    while Instant::now() < until {
                        let began = Instant::now();
                        match app.refresh().await.status {
                            200 => counts.answer(began, 0),
                            _ => counts.failure(),
                        }
                    }
                })
            })
            .collect();
        for one in refreshing {
            one.await?;
        }
        counts.print(began.elapsed());
        Ok(())
    }
}

/// Prints `ready` and waits for the line that starts the run.
async fn ready() -> Result<()> {
    println!("ready");
    next_line().await.map(drop)
}

async fn next_line() -> Result<String> {
    let read = || {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    };
    // Standard input blocks, and a grant's connection must go on meanwhile.
    Ok(tokio::task::spawn_blocking(read).await??)
}

const SCOPE: &str = "atproto transition:generic";
const CONNECTIONS: usize = 32;
const AT_ONCE: usize = 8;
/// Proofs to make for each second of a run: more than one core verifies.
const MOST_PER_SECOND: f64 = 20_000.0;
