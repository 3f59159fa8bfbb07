//! Statistics as they were told over time: read back from rows, and by series and window what was told first and what is
//! known now.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};

use super::stat::{Stat, StatKind};
use crate::base::EventTime;

/// Reads statistics back from rows of [`stat_schema`](super::stat_schema), whatever else they hold and however their text
/// is encoded.
///
/// # Errors
/// A sentence, when a column is missing or of another type, or a window has no start.
pub fn stats_of(kind: StatKind, batch: &RecordBatch) -> Result<Vec<Stat>, String> {
    let column = |name: &str, ty: &DataType| -> Result<ArrayRef, String> {
        let column = batch.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"))?;
        cast(column, ty).map_err(|error| format!("column `{name}`: {error}"))
    };
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let text = |name: &str| column(name, &DataType::Utf8);
    let [model, version, route] = ["model", "model_version", "route"].map(text);
    let [segment, subject, metric] = ["segment", "subject", "metric"].map(text);
    let (model, version, route, segment, subject, metric) = (model?, version?, route?, segment?, subject?, metric?);
    let [start, end, as_of] = ["window_start", "window_end", "as_of"].map(|name| column(name, &utc));
    let (start, end, as_of) = (start?, end?, as_of?);
    let [value, bound, threshold] = ["value", "bound", "threshold"].map(|name| column(name, &DataType::Float64));
    let (value, bound, threshold) = (value?, bound?, threshold?);
    let [rows, revision] = ["rows", "revision"].map(|name| column(name, &DataType::Int64));
    let (rows, revision) = (rows?, revision?);
    let [alarm, complete] = ["alarm", "complete"].map(|name| column(name, &DataType::Boolean));
    let (alarm, complete) = (alarm?, complete?);

    let string = |column: &ArrayRef, row: usize| match column.is_valid(row) {
        true => column.as_string::<i32>().value(row).to_owned(),
        false => String::new(),
    };
    let float =
        |column: &ArrayRef, row: usize| column.is_valid(row).then(|| column.as_primitive::<Float64Type>().value(row));
    let int = |column: &ArrayRef, row: usize| {
        column.is_valid(row).then(|| column.as_primitive::<Int64Type>().value(row)).unwrap_or(0)
    };
    let time = |column: &ArrayRef, row: usize| {
        column.is_valid(row).then(|| column.as_primitive::<TimestampMicrosecondType>().value(row))
    };
    let bool = |column: &ArrayRef, row: usize| column.is_valid(row).then(|| column.as_boolean().value(row));
    (0..batch.num_rows())
        .map(|row| {
            let window_start = time(&start, row).ok_or("a row's window has no start")?;
            Ok(Stat {
                kind,
                model: string(&model, row),
                version: string(&version, row),
                route: string(&route, row),
                segment: string(&segment, row),
                window_start,
                window_end: time(&end, row).unwrap_or(window_start),
                subject: string(&subject, row),
                metric: string(&metric, row),
                value: float(&value, row),
                bound: float(&bound, row),
                rows: u64::try_from(int(&rows, row)).unwrap_or(0),
                threshold: float(&threshold, row),
                alarm: bool(&alarm, row),
                revision: u32::try_from(int(&revision, row)).unwrap_or(0),
                as_of: time(&as_of, row).unwrap_or(window_start),
                complete: bool(&complete, row).unwrap_or(false),
            })
        })
        .collect()
}

/// What makes a series: all that names a statistic but its window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// Which table it is in.
    pub kind: StatKind,
    /// The model.
    pub model: String,
    /// Its version.
    pub version: String,
    /// The route.
    pub route: String,
    /// `column=value`, or empty.
    pub segment: String,
    /// The column, class or detector it is of, or empty.
    pub subject: String,
    /// Its name.
    pub metric: String,
}

impl From<&Stat> for Series {
    fn from(stat: &Stat) -> Series {
        Series {
            kind: stat.kind,
            model: stat.model.clone(),
            version: stat.version.clone(),
            route: stat.route.clone(),
            segment: stat.segment.clone(),
            subject: stat.subject.clone(),
            metric: stat.metric.clone(),
        }
    }
}

/// What was told of one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// As it was told first, as far as is known.
    pub first: Stat,
    /// As it is known now.
    pub newest: Stat,
    /// How often it was told.
    pub times: u32,
}

/// Statistics by series and window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    series: BTreeMap<Series, BTreeMap<EventTime, Told>>,
}

impl History {
    /// Takes note of a statistic, in any order. One that was told twice under one revision counts once.
    pub fn add(&mut self, stat: Stat) {
        let windows = self.series.entry(Series::from(&stat)).or_default();
        let Some(told) = windows.get_mut(&stat.window_start) else {
            let told = Told { first: stat.clone(), newest: stat, times: 1 };
            windows.insert(told.first.window_start, told);
            return;
        };
        let (first, newest) = (told.first.revision, told.newest.revision);
        // Of a revision that is there twice, after a restart from an older epoch say, the later one holds.
        if stat.revision != first && stat.revision != newest {
            told.times += 1;
        }
        if stat.revision > newest || (stat.revision == newest && stat.as_of >= told.newest.as_of) {
            told.newest = stat.clone();
        }
        if stat.revision < first || (stat.revision == first && stat.as_of >= told.first.as_of) {
            told.first = stat;
        }
    }

    /// All series, each with its windows in their order.
    pub fn series(&self) -> impl Iterator<Item = (&Series, &BTreeMap<EventTime, Told>)> {
        self.series.iter()
    }

    /// Whether nothing was told.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

impl Extend<Stat> for History {
    fn extend<I: IntoIterator<Item = Stat>>(&mut self, stats: I) {
        stats.into_iter().for_each(|stat| self.add(stat));
    }
}

impl FromIterator<Stat> for History {
    fn from_iter<I: IntoIterator<Item = Stat>>(stats: I) -> History {
        let mut history = History::default();
        history.extend(stats);
        history
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::monitor::stat_batch;

    fn stat(window: i64, revision: u32, value: f64) -> Stat {
        Stat {
            kind: StatKind::Accuracy,
            model: "m".into(),
            version: "1".into(),
            route: String::new(),
            segment: "country=FR".into(),
            window_start: window * 10,
            window_end: window * 10 + 10,
            subject: String::new(),
            metric: "auc".into(),
            value: Some(value),
            bound: None,
            rows: 7,
            threshold: Some(0.9),
            alarm: Some(value < 0.9),
            revision,
            as_of: i64::from(revision) * 100,
            complete: revision > 3,
        }
    }

    #[test]
    fn rows_are_read_back_as_they_were_written() {
        let mut stats = vec![stat(1, 1, 0.5), stat(2, 4, 0.95)];
        stats[0].bound = Some(1e-9);
        stats[1].value = None;
        (stats[1].threshold, stats[1].alarm) = (None, None);
        let batch = stat_batch(&stats, 3, 1);
        assert_eq!(stats_of(StatKind::Accuracy, &batch).unwrap(), stats);
        let without = batch.project(&[0, 7, 8]).unwrap();
        assert!(stats_of(StatKind::Accuracy, &without).unwrap_err().contains("`route`"));
    }

    proptest! {
        /// Whatever the order of rows, and with rows told twice: what holds is the highest revision, and the lowest came first.
        #[test]
        fn the_newest_revision_holds(told in prop::collection::vec((0i64..4, 1u32..6, 0u32..100), 1..60)) {
            let value = |window: i64, revision: u32| f64::from(revision) + window as f64 * 10.0;
            let history: History = told.iter().map(|(w, r, _)| stat(*w, *r, value(*w, *r))).collect();
            let (_, windows) = history.series().next().unwrap();
            for (start, found) in windows {
                let window = start / 10;
                let mut revisions: Vec<u32> = told.iter().filter(|(w, ..)| *w == window).map(|(_, r, _)| *r).collect();
                revisions.sort_unstable();
                let (first, last) = (revisions[0], revisions[revisions.len() - 1]);
                prop_assert_eq!((found.first.revision, found.newest.revision), (first, last));
                prop_assert_eq!(found.newest.value, Some(value(window, last)));
                prop_assert_eq!(found.first.value, Some(value(window, first)));
            }
            prop_assert_eq!(history.series().count(), 1);
        }
    }
}
