//! The runner against a naive twin that does one step after the other, without being killed.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::BatchError;
use super::disk::hash_text;
use super::journal::{Change, Journal, Output, Record};
use super::runner::{Executor, Runner, Verdict};
use super::schedule::{Ended, Rule, Start, State};
use crate::base::{EventTime, SplitMix64};

/// Steps and how they go.
#[derive(Clone, Debug)]
struct World {
    rules: Vec<Rule>,
    /// So many attempts fail.
    fails: Vec<u32>,
    /// There is nothing to do.
    skips: Vec<bool>,
    threads: usize,
    parallel: usize,
}

fn worlds() -> impl Strategy<Value = World> {
    (1..9usize, any::<u64>(), 1..5usize, 1..4usize).prop_map(|(count, seed, threads, parallel)| {
        let mut random = SplitMix64::new(seed);
        // The order of the file is not that of the needs.
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, random.below(i as u64 + 1) as usize);
        }
        let mut rules = vec![Rule::default(); count];
        for (place, &step) in order.iter().enumerate() {
            let mut needs: Vec<usize> = order[..place].iter().copied().filter(|_| random.below(3) == 0).collect();
            needs.sort_unstable();
            let (retries, backoff) = (random.below(3) as u32, 1 + random.below(5_000_000) as i64);
            rules[step] = Rule { name: format!("s{step}"), needs, retries, backoff };
        }
        let fails = (0..count).map(|_| [0, 0, 0, 1, 2, 5][random.below(6) as usize]).collect();
        let skips = (0..count).map(|_| random.below(10) == 0).collect();
        World { rules, fails, skips, threads, parallel }
    })
}

fn value(world: &World, step: usize, given: &BTreeMap<usize, String>) -> String {
    let needed: Vec<&str> = world.rules[step].needs.iter().map(|n| given[n].as_str()).collect();
    hash_text(&format!("{step} {}", needed.join(" ")))
}

/// What each step comes to, and what it leaves.
fn twin(world: &World) -> Vec<(&'static str, Option<String>)> {
    let mut states: BTreeMap<usize, (&'static str, Option<String>)> = BTreeMap::new();
    while states.len() < world.rules.len() {
        for step in 0..world.rules.len() {
            let rule = &world.rules[step];
            if states.contains_key(&step) || !rule.needs.iter().all(|n| states.contains_key(n)) {
                continue;
            }
            let state =
                if rule.needs.iter().any(|n| states[n].0 != "done") || world.skips[step] && world.fails[step] == 0 {
                    ("skipped", None)
                } else if world.fails[step] > rule.retries {
                    ("failed", None)
                } else if world.skips[step] {
                    ("skipped", None)
                } else {
                    let given = states.iter().filter_map(|(s, (_, v))| Some((*s, v.clone()?))).collect();
                    ("done", Some(value(world, step, &given)))
                };
            states.insert(step, state);
        }
    }
    states.into_values().collect()
}

/// What is left on the disk when a process is killed.
#[derive(Default)]
struct Disk {
    files: BTreeMap<usize, String>,
}

struct Fake<'a> {
    world: &'a World,
    disk: &'a mut Disk,
    random: SplitMix64,
    running: Vec<(Start, String)>,
    now: EventTime,
    /// Calls until the kill.
    left: Option<u64>,
}

impl Fake<'_> {
    fn live(&mut self) -> Result<(), BatchError> {
        match &mut self.left {
            Some(0) => return Err(BatchError::Refused("killed".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }
}

impl Executor for Fake<'_> {
    fn is_sound(&self, step: usize, record: &Record, _: &BTreeMap<usize, Record>) -> bool {
        self.disk.files.get(&step) == Some(&record.outputs[0].sha256)
    }

    fn begin(&mut self, start: Start, done: &BTreeMap<usize, Record>) -> Result<(), BatchError> {
        self.live()?;
        let rule = &self.world.rules[start.step];
        assert!(rule.needs.iter().all(|n| done.contains_key(n)), "{} begins before what it needs", rule.name);
        assert!(!done.contains_key(&start.step), "{} is done and begins again", rule.name);
        assert!(self.running.len() < self.world.parallel);
        let threads: usize = self.running.iter().map(|(start, _)| start.threads).sum();
        assert!(start.threads > 0 && threads + start.threads <= self.world.threads);
        let given = rule.needs.iter().map(|n| (*n, done[n].outputs[0].sha256.clone())).collect();
        self.running.push((start, value(self.world, start.step, &given)));
        Ok(())
    }

    fn wait(&mut self, wait: Duration) -> Result<Option<(usize, Ended, Option<Record>)>, BatchError> {
        self.live()?;
        self.now += wait.as_micros() as i64;
        if self.running.is_empty() || self.random.below(3) == 0 {
            return Ok(None);
        }
        let (start, value) = self.running.remove(self.random.below(self.running.len() as u64) as usize);
        if start.attempt <= self.world.fails[start.step] {
            return Ok(Some((start.step, Ended::Failed(format!("attempt {}", start.attempt)), None)));
        }
        if self.world.skips[start.step] {
            return Ok(Some((start.step, Ended::Skipped("nothing to do".into()), None)));
        }
        self.disk.files.insert(start.step, value.clone());
        self.live()?; // the output is there, and the journal does not know
        let output = Output { name: "out".into(), file: "out".into(), bytes: 0, sha256: value };
        Ok(Some((start.step, Ended::Done, Some(Record { outputs: vec![output], ..Record::default() }))))
    }

    fn stop(&mut self) {
        self.running.clear();
    }

    fn now(&self) -> EventTime {
        self.now
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Killed again and again, with journals torn and outputs damaged, a job comes to what it would have come to.
    #[test]
    fn killed_jobs_come_to_what_they_would_have_come_to(
        world in worlds(),
        seed in any::<u64>(),
        kills in prop::collection::vec(0..40u64, 0..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut disk = Disk::default();
        let mut random = SplitMix64::new(seed);
        let mut now = 1_700_000_000_000_000;
        let mut lives: Vec<Option<u64>> = kills.into_iter().map(Some).collect();
        lives.push(None);
        let mut outcome = None;
        for left in lives {
            let mut journal = Journal::open(&path).unwrap();
            let done_before: Vec<usize> =
                (0..world.rules.len()).filter(|&s| journal.record(&world.rules[s].name).is_some()).collect();
            let limits = (world.threads, world.parallel);
            let mut fake = Fake { world: &world, disk: &mut disk, random: random.clone(), running: Vec::new(), now, left };
            let mut runner = Runner::new(world.rules.clone(), limits, false, &mut journal, &mut fake).unwrap();
            let verdict = runner.run(&mut |_| None);
            let states = runner.schedule().states().to_vec();
            now = fake.now;
            random = fake.random;
            match verdict {
                Ok(verdict) => {
                    let values: Vec<Option<String>> = (0..states.len())
                        .map(|s| (states[s] == State::Done).then(|| disk.files[&s].clone()))
                        .collect();
                    let words: Vec<&str> = states.iter().map(State::word).collect();
                    outcome = Some((verdict, words.into_iter().zip(values).collect::<Vec<_>>()));
                    break;
                }
                Err(error) => prop_assert_eq!(error.to_string(), "killed"),
            }
            if random.below(3) == 0 {
                // It was killed while it wrote.
                let mut bytes = std::fs::read(&path).unwrap_or_default();
                bytes.extend_from_slice(b"0123abcd {\"at\":");
                std::fs::write(&path, bytes).unwrap();
            }
            if random.below(3) == 0 && let Some(&step) = done_before.first() {
                disk.files.insert(step, "damaged".into());
            }
        }
        let (verdict, states) = outcome.expect("the last life has no end");
        let expected = twin(&world);
        let failed = expected.iter().any(|(word, _)| *word == "failed");
        prop_assert_eq!(&states, &expected);
        prop_assert_eq!(verdict, if failed { Verdict::Failed } else { Verdict::Done });
        let entries = Journal::read(&path).unwrap();
        for (rule, (word, _)) in world.rules.iter().zip(&expected) {
            let last = entries.iter().rev().find(|e| e.step == rule.name).map(|e| e.change.state());
            prop_assert_eq!(last.map(|s| s.word()), Some(*word));
        }
    }
}

#[test]
fn what_had_failed_is_tried_again_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let rule = |name: &str, needs: &[usize]| Rule { name: name.into(), needs: needs.to_vec(), retries: 0, backoff: 1 };
    let rules = vec![rule("a", &[]), rule("b", &[0]), rule("c", &[])];
    let mut world = World { rules, fails: vec![1, 0, 0], skips: vec![false; 3], threads: 1, parallel: 1 };
    let mut disk = Disk::default();
    let mut began = 0;
    for (again, expected) in [
        (false, ["failed", "skipped", "done"]),
        (false, ["failed", "skipped", "done"]),
        (true, ["done", "done", "done"]),
    ] {
        if again {
            world.fails[0] = 0;
        }
        let mut journal = Journal::open(&path).unwrap();
        let mut fake = Fake {
            world: &world,
            disk: &mut disk,
            random: SplitMix64::new(1),
            running: Vec::new(),
            now: 0,
            left: None,
        };
        let mut runner = Runner::new(world.rules.clone(), (1, 1), again, &mut journal, &mut fake).unwrap();
        runner.run(&mut |_| None).unwrap();
        let words: Vec<&str> = runner.schedule().states().iter().map(State::word).collect();
        assert_eq!(words, expected);
        let entries = Journal::read(&path).unwrap();
        began = entries.iter().filter(|e| matches!(e.change, Change::Running { .. })).count();
    }
    assert_eq!(began, 4, "a, c, and once more a, then b");
}
