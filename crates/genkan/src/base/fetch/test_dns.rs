//! A name server on loopback for tests. A function of the name and of the number of questions so
//! far gives its answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, TXT};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

pub(crate) struct TestDns {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

pub(crate) enum Reply {
    Addresses(Vec<IpAddr>),
    Texts(Vec<Vec<String>>),
    NoSuchName,
    ServerFailure,
    /// No answer.
    Silence,
}

impl Reply {
    pub(crate) fn addresses(addresses: &[&str]) -> Self {
        Self::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }

    pub(crate) fn texts(records: &[&[&str]]) -> Self {
        let parts = |record: &&[&str]| record.iter().map(|&part| part.to_owned()).collect();
        Self::Texts(records.iter().map(parts).collect())
    }
}

impl TestDns {
    /// `reply` gets the absolute name and the number of this question, from 1 (an address lookup
    /// asks twice).
    pub(crate) async fn start(reply: impl Fn(&str, usize) -> Reply + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let count = counter.fetch_add(1, Ordering::SeqCst) + 1;
                let name = question.queries[0].name().to_string().to_ascii_lowercase();
                let reply = reply(&name, count);
                if matches!(reply, Reply::Silence) {
                    continue;
                }
                let answer = answer(&question, reply);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        Self { address, asked }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(question: &Message, reply: Reply) -> Message {
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    let data: Vec<RData> = match reply {
        Reply::Addresses(addresses) => addresses
            .into_iter()
            .filter_map(|address| match (address, query.query_type()) {
                (IpAddr::V4(address), RecordType::A) => Some(RData::A(A::from(address))),
                (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA::from(address))),
                _ => None,
            })
            .collect(),
        Reply::Texts(records) if query.query_type() == RecordType::TXT => {
            records.into_iter().map(|parts| RData::TXT(TXT::new(parts))).collect()
        }
        Reply::Texts(_) | Reply::Silence => Vec::new(),
        Reply::NoSuchName => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            Vec::new()
        }
        Reply::ServerFailure => {
            answer.metadata.response_code = ResponseCode::ServFail;
            Vec::new()
        }
    };
    answer.add_answers(data.into_iter().map(|data| Record::from_rdata(query.name().clone(), 60, data)));
    answer
}
