//! The rooms of `src/` import left and down only, and the tree keeps its shape.
//!
//! Sources are read as text, not compiled: this test builds in a second and names the file and line of every edge that
//! the table below does not allow. To add an edge is a decision about the architecture: change the table and
//! `src/ARCHITECTURE.md` in the same commit.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms it uses, in the order of the data's way through the engine. The four in the middle know the plan
/// and not each other; the engine joins them.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("ops", &["base"]),
    ("state", &["base"]),
    ("telemetry", &["base"]),
    ("http", &["base", "telemetry"]),
    ("kafka", &["base"]),
    ("net", &["base"]),
    ("plan", &["base", "ops"]),
    ("ingest", &["base", "ops", "kafka", "net", "plan"]),
    ("features", &["base", "ops", "plan"]),
    ("store", &["base", "ops", "kafka", "net", "plan"]),
    ("score", &["base", "plan"]),
    ("monitor", &["base", "ops", "plan"]),
    ("registry", &["base", "state"]),
    ("train", &["base", "ops", "plan", "store", "score", "monitor"]),
    ("rollout", &["base", "ops", "plan", "monitor", "registry"]),
    (
        "engine",
        &[
            "base",
            "ops",
            "state",
            "telemetry",
            "http",
            "kafka",
            "net",
            "plan",
            "ingest",
            "features",
            "store",
            "score",
            "monitor",
            "registry",
            "rollout",
        ],
    ),
    (
        "serving",
        &["base", "ops", "telemetry", "http", "kafka", "plan", "ingest", "store", "score", "registry", "rollout"],
    ),
    ("report", &["base", "plan", "store", "monitor", "train"]),
    (
        "batch",
        &["base", "state", "plan", "store", "score", "monitor", "registry", "train", "rollout", "engine", "report"],
    ),
    (
        "control",
        &[
            "base",
            "ops",
            "state",
            "telemetry",
            "http",
            "kafka",
            "plan",
            "ingest",
            "features",
            "store",
            "score",
            "monitor",
            "registry",
            "train",
            "rollout",
            "engine",
            "report",
            "serving",
            "batch",
        ],
    ),
    (
        "bench",
        &[
            "base",
            "ops",
            "state",
            "kafka",
            "plan",
            "ingest",
            "features",
            "store",
            "score",
            "monitor",
            "registry",
            "train",
            "rollout",
            "engine",
            "batch",
            "serving",
            "http",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "base",
            "state",
            "telemetry",
            "http",
            "kafka",
            "net",
            "plan",
            "ingest",
            "store",
            "score",
            "monitor",
            "registry",
            "train",
            "rollout",
            "engine",
            "serving",
            "report",
            "batch",
            "control",
            "bench",
        ],
    ),
];

/// Longer files are looked at again at 500 lines and refused past this.
const LINES_MAX: usize = 800;

/// Folders whose Rust files are ours.
const FOLDERS: &[&str] = &["src", "tests", "benches"];

#[test]
fn rooms_import_left_and_down_only() {
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let text = fs::read_to_string(&file.path).expect("a source file is readable UTF-8");
        faults.extend(forbidden_edges(&file.name, &text));
    }
    assert!(faults.is_empty(), "edges that the table of tests/architecture.rs does not allow:\n{}", faults.join("\n"));
}

#[test]
fn every_folder_of_src_is_a_room_of_the_table() {
    let known: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let found: BTreeSet<String> = rust_files("src")
        .iter()
        .filter_map(|f| f.name.strip_prefix("src/")?.split_once('/'))
        .map(|(room, _)| room.to_owned())
        .collect();
    let strangers: Vec<&String> = found.iter().filter(|room| !known.contains(room.as_str())).collect();
    assert!(strangers.is_empty(), "folders of src/ that the table does not name: {strangers:?}");
}

#[test]
fn the_table_lists_rooms_from_left_to_right() {
    for (i, (room, allowed)) in ROOMS.iter().enumerate() {
        for used in *allowed {
            assert!(
                ROOMS[..i].iter().any(|(left, _)| left == used),
                "{room} may not use {used}: it does not stand left of it"
            );
        }
    }
}

#[test]
fn no_file_outgrows_its_reader() {
    let mut long = Vec::new();
    for folder in FOLDERS {
        for file in rust_files(folder) {
            let lines = fs::read_to_string(&file.path).expect("a source file is readable UTF-8").lines().count();
            if lines > LINES_MAX {
                long.push(format!("{}: {lines} lines", file.name));
            }
        }
    }
    assert!(long.is_empty(), "files longer than {LINES_MAX} lines; split them by what they do:\n{}", long.join("\n"));
}

#[test]
fn errors_are_typed_below_the_command_line() {
    // Benchmarks are programs, as the command line is: their errors are read by people and never matched on.
    let programs = ["src/main.rs", "src/cli/", "src/bench/"];
    let mut users = Vec::new();
    for file in rust_files("src") {
        if programs.iter().any(|p| file.name.starts_with(p)) {
            continue;
        }
        let text = fs::read_to_string(&file.path).expect("a source file is readable UTF-8");
        for token in tokens(&text) {
            if token.text == "anyhow" {
                users.push(format!("{}:{}", file.name, token.line));
            }
        }
    }
    assert!(
        users.is_empty(),
        "`anyhow` belongs to {programs:?} alone; give the room an error type:\n{}",
        users.join("\n")
    );
}

#[test]
fn one_arrow_version_in_the_tree() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is in the repository");
    let mut versions = BTreeSet::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        if line == "name = \"arrow-array\"" {
            versions.insert(lines.next().unwrap_or_default().to_owned());
        }
    }
    assert_eq!(versions.len(), 1, "batches of one arrow version cannot be handed to another: {versions:?}");
}

#[test]
fn a_forbidden_edge_is_found_however_it_is_written() {
    let cases = [
        "use crate::engine::run;",
        "pub use crate::{base::Tick, engine::{self, Run}};",
        "use { crate::engine as e };",
        "fn f() { let x = crate::engine::run(1, 'a', \"b\"); }",
        "use super::super::engine;",
        "mod tests { use super::super::super::engine::run; }",
        "use super::{super::engine::run};",
        "macro_rules! m { () => { $crate::engine::run() } }",
        "fn f<'a>(x: &'a str) -> crate::engine::Run<'a> { x }",
        "use crate::r#engine::run;",
        "fn f() { println!(\"// not a comment\"); crate::engine::run() }",
    ];
    for case in cases {
        let faults = forbidden_edges("src/score/tree.rs", case);
        assert_eq!(faults.len(), 1, "`{case}` gave {faults:?}");
        assert!(faults[0].contains("score") && faults[0].contains("engine"), "`{case}` gave {faults:?}");
    }
}

#[test]
fn aliases_that_would_hide_an_edge_are_refused() {
    for case in ["use crate as t;", "use crate::*;", "use crate::{self as t};", "use super::super::*;"] {
        assert_eq!(forbidden_edges("src/score/tree.rs", case).len(), 1, "{case}");
    }
    assert_eq!(forbidden_edges("src/main.rs", "fn main() { tidemill::engine::run() }").len(), 1);
}

#[test]
fn an_allowed_edge_and_a_mention_are_left_alone() {
    let cases = [
        "use crate::base::Tick;",
        "use crate::{base::Tick, plan::model::Plan};",
        "use super::kernel; use self::leaf::Leaf; use crate::score::Model;",
        "pub(crate) fn f() {} pub(in crate::score) fn g() {}",
        "// use crate::engine::run;",
        "/// See [`crate::engine::run`].\n/* crate::engine /* crate::engine */ */ fn f() {}",
        "const S: &str = \"crate::engine::run\"; const R: &str = r#\"crate::engine \" \"#;",
        "fn quote() -> char { '\"' } // crate::engine",
        "mod tests { use super::super::kernel; }",
    ];
    for case in cases {
        assert_eq!(forbidden_edges("src/score/tree.rs", case), Vec::<String>::new(), "{case}");
    }
    assert_eq!(forbidden_edges("src/main.rs", "fn main() { tidemill::cli::main() }"), Vec::<String>::new());
}

#[test]
fn a_stranger_is_named() {
    assert!(forbidden_edges("src/score/tree.rs", "use crate::helpers::x;")[0].contains("helpers"));
    assert!(forbidden_edges("src/helpers/mod.rs", "use crate::base::Tick;")[0].contains("helpers"));
}

// ---- edges of one file ----

/// The edges of one file that the table does not allow, as `file:line: why`.
fn forbidden_edges(name: &str, text: &str) -> Vec<String> {
    let module = module_path(name);
    let from = module.first().map(String::as_str);
    let mut faults = Vec::new();
    for edge in edges(&module, text) {
        let fault = match (from, edge.to.as_deref()) {
            // The root declares the rooms; the program enters by the command line alone.
            (None, Some(to)) if name == "src/lib.rs" || to == "cli" => None,
            (None, Some(to)) => Some(format!("{name} may use `cli` only, not `{to}`")),
            (_, None) => Some("name the room: the crate itself is not imported whole or by another name".to_owned()),
            (Some(from), Some(to)) if from == to => None,
            (Some(from), Some(to)) => match ROOMS.iter().find(|(room, _)| *room == from) {
                None => Some(format!("`{from}` is no room of the table")),
                Some((_, allowed)) if allowed.contains(&to) => None,
                Some(_) => Some(format!("`{from}` may not use `{to}`")),
            },
        };
        faults.extend(fault.map(|why| format!("{name}:{}: {why}", edge.line)));
    }
    faults
}

/// The module that a file holds: `src/plan/expr.rs` is `[plan, expr]`, `src/plan/mod.rs` is `[plan]`, roots are empty.
fn module_path(name: &str) -> Vec<String> {
    let inner = name.strip_prefix("src/").unwrap_or(name).trim_end_matches(".rs");
    let mut path: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if matches!(path.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        path.pop();
    }
    path
}

/// A path in code that leaves its module through the crate's root.
struct Edge {
    /// The room it enters; `None` when it stops at the root.
    to: Option<String>,
    line: usize,
}

/// Every path of a file that starts at the root, resolved through `crate`, `$crate`, the crate's own name and `super`.
fn edges(module: &[String], text: &str) -> Vec<Edge> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut inner: Vec<(String, usize)> = Vec::new(); // inline modules and the brace depth they opened at
    let mut depth = 0;
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inner.retain(|(_, opened)| *opened <= depth);
            }
            "mod" if tokens.get(i + 2).is_some_and(|t| t.text == "{") => {
                depth += 1;
                inner.push((tokens[i + 1].text.clone(), depth));
                i += 3;
                continue;
            }
            start @ ("crate" | "super" | "tidemill") if i == 0 || tokens[i - 1].text != "::" => {
                let here: Vec<String> =
                    module.iter().cloned().chain(inner.iter().map(|(name, _)| name.clone())).collect();
                let next_is_path = tokens.get(i + 1).is_some_and(|t| t.text == "::");
                let renamed = tokens.get(i + 1).is_some_and(|t| t.text == "as");
                if start == "super" && next_is_path {
                    i = follow(&tokens, i, here, &mut found);
                    continue;
                }
                if start != "super" && (next_is_path || renamed) {
                    i = follow(&tokens, i + 1, Vec::new(), &mut found);
                    continue;
                }
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// Follows one path or use tree from token `i`, standing in module `at`; returns the token after it.
fn follow(tokens: &[Token], mut i: usize, mut at: Vec<String>, found: &mut Vec<Edge>) -> usize {
    let line = tokens.get(i).or(tokens.last()).map_or(0, |t| t.line);
    let mut climbed = at.is_empty();
    loop {
        match tokens.get(i).map(|t| t.text.as_str()) {
            Some("::") => i += 1,
            Some("super") => {
                at.pop();
                climbed |= at.is_empty();
                i += 1;
            }
            Some("self") => i += 1,
            Some("{") => {
                i += 1;
                while tokens.get(i).is_some_and(|t| t.text != "}") {
                    if tokens[i].text == "," {
                        i += 1;
                        continue;
                    }
                    let before = i;
                    i = follow(tokens, i, at.clone(), found);
                    i += usize::from(i == before); // not a use tree after all: step over
                }
                return i + 1;
            }
            Some(name) if climbed && at.is_empty() && is_name(name) && name != "as" => {
                found.push(Edge { to: Some(name.to_owned()), line: tokens[i].line });
                // The rest of the path lies inside that room.
                return skip_tree(tokens, i + 1);
            }
            Some(name) if is_name(name) && name != "as" => return skip_tree(tokens, i + 1),
            _ => {
                if climbed && at.is_empty() {
                    found.push(Edge { to: None, line });
                }
                return skip_tree(tokens, i);
            }
        }
    }
}

/// The token after the rest of a use tree (`::a::{b, c} as d`), which holds no way back to the root.
fn skip_tree(tokens: &[Token], mut i: usize) -> usize {
    while let Some(token) = tokens.get(i) {
        match token.text.as_str() {
            "::" | "*" => i += 1,
            "as" => i += 2,
            "{" if tokens[i - 1].text == "::" => {
                let mut depth = 0;
                while let Some(token) = tokens.get(i) {
                    depth += i32::from(token.text == "{") - i32::from(token.text == "}");
                    i += 1;
                    if depth == 0 {
                        break;
                    }
                }
                return i;
            }
            name if is_name(name) && tokens[i - 1].text == "::" => i += 1,
            _ => return i,
        }
    }
    i
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

// ---- a lexer that is just good enough: names and punctuation, without comments, strings and characters ----

struct Token {
    text: String,
    line: usize,
}

fn tokens(source: &str) -> Vec<Token> {
    let s: Vec<char> = source.chars().collect();
    let at = |i: usize| s.get(i).copied().unwrap_or('\0');
    let (mut i, mut line) = (0, 1);
    let mut out: Vec<Token> = Vec::new();
    while i < s.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => i += s[i..].iter().take_while(|c| **c != '\n').count(),
            '/' if at(i + 1) == '*' => i = end_of_block_comment(&s, i),
            '"' => i = end_of_string(&s, i, 0),
            '\'' if at(i + 1) == '\\' => {
                i += 3 + s[(i + 3).min(s.len())..].iter().take_while(|c| **c != '\'').count() + 1
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            c if c.is_alphabetic() || c == '_' => {
                let end = i + s[i..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                let word: String = s[i..end].iter().collect();
                let hashes = s[end..].iter().take_while(|c| **c == '#').count();
                i = end;
                if matches!(word.as_str(), "r" | "br" | "cr") && at(end + hashes) == '"' {
                    i = end_of_raw_string(&s, end + hashes, hashes);
                } else if matches!(word.as_str(), "b" | "c") && at(end) == '"' {
                    i = end_of_string(&s, end, 0);
                } else if word == "r" && hashes == 1 {
                    i += 1; // a raw name: the name itself is the next token
                } else {
                    out.push(Token { text: word, line });
                }
            }
            ':' if at(i + 1) == ':' => {
                out.push(Token { text: "::".to_owned(), line });
                i += 2;
            }
            c => {
                if !c.is_whitespace() {
                    out.push(Token { text: c.to_string(), line });
                }
                i += 1;
            }
        }
        line += s[start..i.min(s.len())].iter().filter(|c| **c == '\n').count();
    }
    out
}

fn end_of_block_comment(s: &[char], mut i: usize) -> usize {
    let mut depth = 0;
    while i < s.len() {
        match (s[i], s.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn end_of_string(s: &[char], open: usize, _hashes: usize) -> usize {
    let mut i = open + 1;
    while i < s.len() && s[i] != '"' {
        i += if s[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn end_of_raw_string(s: &[char], open: usize, hashes: usize) -> usize {
    let mut i = open + 1;
    while i < s.len() {
        if s[i] == '"' && s[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

// ---- files ----

struct SourceFile {
    path: PathBuf,
    /// Relative to the repository, with forward slashes.
    name: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<SourceFile> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder's entry is readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let relative = path.strip_prefix(root()).expect("under the repository");
                let name = relative.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
                found.push(SourceFile { path, name });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
