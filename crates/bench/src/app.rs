//! An app with its proofs made before the time is taken, so that what is measured is the server's work.
//!
//! It is told by lines what to do. `dpop SECONDS TARGET`, `issue COUNT` and `refresh GRANTS SECONDS` prepare and say
//! `ready`; the next line starts it, and the figures come as those of `load`.

use std::cell::Cell;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use genkan_testing::Client;
use genkan_testing::network::App;
use http::Method;

use crate::load::{self, Load};

/// Whose account it is.
pub(crate) struct Person {
    pub(crate) identifier: String,
    pub(crate) password: String,
}

/// Serves its input until that ends.
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
            _ => bail!("what is {line:?}?"),
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

    /// Requests to the host, each with a proof of its own.
    async fn dpop(&self, app: &App, seconds: f64, target: &str) -> Result<()> {
        // Grants outlive their access tokens; the app has a fresh one for each run.
        let token = app.access.clone();
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

    /// Codes into tokens, one after the other on few connections.
    async fn issue(&self, count: usize) -> Result<()> {
        // A sign-in takes its least time however quick the machine is, so some go on at once.
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
        let began = Instant::now();
        let failures = Rc::new(Cell::new(0_usize));
        let shares: Vec<_> = (0..AT_ONCE).map(|_| Vec::new()).collect();
        let shares = codes.into_iter().enumerate().fold(shares, |mut shares, (at, one)| {
            if let Some(share) = shares.get_mut(at % AT_ONCE) {
                share.push(one);
            }
            shares
        });
        let redeeming: Vec<_> = shares
            .into_iter()
            .map(|share| {
                let failures = Rc::clone(&failures);
                tokio::task::spawn_local(async move {
                    for (app, code) in share {
                        if app.redeem(&code).await.status != 200 {
                            failures.set(failures.get() + 1);
                        }
                    }
                })
            })
            .collect();
        for one in redeeming {
            one.await?;
        }
        println!("{} {} {:.3} 0 0 0", count - failures.get(), failures.get(), began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Grants that are refreshed over and over, each for itself.
    async fn refresh(&self, grants: usize, seconds: f64) -> Result<()> {
        let mut apps = Vec::new();
        for _ in 0..grants {
            apps.push(self.grant().await);
        }
        ready().await?;
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(seconds);
        let (answers, failures) = (Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(0_usize)));
        let refreshing: Vec<_> = apps
            .into_iter()
            .map(|mut app| {
                let (answers, failures) = (Rc::clone(&answers), Rc::clone(&failures));
                tokio::task::spawn_local(async move {
                    while Instant::now() < until {
                        let count = if app.refresh().await.status == 200 { &answers } else { &failures };
                        count.set(count.get() + 1);
                    }
                })
            })
            .collect();
        for one in refreshing {
            one.await?;
        }
        println!("{} {} {:.3} 0 0 0", answers.get(), failures.get(), began.elapsed().as_secs_f64());
        Ok(())
    }
}

async fn ready() -> Result<()> {
    println!("ready");
    next_line().await.map(drop)
}

async fn next_line() -> Result<String> {
    let read = || {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    };
    Ok(tokio::task::spawn_blocking(read).await??)
}

const SCOPE: &str = "atproto transition:generic";
const CONNECTIONS: usize = 32;
const AT_ONCE: usize = 8;
/// More than a core verifies.
const MOST_PER_SECOND: f64 = 20_000.0;
