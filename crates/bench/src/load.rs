//! Clients that send the next request as soon as they have read the last answer.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// One run of clients.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
    pub(crate) requests: Requests,
}

/// The requests of a run.
#[derive(Clone)]
pub(crate) enum Requests {
    /// One request, sent again and again.
    Same(Rc<str>),
    /// Different requests, each sent once. The run ends with the last one.
    Each(Rc<RefCell<Vec<String>>>),
}

impl Requests {
    fn next(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Same(request) => Some(Cow::Borrowed(request)),
            Self::Each(requests) => requests.borrow_mut().pop().map(Cow::Owned),
        }
    }
}

/// What the clients of a run have counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    answers: Cell<u64>,
    failures: Cell<u64>,
    bytes: Cell<u64>,
    /// Microseconds from a request's first byte to its answer's last.
    times: RefCell<Vec<u32>>,
}

impl Counts {
    /// Counts an answer of `bytes` to a request that was sent at `began`.
    pub(crate) fn answer(&self, began: Instant, bytes: u64) {
        self.answers.set(self.answers.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.times.borrow_mut().push(micros);
    }

    pub(crate) fn failure(&self) {
        self.failures.set(self.failures.get() + 1);
    }

    /// Prints `answers failures seconds bytes p50 p99`, the percentiles in microseconds.
    pub(crate) fn print(&self, elapsed: Duration) {
        let mut times = self.times.borrow_mut();
        times.sort_unstable();
        // Exact percentiles: a few million times of four bytes fit in memory.
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0);
        println!(
            "{} {} {:.3} {} {} {}",
            self.answers.get(),
            self.failures.get(),
            elapsed.as_secs_f64(),
            self.bytes.get(),
            at(50),
            at(99)
        );
    }
}

/// Returns a GET request as text, with the header fields given.
pub(crate) fn request(target: &str, fields: &[&str]) -> String {
    let mut lines =
        vec![format!("GET {target} HTTP/1.1"), "host: bench.example".into(), "accept: */*".into()];
    lines.extend(fields.iter().map(|field| (*field).to_owned()));
    lines.join("\r\n") + "\r\n\r\n"
}

impl Load {
    pub(crate) fn same(address: SocketAddr, connections: usize, seconds: f64, request: String) -> Self {
        Self { address, connections, seconds, requests: Requests::Same(request.into()) }
    }

    pub(crate) fn each(address: SocketAddr, connections: usize, seconds: f64, requests: Vec<String>) -> Self {
        Self { address, connections, seconds, requests: Requests::Each(Rc::new(requests.into())) }
    }

    /// Runs, and prints the figures ([`Counts::print`]).
    pub(crate) async fn run(self) -> Result<()> {
        let counts = Rc::new(Counts::default());
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(self.seconds);
        let clients: Vec<_> = (0..self.connections)
            .map(|_| {
                let (counts, requests) = (Rc::clone(&counts), self.requests.clone());
                tokio::task::spawn_local(async move {
                    while Instant::now() < until {
                        let Err(error) = client(self.address, &requests, until, &counts).await else {
                            return;
                        };
                        // One message is enough to see what went wrong.
                        if counts.failures.get() == 0 {
                            eprintln!("{error:#}");
                        }
                        counts.failure();
                        // A server that refuses connections must not be flooded with new ones.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
            })
            .collect();
        for client in clients {
            client.await?;
        }
        counts.print(began.elapsed());
        Ok(())
    }
}

/// Runs one connection until the time is over, the requests are used up, or the connection breaks.
async fn client(address: SocketAddr, requests: &Requests, until: Instant, counts: &Counts) -> Result<()> {
    let mut stream = connect(address).await?;
    let mut buffer = vec![0; 128 << 10];
    while Instant::now() < until {
        let Some(request) = requests.next() else { return Ok(()) };
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let bytes = answer(&mut stream, &mut buffer).await?;
        counts.answer(began, bytes);
    }
    Ok(())
}

/// Connects from 127.0.0.2. The host behind the proxy has 127.0.0.1, and Genkan takes requests from
/// a host's address as requests that the host makes for a client.
async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_nodelay(true)?;
    socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into())?;
    Ok(socket.connect(address).await?)
}

/// Reads one answer to its end and returns the length of its body, which a `content-length` must
/// announce.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u64> {
    let mut filled = 0;
    let (head, length) = loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        if count == 0 {
            bail!(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        filled += count;
        let seen = buffer.get(..filled).unwrap_or_default();
        if let Some(end) = memchr::memmem::find(seen, b"\r\n\r\n") {
            let head = seen.get(..end).unwrap_or_default();
            // A fast error would otherwise look like a fast answer.
            if !head.starts_with(b"HTTP/1.1 200") {
                bail!("not a 200: {}", String::from_utf8_lossy(head));
            }
            break (end + 4, length(head).context("no content-length")?);
        }
    };
    // The first read may contain a part of the body.
    let mut left = length.saturating_sub((filled - head) as u64);
    while left > 0 {
        let count = stream.read(buffer).await?;
        if count == 0 {
            bail!(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        left = left.saturating_sub(count as u64);
    }
    Ok(length)
}

/// Returns the `content-length` of an answer's head. The field's name may have letters of any case.
fn length(head: &[u8]) -> Option<u64> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?.trim_end();
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

/// Opens connections, sends one request on each, prints `held`, and holds them until standard input
/// ends.
pub(crate) async fn idle(address: SocketAddr, connections: usize, request: &str) -> Result<()> {
    let mut held = Vec::with_capacity(connections);
    let mut buffer = vec![0; 128 << 10];
    for _ in 0..connections {
        let mut stream = connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream, &mut buffer).await?;
        held.push(stream);
    }
    println!("held");
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;
    drop(held);
    Ok(())
}
