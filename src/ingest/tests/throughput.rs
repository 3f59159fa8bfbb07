//! How fast clean files leave a reader: `cargo test --profile ci --lib -- --ignored --nocapture ingest::tests::throughput`.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field};

use super::kit::{Dir, Plan};
use crate::ingest::decode::normalise::UNIT_KEY;
use crate::ingest::row_json;
use crate::plan::expr::time_type;
use crate::plan::model::FileFormat;

const ROWS: i64 = 4_000_000;

fn fields() -> Vec<Field> {
    vec![
        Field::new("txn_id", DataType::Int64, true),
        Field::new("card_id", DataType::Int64, true),
        Field::new("merchant_id", DataType::Int64, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("ts", time_type(), true).with_metadata([(UNIT_KEY.into(), "ms".into())].into()),
    ]
}

fn rows(n: i64) -> RecordBatch {
    let mix = |i: i64| (i.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).cast_signed();
    let columns: [(&str, ArrayRef); 5] = [
        ("txn_id", Arc::new(Int64Array::from_iter_values(0..n))),
        ("card_id", Arc::new(Int64Array::from_iter_values((0..n).map(|i| mix(i) % 1_000_000)))),
        ("merchant_id", Arc::new(Int64Array::from_iter_values((0..n).map(|i| mix(i + 7) % 10_000)))),
        ("amount", Arc::new(Float64Array::from_iter_values((0..n).map(|i| (mix(i) % 100_000) as f64 / 100.0)))),
        (
            "ts",
            Arc::new(TimestampMillisecondArray::from_iter_values(
                (0..n).map(|i| 1_577_836_800_000 + i * 26 + mix(i) % 5_000),
            )),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn measure(name: &str, plan: &Plan, rows: i64) {
    for rows_max in [8_192, 65_536] {
        let best = (0..5).map(|_| {
            let start = Instant::now();
            let mut reader = plan.open().unwrap();
            let mut seen = 0;
            while let Some(decoded) = reader.read(0, rows_max).unwrap() {
                assert!(decoded.dead.is_empty());
                seen += decoded.batch.num_rows() as i64;
            }
            assert_eq!(seen, rows);
            start.elapsed().as_secs_f64()
        });
        let best = best.fold(f64::INFINITY, f64::min);
        println!("{name}, {rows_max} rows a read: {:.2} M rows/s", rows as f64 / best / 1e6);
    }
}

#[test]
#[ignore = "a measurement"]
fn clean_files() {
    let dir = Dir::new();
    let batch = rows(ROWS);
    let plan = |format, path: &std::path::Path| Plan::new(format, &[path], fields(), "ts").disorder(5_000_000);
    let path = dir.parquet("a.parquet", &batch, 1_000_000);
    measure("Parquet, dictionaries, uncompressed", &plan(FileFormat::Parquet, &path), ROWS);
    {
        use parquet::basic::{Compression, ZstdLevel};
        use parquet::file::properties::WriterProperties;
        for (name, compression) in [
            ("plain", Compression::UNCOMPRESSED),
            ("plain, snappy", Compression::SNAPPY),
            ("plain, zstd 1", Compression::ZSTD(ZstdLevel::default())),
        ] {
            let path = dir.path().join("b.parquet");
            let properties =
                WriterProperties::builder().set_dictionary_enabled(false).set_compression(compression).build();
            let file = std::fs::File::create(&path).unwrap();
            let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            measure(&format!("Parquet, {name}"), &plan(FileFormat::Parquet, &path), ROWS);
        }
    }
    let n = ROWS / 8;
    let lines: Vec<u8> = (0..n as usize).flat_map(|row| [row_json(&batch, row), b"\n".to_vec()].concat()).collect();
    let bytes = lines.len();
    measure(
        &format!("NDJSON, {} bytes a line", bytes / n as usize),
        &plan(FileFormat::Ndjson, &dir.text("a", lines)),
        n,
    );
    let epoch: Vec<u8> = (0..n as usize)
        .flat_map(|row| {
            let value = |i: usize| batch.column(i).as_any().downcast_ref::<Int64Array>().unwrap().value(row);
            let ts = batch.column(4).as_any().downcast_ref::<TimestampMillisecondArray>().unwrap().value(row);
            let amount = batch.column(3).as_any().downcast_ref::<Float64Array>().unwrap().value(row);
            format!(
                r#"{{"txn_id":{},"card_id":{},"merchant_id":{},"amount":{amount},"ts":{ts}}}{}"#,
                value(0),
                value(1),
                value(2),
                "\n"
            )
            .into_bytes()
        })
        .collect();
    measure("NDJSON, epoch times", &plan(FileFormat::Ndjson, &dir.text("b", &epoch)), n);
    let csv = String::from_utf8(epoch).unwrap();
    let csv: String = csv
        .lines()
        .map(|l| {
            l.split(',').map(|f| f.split(':').nth(1).unwrap().trim_end_matches('}')).collect::<Vec<_>>().join(",")
                + "\n"
        })
        .collect();
    let csv = format!("txn_id,card_id,merchant_id,amount,ts\n{csv}");
    measure("CSV, epoch times", &plan(FileFormat::Csv, &dir.text("c", csv)), n);
}
