//! Versions of a model that take each other's place while the job runs: shadow, canary, promotion, rollback, commands by hand,
//! kills in between, and the proof of all of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::base::{FAILPOINTS, format_time};
use tidemill::monitor::drift::profile::Profiler;
use tidemill::registry::{By, Content, Entry, Event, Previous, Registration, Registry, Signature};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto, type_proto,
};

use crate::support::table_in;

const SECOND: i64 = 1_000_000;

/// A model of two inputs whose output is the one that its weights pick.
fn model(weights: [f32; 2], log: bool) -> Vec<u8> {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |value| Dimension { value: Some(value), ..Default::default() };
    let value = |name: &str, width: i64| {
        let dim = vec![dim(Value::DimParam("N".into())), dim(Value::DimValue(width))];
        let tensor = type_proto::Tensor { elem_type: 1, shape: Some(TensorShapeProto { dim }) };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
            ..Default::default()
        }
    };
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        ..Default::default()
    };
    let w = TensorProto {
        name: "w".into(),
        dims: vec![2, 1],
        data_type: 1,
        float_data: weights.to_vec(),
        ..Default::default()
    };
    // The logarithm of what is below 0 is no number, so the row cannot be scored.
    let nodes = match log {
        false => vec![node("MatMul", &["x", "w"], "y")],
        true => vec![node("MatMul", &["x", "w"], "t"), node("Log", &["t"], "y")],
    };
    let graph = GraphProto {
        name: "pick".into(),
        node: nodes,
        input: vec![value("x", 2)],
        output: vec![value("y", 1)],
        initializer: vec![w],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 12 }];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

/// Picks the better score, the worse one, fails for half of the rows.
const GOOD: ([f32; 2], bool) = ([1.0, 0.0], false);
const NOISY: ([f32; 2], bool) = ([0.0, 1.0], false);
const BROKEN: ([f32; 2], bool) = ([-1.0, 1.0], true);

/// A job whose events carry a good score and a noisy one, its registry, its state and its tables.
struct Place {
    dir: TempDir,
    registry: Registry,
}

/// How many events, and seconds between them.
const EVENTS: i64 = 20_000;
const STEP: i64 = 10;

fn splitmix(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

impl Place {
    fn new(rollout: &str, more: &str) -> Place {
        let dir = TempDir::new().expect("a folder");
        let registry = Registry::open(&dir.path().join("registry").display().to_string()).expect("a registry");
        let place = Place { dir, registry };
        let time = r#"{"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}"#;
        place.write(
            "event.avsc",
            &format!(
                r#"{{"type": "record", "name": "e", "fields": [{{"name": "id", "type": "long"}}, {time},
                {{"name": "card", "type": "int"}}, {{"name": "good", "type": "float"}}, {{"name": "noisy", "type": "float"}}]}}"#
            ),
        );
        place.write(
            "label.avsc",
            &format!(
                r#"{{"type": "record", "name": "l", "fields": [{{"name": "id", "type": "long"}}, {time},
                {{"name": "truth", "type": ["null", "int"]}}]}}"#
            ),
        );
        let (mut events, mut labels) = (String::from("id,at,card,good,noisy\n"), String::from("id,at,truth\n"));
        let mut state = 7;
        for id in 0..EVENTS {
            let p = 0.05 + 0.9 * splitmix(&mut state);
            let noisy = (0.5 * p + 0.5 * splitmix(&mut state)).clamp(0.02, 0.98);
            let truth = u8::from(splitmix(&mut state) < p);
            let card = (splitmix(&mut state) * 500.0) as i64;
            let at = 1_700_000_000 * SECOND + id * STEP * SECOND;
            let _ = writeln!(events, "{id},{},{card},{p},{noisy}", format_time(at));
            let _ = writeln!(labels, "{id},{},{truth}", format_time(at + 600 * SECOND));
        }
        place.write("events.csv", &events);
        place.write("labels.csv", &labels);
        let path = |name: &str| place.path(name).display().to_string();
        place.write(
            "job.yaml",
            &format!(
                "job: rolled\nversion: 1\nregistry: {{uri: '{}'}}\ntick: {{rows: 100, in_flight: 2}}\ncheckpoint: {{rows: 2000}}\n\
                 sources:\n  tx: {{file: {{path: '{}'}}, schema: '{}', id: id, event_time: at, disorder: 0s}}\n  \
                 known: {{file: {{path: '{}'}}, schema: '{}', event_time: at, disorder: 0s}}\n\
                 features:\n  card: {{from: tx, entity: [card], aggregates: {{n: {{count: '*', over: 1h}}}}}}\n\
                 feature_sets:\n  inputs: {{on: tx, take: [good, noisy]}}\n  with_card: {{on: tx, take: [good, noisy, card.*]}}\n\
                 models:\n  m: {{registry: m@champion, inputs: inputs, outputs: {{p: y}}}}\n\
                 labels:\n  m: {{from: known, prediction: id, value: truth, within: 1d}}\n\
                 monitors:\n  m: {{window: 12h, accuracy: [log_loss]}}\n\
                 retrain:\n  m: {{rollout: {rollout}}}\n\
                 sinks:\n  offline: {{delta: {{uri: '{}'}}}}\n{more}",
                path("registry"),
                path("events.csv"),
                path("event.avsc"),
                path("labels.csv"),
                path("label.avsc"),
                path("lake"),
            ),
        );
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn register(&self, (weights, log): ([f32; 2], bool), alias: &str) -> u32 {
        let model = Content::Bytes(model(weights, log));
        let mut registration = Registration::new("m", model, Signature::default(), By::new("a test", "to see"));
        registration.alias = Some(alias.to_owned());
        self.registry.register(registration).expect("registered")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg(name).arg(self.path("job.yaml")).arg("--state").arg(self.path("state"));
        command.stdin(Stdio::null()).env("RUST_BACKTRACE", "1");
        command
    }

    /// Runs to the end of input, or to its death at a failpoint.
    fn run(&self, workers: usize, failpoints: &str) {
        self.run_with(workers, failpoints, &[]);
    }

    fn run_with(&self, workers: usize, failpoints: &str, more: &[&str]) {
        let mut command = self.command("run");
        command
            .args(more)
            .args(["--until-end", "--json", "--workers", &workers.to_string()])
            .env(FAILPOINTS, failpoints);
        let output = command.output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        match failpoints {
            "" => assert!(output.status.success(), "{said}"),
            _ => assert!(output.status.code().is_none() && said.contains("failpoint"), "{failpoints}: {said}"),
        }
    }

    /// Every bit of the tables is made again by one worker and by three.
    fn prove(&self, more: &[&str]) -> Value {
        // In the same order, whatever the pace.
        let more = more.iter().flat_map(|set| ["--set", set]);
        let output = self.command("prove").args(["--json", "--workers", "1,3"]).args(more).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        assert_eq!((output.status.code(), &report["proven"]), (Some(0), &Value::Bool(true)), "{said}\n{report:#}");
        report
    }

    fn decisions(&self) -> Vec<Decided> {
        let table = table_in(&self.path("lake"), "stats/rollout", None);
        let text = |name: &str| texts(&table, name);
        let number = |name: &str| numbers(&table, name);
        let whole = |name: &str| -> Vec<i64> {
            let column = table.column_by_name(name).expect("a column").as_primitive::<Int64Type>();
            column.iter().map(|value| value.unwrap_or(-1)).collect()
        };
        let (ticks, sequences, actions, phases) = (whole("_tick"), whole("sequence"), text("action"), text("phase"));
        let (champions, challengers, whys, by) = (text("champion"), text("challenger"), text("why"), text("by"));
        let (shares, lifts, highs, labelled) =
            (number("share"), number("lift"), number("high"), whole("labelled_challenger"));
        let (offsets, ratios) = (whole("_offset"), number("sample_ratio_p"));
        let mut all: Vec<(i64, i64, Decided)> = (0..table.num_rows())
            .map(|i| {
                let decided = Decided {
                    tick: ticks[i],
                    sequence: sequences[i],
                    action: actions[i].clone(),
                    phase: phases[i].clone(),
                    champion: champions[i].clone(),
                    challenger: challengers[i].clone(),
                    share: shares[i],
                    lift: lifts[i],
                    high: highs[i],
                    labelled: labelled[i],
                    sample_ratio_p: ratios[i],
                    by: by[i].clone(),
                    why: whys[i].clone(),
                };
                (ticks[i], offsets[i], decided)
            })
            .collect();
        all.sort_by_key(|(tick, offset, _)| (*tick, *offset));
        all.into_iter().map(|(_, _, decided)| decided).collect()
    }

    fn predictions(&self) -> Vec<Predicted> {
        let table = table_in(&self.path("lake"), "predictions/m", None);
        let whole = |name: &str| -> Vec<i64> {
            let column = cast(table.column_by_name(name).expect("a column"), &DataType::Int64).expect("numbers");
            column.as_primitive::<Int64Type>().values().to_vec()
        };
        let (ids, ticks, cards) = (whole("id"), whole("_tick"), whole("card"));
        let (good, noisy) = (numbers(&table, "good"), numbers(&table, "noisy"));
        let (p, shadow) = (numbers(&table, "p"), numbers(&table, "shadow_p"));
        let (versions, routes, shadows) =
            (texts(&table, "model_version"), texts(&table, "route"), texts(&table, "shadow_version"));
        let mut all: Vec<Predicted> = (0..table.num_rows())
            .map(|i| Predicted {
                id: ids[i],
                card: cards[i],
                tick: ticks[i],
                version: versions[i].clone(),
                route: routes[i].clone(),
                shadow_version: shadows[i].clone(),
                p: p[i],
                shadow: shadow[i],
                inputs: (good[i], noisy[i]),
            })
            .collect();
        all.sort_by_key(|row| row.id);
        all
    }

    fn champion(&self) -> u32 {
        self.registry.model("m").expect("the model").aliases["champion"]
    }

    fn history(&self) -> Vec<Entry> {
        self.registry.history("m").expect("a history")
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Decided {
    tick: i64,
    sequence: i64,
    action: String,
    phase: String,
    champion: String,
    challenger: String,
    share: f64,
    lift: f64,
    high: f64,
    labelled: i64,
    sample_ratio_p: f64,
    by: String,
    why: String,
}

#[derive(Clone, Debug, PartialEq)]
struct Predicted {
    id: i64,
    card: i64,
    tick: i64,
    version: String,
    route: String,
    shadow_version: String,
    p: f64,
    shadow: f64,
    inputs: (f64, f64),
}

fn texts(table: &RecordBatch, name: &str) -> Vec<String> {
    let column = table.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    column.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}

fn numbers(table: &RecordBatch, name: &str) -> Vec<f64> {
    let column = table.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    let column = cast(column, &DataType::Float64).expect("numbers");
    column.as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or(f64::NAN)).collect()
}

fn actions(decisions: &[Decided]) -> Vec<(&str, f64)> {
    decisions.iter().map(|d| (d.action.as_str(), d.share)).collect()
}

const CANARY: &str = "{shadow: 3h, canary: [20, 50], hold: 3h, min_rows: 200, expect_rows: 5000}";

/// Rows have the version, route and scores that follow from the decisions, tick by tick.
fn rows_follow_decisions(place: &Place) -> BTreeMap<String, usize> {
    let (decisions, rows) = (place.decisions(), place.predictions());
    assert_eq!(rows.len() as i64, EVENTS, "every event is scored once");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in &rows {
        let so_far = || decisions.iter().filter(|d| d.tick <= row.tick);
        let now = so_far().next_back();
        let (good, noisy) = row.inputs;
        let scores = |version: &str| if version == "2" { good } else { noisy };
        assert_eq!(row.p, scores(&row.version), "{row:?}");
        let (shadow, share) = now.map_or((false, 0.0), |d| (d.phase == "shadow", d.share));
        let ended = now.is_some_and(|d| d.phase == "promoted" || d.phase == "rolled_back");
        match now {
            Some(d) if ended => {
                assert_eq!((&row.version, row.route.as_str()), (&d.champion, "champion"), "{row:?} {d:?}")
            }
            Some(d) if shadow => {
                assert_eq!((&row.version, &row.shadow_version), (&d.champion, &d.challenger), "{row:?} {d:?}");
                assert_eq!((row.route.as_str(), row.shadow), ("champion", scores(&d.challenger)), "{row:?}");
            }
            Some(d) => {
                let challenger = row.version == d.challenger;
                assert_eq!(row.route, if challenger { "canary" } else { "champion" }, "{row:?} {d:?}");
            }
            None => assert_eq!(row.route, "champion"),
        }
        assert_eq!(shadow, !row.shadow.is_nan(), "{row:?}");
        let stage = now.map_or("before".to_owned(), |d| format!("{} {share}", d.phase));
        *counts.entry(format!("{stage} {}", row.version)).or_default() += 1;
    }
    counts
}

#[test]
fn a_better_challenger_is_promoted() {
    let place = Place::new(CANARY, "");
    assert_eq!(place.register(NOISY, "champion"), 1);
    assert_eq!(place.register(GOOD, "challenger"), 2);
    place.run(2, "");
    let decisions = place.decisions();
    assert_eq!(
        actions(&decisions),
        [("begin", 0.0), ("step", 20.0), ("step", 50.0), ("promote", 100.0)],
        "{decisions:#?}"
    );
    assert_eq!(decisions.iter().map(|d| d.sequence).collect::<Vec<_>>(), [-1, 1, 2, 3]);
    let last = decisions.last().expect("decisions");
    assert!(last.high < 0.0 && last.lift < 0.0 && last.labelled >= 200, "{last:?}");
    assert_eq!((last.champion.as_str(), last.by.as_str()), ("2", "controller"));
    let counts = rows_follow_decisions(&place);
    for (share, at) in [(20.0, "canary 20"), (50.0, "canary 50")] {
        let of = |version: &str| *counts.get(&format!("{at} {version}")).unwrap_or(&0) as f64;
        let (rows, expected) = (of("1") + of("2"), share / 100.0);
        let sd = (expected * (1.0 - expected) / rows).sqrt();
        assert!((of("2") / rows - expected).abs() < 4.0 * sd, "{counts:?}");
    }
    // The registry was told, by keys of the job's own.
    assert_eq!(place.champion(), 2);
    assert!(!place.registry.model("m").expect("the model").aliases.contains_key("challenger"));
    let history = place.history();
    let promoted =
        history.iter().find(|e| matches!(&e.event, Event::AliasMoved { alias, to: 2, .. } if alias == "champion"));
    let promoted = promoted.unwrap_or_else(|| panic!("{history:#?}"));
    assert_eq!((promoted.who.as_str(), promoted.why.as_str()), ("job rolled", last.why.as_str()));
    assert_eq!(promoted.numbers["numbers"]["lift"].as_f64(), Some(last.lift));
    let noted = history.iter().filter(|e| matches!(&e.event, Event::Noted { kind, .. } if kind == "decision")).count();
    assert_eq!(noted, 3, "{history:#?}");
    // The proof begins with the version that the job began with, though the alias has moved.
    let report = place.prove(&[]);
    let tables: Vec<&str> =
        report["runs"][1]["tables"].as_array().expect("tables").iter().filter_map(|t| t["table"].as_str()).collect();
    assert!(tables.contains(&"stats/rollout") && tables.contains(&"predictions/m"), "{tables:?}");
    assert_eq!((place.champion(), place.history()), (2, history), "a proof tells the registry nothing");
}

#[test]
fn a_worse_challenger_is_taken_back() {
    let place = Place::new("{canary: [30, 60], hold: 3h, by: card, min_rows: 200, expect_rows: 5000}", "");
    place.register(GOOD, "champion");
    place.register(NOISY, "challenger");
    place.run(1, "");
    let decisions = place.decisions();
    let [first, between @ .., last] = &decisions[..] else { panic!("{decisions:#?}") };
    assert_eq!(
        (first.action.as_str(), first.share, last.action.as_str()),
        ("begin", 30.0, "roll_back"),
        "{decisions:#?}"
    );
    // As long as nothing is certain the canary may grow; all rows it does not get.
    assert!(between.iter().all(|d| d.action == "step" && d.share <= 60.0), "{decisions:#?}");
    assert!(last.lift > 0.0 && last.phase == "rolled_back", "{decisions:#?}");
    // Rows were shared out as they should be.
    assert!(last.sample_ratio_p > 0.001, "{decisions:#?}");
    assert_eq!(place.champion(), 1);
    assert!(!place.registry.model("m").expect("the model").aliases.contains_key("challenger"));
    // A card keeps its version as long as the shares are the same, and a larger share takes none away from the challenger.
    let mut cards: BTreeMap<i64, Vec<(i64, bool)>> = BTreeMap::new();
    for row in place.predictions() {
        if (first.tick..last.tick).contains(&row.tick) {
            cards.entry(row.card).or_default().push((row.tick, row.version == "2"));
        }
    }
    let grown = between.iter().map(|d| d.tick).next();
    for (card, mut rows) in cards {
        rows.sort_unstable();
        let (before, after): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| grown.is_none_or(|g| row.0 < g));
        for part in [&before, &after] {
            assert!(part.windows(2).all(|two| two[0].1 == two[1].1), "card {card}: {part:?}");
        }
        if let ([(_, true), ..], [(_, false), ..]) = (&before[..], &after[..]) {
            panic!("card {card} was taken from the challenger by a larger share");
        }
    }
    place.prove(&[]);
}

#[test]
fn a_challenger_that_cannot_score_is_taken_back() {
    let place = Place::new("{canary: [50], hold: 1h, min_rows: 5000, guard: {error_rate: 0.05}}", "");
    place.register(NOISY, "champion");
    place.register(BROKEN, "challenger");
    place.run(2, "");
    let decisions = place.decisions();
    assert_eq!(actions(&decisions), [("begin", 50.0), ("roll_back", 0.0)], "{decisions:#?}");
    assert!(decisions[1].why.contains("could not be scored"), "{decisions:#?}");
    place.prove(&[]);
}

/// All rows at once: one that does no harm stays, one that does is gone before the champion was unloaded.
#[test]
fn blue_and_green_change_places() {
    let rollout = "{blue_green: true, keep: 3h, min_rows: 5000, guard: {error_rate: 0.05}}";
    for (challenger, action, champion) in [(GOOD, "promote", 2), (BROKEN, "roll_back", 1)] {
        let place = Place::new(rollout, "");
        place.register(NOISY, "champion");
        place.register(challenger, "challenger");
        place.run(2, "");
        let decisions = place.decisions();
        let [begin, end] = &decisions[..] else { panic!("{decisions:#?}") };
        assert_eq!(
            (begin.action.as_str(), begin.share, end.action.as_str()),
            ("begin", 100.0, action),
            "{decisions:#?}"
        );
        assert_eq!(place.champion(), champion);
        let rows = place.predictions();
        let green: Vec<&Predicted> = rows.iter().filter(|row| (begin.tick..end.tick).contains(&row.tick)).collect();
        assert!(
            !green.is_empty() && green.iter().all(|r| r.version == "2" && r.route == "green"),
            "{:?}",
            green.first()
        );
        let last = rows.last().map(|row| (row.version.clone(), row.route.clone()));
        assert_eq!(last, Some((champion.to_string(), "champion".to_owned())));
        place.prove(&[]);
    }
}

/// Where most rows have one of a few ids, no share of the ids is that share of the rows, and what is compared is not alike.
#[test]
fn rows_that_are_not_shared_out_as_they_should_be_take_the_challenger_back() {
    let place = Place::new("{ab: 50, min_rows: 1000000, expect_rows: 1000000}", "");
    let text = fs::read_to_string(place.path("events.csv")).expect("events");
    let same = text.lines().enumerate().map(|(i, line)| match line.split_once(',') {
        Some((_, rest)) if i > 0 => format!("{},{rest}\n", i % 3),
        _ => format!("{line}\n"),
    });
    place.write("events.csv", &same.collect::<String>());
    place.register(NOISY, "champion");
    place.register(GOOD, "challenger");
    place.run(2, "");
    let decisions = place.decisions();
    assert_eq!(actions(&decisions), [("begin", 50.0), ("roll_back", 0.0)], "{decisions:#?}");
    assert!(decisions[1].sample_ratio_p <= 0.001 && decisions[1].why.contains("share"), "{decisions:#?}");
    assert_eq!(place.champion(), 1);
    place.prove(&[]);
}

/// A batch step that brings a version in and waits for what a running job makes of it.
#[test]
fn a_step_waits_for_the_decision() {
    let place = Place::new("{shadow: 1h, canary: [50], hold: 1h, min_rows: 200, expect_rows: 5000}", "");
    place.register(NOISY, "champion");
    for (name, (weights, log)) in [("good", GOOD), ("broken", BROKEN)] {
        fs::write(place.path(name), model(weights, log)).expect("a model");
    }
    let step = |name: &str, wait: &str| {
        let file = format!(
            "batch: {name}\nversion: 1\nof: job.yaml\nmodel: m\nsteps:\n  made: {{command: {{run: [sh, -c, 'cat {name} > \"$TIDEMILL_OUT\"'], out: m.onnx}}}}\n  \
             register: {{register: {{from: made}}}}\n  out: {{rollout: {{from: register, wait: {wait}}}}}\n"
        );
        place.write(&format!("{name}.yaml"), &file);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("train").arg(place.path(&format!("{name}.yaml"))).arg("--queue").arg(place.path("queue"));
        command.arg("--json").stdin(Stdio::null());
        let output = command.output().expect("it starts");
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let steps = summary["steps"].as_array().cloned().unwrap_or_default();
        let out = steps.into_iter().find(|step| step["name"] == "out").unwrap_or_default();
        (output.status.code(), out, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let start = || {
        let mut command = place.command("run");
        for source in ["tx", "known"] {
            command.arg("--set").arg(format!("sources.{source}.file.rate=1500"));
        }
        command.stderr(Stdio::null()).stdout(Stdio::null()).arg("--until-end");
        command.spawn().expect("it starts")
    };
    // Nobody decides where no job runs.
    let (code, out, said) = step("good", "1s");
    assert_eq!(code, Some(1), "{out} {said}");
    assert!(out.to_string().contains("is the job running?"), "{out}");
    let mut running = start();
    let (code, out, said) = step("good", "2m");
    assert_eq!((code, &out["facts"]["decision"]), (Some(0), &Value::from("promoted")), "{out} {said}");
    let (code, out, said) = step("broken", "2m");
    assert_eq!((code, &out["facts"]["decision"]), (Some(0), &Value::from("rolled back")), "{out} {said}");
    assert!(running.wait().expect("it ends").success());
}

/// Killed where a decision was made and not recorded, where a step takes effect, and before the registry is told: what follows
/// is what was decided, once.
#[test]
fn kills_change_no_decision() {
    let place = Place::new(CANARY, "");
    place.register(NOISY, "champion");
    place.register(GOOD, "challenger");
    for (number, failpoints) in [
        "rollout.decided=kill@1",
        "rollout.step=kill@1",
        "rollout.decided=kill@1",
        "rollout.step=kill@2",
        "rollout.deed=kill@1",
    ]
    .into_iter()
    .enumerate()
    {
        place.run([1, 3, 2][number % 3], failpoints);
    }
    place.run(2, "");
    let decisions = place.decisions();
    assert_eq!(
        actions(&decisions),
        [("begin", 0.0), ("step", 20.0), ("step", 50.0), ("promote", 100.0)],
        "{decisions:#?}"
    );
    rows_follow_decisions(&place);
    assert_eq!(place.champion(), 2);
    let keys: Vec<String> = place.history().iter().filter_map(|entry| entry.key.clone()).collect();
    let mut unique = keys.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!((unique.len(), keys.len()), (5, 5), "{keys:?}");
    place.prove(&[]);
}

/// Each command dies with its process once, after it was decided and before it is recorded.
#[test]
fn a_command_that_no_tick_holds_is_given_again() {
    let place = Place::new(CANARY, "");
    place.register(NOISY, "champion");
    place.register(GOOD, "challenger");
    let set = ["--set", "checkpoint.rows=1"];
    // The first tick brings the pin and the challenger.
    place.run_with(1, "rollout.taken=sleep:400@2,rollout.taken=kill@2", &set);
    for _ in 0..2 {
        place.run_with(1, "rollout.taken=sleep:400@2,rollout.taken=kill@2", &set);
    }
    place.run_with(1, "", &set);
    let decisions = place.decisions();
    assert_eq!(
        actions(&decisions),
        [("begin", 0.0), ("step", 20.0), ("step", 50.0), ("promote", 100.0)],
        "{decisions:#?}"
    );
    rows_follow_decisions(&place);
    assert_eq!(place.champion(), 2);
}

/// A running job that reads at a pace, and somebody at the registry.
#[test]
fn by_hand_while_the_job_runs() {
    let place = Place::new("{ab: 50, min_rows: 1000000, expect_rows: 1000000}", "");
    place.register(NOISY, "champion");
    let mut child = place
        .command("run")
        .args([
            "--until-end",
            "--workers",
            "2",
            "--set",
            "sources.tx.file.rate=2000",
            "--set",
            "sources.known.file.rate=2000",
        ])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(30), "{what} does not come: {:#?}", place.history());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let noted = |action: &str| {
        place.history().iter().any(|e| e.who == "job rolled" && e.numbers["action"].as_str() == Some(action))
    };
    let by = |why: &str| By::new("ann", why);
    std::thread::sleep(Duration::from_millis(300));
    place.register(GOOD, "challenger");
    wait("begin", &|| noted("begin"));
    place.registry.note("m", Some(2), "request", &by("lunch").numbers(json!({"do": "hold"}))).expect("noted");
    wait("hold", &|| noted("hold"));
    place.registry.note("m", Some(2), "request", &by("back").numbers(json!({"do": "resume"}))).expect("noted");
    wait("resume", &|| noted("resume"));
    place.registry.set_alias("m", "champion", 2, Previous::At(1), &by("it is better")).expect("moved");
    wait("promote", &|| !place.registry.model("m").expect("the model").aliases.contains_key("challenger"));
    place.registry.rollback("m", Previous::At(2), &by("it was not")).expect("moved");
    assert!(child.wait().expect("it ends").success());
    let decisions = place.decisions();
    let told: Vec<(&str, &str)> = decisions.iter().map(|d| (d.action.as_str(), d.by.as_str())).collect();
    assert_eq!(
        told,
        [("begin", "a test"), ("hold", "ann"), ("resume", "ann"), ("promote", "ann"), ("switch", "ann")],
        "{decisions:#?}"
    );
    let rows = place.predictions();
    assert_eq!(rows.last().map(|row| (row.version.as_str(), row.route.as_str())), Some(("1", "champion")));
    for route in ["champion", "ab"] {
        assert!(rows.iter().any(|row| row.route == route), "no row by {route}");
    }
    assert_eq!(place.champion(), 1);
    place.prove(&["sources.tx.file.rate=2000", "sources.known.file.rate=2000"]);
}

/// What only the clock on the wall knows is recorded, and steers the replay as it did the run.
#[test]
fn a_slow_challenger_is_taken_back_and_the_proof_agrees() {
    let place = Place::new("{ab: 50, min_rows: 1000000, expect_rows: 1000000, guard: {latency_p99_ms: 0.000001}}", "");
    place.register(NOISY, "champion");
    place.register(GOOD, "challenger");
    let pace = ["sources.tx.file.rate=4000", "sources.known.file.rate=4000"];
    let mut command = place.command("run");
    pace.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    command
        .args(["--until-end", "--workers", "2", "--metrics", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.starts_with("metrics: ") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended without serving metrics");
    }
    let address = line.trim().trim_start_matches("metrics: http://").trim_end_matches("/metrics").to_owned();
    let metrics = || -> String {
        let Ok(mut stream) = TcpStream::connect(&address) else { return String::new() };
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let mut text = String::new();
        let answered = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut text));
        answered.map_or(String::new(), |_| text)
    };
    let both = [1, 2].map(|version| format!("ml_predictions_total{{model=\"m\",version=\"{version}\"}}"));
    let started = Instant::now();
    loop {
        let text = metrics();
        if both.iter().all(|sample| text.contains(sample)) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "no metrics by version: {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::spawn(move || said.read_to_string(&mut String::new()));
    assert!(child.wait().expect("it ends").success());
    let decisions = place.decisions();
    let told: Vec<(&str, &str)> = decisions.iter().map(|d| (d.action.as_str(), d.by.as_str())).collect();
    assert_eq!(told, [("begin", "a test"), ("guard", "latency"), ("roll_back", "controller")], "{decisions:#?}");
    assert!(decisions[2].why.contains("latency"), "{decisions:#?}");
    place.prove(&pace);
}

/// What a job keeps is named, and topics get what counts.
#[test]
fn check_names_what_is_kept_and_what_is_published() {
    let place = Place::new(CANARY, "");
    place.register(NOISY, "champion");
    place.register(GOOD, "challenger");
    place.run(1, "");
    let said = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("check").arg(place.path("job.yaml")).args(arguments);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = said(&["--from", &place.path("state").display().to_string()]);
    let kept = text.lines().find(|line| line.starts_with("keeps the state of")).unwrap_or_else(|| panic!("{text}"));
    assert!(kept.contains("rollout m") && kept.contains("routes m"), "{kept}");
    let text = said(&["--set", "models.m.to={kafka: {topic: scores, brokers: 'localhost:1', format: avro}}"]);
    let schema = text.split("Avro schema of topic scores").nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(schema.contains("\"route\"") && schema.contains("\"p\"") && !schema.contains("shadow"), "{schema}");
}

/// What a version was fitted on: `good` and `noisy` as they come, or moved up by 3.
fn fitted_on(up: f64) -> Content {
    let columns = ["good", "noisy"].map(|name| (name.to_owned(), DataType::Float64));
    let mut profiler = Profiler::new(&columns);
    let mut state = 11;
    let mut values = || {
        let values = (0..5000).map(|_| up + 0.05 + 0.9 * splitmix(&mut state));
        Arc::new(Float64Array::from_iter_values(values)) as ArrayRef
    };
    let (good, noisy) = (values(), values());
    let rows = RecordBatch::try_from_iter([("good", good), ("noisy", noisy)]).expect("rows");
    profiler.count(&rows, &[0; 5000]).expect("they are counted");
    Content::Bytes(profiler.finish(BTreeMap::new()).encode())
}

/// From the tick of its promotion on a version's own training set is what windows are held against, also after a death and in a proof.
#[test]
fn a_promoted_version_brings_its_training_set() {
    let place = Place::new(CANARY, "");
    let text = fs::read_to_string(place.path("job.yaml")).expect("the job");
    let monitor = "m: {window: 12h, refresh: 1h, accuracy: [log_loss], \
                   drift: {window: 1h, columns: [good], features: [psi], reference: training}}";
    let text = text.replace("m: {window: 12h, accuracy: [log_loss]}", monitor);
    assert!(text.contains("reference: training"));
    place.write("job.yaml", &text);
    for (version, alias, up) in [(NOISY, "champion", 0.0), (GOOD, "challenger", 3.0)] {
        let model = Content::Bytes(model(version.0, version.1));
        let mut registration = Registration::new("m", model, Signature::default(), By::new("a test", "to see"));
        registration.alias = Some(alias.to_owned());
        registration.files.insert("training.json".to_owned(), fitted_on(up));
        place.registry.register(registration).expect("registered");
    }
    place.run(1, "checkpoint.committed=kill@8");
    place.run(2, "");
    let decisions = place.decisions();
    let promoted = decisions.iter().find(|d| d.action == "promote").unwrap_or_else(|| panic!("{decisions:#?}"));
    let drift = table_in(&place.path("lake"), "stats/drift", None);
    let (metrics, values) = (texts(&drift, "metric"), numbers(&drift, "value"));
    let (mut before, mut after) = (0, 0);
    for (row, tick) in numbers(&drift, "_tick").into_iter().enumerate().filter(|(row, _)| metrics[*row] == "psi") {
        let psi = values[row];
        if (tick as i64) < promoted.tick {
            before += 1;
            assert!(psi < 0.5, "tick {tick}: {psi}");
        } else {
            after += 1;
            assert!(psi > 2.0, "tick {tick}: {psi}");
        }
    }
    assert!(before > 3 && after > 3, "{before} before, {after} after");
    let report = place.prove(&[]);
    let tables: Vec<&str> =
        report["runs"][1]["tables"].as_array().expect("tables").iter().filter_map(|t| t["table"].as_str()).collect();
    assert!(tables.contains(&"stats/drift"), "{tables:?}");
}
