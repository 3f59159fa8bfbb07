//! The data of the windows benchmark (W1): card transactions in arrival order, written as Parquet.
//!
//! Columns `txn_id Int64, card_id Int64, merchant_id Int64, amount Float64, ts Timestamp(ms)`. Arrivals are evenly spread
//! over the span; an event's own time lies up to the disorder before its arrival. Cards are drawn from a Zipf
//! distribution, merchants from another or uniformly; amounts are log-normal with two decimals. The same settings give
//! the same rows.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::base::SplitMix64;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct W1Data {
    /// Number of events.
    pub events: usize,
    /// Number of cards.
    pub cards: usize,
    /// Exponent of the cards' Zipf distribution.
    pub card_exponent: f64,
    /// Number of merchants.
    pub merchants: usize,
    /// Exponent of the merchants' Zipf distribution; `None` is uniform.
    pub merchant_exponent: Option<f64>,
    /// Length of time covered, in milliseconds.
    pub span_ms: i64,
    /// An event's time lies up to this before its arrival, in milliseconds (exclusive).
    pub disorder_ms: i64,
    /// Seed.
    pub seed: u64,
}

impl Default for W1Data {
    fn default() -> Self {
        W1Data {
            events: 10_000_000,
            cards: 1_000_000,
            card_exponent: 1.1,
            merchants: 10_000,
            merchant_exponent: Some(1.1),
            span_ms: 3 * 86_400_000,
            disorder_ms: 5_000,
            seed: 1,
        }
    }
}

/// First arrival: 2026-01-01T00:00:00Z, in milliseconds.
const START_MS: i64 = 1_767_225_600_000;

/// Rows per batch that [`W1Data::batches`] yields.
const BATCH: usize = 65_536;

impl W1Data {
    /// The schema of the file.
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("txn_id", DataType::Int64, false),
            Field::new("card_id", DataType::Int64, false),
            Field::new("merchant_id", DataType::Int64, false),
            Field::new("amount", DataType::Float64, false),
            Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        ]))
    }

    /// The rows in arrival order.
    pub fn batches(&self) -> impl Iterator<Item = RecordBatch> {
        let mut random = SplitMix64::new(self.seed);
        let cards = Draw::new(self.cards, Some(self.card_exponent));
        let merchants = Draw::new(self.merchants, self.merchant_exponent);
        let schema = Self::schema();
        let data = self.clone();
        (0..self.events.div_ceil(BATCH)).map(move |batch| {
            let ids = batch * BATCH..((batch + 1) * BATCH).min(data.events);
            let rows = ids.len();
            let mut columns = (
                Vec::with_capacity(rows),
                Vec::with_capacity(rows),
                Vec::with_capacity(rows),
                Vec::with_capacity(rows),
            );
            for id in ids.clone() {
                let arrival = START_MS + (id as i128 * i128::from(data.span_ms) / data.events as i128) as i64;
                columns.0.push(cards.draw(&mut random));
                columns.1.push(merchants.draw(&mut random));
                columns.2.push(amount(&mut random));
                columns.3.push(arrival - below(&mut random, data.disorder_ms.max(1) as u64) as i64);
            }
            let columns: Vec<ArrayRef> = vec![
                Arc::new(ids.map(|id| id as i64).collect::<Int64Array>()),
                Arc::new(Int64Array::from(columns.0)),
                Arc::new(Int64Array::from(columns.1)),
                Arc::new(Float64Array::from(columns.2)),
                Arc::new(TimestampMillisecondArray::from(columns.3)),
            ];
            RecordBatch::try_new(Arc::clone(&schema), columns).expect("the columns are those of the schema")
        })
    }

    /// Writes the rows as one Snappy-compressed Parquet file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), parquet::errors::ParquetError> {
        write(path, self.batches().map(Ok))
    }
}

/// Writes rows of [`W1Data::schema`] as one Snappy-compressed Parquet file.
///
/// # Errors
/// When the file cannot be written, and the first error among the rows.
pub fn write(
    path: &Path,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<(), parquet::errors::ParquetError> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, W1Data::schema(), Some(properties))?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}

/// A number below `n`: the upper bits decide, which is quicker than a remainder.
fn below(random: &mut SplitMix64, n: u64) -> u64 {
    ((u128::from(random.word()) * u128::from(n)) >> 64) as u64
}

/// Log-normal with a median of 30, in whole cents.
fn amount(random: &mut SplitMix64) -> f64 {
    let (u, v) = (1.0 - random.unit(), random.unit());
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    (3000.0 * (1.1 * normal).exp()).round().clamp(1.0, 1.0e7) / 100.0
}

/// Draws ids below n by rank, the ranks scattered over the ids.
struct Draw {
    n: usize,
    /// Weights summed up to each rank; empty for a uniform draw.
    sums: Vec<f64>,
}

impl Draw {
    fn new(n: usize, exponent: Option<f64>) -> Self {
        let mut total = 0.0;
        let sum = |rank: usize, exponent: f64| {
            total += (rank as f64).powf(-exponent);
            total
        };
        Draw {
            n,
            sums: exponent.map_or_else(Vec::new, |e| {
                (1..=n)
                    .map({
                        let mut sum = sum;
                        move |rank| sum(rank, e)
                    })
                    .collect()
            }),
        }
    }

    fn draw(&self, random: &mut SplitMix64) -> i64 {
        let Some(total) = self.sums.last() else {
            return below(random, self.n as u64) as i64;
        };
        let x = random.unit() * total;
        let rank = self.sums.partition_point(|sum| *sum <= x).min(self.n - 1);
        // 1,000,003 is prime, so this is a bijection for every n that it does not divide.
        ((rank as u128 * 1_000_003 + 17) % self.n as u128) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};

    fn small() -> W1Data {
        W1Data { events: 100_000, cards: 10_000, merchants: 100, span_ms: 3_600_000, ..W1Data::default() }
    }

    #[test]
    fn the_same_settings_give_the_same_rows() {
        let rows = |data: &W1Data| data.batches().collect::<Vec<_>>();
        assert_eq!(rows(&small()), rows(&small()));
        assert_ne!(rows(&small()), rows(&W1Data { seed: 2, ..small() }));
    }

    #[test]
    fn rows_are_as_described() {
        let data = small();
        let (mut rows, mut highest) = (0, i64::MIN);
        let mut cards = vec![0usize; data.cards];
        for batch in data.batches() {
            for row in 0..batch.num_rows() {
                assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(row), rows);
                rows += 1;
                cards[batch.column(1).as_primitive::<Int64Type>().value(row) as usize] += 1;
                let cents = batch.column(3).as_primitive::<Float64Type>().value(row) * 100.0;
                assert!(cents >= 1.0 && (cents - cents.round()).abs() < 1e-6);
                let ts = batch.column(4).as_primitive::<TimestampMillisecondType>().value(row);
                assert!(ts > highest.saturating_sub(data.disorder_ms), "nothing is late");
                highest = highest.max(ts);
            }
        }
        assert_eq!(rows as usize, data.events);
        assert!(highest - START_MS < data.span_ms);
        cards.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
        let share = |rank: usize| cards[rank - 1] as f64 / data.events as f64;
        // Zipf 1.1 of 10,000: the first has 14.8 %, and the tenth 10^-1.1 of that.
        assert!((share(1) - 0.148).abs() < 0.01, "{}", share(1));
        assert!((share(10) / share(1) - 0.0794).abs() < 0.01);
    }
}
