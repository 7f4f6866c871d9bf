//! A short-lived cache of the directory's answers. Concurrent readers of one page share one lookup.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;
use serde_json::{Value, json};

use crate::base::single_flight::SingleFlight;
use crate::base::{ByteCache, CacheSize, Clock, Timestamp, Weigh, allocation};

/// An answer of the PLC proxy.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) media_type: Option<HeaderValue>,
    pub(super) body: Bytes,
}

impl Page {
    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        let media_type = Some(HeaderValue::from_static("application/json"));
        Self { status, media_type, body: Bytes::from(value.to_string()) }
    }

    /// A refusal in the directory's own form.
    pub(super) fn message(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({ "message": message }))
    }

    /// Whether the answer may be cached: the DID exists, or was ended for good. An unknown DID may
    /// be created at any moment.
    fn is_lasting(&self) -> bool {
        matches!(self.status, StatusCode::OK | StatusCode::GONE)
    }
}

impl Weigh for Page {
    fn heap_bytes(&self) -> usize {
        let media_type = self.media_type.as_ref().map_or(0, HeaderValue::len);
        // A body may be a slice of the buffer that it was read into, which is kept with it.
        2 * allocation(self.body.len()) + allocation(media_type)
    }
}

/// Cached pages, bounded in bytes and lifetime.
pub(super) struct Cache {
    clock: Clock,
    lifetime: Duration,
    pages: ByteCache<Box<str>, (Timestamp, Page)>,
    single_flight: SingleFlight<Page>,
    /// Grows with each [`Cache::forget`]. A lookup that began earlier may have read the old page,
    /// so its answer is not cached.
    forgotten: Arc<AtomicU64>,
}

impl Cache {
    /// Creates a cache of this many pages of [`TYPICAL`] size, or fewer larger ones.
    pub(super) fn new(clock: Clock, entries: usize, lifetime: Duration) -> Self {
        let bytes = entries.saturating_mul(TYPICAL);
        let pages = CacheSize { name: "plc_pages", bytes, typical: TYPICAL }.build();
        Self { clock, lifetime, pages, single_flight: SingleFlight::default(), forgotten: Arc::default() }
    }

    pub(super) async fn get(
        &self,
        did: &str,
        key: String,
        look_up: impl Future<Output = Page> + Send + 'static,
    ) -> Page {
        debug_assert!(key.starts_with(did), "forgetting a DID forgets its keys");
        if let Some((at, page)) = self.pages.get(&*key)
            && self.clock.now().is_within(self.lifetime, at)
        {
            return page;
        }
        let (pages, forgotten, now) = (self.pages.clone(), Arc::clone(&self.forgotten), self.clock.now());
        let name = Box::from(&*key);
        let shared = self.single_flight.join(&key, async move {
            // If something is forgotten during the lookup, its answer may be older than the change.
            // It is then not kept.
            let before = forgotten.load(Ordering::SeqCst);
            let page = look_up.await;
            // The age counts from the start of the lookup: the answer may be as old as that.
            if page.is_lasting() && forgotten.load(Ordering::SeqCst) == before {
                pages.insert(name, (now, page.clone()));
            }
            page
        });
        shared.await.unwrap_or_else(|| Page::message(StatusCode::BAD_GATEWAY, "the lookup was cancelled"))
    }

    pub(super) fn forget(&self, did: &str) {
        // Before the removal, so that a lookup that ends in between does not put the old page back.
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        for part in ["", "/data", "/log", "/log/last", "/log/audit"] {
            let key = format!("{did}{part}");
            self.single_flight.forget(&key);
            self.pages.remove(&*key);
        }
    }
}

/// The memory of a document or operation, which have about 1 KiB each.
const TYPICAL: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_pages_make_the_cache_no_larger_than_its_bound() {
        const ENTRIES: usize = 1024;
        let cache = Cache::new(Clock::of_process(), ENTRIES, Duration::from_mins(1));
        for number in 0..100 {
            let did = format!("did:plc:{number:a>24}");
            let body = Bytes::from("x".repeat(200 << 10));
            let page = Page { status: StatusCode::OK, media_type: None, body };
            cache.get(&did, did.clone(), std::future::ready(page)).await;
        }
        let kept: usize = cache.pages.iter().map(|(_, (_, page))| page.body.len()).sum();
        // The buffer that a body was read into may be twice as large.
        assert!(kept > 0 && 2 * kept <= ENTRIES * TYPICAL, "{kept}");
    }
}
