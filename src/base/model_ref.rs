//! How a version of a registered model is named: `fraud@champion`, `fraud@3`, `fraud@latest`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a model or an alias.
const NAME_MAX: usize = 100;

/// The alias that nobody gives: the newest version has it.
const LATEST: &str = "latest";

/// Which version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// The one of this number.
    Number(u32),
    /// The one that has this alias.
    Alias(String),
    /// The newest.
    Latest,
}

/// A model's name and which of its versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelRef {
    /// Name of the model.
    pub name: String,
    /// Which version.
    pub version: Selector,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Number(number) => write!(f, "{number}"),
            Selector::Alias(alias) => f.write_str(alias),
            Selector::Latest => f.write_str(LATEST),
        }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Selector, String> {
        if text == LATEST {
            return Ok(Selector::Latest);
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse() {
                Ok(0) | Err(_) => Err(format!("`{text}` is no version: they are numbered from 1")),
                Ok(number) => Ok(Selector::Number(number)),
            };
        }
        check_alias(text).map(|()| Selector::Alias(text.to_owned()))
    }
}

impl FromStr for ModelRef {
    type Err = String;

    fn from_str(text: &str) -> Result<ModelRef, String> {
        let Some((name, version)) = text.split_once('@') else {
            return Err(format!("`{text}` does not say which version; write {text}@champion, or a number after the @"));
        };
        check_model_name(name)?;
        Ok(ModelRef { name: name.to_owned(), version: version.parse()? })
    }
}

/// Whether a model may be called so.
///
/// # Errors
/// A sentence that says why not.
pub fn check_model_name(name: &str) -> Result<(), String> {
    check("model", name)
}

/// Whether an alias may be called so: what could be a number, and `latest`, may not.
///
/// # Errors
/// A sentence that says why not.
pub fn check_alias(alias: &str) -> Result<(), String> {
    check("alias", alias)?;
    if alias == LATEST || alias.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{alias}` cannot be an alias: it names a version already"));
    }
    Ok(())
}

fn check(what: &str, name: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !begins || name.len() > NAME_MAX || !name.bytes().all(allowed) {
        return Err(format!(
            "`{name}` is no name of {what}s: use letters, digits, `_`, `-` and `.`, begin with one of the first three, and stay below {NAME_MAX} characters"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for (text, version) in [
            ("fraud@champion", Selector::Alias("champion".into())),
            ("fraud@3", Selector::Number(3)),
            ("fraud@latest", Selector::Latest),
            ("fraud.eu-2_a@v3", Selector::Alias("v3".into())),
        ] {
            let parsed: ModelRef = text.parse().expect("it is a reference");
            assert_eq!((parsed.version.clone(), parsed.to_string()), (version, text.to_owned()));
        }
        for bad in ["fraud", "fraud@", "@3", "fraud@0", "fraud@99999999999", "fr aud@3", "fraud@a@b", "a/b@3", ".a@3"] {
            assert!(bad.parse::<ModelRef>().is_err(), "{bad}");
        }
        for bad in ["latest", "12", "", "a@b"] {
            assert!(check_alias(bad).is_err(), "{bad}");
        }
    }
}
