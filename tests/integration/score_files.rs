//! `tidemill score` as its users start it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch};
use arrow::datatypes::Float32Type;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;
use tidemill::registry::{By, CHAMPION, Content, Registration, Registry, Signature};

use crate::support::root;

const COLUMNS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn tidemill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(arguments).current_dir(root()).env_remove("TIDEMILL_LOG").env_remove("TIDEMILL_REGISTRY");
    command.stdin(Stdio::null());
    command
}

/// Writes row groups of 50,000 rows, one after the other.
fn write(path: &Path, groups: usize) {
    const GROUP: usize = 50_000;
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(GROUP)).build();
    let mut writer = None;
    for group in 0..groups {
        let ids = (group * GROUP) as i64..((group + 1) * GROUP) as i64;
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("id".into(), Arc::new(Int64Array::from_iter_values(ids.clone())))];
        for (c, name) in COLUMNS.iter().enumerate() {
            let value = |id: i64| ((id * (c as i64 + 31)) % 4099) as f32 / 1000.0 - 2.0;
            columns.push(((*name).into(), Arc::new(Float32Array::from_iter_values(ids.clone().map(value)))));
        }
        let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
        let writer = writer.get_or_insert_with(|| {
            ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), Some(properties.clone()))
                .expect("a writer")
        });
        writer.write(&batch).expect("written");
        writer.flush().expect("a row group");
    }
    writer.expect("at least one group").close().expect("closed");
}

/// Largest resident size of a run, in bytes, and what it printed.
#[expect(clippy::zombie_processes, reason = "wait4 waits, and tells its size")]
fn peak(command: &mut Command) -> (u64, String) {
    use std::io::Read;
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut out = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let pid = i32::try_from(child.id()).expect("an id");
    // SAFETY: it waits for a child of ours, once, and fills structures of ours.
    let (found, usage) = unsafe { (libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()), usage.assume_init()) };
    assert!(found == pid && status == 0, "it ended with {status}: {out}");
    (u64::try_from(usage.ru_maxrss).expect("not negative") << 10, out)
}

#[test]
fn memory_does_not_grow_with_the_files() {
    let dir = TempDir::new().expect("a folder");
    let (small, large) = (dir.path().join("small.parquet"), dir.path().join("large.parquet"));
    write(&small, 4);
    write(&large, 60);
    let model = root().join("tests/golden/models/forest_binary.onnx").display().to_string();
    let measure = |input: &Path, out: &str| {
        let (input, out) = (input.display().to_string(), dir.path().join(out).display().to_string());
        let columns = COLUMNS.join(",");
        let arguments = [
            "score",
            "--model",
            &model,
            "--in",
            &input,
            "--out",
            &out,
            "--columns",
            &columns,
            "--threads",
            "2",
            "--json",
        ];
        let (bytes, text) = peak(&mut tidemill(&arguments));
        let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        (bytes, report["rows"].as_u64().expect("rows"))
    };
    let (of_small, rows) = measure(&small, "small");
    assert_eq!(rows, 200_000);
    let (of_large, rows) = measure(&large, "large");
    assert_eq!(rows, 3_000_000);
    // Fifteen times the rows: 108 MB of columns in place of 7.
    assert!(of_large < of_small + (32 << 20), "{of_small} bytes for 200,000 rows, {of_large} for 3,000,000");
}

#[test]
fn a_registered_model_scores_a_directory() {
    let dir = TempDir::new().expect("a folder");
    let registry = dir.path().join("registry").display().to_string();
    let model = root().join("tests/golden/models/lr_binary.onnx");
    let mut registration =
        Registration::new("fraud", Content::File(model), Signature::default(), By::new("test", "a test"));
    registration.alias = Some(CHAMPION.to_owned());
    Registry::open(&registry).and_then(|r| r.register(registration)).expect("it is registered");
    std::fs::create_dir_all(dir.path().join("in/day=1")).expect("a folder");
    write(&dir.path().join("in/day=1/x.parquet"), 1);
    write(&dir.path().join("in/y.parquet"), 1);
    let (input, out) = (dir.path().join("in").display().to_string(), dir.path().join("out").display().to_string());
    let columns = COLUMNS.join(",");
    let arguments = |more: &[&str]| {
        let fixed = [
            "score",
            "--model",
            "fraud@champion",
            "--registry",
            &registry,
            "--in",
            &input,
            "--out",
            &out,
            "--columns",
            &columns,
        ];
        let mut command = tidemill(&fixed);
        command.args(["--keep", "id", "--score", "score=probabilities[1]"]).args(more);
        command.output().expect("the program starts")
    };
    let done = arguments(&[]);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success() && text.starts_with("2 files written to ") && text.contains("100,000 rows"),
        "{text}"
    );
    let file = File::open(dir.path().join("out/day=1/x.parquet")).expect("it is where its input was");
    let batch = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("readable").next();
    let batch = batch.expect("rows").expect("decodable");
    let names: Vec<&str> = batch.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["id", "score", "model_version", "model_hash", "reason"]);
    assert!(batch.column(1).as_primitive::<Float32Type>().iter().all(|v| v.is_some_and(|v| (0.0..=1.0).contains(&v))));
    assert_eq!(batch.column(2).as_string::<i32>().value(0), "1");
    let again = String::from_utf8_lossy(&arguments(&[]).stdout).into_owned();
    assert!(again.contains("2 were there already"), "{again}");
    let other = arguments(&["--score", "two=probabilities[0]"]);
    let why = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.code() == Some(2) && why.contains("--replace"), "{why}");
    for (model, part) in [("nobody@champion", "nobody"), ("nothing.onnx", "there is no file")] {
        let bad =
            tidemill(&["score", "--model", model, "--registry", &registry, "--in", &input, "--out", &out]).output();
        let bad = bad.expect("the program starts");
        let why = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert!(bad.status.code() == Some(2) && why.contains(part), "{why}");
    }
}
