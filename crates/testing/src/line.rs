//! A line between a client and a TCP server, such as a database, that a test makes slow, cut or
//! silent.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the line does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineState {
    /// Delivers each piece after this time, in both directions.
    Late(Duration),
    /// Accepts connections and closes them, as a proxy does whose server is away.
    Cut,
    /// Keeps connections open and delivers nothing, as if the other machine were dead.
    Silent,
}

/// A proxy of one server.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    state: watch::Sender<LineState>,
}

impl Line {
    /// Opens a line to the server that a URL names. It delivers at once.
    ///
    /// # Panics
    ///
    /// If the URL names no server with a port.
    pub async fn to(url: &str) -> Self {
        let server = authority(url).rsplit('@').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, told) = watch::channel(LineState::Late(Duration::ZERO));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, server.clone(), told.clone()));
            }
        });
        Self { address, state }
    }

    /// Returns `url` with the line in the place of its server.
    #[must_use]
    pub fn through(&self, url: &str) -> String {
        let server = authority(url);
        let user = server.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
        url.replacen(server, &format!("{user}{}", self.address), 1)
    }

    pub fn set(&self, state: LineState) {
        self.state.send_replace(state);
    }
}

fn authority(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    rest.split(['/', '?']).next().unwrap()
}

async fn connect(client: TcpStream, server: String, mut state: watch::Receiver<LineState>) {
    if *state.borrow() == LineState::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (there, back) = (state.clone(), state.clone());
    tokio::select! {
        () = carry(from_client, to_server, there) => {}
        () = carry(from_server, to_client, back) => {}
        _ = state.wait_for(|state| *state == LineState::Cut) => {}
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<LineState>) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut piece).await.unwrap_or(0);
        let now = *state.borrow();
        match now {
            // Not even the end of the connection arrives.
            LineState::Silent if length == 0 => return std::future::pending().await,
            LineState::Silent => continue,
            LineState::Late(delay) => tokio::time::sleep(delay).await,
            LineState::Cut => return,
        }
        let Some(read @ [_, ..]) = piece.get(..length) else { return };
        if to.write_all(read).await.is_err() {
            return;
        }
    }
}
