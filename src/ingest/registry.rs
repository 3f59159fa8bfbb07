//! A client of schema registries with Confluent's HTTP interface.
//!
//! Schemas are kept by id for ever, since a registry never gives an id another meaning. An id that the registry does not
//! know is asked for again after a minute at the earliest, so that a flood of such messages is no flood of requests.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, Response};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::base::{Blame, SecretText};

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Most schemas that one schema may bring along as references.
const REFERENCES_MAX: usize = 256;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Where a registry is and how it is asked.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Its base address, `http://host:8081`, without credentials.
    pub url: String,
    /// User and password, for basic authentication.
    pub credentials: Option<(SecretText, SecretText)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Requests before a call gives up, the first included.
    pub attempts: u32,
    /// How long an id counts as unknown before it is asked for again.
    pub unknown_for: Duration,
}

impl RegistryOptions {
    /// A registry at an address, without credentials: two attempts of 3 s each, unknown ids once a minute.
    pub fn new(url: impl Into<String>) -> RegistryOptions {
        let (timeout, unknown_for) = (Duration::from_secs(3), Duration::from_secs(60));
        RegistryOptions { url: url.into(), credentials: None, timeout, attempts: 2, unknown_for }
    }
}

/// Why a registry was of no help. No text holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The address or the credentials cannot be used.
    #[error("schema registry `{url}`: {what}")]
    Options {
        /// The address.
        url: String,
        /// What is wrong and how to mend it.
        what: String,
    },
    /// It does not answer, or says that it cannot at the moment.
    #[error("schema registry `{url}` is out of reach: {what}")]
    Unreachable {
        /// The address.
        url: String,
        /// What happened.
        what: String,
    },
    /// It answers with a refusal.
    #[error("schema registry `{url}` refuses {request}: {what}")]
    Refused {
        /// The address.
        url: String,
        /// What was asked.
        request: String,
        /// Its reason.
        what: String,
    },
    /// It answers with something that no registry says.
    #[error("`{url}` does not answer {request} as a schema registry would: {what}; look at `registry.url`")]
    Answer {
        /// The address.
        url: String,
        /// What was asked.
        request: String,
        /// What it says.
        what: String,
    },
}

impl RegistryError {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, RegistryError::Unreachable { .. })
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            RegistryError::Unreachable { .. } => Blame::Outside,
            _ => Blame::User,
        }
    }
}

/// A schema as a registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// The schema's text.
    pub text: String,
    /// Its language: `AVRO`, `JSON`, `PROTOBUF`.
    pub language: String,
    /// The texts of the schemas that it refers to by name; those that others refer to come first.
    pub references: Vec<String>,
}

/// The newest schema of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestSchema {
    /// The schema's id.
    pub id: u32,
    /// Its version in the subject.
    pub version: u32,
    /// The schema's text.
    pub text: String,
}

/// A schema registry. Clones share what they know.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    options: RegistryOptions,
    base: Url,
    login: Option<(String, String)>,
    client: Client,
    known: Mutex<HashMap<u32, Known>>,
}

#[derive(Clone)]
enum Known {
    Schema(Arc<RegisteredSchema>),
    /// The registry said at this time that there is no such id.
    Unknown(Instant),
}

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(rename = "schemaType")]
    language: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
    id: Option<u32>,
    version: Option<u32>,
}

#[derive(Clone, Deserialize, PartialEq)]
struct Reference {
    subject: String,
    version: i64,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.0.base.as_str()).finish()
    }
}

/// What forbids using an address as a registry's.
pub(crate) fn address_fault(url: &str) -> Option<String> {
    match Url::parse(url) {
        Err(error) => Some(format!("{error}; write http://HOST:PORT")),
        Ok(url) if url.scheme() == "https" => {
            Some("`https://` is not built yet; use the registry's plain listener or a proxy beside Tidemill".into())
        }
        Ok(url) if url.scheme() != "http" || url.host().is_none() => Some("write http://HOST:PORT".into()),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("give credentials as `user` and `password`, not in the address".into())
        }
        Ok(_) => None,
    }
}

impl Registry {
    /// Makes a client; nothing is asked yet.
    ///
    /// # Errors
    /// When the address or the credentials cannot be used.
    pub fn new(options: RegistryOptions) -> Result<Registry, RegistryError> {
        let refuse = |what: String| {
            let url = if address_fault(&options.url).is_none() { options.url.clone() } else { "…".into() };
            RegistryError::Options { url, what }
        };
        if let Some(what) = address_fault(&options.url) {
            return Err(refuse(what));
        }
        let base = Url::parse(&options.url).map_err(|e| refuse(e.to_string()))?;
        let login = match &options.credentials {
            None => None,
            Some((user, password)) => {
                let resolve = |text: &SecretText| text.resolve(|secret| secret).map_err(refuse);
                Some((resolve(user)?, resolve(password)?))
            }
        };
        let client = Client::builder().timeout(options.timeout).connect_timeout(options.timeout);
        let client = client.redirect(Policy::limited(3)).build().map_err(|e| refuse(e.to_string()))?;
        Ok(Registry(Arc::new(Inner { options, base, login, client, known: Mutex::default() })))
    }

    /// The schema of an id; `None` when the registry knows no such id.
    ///
    /// # Errors
    /// When the registry is out of reach, refuses, or is none.
    pub fn schema_by_id(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>, RegistryError> {
        match self.known().get(&id) {
            Some(Known::Schema(schema)) => return Ok(Some(schema.clone())),
            Some(Known::Unknown(since)) if since.elapsed() < self.0.options.unknown_for => return Ok(None),
            _ => {}
        }
        let found = match self.get::<SchemaAnswer>(&["schemas", "ids", &id.to_string()])? {
            None => None,
            Some(answer) => {
                let mut references = References::default();
                self.references(&answer.references, &mut references)?;
                Some(Arc::new(RegisteredSchema {
                    text: answer.schema,
                    language: answer.language.unwrap_or_else(|| "AVRO".into()),
                    references: references.texts,
                }))
            }
        };
        let known = found.clone().map_or_else(|| Known::Unknown(Instant::now()), Known::Schema);
        self.known().insert(id, known);
        Ok(found)
    }

    /// Registers a schema under a subject, and returns its id; a schema that is there already keeps its id.
    ///
    /// # Errors
    /// When the registry is out of reach or refuses, as it does with a schema that is not compatible with the ones before.
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let path = ["subjects", subject, "versions"];
        let body = json!({ "schema": schema }).to_string();
        let answer: Option<IdAnswer> = self.ask(Method::POST, &path, Some(body))?;
        answer.map(|answer| answer.id).ok_or_else(|| self.odd(&path, "it says that there is no such thing"))
    }

    /// The newest schema of a subject; `None` when the registry knows no such subject.
    ///
    /// # Errors
    /// When the registry is out of reach, refuses, or is none.
    pub fn latest(&self, subject: &str) -> Result<Option<LatestSchema>, RegistryError> {
        let path = ["subjects", subject, "versions", "latest"];
        let Some(answer) = self.get::<SchemaAnswer>(&path)? else { return Ok(None) };
        let (Some(id), Some(version)) = (answer.id, answer.version) else {
            return Err(self.odd(&path, "there is no `id` or no `version`"));
        };
        Ok(Some(LatestSchema { id, version, text: answer.schema }))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches what schemas refer to, depth first, each once.
    fn references(&self, wanted: &[Reference], found: &mut References) -> Result<(), RegistryError> {
        for reference in wanted {
            if found.seen.contains(reference) {
                continue;
            }
            found.seen.push(reference.clone());
            let path = ["subjects", &reference.subject, "versions", &reference.version.to_string()];
            if found.seen.len() > REFERENCES_MAX {
                return Err(self.odd(&path, &format!("a schema refers to more than {REFERENCES_MAX} others")));
            }
            let answer = self.get::<SchemaAnswer>(&path)?;
            let answer = answer.ok_or_else(|| self.odd(&path, "a schema refers to one that is not there"))?;
            self.references(&answer.references, found)?;
            found.texts.push(answer.schema);
        }
        Ok(())
    }

    fn get<T: for<'de> Deserialize<'de>>(&self, path: &[&str]) -> Result<Option<T>, RegistryError> {
        self.ask(Method::GET, path, None)
    }

    /// Asks until there is an answer or the attempts are used up. `None`: what was asked for is not there.
    fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<String>,
    ) -> Result<Option<T>, RegistryError> {
        let mut backoff = Duration::from_millis(100);
        let mut attempt = 1;
        loop {
            match self.once(&method, path, body.as_ref()) {
                Err(error) if error.retryable() && attempt < self.0.options.attempts => {
                    attempt += 1;
                    sleep(backoff);
                    backoff = (backoff * 2).min(Duration::from_secs(2));
                }
                Err(error) => return Err(error),
                Ok(None) => return Ok(None),
                Ok(Some(text)) => {
                    let parsed = serde_json::from_str(&text);
                    return parsed.map(Some).map_err(|e| self.odd(path, &format!("{e} in {}", short(&text))));
                }
            }
        }
    }

    fn once(&self, method: &Method, path: &[&str], body: Option<&String>) -> Result<Option<String>, RegistryError> {
        let mut url = self.0.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => drop(segments.pop_if_empty().extend(path)),
            Err(()) => return Err(self.odd(path, "the address has no path")),
        }
        let mut request = self.0.client.request(method.clone(), url).header("Accept", CONTENT_TYPE);
        if let Some((user, password)) = &self.0.login {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(body) = body {
            request = request.header("Content-Type", CONTENT_TYPE).body(body.clone());
        }
        let away = |what: String| RegistryError::Unreachable { url: self.0.options.url.clone(), what };
        let answer = request.send().map_err(|e| away(deepest(&e)))?;
        let status = answer.status();
        let text = read(answer).map_err(away)?;
        if status.is_success() {
            return Ok(Some(text));
        }
        let told: Option<Value> = serde_json::from_str(&text).ok();
        let code = told.as_ref().and_then(|t| t["error_code"].as_i64());
        let message = told.as_ref().and_then(|t| t["message"].as_str()).map(short);
        let what = message.unwrap_or_else(|| format!("status {status}"));
        match status {
            StatusCode::NOT_FOUND if code.is_some_and(|code| (40_401..40_500).contains(&code)) => Ok(None),
            StatusCode::NOT_FOUND => Err(self.odd(path, &what)),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Err(away(what)),
            _ if status.is_server_error() => Err(away(what)),
            _ => {
                let (url, request) = (self.0.options.url.clone(), requested(path));
                Err(RegistryError::Refused { url, request, what })
            }
        }
    }

    fn odd(&self, path: &[&str], what: &str) -> RegistryError {
        RegistryError::Answer { url: self.0.options.url.clone(), request: requested(path), what: what.to_owned() }
    }
}

#[derive(Default)]
struct References {
    seen: Vec<Reference>,
    texts: Vec<String>,
}

fn requested(path: &[&str]) -> String {
    format!("`/{}`", path.join("/"))
}

fn read(answer: Response) -> Result<String, String> {
    let mut text = String::new();
    let read = answer.take(ANSWER_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| deepest(&e))?;
    if read as u64 > ANSWER_BYTES_MAX { Err("its answer is larger than 16 MiB".into()) } else { Ok(text) }
}

/// The innermost cause: reqwest's own words only say that a request was sent.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.trim().to_owned()
}
