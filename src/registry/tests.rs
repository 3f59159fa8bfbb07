use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::base::SplitMix64;

fn open(dir: &Path) -> Registry {
    Registry::open(&dir.display().to_string()).expect("it opens")
}

fn signature() -> Signature {
    let field = |name: &str, dims| Field { name: name.into(), element: "float".into(), dims: Some(dims) };
    Signature { inputs: vec![field("X", vec![3])], outputs: vec![field("p", vec![])] }
}

fn registration(name: &str, bytes: &[u8], by: By) -> Registration {
    Registration::new(name, Content::Bytes(bytes.to_vec()), signature(), by)
}

fn by(why: &str) -> By {
    By::new("ada", why)
}

fn object(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}

#[test]
fn a_life_of_a_model() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = open(dir.path());
    let error = registry.version("fraud", &Selector::Latest).expect_err("it is empty").to_string();
    assert!(error.contains("has no model `fraud`") && error.contains("it has none"), "{error}");

    let mut first = registration("fraud", b"model one", by("the first"));
    first.alias = Some(CHAMPION.into());
    first.metrics = BTreeMap::from([("auc".into(), 0.1 + 0.2)]);
    first.params = BTreeMap::from([("trees".into(), "100".into())]);
    first.data = BTreeMap::from([("predictions/fraud".into(), 17)]);
    first.files = BTreeMap::from([("card.md".into(), Content::Bytes(b"# fraud".to_vec()))]);
    assert_eq!(registry.register(first).expect("it is registered"), 1);
    assert_eq!(registry.register(registration("fraud", b"model two", by("better"))).expect("it is registered"), 2);

    // Somebody else sees the same, and what they do is seen here.
    let other = open(dir.path());
    let champion = other.version("fraud", &Selector::Alias(CHAMPION.into())).expect("there is one");
    assert_eq!((champion.number, champion.metrics["auc"].to_bits()), (1, (0.1f64 + 0.2).to_bits()));
    assert_eq!((champion.data["predictions/fraud"], champion.who.as_str()), (17, "ada"));
    assert_eq!(champion.signature, signature());
    assert_eq!(
        std::fs::read(other.artifact(&champion.artifact.hash).expect("it is there")).expect("bytes"),
        b"model one"
    );
    assert_eq!(
        std::fs::read(other.artifact(&champion.files["card.md"].hash).expect("a card")).expect("bytes"),
        b"# fraud"
    );
    assert_eq!(other.version("fraud", &Selector::Latest).expect("the newest").number, 2);

    let promote = by("auc 0.87").key("rollout 5, decision 3").numbers(json!({"lift": -0.01, "rows": [10, 12]}));
    let moved = other.set_alias("fraud", CHAMPION, 2, Previous::At(1), &promote).expect("it moves");
    assert_eq!((moved.from, moved.to), (Some(1), 2));
    // Asked for once more it is not done once more, whatever has happened since.
    assert_eq!(registry.set_alias("fraud", CHAMPION, 2, Previous::At(1), &promote).expect("it was done"), moved);
    let error = registry.set_alias("fraud", CHAMPION, 1, Previous::Any, &promote).expect_err("it is another deed");
    assert!(matches!(&error, RegistryError::KeyUsed { entry: 3, .. }), "{error}");
    let error = registry.set_alias("fraud", CHAMPION, 1, Previous::At(1), &by("late")).expect_err("it is at 2");
    assert!(
        error.is_conflict() && error.to_string().contains("is at version 2, and was expected to be at version 1"),
        "{error}"
    );
    let error =
        registry.set_alias("fraud", "stable", 3, Previous::Any, &by("")).expect_err("there is none").to_string();
    assert_eq!(error, "model `fraud` has no version 3; its newest is 2");
    let error =
        registry.set_alias("fruad", "stable", 1, Previous::Any, &by("")).expect_err("there is none").to_string();
    assert!(error.contains("did you mean `fraud`?"), "{error}");

    let back = registry.rollback("fraud", Previous::At(2), &by("worse")).expect("it goes back");
    assert_eq!((back.from, back.to), (Some(2), 1));
    let error = registry.rollback("fraud", Previous::Any, &by("worse")).expect_err("1 was the first");
    assert!(matches!(error, RegistryError::NoPrevious { .. }), "{error}");
    registry.note("fraud", Some(2), "decision", &by("no label").numbers(json!({"rows": 0}))).expect("it is noted");
    registry.set_alias("fraud", CHALLENGER, 2, Previous::Nowhere, &by("again")).expect("it is given");
    registry.remove_alias("fraud", CHALLENGER, Previous::At(2), &by("enough")).expect("it is taken");
    let error = registry.remove_alias("fraud", CHALLENGER, Previous::Any, &by("")).expect_err("it is gone").to_string();
    assert_eq!(error, "model `fraud` has no alias `challenger`; it has champion (version 1)");

    let told: Vec<String> = other.history("fraud").expect("it is read").iter().map(|e| e.event.to_string()).collect();
    assert_eq!(
        told,
        [
            "registered version 1, champion to 1",
            "registered version 2",
            "champion from 1 to 2",
            "champion from 2 to 1 (back)",
            "decision on version 2",
            "challenger to 2",
            "challenger taken from 2"
        ]
    );
    assert_eq!(other.history("fraud").expect("it is read")[2].numbers, json!({"lift": -0.01, "rows": [10, 12]}));
    let mut follower = other.follow(4);
    assert_eq!(follower.poll().expect("they are read").len(), 3);
    assert!(follower.poll().expect("nothing is new").is_empty());
    registry.note("fraud", None, "note", &by("hello")).expect("it is noted");
    let new = follower.poll().expect("one is new");
    assert_eq!((new.len(), new[0].why.as_str(), follower.since()), (1, "hello", 8));
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = open(dir.path());
    let refused = |change: &dyn Fn(&mut Registration)| {
        let mut bad = registration("fraud", b"model", by(""));
        change(&mut bad);
        registry.register(bad).expect_err("it is refused").to_string()
    };
    assert!(refused(&|r| r.name = "fra@ud".into()).contains("no name of models"));
    assert!(refused(&|r| r.alias = Some("latest".into())).contains("cannot be an alias"));
    assert!(refused(&|r| r.metrics = BTreeMap::from([("auc".into(), f64::NAN)])).contains("metric `auc` is NaN"));
    assert!(refused(&|r| r.model = Content::File("/nowhere/m.onnx".into())).contains("cannot read /nowhere/m.onnx"));
    assert!(refused(&|r| r.by.key = Some(String::new())).contains("a key has"));
    assert!(refused(&|r| r.by.why = "x".repeat(entry::BYTES_MAX)).contains("bytes long"));
    assert_eq!(registry.newest().expect("it is read"), 0, "nothing was done");
    assert!(registry.artifact("../../etc/passwd").expect_err("it is no hash").to_string().contains("no hash"));
    let error = Registry::existing(&dir.path().join("none").display().to_string()).expect_err("it is absent");
    assert!(error.to_string().contains("there is no registry of models in"), "{error}");
    assert!(!dir.path().join("none").exists(), "nothing was made");
    let error = Registry::open("s4://bucket/x").expect_err("nobody knows s4").to_string();
    assert!(error.contains("`s4://bucket/x` cannot be a registry of models"), "{error}");
}

/// What may be done; numbers are taken modulo what there is and one more.
#[derive(Clone, Debug)]
enum Op {
    Register { model: usize, alias: Option<usize> },
    Alias { model: usize, alias: usize, to: u32, expected: u32 },
    Remove { model: usize, alias: usize, expected: u32 },
    Back { model: usize, expected: u32 },
    Note { model: usize, version: u32 },
}

const MODELS: [&str; 2] = ["fraud", "delay"];
const ALIASES: [&str; 3] = [CHAMPION, CHALLENGER, "stable"];

fn previous(expected: u32) -> Previous {
    match expected {
        0 => Previous::Any,
        1 => Previous::Nowhere,
        at => Previous::At(at - 1),
    }
}

/// What came of an operation: the alias' old and new version or the version's number; or which error.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Done(Option<u32>, u32),
    Refused(&'static str),
}

fn outcome<T>(result: Result<T, RegistryError>, done: impl FnOnce(T) -> Outcome) -> Outcome {
    match result {
        Ok(value) => done(value),
        Err(error) => Outcome::Refused(match error {
            RegistryError::NoModel { .. } => "no model",
            RegistryError::NoVersion { .. } => "no version",
            RegistryError::NoAlias { .. } => "no alias",
            RegistryError::NoPrevious { .. } => "no previous",
            RegistryError::Conflict { .. } => "conflict",
            other => panic!("{other}"),
        }),
    }
}

fn act(registry: &Registry, op: &Op, key: &str) -> Outcome {
    let by = by(&format!("{op:?}")).key(key);
    let moved = |moved: Moved| Outcome::Done(moved.from, moved.to);
    match *op {
        Op::Register { model, alias } => {
            let mut new = registration(MODELS[model], key.as_bytes(), by);
            new.alias = alias.map(|alias| ALIASES[alias].to_owned());
            outcome(registry.register(new), |number| Outcome::Done(None, number))
        }
        Op::Alias { model, alias, to, expected } => {
            outcome(registry.set_alias(MODELS[model], ALIASES[alias], to, previous(expected), &by), moved)
        }
        Op::Remove { model, alias, expected } => {
            let removed = registry.remove_alias(MODELS[model], ALIASES[alias], previous(expected), &by);
            outcome(removed, |_| Outcome::Done(None, 0))
        }
        Op::Back { model, expected } => outcome(registry.rollback(MODELS[model], previous(expected), &by), moved),
        Op::Note { model, version } => {
            let noted = registry.note(MODELS[model], (version > 0).then_some(version), "note", &by);
            outcome(noted, |_| Outcome::Done(None, 0))
        }
    }
}

/// The same with maps, and nothing that is on disk.
#[derive(Clone, Debug, Default, PartialEq)]
struct Twin {
    versions: BTreeMap<usize, u32>,
    /// All that an alias was at, the last where it is.
    aliases: BTreeMap<(usize, usize), Vec<u32>>,
}

impl Twin {
    fn act(&mut self, op: &Op) -> Outcome {
        let refused = |why| Outcome::Refused(why);
        if let Op::Register { model, alias } = *op {
            let number = self.versions.get(&model).copied().unwrap_or(0) + 1;
            self.versions.insert(model, number);
            alias.iter().for_each(|alias| self.point(model, *alias, number));
            return Outcome::Done(None, number);
        }
        let (Op::Alias { model, .. } | Op::Remove { model, .. } | Op::Back { model, .. } | Op::Note { model, .. }) =
            *op
        else {
            return refused("?");
        };
        let Some(newest) = self.versions.get(&model).copied() else { return refused("no model") };
        let is = |version: u32| (1..=newest).contains(&version);
        let at = |alias: usize| self.aliases.get(&(model, alias)).and_then(|at| at.last().copied());
        let believed = |alias: usize, expected: u32| match previous(expected) {
            Previous::Any => true,
            Previous::Nowhere => at(alias).is_none(),
            Previous::At(version) => at(alias) == Some(version),
        };
        match *op {
            Op::Alias { to, .. } if !is(to) => refused("no version"),
            Op::Alias { alias, expected, .. } | Op::Remove { alias, expected, .. } if !believed(alias, expected) => {
                refused("conflict")
            }
            Op::Alias { alias, to, .. } => {
                let from = at(alias);
                self.point(model, alias, to);
                Outcome::Done(from, to)
            }
            Op::Remove { alias, .. } => match self.aliases.remove(&(model, alias)) {
                Some(_) => Outcome::Done(None, 0),
                None => refused("no alias"),
            },
            Op::Back { expected, .. } if !believed(0, expected) => refused("conflict"),
            Op::Back { .. } => match self.aliases.get_mut(&(model, 0)).filter(|at| at.len() > 1) {
                Some(at) => {
                    let from = at.pop();
                    Outcome::Done(from, at.last().copied().unwrap_or_default())
                }
                None => refused("no previous"),
            },
            Op::Note { version, .. } if version > 0 && !is(version) => refused("no version"),
            _ => Outcome::Done(None, 0),
        }
    }

    fn point(&mut self, model: usize, alias: usize, to: u32) {
        let at = self.aliases.entry((model, alias)).or_default();
        if at.last() != Some(&to) {
            at.push(to);
        }
    }

    /// What the registry should say now.
    fn compare(&self, registry: &Registry) {
        let models = registry.models().expect("they are read");
        let versions: BTreeMap<usize, u32> = models
            .iter()
            .map(|info| {
                let numbers: Vec<u32> = info.versions.iter().map(|version| version.number).collect();
                assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>());
                (MODELS.iter().position(|name| *name == info.name).expect("a name"), numbers.len() as u32)
            })
            .collect();
        assert_eq!(versions, self.versions);
        for (model, name) in MODELS.iter().enumerate() {
            for (alias, text) in ALIASES.iter().enumerate() {
                let at = registry.version(name, &Selector::Alias((*text).into())).ok().map(|version| version.number);
                assert_eq!(at, self.aliases.get(&(model, alias)).and_then(|at| at.last().copied()), "{name}@{text}");
            }
        }
    }
}

fn ops() -> impl Strategy<Value = Op> {
    let (model, alias, expected) = (0..2usize, 0..3usize, 0..5u32);
    prop_oneof![
        (model.clone(), proptest::option::of(alias.clone())).prop_map(|(model, alias)| Op::Register { model, alias }),
        (model.clone(), alias.clone(), 1..4u32, expected.clone()).prop_map(|(model, alias, to, expected)| Op::Alias {
            model,
            alias,
            to,
            expected
        }),
        (model.clone(), alias, expected.clone()).prop_map(|(model, alias, expected)| Op::Remove {
            model,
            alias,
            expected
        }),
        (model.clone(), expected).prop_map(|(model, expected)| Op::Back { model, expected }),
        (model, 0..4u32).prop_map(|(model, version)| Op::Note { model, version }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Two handles take turns as the test says; each deed is sometimes asked for again; handles are opened anew.
    #[test]
    fn it_is_what_maps_say(all in proptest::collection::vec((ops(), 0..8u8), 0..90)) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut handles = [open(dir.path()), open(dir.path())];
        let mut twin = Twin::default();
        for (i, (op, how)) in all.iter().enumerate() {
            let (handle, key) = (usize::from(how % 2), format!("deed {i}"));
            let told = act(&handles[handle], op, &key);
            prop_assert_eq!(&told, &twin.act(op), "{:?}", op);
            if matches!(told, Outcome::Done(..)) && how / 2 == 1 {
                prop_assert_eq!(&act(&handles[1 - handle], op, &key), &told, "once more: {:?}", op);
            }
            if how / 2 == 2 {
                handles[handle] = open(dir.path());
            }
        }
        handles.iter().for_each(|handle| twin.compare(handle));
        twin.compare(&open(dir.path()));
    }
}

/// What one writer did: its key, the operation and what came of it.
type Done = (String, Op, Outcome);

/// What a writer does, which follows from its seed.
fn deeds(writer: &str, seed: u64) -> impl Iterator<Item = (String, Op)> + use<> {
    let (mut random, writer) = (SplitMix64::new(seed), writer.to_owned());
    (0..).map(move |i| {
        let mut below = |end: u64| random.below(end);
        let (model, alias) = (below(2) as usize, below(3) as usize);
        let op = match below(5) {
            0 => Op::Register { model, alias: (below(2) == 0).then_some(alias) },
            1 | 2 => Op::Alias { model, alias, to: 1 + below(4) as u32, expected: below(5) as u32 },
            3 => Op::Remove { model, alias, expected: below(5) as u32 },
            _ => Op::Back { model, expected: below(5) as u32 },
        };
        (format!("{writer}/{i}"), op)
    })
}

fn write(registry: &Registry, writer: &str, seed: u64, count: usize) -> impl Iterator<Item = Done> {
    deeds(writer, seed).take(count).map(move |(key, op)| {
        let told = act(registry, &op, &key);
        (key, op, told)
    })
}

/// The history, played to the twin in its order, must give each writer what it was told, and nothing else may be there.
fn judge(dir: &Path, done: &[Done]) -> usize {
    let registry = open(dir);
    let entries = registry.entries_since(0).expect("they are read");
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=entries.len() as u64).collect::<Vec<_>>());
    let by_key: BTreeMap<&str, (&Op, &Outcome)> =
        done.iter().map(|(key, op, told)| (key.as_str(), (op, told))).collect();
    let mut twin = Twin::default();
    let mut seen = std::collections::BTreeSet::new();
    for entry in &entries {
        let key = entry.key.as_deref().expect("every deed has a key");
        let (op, told) = by_key.get(key).expect("somebody did it");
        assert!(seen.insert(key), "{key} is there twice");
        assert_eq!(twin.act(op), **told, "{key}: {op:?}");
    }
    let kept = done.iter().filter(|(_, _, told)| matches!(told, Outcome::Done(..))).count();
    assert_eq!(kept, entries.len(), "what was told to be done is there");
    twin.compare(&registry);
    kept
}

#[test]
fn writers_on_threads_lose_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let seed = crate::base::any_seed();
    println!("seed {seed}");
    let done: Vec<Done> = std::thread::scope(|scope| {
        let start = |i: u64| {
            let path = dir.path();
            scope.spawn(move || write(&open(path), &format!("thread {i}"), seed + i, 60).collect::<Vec<_>>())
        };
        let threads: Vec<_> = (0..4).map(start).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect()
    });
    assert!(judge(dir.path(), &done) > 60);
}

/// Tells a child what to do: the directory, its name, a seed and how much.
const CHILD: &str = "TIDEMILL_REGISTRY_TEST_CHILD";

/// Not a test of its own: what the children of other tests run.
#[test]
fn child() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let [dir, writer, seed, count] = text.split('|').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let registry = open(Path::new(dir));
    if count == "one" {
        let number = registry.register(registration("fraud", b"the model", by("").key(writer)));
        println!("version {}", number.expect("it is registered"));
        return;
    }
    for (key, _, told) in write(&registry, writer, seed.parse().expect("a seed"), count.parse().expect("a count")) {
        println!("told|{key}|{told:?}");
    }
}

fn spawn(dir: &Path, writer: &str, seed: u64, count: &str, failpoints: &str) -> std::process::Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "registry::tests::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{}|{writer}|{seed}|{count}", dir.display()))
        .env(crate::base::FAILPOINTS, failpoints)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

fn output(child: std::process::Child) -> (bool, String) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn writers_in_processes_lose_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let seed = crate::base::any_seed();
    println!("seed {seed}");
    let children: Vec<_> = (0..2).map(|i| spawn(dir.path(), &format!("process {i}"), seed + i, "80", "")).collect();
    let told: Vec<String> = children
        .into_iter()
        .flat_map(|child| {
            let (fine, text) = output(child);
            assert!(fine, "{text}");
            let lines: Vec<String> = text.lines().filter_map(|l| Some(l.split_once("told|")?.1.to_owned())).collect();
            lines
        })
        .collect();
    assert_eq!(told.len(), 160);
    let expected = (0..2).flat_map(|i| deeds(&format!("process {i}"), seed + i).take(80)).collect();
    let keys = replay(dir.path(), &expected, &told);
    assert_eq!(told.iter().filter(|line| line.contains("|Done")).count(), keys.len());
    let hands: Vec<bool> = keys.iter().map(|key| key.starts_with("process 0")).collect();
    assert!(hands.windows(2).any(|pair| pair[0] != pair[1]), "both wrote");
}

/// Plays the history to the twin: what processes were told must be what the twin says. Returns the keys in their order.
fn replay(dir: &Path, expected: &BTreeMap<String, Op>, told: &[String]) -> Vec<String> {
    let told: BTreeMap<&str, &str> = told.iter().filter_map(|line| line.split_once('|')).collect();
    let mut twin = Twin::default();
    let mut keys = Vec::new();
    for entry in open(dir).entries_since(0).expect("they are read") {
        let key = entry.key.expect("every deed has a key");
        let was = twin.act(&expected[&key]);
        // Who was killed may not have been told of its last deed.
        if let Some(told) = told.get(key.as_str()) {
            assert_eq!(*told, format!("{was:?}"), "{key}");
        }
        assert!(!keys.contains(&key), "{key} is there twice");
        keys.push(key);
    }
    for (key, _) in told.iter().filter(|(_, told)| told.starts_with("Done")) {
        assert!(keys.iter().any(|there| there == key), "{key} was told to be done and is not there");
    }
    twin.compare(&open(dir));
    keys
}

#[test]
fn processes_that_are_killed_anywhere_leave_what_they_were_told() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().expect("a directory");
    let seed = crate::base::any_seed();
    println!("seed {seed}");
    let mut random = SplitMix64::new(seed);
    let (mut told, mut expected) = (Vec::new(), BTreeMap::new());
    for i in 0..6 {
        let writer = format!("life {i}");
        expected.extend(deeds(&writer, seed + i).take(10_000));
        let mut child = spawn(dir.path(), &writer, seed + i, "10000", "");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // Not before it has begun, however slow the machine is.
        let mut heard: Vec<String> = lines.by_ref().map_while(Result::ok).filter_map(of_child).take(1).collect();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).filter_map(of_child).collect::<Vec<_>>());
        std::thread::sleep(std::time::Duration::from_millis(20 + random.below(150)));
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
        heard.extend(reader.join().expect("it ends"));
        // The last line may have been cut off.
        heard.pop();
        told.extend(heard);
    }
    let keys = replay(dir.path(), &expected, &told);
    let done = told.iter().filter(|line| line.contains("|Done")).count();
    assert!(keys.len() >= done && keys.len() <= done + 12, "{done} were told, {} are there", keys.len());
}

/// What a child says it was told.
fn of_child(line: String) -> Option<String> {
    line.split_once("told|").map(|(_, told)| told.to_owned())
}

#[test]
fn a_byte_that_is_not_what_was_written_is_seen() {
    let version = Version {
        number: 7,
        artifact: Artifact { hash: "ab".repeat(32), bytes: 9 },
        signature: signature(),
        metrics: BTreeMap::from([("auc".into(), 0.1 + 0.2), ("loss".into(), 1e-300)]),
        params: BTreeMap::from([("what \"ever\"".into(), "ä\n".into())]),
        data: BTreeMap::from([("labels/fraud".into(), u64::MAX)]),
        tags: BTreeMap::new(),
        files: BTreeMap::new(),
        who: "ada".into(),
        why: String::new(),
        at: -1,
    };
    let event = Event::Registered { version: Box::new(version), alias: Some(CHAMPION.into()), from: Some(3) };
    let written = Entry::new(12, "fraud", event, &by("because").key("k").numbers(json!({"lift": [0.1, null, -3]})));
    let bytes = written.encode().expect("it is JSON");
    assert_eq!(Entry::decode(12, &bytes), Ok(written.clone()));
    assert!(Entry::decode(13, &bytes).is_err_and(|damage| damage.what.contains("is that of number 12")));
    let mut unseen = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            // Space between the values is nobody's.
            if let Ok(read) = Entry::decode(12, &damaged) {
                assert_eq!(read, written);
                unseen += 1;
            }
        }
        assert!(Entry::decode(12, &bytes[..at]).is_err());
    }
    assert!(unseen < bytes.len(), "{unseen} of {}", bytes.len() * 8);
}

#[test]
fn a_writer_that_is_killed_leaves_all_or_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (fine, _) = output(spawn(dir.path(), "register 1", 0, "one", "registry.artifact=kill"));
    assert!(!fine, "it was killed");
    let registry = open(dir.path());
    assert_eq!(registry.newest().expect("it is read"), 0, "an artifact without an entry is no version");
    let lying: Vec<_> = std::fs::read_dir(object(dir.path(), "artifacts")).expect("it is there").collect();
    assert_eq!(lying.len(), 1);

    let (fine, _) = output(spawn(dir.path(), "register 1", 0, "one", "registry.entry=kill"));
    assert!(!fine, "it was killed");
    let version = registry.version("fraud", &Selector::Latest).expect("the entry makes it one");
    assert_eq!(
        std::fs::read(registry.artifact(&version.artifact.hash).expect("it is there")).expect("bytes"),
        b"the model"
    );
    // The one that was killed does not know that it has succeeded, and tries again.
    let (fine, text) = output(spawn(dir.path(), "register 1", 0, "one", ""));
    assert!(fine && text.contains("version 1"), "{text}");
    assert_eq!(registry.newest().expect("it is read"), 1);
}

#[test]
fn damaged_entries_are_named_and_can_be_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = open(dir.path());
    for bytes in [b"one", b"two"] {
        let mut new = registration("fraud", bytes, by(""));
        new.alias = Some(CHAMPION.into());
        registry.register(new).expect("it is registered");
    }
    let file = object(dir.path(), &entry::name(2));
    let whole = std::fs::read_to_string(&file).expect("it is there");
    let damages: [&dyn Fn(&str) -> String; 4] = [
        &|text| text.replace("champion", "campioni"),
        &|text| text[..text.len() / 2].to_owned(),
        &|_| String::new(),
        &|text| text.replace("\"format\": 1", "\"format\": 9"),
    ];
    for damage in damages {
        let damaged = damage(&whole);
        assert_ne!(damaged, whole);
        std::fs::write(&file, &damaged).expect("it is written");
        let registry = open(dir.path());
        let champion = Selector::Alias(CHAMPION.into());
        for error in [
            registry.version("fraud", &champion).map(|_| ()).expect_err("nobody knows the champion"),
            registry.models().map(|_| ()).expect_err("nobody knows"),
            registry.register(registration("fraud", b"three", by(""))).map(|_| ()).expect_err("nobody knows"),
            registry.rollback("fraud", Previous::Any, &by("")).map(|_| ()).expect_err("nobody knows"),
            registry.entries_since(0).map(|_| ()).expect_err("one is not told"),
        ] {
            let error = error.to_string();
            assert!(error.contains(&entry::name(2)) && error.contains("models mend --entry 2"), "{error}");
        }
        assert_eq!(registry.damaged().expect("they are listed").len(), 1);
        assert!(registry.entries_since(2).expect("what comes behind it is told").is_empty());
    }
    // What a later version of the program wrote is no damage, and is not to be given up.
    let later: [(&str, serde_json::Value); 2] = [
        ("is of format 9, and this program reads 1", json!({"format": 9, "crc32": 0, "entry": {}})),
        (
            "is not understood by this program",
            json!({"format": 1, "crc32": 0, "entry": {"number": 2, "event": {"sung": {}}}}),
        ),
    ];
    for (what, mut written) in later {
        let format = written["format"].as_u64().expect("a number") as u32;
        written["crc32"] = entry::checksum(format, &written["entry"]).expect("it is JSON").into();
        std::fs::write(&file, written.to_string()).expect("it is written");
        let registry = open(dir.path());
        for error in [
            registry.models().map(|_| ()).expect_err("nobody knows"),
            registry.pass_over(2, &by("")).map(|_| ()).expect_err("it is whole"),
        ] {
            let error = error.to_string();
            assert!(
                error.contains(what) && error.contains("a later version of tidemill") && !error.contains("mend"),
                "{error}"
            );
        }
    }
    // Put back, all is well.
    std::fs::write(&file, &whole).expect("it is written");
    assert_eq!(open(dir.path()).version("fraud", &Selector::Latest).expect("it is there").number, 2);
    assert!(open(dir.path()).pass_over(2, &by("")).expect_err("it is whole").to_string().contains("is not damaged"));

    std::fs::write(&file, "x").expect("it is written");
    let registry = open(dir.path());
    registry.pass_over(2, &by("the disk was lost")).expect("it is given up");
    for registry in [&registry, &open(dir.path())] {
        assert_eq!(registry.version("fraud", &Selector::Alias(CHAMPION.into())).expect("it is there").number, 1);
        assert_eq!(registry.entries_since(0).expect("the rest").len(), 2);
    }
    // Its number was perhaps in somebody's tables.
    assert_eq!(registry.register(registration("fraud", b"three", by(""))).expect("it is registered"), 3);
    // Who finds it whole later does not count it either.
    std::fs::write(&file, &whole).expect("it is written");
    let late = open(dir.path());
    assert_eq!(late.model("fraud").expect("it is there"), registry.model("fraud").expect("it is there"));
    assert_eq!(late.version("fraud", &Selector::Alias(CHAMPION.into())).expect("it is there").number, 1);

    // A hole in the history is as bad.
    let file = object(dir.path(), &entry::name(1));
    std::fs::remove_file(file).expect("it was there");
    let error = open(dir.path()).models().expect_err("one is missing").to_string();
    assert!(error.contains(&entry::name(1)) && error.contains("is missing"), "{error}");
}

#[test]
fn a_damaged_artifact_is_named_and_mended_by_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = open(dir.path());
    registry.register(registration("fraud", b"model one", by(""))).expect("it is registered");
    let hash = registry.version("fraud", &Selector::Latest).expect("it is there").artifact.hash;
    let file = registry.artifact(&hash).expect("it is whole");
    std::fs::write(&file, b"model 0ne").expect("it is written");
    let error = registry.artifact(&hash).expect_err("it is damaged").to_string();
    assert!(
        error.contains(&format!("artifacts/{hash} is damaged")) && error.contains("register the same file"),
        "{error}"
    );
    registry.register(registration("fraud", b"model one", by(""))).expect("it is registered");
    assert_eq!(registry.artifact(&hash).expect("it is whole"), file);
    std::fs::remove_file(&file).expect("it was there");
    assert!(registry.artifact(&hash).expect_err("it is gone").to_string().contains("is missing"));
}

#[test]
fn a_snapshot_stands_for_what_came_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = open(dir.path());
    registry.register(registration("fraud", b"one", by("").key("first"))).expect("it is registered");
    for i in 0..log::EVERY * 3 {
        registry.note("fraud", Some(1), "note", &by(&i.to_string())).expect("it is noted");
    }
    let snapshots = || {
        let read = std::fs::read_dir(object(dir.path(), "snapshots")).expect("it is there");
        let mut names: Vec<PathBuf> = read.map(|entry| entry.expect("a file").path()).collect();
        names.sort();
        names
    };
    assert_eq!(snapshots().len(), 2);
    let expected = registry.model("fraud").expect("it is there");
    // With a damaged snapshot the one before it serves, without any the entries do.
    let newest = snapshots().pop().expect("there are two");
    std::fs::write(&newest, "x").expect("it is written");
    assert_eq!(open(dir.path()).model("fraud").expect("it is there"), expected);
    for snapshot in snapshots() {
        std::fs::remove_file(snapshot).expect("it was there");
    }
    assert_eq!(open(dir.path()).model("fraud").expect("it is there"), expected);
    // What a snapshot holds is not read again.
    for i in 0..log::EVERY {
        registry.note("fraud", Some(1), "note", &by(&i.to_string())).expect("it is noted");
    }
    for number in 1..log::EVERY {
        std::fs::write(object(dir.path(), &entry::name(number)), "x").expect("it is written");
    }
    let late = open(dir.path());
    assert_eq!(late.model("fraud").expect("it is there"), expected);
    let again = registration("fraud", b"one", by("").key("second"));
    assert_eq!(late.register(again).expect("it is registered"), 2);
}

#[test]
fn many_entries_open_fast_and_span_folders() {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = open(dir.path());
    registry.register(registration("fraud", b"one", by(""))).expect("it is registered");
    // The files as they would be, without waiting for the disk each time.
    for number in 2..=2_010u64 {
        let event = Event::Noted { kind: "note".into(), version: Some(1) };
        let bytes = entry::Entry::new(number, "fraud", event, &by("")).encode().expect("it is JSON");
        let file = object(dir.path(), &entry::name(number));
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("it is made");
        std::fs::write(file, bytes).expect("it is written");
    }
    let whole = std::time::Instant::now();
    let registry = open(dir.path());
    let whole = whole.elapsed();
    assert_eq!(registry.newest().expect("it is read"), 2_010);
    for i in 0..log::EVERY {
        registry.note("fraud", None, "note", &by(&i.to_string())).expect("it is noted");
    }
    let fast = std::time::Instant::now();
    assert_eq!(open(dir.path()).newest().expect("it is read"), 2_010 + log::EVERY);
    println!("2,010 entries in {whole:?}, from a snapshot in {:?}", fast.elapsed());
    assert_eq!(open(dir.path()).history("fraud").expect("it is read").len(), 2_010 + log::EVERY as usize);
}
