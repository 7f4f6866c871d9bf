//! The operator's listener: liveness, readiness and metrics. It must be reachable from the
//! operator's network only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::health::Readiness;
use crate::base::{Clock, cache_bytes};
use crate::telemetry::metrics::{
    BUILD, CACHE_BYTES, LOG_LINES_DROPPED, Metrics, RESIDENT_MEMORY, START_TIME,
};

#[derive(Clone, Debug)]
struct Ops {
    readiness: Readiness,
    metrics: Metrics,
    log_lines_dropped: Arc<AtomicU64>,
}

/// `/livez`, `/readyz` and `/metrics`.
pub(crate) fn ops_router(
    readiness: Readiness,
    metrics: &Metrics,
    clock: &Clock,
    log_lines_dropped: Arc<AtomicU64>,
) -> Router {
    metrics.gauge(&START_TIME, &[]).set(clock.now().as_seconds());
    metrics.gauge(&BUILD, &[env!("CARGO_PKG_VERSION")]).set(1);
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Ops { readiness, metrics: metrics.clone(), log_lines_dropped })
}

async fn ready(State(ops): State<Ops>) -> impl IntoResponse {
    match ops.readiness.check().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn metrics_text(State(ops): State<Ops>) -> impl IntoResponse {
    ops.metrics.counter(&LOG_LINES_DROPPED, &[]).set(ops.log_lines_dropped.load(Ordering::Relaxed));
    if let Some(bytes) = resident_bytes() {
        ops.metrics.gauge(&RESIDENT_MEMORY, &[]).set(bytes);
    }
    for (cache, bytes) in cache_bytes() {
        ops.metrics.gauge(&CACHE_BYTES, &[cache]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], ops.metrics.text())
}

/// From Linux's `/proc`; `None` on other systems.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}
