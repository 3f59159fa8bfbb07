//! The fraud handbook's sets for tests, straight from its transactions: the fifteen inputs by prefix sums, the weeks, the removal of known cards.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int8Type, Int32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::data::{Column, Matrix, Set};
use crate::base::EventTime;

const DAY: i32 = 86_400;

/// The handbook's names of the inputs, in its order.
pub(super) const INPUTS: [&str; 15] = [
    "TX_AMOUNT",
    "TX_DURING_WEEKEND",
    "TX_DURING_NIGHT",
    "CUSTOMER_ID_NB_TX_1DAY_WINDOW",
    "CUSTOMER_ID_AVG_AMOUNT_1DAY_WINDOW",
    "CUSTOMER_ID_NB_TX_7DAY_WINDOW",
    "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW",
    "CUSTOMER_ID_NB_TX_30DAY_WINDOW",
    "CUSTOMER_ID_AVG_AMOUNT_30DAY_WINDOW",
    "TERMINAL_ID_NB_TX_1DAY_WINDOW",
    "TERMINAL_ID_RISK_1DAY_WINDOW",
    "TERMINAL_ID_NB_TX_7DAY_WINDOW",
    "TERMINAL_ID_RISK_7DAY_WINDOW",
    "TERMINAL_ID_NB_TX_30DAY_WINDOW",
    "TERMINAL_ID_RISK_30DAY_WINDOW",
];

/// The days from 2018-04-01 to 2018-07-25.
pub(super) const BASELINE: i32 = 115;

/// The folder of the handbook's data; nothing after saying what is skipped.
pub(super) fn folder(what: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let base = std::env::var_os("TIDEMILL_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let path = base.join("fraud");
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {what}: no folder `fraud` in TIDEMILL_DATA or ../shared/data");
    None
}

struct Rows {
    seconds: Vec<i32>,
    customers: Vec<i32>,
    terminals: Vec<i32>,
    amounts: Vec<f64>,
    frauds: Vec<i8>,
}

fn read(folder: &std::path::Path) -> Rows {
    let file = File::open(folder.join("transactions.parquet")).expect("opens");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("parquet").with_batch_size(65_536);
    let mut rows = Rows { seconds: vec![], customers: vec![], terminals: vec![], amounts: vec![], frauds: vec![] };
    for batch in reader.build().expect("reads") {
        let batch = batch.expect("a batch");
        let column = |name: &str| batch.column_by_name(name).expect("a column").clone();
        let ints = |name: &str| column(name).as_primitive::<Int32Type>().values().to_vec();
        rows.seconds.extend(ints("TX_TIME_SECONDS"));
        rows.customers.extend(ints("CUSTOMER_ID"));
        rows.terminals.extend(ints("TERMINAL_ID"));
        rows.amounts.extend(column("TX_AMOUNT").as_primitive::<Float64Type>().values());
        rows.frauds.extend(column("TX_FRAUD").as_primitive::<Int8Type>().values());
    }
    rows
}

/// Times of a key's transactions and the sums of something before each.
#[derive(Clone, Default)]
struct History {
    times: Vec<i32>,
    sums: Vec<i64>,
}

impl History {
    fn push(&mut self, time: i32, value: i64) {
        let last = self.sums.last().copied().unwrap_or(0);
        self.times.push(time);
        self.sums.push(last + value);
    }

    /// Number and sum in `(after, until]`, of the first `known`.
    fn window(&self, known: usize, after: i32, until: i32) -> (usize, i64) {
        let times = &self.times[..known];
        let (from, to) = (times.partition_point(|t| *t <= after), times.partition_point(|t| *t <= until));
        let sum = |n: usize| if n == 0 { 0 } else { self.sums[n - 1] };
        (to - from, sum(to) - sum(from))
    }
}

/// Windows of customers and terminals, transaction after transaction.
struct Features {
    customers: Vec<History>,
    terminals: Vec<History>,
}

impl Features {
    fn new() -> Features {
        Features { customers: vec![History::default(); 5_000], terminals: vec![History::default(); 10_000] }
    }

    /// Takes a transaction in, in the order of time.
    fn see(&mut self, rows: &Rows, row: usize) {
        let (t, customer, terminal) = (rows.seconds[row], rows.customers[row] as usize, rows.terminals[row] as usize);
        self.customers[customer].push(t, (rows.amounts[row] * 100.0).round() as i64);
        self.terminals[terminal].push(t, rows.frauds[row].into());
    }

    /// The inputs of the transaction that was taken in last.
    fn of(&self, rows: &Rows, row: usize) -> Vec<f64> {
        let (t, customer, terminal) = (rows.seconds[row], rows.customers[row] as usize, rows.terminals[row] as usize);
        // 2018-04-01 is a Sunday.
        let mut values = vec![
            rows.amounts[row],
            f64::from(u8::from(matches!(t / DAY % 7, 0 | 6))),
            f64::from(u8::from(t % DAY < 7 * 3600)),
        ];
        for w in [1, 7, 30] {
            let own = &self.customers[customer];
            let (count, cents) = own.window(own.times.len(), t - w * DAY, t);
            values.extend([count as f64, cents as f64 / 100.0 / count as f64]);
        }
        for w in [1, 7, 30] {
            let own = &self.terminals[terminal];
            let (count, frauds) = own.window(own.times.len(), t - (7 + w) * DAY, t - 7 * DAY);
            values.extend([count as f64, if count == 0 { 0.0 } else { frauds as f64 / count as f64 }]);
        }
        values
    }
}

/// All transactions from one day until before another, with their customers; labels are known after a week.
pub(super) fn whole(folder: &std::path::Path, from: i32, until: i32) -> Set {
    let rows = read(folder);
    let mut features = Features::new();
    let mut inputs: Vec<Vec<f32>> = vec![Vec::new(); INPUTS.len()];
    let mut own = Vec::new();
    for row in 0..rows.seconds.len() {
        features.see(&rows, row);
        if (from..until).contains(&(rows.seconds[row] / DAY)) {
            own.push(row);
            inputs.iter_mut().zip(features.of(&rows, row)).for_each(|(column, value)| column.push(value as f32));
        }
    }
    let time = |row: &usize| (1_522_540_800 + i64::from(rows.seconds[*row])) * 1_000_000;
    let times: Vec<EventTime> = own.iter().map(time).collect();
    Set {
        inputs: Matrix {
            names: INPUTS.map(String::from).to_vec(),
            columns: inputs.into_iter().map(Column::Number).collect(),
        },
        labels: own.iter().map(|row| f64::from(rows.frauds[*row])).collect(),
        weights: None,
        known: times.iter().map(|time| time + 7 * crate::base::DAY).collect(),
        times,
        extra: vec![("customer".into(), own.iter().map(|row| rows.customers[*row].to_string()).collect())],
    }
}

/// The training week from a day on, and the test week a week after it without the cards known by then.
pub(super) fn sets(folder: &std::path::Path, day: i32) -> (Set, Set) {
    let rows = read(folder);
    let day_of = |row: usize| rows.seconds[row] / DAY;
    let is_train = |row: usize| (day..day + 7).contains(&day_of(row));
    let is_test = |row: usize| (day + 14..day + 21).contains(&day_of(row));
    let mut cards: Vec<HashSet<i32>> = vec![HashSet::new(); 7];
    for row in 0..rows.seconds.len() {
        if rows.frauds[row] != 0 && day_of(row) >= day {
            let known = cards.iter_mut().enumerate().filter(|(k, _)| day_of(row) <= day + 6 + *k as i32);
            known.for_each(|(_, cards)| {
                cards.insert(rows.customers[row]);
            });
        }
    }
    let mut features = Features::new();
    let (mut train, mut test) = (Vec::new(), Vec::new());
    let mut inputs: Vec<Vec<f32>> = vec![Vec::new(); INPUTS.len()];
    for row in 0..rows.seconds.len() {
        features.see(&rows, row);
        let removed = is_test(row) && cards[(day_of(row) - day - 14) as usize].contains(&rows.customers[row]);
        if !is_train(row) && !is_test(row) || removed {
            continue;
        }
        if is_train(row) {
            train.push(row)
        } else {
            test.push(row)
        }
        inputs.iter_mut().zip(features.of(&rows, row)).for_each(|(column, value)| column.push(value as f32));
    }
    let all =
        Matrix { names: INPUTS.map(String::from).to_vec(), columns: inputs.into_iter().map(Column::Number).collect() };
    let set = |own: &[usize], first: usize| {
        let places: Vec<u32> = (first as u32..(first + own.len()) as u32).collect();
        let time = |row: &usize| (1_522_540_800 + i64::from(rows.seconds[*row])) * 1_000_000;
        let times: Vec<EventTime> = own.iter().map(time).collect();
        Set {
            inputs: all.take(&places),
            labels: own.iter().map(|row| f64::from(rows.frauds[*row])).collect(),
            weights: None,
            known: times.clone(),
            times,
            extra: vec![("customer".into(), own.iter().map(|row| rows.customers[*row].to_string()).collect())],
        }
    };
    (set(&train, 0), set(&test, train.len()))
}

/// The area under the ROC curve and the average precision (by steps), as scikit-learn defines them.
pub(super) fn auc_and_precision(labels: &[f64], scores: &[f64]) -> (f64, f64) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let positives: f64 = labels.iter().sum();
    let negatives = labels.len() as f64 - positives;
    let (mut true_positives, mut false_positives, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let hits: f64 = group.iter().map(|i| labels[*i]).sum();
        let misses = group.len() as f64 - hits;
        area += misses * (true_positives + hits / 2.0);
        true_positives += hits;
        false_positives += misses;
        precision += hits / positives * true_positives / (true_positives + false_positives);
    }
    (area / (positives * negatives), precision)
}
