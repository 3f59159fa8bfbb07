//! Every interleaving of a small world: processes that claim, load, commit, publish, clean up, die and are frozen at any
//! step, over one log and one sink. The decisions are those of the real thing; what surrounds them is a few lines.
//!
//! The sink must hold every tick exactly once and in order whenever anybody looks, and all of them once some process has
//! come to its end.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};

use super::decide::{Committed, Wish, choose, garbage};
use crate::base::{Epoch, Tick};

/// Numbers beyond which a start that lost its claim tries no more.
const NUMBERS: u64 = 4;

/// How large a world may grow.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    processes: usize,
    ticks: Tick,
    /// Epochs that are damaged.
    damages: usize,
    /// Epochs that are kept.
    keep: usize,
    /// A process starts when those before it are dead.
    alone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    /// A claim, and which ticks it said were published by others.
    Claim(Option<Tick>),
    /// An epoch: its last tick, and the tick that it staged if that was not suppressed.
    Epoch { tick: Tick, staged: Option<Tick> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct World {
    log: BTreeMap<u64, Entry>,
    /// What readers see: ticks in the order in which they came.
    sink: Vec<Tick>,
    /// The newest epoch that the sink took.
    sink_epoch: Option<Epoch>,
    /// Epochs whose state cannot be loaded.
    damaged: BTreeSet<Epoch>,
    processes: Vec<Process>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Process {
    Begin,
    /// It has read the log and knows what it wants.
    Chosen {
        number: u64,
        load: Option<Tick>,
        suppress: Option<Tick>,
        publish: Vec<(Epoch, Option<Tick>)>,
    },
    /// It has created its claim and not looked behind it.
    Claimed {
        number: u64,
        load: Option<Tick>,
        suppress: Option<Tick>,
        publish: Vec<(Epoch, Option<Tick>)>,
    },
    CatchingUp {
        next: u64,
        tick: Option<Tick>,
        suppress: Option<Tick>,
        publish: Vec<(Epoch, Option<Tick>)>,
    },
    /// The next tick's rows are staged.
    Staged {
        next: u64,
        tick: Tick,
        suppress: Option<Tick>,
    },
    /// The manifest is created, and not looked behind.
    Created {
        number: u64,
        tick: Tick,
        suppress: Option<Tick>,
    },
    Committed {
        number: u64,
        tick: Tick,
        suppress: Option<Tick>,
    },
    Published {
        number: u64,
        tick: Tick,
        suppress: Option<Tick>,
    },
    Ended,
    Dead,
}

impl World {
    /// Whether an entry was created, as the store does it.
    fn create(&mut self, number: u64, entry: Entry) -> bool {
        let free = !self.log.contains_key(&number);
        if free {
            self.log.insert(number, entry);
        }
        free
    }

    /// Whether nobody has come after.
    fn is_last(&self, number: u64) -> bool {
        self.log.keys().all(|later| *later <= number)
    }

    fn publish(&mut self, epoch: Epoch, staged: Option<Tick>) {
        if self.sink_epoch.is_none_or(|newest| newest < epoch) {
            self.sink.extend(staged);
            // A sink remembers epochs that had rows.
            if staged.is_some() {
                self.sink_epoch = Some(epoch);
            }
        }
    }

    fn choose(&self, ticks: Tick) -> Option<Process> {
        let committed: BTreeMap<Epoch, Committed> = self
            .log
            .iter()
            .filter_map(|(number, entry)| match entry {
                Entry::Claim(_) => None,
                Entry::Epoch { tick, .. } => {
                    Some((*number, Committed { tick: Some(*tick), loadable: !self.damaged.contains(number) }))
                }
            })
            .collect();
        let claimed = |entry: &Entry| if let Entry::Claim(suppress) = entry { *suppress } else { None };
        let published = self.log.values().filter_map(claimed).max();
        // The tick log keeps all ticks here; what was never cut is cut alike.
        let choice = choose(&committed, &(0..ticks), Wish { published, ..Wish::default() }).ok()?;
        let tick = |epoch: &Epoch| match self.log.get(epoch) {
            Some(Entry::Epoch { tick, .. }) => Some(*tick),
            _ => None,
        };
        let staged = |epoch: &Epoch| match self.log.get(epoch) {
            Some(Entry::Epoch { staged, .. }) => Some((*epoch, *staged)),
            _ => None,
        };
        Some(Process::Chosen {
            number: self.log.last_key_value().map_or(0, |(last, _)| last + 1),
            load: choice.load.as_ref().and_then(tick),
            suppress: choice.suppress_through,
            publish: choice.publish.iter().filter_map(staged).collect(),
        })
    }

    /// The world after a process has done its next step.
    fn step(&self, index: usize, bounds: Bounds) -> Option<World> {
        let ticks = bounds.ticks;
        let mut world = self.clone();
        let next = match self.processes[index].clone() {
            Process::Begin => self.choose(ticks)?,
            Process::Chosen { number, load, suppress, publish } => match world.create(number, Entry::Claim(suppress)) {
                true => Process::Claimed { number, load, suppress, publish },
                false => Process::Begin,
            },
            Process::Claimed { number, load, suppress, publish } => match world.is_last(number) {
                true => Process::CatchingUp { next: number + 1, tick: load, suppress, publish },
                // It may try again, but the world ends somewhere.
                false if number > NUMBERS => Process::Dead,
                false => Process::Begin,
            },
            Process::CatchingUp { next, tick, suppress, mut publish } => match publish.is_empty() {
                false => {
                    let (epoch, staged) = publish.remove(0);
                    world.publish(epoch, staged);
                    Process::CatchingUp { next, tick, suppress, publish }
                }
                true => after(next, tick, suppress, ticks),
            },
            Process::Staged { next, tick, suppress } => {
                let staged = Some(tick).filter(|tick| suppress.is_none_or(|through| *tick > through));
                match world.create(next, Entry::Epoch { tick, staged }) {
                    true => Process::Created { number: next, tick, suppress },
                    false => Process::Dead,
                }
            }
            Process::Created { number, tick, suppress } => match world.is_last(number) {
                true => Process::Committed { number, tick, suppress },
                false => Process::Dead,
            },
            Process::Committed { number, tick, suppress } => {
                let Some(Entry::Epoch { staged, .. }) = self.log.get(&number) else { return None };
                world.publish(number, *staged);
                Process::Published { number, tick, suppress }
            }
            Process::Published { number, tick, suppress } => {
                let claims: BTreeSet<u64> = entries(&self.log, Entry::is_claim);
                let epochs: BTreeSet<u64> = entries(&self.log, |entry| !entry.is_claim());
                // A process knows the log up to its own entry.
                let known = |set: BTreeSet<u64>| set.into_iter().filter(|n| *n <= number).collect::<BTreeSet<_>>();
                for old in garbage(&known(claims), &known(epochs), bounds.keep, number) {
                    world.log.remove(&old);
                }
                after(number + 1, Some(tick), suppress, ticks)
            }
            Process::Ended | Process::Dead => return None,
        };
        world.processes[index] = next;
        Some(world)
    }

    fn successors(&self, bounds: Bounds) -> Vec<World> {
        let mut next: Vec<World> = (0..self.processes.len()).filter_map(|index| self.step(index, bounds)).collect();
        for (index, process) in self.processes.iter().enumerate() {
            if !matches!(process, Process::Ended | Process::Dead) {
                let mut world = self.clone();
                world.processes[index] = Process::Dead;
                next.push(world);
            }
        }
        let gone = self.processes.iter().all(|process| matches!(process, Process::Dead | Process::Ended));
        if self.processes.len() < bounds.processes && (gone || !bounds.alone) {
            let mut world = self.clone();
            world.processes.push(Process::Begin);
            next.push(world);
        }
        // The newest state is damaged, or what was loaded in its place.
        let loadable = |(number, entry): &(&u64, &Entry)| !entry.is_claim() && !self.damaged.contains(number);
        if let Some((newest, _)) = self.log.iter().rev().find(loadable).filter(|_| self.damaged.len() < bounds.damages)
        {
            let mut world = self.clone();
            world.damaged.insert(*newest);
            next.push(world);
        }
        next
    }
}

impl Entry {
    fn is_claim(&self) -> bool {
        matches!(self, Entry::Claim(_))
    }
}

fn entries(log: &BTreeMap<u64, Entry>, wanted: impl Fn(&Entry) -> bool) -> BTreeSet<u64> {
    log.iter().filter(|(_, entry)| wanted(entry)).map(|(number, _)| *number).collect()
}

/// A process that has state up to `tick` goes on.
fn after(next: u64, tick: Option<Tick>, suppress: Option<Tick>, ticks: Tick) -> Process {
    match tick.map_or(0, |tick| tick + 1) {
        tick if tick == ticks => Process::Ended,
        tick => Process::Staged { next, tick, suppress },
    }
}

/// Explores all worlds within bounds; tells how many there were, and in how many a process had ended.
fn explore(bounds: Bounds) -> (usize, usize) {
    let mut seen: HashSet<(u64, u64)> = HashSet::new();
    let mut open = vec![World::default()];
    let mut ended = 0;
    while let Some(world) = open.pop() {
        // Worlds are many: two hashes stand for each.
        if !seen.insert((fingerprint(&world, 0), fingerprint(&world, 1))) {
            continue;
        }
        let expected: Vec<Tick> = (0..world.sink.len() as Tick).collect();
        assert_eq!(world.sink, expected, "{world:#?}");
        if world.processes.contains(&Process::Ended) {
            ended += 1;
            assert_eq!(world.sink.len() as Tick, bounds.ticks, "{world:#?}");
        }
        open.extend(world.successors(bounds));
    }
    (seen.len(), ended)
}

fn fingerprint(world: &World, seed: u64) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    seed.hash(&mut hasher);
    world.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn every_tick_is_published_once_whatever_happens_when() {
    let bounds = |processes, ticks, damages| Bounds { processes, ticks, damages, keep: 1, alone: false };
    // Long lives of two, short ones of three, two whose newest state is damaged at some moment; and many that follow one
    // another, past damage again and again.
    for bounds in [
        bounds(2, 3, 0),
        bounds(2, 2, 1),
        bounds(3, 1, 0),
        Bounds { keep: 1, alone: true, ..bounds(4, 3, 2) },
        Bounds { keep: 2, alone: true, ..bounds(4, 3, 2) },
    ] {
        let (worlds, ended) = explore(bounds);
        println!("{bounds:?}: {worlds} worlds, {ended} of them at an end");
        assert!(worlds > 1_000 && ended > 100, "{worlds} worlds, {ended} of them at an end");
    }
}
