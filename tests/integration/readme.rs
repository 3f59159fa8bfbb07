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
fn the_jobs_compile() {
    let jobs = blocks(&readme(), "yaml");
    let mut views = Vec::new();
    for job in &jobs {
        let (plan, warnings) =
            engine::load_text("README.md", job, &[], &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(warnings, Vec::new());
        views.push(plan.views.len());
    }
    assert_eq!(views, [2, 1]);
}

#[test]
fn the_runs_pass_the_check() {
    let text = readme().replace(" \\\n", " ");
    let mut runs = 0;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("$ tidemill run ") else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let file = words[0];
        let sets = words.iter().zip(&words[1..]).filter(|(flag, _)| **flag == "--set").flat_map(|(f, v)| [*f, *v]);
        let check = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .current_dir(root())
            .args(["check", file])
            .args(sets)
            .output()
            .expect("it starts");
        assert!(check.status.success(), "{line}: {}", String::from_utf8_lossy(&check.stderr));
        runs += 1;
    }
    assert_eq!(runs, 6);
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
        let depth =
            if matches!(words.first(), Some(&("features" | "bench" | "models" | "experiments"))) { 2 } else { 1 };
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
