//! Texts that may hold secrets: written in a dataflow file as references, resolved where they are used, never printed.
//!
//! `${env:NAME}` stands for an environment variable and `${file:PATH}` for a file's text without the line break at its
//! end. Both are looked up when the text is used, so that neither a plan nor its fingerprint holds the secret.

use std::fmt;

/// A text with references to secrets. Its `Debug` form shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText {
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Env(String),
    File(String),
}

/// Whether `inside`, the text between `${` and `}`, refers to a secret.
pub fn is_secret_reference(inside: &str) -> bool {
    inside.starts_with("env:") || inside.starts_with("file:")
}

impl SecretText {
    /// Reads a text with references.
    ///
    /// # Errors
    /// What is wrong with a reference, without the text around it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let inside = &rest[at + 2..];
            let end = inside.find('}').ok_or("a reference `${…` has no closing brace")?;
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            pieces.push(match inside[..end].split_once(':') {
                Some(("env", name)) if !name.is_empty() => Piece::Env(name.to_owned()),
                Some(("file", path)) if !path.is_empty() => Piece::File(path.to_owned()),
                _ => return Err("a reference is written ${env:NAME} or ${file:PATH}".into()),
            });
            rest = &inside[end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(SecretText { pieces })
    }

    /// Whether the text is one reference and nothing else.
    pub fn is_reference(&self) -> bool {
        matches!(self.pieces[..], [Piece::Env(_) | Piece::File(_)])
    }

    /// The text with `stand_in` for every reference: its shape, to be checked before the secrets are there. What was
    /// written into the file in plain text is in it.
    pub fn shape(&self, stand_in: &str) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            _ => stand_in.to_owned(),
        };
        self.pieces.iter().map(text).collect()
    }

    /// Names of the environment variables that it refers to, in order; files are left out.
    pub fn variables(&self) -> Vec<&str> {
        let names = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Env(name) => Some(name.as_str()),
            Piece::Text(_) | Piece::File(_) => None,
        });
        names.collect()
    }

    /// The text with every reference replaced by what it stands for; `encode` is applied to each of those.
    ///
    /// # Errors
    /// Which reference cannot be resolved, and why.
    pub fn resolve(&self, encode: impl Fn(String) -> String) -> Result<String, String> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Env(name) => {
                    let value = std::env::var(name).map_err(|e| match e {
                        std::env::VarError::NotPresent => format!("the environment variable `{name}` is not set"),
                        std::env::VarError::NotUnicode(_) => format!("the environment variable `{name}` is no text"),
                    })?;
                    out.push_str(&encode(value));
                }
                Piece::File(path) => {
                    let text = std::fs::read_to_string(path).map_err(|e| format!("the file {path}: {e}"))?;
                    let text = text.strip_suffix('\n').unwrap_or(&text);
                    out.push_str(&encode(text.strip_suffix('\r').unwrap_or(text).to_owned()));
                }
            }
        }
        Ok(out)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_and_never_shown() {
        let dir = std::env::temp_dir().join(format!("tidemill-secret-{}", std::process::id()));
        std::fs::write(&dir, "p@ss\r\n").expect("a file");
        let text = SecretText::parse(&format!("a${{file:{}}}b", dir.display())).expect("a text");
        assert_eq!(text.resolve(|s| s).expect("resolved"), "ap@ssb");
        assert_eq!(text.resolve(|s| s.replace('@', "%40")).expect("resolved"), "ap%40ssb");
        assert_eq!((text.shape("x").as_str(), text.is_reference()), ("axb", false));
        assert_eq!(format!("{text:?}"), "***");
        std::fs::remove_file(&dir).expect("removed");
        assert!(text.resolve(|s| s).expect_err("no file").contains("the file "));

        let text = SecretText::parse("${env:PATH}").expect("a text");
        assert!(text.is_reference());
        assert_eq!(text.resolve(|s| s).expect("resolved"), std::env::var("PATH").expect("set"));
        let unset = SecretText::parse("${env:NOT_SET_ANYWHERE_1}").expect("a text");
        assert_eq!(unset.resolve(|s| s), Err("the environment variable `NOT_SET_ANYWHERE_1` is not set".to_owned()));
        for bad in ["${env:}", "${file:", "${x}", "${PATH}"] {
            assert!(SecretText::parse(bad).is_err(), "{bad}");
        }
    }
}
