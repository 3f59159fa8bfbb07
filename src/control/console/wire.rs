//! Queries and JSON as requests and answers have them.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::Problem;

/// An answer in JSON.
pub(super) struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => Problem::internal(format!("the answer cannot be written: {error}")).into_response(),
        }
    }
}

/// A body that says that it is JSON. A page of another origin cannot send one without asking first.
pub(super) fn body<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let what = "send JSON, with `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::unprocessable(format!("the body: {error}")),
        _ => Problem::bad_request(format!("the body is no JSON: {error}")),
    })
}

/// Names and values of a query, decoded, in their order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub fn of(query: Option<&str>) -> Query {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        Query(pairs.collect())
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A value that is not empty.
    pub fn one(&self, name: &str) -> Option<String> {
        self.all(name).find(|value| !value.is_empty()).map(str::to_owned)
    }

    /// How many are asked for.
    pub fn limit(&self, usual: usize, most: usize) -> Result<usize, Problem> {
        let Some(text) = self.all("limit").next() else { return Ok(usual) };
        let wrong = || Problem::bad_request(format!("`limit` is {text:?}; write a number from 1 to {most}"));
        let limit: usize = text.parse().map_err(|_| wrong())?;
        if (1..=most).contains(&limit) { Ok(limit) } else { Err(wrong()) }
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |place: usize| bytes.get(place).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = Query::of(Some("key=customer_id%3D4%202&key=country=F+R&other=&limit=7"));
        assert_eq!(query.all("key").collect::<Vec<_>>(), ["customer_id=4 2", "country=F R"]);
        assert_eq!((query.one("other"), query.one("none")), (None, None));
        assert_eq!(query.limit(5, 10).expect("a limit"), 7);
        assert_eq!(Query::of(None).limit(5, 10).expect("a limit"), 5);
        for bad in ["limit=0", "limit=11", "limit=x", "limit="] {
            assert_eq!(Query::of(Some(bad)).limit(5, 10).expect_err(bad).status, 400);
        }
        assert_eq!((decoded("%zz%4"), decoded("%ff")), ("%zz%4".to_owned(), "\u{fffd}".to_owned()));
    }

    #[test]
    fn a_body_must_say_that_it_is_json() {
        let mut headers = HeaderMap::new();
        assert_eq!(body::<u32>(&headers, b"1").expect_err("no type").status, 415);
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json; charset=utf-8"));
        assert_eq!(body::<u32>(&headers, b"1").expect("a number"), 1);
        assert_eq!(body::<Vec<u32>>(&headers, b"[1").expect_err("cut short").status, 400);
        assert_eq!(body::<u32>(&headers, b"\"a\"").expect_err("a text").status, 422);
    }
}
