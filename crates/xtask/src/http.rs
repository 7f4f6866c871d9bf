//! A minimal HTTP/1.1 client for the network on loopback: one request per connection, and its whole
//! answer.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Sends a GET to a loopback port and returns the answer's status and body.
pub fn get(port: u16, path: &str) -> Result<(u16, String)> {
    request("GET", port, path)
}

/// Sends a request without a body to a loopback port and returns the answer's status and body.
pub fn request(method: &str, port: u16, path: &str) -> Result<(u16, String)> {
    exchange(
        port,
        &format!("{method} {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n"),
    )
}

/// Sends JSON by POST to a loopback port and returns the answer's status and body.
pub fn post_json(port: u16, path: &str, json: &str) -> Result<(u16, String)> {
    let length = json.len();
    exchange(
        port,
        &format!(
            "POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
        ),
    )
}

fn exchange(port: u16, request: &str) -> Result<(u16, String)> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    let status =
        head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("an answer has a status")?;
    Ok((status, body.to_owned()))
}
