//! A name server for the handles of a test, with their `_atproto` TXT records (RFC 1035, over UDP).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::loopback::locked;

/// A running name server.
#[derive(Debug)]
pub struct FakeNames {
    address: SocketAddr,
    texts: Texts,
    serving: JoinHandle<()>,
}

/// Names in lower case to the TXT records of each.
type Texts = Arc<Mutex<HashMap<String, Vec<String>>>>;

impl FakeNames {
    /// Starts a name server without any names.
    ///
    /// # Panics
    ///
    /// If the machine has no port left.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let texts = Texts::default();
        let kept = Arc::clone(&texts);
        let serving = tokio::spawn(async move {
            let mut question = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let question = question.get(..length).unwrap_or_default();
                let answer = answer(question, &locked(&kept));
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, texts, serving }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a handle lead to these DIDs. More than one is a mistake that a test may want.
    pub fn publish(&self, handle: &str, dids: &[&str]) {
        let records = dids.iter().map(|did| format!("did={did}")).collect();
        locked(&self.texts).insert(format!("_atproto.{}", handle.to_lowercase()), records);
    }
}

impl Drop for FakeNames {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Returns the answer to one question, or `None` for bytes that are not a question.
fn answer(question: &[u8], texts: &HashMap<String, Vec<String>>) -> Option<Vec<u8>> {
    // A DNS header is 12 bytes (RFC 1035 §4.1.1).
    let (head, body) = question.split_at_checked(12)?;
    let mut labels = Vec::new();
    let mut rest = body;
    loop {
        let (length, after) = rest.split_first()?;
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        if label.is_empty() {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_lowercase());
    }
    // The question is sent back with its type and class, two bytes each, as resolvers require.
    let name_and_kind = body.get(..body.len() - rest.len() + 4)?;
    let asks_for_text = rest.starts_with(&[0, TXT]);
    let records = texts.get(&labels.join("."));
    let found = records.filter(|_| asks_for_text).map(Vec::as_slice).unwrap_or_default();

    let mut answer = head.get(..2)?.to_vec();
    // Flags of a reply: recursion was asked for and is available, and code 3 means "no such name".
    answer.extend([0x81, if records.is_some() { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, u8::try_from(found.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(name_and_kind);
    for text in found {
        let length = u8::try_from(text.len()).ok()?;
        // The name of the question once more, class IN, a life of one second.
        // `0xc0, 12` points at the name in the question (RFC 1035 §4.1.4).
        answer.extend([0xc0, 12, 0, TXT, 0, 1, 0, 0, 0, 1, 0, length + 1, length]);
        answer.extend(text.as_bytes());
    }
    Some(answer)
}

const TXT: u8 = 16;
