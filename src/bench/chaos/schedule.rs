//! What is done to a job: schedules of faults, drawn from a seed.

use std::fmt;
use std::time::Duration;

use super::job::{Online, World};
use crate::base::SplitMix64;

/// Steps of a schedule at most, beside the last start, which is left alone.
const STEPS_MAX: u64 = 4;
/// Worker threads at most.
const WORKERS_MAX: u64 = 3;

/// Places at which any job with a state directory can be hit.
pub const FAILPOINTS: [&str; 8] = [
    "snapshot.part",
    "checkpoint.staged",
    "checkpoint.committed",
    "delta.moved",
    "delta.committed",
    "checkpoint.published",
    "restore.claimed",
    "restore.published",
];
/// And that of a job with online values: before each part of them.
pub const ONLINE_FAILPOINTS: [&str; 1] = ["online.put"];
/// And those of a job that writes topics exactly once.
pub const TOPIC_FAILPOINTS: [&str; 4] = ["topic.staged", "topic.fencing", "topic.sent", "topic.committed"];

/// Places that a process comes to once.
pub const ONCE: [&str; 2] = ["restore.", "topic.fencing"];

/// A failpoint and the visit at which it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The failpoint.
    pub place: &'static str,
    /// The visit, from 1.
    pub visit: u64,
}

/// When a process that was stopped goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// So long after its successor was started.
    Beside(Duration),
    /// When the next start has ended.
    After,
    /// When the job has come to its end.
    Last,
}

/// One thing that goes wrong. What concerns files is done before a start, and places in them are parts of a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed at a failpoint.
    Kill(At),
    /// The process is killed after a time.
    KillAfter(Duration),
    /// The process is stopped at a failpoint, and another takes over.
    Zombie(At, Wake),
    /// The process is stopped at a failpoint, and another, which is refused while the first holds the online store, is
    /// started; the first goes on and is killed after a time.
    Rival(At, Duration),
    /// One bit of a part of a snapshot is changed.
    Flip {
        /// Which part, among those that there are.
        part: u64,
        /// Where in it.
        at: u64,
    },
    /// A part of a snapshot loses its end.
    Tear {
        /// Which part, among those that there are.
        part: u64,
        /// How much of it stays.
        at: u64,
    },
    /// The newest manifest is damaged: the job refuses to start, and goes on when the manifest is mended.
    Manifest {
        /// Where in it.
        at: u64,
        /// Whether its end is lost, rather than a bit changed.
        torn: bool,
    },
    /// Redis loses what the job wrote while no process runs.
    Lose,
    /// Redis loses what the job wrote so long after a start; the process is killed after a time besides.
    LoseBeside(Duration, Duration),
}

/// A start of the job and what goes wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Worker threads.
    pub workers: usize,
    /// What goes wrong.
    pub fault: Fault,
}

/// A job and what is done to it before it is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The job.
    pub world: World,
    /// What goes wrong, in order.
    pub steps: Vec<Step>,
    /// Worker threads of the last start.
    pub workers: usize,
}

impl Fault {
    /// The kind, as it is counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Kill(_) => "kill at a failpoint",
            Fault::KillAfter(_) => "kill at any time",
            Fault::Zombie(..) => "zombie",
            Fault::Rival(..) => "rival",
            Fault::Flip { .. } => "flipped bit",
            Fault::Tear { .. } => "torn part",
            Fault::Manifest { .. } => "damaged manifest",
            Fault::Lose | Fault::LoseBeside(..) => "lost online values",
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.place, self.visit)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(at) => write!(f, "kill {at}"),
            Fault::KillAfter(time) => write!(f, "kill after {time:?}"),
            Fault::Zombie(at, Wake::Beside(time)) => write!(f, "stop {at}, woken {time:?} after the next start"),
            Fault::Zombie(at, Wake::After) => write!(f, "stop {at}, woken after the next"),
            Fault::Zombie(at, Wake::Last) => write!(f, "stop {at}, woken at the end"),
            Fault::Rival(at, time) => write!(f, "stop {at}, a rival, woken and killed after {time:?}"),
            Fault::Flip { part, at } => write!(f, "flip part {part} at {at} of 1000"),
            Fault::Tear { part, at } => write!(f, "tear part {part} at {at} of 1000"),
            Fault::Manifest { at, torn: false } => write!(f, "flip the manifest at {at} of 1000"),
            Fault::Manifest { at, torn: true } => write!(f, "tear the manifest at {at} of 1000"),
            Fault::Lose => write!(f, "lose online values"),
            Fault::LoseBeside(time, kill) => write!(f, "lose online values after {time:?}, kill after {kill:?}"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.world)?;
        for Step { workers, fault } in &self.steps {
            write!(f, "[{workers}] {fault}; ")?;
        }
        write!(f, "[{}] to the end", self.workers)
    }
}

/// A sequence of draws that follows from a seed.
#[derive(Clone, Debug)]
pub struct Draws(SplitMix64);

impl Draws {
    /// The sequence of a seed and a number.
    pub fn new(seed: u64, number: u64) -> Draws {
        Draws(SplitMix64::new(SplitMix64::new(seed).word() ^ number.wrapping_mul(0xd134_2543_de82_ef95)))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    /// Mostly short, sometimes long.
    fn time(&mut self) -> Duration {
        let most = self.one_of(&[100, 400, 1500]);
        Duration::from_millis(10 + self.below(most))
    }
}

impl Schedule {
    /// Draws a schedule for one of `worlds`.
    pub fn draw(worlds: &[World], mut draws: Draws) -> Schedule {
        let world = draws.one_of(worlds);
        let steps = 1 + draws.below(STEPS_MAX);
        let workers = |draws: &mut Draws| 1 + draws.below(WORKERS_MAX) as usize;
        let steps = (0..steps)
            .map(|number| Step { workers: workers(&mut draws), fault: Fault::draw(world, number, &mut draws) })
            .collect();
        Schedule { world, steps, workers: workers(&mut draws) }
    }
}

impl Fault {
    fn draw(world: World, number: u64, draws: &mut Draws) -> Fault {
        let at = |draws: &mut Draws| {
            let topic = if world.topics { &TOPIC_FAILPOINTS[..] } else { &[] };
            let online = if world.online == Online::None { &[][..] } else { &ONLINE_FAILPOINTS };
            let place = draws.one_of(&[&FAILPOINTS[..], online, topic].concat());
            // A restore happens once in a process.
            let visit = if ONCE.iter().any(|once| place.starts_with(once)) { 1 } else { 1 + draws.below(8) };
            At { place, visit }
        };
        let part = |draws: &mut Draws| (draws.below(1000), draws.below(1000));
        // Before the first start there is nothing to damage or lose.
        match draws.below(if number == 0 { 14 } else { 20 }) {
            0..=6 => Fault::Kill(at(draws)),
            7..=9 => Fault::KillAfter(draws.time()),
            10..=13 if world.online == Online::Embedded => Fault::Rival(at(draws), draws.time()),
            10..=13 => {
                let wake = match draws.below(3) {
                    0 => Wake::Beside(draws.time()),
                    1 => Wake::After,
                    _ => Wake::Last,
                };
                Fault::Zombie(at(draws), wake)
            }
            14..=15 => {
                let (part, at) = part(draws);
                Fault::Flip { part, at }
            }
            16 => {
                let (part, at) = part(draws);
                Fault::Tear { part, at }
            }
            17 => Fault::Manifest { at: draws.below(1000), torn: draws.below(2) == 0 },
            _ if world.online == Online::None => Fault::Kill(at(draws)),
            18 => Fault::Lose,
            _ if world.online == Online::Embedded => Fault::Kill(at(draws)),
            _ => Fault::LoseBeside(draws.time(), draws.time()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all() {
        let worlds = World::all(true, true);
        let draw = |seed, number| Schedule::draw(&worlds, Draws::new(seed, number));
        for number in 0..50 {
            assert_eq!(draw(7, number), draw(7, number));
        }
        let texts = |seed| (0..50).map(|n| draw(seed, n).to_string()).collect::<std::collections::BTreeSet<_>>();
        assert!(texts(7).len() > 45 && texts(7).is_disjoint(&texts(8)), "{:?}", texts(7));
    }

    #[test]
    fn every_kind_of_fault_and_every_world_comes_about() {
        let worlds = World::all(true, true);
        let schedules: Vec<Schedule> = (0..300).map(|n| Schedule::draw(&worlds, Draws::new(1, n))).collect();
        let kinds: std::collections::BTreeSet<_> =
            schedules.iter().flat_map(|s| s.steps.iter().map(|step| step.fault.kind())).collect();
        assert_eq!(kinds.len(), 8, "{kinds:?}");
        assert!(worlds.iter().all(|world| schedules.iter().any(|s| s.world == *world)));
        let told: String = schedules.iter().map(Schedule::to_string).collect();
        assert!(FAILPOINTS.iter().chain(&ONLINE_FAILPOINTS).chain(&TOPIC_FAILPOINTS).all(|place| told.contains(place)));
    }
}
