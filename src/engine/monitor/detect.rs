//! Change detectors over the errors of a monitor's predictions, as an operator.
//!
//! Each version of the model has one sequence of errors: its matches that count for the first time, in the order in which their
//! labels became known, `(due, _ord)`. All of them come to the worker that owns the version. An error is 1 for a class that
//! is not the label's and 0 for one that is; of a regression it is the distance. State: that of the detectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{ArrowPrimitiveType, Float64Type, Int8Type, TimestampMicrosecondType};
use timely::dataflow::Scope;

use super::super::EngineError;
use super::super::checkpoint::Saver;
use super::super::shared::Shared;
use super::super::ticked::{Control, Port, Rows, per_tick};
use crate::base::{EventTime, Micros, Tick, format_duration, slot_of};
use crate::monitor::detect::{Damaged, Detector, Prequential, Reader};
use crate::monitor::{Stat, StatKind, stat_batch};
use crate::ops::control::TickInfo;
use crate::ops::{key, ords};
use crate::plan::model::{DetectorPlan, MonitorPlan, Plan, Task};
use crate::state::{Mode, SlotBytes};

/// What the statistics are of.
const SUBJECT: &str = "error";
/// Column of the version among those of matches.
const VERSION: &str = "version";

/// Name of the operator, which is that of its state.
pub fn name(plan: &Plan, monitor: &MonitorPlan) -> String {
    format!("monitor {} detectors", plan.models[monitor.model].name)
}

/// What the state depends on, in words.
pub fn meaning(plan: &Plan, monitor: &MonitorPlan) -> String {
    let columns = monitor.prediction.join(", ");
    let labels = monitor.labels.map_or("", |labels| plan.sources[plan.labels[labels].from].name.as_str());
    let length = format_duration(monitor.window);
    let (detectors, task, threshold) = (&monitor.detectors, monitor.task, threshold(monitor));
    format!("{detectors:?} over errors of {columns} ({task:?} at {threshold}) by {labels} in windows of {length}")
        .to_lowercase()
}

/// Score from which on a prediction is of the positive class.
fn threshold(monitor: &MonitorPlan) -> f64 {
    // A monitor without labels has no matches.
    monitor.accuracy.as_ref().map_or(0.5, |accuracy| accuracy.threshold)
}

/// Attaches the operator to the stream of matches; what it finds are rows of statistics.
pub fn detect<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: Control<'s>,
    monitor: usize,
    matches: Rows<'s>,
) -> Rows<'s> {
    let plan = &shared.plan;
    let name = name(plan, &plan.monitors[monitor]);
    let place = (scope.index(), scope.peers());
    let mut core = DetectCore::new(plan, monitor);
    let saver = shared.checkpoints.operator(place.0, &name);
    let damaged = |error: Damaged| EngineError::Plan(format!("the saved state of `{name}`: {error}"));
    if let Err(error) = shared.checkpoints.restore(&name, place, |_, bytes| core.import(bytes).map_err(damaged)) {
        shared.fail(error);
    }
    let column = super::matches::match_schema(plan, &plan.monitors[monitor]).index_of(VERSION);
    let key = column.map_or_else(|_| Vec::new(), |column| vec![column]);
    let shared = Arc::clone(shared);
    let logic = Box::new(move |info: &TickInfo, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        if shared.failed() {
            return;
        }
        let batches: Vec<RecordBatch> = inputs.into_iter().flatten().collect();
        match core.tick(info, &batches) {
            Ok(stats) if stats.is_empty() => {}
            Ok(stats) => out[0].push(stat_batch(&stats, info.tick, shared.plan.version)),
            Err(error) => shared.fail(error),
        }
        if info.epoch_end {
            save(&shared, saver.as_ref(), info, &core);
        }
    });
    per_tick(scope, &name, control.inside().telling(1), vec![Port::keyed(matches, key)], 1, logic)
        .pop()
        .expect("one output")
}

fn save(shared: &Shared, saver: Option<&Saver>, info: &TickInfo, core: &DetectCore) {
    let Some(saver) = saver else { return };
    let entries = core.export();
    let anew = shared.checkpoints.anew(info.epoch);
    saver.save_later(info, Mode::Replace, anew, Box::new(move || Ok(entries)));
}

/// The slot of a text as a key of one column.
pub fn slot_of_text(text: &str) -> u16 {
    let column: ArrayRef = Arc::new(StringArray::from_iter_values([text]));
    let mut hashes = Vec::new();
    // A text is a key.
    let _ = key::hashes(&[column], &mut hashes);
    hashes.first().map_or(0, |hash| slot_of(*hash) as u16)
}

/// The detectors of one version.
struct Version {
    detectors: Vec<Detector>,
    prequential: Prequential,
    /// Start of the window in which the last error became known, the errors there, and how often each detector and each
    /// warning was told in it.
    window: Option<EventTime>,
    errors: u64,
    told: Vec<[u32; 2]>,
}

/// The detectors between their ticks; knows nothing of timely.
struct DetectCore {
    model: String,
    task: Task,
    scores: usize,
    /// Score from which on a prediction is of the positive class.
    threshold: f64,
    window: Micros,
    plans: Vec<DetectorPlan>,
    versions: BTreeMap<String, Version>,
}

impl DetectCore {
    fn new(plan: &Plan, monitor: usize) -> DetectCore {
        let monitor = &plan.monitors[monitor];
        DetectCore {
            model: plan.models[monitor.model].name.clone(),
            task: monitor.task,
            scores: monitor.prediction.len(),
            threshold: threshold(monitor),
            window: monitor.window.max(1),
            plans: monitor.detectors.clone(),
            versions: BTreeMap::new(),
        }
    }

    fn tick(&mut self, info: &TickInfo, batches: &[RecordBatch]) -> Result<Vec<Stat>, EngineError> {
        let mut errors: Vec<(EventTime, u64, &str, f64)> = Vec::new();
        for batch in batches {
            self.errors(batch, &mut errors)?;
        }
        errors.sort_by_key(|(due, ord, ..)| (*due, *ord));
        let mut stats = Vec::new();
        for (due, _, version, error) in errors {
            self.take(version, due, error, &mut stats);
        }
        for name in self.versions.keys().cloned().collect::<Vec<_>>() {
            self.close(&name, info.watermark, &mut stats);
        }
        Ok(stats)
    }

    /// The errors of matches that count for the first time.
    fn errors<'a>(
        &self,
        batch: &'a RecordBatch,
        out: &mut Vec<(EventTime, u64, &'a str, f64)>,
    ) -> Result<(), EngineError> {
        fn primitive<'a, T: ArrowPrimitiveType>(
            batch: &'a RecordBatch,
            name: &str,
        ) -> Result<&'a [T::Native], EngineError> {
            let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<T>());
            let column = column.ok_or_else(|| EngineError::defect(format!("matches have no column {name}")))?;
            Ok(&column.values()[..])
        }
        let due = primitive::<TimestampMicrosecondType>(batch, "due")?;
        let diff = primitive::<Int8Type>(batch, "diff")?;
        let label = primitive::<Float64Type>(batch, "label")?;
        let lacks = |name: &str| EngineError::defect(format!("matches have no column {name}"));
        let first = batch.column_by_name("first").and_then(|c| c.as_boolean_opt()).ok_or_else(|| lacks("first"))?;
        let version = batch.column_by_name(VERSION).and_then(|c| c.as_string_opt::<i32>());
        let version = version.ok_or_else(|| lacks(VERSION))?;
        let scores = (0..self.scores).map(|i| primitive::<Float64Type>(batch, &format!("score_{i}")));
        let scores = scores.collect::<Result<Vec<_>, _>>()?;
        let ords = ords(batch);
        for row in (0..batch.num_rows()).filter(|row| diff[*row] > 0 && first.value(*row)) {
            let score = |i: usize| scores[i][row];
            if let Some(error) = error_of((self.task, self.threshold), (self.scores, score), label[row]) {
                out.push((due[row], ords[row], version.value(row), error));
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &str, due: EventTime, error: f64, stats: &mut Vec<Stat>) {
        self.close(name, due, stats);
        let DetectCore { model, window, plans, versions, .. } = self;
        let version = versions.entry(name.to_owned()).or_insert_with(|| Version {
            detectors: plans.iter().map(Detector::new).collect(),
            prequential: Prequential::default(),
            window: None,
            errors: 0,
            told: vec![[0; 2]; plans.len()],
        });
        // In the order of arrival a label may be known later than it was due.
        let start = version.window.unwrap_or_else(|| due.div_euclid(*window).saturating_mul(*window));
        version.window = Some(start);
        version.prequential.update(error);
        version.errors += 1;
        for ((detector, plan), told) in version.detectors.iter_mut().zip(plans.iter()).zip(&mut version.told) {
            let Some(finding) = detector.update(error) else { continue };
            let metric = if finding.change { plan.name().to_owned() } else { format!("{}_warning", plan.name()) };
            let revision = &mut told[usize::from(!finding.change)];
            *revision = revision.saturating_add(1);
            stats.push(Stat {
                alarm: Some(finding.change),
                revision: *revision,
                as_of: due.max(start),
                ..stat(model, name, (start, *window), &metric, finding.mean, finding.width)
            });
        }
    }

    /// Tells of a version's window when all that comes is due at `now` or later, and that is behind the window.
    fn close(&mut self, name: &str, now: EventTime, stats: &mut Vec<Stat>) {
        let DetectCore { model, window, versions, .. } = self;
        let Some(version) = versions.get_mut(name) else { return };
        let Some(start) = version.window.filter(|start| start.saturating_add(*window) <= now) else { return };
        let means = [
            ("prequential_error", version.prequential.mean(), version.prequential.seen()),
            ("prequential_error_fading", version.prequential.fading(), version.errors),
        ];
        for (metric, mean, rows) in means {
            let stat = stat(model, name, (start, *window), metric, mean.unwrap_or(f64::NAN), rows);
            stats.push(Stat { as_of: start.saturating_add(*window), ..stat });
        }
        (version.window, version.errors) = (None, 0);
        version.told.fill([0; 2]);
    }

    /// The state by slot.
    fn export(&self) -> Vec<SlotBytes> {
        let mut slots: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        for (name, version) in &self.versions {
            let out = slots.entry(slot_of_text(name)).or_default();
            out.extend_from_slice(&(name.len() as u64).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&version.window.unwrap_or(EventTime::MIN).to_le_bytes());
            out.extend_from_slice(&version.errors.to_le_bytes());
            version.prequential.save(out);
            for (detector, told) in version.detectors.iter().zip(&version.told) {
                told.iter().for_each(|n| out.extend_from_slice(&u64::from(*n).to_le_bytes()));
                detector.save(out);
            }
        }
        slots.into_iter().collect()
    }

    fn import(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let name = reader.text()?.to_owned();
            let window = Some(reader.i64()?).filter(|start| *start != EventTime::MIN);
            let (errors, prequential) = (reader.u64()?, Prequential::load(&mut reader)?);
            let (mut detectors, mut told) = (Vec::new(), Vec::new());
            for plan in &self.plans {
                let mut count = || Ok(u32::try_from(reader.u64()?).unwrap_or(u32::MAX));
                told.push([count()?, count()?]);
                detectors.push(Detector::load(plan, &mut reader)?);
            }
            self.versions.insert(name, Version { detectors, prequential, window, errors, told });
        }
        Ok(())
    }
}

fn stat(model: &str, version: &str, (start, window): (EventTime, Micros), metric: &str, value: f64, rows: u64) -> Stat {
    Stat {
        kind: StatKind::Drift,
        model: model.to_owned(),
        version: version.to_owned(),
        route: String::new(),
        segment: String::new(),
        window_start: start,
        window_end: start.saturating_add(window),
        subject: SUBJECT.to_owned(),
        metric: metric.to_owned(),
        value: Some(value).filter(|value| value.is_finite()),
        bound: None,
        rows,
        threshold: None,
        alarm: None,
        revision: 1,
        as_of: start,
        complete: true,
    }
}

/// The error of a prediction; none where a score or the label is no number.
fn error_of(
    (task, threshold): (Task, f64),
    (scores, score): (usize, impl Fn(usize) -> f64),
    label: f64,
) -> Option<f64> {
    if label.is_nan() || (0..scores).any(|i| score(i).is_nan()) {
        return None;
    }
    let wrong = |wrong: bool| f64::from(u8::from(wrong));
    match task {
        Task::Binary => Some(wrong((score(0) >= threshold) != (label > 0.0))),
        Task::Multiclass => {
            // The first of equals, as everywhere.
            let best = (1..scores).fold(0, |best, i| if score(i) > score(best) { i } else { best });
            Some(wrong(best as f64 != label))
        }
        Task::Regression => Some((score(0) - label).abs()).filter(|error| error.is_finite()),
        Task::Ranking => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(plans: &[DetectorPlan]) -> DetectCore {
        DetectCore {
            model: "m".into(),
            task: Task::Binary,
            scores: 1,
            threshold: 0.5,
            window: 1000,
            plans: plans.to_vec(),
            versions: BTreeMap::new(),
        }
    }

    fn all() -> Vec<DetectorPlan> {
        DetectorPlan::NAMES.iter().filter_map(|name| DetectorPlan::named(name)).collect()
    }

    fn bits(n: u64) -> impl Iterator<Item = f64> {
        // A change in the middle.
        (0..n).map(move |i| f64::from(u8::from(crate::base::hash_u64(i) % 10 < if i < n / 2 { 1 } else { 6 })))
    }

    #[test]
    fn errors() {
        let binary = |score, label| error_of((Task::Binary, 0.5), (1, |_| score), label);
        assert_eq!((binary(0.5, 1.0), binary(0.49, 1.0), binary(0.9, 0.0)), (Some(0.0), Some(1.0), Some(1.0)));
        assert_eq!((binary(f64::NAN, 1.0), binary(0.1, f64::NAN)), (None, None));
        let classes = [0.2, 0.4, 0.4];
        let many = |label| error_of((Task::Multiclass, 0.5), (3, |i: usize| classes[i]), label);
        assert_eq!((many(1.0), many(2.0)), (Some(0.0), Some(1.0)));
        assert_eq!(error_of((Task::Regression, 0.5), (1, |_| 1.5), 3.0), Some(1.5));
        assert_eq!(error_of((Task::Ranking, 0.5), (1, |_| 1.5), 3.0), None);
    }

    #[test]
    fn saved_and_loaded_it_tells_the_same() {
        let run = |cut: usize| {
            let (mut core_, mut stats) = (core(&all()), Vec::new());
            for (i, error) in bits(4000).enumerate() {
                if i == cut {
                    let mut again = core(&all());
                    core_.export().iter().for_each(|(_, bytes)| again.import(bytes).expect("it was just saved"));
                    core_ = again;
                }
                let version = if i % 3 == 0 { "a" } else { "b" };
                core_.take(version, i as i64 * 3, error, &mut stats);
            }
            core_.close("a", i64::MAX, &mut stats);
            stats
        };
        let whole = run(usize::MAX);
        let count = |metric: &str| whole.iter().filter(|s| s.metric == metric).count();
        assert!(count("adwin") >= 2 && count("page_hinkley") >= 1 && count("ddm") >= 1, "{whole:?}");
        assert_eq!(count("prequential_error"), 23);
        for cut in [1, 777, 2100, 3999] {
            assert_eq!(run(cut), whole);
        }
        assert!(
            core(&all()).import(&core(&all()).export().iter().flat_map(|e| e.1.clone()).collect::<Vec<_>>()).is_ok()
        );
        assert!(core(&all()).import(&[1, 2, 3]).is_err());
    }

    #[test]
    fn changes_in_one_window_are_revisions() {
        let mut core = core(&[DetectorPlan::named("adwin").expect("a detector")]);
        core.window = 1_000_000;
        let mut stats = Vec::new();
        let flips = (0..6000u64)
            .map(|i| f64::from(u8::from(crate::base::hash_u64(i) % 10 < if i / 1000 % 2 == 0 { 1 } else { 8 })));
        flips.enumerate().for_each(|(i, error)| core.take("v", i as i64, error, &mut stats));
        let revisions: Vec<u32> = stats.iter().filter(|s| s.metric == "adwin").map(|s| s.revision).collect();
        assert!(revisions.len() >= 5);
        assert_eq!(revisions, (1..=revisions.len() as u32).collect::<Vec<_>>());
        assert!(stats.iter().all(|s| s.window_start == 0 && s.as_of < 6000 && s.rows > 0));
    }
}
