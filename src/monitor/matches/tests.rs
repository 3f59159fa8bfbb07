//! The core against a twin that keeps every row and looks at all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::store::hash_of;
use super::*;
use crate::base::{slot_of, worker_of_slot};

#[derive(Clone, Debug)]
struct Event {
    time: i64,
    ord: u64,
    id: Option<i32>,
    /// A label's value; of a prediction nothing.
    label: Option<Option<f64>>,
}

/// What holds of a row: its position, and what.
type Held = BTreeMap<(i64, u64, String), i64>;

/// A change as it was told: the window, the position, what, when it is told, and the difference.
type Told = (i64, u64, String, i64, i64);

fn what(change: Change) -> String {
    match change {
        Change::Labelled(value, _) => format!("labelled {value}"),
        other => format!("{other:?}"),
    }
}

/// Whether a prediction sees a label that is near: one that came before it and that others have taken is there for as long
/// as one of those that saw it.
fn sees(events: &[Event], windows: &Windows, l: &Event, p: &Event) -> bool {
    let earlier = events.iter().filter(|q| q.label.is_none() && (q.time, q.ord) < (p.time, p.ord));
    let near = |q: &&Event| q.id.is_some() && q.id == l.id && (l.time - q.time).abs() <= windows.within;
    let mut takers = earlier.filter(near).peekable();
    let lasts = |q: &Event| windows.complete(windows.start(q.time)) >= p.time && sees(events, windows, l, q);
    l.time > p.time || takers.peek().is_none() || takers.any(lasts)
}

fn shown(group: GroupOf<'_>) -> String {
    match group {
        GroupOf::None => String::new(),
        GroupOf::Number(number) => number.to_string(),
        GroupOf::Text(text) => text.to_string(),
    }
}

/// What holds at a boundary, by the definition.
fn expected(events: &[Event], windows: &Windows, boundary: i64) -> Held {
    let mut held = Held::new();
    let of = |event: &Event| windows.start(event.time);
    let open = |start: i64| windows.complete(start) >= boundary;
    let same = |a: &Event, b: &Event| a.id.is_some() && a.id == b.id;
    let (within, labels) = (windows.within, || events.iter().filter(|e| e.label.is_some() && e.id.is_some()));
    for p in events.iter().filter(|e| e.label.is_none() && open(of(e))) {
        let told = |due: i64| windows.told(of(p), due.max(p.time)) <= boundary;
        if told(p.time) {
            held.insert((of(p), p.ord, "Predicted".into()), 1);
        }
        let is_near = |l: &Event, p: &Event| same(l, p) && (l.time - p.time).abs() <= within;
        let seen = |l: &Event| sees(events, windows, l, p);
        let near = labels().filter(|l| is_near(l, p) && told(l.time) && seen(l));
        if let Some(Some(Some(value))) = near.max_by_key(|l| (l.time, l.ord)).map(|l| l.label) {
            held.insert((of(p), p.ord, format!("labelled {value}")), 1);
        }
        let late = |l: &&Event| same(l, p) && l.time - p.time > within && l.time <= windows.complete(of(p));
        if labels().filter(late).any(|l| told(l.time)) {
            held.insert((of(p), p.ord, "Late".into()), 1);
        }
    }
    for l in labels().filter(|l| open(of(l))) {
        let mut others = events.iter().filter(|e| same(e, l));
        let saved = others.any(|e| match e.label {
            None => (l.time - e.time).abs() <= within || (l.time > e.time && l.time <= windows.complete(of(e))),
            Some(_) => (e.time, e.ord) > (l.time, l.ord) && e.time <= l.time + within,
        });
        if !saved && windows.told(of(l), l.time + within) <= boundary {
            held.insert((of(l), l.ord, "Orphan".into()), 1);
        }
    }
    held
}

const SCORES: usize = 2;

fn new(windows: Windows, words: bool) -> Matches {
    let group = Some(if words { Kind::Number } else { Kind::Text });
    Matches::new(windows, Widths { scores: SCORES, segments: 1, group }, true)
}

/// Several cores as on several workers.
struct Job {
    windows: Windows,
    cores: Vec<Matches>,
    words: bool,
    told: Vec<Told>,
    firsts: BTreeMap<u64, usize>,
    watermark: i64,
}

impl Job {
    fn new(windows: Windows, workers: usize, words: bool) -> Job {
        let cores = (0..workers).map(|_| new(windows, words)).collect();
        Job { windows, cores, words, told: Vec::new(), firsts: BTreeMap::new(), watermark: i64::MIN }
    }

    fn ids(&self, events: &[&Event], narrow: bool) -> Keys {
        let ids = events.iter().map(|e| e.id);
        let column: ArrayRef = match (self.words, narrow) {
            (true, true) => Arc::new(ids.collect::<Int32Array>()),
            (true, false) => Arc::new(ids.map(|id| id.map(i64::from)).collect::<Int64Array>()),
            (false, _) => Arc::new(ids.map(|id| id.map(|id| format!("id {id}"))).collect::<StringArray>()),
        };
        Keys::of(&column).expect("a key")
    }

    /// A tick with the rows before its watermark.
    fn tick(&mut self, events: &[Event], watermark: i64) {
        let mut rows: Vec<&Event> = events.iter().filter(|e| (self.watermark..watermark).contains(&e.time)).collect();
        rows.sort_by_key(|e| (e.time, e.ord));
        let workers = self.cores.len();
        let keys = self.ids(&rows, false);
        let owner = |key: &Key| worker_of_slot(slot_of(hash_of(*key)), workers);
        for worker in 0..workers {
            let mine = |label: bool| -> Vec<&Event> {
                let mine =
                    rows.iter().zip(&keys.keys).filter(|(e, k)| owner(k) == worker && e.label.is_some() == label);
                mine.map(|(e, _)| *e).collect()
            };
            let (predictions, labels) = (mine(false), mine(true));
            let (ids, label_ids) = (self.ids(&predictions, false), self.ids(&labels, true));
            let core = &mut self.cores[worker];
            let times: Vec<i64> = predictions.iter().map(|e| e.time).collect();
            let ords: Vec<u64> = predictions.iter().map(|e| e.ord).collect();
            let predictions = Predictions {
                times: &times,
                ords: &ords,
                ids,
                versions: vec![core.name("v1"); times.len()],
                scores: ords.iter().flat_map(|ord| [*ord as f64, -(*ord as f64)]).collect(),
                segments: ords.iter().map(|ord| core.name(&format!("s{}", ord % 3))).collect(),
                groups: match self.words {
                    true => Groups::Numbers(ords.iter().map(|ord| *ord as i64 * 7).collect()),
                    false => Groups::Texts(ords.iter().map(|ord| Some(format!("g{}", ord / 2))).collect()),
                },
            };
            let label_times: Vec<i64> = labels.iter().map(|e| e.time).collect();
            let label_ords: Vec<u64> = labels.iter().map(|e| e.ord).collect();
            let values = labels.iter().map(|e| e.label.flatten()).collect();
            let labels = Labels { times: &label_times, ords: &label_ords, ids: label_ids, values };
            let (mut heard, mut firsts) = (Vec::new(), Vec::new());
            let before = self.watermark;
            core.apply(Some(&predictions), Some(&labels), &mut |row: Row<'_>, change, due, diff| {
                assert!((before..watermark).contains(&due), "{change:?} due at {due} told at {watermark}");
                heard.push((row.window, row.ord, what(change), due, diff, shown(row.group), row.segments.to_vec()));
                if let Change::Labelled(_, true) = change {
                    firsts.push(row.ord);
                }
            });
            core.advance(watermark, &mut |row: Row<'_>, change, due, diff| {
                heard.push((row.window, row.ord, what(change), due, diff, shown(row.group), row.segments.to_vec()));
            });
            firsts.into_iter().for_each(|ord| *self.firsts.entry(ord).or_default() += 1);
            self.note(worker, heard);
        }
        self.watermark = watermark;
    }

    fn note(&mut self, worker: usize, heard: Vec<(i64, u64, String, i64, i64, String, Vec<u32>)>) {
        for (window, ord, change, due, diff, group, segments) in heard {
            if change != "Orphan" {
                let names = self.cores[worker].names();
                assert_eq!(group, if self.words { format!("{}", ord * 7) } else { format!("g{}", ord / 2) });
                assert_eq!(&**names.text(segments[0]), format!("s{}", ord % 3));
            }
            let told = self.windows.told(window, due);
            self.told.push((window, ord, change, told, diff));
        }
    }

    /// Saved as these epochs say, and taken up by other workers.
    fn moved(&mut self, saved: &[Vec<(u16, Vec<u8>)>], workers: usize) {
        let before = self.windows.passed(self.watermark);
        self.cores = (0..workers).map(|_| new(self.windows, self.words)).collect();
        for (slot, bytes) in saved.iter().flatten() {
            let worker = worker_of_slot(usize::from(*slot), workers);
            self.cores[worker].import(*slot, bytes).expect("it is read");
        }
        self.told.clear();
        for worker in 0..workers {
            let mut heard = Vec::new();
            self.cores[worker].restored(self.watermark);
            self.cores[worker].replay(&mut |row: Row<'_>, change, due: i64, diff| {
                let due = due.max(before);
                heard.push((row.window, row.ord, what(change), due, diff, shown(row.group), row.segments.to_vec()));
            });
            self.note(worker, heard);
        }
    }

    fn freeze(&mut self, whole: bool) -> Vec<(u16, Vec<u8>)> {
        self.cores.iter_mut().flat_map(|core| core.freeze(whole).encode()).collect()
    }

    fn held(&self, boundary: i64) -> Held {
        let mut held = Held::new();
        for (window, ord, change, told, diff) in &self.told {
            if *told <= boundary && self.windows.complete(*window) >= boundary {
                *held.entry((*window, *ord, change.clone())).or_default() += diff;
            }
        }
        held.retain(|_, count| *count != 0);
        held
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let label = prop_oneof![
        3 => Just(None),
        4 => prop_oneof![Just(0.0), Just(1.0)].prop_map(|v| Some(Some(v))),
        1 => Just(Some(None)),
    ];
    let event = (0i64..500, prop::option::weighted(0.95, 0i32..7), label);
    prop::collection::vec(event, 1..60).prop_map(|events| {
        let numbered = events.into_iter().enumerate();
        numbered.map(|(ord, (time, id, label))| Event { time, ord: ord as u64, id, label }).collect()
    })
}

fn windows() -> impl Strategy<Value = Windows> {
    (prop_oneof![Just(20), Just(50), Just(100)], prop_oneof![Just(7), Just(40), Just(100), Just(260)])
        .prop_map(|(refresh, within)| Windows { window: 100, refresh, within })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever the cuts, the workers and the restarts, what is told holds at each boundary as the definition says.
    #[test]
    fn as_the_twin(
        events in events(),
        windows in windows(),
        cuts in prop::collection::btree_set(-10i64..900, 1..12),
        saves in prop::collection::vec((any::<bool>(), prop::option::weighted(0.3, 1usize..4)), 12),
        workers in 1usize..4,
        words in any::<bool>(),
    ) {
        let mut job = Job::new(windows, workers, words);
        let mut saved: Vec<Vec<(u16, Vec<u8>)>> = Vec::new();
        let mut known_from = i64::MIN;
        for (cut, (whole, restart)) in cuts.iter().zip(saves) {
            job.tick(&events, *cut);
            if restart.is_some() || whole {
                let whole = whole || saved.is_empty();
                if whole {
                    saved.clear();
                }
                saved.push(job.freeze(whole));
            }
            if let Some(workers) = restart {
                job.moved(&saved, workers);
                known_from = windows.passed(*cut);
            }
        }
        job.tick(&events, 1_000);
        for boundary in (0..=960).step_by(windows.refresh as usize).filter(|b| *b >= known_from) {
            let mut expected = expected(&events, &windows, boundary);
            // A window that was complete at the restart is told no more.
            expected.retain(|(window, ..), _| windows.complete(*window) > known_from);
            prop_assert_eq!(job.held(boundary), expected, "at {}", boundary);
        }
        prop_assert!(job.firsts.values().all(|times| *times == 1), "{:?}", job.firsts);
        // When all is over nothing is left, in sums or in memory.
        job.tick(&events, 3_000);
        let mut sums = BTreeMap::new();
        for (window, ord, change, _, diff) in &job.told {
            *sums.entry((window, ord, change)).or_insert(0) += diff;
        }
        sums.retain(|_, sum| *sum != 0);
        prop_assert!(sums.is_empty(), "{:?}", sums);
        for core in &job.cores {
            prop_assert_eq!((core.len(), core.waiting(), core.index.live(|at| core.all.get(place(at).0).is_some()), core.by_start.len()), (0, 0, 0, 0));
            prop_assert!(core.earlier.is_empty() && core.late.is_empty() && core.texts.len() == 0);
        }
    }

    #[test]
    fn damage_is_an_error(events in events(), at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>()) {
        let windows = Windows { window: 100, refresh: 50, within: 40 };
        let mut job = Job::new(windows, 1, true);
        job.tick(&events, 600);
        job.watermark = 0;
        let Some((slot, bytes)) = job.freeze(true).pop() else { return Ok(()) };
        let mut damaged = bytes.clone();
        let at = at.index(bytes.len());
        if cut { damaged.truncate(at) } else { damaged[at] ^= flip }
        prop_assert!(new(windows, true).import(slot, &damaged).is_err());
        // Behind a checksum that lies, too, nothing panics.
        if damaged.len() > 4 {
            let body = damaged.len() - 4;
            let crc = crc32fast::hash(&damaged[..body]);
            damaged[body..].copy_from_slice(&crc.to_le_bytes());
            let _ = new(windows, true).import(slot, &damaged);
        }
    }
}

#[test]
fn a_waiting_prediction_takes_less_than_a_hundred_bytes() {
    const DAY: i64 = 86_400_000_000;
    let windows = Windows { window: DAY, refresh: DAY, within: 45 * DAY };
    let mut core = Matches::new(windows, Widths { scores: 1, segments: 1, group: None }, true);
    let rows = 100_000usize;
    for tick in 0..10 {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|i| i + tick * rows as i64)));
        let times: Vec<i64> = (0..rows as i64).map(|i| tick * DAY + i).collect();
        let ords: Vec<u64> = (0..rows as u64).collect();
        let versions = vec![core.name("champion"); rows];
        let (ids, scores, segments) = (Keys::of(&ids).expect("keys"), vec![0.5; rows], versions.clone());
        let predictions =
            Predictions { times: &times, ords: &ords, ids, versions, scores, segments, groups: Groups::None };
        let mut count = 0;
        core.apply(Some(&predictions), None, &mut |_: Row<'_>, _, _, _| count += 1);
        assert_eq!(count, rows);
        core.advance((tick + 1) * DAY + 1, &mut |_: Row<'_>, _, _, _| panic!("nothing else happens"));
        core.freeze(false);
    }
    let each = core.memory_bytes() as f64 / core.len() as f64;
    println!("{each:.1} bytes for each of {} waiting predictions", core.len());
    assert!(each < 100.0, "{each}");
}
