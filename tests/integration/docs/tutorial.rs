//! `docs/tutorial.md` is true: its commands run, in order, on the files that it shows, and print what it says.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::free_port;
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

/// The tutorial's folder and what was started there.
struct Walk {
    dir: TempDir,
    path: String,
    /// Where the tutorial's server listens here, instead of where it listens in the text.
    address: String,
    started: Vec<Child>,
}

impl Walk {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &line.replace(SERVER, &self.address)]).current_dir(self.dir.path());
        command.env("PATH", &self.path).env_remove("TIDEMILL_LOG").stdin(Stdio::null());
        command.env("TIDEMILL_LISTEN", &self.address).env("TIDEMILL_SERVER", format!("http://{}", self.address));
        command
    }

    /// One line of a shell; what it printed, and what was wrong. A line that ends in `&` is left running.
    fn run(&mut self, line: &str) -> (String, Option<String>) {
        if let Some(line) = line.strip_suffix(" &") {
            self.started.push(self.command(&format!("exec {line}")).spawn().expect("a shell"));
            let patience = Instant::now() + PATIENCE;
            while TcpStream::connect(&self.address).is_err() {
                assert!(Instant::now() < patience, "{line}: nothing listens on {}", self.address);
                std::thread::sleep(Duration::from_millis(50));
            }
            return (String::new(), None);
        }
        let output = self.command(line).output().expect("a shell");
        let wrong = (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned());
        (String::from_utf8(output.stdout).expect("text"), wrong)
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        for child in &mut self.started {
            // A server ends its jobs when it is asked to end.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

/// Where a server listens that is told nothing.
const SERVER: &str = "127.0.0.1:7070";
/// How long what was started may take until it shows.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first line that is shown and was not printed.
fn missing<'a>(shown: &'a str, printed: &str) -> Option<&'a str> {
    shown.lines().find(|line| !printed.lines().any(|printed| is_like(line, printed)))
}

#[test]
fn the_tutorial_is_true() {
    let page = fs::read_to_string(root().join("docs/tutorial.md")).expect("the tutorial");
    let dir = TempDir::new().expect("a folder");
    fs::create_dir(dir.path().join("models")).expect("a folder");
    fs::copy(root().join("models/card_fraud.onnx"), dir.path().join("models/card_fraud.onnx")).expect("the model");
    let program = Path::new(env!("CARGO_BIN_EXE_tidemill")).parent().expect("a folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("a path"));
    let address = format!("127.0.0.1:{}", free_port());
    let mut walk = Walk { dir, path, address, started: Vec::new() };
    let (mut printed, mut last, mut commands, mut shown, mut files) = (String::new(), String::new(), 0, 0, 0);
    for block in blocks(&page) {
        match block.language.as_str() {
            "sh" => {
                printed.clear();
                for line in block.text.lines() {
                    let (text, wrong) = walk.run(line);
                    assert!(wrong.is_none(), "{line}: {}", wrong.unwrap_or_default());
                    printed += &text;
                    line.clone_into(&mut last);
                    commands += 1;
                }
            }
            "text" => {
                // What runs beside us takes its time until it shows.
                let patience = Instant::now() + PATIENCE;
                while let Some(line) = missing(&block.text, &printed) {
                    let beside = !walk.started.is_empty() && Instant::now() < patience;
                    assert!(beside, "the tutorial shows `{line}`, not in:\n{printed}");
                    std::thread::sleep(Duration::from_millis(200));
                    printed = walk.run(&last).0;
                }
                shown += block.text.lines().count();
            }
            _ => {
                let (name, add) = file_of(&block.before).unwrap_or_else(|| panic!("{}: names no file", block.before));
                let file = walk.dir.path().join(name);
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
