//! `docs/tutorial.md` is true: its commands run, in order, on the files that it shows, and print what it says.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::root;

/// A fenced block and the line of prose before it.
struct Block {
    before: String,
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut before = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        match line.strip_prefix("```") {
            Some(language) => {
                let text = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
                found.push(Block { before: std::mem::take(&mut before), language: language.to_owned(), text });
            }
            None if !line.is_empty() => before = line.to_owned(),
            None => {}
        }
    }
    found
}

/// The file that a line of prose ends in: "… In `shop.yaml`:" or "Add to `shop.yaml`:".
fn file_of(before: &str) -> Option<(&str, bool)> {
    let rest = before.strip_suffix("`:")?;
    let (said, name) = rest.rsplit_once('`')?;
    match said.trim_end() {
        said if said.ends_with("Add to") => Some((name, true)),
        said if said.ends_with("In") => Some((name, false)),
        _ => None,
    }
}

/// Whether a line that is shown, in which `…` stands for anything, is the line that was printed.
fn is_like(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut open = false;
    for part in parts {
        open = part.is_empty();
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.trim_end().is_empty() || open
}

/// One line of a shell in the tutorial's folder; what it printed.
fn run(dir: &Path, path: &str, line: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(dir)
        .env("PATH", path)
        .env_remove("TIDEMILL_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_tutorial_is_true() {
    let page = fs::read_to_string(root().join("docs/tutorial.md")).expect("the tutorial");
    let dir = TempDir::new().expect("a folder");
    fs::create_dir(dir.path().join("models")).expect("a folder");
    fs::copy(root().join("models/card_fraud.onnx"), dir.path().join("models/card_fraud.onnx")).expect("the model");
    let program = Path::new(env!("CARGO_BIN_EXE_tidemill")).parent().expect("a folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("a path"));
    let (mut printed, mut commands, mut shown, mut files) = (String::new(), 0, 0, 0);
    for block in blocks(&page) {
        match block.language.as_str() {
            "sh" => {
                printed.clear();
                for line in block.text.lines() {
                    printed += &run(dir.path(), &path, line);
                    commands += 1;
                }
            }
            "text" => {
                for line in block.text.lines() {
                    assert!(
                        printed.lines().any(|p| is_like(line, p)),
                        "the tutorial shows `{line}`, not in:\n{printed}"
                    );
                    shown += 1;
                }
            }
            _ => {
                let (name, add) = file_of(&block.before).unwrap_or_else(|| panic!("{}: names no file", block.before));
                let file = dir.path().join(name);
                let before = if add { fs::read_to_string(&file).expect("the file so far") } else { String::new() };
                fs::write(file, before + &block.text).expect("a file");
                files += 1;
            }
        }
    }
    assert!(commands >= 14 && shown >= 20 && files >= 6, "{commands} commands, {shown} lines, {files} files");
}

#[test]
fn lines_are_like_what_they_show() {
    assert!(is_like("rows 6 (… per second)", "rows 6 (17 per second)"));
    assert!(is_like("done in …", "done in 2 s on 1 worker"));
    assert!(is_like("…champion…", "2026 champion: 1"));
    assert!(!is_like("rows 6", "rows 66") && !is_like("rows 6 …", "rows 7 x"));
    assert_eq!(file_of("Text. In `a.yaml`:"), Some(("a.yaml", false)));
    assert_eq!(file_of("Add to `a.yaml`:"), Some(("a.yaml", true)));
    assert_eq!(file_of("In `a.yaml` there is:"), None);
}
