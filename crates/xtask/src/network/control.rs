//! The control port, at which other programs see and switch the members by HTTP.
//!
//! * `GET /` returns the map, and `GET /members` the members' states.
//! * `POST /members/<name>/<action>` takes `start`, `stop`, `kill` (SIGKILL), `restart` (kill and
//!   start), `pause` (SIGSTOP) and `resume`. `start` and `restart` answer when the member is ready.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::spawn;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Members, Network};

/// Serves the control port until this process ends, and returns its URL.
pub(super) fn serve(network: &Network, port: u16) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let url = format!("http://localhost:{port}");
    let map = network.map.clone();
    // The network ends when it is dropped, so this thread must not own a part of it.
    let members = Arc::downgrade(&network.members);
    spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let Some(members) = members.upgrade() else { return };
            let map = map.clone();
            spawn(move || {
                // An error means that the client has gone away.
                let _ = answer(&stream, &members, &map);
            });
        }
    });
    Ok(url)
}

fn answer(stream: &TcpStream, members: &Members, map: &Value) -> Result<()> {
    let mut head = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let mut words = head.first().map(String::as_str).unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = match act(method, path, members, map) {
        Ok(body) => ("200 OK", body),
        Err(error) => ("400 Bad Request", json!({ "error": format!("{error:#}") })),
    };
    let body = body.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

fn act(method: &str, path: &str, members: &Members, map: &Value) -> Result<Value> {
    match (method, path.split('/').skip(1).collect::<Vec<_>>().as_slice()) {
        ("GET", [""]) => Ok(map.clone()),
        ("GET", ["members"]) => members.names().map(|name| show(members, name)).collect(),
        ("POST", ["members", name, action]) => {
            let mut member = members.get(name)?;
            match *action {
                "start" => member.start()?,
                "stop" => member.stop()?,
                "kill" => member.kill(),
                "restart" => {
                    member.kill();
                    member.start()?;
                }
                "pause" => member.pause(),
                "resume" => member.resume(),
                other => bail!("{other} is not start, stop, kill, restart, pause or resume"),
            }
            drop(member);
            show(members, name)
        }
        _ => bail!("crates/xtask/src/network/control.rs lists what the control port answers"),
    }
}

fn show(members: &Members, name: &str) -> Result<Value> {
    let mut member = members.get(name)?;
    Ok(json!({ "name": name, "state": member.state(), "pid": member.pid() }))
}
