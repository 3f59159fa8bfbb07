//! Job files: checked as `tidemill check` does, compared, and shown without the secrets in them.

use std::collections::BTreeMap;
use std::path::Path;

use super::ControlError;
use super::model::{Checked, FileFault, LostState, PlanSummary, Settings, StateChanges};
use crate::base::{Fault, Faults, SecretText, Severity, shown_setting};
use crate::engine::{self, Changes, JobCatalog};
use crate::plan;
use crate::plan::model::Plan;

/// Bytes of a file at most.
pub const FILE_MAX: usize = 1 << 20;
/// Values and assignments at most, each.
const VALUES_MAX: usize = 1000;
/// What the file is called in faults.
const NAME: &str = "job.yaml";

/// Beginnings of names of variables that steer programs, not files.
const RESERVED: &[&str] = &["TIDEMILL_", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "RUST_", "SSL_", "OPENSSL_", "_"];
/// The same, whole.
const RESERVED_NAMES: &[&str] = &["PATH", "HOME", "TMPDIR", "TZ", "LANG", "SHELL", "USER", "IFS", "ENV", "BASH_ENV"];

/// A file that is right.
pub struct Sound {
    /// Its plan.
    pub plan: Plan,
    /// The plan in words.
    pub text: String,
    /// Warnings.
    pub warnings: Vec<Fault>,
}

/// Holds a file with its settings against all that `check` does.
///
/// # Errors
/// All its faults at once; settings that cannot be.
pub fn check(text: &str, settings: &Settings, directory: &Path) -> Result<Sound, ControlError> {
    if text.len() > FILE_MAX {
        return Err(ControlError::Wrong(format!("the file has {} bytes, and may have {FILE_MAX}", text.len())));
    }
    if text.trim().is_empty() {
        return Err(ControlError::Wrong("`file` is empty; send the text of a dataflow file".to_owned()));
    }
    if !(1..=1024).contains(&settings.workers) {
        return Err(ControlError::Wrong(format!("`workers` is {}; write 1 to 1024", settings.workers)));
    }
    check_values(&settings.values)?;
    if settings.set.len() > VALUES_MAX {
        return Err(ControlError::Wrong(format!("`set` has more than {VALUES_MAX} entries")));
    }
    for (key, value) in &settings.set {
        if key.contains('\0') || value.contains('\0') || key.trim().is_empty() {
            return Err(ControlError::Wrong("`set` has an empty key, or a zero byte".to_owned()));
        }
    }
    if let Some(text) = settings.from.as_ref().filter(|text| text.contains('\0') || text.is_empty()) {
        return Err(ControlError::Wrong(format!("`from` is no place: {text:?}")));
    }
    let sets = sets(settings);
    let env = |name: &str| settings.values.get(name).cloned().or_else(|| std::env::var(name).ok());
    let compiled = plan::compile(NAME, text, directory, &sets, &env, &JobCatalog::default());
    let (plan, warnings) = compiled.map_err(ControlError::Faults)?;
    let words = engine::check(&plan)
        .map_err(|faults| ControlError::Faults(Faults { file: NAME.to_owned(), list: faults.list }))?;
    Ok(Sound { plan, text: words, warnings })
}

/// The plan of a file that a job has run; its registered models are those that the job has.
///
/// # Errors
/// All faults, which it has by now: what it names may have changed.
pub fn plan_of(path: &Path, settings: &Settings, state: &Path) -> Result<Plan, ControlError> {
    let env = |name: &str| settings.values.get(name).cloned().or_else(|| std::env::var(name).ok());
    let (plan, _) = engine::load_with_state(path, &sets(settings), &env, Some(state)).map_err(ControlError::Faults)?;
    Ok(plan)
}

/// The assignments, as `--set` has them.
pub fn sets(settings: &Settings) -> Vec<(String, String)> {
    settings.set.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Values become variables of the job's process. So those that would change what the program does are refused.
fn check_values(values: &BTreeMap<String, String>) -> Result<(), ControlError> {
    if values.len() > VALUES_MAX {
        return Err(ControlError::Wrong(format!("`values` has more than {VALUES_MAX} entries")));
    }
    for (name, value) in values {
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(ControlError::Wrong(format!(
                "`values` has the name {name:?}; names are letters, digits and `_`, as in ${{NAME}}"
            )));
        }
        if RESERVED.iter().any(|start| name.starts_with(start)) || RESERVED_NAMES.contains(&name.as_str()) {
            return Err(ControlError::Wrong(format!(
                "`values` may not set {name}, which steers programs; use another name in the file"
            )));
        }
        if value.contains('\0') {
            return Err(ControlError::Wrong(format!("the value of {name} holds a zero byte")));
        }
    }
    Ok(())
}

impl Sound {
    /// As the API tells it.
    pub fn told(&self) -> Checked {
        Checked {
            name: self.plan.job.clone(),
            version: self.plan.version,
            plan: self.text.clone(),
            summary: summary(&self.plan),
            warnings: faults(&self.warnings),
        }
    }
}

/// What a job is made of.
pub fn summary(plan: &Plan) -> PlanSummary {
    let mut topics: Vec<String> = plan.topics.iter().map(|topic| topic.topic.clone()).collect();
    topics.dedup();
    PlanSummary {
        sources: plan.sources.iter().map(|source| source.name.clone()).collect(),
        streams: plan.joins.iter().map(|join| join.name.clone()).collect(),
        views: plan.views.iter().map(|view| view.name.clone()).collect(),
        feature_sets: plan.sets.iter().map(|set| set.name.clone()).collect(),
        models: plan.models.iter().map(|model| model.name.clone()).collect(),
        topics,
    }
}

/// Findings, as the API tells them.
pub fn faults(list: &[Fault]) -> Vec<FileFault> {
    let one = |fault: &Fault| FileFault {
        severity: match fault.severity {
            Severity::Error => "error".to_owned(),
            Severity::Warning => "warning".to_owned(),
        },
        line: fault.line as u64,
        column: fault.column as u64,
        path: fault.path.clone(),
        what: fault.what.clone(),
        mend: fault.mend.clone(),
    };
    list.iter().map(one).collect()
}

/// What becomes of state, as the API tells it.
pub fn state_changes(changes: &Changes) -> StateChanges {
    let lost = |(operator, why): &(String, String)| LostState {
        operator: operator.clone(),
        why: why.clone(),
        changed: changes.gained.contains(operator),
    };
    StateChanges {
        kept: changes.kept.clone(),
        gained: changes.gained.clone(),
        lost: changes.lost.iter().map(lost).collect(),
        text: changes.text(),
    }
}

/// Lines that go (`-`) and come (`+`) from one text to another, in their order.
pub fn differing_lines(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // Common ends need no table.
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    let mut lines = Vec::new();
    if old.len().saturating_mul(new.len()) > 4_000_000 {
        lines.extend(old.iter().map(|line| format!("-{line}")));
        lines.extend(new.iter().map(|line| format!("+{line}")));
        return lines;
    }
    // Lengths of the longest common parts of what is left.
    let width = new.len() + 1;
    let mut common = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(format!("-{}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+{}", new[j]));
            j += 1;
        }
    }
    lines
}

/// Settings as they may be shown.
pub fn shown_settings(settings: &Settings) -> Settings {
    let shown = |(name, value): (&String, &String)| (name.clone(), shown_value(name, value));
    Settings {
        values: settings.values.iter().map(shown).collect(),
        set: settings.set.iter().map(shown).collect(),
        ..settings.clone()
    }
}

fn shown_value(name: &str, value: &str) -> String {
    if is_secret_name(name) && !is_reference(value) {
        return "***".to_owned();
    }
    // A value may be a mapping: `--set sources.tx.kafka={…}`.
    redacted(value)
}

/// A reference says where a secret is, and nothing of it.
fn is_reference(value: &str) -> bool {
    let bare = value.trim().trim_matches(|c| c == '"' || c == '\'');
    SecretText::parse(bare).is_ok_and(|text| text.is_reference())
}

/// Whether what stands under a name is a secret: settings as [`shown_setting`] knows them, and what people call theirs.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    if name.ends_with(".location") || name.ends_with("_file") {
        return false;
    }
    shown_setting(&name, "") == "***"
        || ["passw", "pwd", "token", "api_key", "apikey", "access_key", "private_key", "credential", "authorization"]
            .iter()
            .any(|word| name.contains(word))
}

/// A text of YAML with `***` in place of plain secrets: values of secret names, and users with passwords in addresses.
pub fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Deeper than this many columns belongs to a secret of many lines.
    let mut block: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        if let Some(of) = block {
            if line.trim().is_empty() || indent > of {
                continue;
            }
            block = None;
        }
        let (shown, opens) = redacted_line(line);
        out.push_str(&without_users(&shown));
        if opens {
            block = Some(indent);
        }
    }
    out
}

/// One line; whether a secret of many lines begins with it.
fn redacted_line(line: &str) -> (String, bool) {
    let mut out = String::new();
    let mut rest = line;
    // Each `key: value` of the line, in a mapping of braces too.
    while let Some(colon) = rest.find(':') {
        let (before, after) = (&rest[..colon], &rest[colon + 1..]);
        let name_start = before.rfind([' ', '{', ',', '\t', '[']).map_or(0, |at| at + 1);
        let name = before[name_start..].trim_matches(|c| c == '"' || c == '\'' || c == '-');
        out.push_str(before);
        out.push(':');
        rest = after;
        let value_begins = after.starts_with([' ', '\t', '\n', '\r', '"', '\'']) || after.is_empty();
        if !value_begins || !is_secret_name(name) {
            continue;
        }
        let space = after.len() - after.trim_start_matches([' ', '\t']).len();
        let value = &after[space..];
        if value.starts_with(['|', '>']) || value.trim().is_empty() {
            // Text below, or a mapping whose own names are looked at; both are taken for text of a secret.
            if value.starts_with(['|', '>']) {
                out.push_str(" ***\n");
                return (out, true);
            }
            continue;
        }
        let length = scalar_length(value);
        let (value, behind) = value.split_at(length);
        out.push_str(&after[..space]);
        out.push_str(if is_reference(value) || value.trim_start().starts_with('{') { value } else { "***" });
        rest = behind;
    }
    out.push_str(rest);
    (out, false)
}

/// How far the value at the beginning of a text goes.
fn scalar_length(text: &str) -> usize {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' if quote == '"' => escaped = true,
                c if c == quote => return at + 1,
                _ => {}
            }
        }
        return text.trim_end_matches(['\n', '\r']).len();
    }
    if text.starts_with('{') {
        return 1;
    }
    // `${…}` may hold what ends a value.
    let mut depth = 0;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' | ']' if depth == 0 => return at,
            '\n' | '\r' => return at,
            '#' if previous == ' ' => return text[..at].trim_end().len(),
            _ => {}
        }
        previous = c;
    }
    text.len()
}

/// A text with `***` for users and passwords in addresses such as `redis://user:password@host`.
pub fn without_users(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ')' | '>')).unwrap_or(after.len());
        let authority = &after[..end];
        // A password may hold `/` though it should not: the last `@` counts.
        match authority.rfind('@') {
            Some(user) if !is_reference_pair(&authority[..user]) => {
                out.push_str("***");
                rest = &after[user..];
            }
            _ => rest = after,
        }
    }
    out.push_str(rest);
    out
}

/// Whether what stands before the `@` is references and punctuation alone.
fn is_reference_pair(text: &str) -> bool {
    text.split(':').filter(|part| !part.is_empty()).count() > 0
        && SecretText::parse(text).is_ok_and(|text| text.shape("").chars().all(|c| c == ':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_secrets_are_not_shown_and_references_are() {
        let text = "sources:\n  tx:\n    kafka: {brokers: b:9092, settings: {sasl.password: hunter2, sasl.username: u}}\n    \
                    kafka:\n      sasl.password: \"p, w\" # the old one\n      ssl.key.pem: |\n        -----BEGIN\n        \
                    abc\n      ssl.key.location: /etc/key.pem\n      sasl.jaas: x\n  online: {redis: {url: \
                    redis://me:s3cret/x@host:1/0, other: 1}}\n  b: {basic: {user: a, password: '${env:PW}'}}\n  c: \
                    redis://:${file:/run/pw}@host\n  d: {url: \"https://user:pw@hooks\"}\n";
        let shown = redacted(text);
        for secret in ["hunter2", "p, w", "BEGIN", "abc", "s3cret", "pw@hooks"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        for kept in [
            "brokers: b:9092",
            "sasl.password: ***, sasl.username: u}}",
            "sasl.password: *** # the old one",
            "ssl.key.location: /etc/key.pem",
            "redis://***@host:1/0, other: 1}}",
            "password: '${env:PW}'}}",
            "redis://:${file:/run/pw}@host",
            "https://***@hooks",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        let plain = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dataflows/card_fraud.yaml"));
        let plain = plain.expect("a job");
        assert_eq!(redacted(&plain), plain);
    }

    #[test]
    fn settings_are_shown_by_their_names() {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let settings = Settings {
            values: pairs(&[
                ("LAKE", "/lake"),
                ("KAFKA_PASSWORD", "x"),
                ("REDIS_PWD", "${env:R}"),
                ("URL", "s3://a:b@c"),
            ]),
            set: pairs(&[
                ("sources.tx.kafka.settings.sasl.password", "x"),
                ("sinks.online.redis", "{url: redis://:p@h}"),
            ]),
            workers: 1,
            from: None,
            until_end: false,
            allow_drop: false,
        };
        let shown = shown_settings(&settings);
        let values: Vec<&str> = shown.values.values().map(String::as_str).collect();
        assert_eq!(values, ["***", "/lake", "${env:R}", "s3://***@c"]);
        let set: Vec<&str> = shown.set.values().map(String::as_str).collect();
        assert_eq!(set, ["{url: redis://***@h}", "***"]);
    }

    #[test]
    fn values_that_steer_programs_are_refused() {
        let one = |name: &str| check_values(&BTreeMap::from([(name.to_owned(), "x".to_owned())]));
        for good in ["LAKE", "KAFKA_PASSWORD", "a1"] {
            assert!(one(good).is_ok(), "{good}");
        }
        for bad in ["LD_PRELOAD", "TIDEMILL_FAILPOINTS", "PATH", "1a", "a-b", "", "é"] {
            assert!(one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_that_differ() {
        let lines = differing_lines("a\nb\nc\nd", "a\nc\nx\nd");
        assert_eq!(lines, ["-b", "+x"]);
        assert!(differing_lines("a\nb", "a\nb").is_empty());
        assert_eq!(differing_lines("", "a"), ["+a"]);
    }
}
