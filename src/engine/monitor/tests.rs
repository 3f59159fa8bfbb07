//! The graph of statistics by itself: its traces hold what may still change, and no more.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use timely::dataflow::operators::Inspect as _;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};
use timely::dataflow::operators::vec::Input as _;

use super::accuracy::graph;
use crate::base::Tick;
use crate::monitor::accuracy::feed::Feed;
use crate::monitor::accuracy::items::{Outcome, Ripe};
use crate::monitor::accuracy::measure::Measures;
use crate::monitor::matches::{Change, GroupOf, Names, Row, Sink as _};
use crate::monitor::windows::Windows;
use crate::plan::model::{AccuracyPlan, CardPlan, Metric, Task};

const WINDOWS: Windows = Windows { window: 100, refresh: 50, within: 200 };

fn measures() -> Measures {
    let card = CardPlan { by: "card".into(), text: false, k: 3, exclude: 100 };
    let metrics = Metric::of(Task::Binary).to_vec();
    let plan = AccuracyPlan { metrics, threshold: 0.5, bins: None, ranking: None, card: Some(card) };
    Measures { task: Task::Binary, outputs: 1, plan }
}

#[test]
fn windows_that_are_complete_leave_nothing_in_the_traces() {
    let held = timely::execute_directly(|worker| {
        // Updates in all traces, and the most that there ever were.
        let held = Rc::new(RefCell::new((0i64, 0i64)));
        let told = Rc::clone(&held);
        let log = move |_: &Duration, events: &mut Option<Vec<(Duration, DifferentialEvent)>>| {
            for (_, event) in events.iter().flatten() {
                let change = match event {
                    DifferentialEvent::Batch(batch) => batch.length as i64,
                    DifferentialEvent::Merge(merge) => {
                        merge.complete.map_or(0, |after| after as i64 - (merge.length1 + merge.length2) as i64)
                    }
                    DifferentialEvent::Drop(drop) => -(drop.length as i64),
                    _ => 0,
                };
                let mut told = told.borrow_mut();
                told.0 += change;
                told.1 = told.1.max(told.0);
            }
        };
        if let Some(mut register) = worker.log_register() {
            register.insert::<DifferentialEventBuilder, _>("differential/arrange", log);
        }
        let outcomes: Rc<RefCell<Vec<(i64, i64, bool)>>> = Rc::default();
        let (mut input, probe) = worker.dataflow::<Tick, _, _>(|scope| {
            let (input, ripe) = scope.new_input::<Ripe>();
            let probe = Probe::new();
            let seen = Rc::clone(&outcomes);
            graph(scope, 0, &measures(), (WINDOWS.window, 10), ripe)
                .inspect(move |(_, (group, _, outcome, boundary, diff))| {
                    let values = matches!(outcome, Outcome::Values(_));
                    seen.borrow_mut().push((group.window, *boundary * diff, values));
                })
                .probe_with(&probe);
            (input, probe)
        });
        let names = {
            let mut names = Names::default();
            names.number("");
            names
        };
        let mut feed = Feed::new(measures(), WINDOWS, i64::MIN);
        let mut tail = Vec::new();
        let windows = 60;
        for tick in 0..windows + 10u64 {
            let start = tick as i64 * 100;
            for row in (0..200).filter(|_| tick < windows) {
                let time = start + row / 2;
                let scores = [(row % 17) as f64 / 17.0];
                let seen = |window| Row {
                    time,
                    ord: tick * 1_000 + row as u64,
                    window,
                    version: 0,
                    scores: &scores,
                    segments: &[],
                    group: GroupOf::Number(row),
                };
                // Some labels come late, some are corrected, and when the window is complete all is taken back.
                let (label, due) = (f64::from(u8::from(row % 5 == 0)), time + row % 150);
                let after = WINDOWS.complete(start) + 1;
                feed.change(seen(start), Change::Predicted, time, 1);
                feed.change(seen(start), Change::Labelled(label, true), due, 1);
                let corrected = row % 10 == 3;
                if corrected {
                    feed.change(seen(start), Change::Labelled(label, false), due + 40, -1);
                    feed.change(seen(start), Change::Labelled(1.0, false), due + 40, 1);
                }
                feed.change(seen(start), Change::Predicted, after, -1);
                feed.change(seen(start), Change::Labelled(if corrected { 1.0 } else { label }, false), after, -1);
            }
            input.send(feed.ripen(start + 100, &names));
            input.advance_to(tick + 1);
            worker.step_while(|| probe.less_than(input.time()));
            tail.push(held.borrow().0);
        }
        // Each window was told of at its end and was gone after it was complete.
        let outcomes = outcomes.borrow();
        for window in (0..windows as i64).map(|w| w * 100) {
            let of: Vec<i64> = outcomes.iter().filter(|o| o.0 == window && o.2).map(|o| o.1).collect();
            assert_eq!(of.iter().map(|boundary| boundary.signum()).sum::<i64>(), 0, "window {window}: {of:?}");
            assert!(of.contains(&(window + 100)), "window {window}: {of:?}");
        }
        drop(input);
        (tail, held.borrow().1)
    });
    let (tail, most) = held;
    println!("updates in the traces: {most} at most, {} at the end; by tick {tail:?}", tail[tail.len() - 1]);
    // What is held does not grow with the windows that have passed, and all but what waits to be merged goes.
    let early = tail[10..20].iter().max().copied().unwrap_or_default();
    let late = tail[40..60].iter().max().copied().unwrap_or_default();
    assert!(early > 500 && late <= early * 3 / 2, "{early} then {late}");
    assert!(tail[tail.len() - 1] < early, "{tail:?}");
}
