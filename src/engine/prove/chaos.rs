//! The replay as processes that are killed, at failpoints and at random times, and go on at other worker counts.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::base::{FAILPOINTS, SplitMix64};
use crate::engine::{EngineError, StopHandle};

/// Makes the command that calls [`replay_into`](super::replay_into) over a folder, with so many workers.
pub type Launch = Arc<dyn Fn(&Path, usize) -> Command + Send + Sync>;

/// How a replay is disturbed.
#[derive(Clone)]
pub struct Chaos {
    /// Kills.
    pub kills: usize,
    /// Decides when and how; the same seed makes the same choices.
    pub seed: u64,
    /// Starts a process.
    pub launch: Launch,
}

/// What was done to a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kills {
    /// The seed.
    pub seed: u64,
    /// Starts, in their order, of which the last one was left alone.
    pub starts: Vec<Started>,
}

/// One start of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Started {
    /// Worker threads.
    pub workers: usize,
    /// When it was to be killed.
    pub kill: Option<String>,
    /// Whether it was.
    pub killed: bool,
}

impl Kills {
    /// Worker threads of each start.
    pub fn workers(&self) -> Vec<usize> {
        self.starts.iter().map(|start| start.workers).collect()
    }

    /// How many processes were killed.
    pub fn killed(&self) -> usize {
        self.starts.iter().filter(|start| start.killed).count()
    }
}

/// Where a process is killed, and how many visits to wait at most.
const PLACES: [(&str, u64); 7] = [
    ("checkpoint.staged", 4),
    ("checkpoint.committed", 4),
    ("delta.moved", 8),
    ("delta.committed", 8),
    ("checkpoint.published", 4),
    ("restore.claimed", 1),
    ("restore.published", 1),
];

/// A process is looked at this often.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the replay over a prepared folder to its end, through all kills. `plain_seconds` is what it takes undisturbed.
///
/// # Errors
/// When a process cannot be started, or fails by itself.
pub fn run(chaos: &Chaos, place: &Path, plain_seconds: f64, stop: &StopHandle) -> Result<Kills, EngineError> {
    let mut random = SplitMix64::new(chaos.seed);
    let mut kills = Kills { seed: chaos.seed, starts: Vec::new() };
    // A start that ends before its kill has finished the replay: it is not repeated for ever.
    for _ in 0..chaos.kills {
        let workers = 1 + random.below(3) as usize;
        let at_place = random.below(3) > 0;
        let (failpoint, after) = match at_place {
            true => {
                let (name, visits) = PLACES[random.below(PLACES.len() as u64) as usize];
                (Some(format!("{name}=kill@{}", 1 + random.below(visits))), None)
            }
            false => (None, Some(Duration::from_secs_f64(plain_seconds.max(0.05) * random.unit()))),
        };
        let kill = failpoint.clone().or_else(|| after.map(|after| format!("after {} ms", after.as_millis())));
        let mut command = (chaos.launch)(place, workers);
        command.env(FAILPOINTS, failpoint.unwrap_or_default());
        let (status, said) = wait(&mut command, after, stop)?;
        let killed = status.is_none_or(|status| status.code().is_none());
        kills.starts.push(Started { workers, kill, killed });
        if !killed {
            ended_well(chaos, status, &said)?;
            break;
        }
        if stop.is_stopped() {
            return Ok(kills);
        }
    }
    // Also where the last one came to its end: another start finds nothing to do.
    let workers = 1 + random.below(3) as usize;
    let mut command = (chaos.launch)(place, workers);
    command.env_remove(FAILPOINTS);
    let (status, said) = wait(&mut command, None, stop)?;
    kills.starts.push(Started { workers, kill: None, killed: false });
    if !stop.is_stopped() {
        ended_well(chaos, status, &said)?;
    }
    Ok(kills)
}

fn ended_well(chaos: &Chaos, status: Option<ExitStatus>, said: &str) -> Result<(), EngineError> {
    match status {
        Some(status) if status.success() => Ok(()),
        _ => Err(EngineError::Unprovable(format!(
            "a replay that had been killed could not go on (--seed {}): {}",
            chaos.seed,
            said.trim().trim_start_matches("error: ")
        ))),
    }
}

/// Waits for the end of a process, which is killed after `after`; no status when it was.
fn wait(
    command: &mut Command,
    after: Option<Duration>,
    stop: &StopHandle,
) -> Result<(Option<ExitStatus>, String), EngineError> {
    let refused = |error| EngineError::Workers(format!("a replay's process cannot be run: {error}"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(refused)?;
    let mut child = Killed(child);
    // It says little, and nobody waits for a full pipe: what it says is read on a thread.
    let said = child.0.stderr.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut said = Vec::new();
            // What cannot be read has not been said.
            let _ = std::io::Read::read_to_end(&mut pipe, &mut said);
            String::from_utf8_lossy(&said).into_owned()
        })
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().map_err(refused)? {
            break Some(status);
        }
        if stop.is_stopped() || after.is_some_and(|after| started.elapsed() >= after) {
            break None;
        }
        std::thread::sleep(LOOK);
    };
    drop(child);
    Ok((status, said.and_then(|thread| thread.join().ok()).unwrap_or_default()))
}

/// A process that does not outlive the value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // One that has ended is not there to be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &'static str, kills: usize) -> Result<Kills, EngineError> {
        let launch: Launch = Arc::new(move |_, _| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        });
        run(&Chaos { kills, seed: 7, launch }, Path::new("."), 0.01, &StopHandle::new())
    }

    #[test]
    fn one_seed_makes_one_choice() {
        // It dies wherever it is told to; a time that it is given has passed before.
        let kills = shell("test -z \"$TIDEMILL_FAILPOINTS\" && exec sleep 0.3; kill -KILL $$", 12).unwrap();
        assert_eq!((kills.starts.len(), kills.killed()), (13, 12), "{kills:?}");
        let again = shell("test -z \"$TIDEMILL_FAILPOINTS\" && exec sleep 0.3; kill -KILL $$", 12).unwrap();
        assert_eq!(again, kills);
        let counts: std::collections::BTreeSet<usize> = kills.workers().into_iter().collect();
        assert_eq!(counts.len(), 3, "{kills:?}");
        let timed = |start: &&Started| start.kill.as_ref().is_some_and(|kill| kill.starts_with("after"));
        let timed = kills.starts.iter().filter(timed).count();
        assert!((1..12).contains(&timed), "{kills:?}");
    }

    #[test]
    fn a_process_that_fails_by_itself_is_told() {
        let error = shell("echo error: no luck >&2; exit 1", 1).unwrap_err().to_string();
        assert!(error.contains("--seed 7") && error.ends_with("no luck"), "{error}");
        assert_eq!(shell("exit 0", 3).unwrap().killed(), 0);
    }
}
