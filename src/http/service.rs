//! What is done with one request, around its handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as _, Incoming};
use tower::ServiceExt;

use super::Problem;
use super::audit::AuditLog;
use super::body::{Answer, Bounded, Fate};
use super::connection::Connection;
use super::context::{Context, Peer, unpanicked};
use super::figures::{Figures, Refusal};
use super::gate::{Gate, Identity};
use super::options::Limits;

/// What all connections share.
pub(super) struct Shared {
    pub router: Router,
    pub gate: Gate,
    pub limits: Limits,
    pub figures: Arc<Figures>,
    pub audit: Option<Arc<AuditLog>>,
    /// Operations that change something and are not done.
    pub works: Arc<AtomicUsize>,
}

struct InFlight(Arc<Figures>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    /// Answers a request.
    pub async fn answer(&self, from: Arc<Connection>, request: Request<Incoming>) -> Response<Answer> {
        let busy = from.begin();
        self.figures.in_flight.fetch_add(1, Relaxed);
        let counted = Box::new(InFlight(Arc::clone(&self.figures)));
        let context = Arc::new(Context::new(from.peer, self.audit.clone(), Arc::clone(&self.works)));
        let version = request.version();
        let fate = Fate::default();
        let mut response = self.handle(&from, &context, request, &fate).await;
        if fate.too_large() {
            response = self.too_large();
        } else if fate.too_slow() {
            response = self.too_slow("the body of the request did not come in time");
        }
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED => {
                self.figures.refused(Refusal::Token);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::FORBIDDEN if !context.operation().is_empty() => self.figures.refused(Refusal::Scope),
            // What is left of the body is not read.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT if version < Version::HTTP_2 => {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        // No browser is to guess that what somebody has sent is a page.
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.figures.answered(context.operation(), status.as_u16(), context.began().elapsed());
        response.map(|body| Answer::new(body, busy, counted))
    }

    async fn handle(
        &self,
        from: &Connection,
        context: &Arc<Context>,
        request: Request<Incoming>,
        fate: &Fate,
    ) -> Response {
        let (mut parts, body) = request.into_parts();
        match self.gate.identify(&parts, from, &self.figures) {
            Err(refused) => return *refused,
            Ok(Identity::Caller(caller)) => drop(parts.extensions.insert(caller)),
            Ok(Identity::Unrecognised(why)) => drop(parts.extensions.insert(why)),
            Ok(Identity::Nobody) => {}
        }
        if body.size_hint().lower() > self.limits.body_bytes {
            return self.too_large();
        }
        parts.extensions.insert(Peer(from.peer));
        parts.extensions.insert(Arc::clone(context));
        let body = Bounded::new(body, self.limits.body_bytes, self.limits.stall, fate.clone());
        let request = Request::from_parts(parts, Body::new(body));
        let handler = async {
            match self.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        };
        match tokio::time::timeout(self.limits.request, unpanicked(handler)).await {
            Ok(response) => response,
            Err(_) => {
                self.figures.refused(Refusal::Time);
                let limit = self.limits.request.as_secs_f64();
                Problem::unavailable(format!("it took longer than {limit} s; a change that has begun goes on"))
                    .into_response()
            }
        }
    }

    fn too_large(&self) -> Response {
        self.figures.refused(Refusal::LargeBody);
        let text = format!("the body of the request is longer than {} bytes", self.limits.body_bytes);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
    }

    fn too_slow(&self, text: &str) -> Response {
        self.figures.refused(Refusal::SlowBody);
        Problem::new(StatusCode::REQUEST_TIMEOUT, text).into_response()
    }
}
