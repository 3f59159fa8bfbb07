//! Features and predictions over HTTP, from the program as it is started: what is served is what the stores hold and what the
//! stream would compute, also while Redis is away.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Int64Type};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::plan::model::OnlinePlace;
use tidemill::store::lookup::get_online;
use tidemill::store::online::OnlineReader;

use crate::support::kafka::{Broker, topic};
use crate::support::redis::Redis;
use crate::support::{Job, root};

/// A program that is killed with the value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.current_dir(root()).env_remove("TIDEMILL_LOG").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// `tidemill serve --online`.
struct Server {
    _process: Process,
    address: String,
}

impl Server {
    fn start(dir: &Path, job: &Path, arguments: &[&str]) -> Server {
        // Two servers do not share a directory.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let data = dir.join(format!("data-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).arg("--online").arg(job);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut said = BufReader::new(child.stderr.take().expect("its words"));
        let process = Process(child);
        let mut words = String::new();
        loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).expect("words") > 0, "no server: {words}");
            if let Some(url) = line.trim().strip_prefix("serving: http://") {
                let address = url.trim_end_matches('/').to_owned();
                // What it says later must not fill the pipe.
                std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
                return Server { _process: process, address };
            }
            words += &line;
        }
    }

    /// Status, head and body of an answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).expect("a server");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).expect("a request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head[9..12].parse().expect("a status");
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, text) = self.ask("POST", path, &body.to_string());
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") })
    }

    /// Values and statuses of a feature.
    fn feature(&self, feature: &str, entities: &Value) -> (Value, Value) {
        let (status, answer) = self.post("/get-online-features", &json!({"features": [feature], "entities": entities}));
        assert_eq!(status, 200, "{answer}");
        let column = answer["results"].as_array().and_then(|columns| columns.last()).expect("columns").clone();
        (column["values"].clone(), column["statuses"].clone())
    }

    fn metric(&self, line: &str) -> Option<f64> {
        let (_, _, text) = self.ask("GET", "/metrics", "");
        text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }
}

const SCHEMA: &str = r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "id", "type": "long"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "card", "type": "long"},
  {"name": "shop", "type": "string"},
  {"name": "amount", "type": "double"}
]}"#;

/// A job by card and by card and shop, with a model over eight columns. `source` and `online` are YAML.
fn job(dir: &Path, name: &str, source: &str, online: &str) -> PathBuf {
    fs::write(dir.join("tx.avsc"), SCHEMA).expect("a file");
    let text = format!(
        r#"
job: cards
version: 1
clock: event
order: event_time
sources:
  tx:
    {source}
    schema: "{dir}/tx.avsc"
    id: id
    event_time: ts
    validate: {{amount: {{min: 0, max: 100000}}, card: {{required: true}}}}
features:
  card:
    from: tx
    entity: [card]
    include_current: false
    derive: {{late: "case when extract(hour from ts) >= 12 then 1.0 else 0.0 end"}}
    aggregates:
      n: {{count: "*", over: lifetime}}
      total: {{sum: amount, over: 30d}}
      most: {{max: amount, over: 30d}}
      mean: {{mean: amount, over: 30d}}
    post: {{ratio: "amount / nullif(mean_30d, 0)"}}
    default: {{total: 0.5}}
    ttl: 60d
  pair:
    from: tx
    entity: [card, shop]
    include_current: false
    aggregates: {{times: {{count: "*", over: lifetime}}}}
feature_sets:
  inputs: {{on: tx, take: [amount, card.*, pair.*]}}
sinks:
  online: {{{online}, refresh: 1s}}
  offline: {{delta: {{uri: "${{LAKE:-./lake}}"}}}}
models:
  risk:
    versions: {{champion: "{root}/tests/golden/models/forest_binary.onnx"}}
    inputs: inputs
    outputs: {{score: "probabilities[1]"}}
"#,
        dir = dir.display(),
        root = root().display(),
    );
    let file = dir.join(name);
    fs::write(&file, text).expect("a file");
    file
}

/// 2026-01-05T00:00:00Z in milliseconds.
const START: i64 = 1_767_571_200_000;
const CARDS: i64 = 40;
const SHOPS: [&str; 3] = ["a", "b", "ß \"c\""];

fn event(id: i64) -> Value {
    let amount = (id * 37 % 1000) as f64 / 8.0;
    json!({"id": id, "ts": START + id * 60_000, "card": id * id % CARDS, "shop": SHOPS[(id % 3) as usize], "amount": amount})
}

fn lines(path: &Path, events: impl Iterator<Item = Value>) {
    let text = events.fold(String::new(), |mut text, event| {
        writeln!(text, "{event}").expect("text takes everything");
        text
    });
    fs::write(path, text).expect("a file");
}

fn from_file(path: &Path) -> String {
    format!("file: {{path: \"{}\", format: ndjson}}", path.display())
}

fn embedded(dir: &Path) -> String {
    format!("embedded: {{path: \"{}\"}}", dir.join("online").display())
}

fn in_redis(redis: &Redis) -> String {
    format!("redis: {{url: \"{}\"}}", redis.url())
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < patience, "no {what} within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Everything that is served equals what the store's own reader finds, row by row.
#[test]
fn answers_are_what_the_store_holds() {
    let redis = Redis::start("features served from Redis");
    let dir = TempDir::new().expect("a folder");
    lines(&dir.path().join("tx.ndjson"), (0..500).map(event));
    let stores = std::iter::once(embedded(dir.path())).chain(redis.iter().map(in_redis));
    for (at, store) in stores.enumerate() {
        let file = job(dir.path(), &format!("{at}.yaml"), &from_file(&dir.path().join("tx.ndjson")), &store);
        let lake = Job::new(&file).run();
        let place: &OnlinePlace = lake.online.as_ref().expect("a store");
        // Read before the server holds an embedded store; afterwards through it.
        let reader = OnlineReader::of(place).expect("a store");
        let entities: Vec<(i64, &str)> =
            (-1..=CARDS + 1).flat_map(|card| SHOPS.iter().map(move |shop| (card, *shop))).collect();
        let expected: Vec<Vec<(Value, &str)>> = entities
            .iter()
            .map(|(card, shop)| {
                let (card, shop) = (("card".to_owned(), card.to_string()), ("shop".to_owned(), (*shop).to_owned()));
                let by_card = get_online(&reader, "card", std::slice::from_ref(&card)).expect("a row");
                let by_pair = get_online(&reader, "pair", &[card, shop]).expect("a row");
                let features = by_card.features.into_iter().chain(by_pair.features);
                features.map(|feature| (feature.value, feature.status.as_str())).collect()
            })
            .collect();
        drop(reader);
        let server = Server::start(dir.path(), &file, &[]);
        let request = json!({
            "features": ["card:n", "card:total_30d", "card:most_30d", "card:mean_30d", "pair:times"],
            "entities": {
                "card": entities.iter().map(|(card, _)| card).collect::<Vec<_>>(),
                "shop": entities.iter().map(|(_, shop)| shop).collect::<Vec<_>>(),
            },
            "full_feature_names": true,
        });
        let (status, answer) = server.post("/get-online-features", &request);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            answer["metadata"]["feature_names"],
            json!(["card", "shop", "card__n", "card__total_30d", "card__most_30d", "card__mean_30d", "pair__times"])
        );
        let mut seen = [0, 0];
        for (row, expected) in expected.iter().enumerate() {
            for (column, (value, status)) in expected.iter().enumerate() {
                let found = &answer["results"][column + 2];
                assert_eq!((&found["values"][row], found["statuses"][row].as_str()), (value, Some(*status)), "{row}");
                seen[usize::from(*status == "PRESENT")] += 1;
            }
        }
        assert!(seen[0] > 10 && seen[1] > 100, "{seen:?}");
        assert_eq!(
            server.feature("card:n", &json!({"card": ["1", 1.0, null]})).1,
            json!(["PRESENT", "PRESENT", "INVALID"])
        );
        refusals(&server);
        // The server lets go of an embedded store for a job that wants it.
        Job::new(&file).run();
        assert_eq!(server.feature("card:n", &json!({"card": [1]})).1, json!(["PRESENT"]));
    }
}

/// What cannot be answered is refused in Feast's words, and says how to mend it.
fn refusals(server: &Server) {
    let cases = [
        (
            json!({"features": ["car:n"], "entities": {"card": [1]}}),
            404,
            "FeatureViewNotFoundException",
            "did you mean `card`?",
        ),
        (
            json!({"features": ["card:m"], "entities": {"card": [1]}}),
            404,
            "FeastObjectNotFoundException",
            "did you mean `n`?",
        ),
        (json!({"features": ["card"], "entities": {"card": [1]}}), 400, "FeastError", "write `view:feature`"),
        (json!({"features": ["pair:times"], "entities": {"card": [1]}}), 400, "FeastError", "`shop` is missing"),
        (
            json!({"features": ["card:n"], "entities": {"card": ["x"]}}),
            400,
            "FeastError",
            "`card` is a whole number, and \"x\" is none",
        ),
        (json!({"features": ["card:n"], "entities": {"card": [1.5]}}), 400, "FeastError", "1.5 is none"),
        (
            json!({"features": ["card:n"], "entities": {"card": [1], "shop": []}}),
            400,
            "FeastError",
            "1 values of `card` and 0 of `shop`",
        ),
        (json!({"features": ["card:n"], "entities": {"card": [[1]]}}), 400, "FeastError", "no single value"),
        (json!({"features": [], "entities": {"card": [1]}}), 400, "FeastError", "no features are asked for"),
        (json!({"features": ["card:n"], "entities": {}}), 400, "FeastError", "`entities` is empty"),
        (
            json!({"feature_service": "input", "entities": {"card": [1]}}),
            404,
            "FeatureServiceNotFoundException",
            "did you mean `inputs`?",
        ),
    ];
    for (request, status, class, words) in cases {
        let (found, answer) = server.post("/get-online-features", &request);
        assert_eq!(found, status, "{request}: {answer}");
        let detail: Value = serde_json::from_str(answer.as_str().expect("a string")).expect("an object in it");
        assert_eq!((&detail["module"], &detail["class"]), (&json!("feast.errors"), &json!(class)), "{request}");
        assert!(detail["message"].as_str().is_some_and(|text| text.contains(words)), "{request}: {detail}");
    }
    assert_eq!(server.ask("POST", "/get-online-features", "{\"entities\"").0, 400);
    assert_eq!(server.post("/push", &json!({"push_source_name": "tx", "df": {"id": [1]}})).0, 422);
    assert_eq!(server.post("/predict/risky", &json!({"row": {}})).0, 404);
    assert_eq!(server.post("/predict/risk", &json!({"row": {}, "rows": []})).0, 400);
    assert_eq!(server.post("/predict/risk", &json!({"row": {}, "version": "2"})).0, 404);
}

/// A prediction by request is the stream's: of two runs, one ends before the last event of each card, and is asked for it.
#[test]
fn a_prediction_by_request_is_that_of_the_stream() {
    let dir = TempDir::new().expect("a folder");
    let before = 600;
    // Of each card one more event, at the same time, so that none of them is in another's windows.
    let last = |card: i64| {
        let shop = SHOPS[(card % 3) as usize];
        json!({"id": before + card, "ts": START + before * 60_000 + 1, "card": card, "shop": shop, "amount": card as f64 * 7.25})
    };
    let (all, first) = (dir.path().join("all.ndjson"), dir.path().join("first.ndjson"));
    lines(&all, (0..before).map(event).chain((0..CARDS + 5).map(last)));
    lines(&first, (0..before).map(event));
    let whole = job(
        dir.path(),
        "whole.yaml",
        &from_file(&all),
        &format!("embedded: {{path: \"{}\"}}", dir.path().join("unused").display()),
    );
    let table = Job::new(&whole).run().table("predictions/risk", None);
    let file = job(dir.path(), "first.yaml", &from_file(&first), &embedded(dir.path()));
    let _lake = Job::new(&file).run();
    let server = Server::start(dir.path(), &file, &["--prediction-cache", "1MiB"]);
    let rows: Vec<Value> = (0..CARDS + 5).map(last).collect();
    for round in 0..2 {
        let (status, answer) = server.post("/predict/risk", &json!({"rows": rows, "vector": true}));
        assert_eq!((status, &answer["ignored"]), (200, &json!([])), "{answer}");
        let ids = table.column_by_name("id").expect("ids").as_primitive::<Int64Type>();
        let scores = table.column_by_name("score").expect("scores").as_primitive::<Float32Type>();
        let mut distinct = std::collections::BTreeSet::new();
        for card in 0..CARDS + 5 {
            let at = ids.values().iter().position(|id| *id == before + card).expect("a prediction");
            let found = &answer["rows"][card as usize];
            let score = scores.value(at);
            assert_eq!(found["score"].as_f64().map(|s| s as f32), Some(score), "card {card}: {found}");
            distinct.insert(score.to_bits());
            for (name, value) in found["vector"].as_object().expect("a vector") {
                let column = table.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
                let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Float64).expect("a number");
                let column = column.as_primitive::<arrow::datatypes::Float64Type>();
                let expected = column.is_valid(at).then(|| column.value(at));
                assert_eq!(value.as_f64(), expected, "card {card}, {name}: {found}");
            }
        }
        assert!(distinct.len() > 2, "{} scores", distinct.len());
        assert!(answer["rows"][0]["vector"].as_object().is_some_and(|vector| vector.len() == 8));
        let hits = server.metric("tidemill_serving_cache_hits_total{cache=\"predictions\"}");
        assert_eq!(hits, Some((round * (CARDS + 5)) as f64));
    }
    // A row that cannot be scored has its reason, and its neighbours their scores.
    let bad = json!({"rows": [rows[0], {"card": 1, "shop": "a", "amount": -1}, {"card": null, "shop": "a", "amount": 1},
        {"card": 1, "shop": "a"}, {"card": 1, "shop": "a", "amount": 1, "colour": "red"}]});
    let (_, answer) = server.post("/predict/risk", &bad);
    let error = |row: usize| answer["rows"][row]["error"].as_str().unwrap_or_default().to_owned();
    assert!(answer["rows"][0]["score"].is_number() && answer["rows"][4]["score"].is_number(), "{answer}");
    assert!(
        error(1).contains("below 0") && error(2).contains("`card` is null") && error(3).contains("`amount` is absent"),
        "{answer}"
    );
    assert_eq!(answer["ignored"], json!(["colour"]));
}

/// While Redis hangs, what was read is told, marked and for a bounded time; then it is refused; when Redis is back all is well.
#[test]
fn a_redis_that_is_away() {
    let Some(mut redis) = Redis::start("a Redis that is away from those who serve it") else { return };
    let dir = TempDir::new().expect("a folder");
    lines(&dir.path().join("tx.ndjson"), (0..200).map(event));
    let file = job(dir.path(), "job.yaml", &from_file(&dir.path().join("tx.ndjson")), &in_redis(&redis));
    let fill = || drop(Job::new(&file).run());
    fill();
    let server = Server::start(dir.path(), &file, &["--store-timeout", "100ms", "--stale-max", "3s"]);
    let request = |card: i64| json!({"features": ["card:n"], "entities": {"card": [card]}}).to_string();
    let ask = |card: i64| server.ask("POST", "/get-online-features", &request(card));
    let open = || server.metric("tidemill_serving_breaker_open{job=\"cards\"}");
    let (status, head, known) = ask(1);
    assert_eq!((status, head.contains("tidemill-stale-seconds"), open()), (200, false, Some(0.0)));
    redis.pause();
    for _ in 0..5 {
        let (status, head, body) = ask(1);
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("tidemill-stale-seconds"), "{head}");
        let (told, known): (Value, Value) =
            (serde_json::from_str(&body).expect("JSON"), serde_json::from_str(&known).expect("JSON"));
        assert_eq!(told["results"], known["results"]);
        assert!(told["metadata"]["stale_seconds"].is_number());
    }
    assert_eq!(open(), Some(1.0), "three timeouts open it");
    let (status, _, body) = ask(9);
    assert_eq!(status, 503, "what was never read is not told: {body}");
    assert_eq!(server.post("/predict/risk", &json!({"row": {"card": 9, "shop": "a", "amount": 1}})).0, 503);
    wait_for("end of what may be told", || ask(1).0 == 503);
    redis.resume();
    wait_for("answer after the pause", || ask(9).0 == 200);
    assert!(!ask(1).1.contains("tidemill-stale-seconds"));
    wait_for("closed breaker", || open() == Some(0.0));
    redis.kill();
    assert_eq!((0..5).map(|_| ask(2).0).max(), Some(503));
    redis.start_again();
    // It has lost its values, so there is no store until the job fills it.
    wait_for("answer that there is no store", || ask(2).0 == 404);
    fill();
    wait_for("answer after a restart", || ask(2).0 == 200);
}

/// The cache tells what was read for as long as it was told to, and forgets an entity when asked.
#[test]
fn the_cache_tells_what_was_read_until_it_is_told_to_forget() {
    let Some(redis) = Redis::start("the cache of features") else { return };
    let dir = TempDir::new().expect("a folder");
    lines(&dir.path().join("tx.ndjson"), (0..200).map(event));
    let file = job(dir.path(), "job.yaml", &from_file(&dir.path().join("tx.ndjson")), &in_redis(&redis));
    drop(Job::new(&file).run());
    let cached = Server::start(dir.path(), &file, &["--feature-cache-ttl", "10m"]);
    let direct = Server::start(dir.path(), &file, &["--feature-cache-ttl", "0s"]);
    let cards = json!({"card": [0, 1, 4, 777]});
    let known = cached.feature("card:n", &cards);
    assert_eq!(known.1, json!(["PRESENT", "PRESENT", "PRESENT", "NOT_FOUND"]));
    assert_eq!(direct.feature("card:n", &cards), known);
    // The rows go, the description stays.
    let script = "for _, key in ipairs(redis.call('keys', 'cards:card:*')) do redis.call('del', key) end return 0";
    redis.ask::<i64>(&["EVAL", script, "0"]);
    let gone = json!(["NOT_FOUND", "NOT_FOUND", "NOT_FOUND", "NOT_FOUND"]);
    assert_eq!(direct.feature("card:n", &cards).1, gone);
    assert_eq!(cached.feature("card:n", &cards), known);
    let forget = |path: &str| cached.ask("DELETE", path, "");
    assert_eq!(forget("/cache/card?key=card%3D1").2, "{\"forgotten\":1}");
    assert_eq!(cached.feature("card:n", &cards).1, json!(["PRESENT", "NOT_FOUND", "PRESENT", "NOT_FOUND"]));
    assert_eq!(forget("/cache/card?key=shop=a").0, 400);
    assert_eq!(forget("/cache/cards").0, 404);
    assert_eq!(forget("/cache/card").2, "{\"forgotten\":4}");
    assert_eq!(cached.feature("card:n", &cards).1, gone);
    assert_eq!(cached.metric("tidemill_serving_cache_hits_total{cache=\"features\"}"), Some(7.0));
}

/// A pushed row goes through a real broker and the running job, and is in the next answer, read through the job's own socket.
#[test]
fn a_pushed_row_comes_back_as_a_feature() {
    let Some(broker) = Broker::start() else { return };
    let topic = topic("pushed");
    broker.create_topic(&topic, 2);
    let dir = TempDir::new().expect("a folder");
    let source = format!("kafka: {{brokers: \"{}\", topic: {topic}}}", broker.address());
    let file = job(dir.path(), "job.yaml", &source, &embedded(dir.path()));
    let mut run = program();
    run.arg("run")
        .arg(&file)
        .arg("--set")
        .arg("order=arrival")
        .env("LAKE", dir.path().join("lake"))
        .stderr(Stdio::null());
    let _running = Process(run.spawn().expect("the program starts"));
    let server = Server::start(dir.path(), &file, &[]);
    let push = |ids: &[i64], ts: Value| {
        let count = ids.len();
        let df = json!({"id": ids, "ts": vec![ts; count], "card": vec![7; count], "shop": vec!["a"; count], "amount": vec![2.5; count]});
        server.post("/push", &json!({"push_source_name": "tx", "df": df, "to": "online_and_offline"}))
    };
    let (status, answer) = push(&[1, 2], json!("yesterday"));
    assert!(
        status == 422 && answer.as_str().is_some_and(|text| text.contains("row 0 would be turned away")),
        "{answer}"
    );
    assert_eq!(push(&[1, 2, 3], json!(START)), (200, Value::Null));
    wait_for("pushed rows as a feature", || {
        let (status, answer) =
            server.post("/get-online-features", &json!({"features": ["card:n"], "entities": {"card": [7]}}));
        status == 200 && answer["results"][1]["values"] == json!([3])
    });
    let (status, answer) = server.post("/push", &json!({"push_source_name": "tx", "df": {"id": [1]}, "to": "offline"}));
    assert!(status == 422 && answer.as_str().is_some_and(|text| text.contains("both stores")), "{answer}");
    assert_eq!(server.post("/push", &json!({"push_source_name": "ty", "df": {"id": [1]}})).0, 404);
}

/// Feast's own SDK, unmodified, with `online_store: {type: remote}`.
#[test]
fn feasts_sdk_reads_features_from_the_server() {
    let Some(python) = std::env::var_os("TIDEMILL_FEAST").filter(|path| !path.is_empty()) else {
        println!(
            "skipped: Feast's SDK on our server: TIDEMILL_FEAST names no Python that has it (tests/all makes one)"
        );
        return;
    };
    let dir = TempDir::new().expect("a folder");
    lines(&dir.path().join("tx.ndjson"), (0..500).map(event));
    let file = job(dir.path(), "job.yaml", &from_file(&dir.path().join("tx.ndjson")), &embedded(dir.path()));
    drop(Job::new(&file).run());
    let server = Server::start(dir.path(), &file, &[]);
    let repository = dir.path().join("feast");
    fs::create_dir(&repository).expect("a folder");
    let output = Command::new(python)
        .arg(root().join("tests/python/feast_remote.py"))
        .arg(&repository)
        .arg(format!("http://{}", server.address))
        .env("FEAST_USAGE", "False")
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
    // Numbers of Feast's statuses: 1 PRESENT, 2 NULL_VALUE, 3 NOT_FOUND.
    let events = |card: i64| (0..500).filter(|id| id * id % CARDS == card).count();
    let pairs =
        |card: i64, shop: usize| (0..500).filter(|id| id * id % CARDS == card && (id % 3) as usize == shop).count();
    assert_eq!(told["one"]["values"]["card__n"], json!([events(1), null, null]), "{told}");
    assert_eq!(told["one"]["statuses"]["card__n"], json!([1, 3, 3]), "{told}");
    assert_eq!(told["composite"]["values"]["pair__times"][0], json!(pairs(1, 0)), "{told}");
    assert_eq!(told["composite"]["statuses"]["pair__times"], json!([1, 3, 3]), "{told}");
    assert_eq!(told["short"]["values"]["most_30d"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["service"]["values"]["card__n"], json!([events(1)]), "{told}");
    assert_eq!(told["frame"][0]["n"], json!(events(1)), "{told}");
    assert_eq!(told["no_view"]["class"], "FeatureViewNotFoundException", "{told}");
    assert!(told["wrong_type"]["message"].as_str().is_some_and(|text| text.contains("whole number")), "{told}");
}
