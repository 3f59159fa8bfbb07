//! The pages: files that are part of the program.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use crate::http::Problem;

/// Nothing but what this server has; no script, style or frame of anywhere else, none inside the page, and no form that
/// leads away.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

macro_rules! assets {
    ($($path:literal $kind:expr),* $(,)?) => {
        &[$(($path, $kind, include_bytes!(concat!("assets/", $path)))),*]
    };
}

const FILES: &[(&str, &str, &[u8])] = assets![
    "index.html" "text/html; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "style.css" CSS,
    "parts.css" CSS,
    "app.js" JS,
    "lib/api.js" JS,
    "lib/bytes.js" JS,
    "lib/dom.js" JS,
    "lib/format.js" JS,
    "lib/graph.js" JS,
    "lib/keys.js" JS,
    "lib/markdown.js" JS,
    "lib/plot.js" JS,
    "lib/ui.js" JS,
    "pages/alerts.js" JS,
    "pages/features.js" JS,
    "pages/help.js" JS,
    "pages/job.js" JS,
    "pages/job/checkpoints.js" JS,
    "pages/job/events.js" JS,
    "pages/job/file.js" JS,
    "pages/job/graph.js" JS,
    "pages/job/letters.js" JS,
    "pages/job/logs.js" JS,
    "pages/job/quality.js" JS,
    "pages/job/rollouts.js" JS,
    "pages/job/shared.js" JS,
    "pages/job/sources.js" JS,
    "pages/jobs.js" JS,
    "pages/models.js" JS,
    "pages/server.js" JS,
    "pages/trainings.js" JS,
];

struct Asset {
    kind: &'static str,
    tag: String,
    bytes: &'static [u8],
}

static ASSETS: LazyLock<BTreeMap<&str, Asset>> = LazyLock::new(|| {
    let asset = |(path, kind, bytes): &(&'static str, &'static str, &'static [u8])| {
        let digest = Sha256::digest(bytes);
        let tag: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        (*path, Asset { kind, tag: format!("\"{tag}\""), bytes })
    };
    FILES.iter().map(asset).collect()
});

/// The routes of the pages. They are for everybody: what they show is asked for with a token where the server wants one.
pub(super) fn routes() -> Router {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { answer("index.html", &headers) }))
        .route("/console", get(|headers: HeaderMap| async move { answer("index.html", &headers) }))
        .route(
            "/console/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move { answer(&path, &headers) }),
        )
        .route("/favicon.ico", get(|headers: HeaderMap| async move { answer("icon.svg", &headers) }))
}

fn answer(path: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.get(path) else {
        return Problem::not_found(format!("the console has no file {path:?}")).into_response();
    };
    let common = [
        (ETAG, asset.tag.as_str()),
        // Asked for again each time, and not sent again as long as the program is the same.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    if known.any(|tag| tag == asset.tag || tag == "*") {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, asset.kind)], asset.bytes).into_response()
}

#[cfg(test)]
pub(super) mod testing {
    /// Paths and contents of all files.
    pub fn files() -> impl Iterator<Item = (&'static str, &'static [u8])> {
        super::FILES.iter().map(|(path, _, bytes)| (*path, *bytes))
    }
}
