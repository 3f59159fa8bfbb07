//! What a running job shows of itself: counts, watermark, latency, the last rows and their scores, and how good the scores
//! turn out to be as labels arrive.
//!
//! The graph's workers report here once per batch; whoever draws (a progress bar, the live view) takes a [`Snapshot`]. An
//! observer changes nothing: a job runs the same with and without one, and what it cannot make sense of it leaves out.
//!
//! *Latency* is the time from the cut of the tick that read a row until the row was scored: in event-time order it holds the
//! wait for the watermark too.

mod auc;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use hashbrown::HashMap;
use hdrhistogram::Histogram;

use crate::base::{EventTime, ORD_COLUMN, Ord64, Position, TIME_COLUMN, Tick, hash_bytes};
use crate::ops::control::TickInfo;
use crate::plan::model::Plan;
use crate::telemetry::Buckets;

/// Matched predictions that the running figure of accuracy looks back on.
pub const ACCURACY_WINDOW: usize = 50_000;
/// Predictions that wait for a label at most; beyond it the oldest are forgotten.
const WAITING_MAX: usize = 1 << 20;
/// Rows kept for display.
const ROWS_MAX: usize = 8;
/// Rows for display are taken at most this often.
const ROWS_EVERY: Duration = Duration::from_millis(100);
/// Quantiles of latency look back on this many seconds.
const LATENCY_SECONDS: usize = 10;
/// Ticks per partition whose time is remembered: older rows are taken for as old as the oldest of them.
const CUTS_MAX: usize = 65_536;
/// Longest latency told apart, in microseconds.
const LATENCY_MAX: u64 = 3_600_000_000;

/// Collects what a job shows of itself. Shared by all workers; see [`Observer::snapshot`].
#[derive(Debug)]
pub struct Observer {
    started: Instant,
    rows_in: AtomicU64,
    rows_scored: AtomicU64,
    dead_letters: AtomicU64,
    labels: AtomicU64,
    tick: AtomicU64,
    scored_tick: AtomicU64,
    watermark: AtomicI64,
    watched: Option<Watched>,
    latency: Mutex<Latencies>,
    rows: Mutex<Rows>,
    matches: Mutex<Labelling>,
    accuracy: Mutex<(u64, Option<Accuracy>)>,
}

/// The model whose rows are shown.
#[derive(Debug)]
struct Watched {
    model: usize,
    name: String,
    score: String,
    /// Engine column and shown name of what identifies a row.
    id: Option<String>,
    /// Engine column and shown name of each feature.
    columns: Vec<(String, String)>,
    labels: Option<WatchedLabels>,
}

/// The labels of its predictions.
#[derive(Debug)]
struct WatchedLabels {
    source: usize,
    /// Columns of the source's `stream_schema`.
    id: usize,
    value: usize,
}

/// Where a job stands.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Time since the observer was made.
    pub elapsed: Duration,
    /// Rows read from all sources.
    pub rows_in: u64,
    /// Rows scored by all models.
    pub rows_scored: u64,
    /// Rows turned away.
    pub dead_letters: u64,
    /// Labels that arrived.
    pub labels: u64,
    /// The last tick cut.
    pub tick: Tick,
    /// Ticks cut since the last one of which rows were scored.
    pub ticks_behind: u64,
    /// The job's clock in event time: the watermark, but never past the newest event.
    pub watermark: Option<EventTime>,
    /// Latency of the last ten seconds.
    pub latency: Option<Latency>,
    /// Latency since the start.
    pub latency_total: Option<Latency>,
    /// Name of the model whose rows are shown, and of its score.
    pub model: Option<(String, String)>,
    /// Names of the features, in the set's order.
    pub columns: Vec<String>,
    /// The last rows scored, the newest last.
    pub recent: Vec<ScoredRow>,
    /// How good the scores turned out to be.
    pub accuracy: Option<Accuracy>,
}

/// Quantiles of the time from a row's reading until its score left the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Half of the rows were faster.
    pub p50: Duration,
    /// 99 of 100 rows were faster.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

/// A row with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredRow {
    /// Event time.
    pub time: EventTime,
    /// The row's id, as text; empty where the source names none.
    pub id: String,
    /// The features, as text, in the order of [`Snapshot::columns`]; null is `-`.
    pub values: Vec<String>,
    /// The score; NaN where there is none.
    pub score: f64,
}

/// How good the latest scores were, by the labels that came for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Area under the ROC curve of the latest matches; `None` until both classes are among them.
    pub auc: Option<f64>,
    /// Matches that `auc` looks at, [`ACCURACY_WINDOW`] at most.
    pub window: u64,
    /// Positive ones among them.
    pub positives: u64,
    /// Matches since the start.
    pub matched: u64,
}

impl Observer {
    /// Watches the first model that has labels, else the first model.
    pub fn new(plan: &Plan) -> Observer {
        let labelled = plan.labels.first().map(|labels| labels.model);
        let watched = labelled.or((!plan.models.is_empty()).then_some(0)).map(|model| watched(plan, model));
        Observer::with(watched, WAITING_MAX, plan.models.len())
    }

    /// Measures counts and latencies alone.
    pub fn of_latency(plan: &Plan) -> Observer {
        Observer::with(None, 0, plan.models.len())
    }

    fn with(watched: Option<Watched>, waiting: usize, models: usize) -> Observer {
        Observer {
            started: Instant::now(),
            rows_in: AtomicU64::new(0),
            rows_scored: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            labels: AtomicU64::new(0),
            tick: AtomicU64::new(0),
            scored_tick: AtomicU64::new(0),
            watermark: AtomicI64::new(EventTime::MIN),
            watched,
            latency: Mutex::new(Latencies::new(models)),
            rows: Mutex::new(Rows::default()),
            matches: Mutex::new(Labelling {
                matches: auc::Matches::new(ACCURACY_WINDOW, waiting),
                due: VecDeque::new(),
            }),
            accuracy: Mutex::new((0, None)),
        }
    }

    /// A tick was cut: `rows` read and `dead_letters` turned away since the last one; the next offset by source and partition.
    pub fn on_tick(&self, info: &TickInfo, offsets: &[Vec<u64>], rows: u64, dead_letters: u64) {
        self.rows_in.fetch_add(rows, Relaxed);
        self.dead_letters.fetch_add(dead_letters, Relaxed);
        self.tick.fetch_max(info.tick, Relaxed);
        // The last tick releases what was read ahead: its clock says nothing about how far the job had come.
        let clock = if info.last { info.previous_watermark.min(info.now) } else { info.now };
        self.watermark.fetch_max(clock, Relaxed);
        lock(&self.latency).cuts.push(self.started.elapsed(), offsets);
        lock(&self.matches).turn_to(info.now);
    }

    /// Rows were turned away past ingest, such as those that a model could not score.
    pub fn on_dead_letters(&self, rows: u64) {
        self.dead_letters.fetch_add(rows, Relaxed);
    }

    /// A batch was scored by a model of the plan: the rows with their engine columns and the model's outputs under their names.
    pub fn on_scored(&self, model: usize, info: &TickInfo, batch: &RecordBatch) {
        self.rows_scored.fetch_add(batch.num_rows() as u64, Relaxed);
        self.scored_tick.fetch_max(info.tick, Relaxed);
        if batch.num_rows() == 0 {
            return;
        }
        let now = self.started.elapsed();
        if let Some(positions) = batch.column_by_name(ORD_COLUMN).and_then(|c| c.as_primitive_opt::<UInt64Type>()) {
            lock(&self.latency).scored(model, now, positions.values());
        }
        let Some(watched) = self.watched.as_ref().filter(|w| w.model == model) else {
            return;
        };
        let Some(scores) = batch.column_by_name(&watched.score).and_then(numbers) else {
            return;
        };
        let id = watched.id.as_ref().and_then(|name| batch.column_by_name(name));
        if let (Some(keys), Some(_)) = (id.and_then(keys), &watched.labels) {
            let mut labelling = lock(&self.matches);
            for (key, score) in keys.into_iter().zip(&scores) {
                if let (Some(key), Some(score)) = (key, *score) {
                    labelling.matches.predicted(key, score);
                }
            }
        }
        let mut rows = lock(&self.rows);
        if rows.due(now) {
            let last = batch.num_rows() - 1;
            rows.push(shown(watched, batch, last, id, scores[last].unwrap_or(f64::NAN)));
        }
    }

    /// A batch of a source was read, in the source's `stream_schema`; only the source of the watched model's labels counts. A
    /// label joins its prediction once the job's clock has reached the label's own time, however early it was read.
    pub fn on_labels(&self, source: usize, batch: &RecordBatch) {
        let Some(watched) = self.watched.as_ref().and_then(|w| w.labels.as_ref()) else {
            return;
        };
        if watched.source != source || watched.id.max(watched.value) >= batch.num_columns() {
            return;
        }
        self.labels.fetch_add(batch.num_rows() as u64, Relaxed);
        let (keys, values) = (keys(batch.column(watched.id)), numbers(batch.column(watched.value)));
        let times = batch.column_by_name(TIME_COLUMN).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(keys), Some(values), Some(times)) = (keys, values, times) else {
            return;
        };
        let mut labelling = lock(&self.matches);
        for ((key, value), time) in keys.into_iter().zip(values).zip(times.values()) {
            if let (Some(key), Some(value)) = (key, value) {
                labelling.due.push_back((*time, key, value > 0.0));
            }
        }
        let forget = labelling.due.len().saturating_sub(WAITING_MAX);
        labelling.due.drain(..forget);
    }

    /// Latencies of a model's rows since the start, by bucket; each count is at most a hundredth of its bound off, as the
    /// histogram behind it keeps two digits.
    pub fn latencies_of(&self, model: usize, bounds: &[f64]) -> Buckets {
        let latency = lock(&self.latency);
        let Some(own) = latency.models.get(model) else { return Buckets::default() };
        let micros = |bound: f64| (bound * 1e6) as u64;
        let cumulative = bounds.iter().map(|bound| (*bound, own.total.count_between(0, micros(*bound)))).collect();
        Buckets { cumulative, count: own.total.len(), sum: own.sum_us as f64 / 1e6 }
    }

    /// Latencies of a model's rows since this was last asked, and how many rows these are; for one who asks, since what was
    /// told is forgotten.
    pub fn take_latency(&self, model: usize) -> Option<(Latency, u64)> {
        let mut latency = lock(&self.latency);
        let own = latency.models.get_mut(model)?;
        let taken = quantiles(&own.lately).map(|latency| (latency, own.lately.len()));
        own.lately.reset();
        taken
    }

    /// Latencies of a model's rows over the last ten seconds: half, nine of ten and 99 of 100 rows were faster.
    pub fn recent_of(&self, model: usize) -> Option<[Duration; 3]> {
        let mut latency = lock(&self.latency);
        latency.turn_to(self.started.elapsed().as_secs());
        let recent = sum(latency.models.get(model).into_iter().flat_map(|own| &own.seconds));
        (!recent.is_empty()).then(|| [0.5, 0.9, 0.99].map(|q| Duration::from_micros(recent.value_at_quantile(q))))
    }

    /// Time since the observer was made.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Where the job stands now. Sorts up to [`ACCURACY_WINDOW`] scores when labels came since the last call.
    pub fn snapshot(&self) -> Snapshot {
        let elapsed = self.started.elapsed();
        let (latency, latency_total) = {
            let mut latencies = lock(&self.latency);
            latencies.turn_to(elapsed.as_secs());
            (latencies.recent(), quantiles(&latencies.total))
        };
        let (watermark, tick) = (self.watermark.load(Relaxed), self.tick.load(Relaxed));
        Snapshot {
            elapsed,
            rows_in: self.rows_in.load(Relaxed),
            rows_scored: self.rows_scored.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            labels: self.labels.load(Relaxed),
            tick,
            ticks_behind: tick.saturating_sub(self.scored_tick.load(Relaxed)),
            watermark: (watermark != EventTime::MIN).then_some(watermark),
            latency,
            latency_total,
            model: self.watched.as_ref().map(|w| (w.name.clone(), w.score.clone())),
            columns: self.watched.iter().flat_map(|w| &w.columns).map(|(_, shown)| shown.clone()).collect(),
            recent: lock(&self.rows).list.iter().cloned().collect(),
            accuracy: self.accuracy(),
        }
    }

    fn accuracy(&self) -> Option<Accuracy> {
        let mut known = lock(&self.accuracy);
        // The window is copied under the lock and sorted outside it: workers wait for the copy at most.
        let (matched, pairs) = {
            let matches = &lock(&self.matches).matches;
            if matches.total() == known.0 {
                return known.1;
            }
            (matches.total(), matches.window())
        };
        let window = pairs.len() as u64;
        let (auc, positives) = auc::area(pairs);
        *known = (matched, Some(Accuracy { auc, window, positives, matched }));
        known.1
    }
}

/// A panic elsewhere leaves figures for display as they were: good enough to go on with.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watched(plan: &Plan, model: usize) -> Watched {
    let (described, set) = (&plan.models[model], &plan.sets[plan.models[model].inputs]);
    let spine = &plan.sources[set.spine];
    let labels = plan.labels.iter().enumerate().find(|(_, l)| l.model == model);
    // The prediction's id is the spine's; a source that names none may still have the label's column.
    let name = |source: usize, column: usize| plan.sources[source].stream_schema.field(column).name().clone();
    let id = match (spine.id, labels) {
        (Some(id), _) => Some(spine.schema.field(id).name().clone()),
        (None, Some((_, l))) => Some(name(l.from, l.id)).filter(|n| spine.schema.column_with_name(n).is_some()),
        (None, None) => None,
    };
    Watched {
        model,
        name: described.name.clone(),
        score: described.outputs.first().map(|o| o.name.clone()).unwrap_or_default(),
        id,
        columns: set.columns.iter().map(|c| (c.engine.clone(), c.name.clone())).collect(),
        labels: labels.map(|(_, l)| WatchedLabels { source: l.from, id: l.id, value: l.value }),
    }
}

/// A column as numbers; `None` for types that are none.
fn numbers(column: &ArrayRef) -> Option<Vec<Option<f64>>> {
    let column = cast(column, &DataType::Float64).ok()?;
    Some(column.as_primitive::<Float64Type>().iter().collect())
}

/// A column of ids as words to match by: whole numbers as they are, other types by the hash of their text.
fn keys(column: &ArrayRef) -> Option<Vec<Option<u64>>> {
    if column.data_type().is_integer() {
        let column = cast(column, &DataType::Int64).ok()?;
        return Some(column.as_primitive::<Int64Type>().iter().map(|v| v.map(|v| v as u64)).collect());
    }
    let column = cast(column, &DataType::Utf8).ok()?;
    Some(column.as_string::<i32>().iter().map(|v| v.map(|v| hash_bytes(v.as_bytes()))).collect())
}

fn shown(watched: &Watched, batch: &RecordBatch, row: usize, id: Option<&ArrayRef>, score: f64) -> ScoredRow {
    let time = batch.column_by_name(TIME_COLUMN).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    ScoredRow {
        time: time.map_or(0, |c| c.value(row)),
        id: id.map(|c| text(c, row)).unwrap_or_default(),
        values: watched
            .columns
            .iter()
            .map(|(engine, _)| batch.column_by_name(engine).map_or_else(|| "-".to_owned(), |c| text(c, row)))
            .collect(),
        score,
    }
}

fn text(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "-".to_owned();
    }
    if let Some(values) = column.as_primitive_opt::<Float64Type>() {
        return short(values.value(row));
    }
    let options = FormatOptions::default();
    ArrayFormatter::try_new(column, &options).map_or_else(|_| "?".to_owned(), |f| f.value(row).to_string())
}

/// A number in few characters: whole numbers whole, else two decimals, more for small ones.
fn short(value: f64) -> String {
    match value {
        v if v == v.trunc() && v.abs() < 1e9 => format!("{v:.0}"),
        v if v.abs() >= 1e9 || v.abs() < 1e-3 => format!("{v:.2e}"),
        v if v.abs() < 1.0 => format!("{v:.4}"),
        v => format!("{v:.2}"),
    }
}

/// Predictions and labels, and the labels whose time has not come.
#[derive(Debug)]
struct Labelling {
    matches: auc::Matches,
    /// Time, key and label, in the order read: by time, but for disorder.
    due: VecDeque<(EventTime, u64, bool)>,
}

impl Labelling {
    fn turn_to(&mut self, now: EventTime) {
        while let Some((_, key, label)) = self.due.pop_front_if(|(time, ..)| *time <= now) {
            self.matches.labelled(key, label);
        }
    }
}

/// When the latest rows of each partition were read.
#[derive(Debug, Default)]
struct Cuts {
    /// By (source, partition): the next offset after a tick, and when the tick was cut; rising.
    by_partition: HashMap<(u8, u16), VecDeque<(u64, Duration)>>,
}

impl Cuts {
    fn push(&mut self, now: Duration, offsets: &[Vec<u64>]) {
        for (source, partitions) in offsets.iter().enumerate() {
            for (partition, next) in partitions.iter().enumerate() {
                let cuts = self.by_partition.entry((source as u8, partition as u16)).or_default();
                if cuts.back().is_none_or(|(last, _)| last < next) {
                    if cuts.len() == CUTS_MAX {
                        cuts.pop_front();
                    }
                    cuts.push_back((*next, now));
                }
            }
        }
    }

    /// When the row at a position was read, and up to which offset that holds.
    fn read_at(&self, position: Position) -> Option<(u64, Duration)> {
        let cuts = self.by_partition.get(&(position.source, position.partition))?;
        cuts.get(cuts.partition_point(|(next, _)| *next <= position.offset)).copied()
    }
}

/// The last rows taken for display.
#[derive(Debug, Default)]
struct Rows {
    taken: Option<Duration>,
    list: VecDeque<ScoredRow>,
}

impl Rows {
    fn due(&mut self, now: Duration) -> bool {
        let due = self.taken.is_none_or(|taken| now >= taken + ROWS_EVERY);
        if due {
            self.taken = Some(now);
        }
        due
    }

    fn push(&mut self, row: ScoredRow) {
        if self.list.len() == ROWS_MAX {
            self.list.pop_front();
        }
        self.list.push_back(row);
    }
}

/// Latencies by second, and since the start; two significant digits, in microseconds.
#[derive(Debug)]
struct Latencies {
    cuts: Cuts,
    second: u64,
    total: Histogram<u64>,
    models: Vec<ModelLatencies>,
}

/// Latencies of one model.
#[derive(Debug)]
struct ModelLatencies {
    /// By second, the newest last.
    seconds: VecDeque<Histogram<u64>>,
    total: Histogram<u64>,
    sum_us: u128,
    /// Since it was last taken.
    lately: Histogram<u64>,
}

impl Latencies {
    fn new(models: usize) -> Latencies {
        let seconds = || VecDeque::from([histogram()]);
        let model = || ModelLatencies { seconds: seconds(), total: histogram(), sum_us: 0, lately: histogram() };
        Latencies {
            cuts: Cuts::default(),
            second: 0,
            total: histogram(),
            models: std::iter::repeat_with(model).take(models).collect(),
        }
    }

    /// Makes room for `second`; seconds past the look-back are forgotten.
    fn turn_to(&mut self, second: u64) {
        let steps = second.saturating_sub(self.second).min(LATENCY_SECONDS as u64);
        for ModelLatencies { seconds, .. } in &mut self.models {
            for _ in 0..steps {
                let mut next =
                    if seconds.len() == LATENCY_SECONDS { seconds.pop_front() } else { None }.unwrap_or_else(histogram);
                next.reset();
                seconds.push_back(next);
            }
        }
        self.second = self.second.max(second);
    }

    /// Rows at these positions were scored at `now` by a model.
    fn scored(&mut self, model: usize, now: Duration, positions: &[u64]) {
        let mut rest = positions;
        while let Some(first) = rest.first() {
            // Neighbours mostly come from one tick: one look-up for all of them. Those of another partition do not follow.
            let Some((next, read)) = self.cuts.read_at(Ord64(*first).into()) else {
                rest = &rest[1..];
                continue;
            };
            let start = Position::from(Ord64(*first));
            let last = Ord64::from(Position { offset: next - 1, ..start }).0;
            let end = rest.iter().position(|p| !(*first..=last).contains(p));
            let (run, after) = rest.split_at(end.unwrap_or(rest.len()));
            self.record(model, now.as_secs(), run.len() as u64, now.saturating_sub(read));
            rest = after;
        }
    }

    fn record(&mut self, model: usize, second: u64, rows: u64, latency: Duration) {
        self.turn_to(second);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.total.saturating_record_n(micros, rows);
        if let Some(own) = self.models.get_mut(model) {
            own.total.saturating_record_n(micros, rows);
            own.lately.saturating_record_n(micros, rows);
            own.sum_us += u128::from(micros) * u128::from(rows);
            if let Some(current) = own.seconds.back_mut() {
                current.saturating_record_n(micros, rows);
            }
        }
    }

    fn recent(&self) -> Option<Latency> {
        quantiles(&sum(self.models.iter().flat_map(|own| &own.seconds)))
    }
}

fn sum<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut sum = histogram();
    // Equal bounds: adding cannot fail.
    histograms.for_each(|one| sum.add(one).unwrap_or_default());
    sum
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 2).expect("constant bounds are valid")
}

fn quantiles(histogram: &Histogram<u64>) -> Option<Latency> {
    let at = |q| Duration::from_micros(histogram.value_at_quantile(q));
    (!histogram.is_empty()).then(|| Latency {
        p50: at(0.5),
        p99: at(0.99),
        max: Duration::from_micros(histogram.max()),
    })
}

#[cfg(test)]
#[path = "observe/tests.rs"]
mod tests;
