//! The end of a chain: model scores are added to the rows, and rows that cannot be scored leave as dead letters.
//!
//! Where versions of the model may take each other's place, commands come as one more input: they are carried out before the
//! rows of their tick are scored. **State**, of such a model alone: its [`Routes`], the same on every worker, saved by the
//! first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use timely::dataflow::Scope;

use super::EngineError;
use super::checkpoint::Saver;
use super::letters::letters;
use super::rollout::tally::{Assigned, Tally};
use super::rollout::{self, VersionMeter};
use super::shared::Shared;
use super::source::commands_of;
use super::status::{RouteRole, RouteStatus};
use super::tables::MODEL_COLUMNS;
use super::ticked::{Control, Port, Rows, per_tick};
use crate::base::{ORD_COLUMN, Tick};
use crate::ingest::DeadLetterKind;
use crate::ops::control::TickInfo;
use crate::ops::key;
use crate::plan::model::SHARE_ALL;
use crate::rollout::VersionRef;
use crate::rollout::order::Order;
use crate::rollout::routes::{Effect, Routes};
use crate::score::routes::{Pair, Routed, Way, group, salt_of};
use crate::score::{Bound, Scores};
use crate::state::Mode;

/// What leaves the scoring of a model.
pub struct Scored<'s> {
    /// Scored rows, with the model's columns at the end.
    pub rows: Rows<'s>,
    /// Rows that could not be scored.
    pub dead: Rows<'s>,
    /// While a version is rolled out, what this worker routed where in each tick.
    pub tallies: Rows<'s>,
}

/// Scores the rows of `rows` by one model, and as `commands` say where its version may change.
pub fn score<'s>(
    scope: Scope<'s, Tick>,
    control: Control<'s>,
    rows: Rows<'s>,
    commands: Option<Rows<'s>>,
    shared: Arc<Shared>,
    model: usize,
    bound: &Arc<Bound>,
) -> Scored<'s> {
    let mut core = match ScoreCore::new(&shared, model, bound, commands.is_some(), scope.index()) {
        Ok(core) => Some(core),
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    let name = format!("score {}", shared.plan.models[model].name);
    let ports = std::iter::once(Port::local(rows)).chain(commands.map(Port::local)).collect();
    let logic = Box::new(move |info: &TickInfo, mut inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        let Some(core) = core.as_mut().filter(|_| !shared.failed()) else { return };
        let commands = inputs.split_off(1).pop().unwrap_or_default();
        if let Err(error) = core.tick(info, inputs.pop().unwrap_or_default(), &commands, out) {
            shared.fail(error);
        }
    });
    let mut outputs = per_tick(scope, &name, control.telling(1), ports, 3, logic).into_iter();
    let mut next = || outputs.next().expect("three outputs");
    Scored { rows: next(), dead: next(), tallies: next() }
}

/// A version that scores.
struct Version {
    /// Model, version and hash, as rows have them.
    labels: [String; 3],
    meter: Option<Arc<VersionMeter>>,
}

/// Scores batches by one model; knows nothing of timely.
struct ScoreCore {
    pair: Pair,
    /// Champion, and challenger where there is one.
    versions: Vec<Version>,
    shared: Arc<Shared>,
    model: usize,
    inputs: Vec<String>,
    outputs: Vec<(String, DataType)>,
    routing: Option<Routing>,
}

/// What a model has whose version may change.
struct Routing {
    routes: Routes,
    saver: Option<Saver>,
    /// Writes the state: all workers have the same.
    first: bool,
    tally: Tally,
    /// Column that holds the prediction's id.
    id: String,
}

impl ScoreCore {
    fn new(
        shared: &Arc<Shared>,
        model: usize,
        bound: &Arc<Bound>,
        routed: bool,
        worker: usize,
    ) -> Result<Self, EngineError> {
        let plan = &shared.plan;
        let described = &plan.models[model];
        let mut core = ScoreCore {
            pair: Pair { champion: bound.scorer()?, challenger: None },
            versions: Vec::new(),
            inputs: plan.sets[described.inputs].columns.iter().map(|c| c.engine.clone()).collect(),
            outputs: bound.outputs(),
            shared: Arc::clone(shared),
            model,
            routing: None,
        };
        let labels = [described.name.clone(), described.version.clone(), bound.model().hash().to_owned()];
        core.versions.push(Version { labels, meter: None });
        if routed {
            core.route(worker)?;
        }
        core.tell_routes();
        Ok(core)
    }

    /// Takes up the routes where they were saved.
    fn route(&mut self, worker: usize) -> Result<(), EngineError> {
        let (shared, plan) = (Arc::clone(&self.shared), Arc::clone(&self.shared.plan));
        let name = rollout::routes_name(&plan, self.model);
        let spine = &plan.sources[plan.sets[plan.models[self.model].inputs].spine];
        let id = spine.id.map_or(ORD_COLUMN, |id| spine.schema.field(id).name());
        self.routing = Some(Routing {
            routes: rollout::saved_routes(&shared.checkpoints, &name)?.unwrap_or_default(),
            saver: shared.checkpoints.operator(worker, &name),
            first: worker == 0,
            tally: Tally::default(),
            id: id.to_owned(),
        });
        self.load()
    }

    /// Makes ready to score by the versions that the routes name.
    fn load(&mut self) -> Result<(), EngineError> {
        let Some(Routing { routes, .. }) = &self.routing else { return Ok(()) };
        let (shared, model) = (&self.shared, self.model);
        let rollouts = &shared.rollouts;
        let ready = |version: &VersionRef| -> Result<_, EngineError> {
            let bound = rollouts.versions.get(model, version)?;
            let shown = rollouts.versions.shown(model, version);
            let meter = rollouts.meter(model, &shown);
            let labels = [shared.plan.models[model].name.clone(), shown, bound.model().hash().to_owned()];
            Ok((bound.scorer()?, Version { labels, meter }))
        };
        let champion = routes.champion.clone().unwrap_or_else(|| rollouts.versions.first(model));
        let (champion, version) = ready(&champion)?;
        self.versions = vec![version];
        self.pair = Pair { champion, challenger: None };
        if let Some(underway) = &routes.rollout {
            let (challenger, version) = ready(&underway.challenger)?;
            self.versions.push(version);
            self.pair.challenger = Some(challenger);
        }
        Ok(())
    }

    fn tick(
        &mut self,
        info: &TickInfo,
        rows: Vec<RecordBatch>,
        commands: &[RecordBatch],
        out: &mut [Vec<RecordBatch>],
    ) -> Result<(), EngineError> {
        self.command(commands)?;
        for batch in rows {
            let (scored, dead) = self.score(info, &batch)?;
            let shared = &self.shared;
            shared.rows_scored.fetch_add(scored.num_rows() as u64, Ordering::Relaxed);
            shared.meters.scored(self.model, scored.num_rows(), dead.as_ref().map_or(0, RecordBatch::num_rows));
            if let Some(observer) = &shared.observer {
                observer.on_scored(self.model, info, &scored);
            }
            out[0].push(scored);
            out[1].extend(dead);
        }
        let Some(routing) = &mut self.routing else { return Ok(()) };
        let tally = std::mem::take(&mut routing.tally);
        if tally != Tally::default() {
            out[2].push(tally.batch().map_err(EngineError::defect)?);
        }
        if info.epoch_end
            && let Some(saver) = &routing.saver
        {
            let anew = self.shared.checkpoints.anew(info.epoch);
            let saved = routing.first.then(|| serde_json::to_vec(&routing.routes)).transpose();
            let saved = saved.map_err(|error| EngineError::defect(error.to_string()))?;
            let entries = saved.into_iter().map(|bytes| (0, bytes)).collect();
            saver.save_later(info, Mode::Replace, anew, Box::new(move || Ok(entries)));
        }
        Ok(())
    }

    /// Carries out the commands of a tick.
    fn command(&mut self, commands: &[RecordBatch]) -> Result<(), EngineError> {
        let Some(routing) = &mut self.routing else { return Ok(()) };
        let (mut changed, mut routing_told) = (false, false);
        for text in commands_of(commands) {
            routing_told = true;
            let order = Order::decode(text).map_err(EngineError::Plan)?;
            if order.model == self.shared.plan.models[self.model].name {
                changed |= !matches!(routing.routes.apply(&order), Effect::None | Effect::Decisions | Effect::Stepped);
            }
        }
        if changed {
            self.load()?;
        }
        if routing_told {
            self.tell_routes();
        }
        Ok(())
    }

    /// Tells who watches which versions score; all workers tell the same.
    fn tell_routes(&self) {
        let share = |role, version: &Version, share| RouteStatus { version: version.labels[1].clone(), role, share };
        let underway = self.routing.as_ref().and_then(|routing| routing.routes.rollout.as_ref());
        let (champion, challenger) = (self.versions.first(), self.versions.get(1));
        let part = underway.filter(|underway| !underway.exposure.shadow);
        let part = part.map_or(0.0, |underway| f64::from(underway.exposure.share) / f64::from(SHARE_ALL));
        let is_shadow = underway.is_some_and(|underway| underway.exposure.shadow);
        let role = if is_shadow { RouteRole::Shadow } else { RouteRole::Challenger };
        let champion = champion.map(|version| share(RouteRole::Champion, version, 1.0 - part));
        let challenger = challenger.map(|version| share(role, version, part));
        self.shared.meters.route(self.model, champion.into_iter().chain(challenger).collect());
    }

    fn score(
        &mut self,
        info: &TickInfo,
        batch: &RecordBatch,
    ) -> Result<(RecordBatch, Option<RecordBatch>), EngineError> {
        let column = |name: &String| {
            batch.column_by_name(name).map(Arc::clone).ok_or_else(|| EngineError::defect(format!("no column {name}")))
        };
        let inputs: Vec<ArrayRef> = self.inputs.iter().map(column).collect::<Result<_, _>>()?;
        let groups = match &self.routing {
            Some(routing) => routing.groups(batch)?,
            None => None,
        };
        let underway = self.routing.as_ref().and_then(|routing| routing.routes.rollout.as_ref());
        let way = match (underway, &groups) {
            (Some(underway), _) if underway.exposure.shadow => Way::Shadow,
            (Some(underway), Some(groups)) => Way::Split { share: underway.exposure.share, groups },
            _ => Way::Champion,
        };
        let routed = self.pair.score(&inputs, way).map_err(EngineError::Score)?;
        let rows = batch.num_rows();
        let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        let mut push = |name: &str, column: ArrayRef| {
            fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
            columns.push(column);
        };
        for (label, name) in MODEL_COLUMNS.iter().enumerate() {
            push(name, texts(rows, routed.challenger.as_deref(), |arm| self.versions[arm].labels[label].as_str()));
        }
        for ((name, _), column) in self.outputs.iter().zip(&routed.scores.columns) {
            push(name, Arc::clone(column));
        }
        if let Some(routing) = &mut self.routing {
            routing.count(&self.versions, &routed, groups.as_deref(), rows)?;
            routing.columns(&self.versions, &self.outputs, &routed, groups.as_deref(), rows, &mut push);
        }
        let wide = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(EngineError::arrow)?;
        let failed = &routed.scores.failed;
        if failed.is_empty() {
            return Ok((wide, None));
        }
        let dead = letters(DeadLetterKind::Unscored, failed, batch, info, &self.shared);
        let mut keep = vec![true; rows];
        failed.iter().for_each(|(row, _)| keep[*row] = false);
        let kept = filter_record_batch(&wide, &BooleanArray::from(keep)).map_err(EngineError::arrow)?;
        Ok((kept, Some(dead)))
    }
}

impl Routing {
    /// The groups of a batch's keys while a version is rolled out.
    fn groups(&self, batch: &RecordBatch) -> Result<Option<Vec<u16>>, EngineError> {
        let Some(underway) = &self.routes.rollout else { return Ok(None) };
        let by = underway.policy.by.as_ref().map_or(&self.id, |by| &by.column);
        let column = batch.column_by_name(by).ok_or_else(|| EngineError::defect(format!("no column {by}")))?;
        let mut hashes = Vec::with_capacity(batch.num_rows());
        key::hashes(std::slice::from_ref(column), &mut hashes)
            .map_err(|error| EngineError::Plan(format!("rows cannot be assigned by `{by}`: {error}")))?;
        let salt = salt_of(&underway.id);
        Ok(Some(hashes.into_iter().map(|hash| group(salt, hash)).collect()))
    }

    /// Counts what was routed where.
    fn count(
        &mut self,
        versions: &[Version],
        routed: &Routed,
        groups: Option<&[u16]>,
        rows: usize,
    ) -> Result<(), EngineError> {
        let challengers = routed.challenger.as_ref().map_or(0, |arms| arms.iter().filter(|arm| **arm).count());
        let is_challenger = |row: usize| routed.challenger.as_ref().is_some_and(|arms| arms[row]);
        let mut errors = [0, 0];
        routed.scores.failed.iter().for_each(|(row, _)| errors[usize::from(is_challenger(*row))] += 1);
        let shadow_errors = routed.shadow.as_ref().map(|shadow| shadow.failed.len());
        let scored = [rows - challengers, if routed.shadow.is_some() { rows } else { challengers }];
        errors[1] = shadow_errors.unwrap_or(errors[1]);
        for (((version, rows), errors), took) in versions.iter().zip(scored).zip(errors).zip(routed.took) {
            if let Some(meter) = version.meter.as_ref().filter(|_| rows > 0) {
                rollout::count(meter, rows, errors, took);
            }
        }
        let Some(underway) = &self.routes.rollout else { return Ok(()) };
        self.tally.serial = self.routes.serial;
        for (arm, errors) in self.tally.arms.iter_mut().zip(errors) {
            arm.errors += errors as u64;
        }
        // In shadow the challenger has no rows, but scores.
        self.tally.arms[0].rows += (rows - challengers) as u64;
        self.tally.arms[1].rows += challengers as u64;
        for (row, score) in first_numbers(&routed.scores)?.into_iter().enumerate() {
            self.tally.arms[usize::from(is_challenger(row))].scores.add(score, 1);
        }
        if let Some(shadow) = &routed.shadow {
            first_numbers(shadow)?.into_iter().for_each(|score| self.tally.arms[1].scores.add(score, 1));
        }
        if underway.policy.by.is_some() && !underway.exposure.shadow {
            groups.into_iter().flatten().for_each(|group| *self.tally.groups.entry(*group).or_default() += 1);
        }
        Ok(())
    }

    /// The columns that tell of versions.
    fn columns(
        &self,
        versions: &[Version],
        outputs: &[(String, DataType)],
        routed: &Routed,
        groups: Option<&[u16]>,
        rows: usize,
        push: &mut impl FnMut(&str, ArrayRef),
    ) {
        let underway = self.routes.rollout.as_ref();
        let arms = routed.challenger.as_deref();
        let names = underway.map_or(["champion"; 2], |underway| underway.names());
        push(rollout::ROUTE, texts(rows, arms, |arm| names[arm]));
        let shadow = routed.shadow.as_ref();
        push(
            rollout::SHADOW_VERSION,
            match versions.get(1).filter(|_| shadow.is_some()) {
                Some(version) => texts(rows, None, |_| version.labels[1].as_str()),
                None => new_null_array(&DataType::Utf8, rows),
            },
        );
        for (output, (name, data_type)) in outputs.iter().enumerate() {
            let column = shadow.map(|shadow| Arc::clone(&shadow.columns[output]));
            push(&rollout::shadow_of(name), column.unwrap_or_else(|| new_null_array(data_type, rows)));
        }
        let serial = underway.map_or(0, |_| self.routes.serial);
        let code = [false, true].map(|challenger| Assigned { serial, challenger }.code());
        let codes = (0..rows).map(|row| code[usize::from(arms.is_some_and(|arms| arms[row]))]);
        push(rollout::ARM, Arc::new(Float64Array::from_iter_values(codes)));
        let by = underway.is_some_and(|underway| underway.policy.by.is_some());
        let groups = groups.filter(|_| by);
        let groups = (0..rows).map(|row| groups.map_or(f64::NAN, |groups| f64::from(groups[row])));
        push(rollout::GROUP, Arc::new(Float64Array::from_iter_values(groups)));
    }
}

/// A text for each row, by its version.
fn texts<'a>(rows: usize, arms: Option<&[bool]>, text: impl Fn(usize) -> &'a str) -> ArrayRef {
    match arms {
        None => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text(0), rows))),
        Some(arms) => Arc::new(StringArray::from_iter_values(arms.iter().map(|arm| text(usize::from(*arm))))),
    }
}

/// The first output as numbers, NaN where there is none.
fn first_numbers(scores: &Scores) -> Result<Vec<f64>, EngineError> {
    let Some(column) = scores.columns.first().filter(|column| column.data_type().is_numeric()) else {
        return Ok(Vec::new());
    };
    let column = cast(column, &DataType::Float64).map_err(EngineError::arrow)?;
    Ok(column.as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}
