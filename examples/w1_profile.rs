use arrow::array::*;
use arrow::datatypes::*;
use std::sync::Arc;
use std::time::Instant;
use tidemill::bench::w1_data::W1Data;
use tidemill::features::view::{ViewOptions, ViewState};
use tidemill::plan::model::{AggregateFunction as F, *};

fn agg(function: F, input: Option<usize>, w: i64, tiled: bool) -> AggregatePlan {
    AggregatePlan {
        name: String::new(),
        function,
        input,
        input_type: input.map(|_| DataType::Float64),
        window: Window::Trailing(w),
        resolution: tiled.then_some(w / 60),
        output_type: if function == F::Count {
            DataType::Int64
        } else {
            DataType::Float64
        },
        default: None,
    }
}
fn view(entity: usize, aggregates: Vec<AggregatePlan>) -> ViewPlan {
    ViewPlan {
        name: "v".into(),
        stream: StreamRef::Source(0),
        entity: vec![entity],
        entity_names: vec!["k".into()],
        delay: 0,
        include_current: true,
        aggregates,
        derived: vec![],
        post: vec![],
        ttl: None,
        disorder: 5_000_000,
    }
}
fn cpu() -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse::<f64>()
        .unwrap()
}
fn main() {
    let tiled = std::env::args().nth(1).as_deref() == Some("tiled");
    let uniform = std::env::args().nth(2).as_deref() == Some("uniform");
    let path = format!("/tmp/w1{}.parquet", if uniform { "u" } else { "" });
    let path = std::path::Path::new(&path);
    if !path.exists() {
        let t = Instant::now();
        W1Data {
            merchant_exponent: (!uniform).then_some(1.1),
            ..W1Data::default()
        }
        .write(path)
        .unwrap();
        println!("generated in {:?}", t.elapsed());
    }
    let t0 = cpu();
    let mut sum0 = 0;
    if std::env::var("BASE").is_ok() {
        return println!(
            "{:?} {}",
            tidemill::bench::windows_baseline::run(path, tiled),
            (cpu() - t0) / 1e7
        );
    }
    if std::env::var("NOBASE").is_err() {
        let base = tidemill::bench::windows_baseline::run(path, tiled).unwrap();
        println!(
            "baseline {:.1} ns/event cpu, {base:?}",
            (cpu() - t0) / base.events as f64
        );
        sum0 = base.checksum;
    }
    let mut outs: Vec<Vec<Vec<u64>>> = vec![];
    const H: i64 = 3_600_000_000;
    let mut card = vec![];
    for w in [H, 24 * H] {
        card.push(agg(F::Count, None, w, tiled));
        for f in [F::Sum, F::Mean, F::Min, F::Max, F::Stddev] {
            card.push(agg(f, Some(4), w, tiled));
        }
    }
    let merchant = vec![agg(F::Count, None, H, tiled), agg(F::Mean, Some(4), H, tiled)];
    let tt = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("_time", tt, false),
        Field::new("_ord", DataType::UInt64, false),
        Field::new("card_id", DataType::Int64, false),
        Field::new("merchant_id", DataType::Int64, false),
        Field::new("amount", DataType::Float64, false),
    ]));
    let o = ViewOptions {
        order: Order::EventTime,
        refresh: false,
        revise_within: None,
    };
    let mut cards = ViewState::new(&view(2, card), &schema, o).unwrap();
    let mut merchants = ViewState::new(&view(3, merchant), &schema, o).unwrap();
    // in memory, sorted
    let t = Instant::now();
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap())
            .unwrap()
            .with_batch_size(8192)
            .build()
            .unwrap();
    let (mut n, mut pend): (usize, Vec<(i64, u64, i64, i64, f64)>) = (0, vec![]);
    let mut batches = vec![];
    let mut max = i64::MIN;
    let cut = |pend: &mut Vec<(i64, u64, i64, i64, f64)>, w: i64| {
        pend.sort_unstable_by_key(|r| (r.0, r.1));
        let k = pend.partition_point(|r| r.0 < w);
        let out: Vec<_> = pend.drain(..k).collect();
        RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(
                    out.iter()
                        .map(|r| Some(r.0))
                        .collect::<TimestampMicrosecondArray>()
                        .with_timezone("UTC"),
                ),
                Arc::new(out.iter().map(|r| r.1).collect::<UInt64Array>()),
                Arc::new(out.iter().map(|r| r.2).collect::<Int64Array>()),
                Arc::new(out.iter().map(|r| r.3).collect::<Int64Array>()),
                Arc::new(out.iter().map(|r| r.4).collect::<Float64Array>()),
            ],
        )
        .unwrap()
    };
    for b in reader {
        let b = b.unwrap();
        let ts = b.column(4).as_primitive::<TimestampMillisecondType>().values();
        let (c, m, a) = (
            b.column(1).as_primitive::<Int64Type>().values(),
            b.column(2).as_primitive::<Int64Type>().values(),
            b.column(3).as_primitive::<Float64Type>().values(),
        );
        for i in 0..b.num_rows() {
            pend.push((ts[i] * 1000, n as u64, c[i], m[i], a[i]));
            n += 1;
            max = max.max(ts[i] * 1000);
        }
        batches.push(cut(&mut pend, max - 5_000_000));
    }
    batches.push(cut(&mut pend, i64::MAX));
    println!("decode+sort {:?} {n}", t.elapsed());
    for (name, v) in [("card", &mut cards), ("merchant", &mut merchants)] {
        let t0 = cpu();
        let (mut slow, mut check) = (0.0f64, 0u64);
        let mut adv = std::time::Duration::ZERO;
        for b in &batches {
            let tb = cpu();
            let out = v.apply_own(b).unwrap();
            if std::env::var("CHECK").is_ok() {
                outs.push(
                    out.iter()
                        .map(|c| c.to_data().buffers()[0].typed_data::<u64>().to_vec())
                        .collect(),
                );
            }
            check ^= out[0].len() as u64;
            let ta = Instant::now();
            if b.num_rows() > 0 {
                v.advance(
                    b.column(0)
                        .as_primitive::<TimestampMicrosecondType>()
                        .value(b.num_rows() - 1),
                );
            }
            adv += ta.elapsed();
            slow = slow.max((cpu() - tb) * 1e-9);
        }
        let s = (cpu() - t0) * 1e-9;
        let (sk, sb) = v.sparse_keys();
        println!(
            "{name}: {:.1} ns/event, slowest batch {:.2} ms, advance {:.1} ns/event, check {check:x}, keys {}, bytes {} ({:.0}/key), sparse {} {:.0}/key",
            s * 1e9 / n as f64,
            slow * 1e3,
            adv.as_secs_f64() * 1e9 / n as f64,
            v.keys(),
            v.memory_bytes(),
            v.memory_bytes() as f64 / v.keys() as f64,
            sk,
            sb as f64 / sk as f64
        );
    }
    if !outs.is_empty() {
        let k = outs.len() / 2;
        let mut sum = tidemill::bench::windows_baseline::Checksum::default();
        for i in 0..k {
            let cols: Vec<&[u64]> = outs[i].iter().chain(&outs[i + k]).map(|c| c.as_slice()).collect();
            sum.add(&cols);
        }
        println!("checksum {} equal {}", sum.value(), sum.value() == sum0);
    }
}
