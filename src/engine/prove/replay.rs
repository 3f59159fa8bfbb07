//! The plan run again, with its sinks in a folder of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};

use super::recorded::{Recorded, Start};
use super::{ProveOptions, Range};
use crate::base::TIME_COLUMN;
use crate::engine::models::Pins;
use crate::engine::tables::wanted;
use crate::engine::{Alter, EngineError, RestartOptions, RunOptions, RunSummary, run};
use crate::ingest::ticks::TickLog;
use crate::plan::model::{Connector, OnlinePlace, Plan, StreamRef};
use crate::state;

/// File in a replay's folder that says which savepoint it begins with.
const FROM: &str = "from";

/// A folder of a replay: tick log, tables, online store. It is removed with the value.
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes a folder in `parent`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(parent: &Path, name: &str) -> Result<Place, EngineError> {
        let path = parent.join(name);
        std::fs::create_dir_all(&path).map_err(scratch(&path))?;
        Ok(Place { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "what a proof has left is not removed; it may be deleted");
        }
    }
}

fn scratch(path: &Path) -> impl Fn(std::io::Error) -> EngineError + '_ {
    move |error| {
        EngineError::Unprovable(format!(
            "cannot write {}: {error}; give --scratch a directory that may be written and has room",
            path.display()
        ))
    }
}

/// Directory of a replay's tables.
pub fn lake(place: &Path) -> PathBuf {
    place.join("lake")
}

/// Directory of a replay's online store.
pub fn online(place: &Path) -> PathBuf {
    place.join("online")
}

/// State directory of a replay that may be killed.
pub fn state_dir(place: &Path) -> PathBuf {
    place.join("state")
}

/// Puts what a replay begins with into its folder: the ticks, and the state where it does not begin with the first event.
///
/// # Errors
/// When it cannot be written.
pub fn prepare(plan: &Plan, recorded: &Recorded, place: &Path) -> Result<(), EngineError> {
    let mut log = TickLog::take_over(&state_dir(place), 0, recorded.first_tick())?.0;
    recorded.ticks.iter().try_for_each(|record| log.append(record))?;
    log.close()?;
    Pins::of(plan).write(&state_dir(place), None)?;
    let from = match &recorded.start {
        Start::Beginning => return Ok(()),
        Start::Savepoint(from) => from.clone(),
        Start::Epoch(epoch) => {
            let copy = place.join("savepoint").display().to_string();
            state::copy_epoch(&recorded.store, Some(*epoch), &copy)?;
            copy
        }
    };
    let path = place.join(FROM);
    std::fs::write(&path, from).map_err(scratch(&path))
}

/// The plan with its sinks in a folder of its own: nothing of the user's is written.
pub fn redirected(plan: &Plan, place: &Path, with_online: bool) -> Plan {
    let mut plan = plan.clone();
    plan.topics.clear();
    // Alerts are made again, and nobody is told of them.
    plan.receivers.clear();
    plan.monitors.iter_mut().flat_map(|monitor| &mut monitor.alerts).for_each(|alert| alert.to.clear());
    plan.checkpoint.uri = None;
    if let Some(offline) = &mut plan.offline {
        offline.uri = lake(place).display().to_string();
        offline.maintain = None;
    }
    match &mut plan.online {
        Some(sink) if with_online => sink.store = OnlinePlace::Embedded(online(place)),
        sink => *sink = None,
    }
    for source in &mut plan.sources {
        if let Connector::Kafka(kafka) = &mut source.connector {
            kafka.group = None;
        }
    }
    plan
}

/// Runs the redirected plan over the prepared folder. With `resumable` it keeps its state there, and a second call goes on
/// where a process was killed.
///
/// # Errors
/// As [`run()`](run()); among others when the input is no longer what it was.
pub fn replay(plan: &Plan, place: &Path, resumable: bool, options: RunOptions) -> Result<RunSummary, EngineError> {
    let state = state_dir(place);
    let path = place.join(FROM);
    let from = match std::fs::read_to_string(&path) {
        Ok(from) => Some(from),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(scratch(&path)(error)),
    };
    let options = RunOptions {
        until_end: true,
        replay: Some(state.clone()),
        state_dir: (resumable || from.is_some()).then_some(state),
        restart: RestartOptions { from, ..RestartOptions::default() },
        ..options
    };
    run(plan.clone(), options)
}

/// Changes one float by one unit in the last place, once.
pub struct Injection {
    done: Arc<AtomicBool>,
    /// Does it.
    pub alter: Alter,
}

impl Injection {
    /// Changes the first float of the range that some table holds.
    pub fn new(plan: &Plan, options: &ProveOptions) -> Injection {
        let done: Arc<AtomicBool> = Arc::default();
        let (flag, names, range) = (Arc::clone(&done), names_in_tables(plan), options.range);
        let alter: Alter = Arc::new(move |_, batch| {
            if flag.load(Ordering::Relaxed) {
                return None;
            }
            let altered = names.iter().find_map(|name| one_ulp(batch, name, range))?;
            // Of several workers that come here at once one is first.
            (!flag.swap(true, Ordering::Relaxed)).then_some(altered)
        });
        Injection { done, alter }
    }

    /// Whether there was a value to change.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// Engine columns at the end of chains that some table holds.
fn names_in_tables(plan: &Plan) -> Vec<String> {
    let Some(offline) = &plan.offline else { return Vec::new() };
    let mut names = Vec::new();
    for (index, set) in plan.sets.iter().enumerate() {
        let mut tables = vec![format!("feature_sets/{}", set.name)];
        let models = plan.models.iter().filter(|model| model.inputs == index);
        tables.extend(models.map(|model| format!("predictions/{}", model.name)));
        if tables.iter().any(|table| wanted(offline, table)) {
            // Features of views first: what the spine brings along is no work of ours.
            let (features, others): (Vec<_>, Vec<_>) = set.columns.iter().partition(|c| c.engine.contains('.'));
            names.extend(features.into_iter().chain(others).map(|column| column.engine.clone()));
        }
    }
    for view in plan.views.iter().filter(|view| wanted(offline, &format!("features/{}", view.name))) {
        if matches!(view.stream, StreamRef::Source(source) if plan.sets.iter().any(|set| set.spine == source)) {
            names.extend(view.aggregates.iter().map(|aggregate| aggregate.name.clone()));
        }
    }
    names
}

fn one_ulp(batch: &RecordBatch, name: &str, range: Range) -> Option<RecordBatch> {
    let index = batch.schema().index_of(name).ok()?;
    let times = batch.column_by_name(TIME_COLUMN)?;
    let times = arrow::compute::cast(times, &DataType::Int64).ok()?;
    let times = times.as_primitive::<Int64Type>();
    let column = batch.column(index);
    let in_range = |row: usize| range.has(Some(times.value(row)));
    let changed = match column.data_type() {
        DataType::Float64 => nudged::<Float64Type>(column, |row, x| x.is_finite() && in_range(row), f64::next_up)?,
        DataType::Float32 => nudged::<Float32Type>(column, |row, x| x.is_finite() && in_range(row), f32::next_up)?,
        _ => return None,
    };
    let mut columns = batch.columns().to_vec();
    columns[index] = changed;
    RecordBatch::try_new(batch.schema(), columns).ok()
}

/// A column with its first value that fits changed; none where no value does.
fn nudged<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    fits: impl Fn(usize, T::Native) -> bool,
    change: impl Fn(T::Native) -> T::Native,
) -> Option<ArrayRef> {
    let values = column.as_primitive::<T>();
    let row = (0..values.len()).find(|&row| values.is_valid(row) && fits(row, values.value(row)))?;
    let changed = values.iter().enumerate().map(|(i, x)| if i == row { x.map(&change) } else { x });
    Some(Arc::new(changed.collect::<PrimitiveArray<T>>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Float64Array, Int64Array};

    use super::*;

    #[test]
    fn one_unit_in_the_last_place_and_nothing_else() {
        let time: ArrayRef = Arc::new(Int64Array::from(vec![5, 6, 7]));
        let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(2.0)]));
        let y: ArrayRef = Arc::new(Float32Array::from(vec![Some(f32::NAN), Some(0.0), None]));
        let batch =
            RecordBatch::try_from_iter_with_nullable([(TIME_COLUMN, time, false), ("v.x", x, true), ("v.y", y, true)])
                .unwrap();
        let range = Range { since: Some(6), until: None };
        let altered = one_ulp(&batch, "v.x", range).unwrap();
        let values: Vec<_> = altered.column(1).as_primitive::<Float64Type>().iter().collect();
        assert_eq!(values, [Some(1.0), None, Some(2.0f64.next_up())]);
        let altered = one_ulp(&batch, "v.y", Range::default()).unwrap();
        assert_eq!(altered.column(2).as_primitive::<Float32Type>().value(1).to_bits(), 1);
        assert!(one_ulp(&batch, "v.y", Range { since: Some(7), until: None }).is_none());
        assert!(one_ulp(&batch, "v.z", range).is_none());
    }
}
