//! The tokens file: who may do what. YAML or JSON, read again when it changes.
//!
//! ```yaml
//! tokens:
//!   - name: checkout
//!     sha256: 5e88…            # of the token, in hexadecimal
//!     scopes: [read_features, predict]
//!     rate: 500                # requests a second; without it there is no limit
//!     burst: 1000              # at once; as many as `rate` without it
//!   - name: operator
//!     token: ${file:/run/secrets/operator}   # or ${env:NAME}
//!     scopes: [admin]
//!   - name: scorer
//!     certificate: scorer.example.com        # a name in the client's certificate
//!     scopes: [predict]
//! ```

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use saphyr_parser::{Event, Parser};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::rate::{Bucket, Rate};
use super::{Caller, HttpError, Scope};
use crate::base::SecretText;

/// Shortest token, in bytes: what is shorter can be guessed.
const TOKEN_MIN: usize = 16;
/// Deepest nesting of the file.
const DEPTH_MAX: usize = 8;

/// One entry, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    sha256: Option<String>,
    token: Option<String>,
    certificate: Option<String>,
    scopes: Vec<Scope>,
    rate: Option<String>,
    burst: Option<String>,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Known {
    pub caller: Caller,
    pub bucket: Option<Bucket>,
    key: Key,
}

#[derive(Debug, PartialEq, Eq)]
enum Key {
    Digest([u8; 32]),
    Certificate(String),
}

/// All entries of a file, at one moment.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    known: Vec<Known>,
    /// The file and those that it refers to.
    files: Vec<PathBuf>,
}

impl Tokens {
    /// Reads a file and what it refers to.
    pub fn load(path: &Path) -> Result<Tokens, HttpError> {
        let wrong = |what: String| HttpError::Tokens { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let mut tokens = Tokens { known: Vec::new(), files: vec![path.to_owned()] };
        let root = read(&text).map_err(wrong)?;
        let Value::Object(mut root) = root else {
            return Err(wrong("it is no mapping; begin with `tokens:`".to_owned()));
        };
        let Some(Value::Array(list)) = root.remove("tokens") else {
            return Err(wrong("`tokens` is missing or no list".to_owned()));
        };
        if let Some(other) = root.keys().next() {
            return Err(wrong(format!("unknown key `{other}`; the file has `tokens` alone")));
        }
        for (index, item) in list.into_iter().enumerate() {
            let name = item.get("name").and_then(Value::as_str).map(|name| format!(" (`{name}`)")).unwrap_or_default();
            let wrong = |what: String| wrong(format!("tokens[{index}]{name}: {what}"));
            let written: Written = serde_json::from_value(item).map_err(|error| wrong(error.to_string()))?;
            let known = tokens.entry(written).map_err(wrong)?;
            if tokens.known.iter().any(|other| other.key == known.key) {
                return Err(wrong("another entry has the same token or certificate".to_owned()));
            }
            tokens.known.push(known);
        }
        if tokens.known.is_empty() {
            return Err(wrong("it has no entry, so that nobody could do anything".to_owned()));
        }
        Ok(tokens)
    }

    fn entry(&mut self, written: Written) -> Result<Known, String> {
        let Written { name, sha256, token, certificate, scopes, rate, burst } = written;
        if name.is_empty() || name == "anonymous" || name == "unknown" {
            return Err("give it a name; `anonymous` and `unknown` are others".to_owned());
        }
        if scopes.is_empty() {
            return Err("it has no scope; take some of read_features, predict, submit, admin".to_owned());
        }
        let key = match (sha256, token, certificate) {
            (Some(text), None, None) => Key::Digest(
                hex(text.trim()).ok_or("sha256: write 64 hexadecimal digits: printf %s \"$TOKEN\" | sha256sum")?,
            ),
            (None, Some(text), None) => Key::Digest(Sha256::digest(self.resolve(&text)?).into()),
            (None, None, Some(name)) if !name.is_empty() => Key::Certificate(name),
            _ => return Err("give exactly one of `sha256`, `token` and `certificate`".to_owned()),
        };
        let rate = match (rate, burst) {
            (None, None) => None,
            (None, Some(_)) => return Err("`burst` needs a `rate`".to_owned()),
            (Some(rate), burst) => Some(read_rate(&rate, burst.as_deref())?),
        };
        Ok(Known { caller: Caller { name, scopes }, bucket: rate.map(Bucket::new), key })
    }

    /// The token that a reference stands for. No error has the text in it: it may be the token itself.
    fn resolve(&mut self, text: &str) -> Result<String, String> {
        let reference =
            "token: write ${env:NAME} or ${file:PATH}, or give its sha256; the token itself has no place here";
        let secret = SecretText::parse(text).map_err(|_| reference.to_owned())?;
        if !secret.is_reference() {
            return Err(reference.to_owned());
        }
        if let Some(path) = text.strip_prefix("${file:").and_then(|rest| rest.strip_suffix('}')) {
            self.files.push(PathBuf::from(path));
        }
        let token = secret.resolve(|text| text).map_err(|error| format!("token: {error}"))?;
        match token.len() >= TOKEN_MIN && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(token),
            false => Err(format!(
                "token: it must have at least {TOKEN_MIN} characters, all of them visible ASCII; make one: openssl rand -hex 32"
            )),
        }
    }

    /// The entry of a token. Compares it with all of them, so that the time taken says nothing.
    pub fn by_token(&self, token: &[u8]) -> Option<&Known> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for known in &self.known {
            if let Key::Digest(own) = &known.key
                && bool::from(own.ct_eq(&digest))
            {
                found = Some(known);
            }
        }
        found
    }

    /// The entry of a certificate with these names; the file's first, if there are more.
    pub fn by_certificate(&self, names: &[String]) -> Option<&Known> {
        self.known.iter().find(|known| matches!(&known.key, Key::Certificate(name) if names.contains(name)))
    }

    /// Whether any entry is for a certificate.
    pub fn has_certificates(&self) -> bool {
        self.known.iter().any(|known| matches!(known.key, Key::Certificate(_)))
    }

    /// The file and those that it refers to.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// Reads a rate, and a burst which is the rate without one.
pub(super) fn read_rate(rate: &str, burst: Option<&str>) -> Result<Rate, String> {
    let per_second: f64 = rate.parse().map_err(|_| "rate: write requests per second, such as 100 or 0.5")?;
    if !(1e-3..=1e9).contains(&per_second) {
        return Err("rate: write a number from 0.001 to 1000000000".to_owned());
    }
    let burst = match burst {
        None => per_second.ceil() as u32,
        Some(text) => text.parse().map_err(|_| "burst: write a whole number of requests, such as 200")?,
    };
    match burst {
        0 => Err("burst: at least one request has to pass".to_owned()),
        burst => Ok(Rate { per_second, burst }),
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A YAML document of lists, mappings and texts; JSON is that too. Numbers are texts here.
fn read(text: &str) -> Result<Value, String> {
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let at = |what: &str| format!("line {}, column {}: {what}", span.start.line(), span.start.col() + 1);
        let done = match event {
            Event::MappingStart(..) | Event::SequenceStart(..) if open.len() >= DEPTH_MAX => {
                return Err(at("it is nested too deeply"));
            }
            Event::MappingStart(..) => {
                open.push((Value::Object(Map::new()), None));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push((Value::Array(Vec::new()), None));
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some((value, _)) => value,
                None => continue,
            },
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::Alias(..) => return Err(at("aliases are not taken here")),
            _ => continue,
        };
        match open.last_mut() {
            None if root.is_some() => return Err(at("a second document")),
            None => root = Some(done),
            Some((Value::Array(list), _)) => list.push(done),
            Some((Value::Object(map), key)) => match (key.take(), done) {
                (Some(key), value) if !map.contains_key(&key) => drop(map.insert(key, value)),
                (Some(key), _) => return Err(at(&format!("`{key}` is given twice"))),
                (None, Value::String(text)) => *key = Some(text),
                (None, _) => return Err(at("a key that is no text")),
            },
            Some(_) => {}
        }
    }
    root.ok_or_else(|| "it is empty".to_owned())
}

/// What a file was like when it was looked at: when it was changed, its length, its number.
pub(super) type Stamp = Option<(SystemTime, u64, u64)>;

/// Looks at a file. One that is replaced by a link to another counts as changed too.
pub(super) fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Tokens, String> {
        let dir = tempfile::TempDir::new().expect("a folder");
        let path = dir.path().join("tokens.yaml");
        std::fs::write(dir.path().join("secret"), "0123456789abcdef0\n").expect("a file");
        std::fs::write(&path, text.replace("DIR", &dir.path().display().to_string())).expect("a file");
        Tokens::load(&path).map_err(|error| error.to_string())
    }

    const DIGEST: &str = "0a0e3ad1d3b7ae6e1df5a4a2f8b0bb5b2d8b0f4f6e1f6c2c2f1b0d9e8c7b6a59";

    #[test]
    fn who_has_a_token_is_who_the_file_says() {
        let digest: String = Sha256::digest(b"a-token-of-somebody").iter().map(|b| format!("{b:02X}")).collect();
        let tokens = load(&format!(
            "tokens:\n- {{name: a, sha256: {digest}, scopes: [predict], rate: 0.5}}\n\
             - name: b\n  token: ${{file:DIR/secret}}\n  scopes: [read_features, submit]\n\
             - {{name: c, certificate: c.example.com, scopes: [admin]}}\n"
        ))
        .expect("a good file");
        let name = |token: &str| tokens.by_token(token.as_bytes()).map(|known| known.caller.name.as_str());
        assert_eq!(name("a-token-of-somebody"), Some("a"));
        assert_eq!(name("0123456789abcdef0"), Some("b"));
        for wrong in ["", "a-token-of-somebodz", "0123456789abcdef0\n", "c.example.com"] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        let by = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            tokens.by_certificate(&names).map(|known| known.caller.name.clone())
        };
        assert_eq!(by(&["x", "c.example.com"]).as_deref(), Some("c"));
        assert_eq!((by(&["a"]), by(&[])), (None, None));
        assert_eq!(tokens.files().len(), 2);
        let bucket = tokens.known[0].bucket.as_ref().expect("a limit");
        assert!(bucket.take(1).is_ok() && bucket.take(1).is_err(), "one at once");
    }

    #[test]
    fn json_is_read_too() {
        let json = format!(
            r#"{{"tokens": [{{"name": "a", "sha256": "{DIGEST}", "scopes": ["admin"], "rate": 5, "burst": 7}}]}}"#
        );
        assert_eq!(load(&json).expect("a good file").known[0].caller.scopes, [Scope::Admin]);
    }

    #[test]
    fn a_bad_file_is_refused_and_no_secret_is_told() {
        let cases = [
            ("", "it is empty"),
            ("tokens: []", "no entry"),
            ("- a", "no mapping"),
            ("tokens: [{name: a}]\nusers: 1", "unknown key `users`"),
            ("tokens: [{name: a, scopes: [admin]}]", "exactly one of"),
            ("tokens: [{name: a, token: hunter2hunter2hunter2, scopes: [admin]}]", "has no place here"),
            ("tokens: [{name: a, token: '${hunter2hunter2}', scopes: [admin]}]", "has no place here"),
            (
                "tokens: [{name: a, token: '${env:NOT_SET_ANYWHERE_2}', scopes: [admin]}]",
                "NOT_SET_ANYWHERE_2` is not set",
            ),
            ("tokens: [{name: a, sha256: hunter2, scopes: [admin]}]", "64 hexadecimal digits"),
            ("tokens: [{name: a, certificate: x, scopes: [root]}]", "unknown variant `root`"),
            ("tokens: [{name: a, certificate: x, scopes: []}]", "no scope"),
            ("tokens: [{name: a, certificate: x, scope: [admin]}]", "unknown field `scope`"),
            ("tokens: [{name: a, certificate: x, scopes: [admin], rate: -1}]", "rate: write"),
            ("tokens: [{name: a, certificate: x, scopes: [admin], burst: 1}]", "needs a `rate`"),
            ("tokens: [{name: anonymous, certificate: x, scopes: [admin]}]", "are others"),
            ("tokens: [{name: a, name: b}]", "given twice"),
            ("tokens: [&x {name: a, certificate: x, scopes: [admin]}, *x]", "aliases"),
            ("tokens: [[[[[[[[[[1]]]]]]]]]]", "nested"),
        ];
        for (text, why) in cases {
            let error = load(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let twice = format!(
            "tokens: [{{name: a, sha256: {DIGEST}, scopes: [admin]}}, {{name: b, sha256: {DIGEST}, scopes: [predict]}}]"
        );
        assert!(load(&twice).expect_err("twice").contains("tokens[1] (`b`): another entry"));
    }
}
