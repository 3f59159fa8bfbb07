//! Processor time, memory, open files and free disk of this process, under the names that all of Prometheus' clients use.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::metric::{Collector, Description, Kind, Metrics};

const CPU: Description = Description {
    name: "process_cpu_seconds_total",
    kind: Kind::Counter,
    unit: "seconds",
    help: "Processor time of this process, user and system, in seconds.",
};
const MEMORY: Description = Description {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    unit: "bytes",
    help: "Memory of this process that is in RAM.",
};
const VIRTUAL: Description = Description {
    name: "process_virtual_memory_bytes",
    kind: Kind::Gauge,
    unit: "bytes",
    help: "Address space of this process.",
};
const FILES: Description =
    Description { name: "process_open_fds", kind: Kind::Gauge, unit: "", help: "Open file descriptors." };
const FILES_MAX: Description =
    Description { name: "process_max_fds", kind: Kind::Gauge, unit: "", help: "File descriptors that may be open." };
const THREADS: Description =
    Description { name: "process_threads", kind: Kind::Gauge, unit: "", help: "Threads of this process." };
const STARTED: Description = Description {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    unit: "seconds",
    help: "When this process started, in seconds since 1970.",
};
const DISK_FREE: Description = Description {
    name: "tidemill_disk_free_bytes",
    kind: Kind::Gauge,
    unit: "bytes",
    help: "Free space of the disk that a directory of the job is on, as far as this process may use it.",
};

/// Processor time of this process so far, user and system, in seconds.
pub fn cpu_seconds() -> Option<f64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the system fills the structure that we own, and says whether it did.
    let usage = match unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } {
        0 => unsafe { usage.assume_init() },
        _ => return None,
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Some(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

/// Address space and memory in RAM, in bytes; `None` where the system has no `/proc`.
fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    let (all, resident) = (pages.next()?, pages.next()?);
    // SAFETY: it looks a number up.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some((all * page, resident * page))
}

/// Memory in RAM, in bytes; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    memory().map(|(_, resident)| resident)
}

/// Bytes that may still be written below `path`, or where it will be; `None` when the system does not tell.
pub fn disk_free_bytes(path: &Path) -> Option<u64> {
    // A directory that is not made yet will be on the disk of the next one above it that is.
    let absolute = std::path::absolute(path).ok()?;
    let there = absolute.ancestors().find(|path| path.exists())?;
    let name = CString::new(there.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the name is a C string; the system fills the structure that we own, and says whether it did.
    let found = match unsafe { libc::statvfs(name.as_ptr(), found.as_mut_ptr()) } {
        0 => unsafe { found.assume_init() },
        _ => return None,
    };
    // Their types differ by system.
    #[allow(clippy::unnecessary_cast)]
    Some((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}

/// When this process started, in seconds since 1970.
fn start_seconds() -> f64 {
    static STARTED: OnceLock<f64> = OnceLock::new();
    *STARTED.get_or_init(|| from_proc().unwrap_or_else(|| now_seconds().unwrap_or_default()))
}

fn now_seconds() -> Option<f64> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}

fn from_proc() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; the 22nd field is the 20th behind it.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    // SAFETY: it looks a number up.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Some(now_seconds()? - up + ticks / per_second)
}

/// Tells of this process and of the disks below some directories.
#[derive(Debug, Default)]
pub struct Process {
    paths: BTreeMap<String, PathBuf>,
}

impl Process {
    /// Tells of these directories' disks, by their names.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Process {
        start_seconds();
        Process { paths: paths.into_iter().map(|path| (path.display().to_string(), path)).collect() }
    }
}

impl Collector for Process {
    fn collect(&self, metrics: &mut Metrics) {
        let mut add = |family: &Description, value: Option<f64>| {
            if let Some(value) = value {
                metrics.add(family, &[], value);
            }
        };
        add(&CPU, cpu_seconds());
        let memory = memory();
        add(&MEMORY, memory.map(|(_, resident)| resident as f64));
        add(&VIRTUAL, memory.map(|(all, _)| all as f64));
        let count = |folder: &str| std::fs::read_dir(folder).ok().map(|list| list.count() as f64);
        // One of them is the listing itself.
        add(&FILES, count("/proc/self/fd").map(|open| open - 1.0));
        add(&THREADS, count("/proc/self/task"));
        add(&FILES_MAX, files_max());
        add(&STARTED, Some(start_seconds()));
        for (name, path) in &self.paths {
            if let Some(free) = disk_free_bytes(path) {
                metrics.add(&DISK_FREE, &[("path", name)], free as f64);
            }
        }
    }
}

fn files_max() -> Option<f64> {
    let mut limit = std::mem::MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the system fills the structure that we own, and says whether it did.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) } {
        0 => Some(unsafe { limit.assume_init() }.rlim_cur as f64),
        _ => None,
    }
}
