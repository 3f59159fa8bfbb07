//! Predictions and their labels as an operator: the core of [`Matches`] fed tick by tick.
//!
//! The stream of matches has one row for each time that a prediction begins or ceases to count with a label, see
//! [`match_schema`]. They leave in the tick in which the label became known, on the worker of the id, by `(due, _ord)`.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int8Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimeUnit};
use timely::container::{CapacityContainerBuilder, NoopBuilder};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use super::super::EngineError;
use super::super::checkpoint::Saver;
use super::super::rollout;
use super::super::shared::Shared;
use super::super::tables::MODEL_COLUMNS;
use super::super::ticked::{Control, Port, Rows, TickBuffer, per_tick};
use crate::base::{EventTime, ORD_COLUMN, TIME_COLUMN, Tick};
use crate::monitor::accuracy::feed::Feed;
use crate::monitor::accuracy::items::Ripe;
use crate::monitor::accuracy::measure::Measures;
use crate::monitor::matches::{Change, Groups, Keys, Kind, Labels, Matches, Predictions, Row, Sink, Widths};
use crate::monitor::windows::Windows;
use crate::ops::control::TickInfo;
use crate::ops::order::merge_sorted;
use crate::ops::{Batch, key, ords, times};
use crate::plan::model::{LabelPlan, MonitorPlan, Plan};
use crate::state::Mode;

/// A segment's value where the column has none.
pub const NO_VALUE: &str = "(null)";

/// Name of the operator, which is that of its state.
pub fn name(plan: &Plan, monitor: &MonitorPlan) -> String {
    format!("monitor {} labels", plan.models[monitor.model].name)
}

/// Lengths of a monitor whose labels count for `within`.
pub fn windows(monitor: &MonitorPlan, labels: &LabelPlan) -> Windows {
    Windows { window: monitor.window, refresh: monitor.refresh, within: labels.within }
}

/// What the state depends on, in words.
pub fn meaning(plan: &Plan, monitor: &MonitorPlan, labels: &LabelPlan) -> String {
    use crate::base::format_duration as length;
    let segments: Vec<&str> = monitor.segments.iter().map(|(_, column)| column.as_str()).collect();
    let source = &plan.sources[labels.from];
    let column = |column: usize| source.stream_schema.field(column).name().as_str();
    let accuracy = monitor.accuracy.as_ref();
    let query = accuracy.and_then(|accuracy| accuracy.ranking.as_ref()).map(|ranking| &ranking.query);
    let group = query.or(accuracy.and_then(|accuracy| accuracy.card.as_ref()).map(|card| &card.by));
    format!(
        "predictions ({}{}{}{}) in windows of {} told every {}, by {} with {} of {} by {} within {}",
        monitor.prediction.join(", "),
        if carried(plan, monitor).is_empty() { "" } else { "; arms of rollouts" },
        if group.is_some() { "; " } else { "" },
        group.map_or("", String::as_str),
        length(monitor.window),
        length(monitor.refresh),
        segments.join(", "),
        column(labels.value),
        source.name,
        column(labels.id),
        length(labels.within)
    )
}

/// Column of the scored rows that holds their id.
fn id_column(plan: &Plan, monitor: &MonitorPlan) -> Option<usize> {
    let spine = &plan.sources[plan.sets[plan.models[monitor.model].inputs].spine];
    spine.stream_schema.index_of(spine.schema.field(spine.id?).name()).ok()
}

/// Column by which rows are grouped beyond segments, and whether it is text.
fn group(measures: &Measures) -> Option<(String, bool)> {
    let plan = &measures.plan;
    let ranking = plan.ranking.as_ref().map(|ranking| (ranking.query.clone(), ranking.text));
    ranking.or(plan.card.as_ref().map(|card| (card.by.clone(), card.text)))
}

/// Columns of the stream of matches.
///
/// `_time` and `_ord` are the prediction's, `due` is when the change takes effect, `diff` is 1 when the prediction counts
/// with `label` from then on and -1 when no longer, `first` tells that it never counted before. Where the model's versions are
/// rolled out, the columns of [`carried`] follow: `arm`, and what the challenger said in shadow, NaN for nothing.
pub fn match_schema(plan: &Plan, monitor: &MonitorPlan) -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new(TIME_COLUMN, time(), false),
        Field::new(ORD_COLUMN, DataType::UInt64, false),
        Field::new("due", time(), false),
        Field::new("diff", DataType::Int8, false),
        Field::new("first", DataType::Boolean, false),
        Field::new("version", DataType::Utf8, false),
    ];
    fields.extend((0..monitor.prediction.len()).map(|i| Field::new(format!("score_{i}"), DataType::Float64, false)));
    fields.push(Field::new("label", DataType::Float64, false));
    fields.extend((0..monitor.segments.len()).map(|i| Field::new(format!("segment_{i}"), DataType::Utf8, false)));
    let carried = carried(plan, monitor).len();
    fields.extend((0..carried).map(|i| match i {
        0 => Field::new("arm", DataType::Float64, false),
        1 => Field::new("group", DataType::Float64, false),
        _ => Field::new(format!("shadow_{}", i - 2), DataType::Float64, false),
    }));
    Arc::new(Schema::new(fields))
}

/// Columns of scored rows that go with a prediction until its label comes, for the rollout of the model's versions: which version
/// made it, the group of its key, and the challenger's outputs where it was in shadow. They are kept behind the prediction's own outputs.
fn carried(plan: &Plan, monitor: &MonitorPlan) -> Vec<String> {
    if !rollout::is_rolled_out(plan, monitor.model) {
        return Vec::new();
    }
    let fixed = [rollout::ARM, rollout::GROUP].map(str::to_owned).into_iter();
    fixed.chain(monitor.prediction.iter().map(|output| rollout::shadow_of(output))).collect()
}

/// Hands statistics what is theirs: the prediction's own outputs.
struct Own<'a> {
    feed: &'a mut Feed,
    scores: usize,
}

impl Sink for Own<'_> {
    #[inline(always)]
    fn change(&mut self, row: Row<'_>, change: Change, due: EventTime, diff: i64) {
        // Of a label without a prediction there are none.
        let scores = row.scores.get(..self.scores).unwrap_or(row.scores);
        self.feed.change(Row { scores, ..row }, change, due, diff);
    }
}

/// What leaves the operator.
pub struct Matched<'s> {
    /// The stream of matches.
    pub rows: Rows<'s>,
    /// What is told of them at boundaries that have passed, for the graph of statistics; one for each tick.
    pub ripe: Stream<'s, Tick, Vec<Ripe>>,
}

/// Attaches the operator: scored rows from wherever they are, labels on the worker of their id and in the plan's order. The
/// stream of matches has rows where it is `watched`.
pub fn matches<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: Control<'s>,
    monitor: usize,
    watched: bool,
    scored: Rows<'s>,
    labels: Port<'s>,
) -> Matched<'s> {
    let name = name(&shared.plan, &shared.plan.monitors[monitor]);
    let place = (scope.index(), scope.peers());
    let mut core = match MatchCore::new(shared, monitor, watched, place) {
        Ok(core) => Some(core),
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    let shared = Arc::clone(shared);
    let mut builder = OperatorBuilder::new(name, scope);
    // The scored rows come in where they are made narrow.
    let within = control.behind_first();
    let node = control.node();
    let ports = vec![Port::keyed(narrow(scope, &shared, &control, monitor, scored), vec![ID]), labels];
    let mut buffer = TickBuffer::attach(&mut builder, within, ports, vec![0, 1]);
    let (output, rows) = builder.new_output::<Batch>();
    let mut rows_out = OutputBuilder::<Tick, NoopBuilder<Batch>>::from(output);
    let (output, ripe) = builder.new_output::<Vec<Ripe>>();
    let mut ripe_out = OutputBuilder::<Tick, CapacityContainerBuilder<Vec<Ripe>>>::from(output);
    builder.build(move |capabilities| {
        drop(capabilities);
        move |frontiers| {
            buffer.pull();
            while let Some((info, mut inputs, capabilities)) =
                buffer.pop(|tick| frontiers.iter().all(|frontier| !frontier.less_equal(tick)))
            {
                let Some(core) = core.as_mut().filter(|_| !shared.failed()) else { continue };
                let labels = inputs.pop().and_then(merge_sorted);
                let scored = inputs.pop().and_then(merge_sorted);
                let started = Instant::now();
                let outcome = core.tick(&info, scored.as_ref(), labels.as_ref());
                node.iter().for_each(|node| node.worked(started.elapsed()));
                let (told, ripe) = match outcome {
                    Ok(out) => out,
                    Err(error) => {
                        shared.fail(error);
                        continue;
                    }
                };
                if let Some(told) = told {
                    let mut session = rows_out.activate();
                    session.session_with_builder(&capabilities[0]).give_container(&mut Batch::from(told));
                }
                ripe_out.activate().session_with_builder(&capabilities[1]).give(ripe);
            }
        }
    });
    Matched { rows, ripe }
}

/// Place of the id in rows that came through [`narrow`].
const ID: usize = 2;

/// Scored rows without the columns that nobody looks at here: they may move to another worker.
fn narrow<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    monitor: usize,
    scored: Rows<'s>,
) -> Rows<'s> {
    let (plan, shared) = (Arc::clone(&shared.plan), Arc::clone(shared));
    let described = &plan.monitors[monitor];
    let id = id_column(&plan, described);
    let group = super::accuracy::measures(described).as_ref().and_then(group);
    let mut names = vec![MODEL_COLUMNS[1].to_owned()];
    names.extend(described.prediction.iter().cloned());
    names.extend(carried(&plan, described));
    names.extend(described.segments.iter().map(|(_, column)| column.clone()).chain(group.map(|group| group.0)));
    names.sort_unstable();
    names.dedup();
    let project = move |rows: &RecordBatch| -> Result<RecordBatch, EngineError> {
        let missing = |name: &str| EngineError::defect(format!("scored rows have no column {name}"));
        let mut columns = vec![0, 1, id.ok_or_else(|| missing("of ids"))?];
        for name in &names {
            let (column, _) = rows.schema_ref().column_with_name(name).ok_or_else(|| missing(name))?;
            columns.push(column);
        }
        rows.project(&columns).map_err(EngineError::arrow)
    };
    let logic = Box::new(move |_: &TickInfo, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        for rows in inputs.into_iter().flatten() {
            match project(&rows) {
                Ok(rows) => out[0].push(rows),
                Err(error) => shared.fail(error),
            }
        }
    });
    let name = format!("{} columns", super::name(&plan, described));
    let mut outputs = per_tick(scope, &name, control.clone(), vec![Port::local(scored)], 1, logic);
    outputs.pop().expect("one output")
}

/// The matches between their ticks; knows nothing of timely.
struct MatchCore {
    shared: Arc<Shared>,
    monitor: usize,
    matches: Matches,
    feed: Feed,
    /// Whether anybody looks at the stream of matches.
    watched: bool,
    schema: SchemaRef,
    /// Columns whose values are kept with a prediction: its outputs, so many, and what is [carried] along.
    kept: (Vec<String>, usize),
    /// Column by which rows are grouped, and whether it is text.
    group: Option<(String, bool)>,
    labels: (usize, usize),
    saver: Option<Saver>,
}

impl MatchCore {
    fn new(
        shared: &Arc<Shared>,
        monitor: usize,
        watched: bool,
        place: (usize, usize),
    ) -> Result<MatchCore, EngineError> {
        let plan = &shared.plan;
        let described = &plan.monitors[monitor];
        let labels = described.labels.map(|labels| &plan.labels[labels]);
        let labels = labels.ok_or_else(|| EngineError::defect("matches without labels".to_owned()))?;
        let measures = super::accuracy::measures(described)
            .ok_or_else(|| EngineError::defect("labels without statistics".to_owned()))?;
        let group = group(&measures);
        let own = described.prediction.len();
        let kept: Vec<String> = described.prediction.iter().cloned().chain(carried(plan, described)).collect();
        let (scores, segments) = (kept.len(), described.segments.len());
        let kind = group.as_ref().map(|(_, text)| if *text { Kind::Text } else { Kind::Number });
        let (widths, windows) = (Widths { scores, segments, group: kind }, windows(described, labels));
        let checkpoints = &shared.checkpoints;
        let mut matches = Matches::new(windows, widths, checkpoints.enabled());
        let name = name(plan, described);
        let saver = checkpoints.operator(place.0, &name);
        let damaged = |error| EngineError::Plan(format!("the saved state of `{name}`: {error}"));
        checkpoints.restore(&name, place, |slot, bytes| matches.import(slot, bytes).map_err(damaged))?;
        let watermark = checkpoints.watermark.unwrap_or(EventTime::MIN);
        matches.restored(watermark);
        // What the graph held is made again, as of the last boundary that had passed.
        let mut feed = Feed::new(measures, windows, windows.passed(watermark));
        matches.replay(&mut Own { feed: &mut feed, scores: own });
        Ok(MatchCore {
            shared: Arc::clone(shared),
            monitor,
            matches,
            feed,
            watched,
            kept: (kept, own),
            group,
            schema: match_schema(plan, described),
            labels: (labels.id, labels.value),
            saver,
        })
    }

    fn tick(
        &mut self,
        info: &TickInfo,
        scored: Option<&RecordBatch>,
        labels: Option<&RecordBatch>,
    ) -> Result<(Option<RecordBatch>, Ripe), EngineError> {
        let scored = scored.map(|rows| self.predictions(rows)).transpose()?;
        let labels = labels.map(|rows| self.labels(rows)).transpose()?;
        let (mut told, watched) = (Told { own: self.kept.1, ..Told::default() }, self.watched);
        let mut feed = Own { feed: &mut self.feed, scores: self.kept.1 };
        let mut sink = |row: Row<'_>, change: Change, due: EventTime, diff: i64| {
            if watched && let Change::Labelled(label, first) = change {
                told.push(row, label, first, due, diff);
            }
            feed.change(row, change, due, diff);
        };
        self.matches.apply(scored.as_ref(), labels.as_ref(), &mut sink);
        self.matches.advance(info.watermark, &mut Own { feed: &mut self.feed, scores: self.kept.1 });
        let ripe = self.feed.ripen(info.watermark, self.matches.names());
        if info.epoch_end
            && let Some(saver) = &self.saver
        {
            let anew = self.shared.checkpoints.anew(info.epoch);
            let frozen = self.matches.freeze(anew.is_first());
            saver.save_later(info, Mode::Change, anew, Box::new(move || Ok(frozen.encode())));
        }
        Ok((told.batch(&self.schema, &self.matches)?, ripe))
    }

    fn predictions<'a>(&mut self, rows: &'a RecordBatch) -> Result<Predictions<'a>, EngineError> {
        let plan = Arc::clone(&self.shared.plan);
        let monitor = &plan.monitors[self.monitor];
        let column = |name: &str| {
            rows.column_by_name(name).ok_or_else(|| EngineError::defect(format!("scored rows have no column {name}")))
        };
        let count = rows.num_rows();
        let (kept, _) = &self.kept;
        let mut scores = vec![f64::NAN; count * kept.len()];
        for (i, name) in kept.iter().enumerate() {
            let values = cast(column(name)?, &DataType::Float64).map_err(EngineError::arrow)?;
            let values = values.as_primitive::<Float64Type>();
            for (row, score) in scores.iter_mut().skip(i).step_by(kept.len()).enumerate() {
                if values.is_valid(row) {
                    *score = values.value(row);
                }
            }
        }
        let versions = self.texts(column(MODEL_COLUMNS[1])?)?;
        let mut segments = vec![0; count * monitor.segments.len()];
        for (i, (_, name)) in monitor.segments.iter().enumerate() {
            let texts = self.texts(column(name)?)?;
            let places = segments.iter_mut().skip(i).step_by(monitor.segments.len());
            places.zip(texts).for_each(|(place, text)| *place = text);
        }
        let groups = match self.group.clone() {
            None => Groups::None,
            Some((name, true)) => {
                let texts = cast(column(&name)?, &DataType::Utf8).map_err(EngineError::arrow)?;
                Groups::Texts(texts.as_string::<i32>().clone())
            }
            Some((name, false)) => {
                let mut words = Vec::with_capacity(count);
                let column = column(&name)?;
                key::words(column, &mut words);
                let number = |(row, word): (usize, u64)| if column.is_null(row) { 0 } else { word.cast_signed() };
                Groups::Numbers(words.into_iter().enumerate().map(number).collect())
            }
        };
        let ids = Keys::of(rows.column(ID)).map_err(|error| EngineError::Plan(error.to_string()))?;
        Ok(Predictions { times: times(rows), ords: ords(rows), ids, versions, scores, segments, groups })
    }

    /// The values of a column as numbered texts.
    fn texts(&mut self, column: &ArrayRef) -> Result<Vec<u32>, EngineError> {
        let column = cast(column, &DataType::Utf8).map_err(EngineError::arrow)?;
        let column = column.as_string::<i32>();
        let mut last: Option<(&str, u32)> = None;
        let mut number = |text| match last {
            Some((known, number)) if known == text => number,
            _ => {
                let number = self.matches.name(text);
                last = Some((text, number));
                number
            }
        };
        Ok(column.iter().map(|text| number(text.unwrap_or(NO_VALUE))).collect())
    }

    fn labels<'a>(&self, rows: &'a RecordBatch) -> Result<Labels<'a>, EngineError> {
        let (id, value) = self.labels;
        let ids = Keys::of(rows.column(id)).map_err(|error| EngineError::Plan(error.to_string()))?;
        let values = cast(rows.column(value), &DataType::Float64).map_err(EngineError::arrow)?;
        let values = values.as_primitive::<Float64Type>().iter().collect();
        Ok(Labels { times: times(rows), ords: ords(rows), ids, values })
    }
}

/// Matches of one tick on their way out.
#[derive(Default)]
struct Told {
    /// Outputs of a prediction; what is carried along follows them.
    own: usize,
    /// Due, then the prediction's position.
    order: Vec<(EventTime, u64)>,
    times: Vec<EventTime>,
    diffs: Vec<i8>,
    firsts: Vec<bool>,
    versions: Vec<u32>,
    scores: Vec<f64>,
    labels: Vec<f64>,
    segments: Vec<u32>,
}

impl Told {
    fn push(&mut self, row: Row<'_>, label: f64, first: bool, due: EventTime, diff: i64) {
        self.order.push((due, row.ord));
        self.times.push(row.time);
        self.diffs.push(diff as i8);
        self.firsts.push(first);
        self.versions.push(row.version);
        self.scores.extend_from_slice(row.scores);
        self.labels.push(label);
        self.segments.extend_from_slice(row.segments);
    }

    fn batch(self, schema: &SchemaRef, matches: &Matches) -> Result<Option<RecordBatch>, EngineError> {
        let count = self.order.len();
        if count == 0 {
            return Ok(None);
        }
        let mut places: Vec<u32> = (0..count as u32).collect();
        // Stable: of one prediction the old goes before the new.
        places.sort_by_key(|i| self.order[*i as usize]);
        let places = || places.iter().map(|i| *i as usize);
        let time = |values: &mut dyn Iterator<Item = EventTime>| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
        };
        let names = matches.names();
        let text = |of: &dyn Fn(usize) -> u32| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(places().map(|i| names.text(of(i)))))
        };
        let (scores, segments) = (self.scores.len() / count, self.segments.len() / count);
        let mut columns: Vec<ArrayRef> = vec![
            time(&mut places().map(|i| self.times[i])),
            Arc::new(UInt64Array::from_iter_values(places().map(|i| self.order[i].1))),
            time(&mut places().map(|i| self.order[i].0)),
            Arc::new(Int8Array::from_iter_values(places().map(|i| self.diffs[i]))),
            Arc::new(BooleanArray::from_iter(places().map(|i| Some(self.firsts[i])))),
            text(&|i| self.versions[i]),
        ];
        let score = |score: usize| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(places().map(|i| self.scores[i * scores + score])))
        };
        columns.extend((0..self.own).map(score));
        columns.push(Arc::new(Float64Array::from_iter_values(places().map(|i| self.labels[i]))));
        for segment in 0..segments {
            columns.push(text(&|i| self.segments[i * segments + segment]));
        }
        columns.extend((self.own..scores).map(score));
        RecordBatch::try_new(Arc::clone(schema), columns).map(Some).map_err(EngineError::arrow)
    }
}
