//! The job's processes: started, stopped, woken, killed, and what they said.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::base::FAILPOINTS;

/// No start of these small jobs takes longer, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A process of a job; killed when dropped.
pub struct Process {
    child: Child,
    out: PathBuf,
    ended: Option<ExitStatus>,
    stopped: bool,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It has ended.
    Ended(ExitStatus),
    /// It was stopped by a signal.
    Stopped,
}

impl Process {
    /// Starts `command` with failpoints; what it says goes to files beginning with `out`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, failpoints: &str, out: &Path) -> anyhow::Result<Process> {
        let file = |end: &str| File::create(out.with_extension(end)).with_context(|| format!("{}", out.display()));
        command.env(FAILPOINTS, failpoints).stdin(Stdio::null()).stdout(file("out")?).stderr(file("err")?);
        let child = command.spawn().context("the job's process does not start")?;
        Ok(Process { child, out: out.to_owned(), ended: None, stopped: false })
    }

    /// Waits until it has ended or was stopped, or `time` is over.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn wait(&mut self, time: Duration) -> anyhow::Result<Option<Became>> {
        let until = Instant::now() + time;
        loop {
            if let Some(status) = self.ended {
                return Ok(Some(Became::Ended(status)));
            }
            if self.stopped {
                return Ok(Some(Became::Stopped));
            }
            let mut status = 0;
            let pid = self.child.id().cast_signed();
            // SAFETY: asks after a child of this process, which nobody else waits for; the call writes one integer.
            let found = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
            if found < 0 {
                return Err(std::io::Error::last_os_error()).context("cannot wait for the job's process");
            }
            if found == pid && libc::WIFSTOPPED(status) {
                self.stopped = true;
                return Ok(Some(Became::Stopped));
            }
            if found == pid {
                self.ended = Some(ExitStatus::from_raw(status));
            } else if Instant::now() >= until {
                return Ok(None);
            } else {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// Waits until it has ended or was stopped.
    ///
    /// # Errors
    /// When it does neither.
    pub fn became(&mut self) -> anyhow::Result<Became> {
        match self.wait(PATIENCE)? {
            Some(became) => Ok(became),
            None => bail!("the job hangs; it said:\n{}", self.said()),
        }
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(&mut self) -> anyhow::Result<ExitStatus> {
        match self.became()? {
            Became::Ended(status) => Ok(status),
            Became::Stopped => bail!("the job was stopped by a signal that nobody sent; it said:\n{}", self.said()),
        }
    }

    /// Sends a signal, if it has not ended.
    pub fn signal(&mut self, signal: i32) {
        if self.ended.is_none() {
            // SAFETY: the child has not been waited for, so its number is its own.
            unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        }
    }

    /// Lets a stopped process go on.
    pub fn wake(&mut self) {
        self.stopped = false;
        self.signal(libc::SIGCONT);
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it does not die.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(libc::SIGKILL);
        self.stopped = false;
        self.end()
    }

    /// What it said to standard error.
    pub fn said(&self) -> String {
        std::fs::read(self.out.with_extension("err"))
            .map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into())
    }

    /// Its summary, if it came to that.
    pub fn summary(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.out.with_extension("out")).ok()?).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Best effort: a process that does not die of this dies of nothing.
            let _ = self.kill();
        }
    }
}
