//! A web site whose pages a test writes.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use http::request::Parts;
use http::{HeaderValue, Response};

use crate::loopback::{Handler, Loopback, Reply, locked, whole};

/// A web site on loopback. A path without a page answers 404.
///
/// The names of requests in its journal are their paths.
#[derive(Debug)]
pub struct FakeSite {
    loopback: Loopback,
    pages: Arc<Mutex<Pages>>,
}

type Pages = HashMap<String, Page>;

#[derive(Clone, Debug)]
struct Page {
    status: u16,
    header: (&'static str, HeaderValue),
    body: Vec<u8>,
}

impl FakeSite {
    /// Starts a site without pages.
    pub async fn start() -> Self {
        let pages = Arc::<Mutex<Pages>>::default();
        let kept = Arc::clone(&pages);
        let handler: Handler = Arc::new(move |asked| {
            let page = locked(&kept).get(&asked.seen.path).cloned();
            Box::pin(async move { reply(page) })
        });
        let loopback = Loopback::start(|request: &Parts| request.uri.path().to_owned(), |_| handler).await;
        Self { loopback, pages }
    }

    /// Its origin.
    pub fn url(&self) -> String {
        format!("http://{}", self.loopback.address())
    }

    /// Its origin by the name `localhost`, for addresses that may not be an IP address.
    pub fn localhost_url(&self) -> String {
        format!("http://localhost:{}", self.loopback.address().port())
    }

    /// Writes the page at a path, in place of one that is there.
    ///
    /// # Panics
    ///
    /// If `kind` cannot be the value of a header.
    pub fn put(&self, path: &str, status: u16, kind: &str, body: impl AsRef<[u8]>) {
        self.write(path, status, ("content-type", kind), body.as_ref());
    }

    /// Answers a path with a redirect (302) to `location`.
    ///
    /// # Panics
    ///
    /// If `location` cannot be the value of a header.
    pub fn redirect(&self, path: &str, location: &str) {
        self.write(path, 302, ("location", location), b"");
    }

    fn write(&self, path: &str, status: u16, (name, value): (&'static str, &str), body: &[u8]) {
        let page = Page { status, header: (name, value.parse().unwrap()), body: body.to_owned() };
        locked(&self.pages).insert(path.to_owned(), page);
    }
}

impl Deref for FakeSite {
    type Target = Loopback;

    fn deref(&self) -> &Loopback {
        &self.loopback
    }
}

fn reply(page: Option<Page>) -> Reply {
    let Some(Page { status, header: (name, value), body }) = page else {
        return Response::builder().status(404).body(whole("")).unwrap();
    };
    Response::builder().status(status).header(name, value).body(whole(body)).unwrap()
}
