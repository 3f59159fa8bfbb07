//! The same rows in every format decode to the same batch, in any cut; random bytes never panic.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field};
use proptest::prelude::*;

use super::kit::{Dir, Plan};
use crate::ingest::decode::normalise::UNIT_KEY;
use crate::ingest::row_json;
use crate::plan::expr::time_type;
use crate::plan::model::FileFormat;

fn fields() -> Vec<Field> {
    vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ts", time_type(), false).with_metadata([(UNIT_KEY.into(), "ms".into())].into()),
        Field::new("amount", DataType::Float64, true),
        Field::new("n", DataType::Int32, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("day", DataType::Date32, true),
    ]
}

type Row = (i64, i64, Option<f64>, Option<i32>, Option<String>, Option<bool>, Option<i32>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let amount = prop_oneof![-1e12f64..1e12, Just(f64::NAN), Just(-0.0)];
    let row = (
        any::<i64>(),
        0i64..4_000_000_000_000,
        prop::option::of(amount),
        prop::option::of(any::<i32>()),
        prop::option::of("[a-c,\"\\\\ \n\u{e9}\u{1f600}]{1,8}"),
        prop::option::of(any::<bool>()),
        prop::option::of(0i32..30_000),
    );
    prop::collection::vec(row, 1..40)
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 7] = [
        ("id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)))),
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.1)))),
        ("amount", Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.2)))),
        ("n", Arc::new(Int32Array::from_iter(rows.iter().map(|r| r.3)))),
        ("text", Arc::new(StringArray::from_iter(rows.iter().map(|r| r.4.as_deref())))),
        ("flag", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| r.5)))),
        ("day", Arc::new(Date32Array::from_iter(rows.iter().map(|r| r.6)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn ndjson(batch: &RecordBatch) -> Vec<u8> {
    (0..batch.num_rows()).flat_map(|row| [row_json(batch, row), b"\n".to_vec()].concat()).collect()
}

fn csv(rows: &[Row]) -> String {
    fn text<T: ToString>(value: &Option<T>) -> String {
        value.as_ref().map_or_else(String::new, T::to_string)
    }
    let mut out = String::from("id,ts,amount,n,text,flag,day\r\n");
    for (id, ts, amount, n, words, flag, day) in rows {
        let words = words.as_ref().map_or_else(String::new, |w| format!("\"{}\"", w.replace('"', "\"\"")));
        out += &format!("{id},{ts},{},{},{words},{},{}\r\n", text(amount), text(n), text(flag), text(day));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_format_decodes_the_same_rows_in_any_cut(rows in rows(), rows_max in 1usize..12, group in 1usize..20) {
        let dir = Dir::new();
        let batch = batch(&rows);
        let files = [
            (FileFormat::Parquet, dir.parquet("a.parquet", &batch, group)),
            (FileFormat::Ndjson, dir.text("a.ndjson", ndjson(&batch))),
            (FileFormat::Csv, dir.text("a.csv", csv(&rows))),
        ];
        let mut outcomes = files.iter().map(|(format, path)| {
            let plan = Plan::new(*format, &[path], fields(), "ts").disorder(i64::MAX);
            let (whole, cut) = (plan.read(usize::MAX), plan.read(rows_max));
            assert_eq!(whole.dead, []);
            // As bits, since NaN is no equal of itself.
            let bits = |batch: &RecordBatch| (0..batch.num_rows()).map(|row| row_json(batch, row)).collect::<Vec<_>>();
            assert_eq!(bits(&whole.batch), bits(&cut.batch));
            (bits(&whole.batch), whole.watermark)
        });
        let first = outcomes.next().unwrap();
        prop_assert_eq!(first.0.len(), rows.len());
        for other in outcomes {
            prop_assert_eq!(&first, &other);
        }
    }

    #[test]
    fn random_bytes_never_panic_and_every_row_is_accounted_for(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'"'), Just(b','), Just(b'{')], 0..400),
        rows_max in 1usize..5,
    ) {
        let dir = Dir::new();
        for (format, header) in [(FileFormat::Ndjson, ""), (FileFormat::Csv, "id,ts,amount,n,text,flag,day\n")] {
            let path = dir.text("a", [header.as_bytes(), &bytes].concat());
            let plan = Plan::new(format, &[&path], fields(), "ts");
            let (whole, cut) = (plan.read(usize::MAX), plan.read(rows_max));
            prop_assert_eq!(&whole.dead, &cut.dead);
            prop_assert_eq!(&whole.counts, &cut.counts);
            let dead: u64 = whole.counts.dead.values().sum();
            prop_assert_eq!(whole.counts.read, whole.counts.accepted + whole.counts.blank + dead);
        }
    }

    #[test]
    fn a_parquet_file_with_flipped_bytes_never_panics(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let dir = Dir::new();
        let rows: Vec<Row> = (0..300).map(|i| (i, i * 1000, Some(i as f64), Some(7), Some(format!("{}", i % 9)), None, Some(1))).collect();
        let path = dir.parquet("a.parquet", &batch(&rows), 100);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        std::fs::write(&path, &bytes).unwrap();
        let plan = Plan::new(FileFormat::Parquet, &[&path], fields(), "ts");
        if let Ok(mut reader) = plan.open() {
            while let Ok(Some(decoded)) = reader.read(0, 77) {
                prop_assert!(decoded.rows_read <= 77);
            }
        }
    }
}
