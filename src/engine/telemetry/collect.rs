//! A running job as metrics, read when somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Attached, Run};
use crate::engine::graph::Resources;
use crate::engine::rollout;
use crate::engine::shared::Shared;
use crate::engine::topics;
use crate::telemetry::{Collector, Description, Kind, Metrics};

/// Bounds of the time from a row's reading until it is scored, in seconds.
const LATENCY_BOUNDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

const fn family(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Description {
    Description { name, kind, unit, help }
}

const BUILD: Description = family("tidemill_build_info", Kind::Info, "", "The program.");
const JOB: Description = family("tidemill_job_info", Kind::Info, "", "The job.");
const ROWS_READ: Description = family(
    "tidemill_rows_read_total",
    Kind::Counter,
    "",
    "Raw rows read from a source, those included that were turned away.",
);
const ROWS_ACCEPTED: Description =
    family("tidemill_rows_accepted_total", Kind::Counter, "", "Rows of a source that passed its checks and went on.");
const ROWS_FILTERED: Description =
    family("tidemill_rows_filtered_total", Kind::Counter, "", "Rows of a source that its `where` took out.");
const ROWS_LATE: Description =
    family("tidemill_rows_late_dropped_total", Kind::Counter, "", "Late rows of a source that were dropped.");
const LETTERS: Description = family(
    "tidemill_dead_letters_total",
    Kind::Counter,
    "",
    "Rows turned away to dead letters, by the source that they came from and why.",
);
const NEXT_OFFSET: Description =
    family("tidemill_next_offset", Kind::Gauge, "", "The first offset of a partition that no tick holds yet.");
const WATERMARK: Description = family(
    "tidemill_watermark_seconds",
    Kind::Gauge,
    "seconds",
    "The job's clock in event time, in seconds since 1970: rows before it are complete.",
);
const WATERMARK_LAG: Description = family(
    "tidemill_watermark_lag_seconds",
    Kind::Gauge,
    "seconds",
    "How far the job's clock in event time is behind the wall clock.",
);
const TICKS: Description = family("tidemill_ticks_total", Kind::Counter, "", "Ticks cut.");
const TICK: Description = family(
    "tidemill_tick_seconds",
    Kind::Histogram,
    "seconds",
    "Time from a tick's cut until all of it was through the graph and in the hands of the sinks.",
);
const EPOCHS: Description =
    family("tidemill_epochs_published_total", Kind::Counter, "", "Epochs whose rows are visible to readers.");
const EPOCHS_OPEN: Description =
    family("tidemill_epochs_outstanding", Kind::Gauge, "", "Epochs that were cut and are not published.");
const CHECKPOINT: Description = family(
    "tidemill_checkpoint_duration_seconds",
    Kind::Histogram,
    "seconds",
    "Time from the cut of an epoch's last tick until its state was saved, where state is saved, and its rows were visible.",
);
const CHECKPOINT_BYTES: Description =
    family("tidemill_checkpoint_bytes_total", Kind::Counter, "bytes", "Bytes of snapshots written.");
const STATE_BYTES: Description =
    family("tidemill_state_bytes", Kind::Gauge, "bytes", "Memory of all views' state, as of the newest epoch.");
const STATE_KEYS: Description =
    family("tidemill_state_keys", Kind::Gauge, "", "Entity keys of all views, as of the newest epoch.");
const KAFKA_LAG: Description = family(
    "tidemill_kafka_lag",
    Kind::Gauge,
    "",
    "Offsets of a partition that are on the brokers, as of the last fetch, and in no tick.",
);
const BROKER_UP: Description = family(
    "tidemill_kafka_broker_up",
    Kind::Gauge,
    "",
    "1 while the brokers of a source or of a topic that is written answer, as far as is known.",
);
const DELIVERED: Description =
    family("tidemill_topic_messages_total", Kind::Counter, "", "Messages to a topic that its brokers acknowledged.");
const PREDICTIONS: Description = family("ml_predictions_total", Kind::Counter, "", "Rows that a model scored.");
const LATENCY: Description = family(
    "ml_prediction_latency_seconds",
    Kind::Histogram,
    "seconds",
    "Time from the cut of the tick that read a row until the row was scored; with `order: event_time` the wait for the watermark is in it.",
);
const SCORING: Description = family(
    "ml_scoring_seconds",
    Kind::Histogram,
    "seconds",
    "Time that a version of a model takes for a batch, of models whose version may change.",
);
const ERRORS: Description =
    family("ml_errors_total", Kind::Counter, "", "Rows that a model could not score; they are dead letters.");

impl Collector for Run {
    fn collect(&self, metrics: &mut Metrics) {
        metrics.add(&BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let Some(Attached { shared, resources }) = self.attached() else { return };
        if let Some(shared) = shared.upgrade() {
            job(&shared, metrics);
            sources(&shared, metrics);
            models(&shared, metrics);
            shared.meters.board.collect(metrics);
            if let Some(resources) = resources.upgrade() {
                written(&shared, &resources, metrics);
            }
        }
    }
}

fn job(shared: &Arc<Shared>, metrics: &mut Metrics) {
    let plan = &shared.plan;
    metrics.add(&JOB, &[("name", &plan.job), ("version", &plan.version.to_string())], 1.0);
    metrics.add(&TICKS, &[], shared.ticks.load(Relaxed) as f64);
    metrics.add_histogram(&TICK, &[], shared.meters.tick_seconds().buckets());
    metrics.add(&STATE_KEYS, &[], shared.keys.load(Relaxed) as f64);
    metrics.add(&STATE_BYTES, &[], shared.state_bytes.load(Relaxed) as f64);
    let epochs = shared.meters.epoch_seconds().buckets();
    metrics.add(&EPOCHS, &[], epochs.count as f64);
    metrics.add_histogram(&CHECKPOINT, &[], epochs);
    let progress = &shared.checkpoints.progress;
    metrics.add(&EPOCHS_OPEN, &[], progress.outstanding() as f64);
    if shared.checkpoints.enabled() {
        metrics.add(&CHECKPOINT_BYTES, &[], progress.written().bytes as f64);
    }
}

fn sources(shared: &Arc<Shared>, metrics: &mut Metrics) {
    let newest = shared.meters.newest();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    if let Some(clock) = newest.clock {
        let clock = clock as f64 / 1e6;
        metrics.add(&WATERMARK, &[], clock);
        metrics.add(&WATERMARK_LAG, &[], now - clock);
    }
    let plan = &shared.plan.sources;
    for (source, counts) in plan.iter().zip(&newest.counts) {
        let labels = [("source", source.name.as_str())];
        metrics.add(&ROWS_READ, &labels, counts.read as f64);
        metrics.add(&ROWS_ACCEPTED, &labels, counts.accepted as f64);
        metrics.add(&ROWS_FILTERED, &labels, counts.filtered as f64);
        metrics.add(&ROWS_LATE, &labels, counts.late_dropped as f64);
    }
    for (source, offsets) in plan.iter().zip(&newest.offsets) {
        for (partition, next) in offsets.iter().enumerate() {
            metrics.add(&NEXT_OFFSET, &[("source", &source.name), ("partition", &partition.to_string())], *next as f64);
        }
    }
    let mut letters: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for one in shared.turned_away() {
        *letters.entry((one.source, one.kind)).or_default() += one.rows;
    }
    for ((source, kind), rows) in letters {
        metrics.add(&LETTERS, &[("source", &source), ("kind", kind)], rows as f64);
    }
    for topic in shared.meters.topics() {
        let Some(up) = topic.is_up() else { continue };
        metrics.add(&BROKER_UP, &[("source", topic.source())], f64::from(u8::from(up)));
        let source = plan.iter().position(|source| source.name == topic.source());
        let offsets = source.and_then(|source| newest.offsets.get(source)).map_or(&[][..], Vec::as_slice);
        for (partition, next) in offsets.iter().enumerate() {
            if let Some(end) = topic.end_offset(partition) {
                let labels = [("source", topic.source()), ("partition", &partition.to_string())];
                metrics.add(&KAFKA_LAG, &labels, end.saturating_sub(*next) as f64);
            }
        }
    }
}

fn models(shared: &Arc<Shared>, metrics: &mut Metrics) {
    for (index, model) in shared.plan.models.iter().enumerate() {
        let labels = [("model", model.name.as_str()), ("version", &model.version)];
        if rollout::is_rolled_out(&shared.plan, index) {
            for (version, meter) in shared.rollouts.meters(index) {
                let labels = [labels[0], ("version", version.as_str())];
                metrics.add(&PREDICTIONS, &labels, meter.rows.load(Relaxed) as f64);
                metrics.add(&ERRORS, &[labels[0], labels[1], ("kind", "unscored")], meter.errors.load(Relaxed) as f64);
                metrics.add_histogram(&SCORING, &labels, meter.seconds.buckets());
            }
        } else {
            let (scored, unscored) = shared.meters.model(index);
            metrics.add(&PREDICTIONS, &labels, scored as f64);
            metrics.add(&ERRORS, &[labels[0], labels[1], ("kind", "unscored")], unscored as f64);
        }
        if let Some(observer) = &shared.observer {
            metrics.add_histogram(&LATENCY, &labels, observer.latencies_of(index, LATENCY_BOUNDS));
        }
    }
}

/// Topics that are written.
fn written(shared: &Arc<Shared>, resources: &Resources, metrics: &mut Metrics) {
    for (summary, topic) in topics::summaries(&shared.plan, &resources.topics).iter().zip(&resources.topics) {
        metrics.add(&DELIVERED, &[("topic", &summary.topic), ("rows", &summary.rows)], summary.delivered as f64);
        if let Some(publisher) = topic.publisher() {
            metrics.add(&BROKER_UP, &[("topic", &summary.topic)], f64::from(u8::from(!publisher.is_away())));
        }
    }
}
