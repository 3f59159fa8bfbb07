//! The graph of statistics: what labels say of predictions, in differential dataflow.
//!
//! The graph stands in a scope of its own whose times are a tick and a *round*, the boundary at which a change is told. All
//! that is told at a boundary is there at one time, and each boundary has a result of its own, so what is told depends on no
//! cut of ticks. The operator that brings changes in holds the one capability of the scope, at the tick to come and the
//! round to come: traces forget which round a change was of once it has passed, and what was taken back is gone.
//!
//! ```text
//!   matches ─ ripe ─►│ rounds ─► counts ─────────────────────► concat ► reduce: by group ──►┐
//!                    │        ─► ranked ► reduce: by query ─────►┘                          ├ leave ─► told
//!                    │        ─► cards ► reduce: by card ► reduce: the first k ────────────►┘
//! ```
//!
//! What is counted of a group is the *difference* of its record: scores with their labels, in order, are added and taken
//! back as numbers are, so that the graph moves one record for all that a group has of a round.
//!
//! Its traces are in no checkpoint: after a restart the operator of matches tells of all rows of open windows again, as of the
//! last boundary that had passed, and what comes out is what was told before.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use differential_dataflow::{AsCollection, VecCollection};
use timely::container::{CapacityContainerBuilder, NoopBuilder};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Capability, Concatenate, Enter, Leave};
use timely::dataflow::{Scope, Stream};
use timely::order::Product;

use super::super::EngineError;
use super::super::checkpoint::Saver;
use super::super::shared::Shared;
use super::super::ticked::{Control, Rows};
use super::matches;
use crate::base::{EventTime, Micros, Tick, worker_of_slot};
use crate::monitor::accuracy::counts::Counts;
use crate::monitor::accuracy::items::{By, Fact, Group, Name, Outcome, Ranked, Ripe, Score};
use crate::monitor::accuracy::measure::Measures;
use crate::monitor::accuracy::segments::{first_cards, outcomes};
use crate::monitor::accuracy::told::{Changed, Titles, Told, slot};
use crate::monitor::stat_batch;
use crate::ops::Batch;
use crate::ops::control::TickInfo;
use crate::plan::model::{MonitorPlan, Plan};
use crate::state::Mode;

/// Number of a boundary, in the order of boundaries.
type Round = u64;

/// A time of the graph.
type Time = Product<Tick, Round>;

/// Rows of the graph: each with its time and difference.
type Updates<D, R> = Vec<(D, Time, R)>;

/// Changes that leave the graph.
///
/// Each says its tick: differential puts changes of several times into one message, at the first of them.
type Outcomes<'s> = Stream<'s, Tick, Vec<(Tick, Changed)>>;

fn round(boundary: EventTime) -> Round {
    boundary.cast_unsigned() ^ (1 << 63)
}

fn boundary(round: Round) -> EventTime {
    (round ^ (1 << 63)).cast_signed()
}

/// What a monitor computes of labels, if it has any.
pub fn measures(monitor: &MonitorPlan) -> Option<Measures> {
    let plan = monitor.accuracy.clone()?;
    Some(Measures { task: monitor.task, outputs: monitor.prediction.len(), plan })
}

/// Name of the operator that tells, which is that of its state.
pub fn name(plan: &Plan, monitor: &MonitorPlan) -> String {
    format!("monitor {} accuracy", plan.models[monitor.model].name)
}

/// What its state depends on, in words.
pub fn meaning(plan: &Plan, monitor: &MonitorPlan) -> String {
    let Some(accuracy) = &monitor.accuracy else { return String::new() };
    let metrics: Vec<&str> = accuracy.metrics.iter().map(|metric| metric.name()).collect();
    let labels = monitor.labels.map(|labels| matches::meaning(plan, monitor, &plan.labels[labels]));
    let card = accuracy.card.as_ref().map(|card| format!("; the first {} left out for {}us", card.k, card.exclude));
    let ranking = accuracy.ranking.as_ref().map(|ranking| format!("; the first {}", ranking.k));
    let bins = accuracy.bins.map(|bins| format!("; in {bins} bins"));
    let [card, ranking, bins] = [card, ranking, bins].map(Option::unwrap_or_default);
    format!(
        "{:?} {} from {} apart {} of {}{bins}{ranking}{card}",
        monitor.task,
        metrics.join(", "),
        accuracy.threshold,
        monitor.segments_max,
        labels.unwrap_or_default()
    )
}

/// Attaches the graph and the operator that tells what comes out of it.
pub fn accuracy<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: Control<'s>,
    monitor: usize,
    ripe: Stream<'s, Tick, Vec<Ripe>>,
) -> Rows<'s> {
    let described = &shared.plan.monitors[monitor];
    let outcomes = match measures(described) {
        Some(measures) => {
            let windows = (described.window, described.segments_max);
            graph(scope, shared.checkpoints.first_tick, &measures, windows, ripe)
        }
        None => scope.concatenate(Vec::<Outcomes<'s>>::new()),
    };
    told(scope, shared, control, monitor, outcomes)
}

/// The graph from tick `begin` on: changes go in, and what comes out for groups leaves with the boundary of it.
pub fn graph<'s>(
    scope: Scope<'s, Tick>,
    begin: Tick,
    measures: &Measures,
    (window, apart): (Micros, usize),
    ripe: Stream<'s, Tick, Vec<Ripe>>,
) -> Outcomes<'s> {
    scope.scoped::<Time, _, _>("accuracy", |inner| {
        let Rounds { counts, ranked, cards } = rounds(inner, begin, ripe.enter(inner));
        let of_queries = Arc::new(measures.clone());
        let queries = ranked
            .reduce_named("by query", move |_, items: &[(&Ranked, i64)], out: &mut Vec<(Counts, i64)>| {
                out.extend(of_queries.query(items).map(|sums| (Counts::of_sums(sums), 1)));
            })
            .explode(|((group, name, _), sums)| Some(((group, name), sums)));
        let of_groups = Arc::new(measures.clone());
        let values = counts.concat(queries).reduce_named(
            "by group",
            move |_, values: &[(&Name, Counts)], out: &mut Vec<((Name, Outcome), i64)>| {
                out.extend(outcomes(&of_groups, apart, values).into_iter().map(|outcome| (outcome, 1)));
            },
        );
        let mut results = vec![values];
        if let Some(card) = &measures.plan.card {
            results.push(first(cards, card.k * (1 + (card.exclude / window) as usize)));
        }
        let leaving = results.into_iter().map(|results: VecCollection<'_, Time, (Group, (Name, Outcome)), i64>| {
            let changed = results.inner.map(|((group, (name, outcome)), time, diff)| {
                (time.outer, (group, name, outcome, boundary(time.inner), diff))
            });
            changed.leave(scope)
        });
        scope.concatenate(leaving.collect::<Vec<_>>())
    })
}

/// Of each group the cards with the highest scores: as many as are looked at, and as many as may be left out of them.
fn first<'s>(
    cards: VecCollection<'s, Time, ((Group, By), (Score, bool)), i64>,
    most: usize,
) -> VecCollection<'s, Time, (Group, (Name, Outcome)), i64> {
    cards
        .reduce_named("by card", |_, rows: &[(&(Score, bool), i64)], out: &mut Vec<((Reverse<Score>, bool), i64)>| {
            let rows = rows.iter().filter(|(_, count)| *count > 0).map(|(row, _)| **row);
            let best = rows.reduce(|best, row| (best.0.max(row.0), best.1 || row.1));
            out.extend(best.map(|(score, positive)| ((Reverse(score), positive), 1)));
        })
        .map(|((group, by), (score, positive))| (group, (score, by, positive)))
        .reduce_named(
            "the first",
            move |_, cards: &[(&(Reverse<Score>, By, bool), i64)], out: &mut Vec<((Name, Outcome), i64)>| {
                out.push(((Name::of(""), first_cards(cards, most)), 1));
            },
        )
}

/// What enters the graph.
struct Rounds<'s> {
    counts: VecCollection<'s, Time, (Group, Name), Counts>,
    ranked: VecCollection<'s, Time, ((Group, Name, By), Ranked), i64>,
    cards: VecCollection<'s, Time, ((Group, By), (Score, bool)), i64>,
}

/// Puts changes at the time of their tick and round.
///
/// The outputs are not connected to the input: what timely knows of the times to come is the capability held here, at the
/// next tick and the next round, and not the input's, which could come at any round.
fn rounds<'s>(scope: Scope<'s, Time>, begin: Tick, ripe: Stream<'s, Time, Vec<Ripe>>) -> Rounds<'s> {
    let mut builder = OperatorBuilder::new("rounds".to_owned(), scope);
    let mut input = builder.new_input_connection(ripe, Pipeline, []);
    macro_rules! output {
        ($data:ty, $diff:ty) => {{
            let (output, stream) = builder.new_output_connection::<Updates<$data, $diff>, _>([]);
            let output = OutputBuilder::<Time, CapacityContainerBuilder<Updates<$data, $diff>>>::from(output);
            (output, stream.as_collection())
        }};
    }
    let (mut counts_out, counts) = output!((Group, Name), Counts);
    let (mut ranked_out, ranked) = output!(((Group, Name, By), Ranked), i64);
    let (mut cards_out, cards) = output!(((Group, By), (Score, bool)), i64);
    builder.build(move |mut capabilities: Vec<Capability<Time>>| {
        // The sources wait for all that may come before the first tick, and nothing does.
        capabilities.iter_mut().for_each(|held| held.downgrade(&Product::new(begin, Round::MIN)));
        let mut capabilities = Some(capabilities);
        let mut pending: BTreeMap<Tick, Vec<Ripe>> = BTreeMap::new();
        move |frontiers| {
            input.for_each(|time, ripe| pending.entry(time.time().outer).or_default().append(ripe));
            let complete = |tick: &Tick| !frontiers[0].less_equal(&Product::new(*tick, Round::MAX));
            while let Some(entry) = pending.first_entry().filter(|entry| complete(entry.key())) {
                let (tick, ripe) = entry.remove_entry();
                let Some(held) = &mut capabilities else { continue };
                let passed = ripe.iter().map(|ripe| ripe.passed).max().unwrap_or(EventTime::MIN);
                let mut counts = counts_out.activate();
                let (mut ranked, mut cards) = (ranked_out.activate(), cards_out.activate());
                for (boundary, facts) in ripe.into_iter().flat_map(|ripe| ripe.facts) {
                    let time = Product::new(tick, round(boundary));
                    let at: Vec<Capability<Time>> = held.iter().map(|held| held.delayed(&time)).collect();
                    let mut counts = counts.session_with_builder(&at[0]);
                    let (mut ranked, mut cards) =
                        (ranked.session_with_builder(&at[1]), cards.session_with_builder(&at[2]));
                    for fact in facts {
                        match fact {
                            Fact::Counts(group, diff) => counts.give((group, time, diff)),
                            Fact::Ranked(row, diff) => ranked.give((row, time, diff)),
                            Fact::Card(row, diff) => cards.give((row, time, diff)),
                        }
                    }
                }
                let next = Product::new(tick + 1, round(passed).saturating_add(1));
                held.iter_mut().for_each(|capability| capability.downgrade(&next));
            }
            if frontiers[0].is_empty() {
                capabilities = None;
            }
        }
    });
    Rounds { counts, ranked, cards }
}

/// Attaches the operator that tells: outcomes come to the worker that owns the slot of their group.
fn told<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: Control<'s>,
    monitor: usize,
    outcomes: Outcomes<'s>,
) -> Rows<'s> {
    let peers = scope.peers();
    let name = name(&shared.plan, &shared.plan.monitors[monitor]);
    let mut core = match ToldCore::new(shared, monitor, (scope.index(), peers)) {
        Ok(core) => Some(core),
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    let mut builder = OperatorBuilder::new(name, scope);
    let owner = move |(_, (group, _, outcome, ..)): &(Tick, Changed)| {
        worker_of_slot(usize::from(slot(group, outcome)), peers) as u64
    };
    let mut changes = builder.new_input(outcomes, Exchange::new(owner));
    let node = control.node();
    let mut control = builder.new_input(control.ticks, Pipeline);
    let (output, stream) = builder.new_output::<Batch>();
    let mut output = OutputBuilder::<Tick, NoopBuilder<Batch>>::from(output);
    let shared = Arc::clone(shared);
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut pending: BTreeMap<Tick, (Vec<Changed>, Option<(TickInfo, Capability<Tick>)>)> = BTreeMap::new();
        move |frontiers| {
            changes.for_each(|_, changed| {
                for (tick, change) in changed.drain(..) {
                    pending.entry(tick).or_default().0.push(change);
                }
            });
            control.for_each(|time, records| {
                for info in records.drain(..) {
                    pending.entry(*time.time()).or_default().1 = Some((info, time.retain(0)));
                }
            });
            let complete = |tick: &Tick| frontiers.iter().all(|frontier| !frontier.less_equal(tick));
            while let Some(entry) = pending.first_entry().filter(|entry| complete(entry.key())) {
                let (changed, Some((info, capability))) = entry.remove() else { continue };
                let Some(core) = core.as_mut().filter(|_| !shared.failed()) else { continue };
                let started = Instant::now();
                let told = core.tick(&info, changed);
                node.iter().for_each(|node| node.worked(started.elapsed()));
                if let Some(rows) = told {
                    node.iter().for_each(|node| node.sent(rows.num_rows()));
                    output.activate().session_with_builder(&capability).give_container(&mut Batch::from(rows));
                }
            }
        }
    });
    stream
}

/// What was told, between ticks.
struct ToldCore {
    shared: Arc<Shared>,
    told: Told,
    saver: Option<Saver>,
}

impl ToldCore {
    fn new(shared: &Arc<Shared>, monitor: usize, place: (usize, usize)) -> Result<ToldCore, EngineError> {
        let plan = &shared.plan;
        let described = &plan.monitors[monitor];
        let labels = described.labels.map(|labels| &plan.labels[labels]);
        let labels = labels.ok_or_else(|| EngineError::defect("accuracy without labels".to_owned()))?;
        let titles = Titles {
            model: plan.models[described.model].name.clone(),
            segments: described.segments.iter().map(|(name, _)| name.clone()).collect(),
        };
        let card = described.accuracy.as_ref().and_then(|accuracy| accuracy.card.clone());
        let mut told = Told::new(matches::windows(described, labels), titles, card);
        let (name, checkpoints) = (name(plan, described), &shared.checkpoints);
        let damaged = |error| EngineError::Plan(format!("the saved state of `{name}`: {error}"));
        checkpoints.restore(&name, place, |slot, bytes| told.import(slot, bytes).map_err(damaged))?;
        told.restored(checkpoints.watermark.unwrap_or(EventTime::MIN));
        Ok(ToldCore { shared: Arc::clone(shared), told, saver: checkpoints.operator(place.0, &name) })
    }

    fn tick(&mut self, info: &TickInfo, changes: Vec<Changed>) -> Option<arrow::array::RecordBatch> {
        let stats = self.told.apply(changes, info.watermark);
        if info.epoch_end
            && let Some(saver) = &self.saver
        {
            let anew = self.shared.checkpoints.anew(info.epoch);
            let frozen = self.told.freeze(anew.is_first());
            saver.save_later(info, Mode::Change, anew, Box::new(move || Ok(frozen)));
        }
        (!stats.is_empty()).then(|| stat_batch(&stats, info.tick, self.shared.plan.version))
    }
}
