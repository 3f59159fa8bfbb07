//! The pages of `docs/`: what is generated is current, what is linked is there, what is shown runs.
//!
//! `TIDEMILL_BLESS=1 cargo test --test integration docs::` writes the generated pages.

mod commands;
mod families;
mod schema;
mod tutorial;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// Holds a generated page against the committed one.
fn assert_current(page: &str, text: &str) {
    let path = root().join(page);
    if std::env::var_os("TIDEMILL_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{page} is out of date; run TIDEMILL_BLESS=1 cargo test --profile ci --test integration docs::"
    );
}

/// First lines of a generated page.
fn head(title: &str, made_from: &str, text: &str) -> String {
    format!(
        "# {title}\n\n<!-- Generated from {made_from} by tests/integration/docs; changes here are lost. -->\n\n{text}\n"
    )
}

/// Text as it stands in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// All pages, relative to the repository.
fn pages() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("docs"), &mut found);
    found.push(root().join("README.md"));
    found.sort();
    found
}

/// The text without blocks of code.
fn prose(text: &str) -> String {
    let mut within = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        within ^= fence;
        !within && !fence
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// Where links of a page lead.
fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    let targets = text.split("](").skip(1).filter_map(|part| part.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// The names by which headings are linked, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(text).lines().filter(|line| line.starts_with('#')) {
        let slug = slug(line.trim_start_matches('#').trim());
        let mut name = slug.clone();
        let mut count = 0;
        while !found.insert(name.clone()) {
            count += 1;
            name = format!("{slug}-{count}");
        }
    }
    found
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn no_link_is_broken() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for link in links(&text) {
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            let there = target.exists()
                && (anchor.is_empty() || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)));
            if !there {
                broken.push(format!("{}: {link}", page.strip_prefix(root()).expect("below the root").display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    assert!(seen > 30, "{seen} links");
}

#[test]
fn the_index_names_every_page() {
    let docs = root().join("docs");
    let index = fs::read_to_string(docs.join("README.md")).expect("the index");
    let named: BTreeSet<PathBuf> =
        links(&index).iter().filter_map(|link| docs.join(link.split('#').next()?).canonicalize().ok()).collect();
    let missing: Vec<PathBuf> = pages()
        .into_iter()
        .filter(|page| page.starts_with(&docs) && *page != docs.join("README.md"))
        .filter(|page| !named.contains(&page.canonicalize().expect("a page")))
        .collect();
    assert!(missing.is_empty(), "docs/README.md does not name {missing:?}");
}

#[test]
fn headings_are_named_as_on_github() {
    let text = "# A `b.c` and *d*\n```\n# no\n```\n## On Kafka, v2\n## On Kafka, v2\n";
    let found: Vec<String> = anchors(text).into_iter().collect();
    assert_eq!(found, ["a-bc-and-d", "on-kafka-v2", "on-kafka-v2-1"]);
}
