//! A client of schema registries with Confluent's HTTP interface.
//!
//! Schemas are kept by id for ever, since a registry never gives an id another meaning. An id that the registry does not
//! know is asked for again after a minute at the earliest, so that a flood of such messages is no flood of requests.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, Response};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::base::{Blame, SecretText};
use crate::net::{HttpOptions, http_client, said};
use crate::plan::model::{RegistryPlan, is_secure};

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Most schemas that one schema may bring along as references.
const REFERENCES_MAX: usize = 256;

/// Between calls while the registry is away; doubles from the one to the other.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Where a registry is and how it is asked.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Its base address, `http://host:8081` or `https://host`, without credentials.
    pub url: String,
    /// User and password, for basic authentication.
    pub credentials: Option<(SecretText, SecretText)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Requests before a call gives up, the first included.
    pub attempts: u32,
    /// How long an id counts as unknown before it is asked for again.
    pub unknown_for: Duration,
    /// The authorities that are trusted instead of the system's, for `https`.
    pub ca: Option<PathBuf>,
}

impl RegistryOptions {
    /// A registry at an address, without credentials: two attempts of 3 s each, unknown ids once a minute.
    pub fn new(url: impl Into<String>) -> RegistryOptions {
        let (timeout, unknown_for) = (Duration::from_secs(3), Duration::from_secs(60));
        RegistryOptions { url: url.into(), credentials: None, timeout, attempts: 2, unknown_for, ca: None }
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
    away: Mutex<Option<Away>>,
}

/// A registry that did not answer.
struct Away {
    error: RegistryError,
    /// Not asked again before.
    until: Instant,
    pause: Duration,
}

/// The clients of this process, so that the partitions of a source share one.
static OPEN: Mutex<Vec<(RegistryPlan, Weak<Inner>)>> = Mutex::new(Vec::new());

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

impl Registry {
    /// Makes a client; nothing is asked yet.
    ///
    /// # Errors
    /// When the address or the credentials cannot be used.
    pub fn new(options: RegistryOptions) -> Result<Registry, RegistryError> {
        let refuse = |what: String| {
            let url =
                if RegistryPlan::address_fault(&options.url).is_none() { options.url.clone() } else { "…".into() };
            RegistryError::Options { url, what }
        };
        if let Some(what) = RegistryPlan::address_fault(&options.url) {
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
        let secure = is_secure(&options.url);
        let client = HttpOptions { timeout: options.timeout, redirects: 3, secure, ca: options.ca.clone() };
        let client = http_client(&client).map_err(refuse)?;
        Ok(Registry(Arc::new(Inner { options, base, login, client, known: Mutex::default(), away: Mutex::default() })))
    }

    /// The registry that a plan names; one client for all who ask.
    ///
    /// # Errors
    /// When the address or the credentials cannot be used.
    pub fn of(plan: &RegistryPlan) -> Result<Registry, RegistryError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, inner)| inner.strong_count() > 0);
        if let Some(inner) = open.iter().find_map(|(p, inner)| if p == plan { inner.upgrade() } else { None }) {
            return Ok(Registry(inner));
        }
        let mut options = RegistryOptions::new(&plan.url);
        options.credentials = plan.credentials.clone();
        options.ca = plan.ca.clone();
        if let Some(timeout) = plan.timeout {
            options.timeout = Duration::from_micros(timeout.unsigned_abs());
        }
        let registry = Registry::new(options)?;
        open.push((plan.clone(), Arc::downgrade(&registry.0)));
        Ok(registry)
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
        if let Some(away) = &*self.away()
            && Instant::now() < away.until
        {
            return Err(away.error.clone());
        }
        let mut backoff = Duration::from_millis(100);
        let mut attempt = 1;
        let result = loop {
            match self.once(&method, path, body.as_ref()) {
                Err(error) if error.retryable() && attempt < self.0.options.attempts => {
                    attempt += 1;
                    sleep(backoff);
                    backoff = (backoff * 2).min(Duration::from_secs(2));
                }
                result => break result,
            }
        };
        self.note(result.as_ref().err());
        let Some(text) = result? else { return Ok(None) };
        let parsed = serde_json::from_str(&text);
        parsed.map(Some).map_err(|e| self.odd(path, &format!("{e} in {}", short(&text))))
    }

    fn away(&self) -> MutexGuard<'_, Option<Away>> {
        self.0.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of how a request ended: one warning when the registry goes away, one line when it is back, and pauses
    /// between requests in the meantime.
    fn note(&self, error: Option<&RegistryError>) {
        let mut away = self.away();
        match error.filter(|error| error.retryable()) {
            Some(error) => {
                if away.is_none() {
                    tracing::warn!(%error, "messages wait for the schema registry");
                }
                let pause = away.as_ref().map_or(PAUSE_MIN, |away| (away.pause * 2).min(PAUSE_MAX));
                *away = Some(Away { error: error.clone(), until: Instant::now() + pause, pause });
            }
            None => {
                if away.take().is_some() {
                    tracing::info!(registry = self.0.base.as_str(), "the schema registry is back");
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
        let answer = request.send().map_err(|e| away(said(&e)))?;
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
    let read = answer.take(ANSWER_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| said(&e))?;
    if read as u64 > ANSWER_BYTES_MAX { Err("its answer is larger than 16 MiB".into()) } else { Ok(text) }
}

fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::tests::kit::http;
    use crate::net::kit::{Certificates, terminate};
    use std::sync::atomic::Ordering;

    fn registry(url: String) -> Registry {
        let timeout = Duration::from_millis(300);
        Registry::new(RegistryOptions { timeout, ..RegistryOptions::new(url) }).unwrap()
    }

    fn schema() -> (u16, String) {
        (200, r#"{"schema":"\"int\""}"#.into())
    }

    fn not_there() -> (u16, String) {
        (404, r#"{"error_code":40403,"message":"Schema not found"}"#.into())
    }

    #[test]
    fn a_registry_that_falters_is_asked_again_and_then_given_up_for_now() {
        let (url, asked) = http(vec![(0, String::new()), schema(), (503, "{}".into()), (429, "no".into()), schema()]);
        let registry = registry(url);
        assert_eq!(registry.schema_by_id(1).unwrap().unwrap().text, "\"int\"", "after one that hangs");
        let error = registry.schema_by_id(2).unwrap_err();
        assert!(error.retryable() && error.blame() == Blame::Outside, "{error}");
        assert_eq!(registry.schema_by_id(2).unwrap_err(), error);
        assert_eq!(asked.load(Ordering::SeqCst), 4, "not asked again at once");
        sleep(PAUSE_MIN);
        assert!(registry.schema_by_id(2).is_ok(), "the failure was not kept");
        assert_eq!(registry.schema_by_id(1).unwrap().unwrap().language, "AVRO");
        assert_eq!(asked.load(Ordering::SeqCst), 5, "what is known is not asked for");
    }

    #[test]
    fn nobody_there_is_out_of_reach() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = registry(format!("http://{free}")).register("s", "{}").unwrap_err();
        assert!(error.retryable() && error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn an_unknown_id_is_asked_for_once_in_a_while() {
        let (url, asked) = http(vec![not_there(), not_there(), schema()]);
        let unknown_for = Duration::from_millis(50);
        let registry = Registry::new(RegistryOptions { unknown_for, ..RegistryOptions::new(url) }).unwrap();
        let begin = Instant::now();
        while asked.load(Ordering::SeqCst) < 2 {
            assert_eq!(registry.schema_by_id(7), Ok(None));
        }
        assert!(begin.elapsed() >= unknown_for);
        sleep(unknown_for);
        assert!(registry.schema_by_id(7).unwrap().is_some(), "it was registered since");
    }

    #[test]
    fn what_is_no_registry_is_told_from_one_that_knows_no_such_id() {
        for (status, body) in [(404, "<html>not found</html>"), (404, r#"{"message":"no route"}"#), (200, "<html>")] {
            let error = registry(http(vec![(status, body.into())]).0).schema_by_id(1).unwrap_err();
            assert!(matches!(error, RegistryError::Answer { .. }) && !error.retryable(), "{error}");
        }
        let error = registry(http(vec![(401, r#"{"message":"who are you?"}"#.into())]).0).latest("s").unwrap_err();
        assert!(error.to_string().contains("who are you?") && !error.retryable(), "{error}");
    }

    #[test]
    fn all_who_ask_share_one_client() {
        let plan = RegistryPlan { url: http(Vec::new()).0, credentials: None, timeout: None, ca: None };
        let (a, b) = (Registry::of(&plan).unwrap(), Registry::of(&plan).unwrap());
        assert!(Arc::ptr_eq(&a.0, &b.0));
        let other = RegistryPlan { timeout: Some(1), ..plan };
        assert!(!Arc::ptr_eq(&a.0, &Registry::of(&other).unwrap().0));
    }

    #[test]
    fn references_that_go_round_end() {
        let refers = r#"{"schema":"\"int\"","references":[{"name":"a","subject":"a","version":1}]}"#;
        let (url, asked) = http(vec![(200, refers.into()), (200, refers.into())]);
        assert_eq!(registry(url).schema_by_id(1).unwrap().unwrap().references.len(), 1);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_registry_behind_tls_gets_credentials_when_it_is_trusted() {
        let Some(made) = Certificates::new("a schema registry behind TLS") else { return };
        let (url, asked) = http(vec![schema(), schema()]);
        let port = terminate(&made.server(), url.trim_start_matches("http://").parse().unwrap());
        let url = format!("https://127.0.0.1:{port}");
        let text = |text: &str| SecretText::parse(text).unwrap();
        let with = |ca| RegistryOptions {
            credentials: Some((text("tide"), text("hunter2"))),
            ca,
            attempts: 1,
            ..RegistryOptions::new(&url)
        };
        let trusted = Registry::new(with(Some(made.ca()))).unwrap();
        assert_eq!(trusted.schema_by_id(1).unwrap().unwrap().text, "\"int\"");
        let error = Registry::new(with(None)).unwrap().schema_by_id(1).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(error.retryable() && told.contains("`ca: FILE.pem`") && !told.contains("hunter2"), "{told}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "nothing was said to a stranger");
        let none = Registry::new(with(Some("/no/such/ca.pem".into()))).unwrap_err();
        assert!(!none.retryable() && none.to_string().contains("/no/such/ca.pem"), "{none}");
    }

    #[test]
    fn addresses_that_cannot_be_used_are_told_without_their_secrets() {
        for (url, what) in [
            ("ftp://registry", "write http://HOST:PORT"),
            ("http://tide:hunter2@registry", "give credentials as"),
            ("registry:8081", "write http://HOST:PORT"),
            ("", "write http://HOST:PORT"),
        ] {
            let error = Registry::new(RegistryOptions::new(url)).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("hunter2"), "{error}");
        }
    }
}
