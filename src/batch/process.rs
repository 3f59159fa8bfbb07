//! Processes: attempts of steps each run in one of their own, so that one can be ended with all that it has started, whatever
//! it does.
//!
//! A process leads a group, and all that it starts carries the variable [`TOKEN`] with the attempt's name, by which leftovers of
//! a runner that was killed are found. It dies with the thread that has started it, where the system can do that.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The variable that names the attempt which a process belongs to.
pub const TOKEN: &str = "TIDEMILL_ATTEMPT";

/// Makes a command lead a process group and die with the thread that starts it.
pub fn lead_group(command: &mut Command) {
    command.process_group(0);
    die_with_parent(command, libc::SIGKILL);
}

/// Makes a command get a signal when the thread that starts it ends.
pub fn die_with_parent(command: &mut Command, signal: i32) {
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        // SAFETY: between fork and exec it makes two system calls that may be made there, and touches no memory.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The parent may have died before.
                if libc::getppid() as u32 != parent {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (command, signal);
}

/// Ends all processes of a group.
pub fn kill_group(leader: u32) {
    if let Ok(group) = i32::try_from(leader)
        && group > 1
    {
        // SAFETY: sends a signal; no memory is involved. A group that is gone is no fault.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// Sends a process the signal that asks it to end.
pub fn ask_to_end(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        // SAFETY: sends a signal; no memory is involved.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Ends whatever a runner that is no more has left: processes whose [`TOKEN`] begins with `prefix`. Returns how many.
pub fn kill_leftovers(prefix: &str) -> usize {
    let wanted = format!("{TOKEN}={prefix}");
    let mut killed = 0;
    for pid in pids() {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        let carries = environment.split(|b| *b == 0).any(|one| one.starts_with(wanted.as_bytes()));
        if carries
            && pid != std::process::id()
            && let Ok(pid) = i32::try_from(pid)
        {
            // SAFETY: sends a signal; no memory is involved.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            killed += 1;
        }
    }
    killed
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Resident bytes by process group; `None` where the system has no `/proc`.
pub fn resident_by_group() -> Option<BTreeMap<u32, u64>> {
    if !Path::new("/proc/self/stat").exists() {
        return None;
    }
    // SAFETY: it looks a number up.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let mut groups: BTreeMap<u32, u64> = BTreeMap::new();
    for pid in pids() {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in parentheses may hold anything. Behind it: state, parent, group, …; the 24th field is pages in RAM.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let group = fields.get(2).and_then(|field| field.parse().ok());
        let pages = fields.get(21).and_then(|field| field.parse::<u64>().ok());
        if let (Some(group), Some(pages)) = (group, pages) {
            *groups.entry(group).or_default() += pages * page;
        }
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_group_ends_with_all_that_it_has_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 61 & sleep 62"]).stdin(Stdio::null()).env(TOKEN, "test-group-ends/1");
        lead_group(&mut command);
        let mut child = command.spawn().unwrap();
        let leader = child.id();
        let mine = || resident_by_group().unwrap().get(&leader).copied().unwrap_or_default();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while mine() == 0 && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(mine() > 0);
        kill_group(child.id());
        child.wait().unwrap();
        while mine() > 0 && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(mine(), 0);
    }

    #[test]
    fn leftovers_are_found_by_their_token() {
        let mut command = Command::new("sleep");
        command.arg("63").env(TOKEN, "test-leftovers/fit/1");
        let mut child = command.spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut killed = 0;
        // Until exec is done the variable is not there.
        while killed == 0 && std::time::Instant::now() < until {
            killed = kill_leftovers("test-leftovers/");
        }
        assert_eq!(killed, 1);
        assert!(!child.wait().unwrap().success());
        assert_eq!(kill_leftovers("test-leftovers-of-nobody/"), 0);
    }
}
