//! What the README shows is true: its job compiles, its commands exist, its files are there.

use std::process::Command;

use tidemill::engine;

use crate::support::root;

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("the README")
}

/// The code blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == format!("```{language}") {
            found.push(lines.by_ref().take_while(|l| *l != "```").map(|l| format!("{l}\n")).collect());
        }
    }
    found
}

#[test]
fn the_job_compiles() {
    let jobs = blocks(&readme(), "yaml");
    assert_eq!(jobs.len(), 1);
    let (plan, warnings) =
        engine::load_text("README.md", &jobs[0], &[], &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((plan.views.len(), warnings), (2, Vec::new()));
}

#[test]
fn the_commands_exist() {
    let text = readme();
    let mut commands = 0;
    for line in text.lines().map(str::trim_start) {
        let Some(rest) = line.strip_prefix("tidemill ").or_else(|| line.strip_prefix("$ tidemill ")) else {
            continue;
        };
        // `tidemill features get …` → `tidemill features get --help`, whatever the arguments are.
        let words: Vec<&str> =
            rest.split_whitespace().take_while(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect();
        let depth = if matches!(words.first(), Some(&("features" | "bench"))) { 2 } else { 1 };
        let status = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(&words[..depth])
            .arg("--help")
            .output()
            .expect("it starts")
            .status;
        assert!(status.success(), "{line}");
        commands += 1;
    }
    assert!(commands >= 3, "the tour shows {commands} commands");
}

#[test]
fn the_files_are_there() {
    let text = readme();
    for part in text.split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        if !target.starts_with('#') && !target.starts_with("http") {
            assert!(root().join(target).exists(), "README.md links to {target}");
        }
    }
}
