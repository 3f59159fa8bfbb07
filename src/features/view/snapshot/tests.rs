//! Checkpoints against a twin that never had one: what is restored goes on as the twin does.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use datafusion_common::ScalarValue;
use proptest::prelude::*;

use super::super::keys::Keys;
use super::super::tests::{
    N, Row, TEXT, X, aggregate, aggregates, batch, plan, row, same, schema, simple, some, stream, update_batch, written,
};
use super::super::{Revisions, Updates, ViewOptions, ViewState};
use super::codec;
use crate::base::{SLOTS, SlotRange, slot_of, worker_of_slot};
use crate::plan::model::{AggregateFunction as F, Order, ViewPlan, Window};

/// Steps after every freeze that are compared.
const SOON: usize = 6;

/// What one freeze wrote.
type Parts = Vec<(u16, Vec<u8>)>;

/// A step of a run.
#[derive(Clone, Debug)]
enum Op {
    Own(RecordBatch),
    /// Updates and questions.
    Merged(RecordBatch, RecordBatch),
    Refresh(i64),
    Advance(i64),
}

/// What a state is made of.
#[derive(Clone)]
struct Setup {
    plan: ViewPlan,
    options: ViewOptions,
    text_key: bool,
}

/// What a step tells: values by row, or by key.
type Told = Vec<(Vec<u8>, Vec<ScalarValue>)>;

impl Setup {
    fn state(&self, checkpoints: bool) -> ViewState {
        let options = ViewOptions { checkpoints, ..self.options };
        ViewState::new(&self.plan, &schema(self.text_key), options).unwrap()
    }

    /// The rows of a batch that each of `workers` owns.
    fn split(&self, batch: &RecordBatch, workers: usize) -> Vec<(Vec<u64>, RecordBatch)> {
        let mut keys = Keys::default();
        keys.read(&[ArrayRef::clone(batch.column(2))], !self.text_key).unwrap();
        let owner = |row: usize| worker_of_slot(slot_of(keys.hashes[row]), workers);
        (0..workers)
            .map(|worker| {
                let rows: Vec<u64> =
                    (0..batch.num_rows()).filter(|row| owner(*row) == worker).map(|row| row as u64).collect();
                let part = take_record_batch(batch, &UInt64Array::from(rows.clone())).unwrap();
                (rows, part)
            })
            .collect()
    }

    /// Feeds states that share the slots.
    fn feed(&self, states: &mut [ViewState], op: &Op) -> Told {
        let mut told = BTreeMap::new();
        let mut gather = |kind: u8, rows: &[u64], values: &[ArrayRef]| {
            for (i, row) in rows.iter().enumerate() {
                let name = [&[kind][..], &row.to_be_bytes()].concat();
                told.insert(name, values.iter().map(|v| ScalarValue::try_from_array(v, i).unwrap()).collect());
            }
        };
        match op {
            Op::Own(batch) => {
                let parts = self.split(batch, states.len());
                for (state, (rows, part)) in states.iter_mut().zip(parts) {
                    gather(0, &rows, &state.apply_own(&part).unwrap());
                }
            }
            Op::Merged(updates, questions) => {
                let (updates, questions) = (self.split(updates, states.len()), self.split(questions, states.len()));
                let revisions = Revisions { target_time: 7, target_ord: 8, revise: 9 };
                let revisions = self.options.revise_within.map(|_| revisions);
                for ((state, updates), questions) in states.iter_mut().zip(updates).zip(questions) {
                    let merged = state
                        .apply_merged(
                            Some(Updates { batch: &updates.1, revisions, answers: true }),
                            Some((&questions.1, &[2])),
                        )
                        .unwrap();
                    gather(1, &updates.0, &merged.updates.unwrap());
                    gather(2, &questions.0, &merged.questions);
                }
            }
            Op::Advance(to) => states.iter_mut().for_each(|state| state.advance(*to)),
            Op::Refresh(now) => {
                for state in states {
                    loop {
                        let values = state.refresh(*now, 3).unwrap();
                        for i in 0..values.keys.len() {
                            let row = values.values.iter().map(|v| ScalarValue::try_from_array(v, i).unwrap());
                            let until = ScalarValue::Int64(Some(values.valid_until[i]));
                            told.insert(values.keys.value(i).to_vec(), row.chain([until]).collect());
                        }
                        if !values.more {
                            break;
                        }
                    }
                }
            }
        }
        told.into_iter().collect()
    }

    fn restored(&self, chain: &[Parts], workers: usize) -> Vec<ViewState> {
        let mut states: Vec<ViewState> = (0..workers).map(|_| self.state(true)).collect();
        for (slot, bytes) in chain.iter().flatten() {
            states[worker_of_slot(usize::from(*slot), workers)].import(*slot, bytes).unwrap();
        }
        states
    }
}

fn equal(a: &Told, b: &Told, what: &str) -> Result<(), TestCaseError> {
    prop_assert!(
        a.len() == b.len()
            && a.iter()
                .zip(b)
                .all(|(a, b)| a.0 == b.0 && a.1.len() == b.1.len() && a.1.iter().zip(&b.1).all(|(a, b)| same(a, b))),
        "{what}: {a:?}, not {b:?}"
    );
    Ok(())
}

/// Steps of a view over its spine's own stream.
fn own_ops(rows: &[Row], cut: usize, disorder: i64, text_key: bool, refresh: bool) -> Vec<Op> {
    let (mut ops, mut highest) = (Vec::new(), i64::MIN);
    for chunk in rows.chunks(cut) {
        let mut rows: Vec<Row> = chunk.to_vec();
        rows.retain(|r| {
            let late = r.time < highest.saturating_sub(disorder);
            highest = highest.max(r.time);
            !late
        });
        rows.sort_by_key(|r| (r.time, r.ord));
        ops.push(Op::Own(batch(&rows, text_key)));
        if refresh {
            ops.push(Op::Refresh(highest));
        }
        ops.push(Op::Advance(highest - disorder));
    }
    ops
}

/// Steps of a view over another stream than its spine's.
fn merged_ops(
    updates: &[Row],
    revisions: &[(prop::sample::Index, i64, Row)],
    questions: &[Row],
    cut: i64,
    text_key: bool,
    refresh: bool,
) -> Vec<Op> {
    let mut events: Vec<(i64, Row, bool)> = updates.iter().map(|r| (r.time, r.clone(), false)).collect();
    for (target, after, new) in revisions {
        let old = &updates[target.index(updates.len())];
        events.push((old.time + after, Row { time: old.time, ord: old.ord, key: old.key, ..new.clone() }, true));
    }
    events.sort_by_key(|(due, row, revise)| (*due, *revise, row.ord));
    let end = events.iter().map(|e| e.0).chain(questions.iter().map(|q| q.time)).max().unwrap();
    let (mut ops, mut from) = (Vec::new(), -60);
    while from <= end {
        let to = from + cut;
        let due: Vec<_> = events.iter().filter(|e| e.0 >= from && e.0 < to).cloned().collect();
        let asked: Vec<Row> = questions.iter().filter(|q| q.time >= from && q.time < to).cloned().collect();
        let targets: Vec<Row> = due.iter().map(|e| e.1.clone()).collect();
        ops.push(Op::Merged(update_batch(&due, &targets, text_key), batch(&asked, text_key)));
        if refresh {
            ops.push(Op::Refresh(to - 1));
        }
        ops.push(Op::Advance(to));
        from = to;
    }
    ops
}

/// Runs with freezes in between as `actions` say, and restores the state of one of them: it must go on as a twin.
fn check_chain(setup: &Setup, ops: &[Op], actions: &[(u8, usize)], chosen: usize) -> Result<(), TestCaseError> {
    let mut view = setup.state(true);
    // (number of steps before it, slots that were written anew, what it wrote)
    let mut freezes: Vec<(usize, SlotRange, Parts)> = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        setup.feed(std::slice::from_mut(&mut view), op);
        let (action, budget) = actions[at % actions.len()];
        if view.frozen() {
            let parts = view.write_frozen(budget);
            prop_assert!(!parts.is_empty() || !view.frozen());
            freezes.last_mut().unwrap().2.extend(parts);
            prop_assert!(!view.frozen() || view.freeze(SlotRange::ALL).is_err());
        } else if action < 5 {
            let anew = match action {
                0 => SlotRange::ALL,
                1 => SlotRange::NONE,
                // In turn, more or fewer of them.
                _ => {
                    let end = freezes.last().map_or(0, |f| f.1.end());
                    SlotRange::new(end % SLOTS as u16, 150 * u16::from(action) + at as u16)
                }
            };
            view.freeze(anew).unwrap();
            freezes.push((at + 1, anew, Vec::new()));
        }
    }
    let Some(last) = freezes.last_mut() else { return Ok(()) };
    last.2.extend(view.write_frozen(usize::MAX));
    for (_, anew, parts) in &freezes {
        prop_assert_eq!(parts.iter().filter(|p| anew.contains(p.0.into())).count(), usize::from(anew.len()));
        prop_assert!(parts.windows(2).all(|two| two[0].0 < two[1].0), "slots rise and come once");
    }
    let mut twin = [setup.state(false)];
    let expected: Vec<Told> = ops.iter().map(|op| setup.feed(&mut twin, op)).collect();
    let chain = |freeze: usize| -> Vec<Parts> {
        // Of each slot what was written since it was written anew.
        let base = |slot: u16| freezes[..=freeze].iter().rposition(|f| f.1.contains(slot.into())).unwrap_or(0);
        let held = |at: usize, parts: &Parts| some(parts.iter().filter(|p| base(p.0) <= at).cloned().collect());
        freezes[..=freeze].iter().enumerate().map(|(at, f)| held(at, &f.2)).collect()
    };
    // What is let go of too early is missed soon.
    for (freeze, (from, ..)) in freezes.iter().enumerate() {
        let mut restored = setup.restored(&chain(freeze), 1);
        for (at, op) in ops.iter().enumerate().skip(*from).take(SOON) {
            let told = setup.feed(&mut restored, op);
            equal(&told, &expected[at], &format!("restored after step {from}, step {at}"))?;
        }
    }
    let chosen = chosen % freezes.len();
    let mut chain = chain(chosen);
    let mut one = setup.restored(&chain, 1);
    let three: Parts = setup.restored(&chain, 3).iter_mut().flat_map(|state| written(state, true)).collect();
    let mut two = setup.restored(&[three], 2);
    for (at, op) in ops.iter().enumerate().skip(freezes[chosen].0) {
        equal(&setup.feed(&mut one, op), &expected[at], &format!("restored, step {at}"))?;
        equal(&setup.feed(&mut two, op), &expected[at], &format!("moved, step {at}"))?;
        if at % 5 == 2 {
            // What was restored goes on with the chain that it came from.
            chain.push(written(&mut one[0], false));
            one = setup.restored(&chain, 1);
        }
    }
    Ok(())
}

fn actions() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop::collection::vec((0u8..8, prop::sample::select(vec![1usize, 1, 200, usize::MAX])), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_view_over_its_own_stream_goes_on(
        aggregates in aggregates(true, true),
        mut rows in stream(300),
        back in prop::collection::vec(0i64..30, 300),
        arrival in any::<bool>(),
        delay in prop::sample::select(vec![0i64, 0, 7, 100]),
        include_current in any::<bool>(),
        text_key in any::<bool>(),
        refresh in any::<bool>(),
        cut in 1usize..30,
        actions in actions(),
        chosen in any::<usize>(),
    ) {
        let disorder = if arrival { 30 } else { 0 };
        if arrival {
            rows.iter_mut().zip(&back).for_each(|(row, back)| row.time -= back);
        }
        let order = if arrival { Order::Arrival } else { Order::EventTime };
        let options = ViewOptions { order, refresh, revise_within: None, checkpoints: true };
        let setup = Setup { plan: plan(aggregates, delay, include_current, disorder), options, text_key };
        check_chain(&setup, &own_ops(&rows, cut, disorder, text_key, refresh), &actions, chosen)?;
    }

    #[test]
    fn a_view_over_another_stream_goes_on(
        aggregates in aggregates(true, true),
        updates in stream(250),
        questions in stream(400),
        revisions in prop::collection::vec((any::<prop::sample::Index>(), 0i64..120, row(1, 1)), 0..60),
        revisable in any::<bool>(),
        arrival in any::<bool>(),
        delay in prop::sample::select(vec![0i64, 7, 100]),
        text_key in any::<bool>(),
        refresh in any::<bool>(),
        cut in 3i64..100,
        actions in actions(),
        chosen in any::<usize>(),
    ) {
        let order = if arrival { Order::Arrival } else { Order::EventTime };
        let options = ViewOptions { order, refresh, revise_within: revisable.then_some(120), checkpoints: true };
        let setup = Setup { plan: plan(aggregates, delay, true, 0), options, text_key };
        let revisions = if revisable { &revisions[..] } else { &[] };
        check_chain(&setup, &merged_ops(&updates, revisions, &questions, cut, text_key, refresh), &actions, chosen)?;
    }

    /// Damage is refused by the checksum; what slips past it is refused or read, and never panics.
    #[test]
    fn damaged_bytes_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
        rows in stream(120),
        text_key in any::<bool>(),
    ) {
        let aggregates = vec![
            aggregate(F::Stddev, Some(X), Window::Trailing(60), Some(3), None),
            aggregate(F::Last, Some(TEXT), Window::Lifetime, None, None),
            aggregate(F::Max, Some(N), Window::Trailing(17), None, None),
        ];
        let options = ViewOptions { order: Order::EventTime, refresh: true, revise_within: None, checkpoints: true };
        let setup = Setup { plan: plan(aggregates, 0, true, 0), options, text_key };
        let resealed = |content: &[u8]| { let mut bytes = content.to_vec(); codec::seal(&mut bytes); bytes };
        prop_assert!(setup.state(true).import(0, &bytes).is_err());
        prop_assert!(setup.state(true).import(0, &resealed(&bytes)).is_err());
        let mut view = setup.state(true);
        let middle = rows.len() / 2;
        view.apply_own(&batch(&rows[..middle], text_key)).unwrap();
        let base = written(&mut view, true);
        view.apply_own(&batch(&rows[middle..], text_key)).unwrap();
        let delta = written(&mut view, false);
        for (slot, good) in &delta {
            let mut fresh = setup.restored(std::slice::from_ref(&base), 1).remove(0);
            let mut damaged = good.clone();
            let at = at.index(good.len());
            damaged[at] = to;
            prop_assert!(damaged == *good || fresh.import(*slot, &damaged).is_err());
            prop_assert!(fresh.import(*slot, &good[..at]).is_err());
            prop_assert!(fresh.import(slot ^ 1, good).is_err());
            prop_assert!(fresh.import(*slot, good).is_ok());
            let mut fresh = setup.restored(std::slice::from_ref(&base), 1).remove(0);
            damaged = resealed(&damaged[..good.len() - 4]);
            if fresh.import(*slot, &damaged).is_ok() {
                let _ = written(&mut fresh, true);
            }
            let mut fresh = setup.restored(std::slice::from_ref(&base), 1).remove(0);
            let _ = fresh.import(*slot, &resealed(&good[..at.min(good.len() - 4)]));
        }
    }
}

fn mean(keys: impl Fn(usize) -> i64, refresh: bool, count: usize) -> (Setup, ViewState, Vec<Row>) {
    let plan = plan(vec![aggregate(F::Mean, Some(X), Window::Trailing(1000), None, None)], 0, true, 0);
    let options = ViewOptions { order: Order::EventTime, refresh, revise_within: None, checkpoints: true };
    let setup = Setup { plan, options, text_key: false };
    let view = setup.state(true);
    (setup, view, simple(keys, 1, count))
}

#[test]
fn only_what_changed_is_written() {
    let (setup, mut view, rows) = mean(|i| (i % 50) as i64, false, 400);
    view.apply_own(&batch(&rows[..300], false)).unwrap();
    let base = written(&mut view, true);
    assert!(written(&mut view, false).is_empty(), "nothing changed");
    view.apply_own(&batch(&rows[300..303], false)).unwrap();
    let delta = written(&mut view, false);
    assert_eq!(delta.len(), 3);
    let size = |parts: &Parts| parts.iter().map(|p| p.1.len()).sum::<usize>();
    assert!(size(&delta) * 10 < size(&base));
    assert!(setup.state(true).import(delta[0].0, &delta[0].1).is_ok(), "a sparse key is written whole");
}

#[test]
fn a_busy_key_is_written_by_its_new_rows() {
    let (setup, mut view, rows) = mean(|_| 7, false, 900);
    view.apply_own(&batch(&rows[..890], false)).unwrap();
    let base = written(&mut view, true);
    view.apply_own(&batch(&rows[890..], false)).unwrap();
    let delta = written(&mut view, false);
    assert!(delta[0].1.len() < 120 && base[0].1.len() > 1780, "{} after {}", delta[0].1.len(), base[0].1.len());
    let error = setup.state(true).import(delta[0].0, &delta[0].1).unwrap_err().to_string();
    assert!(error.contains("no earlier one holds"), "{error}");
}

#[test]
fn removed_keys_are_removed_and_short_lives_leave_no_trace() {
    let (setup, mut view, rows) = mean(|i| i as i64, false, 100);
    view.apply_own(&batch(&rows[..50], false)).unwrap();
    let base = written(&mut view, true);
    view.apply_own(&batch(&rows[50..], false)).unwrap();
    (100..4000).step_by(100).for_each(|time| view.advance(time));
    assert_eq!(view.keys(), 0);
    let delta = written(&mut view, false);
    let restored = setup.restored(&[base, delta.clone()], 1);
    assert_eq!(restored[0].keys(), 0);
    let gone: usize = delta.iter().map(|p| p.1.len() - 4 - 10 - 1).sum();
    assert!(gone <= 50 * 3, "keys that no freeze wrote are not taken back: {gone}");
}

#[test]
fn what_the_store_was_told_is_restored() {
    let (setup, mut view, rows) = mean(|i| (i % 10) as i64, true, 100);
    view.apply_own(&batch(&rows[..90], false)).unwrap();
    assert_eq!(view.refresh(89, 100).unwrap().keys.len(), 10);
    let base = written(&mut view, true);
    view.apply_own(&batch(&rows[90..93], false)).unwrap();
    let untold = written(&mut view, false);
    assert_eq!(setup.restored(&[base.clone(), untold.clone()], 1)[0].refresh(92, 100).unwrap().keys.len(), 3);
    assert_eq!(view.refresh(92, 100).unwrap().keys.len(), 3);
    let told = written(&mut view, false);
    assert!(told.iter().map(|p| p.1.len()).sum::<usize>() < untold.iter().map(|p| p.1.len()).sum::<usize>());
    let chain = [base, untold, told];
    assert_eq!(setup.restored(&chain, 1)[0].refresh(92, 100).unwrap().keys.len(), 0);
    assert_eq!(setup.restored(&chain, 1)[0].refresh(1000, 100).unwrap().keys.len(), 1, "the oldest row left");
    // A store that lost its values is told all, by whoever restores it, too.
    view.mark_all();
    let [base, untold, told] = chain;
    let lost = written(&mut view, false);
    let mut restored = setup.restored(&[base.clone(), untold, told, lost], 1);
    assert_eq!(restored[0].refresh(92, 100).unwrap().keys.len(), 10);
    // So is one that there was not when the checkpoint was made.
    let without = Setup { options: ViewOptions { refresh: false, ..setup.options }, ..setup.clone() };
    let base = written(&mut without.restored(&[base], 1)[0], true);
    assert_eq!(setup.restored(&[base], 1)[0].refresh(92, 100).unwrap().keys.len(), 10);
}

#[test]
fn freezes_do_not_mix_and_need_tracking() {
    let (setup, mut view, rows) = mean(|i| i as i64, false, 100);
    assert!(setup.state(false).freeze(SlotRange::ALL).unwrap_err().to_string().contains("without checkpoints"));
    view.apply_own(&batch(&rows, false)).unwrap();
    view.freeze(SlotRange::NONE).unwrap();
    let first = view.write_frozen(1);
    assert!(first.len() == 1 && view.frozen());
    let slots = f64::from(first[0].0 + 1) / crate::base::SLOTS as f64;
    assert_eq!(view.frozen_written(), slots);
    assert!(view.freeze(SlotRange::NONE).is_err() && view.import(first[0].0, &first[0].1).is_err());
    let rest = view.write_frozen(usize::MAX);
    assert!(!view.frozen() && view.write_frozen(1).is_empty());
    assert_eq!(view.frozen_written(), 1.0);
    assert_eq!(setup.restored(&[first, rest], 1)[0].keys(), 100);
}

/// A busy key's rows are written as they were, though they have left every window by then and others have come.
#[test]
fn rows_of_a_busy_key_stay_until_they_are_written() {
    for (whole, anew) in [(true, SlotRange::ALL), (false, SlotRange::NONE)] {
        let (_, mut view, rows) = mean(|i| i as i64 % 2, false, 6000);
        let mut twin = mean(|i| i as i64 % 2, false, 0).1;
        for view in [&mut view, &mut twin] {
            view.apply_own(&batch(&rows[..2500], false)).unwrap();
            written(view, true);
            view.apply_own(&batch(&rows[2500..3000], false)).unwrap();
        }
        let expected = written(&mut twin, whole);
        view.freeze(anew).unwrap();
        let before = view.memory_bytes();
        for tick in rows[3000..].chunks(100) {
            view.apply_own(&batch(tick, false)).unwrap();
            view.advance(tick[99].time);
        }
        assert!(view.memory_bytes() > before, "rows are held");
        assert_eq!(some(view.write_frozen(usize::MAX)), expected, "whole: {whole}");
        // What changed meanwhile is in the next one, and what was held goes.
        let (_, mut later, _) = mean(|i| i as i64 % 2, false, 0);
        later.apply_own(&batch(&rows, false)).unwrap();
        let (ours, theirs) = (written(&mut view, true), written(&mut later, true));
        let content = |parts: &Parts| parts.iter().map(|(slot, bytes)| (*slot, bytes.len())).collect::<Vec<_>>();
        assert_eq!(content(&ours), content(&theirs));
        let rows = simple(|i| i as i64 % 2, 1, 9000);
        let held = view.chunks.bytes_used();
        view.apply_own(&batch(&rows[6000..], false)).unwrap();
        assert!(view.chunks.bytes_used() * 2 < held, "{} of {held}", view.chunks.bytes_used());
    }
}

/// Nor do rows change it that come late, among those that are still to be written.
#[test]
fn late_rows_leave_those_that_are_to_be_written_as_they_were() {
    let plan = plan(vec![aggregate(F::Mean, Some(X), Window::Trailing(1000), None, None)], 0, true, 200);
    let options = ViewOptions { order: Order::Arrival, refresh: false, revise_within: None, checkpoints: true };
    let setup = Setup { plan, options, text_key: false };
    let rows = simple(|i| i as i64 % 2, 2, 4000);
    let late = |from: usize, to: usize| {
        let mut late = simple(|i| i as i64 % 2, 1, to - from);
        let place = |(i, row): (usize, &mut Row)| {
            (row.time, row.ord) = (((to - i * 9 % 90) * 2 - 1) as i64, (to + 10_000 + i) as u64)
        };
        late.iter_mut().enumerate().for_each(place);
        late.sort_by_key(|row| (row.time, row.ord));
        late
    };
    for anew in [SlotRange::ALL, SlotRange::NONE] {
        let (mut view, mut twin) = (setup.state(true), setup.state(true));
        for view in [&mut view, &mut twin] {
            view.apply_own(&batch(&rows[..1500], false)).unwrap();
            written(view, true);
            view.apply_own(&batch(&rows[1500..2000], false)).unwrap();
        }
        let expected = written(&mut twin, anew.is_all());
        view.freeze(anew).unwrap();
        for (i, tick) in rows[2000..].chunks(100).enumerate() {
            view.apply_own(&batch(&late(1980 + i * 100, 2000 + i * 100), false)).unwrap();
            view.apply_own(&batch(tick, false)).unwrap();
            view.advance(tick[99].time - 200);
        }
        assert_eq!(some(view.write_frozen(usize::MAX)), expected);
        assert!(view.dense.iter().flatten().count() == 2 && !view.dense.iter().flatten().any(|dense| dense.held));
    }
}

/// A busy key of a view with tiles is held by rows until it has many. What a freeze saw while it was is what is restored,
/// though its rows went into tiles before they were written.
#[test]
fn rows_that_become_tiles_are_written_as_they_were() {
    let tiled = |function| aggregate(function, Some(X), Window::Trailing(1000), Some(100), None);
    let plan = plan([F::Sum, F::Stddev, F::Min, F::Max].map(tiled).into(), 0, true, 0);
    let options = ViewOptions { order: Order::EventTime, refresh: false, revise_within: None, checkpoints: true };
    let setup = Setup { plan, options, text_key: false };
    let by_rows = |view: &ViewState| view.dense.iter().flatten().map(|dense| dense.by_rows).collect::<Vec<_>>();
    let rows = simple(|_| 7, 1, 600);
    let part = |from: usize, to: usize| batch(&rows[from..to], false);
    let mut twin = setup.state(false);
    let expected: Vec<_> =
        [(0, 50), (50, 65), (65, 300), (300, 600)].map(|(from, to)| twin.apply_own(&part(from, to)).unwrap()).into();
    for anew in [SlotRange::ALL, SlotRange::NONE] {
        let mut view = setup.state(true);
        assert_eq!(view.apply_own(&part(0, 50)).unwrap(), expected[0]);
        let mut chain = vec![written(&mut view, true)];
        assert_eq!(view.apply_own(&part(50, 65)).unwrap(), expected[1]);
        assert_eq!(by_rows(&view), [true]);
        view.freeze(anew).unwrap();
        assert_eq!(view.apply_own(&part(65, 300)).unwrap(), expected[2]);
        assert_eq!(by_rows(&view), [false], "it has too many rows");
        chain.push(some(view.write_frozen(usize::MAX)));
        let mut restored = setup.restored(&chain, 1).remove(0);
        assert_eq!(by_rows(&restored), [true]);
        assert_eq!(restored.apply_own(&part(65, 300)).unwrap(), expected[2], "as it was at the freeze");
        chain.push(written(&mut view, false));
        let restored = setup.restored(&chain, 1).remove(0);
        assert_eq!(by_rows(&restored), [false]);
        for mut view in [view, restored] {
            assert_eq!(view.apply_own(&part(300, 600)).unwrap(), expected[3]);
        }
    }
}

/// Nor does a sweep let go of them.
#[test]
fn a_sweep_leaves_the_rows_of_a_busy_key_that_are_to_be_written() {
    let (_, mut view, rows) = mean(|_| 7, false, 2000);
    let mut twin = mean(|_| 7, false, 0).1;
    for view in [&mut view, &mut twin] {
        view.apply_own(&batch(&rows, false)).unwrap();
    }
    let expected = written(&mut twin, true);
    view.freeze(SlotRange::ALL).unwrap();
    (2000..9000).step_by(100).for_each(|time| view.advance(time));
    assert_eq!(view.keys(), 1);
    assert_eq!(some(view.write_frozen(usize::MAX)), expected);
    (9000..20_000).step_by(100).for_each(|time| view.advance(time));
    assert_eq!(view.keys(), 0, "a later sweep comes by");
}

/// Names that came and went give their numbers to names of other slots, between two freezes, too.
#[test]
fn a_number_that_goes_to_another_name_is_written_where_that_belongs() {
    let (setup, ..) = mean(|_| 0, false, 0);
    let setup = Setup { text_key: true, ..setup };
    let mut view = setup.state(true);
    let mut rows = simple(|i| i as i64, 1, 80);
    rows[40..].iter_mut().for_each(|row| row.time += 10_000);
    view.apply_own(&batch(&rows[..40], true)).unwrap();
    (100..9000).step_by(100).for_each(|time| view.advance(time));
    assert_eq!(view.keys(), 0);
    view.apply_own(&batch(&rows[40..], true)).unwrap();
    let parts = written(&mut view, false);
    assert_eq!(setup.restored(&[parts], 1)[0].keys(), 40);
}

/// Another format must get another version.
#[test]
fn a_slot_is_pinned() {
    let (_, mut view, mut rows) = mean(|_| 3, true, 2);
    rows[0].x = Some(12.34);
    rows[1].x = None;
    rows.iter_mut().for_each(|row| row.time *= 5_000);
    view.apply_own(&batch(&rows, false)).unwrap();
    let parts = written(&mut view, true);
    let content = &parts[0].1[10..parts[0].1.len() - 4];
    // Origin 0; a sparse key 3 that was not told, times in thousands; two rows.
    assert_eq!(content, [1, 0x29, 13, 5, 1, 0x22, 0x4d, 21, 7]);
}

/// Busy keys are counted some at a time, which comes to the same.
#[test]
fn bytes_are_counted_in_turn() {
    let (_, mut view, rows) = mean(|i| i as i64 % 30, false, 6000);
    view.apply_own(&batch(&rows, false)).unwrap();
    assert!(view.dense.iter().flatten().count() == 30, "busy keys");
    assert_eq!(view.count_bytes(100), view.memory_bytes());
    let counts: Vec<usize> = (0..3).map(|_| view.count_bytes(10)).collect();
    assert_eq!(counts, [view.memory_bytes(); 3], "the last count holds meanwhile");
    let mut fresh = mean(|i| i as i64 % 30, false, 0).1;
    fresh.apply_own(&batch(&rows, false)).unwrap();
    let counts: Vec<usize> = (0..3).map(|_| fresh.count_bytes(10)).collect();
    assert!(counts[0] < counts[1] && counts[2] == fresh.memory_bytes(), "{counts:?}");
}
