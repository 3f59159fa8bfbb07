//! A schedule carried out.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use super::bed::{Bed, Setup};
use super::process::{Became, Process};
use super::schedule::{At, Fault, Schedule, Step, Wake};

/// What a process says that finds that another works with its state.
const TAKEN_OVER: &str = "another process has taken over";

/// How a schedule went that was survived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survived {
    /// Starts of the job.
    pub starts: u64,
    /// Faults that did not come about.
    pub missed: u64,
}

struct Zombie {
    process: Process,
    at: At,
    wake: Wake,
    /// Whether nothing was left to commit when it was stopped.
    complete: bool,
    /// The newest claim then, its own.
    claim: Option<PathBuf>,
}

struct Course<'a> {
    bed: &'a mut Bed,
    zombies: Vec<Zombie>,
    missed: u64,
    lost: bool,
}

/// Carries a schedule out in a place of this name, and compares what the job has left with what an undisturbed run leaves.
///
/// # Errors
/// The first difference, or who did not do as it should.
pub fn survive(setup: &mut Setup, schedule: &Schedule, name: &str) -> anyhow::Result<Survived> {
    setup.reference(schedule.world.topics)?;
    let mut bed = setup.bed(schedule.world, name)?;
    let mut course = Course { bed: &mut bed, zombies: Vec::new(), missed: 0, lost: false };
    for (number, step) in schedule.steps.iter().enumerate() {
        course.step(step).with_context(|| format!("step {number}, {}", step.fault))?;
    }
    let (missed, lost) = course.finish(schedule.workers)?;
    setup.check(&bed, lost)?;
    let starts = bed.starts();
    setup.remove(bed)?;
    Ok(Survived { starts, missed })
}

impl Course<'_> {
    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let Step { workers, fault } = *step;
        match fault {
            Fault::Kill(at) => {
                let mut process = self.start(&format!("{}=kill@{}", at.place, at.visit), workers)?;
                self.killed_or_through(&mut process)?;
            }
            Fault::KillAfter(time) => {
                let mut process = self.start("", workers)?;
                process.wait(time)?;
                process.signal(libc::SIGKILL);
                self.killed_or_through(&mut process)?;
            }
            Fault::Zombie(at, wake) => {
                if let Some(process) = self.stopped(at, workers)? {
                    let (complete, claim) = (self.is_complete()?, self.bed.claim()?);
                    self.wake(|zombie| zombie.wake == Wake::After)?;
                    self.zombies.push(Zombie { process, at, wake, complete, claim });
                    return Ok(());
                }
            }
            Fault::Rival(at, time) => {
                if let Some(mut process) = self.stopped(at, workers)? {
                    let mut rival = self.bed.start("", workers)?;
                    let status = rival.end()?;
                    let said = rival.said();
                    ensure!(
                        status.code() == Some(1) && said.contains("is open in another process"),
                        "a rival of the process that holds the store: {status}: {said}"
                    );
                    process.wake();
                    process.wait(time)?;
                    process.signal(libc::SIGKILL);
                    self.killed_or_through(&mut process)?;
                }
            }
            Fault::Flip { part, at } | Fault::Tear { part, at } => {
                let parts = self.bed.parts()?;
                match parts.get(part as usize * parts.len() / 1000) {
                    Some(path) => {
                        let bytes = std::fs::read(path)?;
                        std::fs::write(path, damaged(&bytes, at, matches!(fault, Fault::Tear { .. })))?;
                    }
                    None => self.missed += 1,
                }
                return Ok(());
            }
            Fault::Manifest { at, torn } => {
                match self.bed.manifest()? {
                    Some((path, _)) => {
                        let bytes = std::fs::read(&path)?;
                        std::fs::write(&path, damaged(&bytes, at, torn))?;
                        let mut process = self.bed.start("", workers)?;
                        let (status, said) = (process.end()?, process.said());
                        ensure!(
                            status.code() == Some(1) && said.contains("--allow-replay"),
                            "a start with a damaged manifest: {status}: {said}"
                        );
                        std::fs::write(&path, bytes)?;
                    }
                    None => self.missed += 1,
                }
                return Ok(());
            }
            Fault::Lose => {
                self.lost = true;
                return self.bed.forget_online();
            }
            Fault::LoseBeside(time, kill) => {
                self.lost = true;
                let mut process = self.start("", workers)?;
                process.wait(time)?;
                self.bed.forget_online()?;
                process.wait(kill)?;
                process.signal(libc::SIGKILL);
                self.killed_or_through(&mut process)?;
            }
        }
        self.wake(|zombie| zombie.wake == Wake::After)
    }

    /// The last start, which is left alone, and whoever is still stopped.
    fn finish(mut self, workers: usize) -> anyhow::Result<(u64, bool)> {
        let mut process = self.start("", workers)?;
        let status = process.end()?;
        ensure!(status.success(), "the last start failed ({status}) and said:\n{}", process.said().trim());
        self.wake(|_| true)?;
        Ok((self.missed, self.lost))
    }

    /// Starts the job, and wakes those who are to wake beside it.
    fn start(&mut self, failpoints: &str, workers: usize) -> anyhow::Result<Process> {
        let mut process = self.bed.start(failpoints, workers)?;
        let beside = self.zombies.iter().filter_map(|zombie| match zombie.wake {
            Wake::Beside(time) => Some(time),
            _ => None,
        });
        if let Some(time) = beside.max() {
            process.wait(time)?;
            self.wake(|zombie| matches!(zombie.wake, Wake::Beside(_)))?;
        }
        Ok(process)
    }

    /// A process that was stopped at a failpoint; none when it came to its end.
    fn stopped(&mut self, at: At, workers: usize) -> anyhow::Result<Option<Process>> {
        let mut process = self.start(&format!("{}=stop@{}", at.place, at.visit), workers)?;
        match process.became()? {
            Became::Stopped => Ok(Some(process)),
            Became::Ended(status) if status.success() => {
                self.missed += 1;
                Ok(None)
            }
            Became::Ended(status) => bail!("the job failed ({status}) and said:\n{}", process.said().trim()),
        }
    }

    fn killed_or_through(&mut self, process: &mut Process) -> anyhow::Result<()> {
        let status = process.end()?;
        if status.success() {
            self.missed += 1;
        } else if status.signal() != Some(libc::SIGKILL) {
            bail!("the job failed ({status}) and said:\n{}", process.said().trim());
        }
        Ok(())
    }

    fn is_complete(&self) -> anyhow::Result<bool> {
        Ok(self.bed.manifest()?.is_some_and(|(_, manifest)| manifest["last"] == true))
    }

    /// Wakes stopped processes; each must end by itself.
    fn wake(&mut self, which: impl Fn(&Zombie) -> bool) -> anyhow::Result<()> {
        for mut zombie in self.zombies.extract_if(.., |zombie| which(zombie)).collect::<Vec<_>>() {
            // Those who came after it may have died before they took over.
            let overtaken = self.bed.claim()? != zombie.claim;
            zombie.process.wake();
            let (status, said) = (zombie.process.end()?, zombie.process.said());
            // With nothing left to commit it may not notice, and one that wakes beside may be first.
            let may_succeed = zombie.complete || !overtaken || matches!(zombie.wake, Wake::Beside(_));
            let taken_over = status.code() == Some(1) && said.contains(TAKEN_OVER);
            ensure!(
                taken_over || (may_succeed && status.success()),
                "the process that was stopped at {} and woken: {status}: {said}",
                zombie.at
            );
        }
        Ok(())
    }
}

fn damaged(bytes: &[u8], at: u64, torn: bool) -> Vec<u8> {
    let place = (bytes.len() * at as usize / 1000).min(bytes.len().saturating_sub(1));
    let mut damaged = bytes.to_vec();
    if torn {
        damaged.truncate(place);
    } else if let Some(byte) = damaged.get_mut(place) {
        *byte ^= 1 << (at % 8);
    }
    damaged
}
