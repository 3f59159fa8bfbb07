//! W1 as one would write it by hand for this workload and no other: one thread, one file, everything known beforehand.
//!
//! Parquet is decoded, rows are put into event-time order behind a watermark, cards and merchants are looked up, and the
//! fourteen output columns are filled batch by batch. It uses the best layout we know: sparse cards as 64-byte
//! multiples with their rows inline, busy cards with a queue, running sums and wedges (or tiles), a few rows of look-ahead
//! to hide memory. Numbers are the same exact integers, so its outputs equal the engine's bit by bit.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::checksum::Checksum;
use crate::base::hash_u64;
use crate::features::numeric::{self, Accumulator, Scale, quantise, square};

/// What the loop did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Baseline {
    /// Events read.
    pub events: u64,
    /// Wall time of the whole loop.
    pub seconds: f64,
    /// Of all output columns: the same for the same rows, whatever their order.
    pub checksum: u64,
}

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const DISORDER: i64 = 5_000_000;
const BATCH: usize = 8192;
/// Output columns of a card: count, sum, mean, min, max, stddev over 1 h, then over 24 h.
const CARD_COLUMNS: usize = 12;
const AHEAD: usize = 24;
const AHEAD_RECORD: usize = 12;

/// Runs W1 over a file of [`super::w1_data`], exact or tiled at 1/60 of each window.
///
/// # Errors
/// When the file cannot be read or is not of that shape.
pub fn run(path: &Path, tiled: bool) -> Result<Baseline, parquet::errors::ParquetError> {
    if tiled { run_with::<TiledCard, Merchant<true>>(path) } else { run_with::<ExactCard, Merchant<false>>(path) }
}

#[derive(Clone, Copy)]
struct Event {
    id: i64,
    time: i64,
    card: i64,
    merchant: i64,
    amount: f64,
}

fn run_with<H: Hot, M: MerchantState>(path: &Path) -> Result<Baseline, parquet::errors::ParquetError> {
    let start = Instant::now();
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), [0, 1, 2, 3, 4]);
    let reader = builder.with_projection(mask).with_batch_size(BATCH).build()?;
    let mut cards = Cards::<H>::new();
    let mut merchants = Merchants::<M>::default();
    let mut checksum = Checksum::default();
    let mut events = 0;
    let mut waiting: Vec<Event> = Vec::new();
    let mut order: Vec<u64> = Vec::new();
    let mut ready: Vec<Event> = Vec::new();
    let mut ids: Vec<u64> = Vec::new();
    let mut out: Vec<Vec<u64>> = (0..CARD_COLUMNS + 2).map(|_| Vec::with_capacity(2 * BATCH)).collect();
    let mut highest = i64::MIN;
    let mut process = |waiting: &mut Vec<Event>, watermark: i64| {
        release(waiting, &mut order, &mut ready, watermark);
        cards.apply(&ready, &mut out);
        merchants.apply(&ready, &mut out[CARD_COLUMNS..]);
        ids.clear();
        ids.extend(ready.iter().map(|e| e.id as u64));
        let columns: Vec<&[u64]> = out.iter().map(Vec::as_slice).collect();
        checksum.add(&ids, &columns);
        out.iter_mut().for_each(Vec::clear);
    };
    for batch in reader {
        let batch = batch?;
        let [id, card, merchant] = [0, 1, 2].map(|i| batch.column(i).as_primitive::<Int64Type>());
        let amount = batch.column(3).as_primitive::<Float64Type>();
        let ts = batch.column(4).as_primitive::<TimestampMillisecondType>();
        for i in 0..batch.num_rows() {
            let time = ts.value(i) * 1000;
            highest = highest.max(time);
            waiting.push(Event {
                id: id.value(i),
                time,
                card: card.value(i),
                merchant: merchant.value(i),
                amount: amount.value(i) + 0.0,
            });
        }
        events += batch.num_rows() as u64;
        process(&mut waiting, highest - DISORDER);
    }
    process(&mut waiting, i64::MAX);
    Ok(Baseline { events, seconds: start.elapsed().as_secs_f64(), checksum: checksum.value() })
}

/// Moves what lies before the watermark to `ready`, by time and then arrival.
fn release(waiting: &mut Vec<Event>, order: &mut Vec<u64>, ready: &mut Vec<Event>, watermark: i64) {
    ready.clear();
    let Some(first) = waiting.iter().map(|e| e.time).min() else {
        return;
    };
    order.clear();
    // Milliseconds since the first, and the place: one word to sort.
    order.extend(waiting.iter().enumerate().map(|(i, e)| ((e.time - first) / 1000) as u64 * (1 << 24) + i as u64));
    order.sort_unstable();
    let due = order.partition_point(|o| waiting[(o & 0xff_ffff) as usize].time < watermark);
    ready.extend(order[..due].iter().map(|o| waiting[(o & 0xff_ffff) as usize]));
    waiting.retain(|e| e.time >= watermark);
}

#[inline(always)]
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on any value, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Open addressing from key to a number; the hash's low half is kept beside it.
struct Table {
    buckets: Vec<u64>,
    len: usize,
}

impl Table {
    fn new() -> Self {
        Table { buckets: vec![u64::MAX; 1 << 16], len: 0 }
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    #[inline(always)]
    fn guess(&self, hash: u64) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let bucket = self.buckets[at];
            if bucket == u64::MAX {
                return None;
            }
            if bucket >> 32 == hash & 0xffff_ffff {
                return Some(bucket as u32);
            }
            at = (at + 1) & (self.buckets.len() - 1);
        }
    }

    #[inline(always)]
    fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<(usize, u32)> {
        let mut at = self.home(hash);
        loop {
            let bucket = self.buckets[at];
            if bucket == u64::MAX {
                return None;
            }
            if bucket >> 32 == hash & 0xffff_ffff && is_it(bucket as u32) {
                return Some((at, bucket as u32));
            }
            at = (at + 1) & (self.buckets.len() - 1);
        }
    }

    fn insert(&mut self, hash: u64, value: u32) -> usize {
        if (self.len + 1) * 4 > self.buckets.len() * 3 {
            let twice = vec![u64::MAX; self.buckets.len() * 2];
            for bucket in std::mem::replace(&mut self.buckets, twice).into_iter().filter(|b| *b != u64::MAX) {
                self.place(bucket);
            }
        }
        self.len += 1;
        self.place((hash & 0xffff_ffff) << 32 | u64::from(value))
    }

    fn place(&mut self, bucket: u64) -> usize {
        let mut at = self.home(bucket >> 32);
        while self.buckets[at] != u64::MAX {
            at = (at + 1) & (self.buckets.len() - 1);
        }
        self.buckets[at] = bucket;
        at
    }
}

/// Sums and extrema of one window.
#[derive(Clone, Copy)]
struct Sums {
    rows: u64,
    sums: Accumulator,
    min: f64,
    max: f64,
}

#[inline(always)]
fn put(sums: &Sums, out: &mut [Vec<u64>]) {
    let scale = Scale::Fraction;
    out[0].push(sums.rows);
    out[1].push(numeric::sum(&sums.sums, scale).unwrap_or(0.0).to_bits());
    out[2].push(numeric::mean(&sums.sums, scale).unwrap_or(0.0).to_bits());
    out[3].push(sums.min.to_bits());
    out[4].push(sums.max.to_bits());
    out[5].push(numeric::stddev(&sums.sums, scale, false).unwrap_or(0.0).to_bits());
}

#[inline(always)]
fn add(sums: &mut Accumulator, x: f64) {
    let m = quantise(x).unwrap_or(0);
    sums.add_with_square(m, square(m));
}

#[inline(always)]
fn remove(sums: &mut Accumulator, x: f64) {
    let m = quantise(x).unwrap_or(0);
    sums.remove_with_square(m, square(m));
}

/// Where the windows of a card begin: rows after these times are inside.
trait Hot: Default {
    const TILED: bool;
    fn insert(&mut self, time: i64, x: f64);
    fn answer(&mut self, time: i64) -> [Sums; 2];
    fn prefetch(&self);
}

#[inline(always)]
fn bound(tiled: bool, time: i64, width: i64) -> i64 {
    let tile = width / 60;
    if tiled { (time - width).div_euclid(tile) * tile - 1 } else { time - width }
}

#[derive(Default)]
struct Wedge(VecDeque<(i64, f64)>);

impl Wedge {
    #[inline(always)]
    fn push_min(&mut self, time: i64, x: f64) {
        while self.0.back().is_some_and(|b| b.1 >= x) {
            self.0.pop_back();
        }
        if self.0.back().is_none_or(|b| b.0 != time) {
            self.0.push_back((time, x));
        }
    }

    #[inline(always)]
    fn push_max(&mut self, time: i64, x: f64) {
        while self.0.back().is_some_and(|b| b.1 <= x) {
            self.0.pop_back();
        }
        if self.0.back().is_none_or(|b| b.0 != time) {
            self.0.push_back((time, x));
        }
    }

    #[inline(always)]
    fn expire(&mut self, bound: i64) {
        while self.0.front().is_some_and(|f| f.0 <= bound) {
            self.0.pop_front();
        }
    }

    #[inline(always)]
    fn after(&self, bound: i64) -> f64 {
        let mut items = self.0.iter();
        items.find(|i| i.0 > bound).map_or(0.0, |i| i.1)
    }
}

/// A busy card with all its rows.
#[derive(Default)]
struct ExactCard {
    rows: VecDeque<(i64, f64)>,
    /// Rows before the 1 h window.
    before: usize,
    hour: Accumulator,
    day: Accumulator,
    min: Wedge,
    max: Wedge,
}

impl Hot for ExactCard {
    const TILED: bool = false;

    #[inline(always)]
    fn insert(&mut self, time: i64, x: f64) {
        self.rows.push_back((time, x));
        let m = quantise(x).unwrap_or(0);
        let s = square(m);
        self.hour.add_with_square(m, s);
        self.day.add_with_square(m, s);
        self.min.push_min(time, x);
        self.max.push_max(time, x);
    }

    #[inline(always)]
    fn answer(&mut self, time: i64) -> [Sums; 2] {
        let (hour, day) = (time - HOUR, time - DAY);
        while self.rows[self.before].0 <= hour {
            remove(&mut self.hour, self.rows[self.before].1);
            self.before += 1;
        }
        while let Some(&(t, x)) = self.rows.front()
            && t <= day
        {
            remove(&mut self.day, x);
            self.rows.pop_front();
            self.before -= 1;
        }
        self.min.expire(day);
        self.max.expire(day);
        let rows = (self.rows.len() - self.before) as u64;
        [
            Sums { rows, sums: self.hour, min: self.min.after(hour), max: self.max.after(hour) },
            Sums { rows: self.rows.len() as u64, sums: self.day, min: self.min.after(day), max: self.max.after(day) },
        ]
    }

    #[inline(always)]
    fn prefetch(&self) {
        if let (Some(front), Some(back)) = (self.rows.front(), self.rows.back()) {
            prefetch(front);
            prefetch(back);
            if let Some(before) = self.rows.get(self.before) {
                prefetch(before);
            }
        }
        if let (Some(min), Some(max)) = (self.min.0.back(), self.max.0.back()) {
            prefetch(min);
            prefetch(max);
        }
    }
}

/// The tiles of one window.
#[derive(Default)]
struct Tiles {
    tiles: VecDeque<(i64, Accumulator)>,
    all: Accumulator,
    min: Wedge,
    max: Wedge,
}

impl Tiles {
    #[inline(always)]
    fn insert(&mut self, time: i64, x: f64, m: i128, s: [u128; 2], tile: i64) {
        let start = match self.tiles.back() {
            Some((start, _)) if time - start < tile => *start,
            _ => {
                let start = time.div_euclid(tile) * tile;
                self.tiles.push_back((start, Accumulator::ZERO));
                start
            }
        };
        if let Some((_, sums)) = self.tiles.back_mut() {
            sums.add_with_square(m, s);
        }
        self.all.add_with_square(m, s);
        self.min.push_min(start, x);
        self.max.push_max(start, x);
    }

    #[inline(always)]
    fn answer(&mut self, bound: i64) -> Sums {
        while let Some((start, sums)) = self.tiles.front()
            && *start <= bound
        {
            self.all.unmerge(sums);
            self.tiles.pop_front();
        }
        self.min.expire(bound);
        self.max.expire(bound);
        Sums { rows: self.all.count(), sums: self.all, min: self.min.after(bound), max: self.max.after(bound) }
    }
}

/// A busy card in tiles.
#[derive(Default)]
struct TiledCard {
    hour: Tiles,
    day: Tiles,
}

impl Hot for TiledCard {
    const TILED: bool = true;

    #[inline(always)]
    fn insert(&mut self, time: i64, x: f64) {
        let m = quantise(x).unwrap_or(0);
        let s = square(m);
        self.hour.insert(time, x, m, s, HOUR / 60);
        self.day.insert(time, x, m, s, DAY / 60);
    }

    #[inline(always)]
    fn answer(&mut self, time: i64) -> [Sums; 2] {
        [self.hour.answer(bound(true, time, HOUR)), self.day.answer(bound(true, time, DAY))]
    }

    #[inline(always)]
    fn prefetch(&self) {
        for tiles in [&self.hour, &self.day] {
            if let (Some(front), Some(back)) = (tiles.tiles.front(), tiles.tiles.back()) {
                prefetch(front);
                prefetch(back);
            }
            if let (Some(min), Some(max)) = (tiles.min.0.back(), tiles.max.0.back()) {
                prefetch(min);
                prefetch(max);
            }
        }
    }
}

/// A sparse card: `[key, rows, (time, amount)…]` in 8, 16, 32 or 64 words.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

const CLASSES: usize = 4;
const HOT: u32 = 7;

struct Cards<H> {
    table: Table,
    /// Blocks per class, `1 << class` lines each.
    blocks: [Vec<Vec<Line>>; CLASSES],
    used: [u32; CLASSES],
    free: [Vec<u32>; CLASSES],
    hot: Vec<(u64, Box<H>)>,
    hashes: Vec<u64>,
}

const SEGMENT: usize = 1 << 11;

impl<H: Hot> Cards<H> {
    fn new() -> Self {
        Cards {
            table: Table::new(),
            blocks: Default::default(),
            used: [0; CLASSES],
            free: Default::default(),
            hot: Vec::new(),
            hashes: Vec::new(),
        }
    }

    fn alloc(&mut self, class: usize) -> u32 {
        self.free[class].pop().unwrap_or_else(|| {
            let id = self.used[class];
            if (id as usize).is_multiple_of(SEGMENT) {
                self.blocks[class].push(vec![Line([0; 8]); SEGMENT << class]);
            }
            self.used[class] += 1;
            id
        })
    }

    #[inline(always)]
    fn record(&mut self, class: usize, id: u32) -> &mut [u64] {
        let at = (id as usize % SEGMENT) << class;
        let lines = &mut self.blocks[class][id as usize / SEGMENT][at..at + (1 << class)];
        // SAFETY: a line is eight words without padding.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), 8 << class) }
    }

    #[inline(always)]
    fn key(&self, handle: u32) -> u64 {
        let (class, id) = ((handle >> 29) as usize, (handle & 0x1fff_ffff) as usize);
        if class == HOT as usize {
            self.hot[id].0
        } else {
            self.blocks[class][id / SEGMENT][(id % SEGMENT) << class].0[0]
        }
    }

    fn apply(&mut self, events: &[Event], out: &mut [Vec<u64>]) {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend(events.iter().map(|e| hash_u64(e.card as u64)));
        for (i, event) in events.iter().enumerate() {
            if let Some(hash) = hashes.get(i + AHEAD) {
                prefetch(&self.table.buckets[self.table.home(*hash)]);
            }
            if let Some(hash) = hashes.get(i + AHEAD_RECORD)
                && let Some(handle) = self.table.guess(*hash)
            {
                let (class, id) = ((handle >> 29) as usize, (handle & 0x1fff_ffff) as usize);
                if class == HOT as usize {
                    let hot = std::ptr::from_ref(self.hot[id].1.as_ref()).cast::<u8>();
                    (0..size_of::<H>().div_ceil(64)).for_each(|line| prefetch(hot.wrapping_add(64 * line)));
                } else {
                    let at = (id % SEGMENT) << class;
                    self.blocks[class][id / SEGMENT][at..at + (1 << class.min(2))]
                        .iter()
                        .for_each(|line| prefetch(line));
                }
            }
            if let Some(hash) = hashes.get(i + AHEAD_RECORD / 2)
                && let Some(handle) = self.table.guess(*hash)
                && handle >> 29 == HOT
            {
                self.hot[(handle & 0x1fff_ffff) as usize].1.prefetch();
            }
            let key = event.card as u64;
            let (bucket, mut handle) = match self.table.find(hashes[i], |handle| self.key(handle) == key) {
                Some(found) => found,
                None => {
                    let id = self.alloc(0);
                    self.record(0, id)[..2].copy_from_slice(&[key, 0]);
                    (self.table.insert(hashes[i], id), id)
                }
            };
            if handle >> 29 != HOT {
                handle = self.insert_sparse(bucket, handle, event);
            } else {
                self.hot[(handle & 0x1fff_ffff) as usize].1.insert(event.time, event.amount);
            }
            let sums = if handle >> 29 == HOT {
                self.hot[(handle & 0x1fff_ffff) as usize].1.answer(event.time)
            } else {
                scan::<H>(self.record((handle >> 29) as usize, handle & 0x1fff_ffff), event.time)
            };
            put(&sums[0], &mut out[..6]);
            put(&sums[1], &mut out[6..12]);
        }
        self.hashes = hashes;
    }

    #[inline(always)]
    fn insert_sparse(&mut self, bucket: usize, handle: u32, event: &Event) -> u32 {
        let (class, id) = ((handle >> 29) as usize, handle & 0x1fff_ffff);
        let record = self.record(class, id);
        let rows = record[1] as usize;
        if 2 + 2 * rows == record.len() {
            return self.insert_full(bucket, handle, event);
        }
        record[2 + 2 * rows] = event.time as u64;
        record[3 + 2 * rows] = event.amount.to_bits();
        record[1] += 1;
        handle
    }

    #[inline(never)]
    fn insert_full(&mut self, bucket: usize, handle: u32, event: &Event) -> u32 {
        let (class, id) = ((handle >> 29) as usize, handle & 0x1fff_ffff);
        let record = self.record(class, id);
        let rows = record[1] as usize;
        let slack = if H::TILED { DAY / 60 } else { 0 };
        let gone = (0..rows).take_while(|r| record[2 + 2 * r] as i64 <= event.time - DAY - slack).count();
        if gone > 0 {
            record.copy_within(2 + 2 * gone.., 2);
            record[1] -= gone as u64;
            return self.insert_sparse(bucket, handle, event);
        }
        let old = record.to_vec();
        self.free[class].push(id);
        let new = if class + 1 < CLASSES {
            let new = self.alloc(class + 1);
            self.record(class + 1, new)[..old.len()].copy_from_slice(&old);
            (class as u32 + 1) << 29 | new
        } else {
            let mut hot = Box::<H>::default();
            for row in old[2..].chunks(2) {
                hot.insert(row[0] as i64, f64::from_bits(row[1]));
            }
            self.hot.push((old[0], hot));
            HOT << 29 | (self.hot.len() - 1) as u32
        };
        let word = &mut self.table.buckets[bucket];
        *word = *word & !0xffff_ffff | u64::from(new);
        if new >> 29 == HOT {
            self.hot[(new & 0x1fff_ffff) as usize].1.insert(event.time, event.amount);
            new
        } else {
            self.insert_sparse(bucket, new, event)
        }
    }
}

#[inline(always)]
fn scan<H: Hot>(record: &[u64], time: i64) -> [Sums; 2] {
    let mut sums = Sums { rows: 0, sums: Accumulator::ZERO, min: f64::INFINITY, max: f64::NEG_INFINITY };
    let mut out = [sums; 2];
    let mut at = 2 + 2 * record[1] as usize;
    for (window, width) in [HOUR, DAY].into_iter().enumerate() {
        let bound = bound(H::TILED, time, width);
        while at > 2 && record[at - 2] as i64 > bound {
            let x = f64::from_bits(record[at - 1]);
            sums.rows += 1;
            add(&mut sums.sums, x);
            sums.min = if x < sums.min { x } else { sums.min };
            sums.max = if x > sums.max { x } else { sums.max };
            at -= 2;
        }
        out[window] = sums;
    }
    out
}

trait MerchantState: Default {
    fn apply(&mut self, time: i64, x: f64) -> (u64, f64);
    fn prefetch(&self);
}

/// A merchant's last hour.
#[derive(Default)]
struct Merchant<const TILED: bool> {
    rows: VecDeque<(i64, f64)>,
    tiles: VecDeque<(i64, Accumulator)>,
    all: Accumulator,
}

impl<const TILED: bool> MerchantState for Merchant<TILED> {
    #[inline(always)]
    fn apply(&mut self, time: i64, x: f64) -> (u64, f64) {
        let m = quantise(x).unwrap_or(0);
        self.all.add(m);
        if TILED {
            let tile = HOUR / 60;
            if self.tiles.back().is_none_or(|(start, _)| time - start >= tile) {
                self.tiles.push_back((time.div_euclid(tile) * tile, Accumulator::ZERO));
            }
            if let Some((_, sums)) = self.tiles.back_mut() {
                sums.add(m);
            }
            let bound = bound(true, time, HOUR);
            while let Some((start, sums)) = self.tiles.front()
                && *start <= bound
            {
                self.all.unmerge(sums);
                self.tiles.pop_front();
            }
        } else {
            self.rows.push_back((time, x));
            while let Some(&(t, x)) = self.rows.front()
                && t <= time - HOUR
            {
                self.all.remove(quantise(x).unwrap_or(0));
                self.rows.pop_front();
            }
        }
        (self.all.count(), numeric::mean(&self.all, Scale::Fraction).unwrap_or(0.0))
    }

    #[inline(always)]
    fn prefetch(&self) {
        if TILED {
            if let (Some(front), Some(back)) = (self.tiles.front(), self.tiles.back()) {
                prefetch(front);
                prefetch(back);
            }
        } else if let (Some(front), Some(back)) = (self.rows.front(), self.rows.back()) {
            prefetch(front);
            prefetch(back);
        }
    }
}

struct Merchants<M> {
    table: Table,
    states: Vec<(u64, M)>,
    hashes: Vec<u64>,
}

impl<M> Default for Merchants<M> {
    fn default() -> Self {
        Merchants { table: Table::new(), states: Vec::new(), hashes: Vec::new() }
    }
}

impl<M: MerchantState> Merchants<M> {
    fn apply(&mut self, events: &[Event], out: &mut [Vec<u64>]) {
        self.hashes.clear();
        self.hashes.extend(events.iter().map(|e| hash_u64(e.merchant as u64)));
        for (i, event) in events.iter().enumerate() {
            if let Some(hash) = self.hashes.get(i + AHEAD)
                && let Some(id) = self.table.guess(*hash)
            {
                prefetch(&self.states[id as usize]);
            }
            if let Some(hash) = self.hashes.get(i + AHEAD_RECORD)
                && let Some(id) = self.table.guess(*hash)
            {
                self.states[id as usize].1.prefetch();
            }
            let key = event.merchant as u64;
            let id = match self.table.find(self.hashes[i], |id| self.states[id as usize].0 == key) {
                Some((_, id)) => id,
                None => {
                    self.states.push((key, M::default()));
                    let id = self.states.len() as u32 - 1;
                    self.table.insert(self.hashes[i], id);
                    id
                }
            };
            let (rows, mean) = self.states[id as usize].1.apply(event.time, event.amount);
            out[0].push(rows);
            out[1].push(mean.to_bits());
        }
    }
}
