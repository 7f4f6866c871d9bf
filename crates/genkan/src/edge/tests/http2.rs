//! An HTTP/2 client.

use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::network::Network;

/// A connection to the edge.
pub(super) async fn http2(network: &Network) -> hyper::client::conn::http2::SendRequest<Empty<bytes::Bytes>> {
    let stream = TcpStream::connect(network.edge.address()).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(super) fn http2_request(method: &str, path: &str) -> Request<Empty<bytes::Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://genkan.example{path}"))
        .header("authorization", "Bearer alice")
        .body(Empty::new())
        .unwrap()
}
