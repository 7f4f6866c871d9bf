use std::time::Duration;

use genkan_protocol::crypto::K256PrivateKey;
use genkan_protocol::plc::{self, Data};

use super::*;
use crate::{Client, Trouble, Wire};

fn key(byte: u8) -> K256PrivateKey {
    K256PrivateKey::from_bytes(&[byte; 32]).unwrap()
}

fn data(handle: &str) -> Data {
    let handle = handle.parse().unwrap();
    Data::of_account(vec![key(1).public().to_did_key()], &key(2).public(), &handle, "http://localhost:1")
}

async fn submit(directory: &FakeDirectory, did: &Did, operation: &Operation) -> String {
    let client = Client::new(&directory.url());
    let answer = client.post(&format!("/{did}"), "application/json", json!(operation).to_string()).await;
    format!("{} {}", answer.status, answer.message())
}

#[tokio::test]
async fn an_account_is_made_changed_and_ended() {
    let directory = FakeDirectory::start().await;
    let client = Client::new(&directory.url());
    let (did, genesis) = plc::genesis(data("alice.test"), &key(1));
    assert_eq!(client.get(&format!("/{did}")).await.message(), format!("DID not registered: {did}"));

    assert_eq!(submit(&directory, &did, &genesis).await, "200 ");
    let document = client.get(&format!("/{did}")).await.ok();
    assert_eq!(document.json()["alsoKnownAs"][0], "at://alice.test");
    assert_eq!(client.get(&format!("/{did}/data")).await.json()["did"], json!(did));

    let update = plc::update(&genesis.cid(), data("bob.test"), &key(1));
    assert_eq!(submit(&directory, &did, &update).await, "200 ");
    assert_eq!(client.get(&format!("/{did}/log/last")).await.json(), json!(update));
    let audit = client.get(&format!("/{did}/log/audit")).await.json();
    assert_eq!(audit[1]["cid"], update.cid());

    let end = plc::tombstone(&update.cid(), &key(1));
    assert_eq!(submit(&directory, &did, &end).await, "200 ");
    assert!(directory.is_tombstoned(&did));
    let gone = client.get(&format!("/{did}")).await;
    assert_eq!((gone.status, gone.message()), (404, format!("DID not available: {did}")));
    assert_eq!(directory.operations(&did), [genesis, update, end]);
    assert_eq!(directory.asked("submit"), 3);
}

#[tokio::test]
async fn an_operation_that_does_not_follow_is_refused() {
    let directory = FakeDirectory::start().await;
    let (did, genesis) = plc::genesis(data("alice.test"), &key(1));
    let (other, foreign) = plc::genesis(data("alice.test"), &key(3));
    assert_eq!(submit(&directory, &other, &foreign).await, "400 Invalid signature on op");
    assert!(submit(&directory, &other, &genesis).await.starts_with("400 Hash of genesis"));

    assert_eq!(submit(&directory, &did, &genesis).await, "200 ");
    assert_eq!(submit(&directory, &did, &genesis).await, "400 Operations not correctly ordered");
    let forged = plc::update(&genesis.cid(), data("bob.test"), &key(3));
    assert_eq!(submit(&directory, &did, &forged).await, "400 Invalid signature on op");
    let skipping = plc::update(&forged.cid(), data("bob.test"), &key(1));
    assert_eq!(submit(&directory, &did, &skipping).await, "400 Operations not correctly ordered");
    let end = plc::tombstone(&genesis.cid(), &key(1));
    directory.submit(&did, &end).unwrap();
    let after = plc::update(&end.cid(), data("bob.test"), &key(1));
    assert_eq!(submit(&directory, &did, &after).await, "400 Operations not correctly ordered");
}

#[tokio::test]
async fn an_operation_can_be_taken_and_the_answer_lost() {
    let directory = FakeDirectory::start().await;
    let (did, genesis) = plc::genesis(data("alice.test"), &key(1));
    let client = Client::new(&directory.url());
    let post = || {
        let request = client.request(Method::POST, &format!("/{did}"));
        request.body(json!(genesis).to_string()).unwrap()
    };
    directory.trouble_times("submit", Trouble::CutBefore, 1);
    directory.trouble_times("submit", Trouble::CutAfter, 1);

    assert!(client.try_send(post()).await.is_err());
    assert_eq!(directory.data(&did), None);
    assert!(client.try_send(post()).await.is_err());
    assert!(directory.data(&did).is_some());
    assert_eq!(client.send(post()).await.status, 400);
}

#[tokio::test]
async fn the_wire_can_be_spoiled_and_mended() {
    let directory = FakeDirectory::start().await;
    let client = Client::new(&directory.url());
    let health = || client.request(Method::GET, "/_health").body(String::new()).unwrap();

    directory.set_wire(Wire::Refusing).await;
    assert!(matches!(client.try_send(health()).await, Err(crate::call::NoAnswer::Unreachable(_))));
    directory.set_wire(Wire::Silent).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), client.try_send(health())).await.is_err());
    directory.set_wire(Wire::Raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".into())).await;
    assert_eq!(&client.send(health()).await.body[..], b"hi");
    directory.set_wire(Wire::Well).await;
    directory.trouble("health", Trouble::CutMidBody);
    assert!(client.try_send(health()).await.is_err());
    directory.mend();
    assert_eq!(client.send(health()).await.status, 200);
}

#[tokio::test]
async fn a_change_of_the_wire_closes_what_is_open() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = FakeDirectory::start().await;
    let mut stream = tokio::net::TcpStream::connect(directory.address()).await.unwrap();
    stream.write_all(b"GET /_health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    assert!(stream.read(&mut answer).await.unwrap() > 0);
    assert_eq!(directory.open_connections(), 1);
    directory.set_wire(Wire::Refusing).await;
    let end = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut answer)).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    assert_eq!(directory.open_connections(), 0);
}
