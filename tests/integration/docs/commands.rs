//! `docs/reference/cli.md`, from the program's own help.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::{assert_current, head};

/// The help of a command, as it is where no variable is set.
fn help(command: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(command)
        .arg("--help")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Names of the commands below one.
fn below(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

fn write(command: &[String], out: &mut String) -> usize {
    let help = help(command);
    let name = ["tidemill".to_owned()].iter().chain(command).cloned().collect::<Vec<_>>().join(" ");
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(out, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n"));
    let mut count = 1;
    for next in below(&help) {
        count += write(&[command, &[next]].concat(), out);
    }
    count
}

#[test]
fn the_page_of_the_commands_is_current() {
    let mut page = head(
        "The command line",
        "the program's own help",
        "Every command's `--help`. Results go to standard output, progress, warnings and errors to standard error.",
    );
    let commands = write(&[], &mut page);
    assert!(commands > 40, "{commands} commands");
    assert_current("docs/reference/cli.md", &page);
}
