use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use proptest::prelude::*;

use super::calendar::{DAY, HOUR};
use super::traffic::{CARD_DAYS, TERMINAL_DAYS};
use super::*;
use crate::plan::model::Rate;

/// 2026-01-05, a Monday, at 00:00:00 UTC.
const START: i64 = 1_767_571_200_000_000;

fn connector(stream: GeneratorStream) -> GeneratorConnector {
    GeneratorConnector {
        stream,
        seed: 42,
        customers: 2_000,
        terminals: 4_000,
        start: START,
        duration: Some(28 * DAY),
        label_delay: 7 * DAY,
        drift_after: None,
        rate: Rate::Max,
    }
}

fn open(connector: &GeneratorConnector) -> Generator {
    Generator::new(connector, &schema(connector.stream)).unwrap()
}

fn all(connector: &GeneratorConnector) -> RecordBatch {
    let mut generator = open(connector);
    let total = generator.rows_total().unwrap();
    let batch = generator.read(usize::MAX).unwrap();
    assert_eq!(batch.num_rows() as u64, total);
    assert!(generator.read(1).is_none());
    batch
}

fn longs<'a>(batch: &'a RecordBatch, name: &str) -> &'a [i64] {
    batch[name].as_primitive::<Int64Type>().values()
}

fn times<'a>(batch: &'a RecordBatch, name: &str) -> &'a [i64] {
    batch[name].as_primitive::<TimestampMicrosecondType>().values()
}

fn amounts(batch: &RecordBatch) -> &[f64] {
    batch["amount"].as_primitive::<Float64Type>().values()
}

fn ints<'a>(batch: &'a RecordBatch, name: &str) -> &'a [i32] {
    batch[name].as_primitive::<Int32Type>().values()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Neither the sizes of reads nor a seek changes a byte, in worlds of any size, before and after a drift.
    #[test]
    fn rows_depend_on_their_offset_alone(
        seed in any::<u64>(),
        customers in prop_oneof![1u32..20, 1000u32..3000],
        terminals in prop_oneof![1u32..20, 1000u32..3000],
        labels in any::<bool>(),
        start in -1i64 << 48..1 << 51,
        drift in proptest::option::of(0..3 * DAY),
        sizes in prop::collection::vec(0usize..3000, 1..8),
        from in 0u64..8000,
    ) {
        let stream = if labels { GeneratorStream::Labels } else { GeneratorStream::Transactions };
        let connector = GeneratorConnector {
            seed, customers, terminals, start, drift_after: drift, duration: None, ..connector(stream)
        };
        let whole = open(&connector).read(12_000).unwrap();
        let mut pieces = open(&connector);
        pieces.seek(from);
        let mut at = from as usize;
        for size in sizes {
            let size = size.min(12_000 - at);
            let batch = pieces.read(size).unwrap();
            prop_assert_eq!(&batch, &whole.slice(at, size));
            at += size;
            prop_assert_eq!(pieces.offset(), at as u64);
        }
        let time = times(&whole, if labels { "known_at" } else { "ts" });
        prop_assert!(time.is_sorted());
        prop_assert!(time[0] >= start);
    }
}

#[test]
fn a_seed_names_one_world() {
    let one = connector(GeneratorStream::Transactions);
    assert_eq!(all(&one), all(&one));
    let other = GeneratorConnector { seed: 43, ..one.clone() };
    assert_ne!(all(&one), all(&other));
    // Recorded offsets of generated traffic mean nothing if this changes.
    let batch = all(&one);
    let bytes: Vec<u8> = [longs(&batch, "customer_id"), longs(&batch, "terminal_id"), times(&batch, "ts")]
        .concat()
        .iter()
        .chain(amounts(&batch).iter().map(|a| (a * 100.0).round() as i64).collect::<Vec<_>>().iter())
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert_eq!(crate::base::hash_bytes(&bytes), PINNED, "the generated world has changed");
}

const PINNED: u64 = 4665294805608813018;

#[test]
fn labels_tell_each_transaction_once_and_late() {
    let transactions = all(&connector(GeneratorStream::Transactions));
    let labels = all(&connector(GeneratorStream::Labels));
    assert_eq!(longs(&transactions, "tx_id"), longs(&labels, "tx_id"));
    assert!(longs(&labels, "tx_id").iter().copied().eq(0..labels.num_rows() as i64));
    let known: Vec<i64> = times(&transactions, "ts").iter().map(|t| t + 7 * DAY).collect();
    assert_eq!(times(&labels, "known_at"), known);
    let fraud: Vec<i32> = ints(&labels, "scenario").iter().map(|s| i32::from(*s > 0)).collect();
    assert_eq!(ints(&labels, "is_fraud"), fraud);

    // The label of a row is the fraud that was done to it.
    let mut traffic = Traffic::new(&connector(GeneratorStream::Transactions));
    let mut block = Block::default();
    for index in 0..transactions.num_rows() as u64 / BLOCK_ROWS {
        traffic.fill(index, &mut block);
        let rows = (index * BLOCK_ROWS) as usize..((index + 1) * BLOCK_ROWS) as usize;
        assert_eq!(&times(&transactions, "ts")[rows.clone()], block.times);
        assert!(ints(&labels, "scenario")[rows].iter().copied().eq(block.scenarios.iter().map(|s| i32::from(*s))));
    }
}

#[test]
fn traffic_has_its_distributions() {
    let connector = GeneratorConnector { duration: Some(84 * DAY), ..connector(GeneratorStream::Transactions) };
    let batch = all(&connector);
    let labels = all(&GeneratorConnector { stream: GeneratorStream::Labels, ..connector });
    let rows = batch.num_rows() as f64;
    let time = times(&batch, "ts");
    assert!(*time.last().unwrap() < START + 84 * DAY);

    // Mean rate 2.05 a day and customer.
    assert!((rows / (84.0 * 2_000.0) - 2.05).abs() < 0.06, "{} a day and customer", rows / 84.0 / 2_000.0);
    let hours = |from: i64, to: i64| {
        time.iter().filter(|t| (from..=to).contains(&(t.rem_euclid(DAY) / HOUR))).count() as f64 / rows
    };
    assert!((hours(0, 6) - 0.0611).abs() < 0.005, "night {}", hours(0, 6));
    assert!((hours(18, 18) - 0.0815).abs() < 0.005, "evening {}", hours(18, 18));

    // Means of customers are uniform from 5 to 100 euros; categories keep the mean near that of the customer.
    let mean = amounts(&batch).iter().sum::<f64>() / rows;
    assert!((45.0..65.0).contains(&mean), "mean amount {mean}");
    assert!(amounts(&batch).iter().all(|a| (a * 100.0).round() / 100.0 == *a && *a > 0.0));
    let mut per_customer: HashMap<i64, Vec<f64>> = HashMap::new();
    for (customer, amount) in longs(&batch, "customer_id").iter().zip(amounts(&batch)) {
        per_customer.entry(*customer).or_default().push(*amount);
    }
    let rates: Vec<f64> = per_customer.values().map(|a| a.len() as f64 / 84.0).collect();
    assert!(rates.iter().copied().fold(f64::MAX, f64::min) < 0.4);
    assert!((3.5..5.0).contains(&rates.iter().copied().fold(0.0, f64::max)));

    // Frauds: about 0.8 %, the three kinds of the quiet world and no other.
    let mut scenarios = BTreeMap::new();
    ints(&labels, "scenario").iter().for_each(|s| *scenarios.entry(*s).or_insert(0.0) += 1.0 / rows);
    assert_eq!(scenarios.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (scenario, low, high) in [(1, 0.0007, 0.0015), (2, 0.0025, 0.0055), (3, 0.0015, 0.0045)] {
        assert!((low..high).contains(&scenarios[&scenario]), "{scenarios:?}");
    }
    let of = |scenario: i32| {
        let pairs = ints(&labels, "scenario").iter().zip(amounts(&batch));
        median(pairs.filter(|(s, _)| **s == scenario).map(|(_, a)| *a).collect())
    };
    assert!(
        of(1) > 4.0 * of(0) && of(3) > 3.0 * of(0) && of(2) < 1.5 * of(0),
        "{} {} {} {}",
        of(0),
        of(1),
        of(2),
        of(3)
    );
}

#[test]
fn frauds_keep_to_their_victims_and_days() {
    let connector = GeneratorConnector { duration: Some(84 * DAY), ..connector(GeneratorStream::Transactions) };
    let batch = all(&connector);
    let labels = all(&GeneratorConnector { stream: GeneratorStream::Labels, ..connector.clone() });
    for (scenario, column, days) in [(2, "terminal_id", TERMINAL_DAYS), (3, "customer_id", CARD_DAYS)] {
        let mut hit: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
        for ((who, time), s) in longs(&batch, column).iter().zip(times(&batch, "ts")).zip(ints(&labels, "scenario")) {
            if *s == scenario {
                hit.entry(*who).or_default().insert(time.div_euclid(DAY));
            }
        }
        assert!(hit.len() > 20, "{} victims", hit.len());
        let long = hit.values().filter(|d| d.last().unwrap() - d.first().unwrap() >= days).count();
        // A victim may fall twice; rarely.
        assert!(long * 10 <= hit.len(), "{long} of {} victims of scenario {scenario} beyond {days} days", hit.len());
    }

    // Everybody shops at terminals they know.
    let traffic = Traffic::new(&connector);
    for (customer, terminal) in longs(&batch, "customer_id").iter().zip(longs(&batch, "terminal_id")) {
        let known = traffic.world.known(&traffic.world.customers[*customer as usize]);
        assert!(known.contains(&(*terminal as u32)));
    }
}

#[test]
fn a_drift_moves_what_it_says() {
    let quiet = GeneratorConnector { duration: Some(56 * DAY), ..connector(GeneratorStream::Transactions) };
    let drifting = GeneratorConnector { drift_after: Some(28 * DAY), ..quiet.clone() };
    let (before, after) = (all(&quiet), all(&drifting));
    let at = times(&after, "ts").partition_point(|t| *t < START + 28 * DAY);
    assert_eq!(before.slice(0, at), after.slice(0, at), "the drift reaches into the past");

    let labels = all(&GeneratorConnector { stream: GeneratorStream::Labels, ..drifting });
    let genuine = |from: usize, to: usize| {
        let rows = (from..to).filter(|i| ints(&labels, "scenario")[*i] == 0);
        median(rows.map(|i| amounts(&after)[i]).collect())
    };
    let level = genuine(at, after.num_rows()) / genuine(0, at);
    assert!((1.45..1.55).contains(&level), "amount level {level}");

    let night = |from: usize, to: usize| {
        let count = times(&after, "ts")[from..to].iter().filter(|t| t.rem_euclid(DAY) < 7 * HOUR).count();
        count as f64 / (to - from) as f64
    };
    assert!((night(0, at) - 0.061).abs() < 0.005 && (night(at, after.num_rows()) - 0.206).abs() < 0.01);
    let rates = (at as f64, (after.num_rows() - at) as f64);
    assert!((rates.1 / rates.0 - 1.0).abs() < 0.03, "the rate is no part of the drift: {rates:?}");

    let testing: Vec<usize> = (0..after.num_rows()).filter(|i| ints(&labels, "scenario")[*i] == 4).collect();
    assert!(testing[0] >= at);
    let share = testing.len() as f64 / rates.1;
    assert!((0.004..0.008).contains(&share), "card testing {share}");
    assert!(testing.iter().all(|i| amounts(&after)[*i] < 5.0));
    // In bursts: most hours' events share a victim.
    let victims: BTreeSet<(i64, i64)> =
        testing.iter().map(|i| (times(&after, "ts")[*i] / HOUR, longs(&after, "customer_id")[*i])).collect();
    assert!(victims.len() * 3 < testing.len() * 2, "{} victims of {} events", victims.len(), testing.len());
}

#[test]
fn columns_are_those_asked_for() {
    let connector = connector(GeneratorStream::Transactions);
    let full = all(&connector);
    let narrow = Arc::new(schema(connector.stream).project(&[4, 0]).unwrap());
    let mut generator = Generator::new(&connector, &narrow).unwrap();
    let batches: Vec<_> = std::iter::from_fn(|| generator.read(10_000)).collect();
    assert_eq!(concat_batches(&narrow, &batches).unwrap(), full.project(&[4, 0]).unwrap());
    let none = Generator::new(&connector, &Arc::new(Schema::empty())).unwrap().read(5).unwrap();
    assert_eq!((none.num_rows(), none.num_columns()), (5, 0));
}

#[test]
fn settings_that_describe_no_world_are_refused() {
    let good = connector(GeneratorStream::Transactions);
    let check = |connector: GeneratorConnector, fields: Vec<Field>, message: &str| {
        let error = Generator::new(&connector, &Arc::new(Schema::new(fields))).unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    let bad = GeneratorConnector { customers: 0, ..good.clone() };
    check(bad, vec![], "generator: `customers` is 0; write a number from 1 to 10000000");
    let bad = GeneratorConnector { drift_after: Some(-1), ..good.clone() };
    check(bad, vec![], "generator: `drift_after` is negative; write a duration such as 7d");
    let field = Field::new("is_fraud", DataType::Int32, false);
    let have = "tx_id, ts, customer_id, terminal_id, amount, mcc, country";
    check(
        good.clone(),
        vec![field],
        &format!("generator: the transactions have no column `is_fraud`; they have {have}"),
    );
    let field = Field::new("amount", DataType::Int64, false);
    check(good, vec![field], "generator: column `amount` is Float64, not Int64");
}

#[test]
fn avro_schemas_name_the_same_columns() {
    for (stream, text) in [
        (GeneratorStream::Transactions, include_str!("../../../schemas/transaction.avsc")),
        (GeneratorStream::Labels, include_str!("../../../schemas/fraud_label.avsc")),
    ] {
        let avro: serde_json::Value = serde_json::from_str(text).unwrap();
        let fields: Vec<Field> = avro["fields"].as_array().unwrap().iter().map(avro_field).collect();
        assert_eq!(*schema(stream), Schema::new(fields));
    }
}

fn avro_field(field: &serde_json::Value) -> Field {
    let kind = match &field["type"] {
        serde_json::Value::String(name) => match name.as_str() {
            "long" => DataType::Int64,
            "int" => DataType::Int32,
            "double" => DataType::Float64,
            "string" => DataType::Utf8,
            other => panic!("{other}"),
        },
        other => {
            assert_eq!(other["logicalType"], "timestamp-micros");
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
    };
    Field::new(field["name"].as_str().unwrap(), kind, false)
}

/// An optimised build on a quiet machine makes more than ten million a second; the floor is one that an unoptimised build on a
/// busy machine passes and that an accident (a block made anew for every read) does not.
#[test]
fn events_are_cheap() {
    let connector = GeneratorConnector {
        customers: 5_000,
        terminals: 10_000,
        duration: None,
        ..connector(GeneratorStream::Transactions)
    };
    let mut generator = open(&connector);
    generator.read(8_192);
    let (begin, rows) = (Instant::now(), 1_000_000);
    for _ in 0..rows / 100 {
        generator.read(100).unwrap();
    }
    let rate = f64::from(rows) / begin.elapsed().as_secs_f64();
    println!("generator: {:.1} M events/s, all columns", rate / 1e6);
    assert!(rate >= 5e4, "{rate} events/s");
}
