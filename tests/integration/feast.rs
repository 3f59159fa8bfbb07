//! Feast's own SDK, unmodified, on what a job leaves in Redis, by the repository that `feast export` writes. Needs a Python
//! with that SDK, named by `TIDEMILL_FEAST`; without it those tests say so and pass.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::ops::key;
use tidemill::store::online::redis::feast::FeastView;
use tidemill::store::online::{ColumnSchema, ViewSchema};

use crate::support::redis::Redis;
use crate::support::root;

/// The Python that has Feast; nothing after saying what is skipped.
pub fn feast(what: &str) -> Option<PathBuf> {
    let python = std::env::var_os("TIDEMILL_FEAST").filter(|path| !path.is_empty()).map(PathBuf::from);
    if python.is_none() {
        println!("skipped: {what}: TIDEMILL_FEAST names no Python with Feast (tests/all makes one)");
    }
    python
}

/// Runs `feast_peer.py`; what it printed.
fn peer(python: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(python)
        .arg(root().join("tests/python/feast_peer.py"))
        .args(arguments)
        .env("TIDEMILL_TEST_TOKEN", "secret-1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn tidemill(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.args(arguments).env_remove("TIDEMILL_LOG").stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// A value of a key: Arrow type, array, Feast's type, and the value as the peer reads it.
fn part() -> impl Strategy<Value = (DataType, ArrayRef, &'static str, String)> {
    prop_oneof![
        any::<i64>().prop_map(|v| {
            (DataType::Int64, Arc::new(Int64Array::from(vec![v])) as ArrayRef, "INT64", v.to_string())
        }),
        any::<u32>().prop_map(|v| {
            (DataType::UInt32, Arc::new(UInt32Array::from(vec![v])) as ArrayRef, "INT64", v.to_string())
        }),
        any::<i32>().prop_map(|v| {
            (DataType::Int32, Arc::new(Int32Array::from(vec![v])) as ArrayRef, "INT32", v.to_string())
        }),
        any::<i8>()
            .prop_map(|v| { (DataType::Int8, Arc::new(Int8Array::from(vec![v])) as ArrayRef, "INT32", v.to_string()) }),
        any::<i32>().prop_map(|v| {
            let seconds = i64::from(v) * 86_400;
            let days = Arc::new(Date32Array::from(vec![v])) as ArrayRef;
            (DataType::Date32, days, "UNIX_TIMESTAMP", seconds.to_string())
        }),
        ".{0,20}"
            .prop_map(|v| { (DataType::Utf8, Arc::new(StringArray::from(vec![v.as_str()])) as ArrayRef, "STRING", v) }),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|v| {
            let hex = v.iter().map(|b| format!("{b:02x}")).collect();
            (DataType::Binary, Arc::new(BinaryArray::from(vec![v.as_slice()])) as ArrayRef, "BYTES", hex)
        }),
    ]
}

/// Keys and fields of any names and values are the bytes that Feast's own functions make.
#[test]
fn keys_are_those_of_feasts_own_function() {
    let Some(python) = feast("keys beside Feast's") else { return };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let name = "[a-zA-Z_é][a-z0-9_é]{0,9}";
    let keys = (proptest::collection::btree_map(name, part(), 1..5), any::<u64>(), "[a-z][a-z0-9_]{0,9}", name, name);
    let mut lines = String::new();
    for _ in 0..cases {
        let (parts, order, project, view, feature) = keys.new_tree(&mut runner).expect("a case").current();
        let mut parts: Vec<_> = parts.into_iter().collect();
        // In no order of names.
        let places = parts.len();
        parts.rotate_left(order as usize % places);
        let entity = parts.iter().map(|(name, (to, ..))| ColumnSchema::new(name, to).expect("a type that is held"));
        let schema = ViewSchema {
            view: view.clone(),
            entity: entity.collect(),
            columns: vec![ColumnSchema::new(&feature, &DataType::Int64).expect("a type that is held")],
            ttl: None,
            job: "j".into(),
            job_version: 1,
        };
        let arrays: Vec<ArrayRef> = parts.iter().map(|(_, (_, array, ..))| Arc::clone(array)).collect();
        let layout = FeastView::new(&schema, &project).expect("types that Feast has");
        let key = layout.key(key::encode(&arrays).expect("a key").get(0)).expect("no nulls");
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let case = json!({
            "names": parts.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "types": parts.iter().map(|(_, (_, _, held, _))| held).collect::<Vec<_>>(),
            "values": parts.iter().map(|(_, (_, _, _, text))| text).collect::<Vec<_>>(),
            "key": hex(&key), "project": project, "view": view, "feature": feature, "field": hex(&layout.fields()[0]),
        });
        let _ = writeln!(lines, "{case}");
    }
    assert_eq!(peer(&python, &["keys"], &lines).trim(), cases.to_string());
}

/// Events of some users and items, with each type that a feature may have, extremes and nulls among them.
fn write_events(path: &Path) {
    const ROWS: i64 = 60;
    let rows = || 0..ROWS;
    let sometimes = |i: i64| i % 5 != 3;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(rows()))),
        (
            "at",
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows().map(|i| 1_767_571_200_000_000 + i * 61_500_001))
                    .with_timezone("UTC"),
            ),
        ),
        // Nobody can ask for an entity without a name.
        (
            "user",
            Arc::new(StringArray::from_iter(
                rows().map(|i| (i % 20 != 19).then_some(["u1", "ü2", ""][i as usize % 3])),
            )),
        ),
        ("item", Arc::new(Int64Array::from_iter_values(rows().map(|i| [1, -7, i64::MAX, 0][i as usize % 4])))),
        ("code", Arc::new(Int32Array::from_iter_values(rows().map(|i| [1, i32::MIN][i as usize % 2])))),
        ("tag", Arc::new(StringArray::from_iter_values(rows().map(|i| ["t1", "t2"][i as usize % 2])))),
        ("b", Arc::new(BooleanArray::from_iter(rows().map(|i| sometimes(i).then_some(i % 2 == 0))))),
        ("i8", Arc::new(Int8Array::from_iter(rows().map(|i| sometimes(i).then_some((i * 7 - 128) as i8))))),
        (
            "i32",
            Arc::new(Int32Array::from_iter(rows().map(|i| sometimes(i).then_some(i as i32 * 71_582_788 - i32::MAX)))),
        ),
        ("i64", Arc::new(Int64Array::from_iter(rows().map(|i| sometimes(i).then_some(i64::MIN + i))))),
        ("u32", Arc::new(UInt32Array::from_iter(rows().map(|i| sometimes(i).then_some(u32::MAX - i as u32))))),
        ("f32", Arc::new(Float32Array::from_iter(rows().map(|i| sometimes(i).then_some(i as f32 / 3.0))))),
        (
            "f64",
            Arc::new(Float64Array::from_iter(
                rows().map(|i| sometimes(i).then_some([0.1, f64::INFINITY, -0.0, 1e-300, f64::NAN][i as usize % 5])),
            )),
        ),
        (
            "s",
            Arc::new(StringArray::from_iter(rows().map(|i| sometimes(i).then_some(["", "é€", "a b"][i as usize % 3])))),
        ),
        ("d", Arc::new(Date32Array::from_iter(rows().map(|i| sometimes(i).then_some(i as i32 * 1000 - 20_000))))),
        (
            "t",
            Arc::new(
                TimestampMicrosecondArray::from_iter(
                    rows().map(|i| sometimes(i).then_some((i - 30) * 86_400_000_000 + 1_999_999)),
                )
                .with_timezone("UTC"),
            ),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    let mut writer =
        ArrowWriter::try_new(fs::File::create(path).expect("a file"), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("closed");
}

const VALUES: [&str; 10] = ["b", "i8", "i32", "i64", "u32", "f32", "f64", "s", "d", "t"];

fn write_job(dir: &Path, redis: &Redis) -> PathBuf {
    write_events(&dir.join("ev.parquet"));
    let lasts = VALUES.map(|c| format!("      last_{c}: {{last: {c}, over: 7d}}\n")).concat();
    let text = format!(
        r#"job: feasts
version: 3
clock: event
order: event_time
sources:
  ev: {{file: {{path: "{dir}/ev.parquet"}}, id: id, event_time: at, disorder: 0s}}
features:
  pair:
    from: ev
    entity: [user, item]
    ttl: 30d
    aggregates:
      n: {{count: "*", over: [1h, 7d]}}
      mean_i32: {{mean: i32, over: 7d}}
{lasts}
  # The other order of the same key: one hash with `pair`.
  again: {{from: ev, entity: [item, user], aggregates: {{n: {{count: "*", over: 7d}}, biggest: {{max: f32, over: 7d}}}}}}
  code: {{from: ev, entity: [code], aggregates: {{n: {{count: "*", over: 10m}}, sum_i8: {{sum: i8, over: 7d}}}}}}
  tag: {{from: ev, entity: [tag], aggregates: {{n: {{count: "*", over: 7d}}}}}}
feature_sets:
  both: {{on: ev, take: [f32, pair.n_7d, pair.last_s_7d, code.*]}}
sinks:
  online: {{redis: {{url: "{url}", layout: feast, project: shop}}, refresh: 1s}}
  offline: {{delta: {{uri: "{dir}/lake"}}}}
"#,
        dir = dir.display(),
        url = redis.url(),
    );
    let file = dir.join("job.yaml");
    fs::write(&file, text).expect("a file");
    file
}

/// What the SDK reads, of all types, one key or two, entities that are there, empty or unknown, is what `features get` says;
/// so are values as of a time, from the tables.
#[test]
fn the_sdk_reads_what_features_get_says() {
    let Some(python) = feast("Feast's SDK on our Redis") else { return };
    let Some(redis) = Redis::start("Feast's SDK on our Redis") else { return };
    let dir = TempDir::new().expect("a folder");
    let file = write_job(dir.path(), &redis);
    let job = file.to_str().expect("text");
    let state = dir.path().join("state");
    let state = state.to_str().expect("text");
    let (code, _, err) = tidemill(&["run", job, "--until-end", "--state", state]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = tidemill(&["prove", job, "--state", state, "--online"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("online: "), "{out}");
    let repo = dir.path().join("repo");
    let repo = repo.to_str().expect("text");
    let (code, out, err) = tidemill(&["feast", "export", job, "--out", repo]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("feature_store.yaml"), "{out}");

    // Two views share the twelve hashes of the pairs; beside them two codes, two tags, and the job's own key.
    assert_eq!(redis.ask::<u64>(&["DBSIZE"]), 12 + 2 + 2 + 1);
    let users = ["u1", "ü2", "", "nobody"];
    let items = [1, -7, i64::MAX, 0, 99];
    let pairs: Vec<Value> =
        users.iter().flat_map(|user| items.iter().map(move |item| json!({"user": user, "item": item}))).collect();
    let request = json!({
        "online": [
            {"view": "pair", "entities": pairs},
            {"view": "again", "entities": pairs[..6]},
            {"view": "code", "entities": [{"code": 1}, {"code": i32::MIN}, {"code": 7}]},
            {"view": "tag", "entities": [{"tag": "t1"}, {"tag": "none"}]},
        ],
        "services": [{
            "service": "both",
            "entities": [{"user": "u1", "item": 1, "code": 1}, {"user": "ü2", "item": -7, "code": 7}],
            "keys": {"pair": ["user", "item"], "code": ["code"]},
        }],
        "past": [{
            "view": "code", "at": "2026-01-05T00:30:00Z", "features": ["n_10m", "sum_i8_7d"],
            "entities": [{"code": 1}, {"code": i32::MIN}],
        }],
    });
    let binary = env!("CARGO_BIN_EXE_tidemill");
    let found = peer(&python, &["read", repo, binary, job], &request.to_string());
    let agreed: Value = serde_json::from_str(&found).expect("counts");
    for (what, at_least) in [("values", 120), ("nulls", 8), ("missing", 100), ("services", 8), ("past", 4)] {
        assert!(agreed[what].as_u64().is_some_and(|n| n >= at_least), "{what}: {agreed}");
    }
}

/// Another layout under the same prefix is another life: the values are written again.
#[test]
fn a_changed_layout_is_refused_until_the_job_has_written_it() {
    let Some(redis) = Redis::start("layouts in Redis") else { return };
    let dir = TempDir::new().expect("a folder");
    let file = write_job(dir.path(), &redis);
    let job = file.to_str().expect("text");
    let (state, native) = (dir.path().join("state"), "sinks.online.redis.layout=native");
    let state = state.to_str().expect("text");
    let run = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        tidemill(&[&["run", job, "--until-end", "--state", state], &sets[..]].concat())
    };
    // The project is Feast's, so the native layout refuses it.
    let text = fs::read_to_string(&file).expect("the job").replace(", project: shop", "");
    fs::write(&file, &text).expect("a file");
    let (code, _, err) = run(&[native]);
    assert_eq!(code, 0, "{err}");
    let get = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        tidemill(&[&["features", "get", "code", "code=1", "--job", job], &sets[..]].concat())
    };
    let (code, before, err) = get(&[native]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = get(&[]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("laid out as `native`"), "{err}");
    let (code, _, err) = run(&[]);
    assert_eq!(code, 0, "{err}");
    let (code, after, err) = get(&[]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(after, before);
    // Back again, with nothing left to read: the state holds what has to be written.
    redis.ask::<i64>(&["DEL", "feasts:code:\u{1}"]);
    let (code, _, err) = run(&[native]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(get(&[native]).1, before);
}

/// A repository with `--remote` asks the server that it names, with the reader's token.
#[test]
fn a_remote_repository_asks_the_server() {
    let Some(python) = feast("Feast's SDK with a remote store") else { return };
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", server.local_addr().expect("an address"));
    let dir = TempDir::new().expect("a folder");
    let repo = dir.path().join("repo");
    let repo = repo.to_str().expect("text");
    let job = root().join("dataflows/card_fraud.yaml");
    let job = job.to_str().expect("text");
    let export = ["feast", "export", job, "--out", repo, "--remote", &url, "--token-env", "TIDEMILL_TEST_TOKEN"];
    let (code, out, err) = tidemill(&export);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("set before use: TIDEMILL_TEST_TOKEN"), "{out}");
    let asked = std::thread::spawn(move || {
        let (mut connection, _) = server.accept().expect("a client");
        let mut request = BufReader::new(connection.try_clone().expect("a connection"));
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let mut line = String::new();
            request.read_line(&mut line).expect("a line");
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            head += &line;
        }
        let mut body = vec![0; length];
        request.read_exact(&mut body).expect("a body");
        let time = "2026-01-05T00:00:00Z";
        let answer = json!({
            "metadata": {"feature_names": ["customer_id", "nb_tx_1h"]},
            "results": [
                {"values": [1], "statuses": ["PRESENT"], "event_timestamps": [time]},
                {"values": [3], "statuses": ["PRESENT"], "event_timestamps": [time]},
            ],
        })
        .to_string();
        write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).expect("sent");
        (head, serde_json::from_slice::<Value>(&body).expect("JSON"))
    });
    let found = peer(&python, &["remote", repo, "customer:nb_tx_1h"], "{\"customer_id\": 1}");
    let (head, body) = asked.join().expect("an answer");
    assert_eq!(found.trim(), "{'customer_id': [1], 'nb_tx_1h': [3]}");
    assert!(
        head.starts_with("POST /get-online-features ") && head.contains("Authorization: Bearer secret-1"),
        "{head}"
    );
    assert_eq!((&body["features"], &body["entities"]), (&json!(["customer:nb_tx_1h"]), &json!({"customer_id": [1]})));
}

#[test]
fn what_feast_cannot_have_is_said() {
    let dir = TempDir::new().expect("a folder");
    let job = dir.path().join("job.yaml");
    let out = dir.path().join("repo");
    let (job, out) = (job.to_str().expect("text"), out.to_str().expect("text"));
    let write = |online: &str, entity: &str| {
        let text = format!(
            "job: f\nversion: 1\nsources:\n  ev: {{generator: {{stream: transactions, duration: 1d}}, event_time: ts}}\n\
             features:\n  v: {{from: ev, entity: [{entity}], aggregates: {{n: {{count: \"*\", over: 1d}}}}}}\n\
             sinks:\n  online: {online}\n"
        );
        fs::write(job, text).expect("a file");
    };
    let feast = |more: &[&str]| tidemill(&[&["feast", "export", job, "--out", out], more].concat());
    let refused = |more: &[&str], said: &str| {
        let (code, printed, err) = feast(more);
        assert_eq!((code, printed.as_str()), (2, ""), "{err}");
        assert!(err.contains(said), "{err}");
    };
    write("{embedded: {}}", "customer_id");
    refused(&[], "set `sinks.online.redis.layout: feast`, or give --remote URL");
    refused(&["--remote", "localhost"], "begins with http://");
    refused(&["--remote", "http://localhost:1", "--project", "a-b"], "no name of a Feast project");
    let (code, _, err) = feast(&["--remote", "http://localhost:1", "--project", "other"]);
    assert_eq!(code, 0, "{err}");
    let settings = || fs::read_to_string(dir.path().join("repo/feature_store.yaml")).expect("settings");
    assert!(settings().contains("type: remote\n  path: \"http://localhost:1\""), "{}", settings());
    write("{redis: {url: \"redis://me:${env:PASS}@db:7000/3\", layout: feast}}", "customer_id");
    let (code, printed, err) = feast(&[]);
    assert_eq!(code, 0, "{err}");
    assert!(printed.contains("set before use: PASS"), "{printed}");
    assert!(
        settings().contains("connection_string: 'db:7000,db=3,username=me,password=\"${PASS}\"'"),
        "{}",
        settings()
    );
    refused(&["--project", "other"], "the job writes to the project `f`");
    write("{redis: {url: \"redis://:s3cret@db\", layout: feast}}", "customer_id");
    assert_eq!(feast(&[]).0, 0);
    assert!(!settings().contains("s3cret") && settings().contains("${REDIS_PASSWORD}"), "{}", settings());
    write("{redis: {url: \"redis://db\", layout: feast}}", "ts");
    refused(&[], "Feast's keys hold no columns of type");
    write("{redis: {url: \"redis://db\", layout: feast, project: a-b}}", "customer_id");
    refused(&[], "`a-b` is no name of a Feast project");
    write("{redis: {url: \"redis://db\", project: a}}", "customer_id");
    refused(&[], "a project is Feast's");
    // What was not exported is left alone.
    fs::write(dir.path().join("repo/features.py"), "mine = 1\n").expect("a file");
    write("{redis: {url: \"redis://db\", layout: feast}}", "customer_id");
    refused(&[], "was not made by `tidemill feast export`");
}

/// The job of the tour, as a repository.
#[test]
fn the_exported_definitions_are_pinned() {
    let lake = |name: &str| (name == "LAKE").then(|| "/lake".to_owned());
    let (plan, _) =
        tidemill::engine::load(&root().join("dataflows/card_fraud.yaml"), &[], &lake).unwrap_or_else(|f| panic!("{f}"));
    let online = tidemill::plan::feast::Online::Remote { url: "http://localhost:7070".into(), token: None };
    let repository = tidemill::plan::feast::repository(&plan, &online, None).expect("a repository");
    let committed = root().join("tests/golden/feast/card_fraud.py");
    if std::env::var_os("TIDEMILL_BLESS").is_some() {
        fs::create_dir_all(committed.parent().expect("a folder")).expect("a folder");
        fs::write(&committed, &repository.definitions).expect("written");
    }
    assert_eq!(
        fs::read_to_string(&committed).expect("committed"),
        repository.definitions,
        "TIDEMILL_BLESS=1 writes it"
    );
}
