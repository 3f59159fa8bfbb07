//! Files in, files out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float32Type, Int64Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::score::ScoreError;

fn golden(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(format!("{name}.onnx"));
    Model::load(path).expect("loads")
}

const COLUMNS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Rows with an id, eight columns with some nulls, and a text.
fn rows(n: usize) -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef)> =
        vec![("id".into(), Arc::new(Int64Array::from_iter_values(0..n as i64)) as ArrayRef)];
    for (c, name) in COLUMNS.iter().enumerate() {
        let value = |r: usize| (r % 97 != c * 7).then(|| ((r * (c + 3)) % 41) as f32 / 10.0 - 2.0);
        columns.push(((*name).into(), Arc::new(Float32Array::from_iter((0..n).map(value)))));
    }
    columns.push(("note".into(), Arc::new(StringArray::from_iter_values((0..n).map(|r| format!("row {r}"))))));
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn write(path: &Path, rows: &RecordBatch, group: usize) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).expect("a file"), rows.schema(), Some(properties)).expect("a writer");
    writer.write(rows).expect("written");
    writer.close().expect("closed");
}

fn read(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("there")).expect("Parquet");
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().expect("readable").map(|b| b.expect("decodable")).collect();
    concat_batches(&schema, &batches).expect("one schema")
}

fn options(model: Model, out: &Path) -> Options {
    Options {
        model,
        version: "7".into(),
        columns: COLUMNS.iter().map(|c| Mapped { name: (*c).into(), column: (*c).into() }).collect(),
        outputs: vec![ModelOutput { name: "score".into(), tensor: "probabilities".into(), element: Some(1) }],
        keep: Keep::Only(vec!["id".into()]),
        out: out.to_owned(),
        threads: 3,
        replace: false,
    }
}

fn input(path: &Path) -> Input {
    Input { path: path.to_owned(), name: PathBuf::from(path.file_name().expect("a name")) }
}

/// Whatever the row groups and threads: the scores of a scorer over all rows at once, to the bit, in the order of the input; rows that fail
/// have a reason.
#[test]
fn scores_are_a_scorers_in_the_order_of_the_input() {
    let dir = tempfile::tempdir().expect("a directory");
    let all = rows(5_000);
    let path = dir.path().join("rows.parquet");
    let model = golden("lr_binary");
    let typed: Vec<(&str, DataType)> = COLUMNS.iter().map(|c| (*c, DataType::Float32)).collect();
    let outputs = options(model.clone(), dir.path()).outputs;
    let columns: Vec<ArrayRef> = COLUMNS.iter().map(|c| all.column_by_name(c).expect("there").clone()).collect();
    let expected =
        model.bind(&typed, &outputs).expect("fits").scorer().expect("starts").score(&columns).expect("scores");
    assert!(!expected.failed.is_empty() && expected.failed.len() < 1_000, "some rows must fail");
    for (threads, group) in [(1, 5_000), (3, 700), (8, 100), (2, 4_999)] {
        write(&path, &all, group);
        let out = dir.path().join(format!("out-{threads}-{group}"));
        let options = Options { threads, ..options(model.clone(), &out) };
        let report = run(&[input(&path)], &options, &Progress::default()).expect("scored");
        assert_eq!((report.rows, report.failed), (5_000, expected.failed.len() as u64));
        let scored = read(&out.join("rows.parquet"));
        let names: Vec<&str> = scored.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["id", "score", VERSION, HASH, REASON]);
        assert_eq!(scored.column(0).as_primitive::<Int64Type>(), all.column(0).as_primitive::<Int64Type>());
        let bits = |array: &ArrayRef| -> Vec<Option<u32>> {
            array.as_primitive::<Float32Type>().iter().map(|v| v.map(f32::to_bits)).collect()
        };
        assert_eq!(bits(scored.column(1)), bits(&expected.columns[0]));
        let reasons = scored.column(4).as_string::<i32>();
        let failed: Vec<(usize, String)> =
            (0..5_000).filter(|r| reasons.is_valid(*r)).map(|r| (r, reasons.value(r).to_owned())).collect();
        assert_eq!(failed, expected.failed);
        assert!(scored.column(2).as_string::<i32>().iter().all(|v| v == Some("7")));
        assert!(scored.column(3).as_string::<i32>().iter().all(|v| v == Some(model.hash())));
    }
}

#[test]
fn what_is_done_is_not_done_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b, out) = (dir.path().join("a.parquet"), dir.path().join("b.parquet"), dir.path().join("out"));
    write(&a, &rows(100), 30);
    write(&b, &rows(0), 30);
    let first = options(golden("lr_binary"), &out);
    let both = [input(&a), input(&b)];
    let done = |options: &Options, inputs: &[Input]| {
        run(inputs, options, &Progress::default()).map(|r| (r.files, r.skipped, r.rows)).map_err(|e| e.to_string())
    };
    assert_eq!(done(&first, &both[..1]), Ok((1, 0, 100)));
    assert_eq!(done(&first, &both), Ok((1, 1, 0)), "the file without rows is written too");
    assert_eq!(read(&out.join("b.parquet")).num_rows(), 0);
    assert_eq!(done(&first, &both), Ok((0, 2, 0)));
    let other = Options { keep: Keep::All, ..first.clone() };
    let why = done(&other, &both).expect_err("it is there");
    assert!(why.contains("a.parquet") && why.contains("--replace"), "{why}");
    assert_eq!(done(&Options { replace: true, ..other }, &both), Ok((2, 0, 100)));
    assert_eq!(read(&out.join("a.parquet")).num_columns(), 14);
    let left: Vec<String> = std::fs::read_dir(&out)
        .expect("there")
        .map(|e| e.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_does_not_fit_is_told_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, out) = (dir.path().join("rows.parquet"), dir.path().join("out"));
    write(&path, &rows(10), 5);
    let fine = options(golden("lr_binary"), &out);
    let mapped =
        |names: &[&str]| names.iter().map(|n| Mapped { name: (*n).into(), column: (*n).into() }).collect::<Vec<_>>();
    for (options, part) in [
        (Options { columns: mapped(&["a", "zz"]), ..fine.clone() }, "no column zz"),
        (Options { columns: mapped(&["a", "b"]), ..fine.clone() }, "takes 8 values per row"),
        (Options { columns: Vec::new(), ..fine.clone() }, "--columns"),
        (
            Options { columns: mapped(&["a", "b", "c", "d", "e", "f", "g", "note"]), ..fine.clone() },
            "column note is Utf8",
        ),
        (Options { keep: Keep::Only(vec!["nope".into()]), ..fine.clone() }, "no column nope"),
        (
            Options { outputs: vec![ModelOutput { name: "id".into(), ..fine.outputs[0].clone() }], ..fine.clone() },
            "called id",
        ),
        (
            Options { outputs: vec![ModelOutput { tensor: "p".into(), ..fine.outputs[0].clone() }], ..fine.clone() },
            "reads p",
        ),
    ] {
        let error = run(&[input(&path)], &options, &Progress::default()).expect_err(part);
        assert!(error.to_string().contains(part) && error.to_string().contains("rows.parquet"), "{error}");
    }
    assert!(!out.exists(), "nothing was to be written");
    std::fs::write(dir.path().join("no.parquet"), b"no Parquet").expect("written");
    let error = run(&[input(&dir.path().join("no.parquet"))], &fine, &Progress::default()).expect_err("no Parquet");
    assert!(matches!(error, FilesError::Read { .. }), "{error}");
    let twice = [input(&path), input(&path)];
    assert!(run(&twice, &fine, &Progress::default()).expect_err("twice").to_string().contains("both become"));
    let own = Options { out: dir.path().to_owned(), replace: true, ..fine.clone() };
    assert!(
        run(&[input(&path)], &own, &Progress::default()).expect_err("itself").to_string().contains("its own scores")
    );
    let stopped = Progress::default();
    stopped.stop();
    assert!(matches!(run(&[input(&path)], &fine, &stopped), Err(FilesError::Stopped)));
    let _: fn(ScoreError) -> FilesError = FilesError::from;
}
