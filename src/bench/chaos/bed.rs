//! Where jobs run: their directories, servers and topics, and what undisturbed runs left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::super::end_to_end::Scratch;
use super::job::{self, Online, Servers, World};
use super::outcome::Outcome;
use super::process::Process;
use super::topics::{Names, Topics};
use crate::store::online::OnlineReader;

/// Removes keys by a pattern, all at once as a server that forgets.
const FORGET: &str = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";

/// What all jobs share.
pub struct Setup {
    program: PathBuf,
    servers: Servers,
    scratch: Option<Scratch>,
    dir: PathBuf,
    topics: Option<(Topics, Names)>,
    /// By whether the job reads topics.
    references: BTreeMap<bool, Outcome>,
}

/// A job's place, over several starts.
pub struct Bed {
    dir: PathBuf,
    /// The form of the job.
    pub world: World,
    program: PathBuf,
    names: Option<Names>,
    redis: Option<String>,
    starts: u64,
}

impl Setup {
    /// A place for jobs of `program`, removed when dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(program: PathBuf, servers: Servers) -> anyhow::Result<Setup> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let scratch = Scratch::new(&format!("chaos-{}", COUNT.fetch_add(1, Ordering::Relaxed)))?;
        let dir = scratch.0.clone();
        Ok(Setup { program, servers, scratch: Some(scratch), dir, topics: None, references: BTreeMap::new() })
    }

    /// Lets everything lie; tells where.
    pub fn keep(&mut self) -> PathBuf {
        std::mem::forget(self.scratch.take());
        self.dir.clone()
    }

    fn topics(&mut self) -> anyhow::Result<&mut (Topics, Names)> {
        if self.topics.is_none() {
            let brokers = self.servers.brokers.clone().context("a job on topics needs brokers")?;
            let names = Names::new(&self.base());
            let dir = self.dir.join("generator");
            job::write(&dir, World { topics: false, online: Online::None }, &self.servers, None)?;
            let mut topics = Topics::connect(&brokers)?;
            topics.make_input(&names, &dir)?;
            self.topics = Some((topics, names));
        }
        self.topics.as_mut().context("they were made")
    }

    /// Begins the names of topics.
    fn base(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A place for a job.
    ///
    /// # Errors
    /// When it cannot be made, or there is no server for it.
    pub fn bed(&mut self, world: World, name: &str) -> anyhow::Result<Bed> {
        let dir = self.dir.join(name);
        let base = format!("{}-{name}", self.base());
        let names = if world.topics {
            let (topics, input) = self.topics()?;
            let names = input.with_output(&base);
            topics.make_output(&names)?;
            Some(names)
        } else {
            None
        };
        job::write(&dir, world, &self.servers, names.as_ref())?;
        let redis = self.servers.redis.clone().filter(|_| world.online.is_redis());
        Ok(Bed { dir, world, program: self.program.clone(), names, redis, starts: 0 })
    }

    /// What an undisturbed run leaves.
    ///
    /// # Errors
    /// When it fails.
    pub fn reference(&mut self, topics: bool) -> anyhow::Result<&Outcome> {
        if !self.references.contains_key(&topics) {
            let name = if topics { "reference-topics" } else { "reference" };
            let mut bed = self.bed(World { topics, online: Online::Embedded }, name)?;
            bed.finish(1).context("the undisturbed run")?;
            let outcome = self.outcome(&bed)?;
            let [rows, messages, known] = outcome.sizes();
            ensure!(
                rows > 1000 && known > 100 && (messages > 1000 || !topics),
                "the undisturbed run left {rows} rows, {messages} messages and {known} online values: too few to show anything"
            );
            self.references.insert(topics, outcome);
        }
        self.references.get(&topics).context("it was made")
    }

    /// What a job has left.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn outcome(&mut self, bed: &Bed) -> anyhow::Result<Outcome> {
        // Topics are cut as their messages arrive.
        let mut outcome = Outcome::read(&bed.path("lake"), !bed.world.topics)?;
        if let Some(names) = &bed.names {
            let (topics, _) = self.topics()?;
            outcome.add_topic("features", topics.read(&names.features)?)?;
            outcome.add_topic("scores", topics.read(&names.scores)?)?;
        }
        if let Some(place) = job::online(&bed.dir)? {
            outcome.add_online(&OnlineReader::of(&place)?)?;
        }
        Ok(outcome)
    }

    /// Fails unless the job has left what an undisturbed run leaves; see [`Outcome::same`].
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&mut self, bed: &Bed, lost: bool) -> anyhow::Result<()> {
        let found = self.outcome(bed)?;
        self.reference(bed.world.topics)?.same(&found, lost)
    }

    /// Removes what a job has left.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&mut self, bed: Bed) -> anyhow::Result<()> {
        if let (Some(names), Some((topics, _))) = (&bed.names, &mut self.topics) {
            topics.remove_output(names);
        }
        bed.forget_online()?;
        std::fs::remove_dir_all(&bed.dir).with_context(|| format!("cannot remove {}", bed.dir.display()))
    }
}

impl Bed {
    /// A file or folder of the job.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts of the job so far.
    pub fn starts(&self) -> u64 {
        self.starts
    }

    /// The command that runs the job.
    pub fn command(&self, workers: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run").arg(self.path("job.yaml")).args([
            "--until-end",
            "--json",
            "--workers",
            &workers.to_string(),
        ]);
        command.arg("--state").arg(self.path("state")).current_dir(&self.dir);
        command
    }

    /// Starts the job.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, failpoints: &str, workers: usize) -> anyhow::Result<Process> {
        self.start_command(self.command(workers), failpoints)
    }

    /// Starts the job by a command of [`command`](Self::command), changed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_command(&mut self, command: Command, failpoints: &str) -> anyhow::Result<Process> {
        self.starts += 1;
        Process::start(command, failpoints, &self.path(&format!("start-{:02}", self.starts)))
    }

    /// Runs the job to its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn finish(&mut self, workers: usize) -> anyhow::Result<()> {
        let mut process = self.start("", workers)?;
        let status = process.end()?;
        ensure!(status.success(), "the job failed ({status}) and said:\n{}", process.said().trim());
        Ok(())
    }

    /// Makes Redis lose what the job wrote; removes an embedded store, which nobody may have open.
    ///
    /// # Errors
    /// When Redis does not answer, or the store cannot be removed.
    pub fn forget_online(&self) -> anyhow::Result<()> {
        let embedded = self.path("online");
        if embedded.exists() {
            std::fs::remove_dir_all(&embedded).with_context(|| format!("cannot remove {}", embedded.display()))?;
        }
        let Some(url) = &self.redis else { return Ok(()) };
        let mut connection = redis::Client::open(url.as_str())?.get_connection()?;
        for pattern in [format!("{}*", job::prefix(&self.dir)), format!("*{}", job::project(&self.dir))] {
            let mut forget = redis::cmd("EVAL");
            forget.arg(FORGET).arg(0).arg(pattern).query::<()>(&mut connection).context("Redis does not forget")?;
        }
        Ok(())
    }

    /// The parts of the job's snapshots, oldest first.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn parts(&self) -> anyhow::Result<Vec<PathBuf>> {
        files(&self.path("state/parts"))
    }

    /// The newest manifest and what it says.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn manifest(&self) -> anyhow::Result<Option<(PathBuf, Value)>> {
        self.newest("epoch")
    }

    /// The file of the newest claim of the job's state.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn claim(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(self.newest("claim")?.map(|(path, _)| path))
    }

    fn newest(&self, kind: &str) -> anyhow::Result<Option<(PathBuf, Value)>> {
        for path in files(&self.path("state/epochs"))?.into_iter().rev() {
            // Old ones are removed by a process that runs.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let entry: Value = serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))?;
            if let Some(found) = entry["entry"].get(kind) {
                return Ok(Some((path, found.clone())));
            }
        }
        Ok(None)
    }
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut paths: Vec<PathBuf> = paths.into_iter().filter(|path| path.is_file() && !hidden(path)).collect();
    paths.sort();
    Ok(paths)
}
