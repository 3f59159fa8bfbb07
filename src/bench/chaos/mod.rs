//! `bench chaos`: jobs that are killed, stopped, woken and robbed at random, and must leave what an undisturbed run leaves.
//!
//! Everything that is drawn follows from the seed and the schedule's number. When exactly a fault hits a process depends on
//! the machine all the same, so a schedule that failed once may have to be repeated a few times to fail again.

mod bed;
pub mod job;
mod outcome;
pub mod process;
pub mod schedule;
mod survive;
mod topics;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

pub use bed::{Bed, Setup};
pub use job::{Online, Servers, World};
pub use outcome::Outcome;
pub use schedule::{At, Fault, Schedule, Step, Wake};
pub use survive::{Survived, survive};

use schedule::Draws;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program itself.
    pub program: PathBuf,
    /// Number of schedules.
    pub schedules: u64,
    /// What the schedules are drawn from.
    pub seed: u64,
    /// Only the schedule of this number.
    pub only: Option<u64>,
    /// Servers for jobs on topics, and with online values in Redis.
    pub servers: Servers,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the schedules were drawn from.
    pub seed: u64,
    /// Schedules that were begun.
    pub schedules: u64,
    /// Those after which everything was there once.
    pub survived: u64,
    /// Starts of the job.
    pub starts: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults that did not come about, because the job did not come to the place.
    pub missed: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// What went wrong.
    pub failure: Option<Failed>,
}

/// A schedule that was not survived.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    /// Its number.
    pub number: u64,
    /// What was done.
    pub schedule: String,
    /// What was different.
    pub what: String,
    /// Where everything lies.
    pub directory: PathBuf,
}

/// Runs schedules until one is not survived; `tell` is told of each.
///
/// # Errors
/// When something besides a schedule fails, such as the undisturbed run.
pub fn run(options: &Options, tell: &dyn Fn(&str)) -> anyhow::Result<Report> {
    let started = Instant::now();
    let mut setup = Setup::new(options.program.clone(), options.servers.clone())?;
    let worlds = World::all(options.servers.brokers.is_some(), options.servers.redis.is_some());
    let mut report = Report {
        seed: options.seed,
        schedules: 0,
        survived: 0,
        starts: 0,
        faults: BTreeMap::new(),
        missed: 0,
        seconds: 0.0,
        failure: None,
    };
    tell(&format!("seed {}", options.seed));
    let numbers = match options.only {
        Some(number) => number..number + 1,
        None => 0..options.schedules,
    };
    for number in numbers {
        let schedule = Schedule::draw(&worlds, Draws::new(options.seed, number));
        tell(&format!("{number}: {schedule}"));
        report.schedules += 1;
        let begun = Instant::now();
        match survive(&mut setup, &schedule, &format!("s{number}")) {
            Ok(Survived { starts, missed }) => {
                report.survived += 1;
                report.starts += starts;
                report.missed += missed;
                for step in &schedule.steps {
                    *report.faults.entry(step.fault.kind()).or_default() += 1;
                }
                tell(&format!(
                    "{number}: survived in {:.1} s, {starts} starts, {missed} faults missed",
                    begun.elapsed().as_secs_f64()
                ));
            }
            Err(error) => {
                let what = format!("{error:#}");
                tell(&format!("{number}: {what}\nto repeat: --seed {} --only {number}", options.seed));
                let directory = setup.keep();
                report.failure = Some(Failed { number, schedule: schedule.to_string(), what, directory });
                break;
            }
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}
