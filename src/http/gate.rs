//! Who a request is from, and whether it may come in.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};

use super::connection::Connection;
use super::context::Unrecognised;
use super::figures::{Figures, Refusal};
use super::rate::Addresses;
use super::tokens::{Known, Tokens};
use super::{Caller, Problem};

/// What is asked of callers.
pub(super) struct Gate {
    /// `None` where nobody needs a token.
    pub tokens: Option<RwLock<Arc<Tokens>>>,
    /// For callers without a name.
    pub addresses: Option<Addresses>,
    /// Whether only this machine reaches the server.
    pub loopback: bool,
    /// Where its clock begins.
    pub began: Instant,
}

/// Who a caller turned out to be.
pub(super) enum Identity {
    Caller(Caller),
    /// It says who it is and is not.
    Unrecognised(Unrecognised),
    /// It says nothing.
    Nobody,
}

impl Gate {
    /// Takes the tokens of a file that was read again.
    pub fn replace(&self, tokens: Tokens) {
        if let Some(own) = &self.tokens {
            *own.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
        }
    }

    /// Who a request is from.
    ///
    /// # Errors
    /// The answer to a request that does not come in.
    pub fn identify(&self, parts: &Parts, from: &Connection, figures: &Figures) -> Result<Identity, Box<Response>> {
        let refused = |why, problem: Problem| {
            figures.refused(why);
            Err(Box::new(problem.into_response()))
        };
        let host = host(parts);
        if host.is_none() && parts.version == Version::HTTP_11 {
            return refused(Refusal::Malformed, Problem::bad_request("the request has no Host header"));
        }
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Some(tokens) = &self.tokens else {
            // No secret stands between a page in somebody's browser and this server: only pages of its own may ask.
            if self.loopback && !host.is_none_or(is_local) {
                let text = "this server answers to localhost alone: it has no tokens";
                return refused(Refusal::Origin, Problem::new(StatusCode::FORBIDDEN, text));
            }
            if is_foreign(&parts.headers, host) {
                let text = "another site's page asks this; give the server tokens to allow that";
                return refused(Refusal::Origin, Problem::new(StatusCode::FORBIDDEN, text));
            }
            self.unnamed(from, now, figures)?;
            return Ok(Identity::Caller(Caller::anonymous()));
        };
        let tokens = Arc::clone(&tokens.read().unwrap_or_else(PoisonError::into_inner));
        if parts.headers.contains_key(header::AUTHORIZATION) {
            let known = bearer(&parts.headers).and_then(|token| tokens.by_token(token));
            return match known {
                Some(known) => named(known, now, figures),
                None => {
                    self.unnamed(from, now, figures)?;
                    Ok(Identity::Unrecognised(Unrecognised(
                        "the token is not known: send `Authorization: Bearer <token>`",
                    )))
                }
            };
        }
        if !from.certificate.is_empty() {
            if let Some(known) = tokens.by_certificate(&from.certificate) {
                // A browser sends its certificate whoever asks.
                if is_foreign(&parts.headers, host) {
                    let text = "another site's page asks this; that needs a token";
                    return refused(Refusal::Origin, Problem::new(StatusCode::FORBIDDEN, text));
                }
                return named(known, now, figures);
            }
            self.unnamed(from, now, figures)?;
            return Ok(Identity::Unrecognised(Unrecognised(
                "no name in the client's certificate is in the tokens file",
            )));
        }
        self.unnamed(from, now, figures)?;
        Ok(Identity::Nobody)
    }

    fn unnamed(&self, from: &Connection, now: u64, figures: &Figures) -> Result<(), Box<Response>> {
        match self.addresses.as_ref().map(|addresses| addresses.take(from.peer.ip(), now)) {
            Some(Err(wait)) => Err(too_many(wait, "from this address without a token", figures)),
            _ => Ok(()),
        }
    }
}

fn named(known: &Known, now: u64, figures: &Figures) -> Result<Identity, Box<Response>> {
    match known.bucket.as_ref().map(|bucket| bucket.take(now)) {
        Some(Err(wait)) => Err(too_many(wait, &format!("with the token of `{}`", known.caller.name), figures)),
        _ => Ok(Identity::Caller(known.caller.clone())),
    }
}

fn too_many(wait: Duration, whose: &str, figures: &Figures) -> Box<Response> {
    figures.refused(Refusal::Rate);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let problem = Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        format!("too many requests {whose}; the next one may come in {seconds} s"),
    );
    Box::new(([(header::RETRY_AFTER, seconds.max(1).to_string())], problem).into_response())
}

/// The token, if there is one and only one.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (all.next()?.as_bytes(), all.next()) else { return None };
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

/// The name by which the server was asked, with its port.
fn host(parts: &Parts) -> Option<&str> {
    let asked = parts.uri.authority().map(|authority| authority.as_str());
    asked.or_else(|| parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()))
}

/// Whether a name with a port is this machine's to itself.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether a browser says that a page from elsewhere asks.
fn is_foreign(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("origin"), text("sec-fetch-site")) {
        // `null` is a page from nowhere, such as a file or a sandbox.
        (Some(origin), _) => {
            origin.split_once("://").is_none_or(|(_, name)| host.is_none_or(|host| !name.eq_ignore_ascii_case(host)))
        }
        // A link may lead here; a script of another site may not.
        (None, Some("cross-site" | "same-site")) => text("sec-fetch-mode") != Some("navigate"),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn a_token_is_taken_from_one_header_alone() {
        let token = |list: &[(&'static str, &str)]| {
            let headers = headers(list);
            bearer(&headers).map(|token| String::from_utf8_lossy(token).into_owned())
        };
        assert_eq!(token(&[("authorization", "bEaReR  x ")]).as_deref(), Some("x"));
        assert_eq!(token(&[("authorization", "Basic eDp5")]), None);
        assert_eq!(token(&[("authorization", "Bear")]), None);
        let mut two = headers(&[("authorization", "Bearer x")]);
        two.append("authorization", "Bearer y".parse().expect("a value"));
        assert_eq!(bearer(&two), None);
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "LOCALHOST:7070", "127.0.0.1:1", "127.8.8.8", "[::1]:7070", "[::ffff:127.0.0.1]"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com:7070", "10.0.0.1", "[::2]", "[", "127.0.0.1.example.com"]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn another_sites_page_is_foreign() {
        let foreign = |list: &[(&'static str, &str)]| is_foreign(&headers(list), Some("localhost:7070"));
        assert!(!foreign(&[]));
        assert!(!foreign(&[("origin", "http://localhost:7070"), ("sec-fetch-site", "same-origin")]));
        assert!(!foreign(&[("sec-fetch-site", "none")]));
        assert!(!foreign(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
        assert!(foreign(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]));
        for origin in ["null", "http://localhost", "http://localhost:70701", "https://evil.example", "x"] {
            assert!(foreign(&[("origin", origin)]), "{origin}");
        }
    }
}
