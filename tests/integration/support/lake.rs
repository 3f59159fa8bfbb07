//! Tables of a month of a monitored model, as a job would leave them: two versions, labels that came late and were
//! corrected, two columns that drift from the twentieth day on.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use tidemill::engine::tables::statistics_spec;
use tidemill::monitor::{Stat, StatKind, stat_batch};
use tidemill::ops::system::SYSTEM_COLUMNS;
use tidemill::store::offline::{TableCommitter, TableSpec, TableWriter, WriterOptions};

pub const SECOND: i64 = 1_000_000;
pub const DAY: i64 = 86_400 * SECOND;
/// 2026-01-05.
pub const START: i64 = 1_767_571_200 * SECOND;
pub const DAYS: i64 = 30;

/// Numbers that look like noise and are the same each time.
struct Noise(u64);

impl Noise {
    /// About normal, mean 0, deviation 1.
    fn next(&mut self) -> f64 {
        let mut sum = 0.0;
        for _ in 0..12 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum - 6.0
    }
}

fn stat(kind: StatKind, version: &str, day: i64, subject: &str, metric: &str, value: f64, rows: u64) -> Stat {
    Stat {
        kind,
        model: "fraud".into(),
        version: version.into(),
        route: String::new(),
        segment: String::new(),
        window_start: START + day * DAY,
        window_end: START + (day + 1) * DAY,
        subject: subject.into(),
        metric: metric.into(),
        value: Some(value),
        bound: None,
        rows,
        threshold: None,
        alarm: None,
        revision: 1,
        as_of: START + (day + 1) * DAY,
        complete: true,
    }
}

/// The statistics of all tables.
pub fn statistics() -> Vec<Stat> {
    let mut noise = Noise(7);
    let mut all = Vec::new();
    accuracy(&mut noise, &mut all);
    drift(&mut noise, &mut all);
    quality(&mut noise, &mut all);
    operation(&mut noise, &mut all);
    all
}

fn days_of(version: &str) -> std::ops::Range<i64> {
    if version == "2026-01" { 0..22 } else { 15..DAYS }
}

fn accuracy(noise: &mut Noise, all: &mut Vec<Stat>) {
    for (version, base) in [("2026-01", 0.905), ("2026-02", 0.928)] {
        for day in days_of(version) {
            let worn = if day > 20 { (day - 20) as f64 * 0.006 } else { 0.0 };
            let quality = base - worn + noise.next() * 0.006;
            let rows = (9_500.0 + noise.next() * 300.0) as u64;
            let metrics = [
                ("auc", quality),
                ("average_precision", quality - 0.31),
                ("precision", quality - 0.17),
                ("recall", quality - 0.24),
                ("f1", quality - 0.2),
                ("log_loss", 0.031 + (1.0 - quality) * 0.12),
                ("brier", 0.006 + (1.0 - quality) * 0.02),
                ("calibration_error", 0.002 + noise.next().abs() * 0.001),
            ];
            // Told when the window ends, a week later when most labels are there, and after corrections.
            let told = [(1, 0.35, 0), (2, 0.93, 7), (3, 1.0, 20)];
            for (revision, known, later) in told.into_iter().filter(|(_, _, later)| day + later < DAYS) {
                let off = if revision == 3 { 0.0 } else { (1.0 - known) * 0.03 };
                for (metric, value) in metrics {
                    let mut one =
                        stat(StatKind::Accuracy, version, day, "", metric, value + off, (rows as f64 * known) as u64);
                    (one.revision, one.as_of) = (revision, START + (day + later + 1) * DAY);
                    one.complete = day < DAYS - 20;
                    all.push(one.clone());
                    if ["auc", "precision", "recall"].contains(&metric) {
                        for (country, share, shift) in [("FR", 0.5, 0.01), ("DE", 0.3, 0.0), ("GB", 0.2, -0.05)] {
                            one.segment = format!("country={country}");
                            (one.value, one.rows) = (Some(value + off + shift), (rows as f64 * known * share) as u64);
                            all.push(one.clone());
                        }
                    }
                }
                for (subject, count) in [
                    ("true=0 predicted=0", rows as f64 * known * 0.985),
                    ("true=0 predicted=1", rows as f64 * known * 0.004),
                    ("true=1 predicted=0", rows as f64 * known * 0.003),
                    ("true=1 predicted=1", rows as f64 * known * 0.008),
                ] {
                    let mut one = stat(
                        StatKind::Accuracy,
                        version,
                        day,
                        subject,
                        "confusion",
                        count.round(),
                        (rows as f64 * known) as u64,
                    );
                    (one.revision, one.complete) = (revision, day < DAYS - 20);
                    one.as_of = START + (day + later + 1) * DAY;
                    all.push(one);
                }
                let mut one = stat(StatKind::Accuracy, version, day, "", "coverage", known, rows);
                (one.revision, one.complete) = (revision, day < DAYS - 20);
                one.as_of = START + (day + later + 1) * DAY;
                all.push(one.clone());
                one.metric = "unmatched".into();
                one.value = Some((rows as f64 * (1.0 - known)).round());
                all.push(one);
            }
        }
    }
}

pub const COLUMNS: [&str; 10] = [
    "amount",
    "country",
    "customer__amount_ratio",
    "customer__avg_amount_7d",
    "customer__nb_tx_1d",
    "customer__night",
    "mcc",
    "terminal__nb_tx_7d",
    "terminal__risk_7d",
    "score",
];

fn drift(noise: &mut Noise, all: &mut Vec<Stat>) {
    for day in 0..DAYS {
        let version = if day < 16 { "2026-01" } else { "2026-02" };
        let mut drifted = 0.0;
        for column in COLUMNS {
            let moved = match column {
                "amount" if day >= 20 => 0.05 + (day - 20) as f64 * 0.012,
                "terminal__risk_7d" if day >= 20 => 0.03 + (day - 20) as f64 * 0.007,
                "score" if day >= 24 => 0.018,
                _ => 0.0,
            };
            let psi = 0.012 + moved + noise.next().abs() * 0.006;
            let p = (0.5 + noise.next() * 0.2).clamp(0.06, 1.0) * (-moved * 400.0f64).exp();
            for (metric, value, threshold, alarm) in [("psi", psi, 0.035, psi > 0.035), ("ks_p", p, 0.01, p < 0.01)] {
                let mut one = stat(StatKind::Drift, version, day, column, metric, value, 9_500);
                (one.threshold, one.alarm) = (Some(threshold), Some(alarm));
                // A column was added on the fourth day; a p-value has no sense for categories.
                if (column == "customer__night" && day < 4)
                    || (metric == "ks_p" && ["country", "mcc"].contains(&column))
                {
                    continue;
                }
                drifted += if metric == "psi" { f64::from(u8::from(alarm)) / COLUMNS.len() as f64 } else { 0.0 };
                all.push(one);
            }
        }
        all.push(stat(StatKind::Drift, version, day, "", "drifted_columns", drifted, 9_500));
        let error = 0.011 + if day > 20 { (day - 20) as f64 * 0.0004 } else { 0.0 };
        all.push(stat(StatKind::Drift, version, day, "error", "prequential_error", error, 9_500));
        if day == 23 {
            let mut one = stat(StatKind::Drift, version, day, "error", "adwin", error, 4_096);
            one.alarm = Some(true);
            all.push(one);
        }
    }
}

fn quality(noise: &mut Noise, all: &mut Vec<Stat>) {
    for day in 0..DAYS {
        let version = if day < 16 { "2026-01" } else { "2026-02" };
        let rows = (9_500.0 + noise.next() * 400.0) as u64;
        for column in &COLUMNS[..9] {
            let worse = if *column == "country" && (11..14).contains(&day) { 0.08 } else { 0.0 };
            let nulls = (0.001 + noise.next().abs() * 0.0006 + worse).min(1.0);
            let mut one = stat(StatKind::Quality, version, day, column, "null_share", nulls, rows);
            (one.threshold, one.alarm) = (Some(0.01), Some(nulls > 0.01));
            all.push(one);
            if *column == "amount" {
                let out = if day >= 20 { 0.012 } else { 0.0 };
                all.push(stat(StatKind::Quality, version, day, column, "out_of_range_share", out, rows));
            }
            if ["mcc", "country"].contains(column) {
                let new = if *column == "mcc" && day >= 18 { 0.021 } else { 0.0 };
                let mut one = stat(StatKind::Quality, version, day, column, "new_category_share", new, rows);
                (one.threshold, one.alarm) = (Some(0.004), Some(new > 0.004));
                all.push(one);
                if new > 0.0 {
                    all.push(stat(
                        StatKind::Quality,
                        version,
                        day,
                        "mcc=crypto <exchange>",
                        "new_category",
                        0.014,
                        rows,
                    ));
                    all.push(stat(StatKind::Quality, version, day, "mcc=gift_cards", "new_category", 0.007, rows));
                }
            }
        }
        for (metric, value) in [
            ("volume", rows as f64),
            ("missing_share", 0.004 + noise.next().abs() * 0.001),
            ("freshness_seconds", 12.0 + noise.next().abs() * 9.0),
            ("duplicate_share", 0.0),
        ] {
            all.push(stat(StatKind::Quality, version, day, "", metric, value, rows));
        }
    }
}

fn operation(noise: &mut Noise, all: &mut Vec<Stat>) {
    let samples = 1_500;
    let start = START + (DAYS + 1) * DAY;
    for sample in 0..samples {
        let busy = 1.0 + 0.5 * (f64::from(sample) / 200.0).sin();
        let p99 = 40.0 * busy + noise.next().abs() * 25.0 + if (900..930).contains(&sample) { 260.0 } else { 0.0 };
        for (subject, metric, value) in [
            ("", "latency_p50_ms", 6.0 * busy + noise.next().abs()),
            ("", "latency_p99_ms", p99),
            ("", "latency_max_ms", p99 * 1.8),
            ("", "error_rate", if sample % 400 == 399 { 0.002 } else { 0.0 }),
            ("", "predictions_per_s", 1_900.0 * busy),
            ("engine", "cpu_cores", 0.7 * busy),
            ("engine", "memory_bytes", 412e6 + f64::from(sample) * 2e4),
            ("engine", "disk_free_bytes", 84e9 - f64::from(sample) * 1e6),
            ("engine", "brokers_up", if (1_200..1_210).contains(&sample) { 0.5 } else { 1.0 }),
        ] {
            let mut one = stat(
                StatKind::Operation,
                if subject.is_empty() { "2026-02" } else { "" },
                0,
                subject,
                metric,
                value,
                19_000,
            );
            one.window_start = start + i64::from(sample) * 10 * SECOND;
            one.window_end = one.window_start + 10 * SECOND;
            one.as_of = one.window_end;
            if metric == "latency_p99_ms" {
                (one.threshold, one.alarm) = (Some(200.0), Some(value > 200.0));
            }
            all.push(one);
        }
    }
}

/// Rows of `stats/alerts`: time, since, name, state, severity, subject, metric, value, threshold, message.
type Alert = (i64, i64, &'static str, &'static str, &'static str, &'static str, &'static str, f64, f64, &'static str);

pub const ALERTS: [Alert; 7] = [
    (
        12,
        12,
        "nulls in country",
        "firing",
        "warning",
        "country",
        "null_share",
        0.081,
        0.01,
        "8.1 % of country are null, 1 % are allowed",
    ),
    (
        15,
        12,
        "nulls in country",
        "resolved",
        "warning",
        "country",
        "null_share",
        0.002,
        0.01,
        "country has its values again",
    ),
    (
        21,
        21,
        "drift",
        "firing",
        "warning",
        "amount",
        "psi",
        0.071,
        0.035,
        "amount has drifted: PSI 0.071, threshold 0.035",
    ),
    (
        22,
        22,
        "drift",
        "firing",
        "warning",
        "terminal__risk_7d",
        "psi",
        0.052,
        0.035,
        "terminal__risk_7d has drifted: PSI 0.052",
    ),
    (25, 21, "drift", "firing", "warning", "amount", "psi", 0.119, 0.035, "amount is still drifting: PSI 0.119"),
    (
        27,
        27,
        "auc is low",
        "firing",
        "critical",
        "",
        "auc",
        0.884,
        0.89,
        "AUC fell to 0.884 <b>below</b> 0.89 & stays there",
    ),
    (
        28,
        28,
        "cards found",
        "firing",
        "info",
        "",
        "card_precision_100",
        0.29,
        0.3,
        "29 of the first 100 cards were found",
    ),
];

fn alerts() -> RecordBatch {
    let times = |of: fn(&Alert) -> i64| -> ArrayRef {
        let at = ALERTS.iter().map(|a| START + of(a) * DAY);
        Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))
    };
    let text = |of: fn(&Alert) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(ALERTS.iter().map(of))) };
    let float = |of: fn(&Alert) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(ALERTS.iter().map(of))) };
    let prints = ALERTS.iter().map(|a| format!("{}/{}", a.2, a.5));
    let columns: [(&str, ArrayRef); 13] = [
        ("event_time", times(|a| a.0)),
        ("name", text(|a| a.2)),
        ("state", text(|a| a.3)),
        ("severity", text(|a| a.4)),
        ("model", text(|_| "fraud")),
        ("segment", text(|_| "")),
        ("subject", text(|a| a.5)),
        ("metric", text(|a| a.6)),
        ("value", float(|a| a.7)),
        ("threshold", float(|a| a.8)),
        ("since", times(|a| a.1)),
        ("message", text(|a| a.9)),
        ("fingerprint", Arc::new(StringArray::from_iter_values(prints))),
    ];
    with_system_columns(columns.to_vec())
}

/// Predictions of each day and version; the number of rows is its own.
pub fn predictions_on(version: &str, day: i64) -> usize {
    if !days_of(version).contains(&day) {
        return 0;
    }
    let both = days_of("2026-01").contains(&day) && days_of("2026-02").contains(&day);
    if both { 50 + day as usize % 7 } else { 100 + day as usize % 11 }
}

fn predictions() -> RecordBatch {
    let (mut times, mut versions) = (Vec::new(), Vec::new());
    for version in ["2026-01", "2026-02"] {
        for day in 0..DAYS {
            for row in 0..predictions_on(version, day) {
                times.push(START + day * DAY + row as i64 * SECOND);
                versions.push(version);
            }
        }
    }
    with_system_columns(vec![
        ("event_time", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
        ("model_version", Arc::new(StringArray::from(versions))),
    ])
}

fn with_system_columns(mut columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let rows = columns[0].1.len();
    columns.push(("_tick", Arc::new(Int64Array::from_value(1, rows))));
    columns.push(("_source", Arc::new(StringArray::from(vec!["tx"; rows]))));
    columns.push(("_partition", Arc::new(Int32Array::from_value(0, rows))));
    columns.push(("_offset", Arc::new(Int64Array::from_iter_values(0..rows as i64))));
    columns.push(("_job_version", Arc::new(Int32Array::from_value(1, rows))));
    columns.push(("event_date", Arc::new(Date32Array::from_value(0, rows))));
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// Writes rows into a table, which is made of their columns.
pub fn write(root: &Path, name: &str, batches: &[RecordBatch]) {
    let kind = StatKind::ALL.into_iter().find(|kind| kind.table() == name);
    let spec = kind.map_or_else(
        || {
            let schema = batches[0].schema();
            let own = schema.fields().iter().filter(|f| !SYSTEM_COLUMNS.contains(&f.name().as_str()));
            let columns: Vec<(String, String, DataType)> =
                own.map(|f| (f.name().clone(), f.name().clone(), f.data_type().clone())).collect();
            TableSpec::new(name, columns, &[])
        },
        statistics_spec,
    );
    let spec = spec.expect("a table");
    let options = WriterOptions { sources: vec!["tx".into(), "monitors.fraud".into()], ..WriterOptions::default() };
    let mut writer = TableWriter::new(root, &spec, options).expect("a writer");
    let mut committer = TableCommitter::open(root, &spec, "fixture").expect("a committer");
    for (epoch, batch) in batches.iter().enumerate() {
        writer.append_rows(batch).expect("rows that fit");
        committer.commit(epoch as u64, &writer.flush().expect("parts")).expect("a commit");
    }
}

/// Writes all tables below `root`.
pub fn make(root: &Path) {
    let all = statistics();
    for kind in StatKind::ALL {
        let of: Vec<Stat> = all.iter().filter(|stat| stat.kind == kind).cloned().collect();
        // As they were told: what was told first is in an earlier version of the table.
        let batches: Vec<RecordBatch> = (1..=3)
            .map(|revision| of.iter().filter(|stat| stat.revision == revision).cloned().collect::<Vec<_>>())
            .filter(|told| !told.is_empty())
            .map(|told| stat_batch(&told, 1, 1))
            .collect();
        write(root, kind.table(), &batches);
    }
    write(root, "stats/alerts", &[alerts()]);
    write(root, "predictions/fraud", &[predictions()]);
}
