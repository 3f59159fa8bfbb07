//! `docs/reference/metrics.md`, from the families that the sources declare.
//!
//! Sources are read as text: families are constants of many rooms, and a list beside them would be forgotten.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{assert_current, cell, head};
use crate::support::root;

struct Family {
    kind: String,
    unit: String,
    help: String,
}

/// The families of a source file: each constant of type `Description` holds its texts in the order name, unit, help, or, where
/// it has no unit, name and help.
fn families(file: &str, text: &str, found: &mut BTreeMap<String, Family>) {
    for (at, _) in text.match_indices(": Description =") {
        let (texts, code) = literals(&text[at..]);
        let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
        let kind = ["Counter", "Histogram", "Info", "Gauge"];
        let said = |kind: &&&str| {
            code.contains(&format!("Kind::{kind}")) || code.contains(&format!(" {}(", kind.to_lowercase()))
        };
        let kind = kind.iter().find(said).unwrap_or_else(|| panic!("{file}: a family of no kind: {code}"));
        let (name, unit, help) = match &texts[..] {
            [name, help] => (name, "", help),
            [name, unit, help] => (name, unit.as_str(), help),
            other => panic!("{file}: a family with the texts {other:?}: the page of metrics cannot read it"),
        };
        let family = Family { kind: kind.to_lowercase(), unit: unit.to_owned(), help: help.clone() };
        let twice = found.insert(name.clone(), family);
        assert!(twice.is_none(), "{file}: the family {name} is declared twice");
    }
}

/// The string literals up to the end of a statement, and the code around them.
fn literals(text: &str) -> (Vec<String>, String) {
    let (mut texts, mut code) = (Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            ';' => break,
            '"' => {
                let mut literal = String::new();
                while let Some(c) = characters.next().filter(|c| *c != '"') {
                    match c {
                        '\\' if characters.peek() == Some(&'\n') => {
                            while characters.peek().is_some_and(|c| c.is_whitespace()) {
                                characters.next();
                            }
                        }
                        '\\' => literal.extend(characters.next()),
                        c => literal.push(c),
                    }
                }
                texts.push(literal);
            }
            c => code.push(c),
        }
    }
    (texts, code)
}

fn walk(folder: &Path, found: &mut BTreeMap<String, Family>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            walk(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).expect("a source");
            // Tests of a file declare families of their own.
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            families(&path.display().to_string(), text, found);
        }
    }
}

#[test]
fn the_page_of_the_metrics_is_current() {
    let mut found = BTreeMap::new();
    walk(&root().join("src"), &mut found);
    assert!(found.len() > 40, "{} families", found.len());
    let mut page = head(
        "Metrics",
        "the families that the sources declare",
        "What `run --metrics ADDRESS`, or a server, tells Prometheus at `/metrics`, in its classic text format or OpenMetrics. Counters\n\
         only rise, but for restarts; times are seconds, sizes bytes. A family is there when there is what it speaks of.\n\
         [operations.md](../operations.md) says what to watch.",
    );
    page += "\n| family | type | unit | what it is |\n|---|---|---|---|\n";
    for (name, family) in &found {
        let _ = writeln!(page, "| `{name}` | {} | {} | {} |", family.kind, family.unit, cell(&family.help));
    }
    assert_current("docs/reference/metrics.md", &page);
}

#[test]
fn literals_are_read_as_rust_reads_them() {
    let text = ": Description = family(\n \"a_total\", Kind::Counter, \"\",\n \"One \\\"two\\\" \\\n    three; four.\",\n);\n\"no\"";
    assert_eq!(literals(text).0, ["a_total", "", "One \"two\" three; four."]);
}
