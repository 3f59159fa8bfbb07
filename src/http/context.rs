//! What the server hands to routes with each request, and what routes tell it of themselves.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Instant;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Problem;
use super::audit::{AuditEntry, AuditLog};
use crate::base::{format_time, wall_clock};

/// Where a request came from; an extension of every request that came over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The operation that a request turned out to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub id: &'static str,
    pub changes: bool,
}

/// Why a caller is not known though it said who it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unrecognised(pub &'static str);

/// One request as the server sees it.
#[derive(Debug)]
pub(super) struct Context {
    began: Instant,
    peer: SocketAddr,
    mark: OnceLock<Mark>,
    audit: Option<Arc<AuditLog>>,
    works: Arc<AtomicUsize>,
}

/// Counts as work that a stop waits for, until it is dropped.
pub(super) struct Work(Arc<AtomicUsize>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Context {
    /// Of a request that has just come.
    pub fn new(peer: SocketAddr, audit: Option<Arc<AuditLog>>, works: Arc<AtomicUsize>) -> Context {
        Context { began: Instant::now(), peer, mark: OnceLock::new(), audit, works }
    }

    /// When its head was there.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Takes note of the operation.
    pub fn enter(&self, mark: Mark) {
        // A route in a route: the outer one is it.
        let _ = self.mark.set(mark);
    }

    /// The operation, empty where there is none.
    pub fn operation(&self) -> &'static str {
        self.mark.get().map_or("", |mark| mark.id)
    }

    /// Something begins that a stop waits for.
    pub fn work(&self) -> Work {
        self.works.fetch_add(1, Relaxed);
        Work(Arc::clone(&self.works))
    }

    /// Writes the entry of an operation that changed something, or was to.
    pub async fn record(&self, mark: Mark, caller: String, path: String, status: StatusCode) {
        let Some(audit) = self.audit.clone() else { return };
        let entry = AuditEntry {
            at: format_time(wall_clock()),
            caller,
            address: self.peer.ip().to_canonical().to_string(),
            operation: mark.id.to_owned(),
            path,
            status: status.as_u16(),
            took_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        // It waits for a disk.
        let _ = tokio::task::spawn_blocking(move || audit.append(&entry)).await;
    }
}

/// What a handler answers; 500 if it panics. A panic is a defect of ours and is in the log; the server goes on.
pub(super) async fn unpanicked(handler: impl Future<Output = Response>) -> Response {
    let mut handler = pin!(handler);
    let mut polled = |cx: &mut std::task::Context<'_>| catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx)));
    let answer = poll_fn(|cx| match polled(cx) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    });
    let defect = || Problem::internal("a defect of the server ended this request; its log says more").into_response();
    answer.await.unwrap_or_else(defect)
}
