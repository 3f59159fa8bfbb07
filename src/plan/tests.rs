//! Whole files: the jobs that ship, bad files with every fault they have, the plan in words.

mod alerts;
mod registered;
mod rollout;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::catalog::{Catalog, ConnectorSpec, SourceSpec};
use super::model::*;
use super::*;
use crate::base::{ModelRef, Severity};

/// Knows the files of the tests by their names.
pub(super) struct Stub;

fn schema_of(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
}

impl Catalog for Stub {
    fn kafka_setting_fault(&self, name: &str, _: &str) -> Option<String> {
        (name == "fetch.min.byte").then(|| "librdkafka has no such property".to_owned())
    }

    fn event_schema(&self, _: &str, spec: &SourceSpec) -> Result<(SchemaRef, Vec<PathBuf>), String> {
        use DataType::*;
        let ms = || Timestamp(TimeUnit::Millisecond, None);
        let us = || Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let path = match &spec.connector {
            ConnectorSpec::Generator(GeneratorStream::Transactions) => {
                let columns = [
                    ("tx_id", Int64),
                    ("ts", us()),
                    ("customer_id", Int64),
                    ("terminal_id", Int64),
                    ("amount", Float64),
                    ("mcc", Utf8),
                    ("country", Utf8),
                ];
                return Ok((schema_of(&columns), Vec::new()));
            }
            ConnectorSpec::Generator(GeneratorStream::Labels) => {
                let columns = [("tx_id", Int64), ("known_at", us()), ("is_fraud", Int32), ("scenario", Int32)];
                return Ok((schema_of(&columns), Vec::new()));
            }
            ConnectorSpec::Kafka => {
                let Some(schema) = &spec.schema else { return Err("messages do not say their types".into()) };
                let labels = schema.ends_with("fraud_label.avsc");
                let stream = if labels { GeneratorStream::Labels } else { GeneratorStream::Transactions };
                let spec = SourceSpec { connector: ConnectorSpec::Generator(stream), schema: None };
                return self.event_schema("", &spec);
            }
            ConnectorSpec::File { path, .. } => path.as_str(),
        };
        let schema = match path.rsplit('/').next().unwrap_or_default() {
            "transactions*.parquet" | "transactions.parquet" => schema_of(&[
                ("TRANSACTION_ID", Int32),
                ("TX_DATETIME", ms()),
                ("CUSTOMER_ID", Int32),
                ("TERMINAL_ID", Int32),
                ("TX_AMOUNT", Float64),
                ("TX_TIME_SECONDS", Int32),
                ("TX_TIME_DAYS", Int16),
                ("TX_FRAUD", Int8),
                ("TX_FRAUD_SCENARIO", Int8),
            ]),
            "flights.parquet" => schema_of(&[
                ("flight_id", Int32),
                ("flight_date", Date32),
                ("sched_dep_utc", ms()),
                ("dep_utc", ms()),
                ("arr_utc", ms()),
                ("carrier", Utf8),
                ("flight", Int32),
                ("tailnum", Utf8),
                ("origin", Utf8),
                ("dest", Utf8),
                ("distance", Int32),
                ("dep_delay", Int16),
                ("arr_delay", Int16),
                ("air_time", Int16),
            ]),
            "weather.parquet" => schema_of(&[
                ("observed_utc", ms()),
                ("origin", Dictionary(Box::new(Int32), Box::new(Utf8))),
                ("temp", Float64),
                ("wind_speed", Float64),
                ("visib", Float64),
                ("tags", List(Arc::new(Field::new("item", Utf8, true)))),
            ]),
            "tx.ndjson" | "tx.csv" | "tx.data" | "mixed" => schema_of(&[
                ("id", Utf8),
                ("ts", us()),
                ("ms", Int64),
                ("text", Utf8),
                ("ok", Boolean),
                ("day", Date32),
                ("amount", Float64),
            ]),
            "weird.parquet" => schema_of(&[("_time", us()), ("ts", us()), ("x.y", Int64), ("amount", Float64)]),
            other => return Err(format!("no file matches `{other}`")),
        };
        let files = match path {
            "mixed" => vec![PathBuf::from("mixed/a.parquet"), PathBuf::from("mixed/b.csv")],
            _ => vec![PathBuf::from(path.replace('*', ""))],
        };
        Ok((schema, files))
    }

    fn registered(&self, model: &str, uri: &str, reference: &ModelRef) -> Result<RegisteredFile, String> {
        match (model, reference.version.to_string().as_str()) {
            (_, "champion") => Ok(RegisteredFile { number: 3, hash: "ab".repeat(32), path: "models/two.onnx".into() }),
            (_, version) => Err(format!("registry {uri} has no version {version} of {}", reference.name)),
        }
    }

    fn check_model(&self, path: &Path, inputs: &[(String, DataType)], _: &[ModelOutput]) -> Vec<String> {
        match path.to_str() {
            Some("models/two.onnx") if inputs.len() != 2 => vec![format!("it takes 2 columns, not {}", inputs.len())],
            Some("models/none.onnx") => vec!["there is no file `models/none.onnx`".into()],
            _ => Vec::new(),
        }
    }
}

pub(super) fn env(name: &str) -> Option<String> {
    match name {
        "DATA" => Some("/data".into()),
        "LAKE" => Some("/lake".into()),
        _ => None,
    }
}

pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn job(name: &str, sets: &[(&str, &str)]) -> Result<(Plan, Vec<crate::base::Fault>), Faults> {
    let sets: Vec<_> = sets.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    load(&root().join("dataflows").join(name), &sets, &env, &Stub)
}

fn good(name: &str) -> Plan {
    let (plan, warnings) = job(name, &[]).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(warnings, []);
    plan
}

#[test]
fn shipped_jobs_compile() {
    for name in ["fraud_handbook.yaml", "flight_delay.yaml", "card_fraud.yaml"] {
        good(name);
    }
}

#[test]
fn mappings_name_columns_of_the_jobs() {
    for (name, set, mapping) in [
        ("fraud_handbook.yaml", "fraud_inputs", "handbook_columns.json"),
        ("flight_delay.yaml", "flight_inputs", "flight_columns.json"),
    ] {
        let plan = good(name);
        let text = std::fs::read_to_string(root().join("tests/golden").join(mapping)).unwrap();
        let mapping: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
        let set = plan.sets.iter().find(|s| s.name == set).unwrap();
        let known = |column: &str| set.columns.iter().any(|c| c.name == column);
        assert!(mapping.len() >= 13);
        for ours in mapping.keys() {
            assert!(known(ours), "{name} has no column {ours}");
        }
    }
}

#[test]
fn handbook_in_detail() {
    let plan = good("fraud_handbook.yaml");
    assert_eq!((plan.order, plan.clock), (Order::EventTime, Clock::Event));
    let tx = &plan.sources[0];
    let names = |s: &SchemaRef| s.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names(&tx.schema), ["TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT"]);
    assert_eq!(tx.schema.field(1).data_type(), &super::expr::time_type());
    assert_eq!(
        names(&tx.stream_schema),
        [
            "_time",
            "_ord",
            "TRANSACTION_ID",
            "TX_DATETIME",
            "CUSTOMER_ID",
            "TERMINAL_ID",
            "TX_AMOUNT",
            "customer.during_weekend",
            "customer.during_night"
        ]
    );
    let labels = &plan.sources[1];
    assert_eq!(names(&labels.schema), ["TRANSACTION_ID", "TX_DATETIME", "TX_FRAUD"]);
    assert_eq!(labels.event_time.inputs, ["TX_DATETIME"]);
    let join = &plan.joins[0];
    assert_eq!(join.schema.fields().last().unwrap().name(), "TX_FRAUD");
    assert_eq!((join.left_on, join.right_on, join.right_columns.as_slice()), (2, 2, &[4usize][..]));
    let terminal = &plan.views[1];
    assert_eq!(terminal.stream, StreamRef::Join(0));
    assert_eq!(terminal.delay, 7 * 86_400_000_000);
    assert_eq!(join.schema.field(terminal.entity[0]).name(), "TERMINAL_ID");
    let risk = terminal.aggregates.iter().find(|a| a.name == "terminal.risk_30d").unwrap();
    assert_eq!(join.schema.field(risk.input.unwrap()).name(), "TX_FRAUD");
    assert_eq!((risk.function, risk.window), (AggregateFunction::Mean, Window::Trailing(30 * 86_400_000_000)));
    assert_eq!(risk.default, Some(datafusion_common::ScalarValue::Float64(Some(0.0))));
    let set = &plan.sets[0];
    assert_eq!(set.views, [0, 1]);
    assert_eq!(set.columns.len(), 15);
    assert_eq!(
        (set.columns[3].name.as_str(), set.columns[3].engine.as_str()),
        ("customer__nb_tx_1d", "customer.nb_tx_1d")
    );
    assert_eq!(
        plan.models[0].outputs,
        [ModelOutput { name: "score".into(), tensor: "probabilities".into(), element: Some(1) }]
    );
    assert_eq!(plan.offline.as_ref().unwrap().uri, "/lake");
}

#[test]
fn upkeep_is_off_unless_written() {
    let maintain = |text: Option<&str>| {
        let sets: Vec<_> = text.map(|text| ("sinks.offline.maintain", text)).into_iter().collect();
        let (plan, _) = job("card_fraud.yaml", &sets).unwrap_or_else(|f| panic!("{f}"));
        plan.offline.unwrap().maintain
    };
    assert_eq!(maintain(None), None);
    assert_eq!(maintain(Some("{}")), Some(MaintainPlan::default()));
    let written = MaintainPlan { every: 60_000_000, compact_below: 4 << 20, vacuum_after: 172_800_000_000 };
    assert_eq!(maintain(Some("{every: 1m, compact_below: 4MiB, vacuum_after: 2d}")), Some(written));
    let (plan, _) = job("card_fraud.yaml", &[("sinks.offline.maintain", "{}")]).unwrap();
    let told = "every 1h files below 32MiB are merged, those replaced 7d ago deleted";
    assert!(plan.describe().contains(told), "{}", plan.describe());
}

/// The plans of the shipped jobs in words. Run with `TIDEMILL_BLESS=1` to rewrite them.
#[test]
fn plans_in_words() {
    for name in ["fraud_handbook", "flight_delay", "card_fraud"] {
        let text = good(&format!("{name}.yaml")).describe();
        // Paths of models and of tables depend on where the test runs.
        let text = text.replace(&format!("{}/", root().display()), "");
        let text: String = text.lines().filter(|l| !l.starts_with("  plan ")).map(|l| format!("{l}\n")).collect();
        bless(&format!("tests/plan_files/plans/{name}.txt"), &text);
    }
}

/// Compares a text with a committed one.
fn bless(path: &str, text: &str) {
    let path = root().join(path);
    if std::env::var_os("TIDEMILL_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{} differs; it should be:\n{text}", path.display());
}

/// Each `tests/plan_files/bad/*.yaml` has every one of its findings beside it in `.txt`. A first line `# --set …` holds
/// assignments, separated by spaces.
#[test]
fn bad_files_have_all_their_faults() {
    let directory = root().join("tests/plan_files/bad");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(files.len() >= 10);
    // With TLS other settings are at fault than without.
    let elsewhere = if cfg!(feature = "kafka-tls") { "kafka_tls.yaml" } else { "kafka_secured.yaml" };
    files.retain(|f| !f.ends_with(elsewhere));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let sets: Vec<(String, String)> = text
            .lines()
            .next()
            .and_then(|l| l.strip_prefix("# --set "))
            .map(|l| l.split(' ').filter_map(|s| s.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
            .unwrap_or_default();
        let name = file.file_name().unwrap().to_str().unwrap();
        let outcome = match batch::is_batch(&text) {
            true => {
                let reading = batch::Reading { sets: &sets, job_sets: &[], env: &env, catalog: &Stub };
                batch::compile(name, &text, &directory, &reading).map(drop)
            }
            false => compile(name, &text, &directory, &sets, &env, &Stub).map(drop),
        };
        let faults = match outcome {
            Ok(_) => panic!("{name} has no fault"),
            Err(faults) => faults,
        };
        assert!(faults.fatal());
        let committed = format!("tests/plan_files/bad/{}.txt", file.file_stem().unwrap().to_str().unwrap());
        bless(&committed, &faults.to_string());
    }
}

#[test]
fn a_source_on_kafka() {
    let text = r#"
        job: j
        sources:
          tx:
            kafka:
              brokers: "a:1, b:2"
              topic: transactions
              start: 2026-01-31
              key: card
              timestamp: sent
              headers: {trace: x-trace}
              properties: {fetch.wait.max.ms: 50, client.id: "x${env:WHO}"}
            schema: transaction.avsc
            event_time: sent
            id: tx_id
            where: "trace is not null"
          labels: {kafka: {topic: labels, group: none}, schema: fraud_label.avsc, event_time: known_at, idle_after: 5s}
        features:
          by_card: {from: tx, entity: [card], aggregates: {n: {count: "*", over: 1h}}}
          by_tx: {from: labels, entity: [tx_id], aggregates: {n: {count: "*", over: 1h}}}
        feature_sets: {s: {on: tx, take: [by_card.n_1h]}}
    "#;
    let (plan, warnings) = compile("j", text, Path::new(""), &[], &env, &Stub).unwrap_or_else(|f| panic!("{f}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(plan.order, Order::Arrival);
    let Connector::Kafka(kafka) = &plan.sources[0].connector else { panic!() };
    assert_eq!((kafka.brokers.as_str(), kafka.discover_every), ("a:1, b:2", 10_000_000));
    assert_eq!(kafka.properties.0[1], ("client.id".to_owned(), "x${env:WHO}".to_owned()), "looked up when it is used");
    let names: Vec<_> = plan.sources[0].schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["tx_id", "card", "sent", "trace"]);
    assert_eq!(plan.sources.iter().map(|s| s.idle_after).collect::<Vec<_>>(), [Some(30_000_000), Some(5_000_000)]);
    let described = plan.describe();
    assert!(
        described.contains("Kafka topic transactions at a:1, b:2, JSON, from messages of 2026-01-31"),
        "{described}"
    );
    assert!(described.contains("card = the key, sent = the timestamp, trace = header x-trace"), "{described}");
    assert!(described.contains("fetch.wait.max.ms = 50") && described.contains("client.id = ***"), "{described}");
    assert!(!format!("{plan:?}").contains("WHO"));
    assert_eq!(kafka.group.as_deref(), Some("tidemill.j"));
    assert_eq!(described.matches("offsets are committed to group tidemill.j").count(), 1, "{described}");
    let Connector::Kafka(labels) = &plan.sources[1].connector else { panic!() };
    assert_eq!((labels.brokers.as_str(), labels.start), ("localhost:9092", KafkaStart::Earliest));
    assert_eq!(labels.group, None);
}

#[test]
fn what_is_promised_of_topics() {
    let text = |to: &str| {
        format!(
            r#"
        job: j
        sources: {{tx: {{generator: {{stream: transactions, duration: 1d}}, id: tx_id, event_time: ts}}}}
        features:
          card:
            from: tx
            entity: [customer_id]
            aggregates: {{n: {{count: "*", over: 1d}}}}
            to: {{kafka: {{topic: out}}{to}}}
        "#
        )
    };
    let ledger = "slots, ledger tidemill.j.ledger";
    for (to, delivery, slots, said) in [
        (
            "",
            None,
            4,
            format!("with --state exactly once, with each checkpoint, 4 {ledger}; without at least once, as soon"),
        ),
        (", delivery: at_least_once", Some(Delivery::AtLeastOnce), 4, "no key; at least once, as soon as".to_owned()),
        (
            ", delivery: exactly_once",
            Some(Delivery::ExactlyOnce),
            4,
            format!("no key; exactly once, with each checkpoint, 4 {ledger}"),
        ),
        (", slots: 64, ledger: l", None, 64, "64 slots, ledger l;".to_owned()),
    ] {
        let (plan, _) = compile("job.yaml", &text(to), Path::new(""), &[], &env, &Stub).unwrap();
        let topic = &plan.topics[0];
        assert_eq!((topic.delivery, topic.slots), (delivery, slots));
        let described = plan.describe();
        assert!(described.contains(&said), "{said}: {described}");
    }
}

#[test]
fn sets_and_variables() {
    let sets = [
        ("sources.tx.generator.rate", "max"),
        ("sources.tx.generator.duration", "10d"),
        ("order", "arrival"),
        ("sources.fraud_labels.generator.duration", "10d"),
    ];
    let (plan, _) = job("card_fraud.yaml", &sets).unwrap();
    assert_eq!(plan.order, Order::Arrival);
    let Connector::Generator(g) = &plan.sources[0].connector else { panic!() };
    assert_eq!((g.rate, g.duration), (Rate::Max, Some(10 * 86_400_000_000)));
    assert_ne!(plan.fingerprint, good("card_fraud.yaml").fingerprint);

    let faults = job("card_fraud.yaml", &[("sources.tx.disorder", "soon"), ("tick.rows", "0"), ("sorces.tx.id", "x")])
        .unwrap_err();
    let lines: Vec<String> = faults.to_string().lines().map(str::to_string).collect();
    assert!(lines[0].ends_with("error: sources.tx.disorder: `soon` is not a duration; write a whole number and a unit, such as 500ms, 10s, 5m, 1h or 7d (from `--set sources.tx.disorder=soon`)"), "{faults}");
    assert!(
        lines[1]
            .contains("tick.rows: expected a whole number from 1 to 4294967295, found `0` (from `--set tick.rows=0`)"),
        "{faults}"
    );
    assert!(lines[2].contains("sorces: unknown key `sorces` (from `--set sorces.tx.id=x`)"), "{faults}");
    assert!(lines[3].contains("did you mean `sources`?"), "{faults}");
}

#[test]
fn layout_and_comments_do_not_change_the_fingerprint() {
    let one = "job: a\nsources: {t: {generator: {stream: labels}, event_time: known_at}}\nfeatures: {v: {from: t, entity: [tx_id], aggregates: {n: {count: \"*\", over: 1d}}}}\n";
    let two = "# a job\njob: \"a\"\nsources:\n  t:\n    generator:\n      stream: labels\n    event_time: known_at\nfeatures: {v: {from: t, entity: [tx_id], aggregates: {n: {count: '*', over: 1d}}}}\n";
    let read = |text: &str| compile("x", text, Path::new(""), &[], &env, &Stub).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(read(one).0.fingerprint, read(two).0.fingerprint);
    assert_ne!(read(one).0.fingerprint, read(&one.replace("1d", "2d")).0.fingerprint);
    assert!(read(one).1.iter().all(|f| f.severity == Severity::Warning));
}

#[test]
fn only_columns_that_are_used_are_read() {
    let text = "
job: a
sources:
  w: {file: {path: weather.parquet}, event_time: observed_utc}
features:
  v: {from: w, entity: [origin], aggregates: {temp: {last: temp}}}
";
    let (plan, _) = compile("x", text, Path::new(""), &[], &env, &Stub).unwrap_or_else(|f| panic!("{f}"));
    let names: Vec<&str> = plan.sources[0].schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["observed_utc", "origin", "temp"]);
    assert_eq!(plan.sources[0].schema.field(1).data_type(), &DataType::Utf8, "dictionaries are read as their values");
    assert_eq!(plan.views[0].aggregates[0].name, "v.temp");
    assert_eq!(plan.views[0].aggregates[0].window, Window::Lifetime);
}

#[test]
fn rows_visit_first_the_views_that_add_least() {
    let sets = [
        ("features.terminal.aggregates.more", "{count: \"*\", over: [1h, 2h, 3h, 4h, 5h, 6h]}"),
        ("features.again", "{from: tx, entity: [customer_id], aggregates: {seen: {count: \"*\", over: 1h}}}"),
    ];
    let visits = |plan: &Plan| {
        let chains = super::chain::chains(plan);
        let visits = chains[0].visits.iter().map(|view| plan.views[*view].name.clone());
        (visits.collect::<Vec<_>>(), chains[0].views.clone())
    };
    // Eight bytes for each column: 64 of the customer, 32 of the terminal.
    assert_eq!(visits(&good("card_fraud.yaml")), (vec!["terminal".to_owned(), "customer".to_owned()], vec![0, 1]));
    // 72 of the customer by now, in two views; 80 of the terminal.
    let (plan, _) = job("card_fraud.yaml", &sets).unwrap();
    assert_eq!(visits(&plan).0, ["customer", "again", "terminal"]);
    let schema = &super::chain::chains(&plan)[0].schema;
    let place = |name: &str| schema.index_of(name).unwrap();
    assert!(place("customer.nb_tx_1h") < place("again.seen_1h") && place("again.seen_1h") < place("terminal.risk_1d"));
}

#[test]
fn both_sides_of_a_join_can_be_named() {
    let text = "
job: a
sources:
  tx: {file: {path: transactions.parquet}, event_time: TX_DATETIME, id: TRANSACTION_ID}
  told: {file: {path: transactions.parquet}, event_time: \"TX_DATETIME + interval '7 days'\"}
streams:
  both: {join: {left: tx, right: told, on: TRANSACTION_ID, within: 8d}}
features:
  v:
    from: both
    entity: [TERMINAL_ID]
    derive: {big: \"cast(left.TX_AMOUNT > 100 as int)\"}
    aggregates:
      frauds: {sum: right.TX_FRAUD, over: [1d, 24m]}
      big: {sum: big, over: 1d}
      seen: {last: told.TX_DATETIME}
    post: {share: \"big_1d / nullif(frauds_1d, 0)\", size: \"share * TX_AMOUNT\"}
    default: {frauds_24m: 7}
feature_sets:
  s: {on: tx, take: [TX_AMOUNT, v.*]}
";
    let (plan, _) = compile("x", text, Path::new(""), &[], &env, &Stub).unwrap_or_else(|f| panic!("{f}"));
    let join = &plan.joins[0];
    let names: Vec<&str> = join.schema.fields().iter().skip(2).map(|f| f.name().as_str()).collect();
    assert_eq!(
        names,
        ["TRANSACTION_ID", "TX_DATETIME", "TERMINAL_ID", "TX_AMOUNT", "v.big", "told.TX_DATETIME", "told.TX_FRAUD"]
    );
    let view = &plan.views[0];
    let input = |i: usize| join.schema.field(view.aggregates[i].input.unwrap()).name().as_str();
    assert_eq!((input(0), input(2), input(3)), ("told.TX_FRAUD", "v.big", "told.TX_DATETIME"));
    use datafusion_common::ScalarValue;
    assert_eq!(
        (view.aggregates[0].default.clone(), view.aggregates[1].default.clone()),
        (None, Some(ScalarValue::Int64(Some(7))))
    );
    let columns: Vec<&str> = plan.sets[0].columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(columns, ["TX_AMOUNT", "v__frauds_1d", "v__frauds_24m", "v__big_1d", "v__seen", "v__share", "v__size"]);
    assert_eq!(view.post[1].expr.inputs, ["v.big_1d", "v.frauds_1d", "TX_AMOUNT"]);
}

mod damage {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever happens to a file, it is read or has faults with places inside it.
        #[test]
        fn no_file_panics(which in 0..3usize, from in 0..5000usize, length in 0..40usize, put in "[a-z0-9:{}\\[\\], \n\"'&*!|>#$~.()-]{0,12}") {
            let name = ["fraud_handbook.yaml", "flight_delay.yaml", "card_fraud.yaml"][which];
            let mut text = std::fs::read_to_string(root().join("dataflows").join(name)).unwrap();
            let mut from = from % text.len();
            let mut to = (from + length).min(text.len());
            while !text.is_char_boundary(from) { from -= 1; }
            while !text.is_char_boundary(to) { to += 1; }
            text.replace_range(from..to, &put);
            let lines = text.lines().count() + 1;
            if let Err(faults) = compile(name, &text, Path::new(""), &[], &env, &Stub) {
                prop_assert!(faults.fatal());
                for fault in faults.list {
                    prop_assert!((1..=lines).contains(&fault.line) && fault.column >= 1, "{fault:?}");
                    prop_assert!(!fault.what.is_empty() && !fault.what.contains("defect"), "{fault:?}");
                }
            }
        }
    }
}
