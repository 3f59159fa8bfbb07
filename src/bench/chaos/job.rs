//! The job that faults happen to: card traffic with late labels, features of customers and terminals, scores; from the
//! generator or from topics, to tables, and as wanted to topics exactly once and to an online store.

use std::fmt;
use std::path::Path;

use anyhow::{Context, anyhow};

use super::topics::Names;
use crate::engine;
use crate::plan::model::{OnlinePlace, Plan};

const MODEL: &[u8] = include_bytes!("../../../models/card_fraud.onnx");

/// Customers have ids up to this.
pub const CUSTOMERS: i64 = 700;
/// Terminals have ids up to this.
pub const TERMINALS: i64 = 1400;

/// Where online values go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Online {
    /// Nowhere.
    None,
    /// To the embedded store, which one process holds at a time.
    Embedded,
    /// To Redis.
    Redis,
    /// To Redis, laid out as Feast's.
    Feast,
}

impl Online {
    /// Whether it needs a Redis.
    pub fn is_redis(self) -> bool {
        matches!(self, Online::Redis | Online::Feast)
    }
}

/// A form of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct World {
    /// Whether it reads from topics and writes to topics.
    pub topics: bool,
    /// Where its online values go.
    pub online: Online,
}

impl World {
    /// All forms for which there are servers.
    pub fn all(brokers: bool, redis: bool) -> Vec<World> {
        let mut worlds = Vec::new();
        for topics in [false, true] {
            for online in [Online::None, Online::Embedded, Online::Redis, Online::Feast] {
                if (brokers || !topics) && (redis || !online.is_redis()) {
                    worlds.push(World { topics, online });
                }
            }
        }
        worlds
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let online = match self.online {
            Online::None => "no online values",
            Online::Embedded => "embedded store",
            Online::Redis => "Redis",
            Online::Feast => "Redis in Feast's layout",
        };
        write!(f, "{}, {online}", if self.topics { "topics" } else { "generator" })
    }
}

/// Servers that there are.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    /// Brokers, separated by commas.
    pub brokers: Option<String>,
    /// URL of a Redis.
    pub redis: Option<String>,
}

const SCHEMAS: [(&str, &str); 2] = [
    (
        "tx.avsc",
        r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "tx_id", "type": "long"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
  {"name": "customer_id", "type": "long"},
  {"name": "terminal_id", "type": "long"},
  {"name": "amount", "type": "double"}
]}"#,
    ),
    (
        "labels.avsc",
        r#"{"type": "record", "name": "Label", "fields": [
  {"name": "tx_id", "type": "long"},
  {"name": "known_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
  {"name": "is_fraud", "type": "int"}
]}"#,
    ),
];

/// Writes the job to `dir`: `job.yaml` and what it needs. Its tables go to `lake` below. `names` are its topics; those that
/// it reads are what the generator would make.
///
/// # Errors
/// When it cannot be written.
pub fn write(dir: &Path, world: World, servers: &Servers, names: Option<&Names>) -> anyhow::Result<()> {
    let place = dir.display();
    let town = format!("seed: 42, customers: {CUSTOMERS}, terminals: {TERMINALS}, start: \"2026-01-05\", duration: 7d");
    let generator = |stream: &str| format!("generator: {{stream: {stream}, {town}, rate: max}}");
    let brokers = servers.brokers.clone().unwrap_or_default();
    let (tx, labels, customer_to, scores_to) = match names.filter(|_| world.topics) {
        None => (generator("transactions"), generator("labels, label_delay: 1d"), String::new(), String::new()),
        Some(names) => {
            let from = |topic: &str, schema: &str| {
                format!(
                    "kafka: {{brokers: \"{brokers}\", topic: {topic}, format: json}}\n    schema: \"{place}/{schema}\""
                )
            };
            let to = |topic: &str| {
                format!(
                    "    to: {{kafka: {{brokers: \"{brokers}\", topic: {topic}, key: customer_id}}, delivery: exactly_once, ledger: {}}}\n",
                    names.ledger
                )
            };
            (from(&names.tx, SCHEMAS[0].0), from(&names.labels, SCHEMAS[1].0), to(&names.features), to(&names.scores))
        }
    };
    let online = match world.online {
        Online::None => String::new(),
        Online::Embedded => format!("  online: {{embedded: {{path: \"{place}/online\"}}, refresh: 1s}}\n"),
        Online::Redis | Online::Feast => {
            let url = servers.redis.clone().context("a job that writes to Redis needs one")?;
            let layout = match world.online {
                Online::Feast => format!(", layout: feast, project: {}", project(dir)),
                _ => String::new(),
            };
            format!("  online: {{redis: {{url: \"{url}\", prefix: \"{}\"{layout}}}, refresh: 1s}}\n", prefix(dir))
        }
    };
    let text = format!(
        r#"job: chaos
version: 1
clock: event
order: event_time
sources:
  tx:
    {tx}
    id: tx_id
    event_time: ts
    validate: {{amount: {{max: 300}}}}
    on_invalid: {{dead_letter: tx_rejected}}
  fraud_labels:
    {labels}
    columns: [tx_id, known_at, is_fraud]
    id: tx_id
    event_time: known_at
streams:
  labelled_tx: {{join: {{left: tx, right: fraud_labels, on: tx_id, within: 7d}}}}
features:
  customer:
    from: tx
    entity: [customer_id]
    aggregates:
      nb_tx: {{count: "*", over: [1h, 1d, 7d]}}
      avg_amount: {{mean: amount, over: [1d, 7d]}}
      std_amount: {{stddev: amount, over: 7d}}
      max_amount: {{max: amount, over: 7d}}
    derive:
      night: "case when extract(hour from ts) <= 6 then 1.0 else 0.0 end"
      weekend: "case when extract(dow from ts) in (0, 6) then 1.0 else 0.0 end"
    post:
      amount_ratio: "amount / nullif(avg_amount_7d, 0)"
    ttl: 30d
{customer_to}  terminal:
    from: labelled_tx
    entity: [terminal_id]
    delay: 1d
    aggregates:
      nb_tx: {{count: "*", over: [1d, 7d]}}
      risk: {{mean: is_fraud, over: [1d, 7d]}}
    default: {{risk: 0}}
    ttl: 30d
feature_sets:
  fraud_inputs: {{on: tx, take: [amount, customer.*, terminal.*]}}
sinks:
{online}  offline: {{delta: {{uri: "{place}/lake"}}}}
models:
  fraud:
    versions: {{champion: "{place}/card_fraud.onnx"}}
    inputs: fraud_inputs
    outputs: {{score: "probabilities[1]"}}
{scores_to}labels:
  fraud: {{from: fraud_labels, prediction: tx_id, value: is_fraud, within: 7d}}
tick: {{rows: 300}}
checkpoint: {{rows: 300}}
"#
    );
    std::fs::create_dir_all(dir)?;
    for (name, schema) in SCHEMAS {
        std::fs::write(dir.join(name), schema)?;
    }
    std::fs::write(dir.join("card_fraud.onnx"), MODEL)?;
    std::fs::write(dir.join("job.yaml"), text).with_context(|| format!("cannot write to {place}"))
}

/// What begins the job's keys in Redis: the name of its directory, which no other has.
pub fn prefix(dir: &Path) -> String {
    let parent = dir.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    format!("{parent}-{}", dir.file_name().unwrap_or_default().to_string_lossy())
}

/// Ends the keys of the job in `dir` in Feast's layout.
pub fn project(dir: &Path) -> String {
    let plain: String = prefix(dir).chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("p_{plain}")
}

/// The plan of the job in `dir`.
///
/// # Errors
/// When it is wrong, which a test excludes.
pub fn plan(dir: &Path) -> anyhow::Result<Plan> {
    let (plan, _) = engine::load(&dir.join("job.yaml"), &[], &|_| None).map_err(|faults| anyhow!("{faults}"))?;
    Ok(plan)
}

/// Where the job in `dir` keeps its online values.
///
/// # Errors
/// As [`plan`].
pub fn online(dir: &Path) -> anyhow::Result<Option<OnlinePlace>> {
    Ok(plan(dir)?.online.map(|online| online.store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_job_is_valid() {
        let dir = tempfile::tempdir().expect("a folder");
        let servers = Servers { brokers: Some("localhost:9092".into()), redis: Some("redis://localhost".into()) };
        for world in World::all(true, true) {
            let dir = dir.path().join(format!("{}-{:?}", world.topics, world.online));
            write(&dir, world, &servers, Some(&Names::new("t"))).expect("it is written");
            let plan = plan(&dir).unwrap_or_else(|faults| panic!("{world}: {faults}"));
            assert_eq!(
                (plan.topics.len(), plan.online.is_some()),
                (if world.topics { 2 } else { 0 }, world.online != Online::None)
            );
        }
        assert_eq!((World::all(true, true).len(), World::all(false, false).len()), (8, 2));
    }
}
