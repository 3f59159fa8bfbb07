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
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn below(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => below(&path, found),
                path => found.push(path),
            }
        }
    }

    #[test]
    fn every_file_of_the_console_is_served_and_no_other() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control/console/assets");
        let mut files = Vec::new();
        below(&root, &mut files);
        let path = |file: &PathBuf| file.strip_prefix(&root).expect("below").display().to_string();
        let there: BTreeSet<String> = files.iter().map(path).collect();
        let served: BTreeSet<String> = ASSETS.keys().map(|path| (*path).to_owned()).collect();
        assert_eq!(served, there);
    }

    #[test]
    fn what_modules_import_is_there_and_nothing_is_read_as_html_or_asked_of_others() {
        for (path, kind, bytes) in FILES {
            let text = std::str::from_utf8(bytes).expect("UTF-8");
            let namespace = "http://www.w3.org/2000/svg";
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "http://",
                "https://",
                " style=\"",
                " onclick=",
            ] {
                assert!(!text.replace(namespace, "").contains(forbidden), "{path} has {forbidden}");
            }
            assert!(text.lines().count() <= 500, "{path} outgrows its reader");
            for line in
                text.lines().filter(|line| *kind == JS && (line.starts_with("import ") || line.starts_with("export {")))
            {
                let Some(wanted) = line.split('\'').nth(1) else { continue };
                let mut at: Vec<&str> = path.split('/').collect();
                at.pop();
                for part in wanted.split('/') {
                    match part {
                        "." => {}
                        ".." => drop(at.pop()),
                        part => at.push(part),
                    }
                }
                assert!(ASSETS.contains_key(at.join("/").as_str()), "{path} imports {wanted}, which is not there");
            }
        }
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let first = answer("app.js", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        assert!(first.headers()[CONTENT_SECURITY_POLICY].to_str().expect("text").starts_with("default-src 'none'"));
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(answer("app.js", &headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer("style.css", &headers).status(), StatusCode::OK);
        assert_eq!(answer("../mod.rs", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }
}
