//! `redis://[user[:password]@]host[:port][/database]`, or `rediss://…` over TLS, with references to secrets in it.

use std::fmt;

use url::{Host, Url};

use crate::base::SecretText;

const PORT: u16 = 6379;

/// Where a Redis server is and who asks. `Display` and `Debug` leave out the user and the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether the server speaks TLS.
    pub secure: bool,
    /// Number of the database.
    pub database: u16,
    /// Name of the user, for servers with access lists.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
}

impl RedisAddress {
    /// Reads a URL whose references are resolved.
    ///
    /// # Errors
    /// What is wrong with it; never the text itself, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "write redis://[user[:password]@]host[:port][/database], or rediss://… over TLS";
        let wrong = |what: &str| format!("{what}; {form}");
        let Some((scheme, _)) = text.split_once("://") else {
            return Err(wrong("this is no URL of a Redis server"));
        };
        match scheme {
            "redis" | "rediss" => {}
            "unix" | "redis+unix" => return Err(format!("`{scheme}://` is not built yet; {form}")),
            _ => return Err(wrong(&format!("`{scheme}://` is no URL of a Redis server"))),
        }
        let url = Url::parse(text).map_err(|e| {
            let escape = if text.contains('@') { "; write special characters of a password as %XX" } else { "" };
            wrong(&format!("the URL cannot be read: {e}{escape}"))
        })?;
        let host = match url.host() {
            None => return Err(wrong("the URL names no host")),
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(
                "the URL has more than a host, a port and a database; special characters of a password are written as %XX",
            ));
        }
        let database = match url.path().trim_matches('/') {
            "" => 0,
            number => number.parse().map_err(|_| wrong("the database is a whole number such as /0"))?,
        };
        let decoded = |text: &str| decode(text).ok_or_else(|| wrong("a %XX in the user or the password is wrong"));
        Ok(RedisAddress {
            secure: scheme == "rediss",
            host: decode(&host).unwrap_or(host),
            port: url.port().unwrap_or(PORT),
            database,
            username: Some(decoded(url.username())?).filter(|name| !name.is_empty()),
            password: url.password().map(decoded).transpose()?,
        })
    }

    /// Reads a URL with references, resolving them now.
    ///
    /// # Errors
    /// Which reference cannot be resolved, or as [`parse`](Self::parse).
    pub fn resolve(url: &SecretText) -> Result<Self, String> {
        // A reference in the midst of a URL is one part of it, whatever characters it holds.
        let whole = url.is_reference();
        Self::parse(&url.resolve(|value| if whole { value } else { encode(&value) })?)
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.username.is_some() || self.password.is_some() { "***@" } else { "" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let scheme = if self.secure { "rediss" } else { "redis" };
        write!(f, "{scheme}://{who}{host}:{}/{}", self.port, self.database)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parse = |text| RedisAddress::parse(text).expect("a URL");
        let plain = parse("redis://localhost");
        assert_eq!((plain.host.as_str(), plain.port, plain.database), ("localhost", 6379, 0));
        assert_eq!((plain.username, plain.password), (None, None));
        let full = parse("redis://app:p%40%2Fss@10.0.0.7:7000/3");
        assert_eq!((full.host.as_str(), full.port, full.database), ("10.0.0.7", 7000, 3));
        assert_eq!((full.username.as_deref(), full.password.as_deref()), (Some("app"), Some("p@/ss")));
        assert_eq!(full.to_string(), "redis://***@10.0.0.7:7000/3");
        assert_eq!(format!("{full:?}"), "redis://***@10.0.0.7:7000/3");
        let old = parse("redis://:secret@[::1]:1/");
        assert_eq!((old.host.as_str(), old.username, old.password.as_deref()), ("::1", None, Some("secret")));
        assert_eq!(parse("redis://[::1]:1").to_string(), "redis://[::1]:1/0");
        let secure = parse("rediss://u:p@cache.example");
        assert!(secure.secure && !parse("redis://localhost").secure);
        assert_eq!(secure.to_string(), "rediss://***@cache.example:6379/0");
    }

    #[test]
    fn bad_urls_are_told_without_their_passwords() {
        for (text, what) in [
            ("localhost:6379", "no URL"),
            ("http://localhost", "`http://`"),
            ("rediss://u:topsecret@host:x", "cannot be read"),
            ("unix:///run/redis.sock", "not built yet"),
            ("redis://u:topsecret@host:x", "cannot be read"),
            ("redis://u:top/secret@host", "cannot be read"),
            ("redis://", "no host"),
            ("redis://host/one", "whole number"),
            ("redis://u:topsecret@host/0?db=1", "more than"),
            ("redis://u:%zz@host", "%XX"),
        ] {
            let error = RedisAddress::parse(text).expect_err(text);
            assert!(error.contains(what), "{text}: {error}");
            assert!(!error.contains("topsecret") && !error.contains("top/"), "{text}: {error}");
        }
    }

    #[test]
    fn references_are_parts_or_the_whole() {
        let file = std::env::temp_dir().join(format!("tidemill-redis-url-{}", std::process::id()));
        std::fs::write(&file, "p@/:ss\n").expect("a file");
        let url = SecretText::parse(&format!("redis://:${{file:{}}}@host", file.display())).expect("a text");
        assert_eq!(RedisAddress::resolve(&url).expect("an address").password.as_deref(), Some("p@/:ss"));
        std::fs::write(&file, "redis://whole:9/2\n").expect("a file");
        let url = SecretText::parse(&format!("${{file:{}}}", file.display())).expect("a text");
        assert_eq!(RedisAddress::resolve(&url).expect("an address").to_string(), "redis://whole:9/2");
        std::fs::remove_file(&file).expect("removed");
    }
}
