//! Processes of jobs: each leads a session of its own and outlives the server.
//!
//! A process carries the variable [`TOKEN`] with its job's directory. By it a server that was started anew finds its jobs, also
//! one whose number the former server did not come to write down, and takes no other process for them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::disk::ProcessId;

/// The variable that names the directory of the job which a process runs.
pub const TOKEN: &str = "TIDEMILL_JOB";

/// The variable that steps of batch dataflows have, which a job may have started.
const ATTEMPT: &str = "TIDEMILL_ATTEMPT";

/// Variables of the server's that are not its jobs'.
const OURS: &[&str] =
    &["TIDEMILL_METRICS", "TIDEMILL_METRICS_TOKEN", "TIDEMILL_QUEUE", "TIDEMILL_SERVER", "TIDEMILL_TOKEN", ATTEMPT];

/// A process to be started.
pub struct Launch<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What is added to the server's own variables.
    pub values: &'a BTreeMap<String, String>,
    /// Failpoints of this process.
    pub failpoints: Option<String>,
    /// Where it works.
    pub directory: &'a Path,
    /// What it says on standard error.
    pub log: &'a Path,
    /// What it prints.
    pub printed: &'a Path,
    /// Directory of its job.
    pub job: &'a Path,
}

impl Launch<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn start(self) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log)?;
        let mut command = Command::new(self.program);
        command.args(self.arguments).current_dir(self.directory).stdin(Stdio::null());
        // Files and no pipes: what a pipe's end does to the other end must not happen to jobs when the server ends.
        command.stderr(log).stdout(File::create(self.printed)?);
        OURS.iter().chain([&crate::base::FAILPOINTS]).for_each(|name| {
            command.env_remove(name);
        });
        if std::env::var_os("TIDEMILL_LOG").is_none() {
            command.env("TIDEMILL_LOG", "warn,tidemill=info");
        }
        command.envs(self.values).env(TOKEN, self.job);
        command.envs(self.failpoints.map(|failpoints| (crate::base::FAILPOINTS, failpoints)));
        // SAFETY: between fork and exec it makes one system call that may be made there, and touches no memory.
        unsafe {
            command.pre_exec(|| match libc::setsid() {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        command.spawn()
    }
}

impl ProcessId {
    /// The process of this number, as it is now.
    pub fn of(pid: u32) -> ProcessId {
        ProcessId { pid, began: stat(pid).map_or(0, |stat| stat.began) }
    }

    /// Whether this very process is there and has not ended.
    pub fn is_alive(self) -> bool {
        if !Path::new("/proc/self/stat").exists() {
            return signal(self.pid, 0);
        }
        stat(self.pid).is_some_and(|stat| !stat.ended && (self.began == 0 || stat.began == self.began))
    }

    /// Asks it to end, as a terminal or a service manager does.
    pub fn ask_to_end(self) {
        if self.is_alive() {
            signal(self.pid, libc::SIGTERM);
        }
    }

    /// Ends it with all of its group, whatever it does.
    pub fn kill(self) {
        if self.is_alive()
            && let Ok(group) = i32::try_from(self.pid)
            && group > 1
        {
            // SAFETY: sends a signal; no memory is involved. A group that is gone is no fault.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }
}

fn signal(pid: u32, signal: i32) -> bool {
    match i32::try_from(pid) {
        // SAFETY: sends a signal; no memory is involved.
        Ok(pid) if pid > 1 => unsafe { libc::kill(pid, signal) == 0 },
        _ => false,
    }
}

struct Stat {
    /// It has ended, and nobody has asked how.
    ended: bool,
    /// Clock ticks from the machine's start to the process'.
    began: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything. Behind it: state, parent, group, …; the 22nd field of all is the beginning.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat { ended: matches!(*fields.first()?, "Z" | "X"), began: fields.get(19)?.parse().ok()? })
}

/// Processes that run jobs, by the directory of their job.
pub fn running() -> BTreeMap<PathBuf, ProcessId> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return found };
    for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        let value = |name: &str| {
            let is = |one: &&[u8]| one.starts_with(name.as_bytes()) && one.get(name.len()) == Some(&b'=');
            environment.split(|b| *b == 0).find(is).map(|one| &one[name.len() + 1..])
        };
        // A step of a batch dataflow has the variable too, from the job that asked for it.
        if let (Some(job), None) = (value(TOKEN), value(ATTEMPT)) {
            let process = ProcessId::of(pid);
            if process.is_alive() {
                found.insert(PathBuf::from(std::ffi::OsStr::from_bytes(job)), process);
            }
        }
    }
    found
}

/// How a process ended, in words.
pub fn ending(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        None => "it ended while no server was there to see how".to_owned(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with exit code {code}"),
            (None, Some(libc::SIGKILL)) => {
                "it was killed (signal 9), by somebody or by the system for want of memory".to_owned()
            }
            (None, Some(libc::SIGABRT)) => "it aborted (signal 6)".to_owned(),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_outlives_who_started_it_and_is_found_by_its_job() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let launch = Launch {
            program: Path::new("/bin/sh"),
            arguments: ["-c", "echo said >&2; echo printed; exec sleep 60"].map(OsString::from).to_vec(),
            values: &BTreeMap::new(),
            failpoints: None,
            directory: dir.path(),
            log: &dir.path().join("log"),
            printed: &dir.path().join("printed"),
            job: dir.path(),
        };
        let mut child = launch.start().expect("started");
        let process = ProcessId::of(child.id());
        assert!(process.is_alive());
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        // Until exec is done the variable is not there.
        while running().get(dir.path()) != Some(&process) {
            assert!(std::time::Instant::now() < until, "not found");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        while fs::read_to_string(dir.path().join("printed")).expect("a file").is_empty() {
            assert!(std::time::Instant::now() < until, "nothing printed");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(fs::read_to_string(dir.path().join("log")).expect("a file"), "said\n");
        // SAFETY: asks for a number.
        assert_eq!(unsafe { libc::getsid(child.id() as i32) }, child.id() as i32);
        let other = ProcessId { began: process.began + 1, ..process };
        assert!(!other.is_alive(), "the number alone is not enough");
        other.kill();
        assert!(process.is_alive());
        process.kill();
        let status = child.wait().expect("it has ended");
        assert!(ending(Some(status)).contains("signal 9"), "{}", ending(Some(status)));
        assert!(!process.is_alive() && !running().contains_key(dir.path()));
    }
}
