//! A host's stand-in, which answers every request at once: with about a kilobyte of JSON, or with
//! as many bytes as the query's `size` says.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // Delays of the stub would be measured as delays of the proxy.
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream));
    }
}

/// Answers one request after the other until the connection ends.
async fn connection(mut stream: TcpStream) -> Result<()> {
    let small = small();
    let mut buffer = vec![0; 16 << 10];
    let mut filled = 0;
    loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let seen = buffer.get(..filled).unwrap_or_default();
        let Some(end) = memchr::memmem::find(seen, b"\r\n\r\n") else { continue };
        match size(seen.get(..end).unwrap_or_default()) {
            None => stream.write_all(&small).await?,
            Some(size) => send_large(&mut stream, size).await?,
        }
        // A request of a bench has no body, and its client waits for the answer before the next
        // one. So the buffer holds no more than this request.
        filled = 0;
    }
}

/// Returns the query's `size`, in bytes.
fn size(head: &[u8]) -> Option<u64> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let at = memchr::memmem::find(line, b"size=")?;
    let digits: Vec<u8> = line.get(at + 5..)?.iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// Sends an answer with a body of `size` bytes.
async fn send_large(stream: &mut TcpStream, size: u64) -> Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.ipld.car\r\ncontent-length: {size}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; 64 << 10];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        stream.write_all(piece.get(..part).unwrap_or_default()).await?;
        left -= part as u64;
    }
    Ok(())
}

/// Returns an answer with a page of a feed, with the header fields that hosts send.
fn small() -> Vec<u8> {
    let posts: Vec<String> = (0..8)
        .map(|count| {
            format!(
                "{{\"uri\":\"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3l{count:011}\",\
                 \"text\":\"{}\"}}",
                "x".repeat(30)
            )
        })
        .collect();
    let body = format!("{{\"feed\":[{}]}}", posts.join(","));
    format!(
        // The header fields of a reference PDS, so that the proxy has as much to parse as in
        // practice.
        "HTTP/1.1 200 OK\r\nx-powered-by: Express\r\natproto-repo-rev: 3laaaaaaaaaaa\r\n\
         content-type: application/json; charset=utf-8\r\ncontent-length: {}\r\netag: W/\"400-abcdefgh\"\r\n\
         vary: Accept-Encoding\r\ndate: Sun, 22 Nov 2026 00:00:00 GMT\r\nconnection: keep-alive\r\n\
         keep-alive: timeout=90\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
