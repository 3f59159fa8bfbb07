//! `bench decode`: messages to Arrow columns with a schema that is known only at run time, JSON and Avro, beside decoders
//! that were written for this one schema, in the same run and on one thread.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray,
};
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde::{Deserialize, Serialize};

use crate::base::SplitMix64;
use crate::ingest::{MessageDecoder, message_decoder, parse_avsc};
use crate::plan::model::{AvroFormat, AvroWriter, MessageFormat};

/// Messages per call, as a source would hand them over.
const BATCH: usize = 4_096;

/// Messages that the batches are cut from.
const POOL: usize = 16 * BATCH;

/// Turns that the sides take; the figures are medians.
const TURNS: usize = 5;

const SCHEMA: &str = r#"{"type": "record", "name": "Payment", "fields": [
    {"name": "tx_id", "type": "long"},
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "customer_id", "type": "long"},
    {"name": "terminal_id", "type": "long"},
    {"name": "amount", "type": "double"},
    {"name": "country", "type": "string"},
    {"name": "online", "type": "boolean"},
    {"name": "session", "type": "string"}
]}"#;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time for each format, shared among its sides.
    pub seconds: f64,
}

/// One way of decoding one format.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// `json` or `avro`.
    pub format: String,
    /// Who decodes.
    pub decoder: String,
    /// Mean size of a message.
    pub message_bytes: f64,
    /// Events per second on one core.
    pub events_per_second: f64,
    /// Tidemill's events per second over this side's, in the same turn.
    pub tidemill_ratio: f64,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Tidemill's line of each format, followed by the others'.
    pub lines: Vec<Line>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<8}{:<46}{:>8}{:>16}{:>16}", "format", "decoder", "bytes", "M events/s", "tidemill / it")?;
        for l in &self.lines {
            let rate = l.events_per_second / 1e6;
            writeln!(
                f,
                "{:<8}{:<46}{:>8.0}{:>16.2}{:>16.2}",
                l.format, l.decoder, l.message_bytes, rate, l.tidemill_ratio
            )?;
        }
        Ok(())
    }
}

type Decode<'a> = dyn FnMut(&[&[u8]]) -> anyhow::Result<RecordBatch> + 'a;

/// One side: decodes a batch of payloads.
struct Side<'a> {
    decoder: &'static str,
    decode: Box<Decode<'a>>,
}

/// Measures both formats.
///
/// # Errors
/// When a side fails, or sides disagree about what the messages hold.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let events = events();
    let schema = parse_avsc(SCHEMA).map_err(|faults| anyhow!(faults.join("; ")))?;
    let ours = |format: MessageFormat| -> anyhow::Result<Box<dyn MessageDecoder>> {
        Ok(message_decoder("bench", &format, &schema)?)
    };

    let json: Vec<Vec<u8>> = events.iter().map(serde_json::to_vec).collect::<Result<_, _>>()?;
    let mut decoder = ours(MessageFormat::Json)?;
    let sides = vec![
        Side {
            decoder: "tidemill, schema at run time",
            decode: Box::new(move |payloads| whole(decoder.decode(payloads)?, payloads.len())),
        },
        Side { decoder: "serde_json into a fixed borrowed struct", decode: Box::new(serde_columns) },
    ];
    let mut lines = measure("json", &json, sides, options.seconds)?;

    let avro: Vec<Vec<u8>> = events.iter().map(avro_record).collect();
    let format = AvroFormat { declared: SCHEMA.into(), writer: AvroWriter::Schema(SCHEMA.into()) };
    let mut decoder = ours(MessageFormat::Avro(format))?;
    let mut peer = arrow_avro_decoder()?;
    let mut framed = Vec::new();
    let sides = vec![
        Side {
            decoder: "tidemill, schema at run time",
            decode: Box::new(move |payloads| whole(decoder.decode(payloads)?, payloads.len())),
        },
        Side { decoder: "written by hand for this schema", decode: Box::new(hand_columns) },
        Side {
            decoder: "arrow-avro, framed, stops at a bad message",
            decode: Box::new(move |payloads| arrow_avro_columns(&mut peer, &mut framed, payloads)),
        },
    ];
    lines.extend(measure("avro", &avro, sides, options.seconds)?);
    Ok(Report { lines })
}

fn whole(messages: crate::ingest::Messages, payloads: usize) -> anyhow::Result<RecordBatch> {
    ensure!(messages.row_of.len() == payloads, "a message was refused: {:?}", messages.refused.first());
    Ok(messages.rows)
}

fn measure(format: &str, messages: &[Vec<u8>], mut sides: Vec<Side<'_>>, seconds: f64) -> anyhow::Result<Vec<Line>> {
    let payloads: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let batches: Vec<&[&[u8]]> = payloads.chunks(BATCH).collect();
    for batch in &batches {
        let expected = (sides[0].decode)(batch)?;
        for side in &mut sides[1..] {
            let found = (side.decode)(batch)?;
            ensure!(found.columns() == expected.columns(), "{}: other values than tidemill's", side.decoder);
        }
    }
    let turn = Duration::from_secs_f64(seconds / (TURNS * sides.len()) as f64);
    let mut rates = vec![Vec::new(); sides.len()];
    for _ in 0..TURNS {
        for (side, rates) in sides.iter_mut().zip(&mut rates) {
            let (start, mut done) = (Instant::now(), 0);
            let spent = loop {
                std::hint::black_box((side.decode)(batches[done % batches.len()])?);
                done += 1;
                let spent = start.elapsed();
                if spent >= turn {
                    break spent;
                }
            };
            rates.push((done * BATCH) as f64 / spent.as_secs_f64());
        }
    }
    let bytes = messages.iter().map(Vec::len).sum::<usize>() as f64 / messages.len() as f64;
    let lines = sides.iter().zip(&rates).map(|(side, own)| Line {
        format: format.into(),
        decoder: side.decoder.into(),
        message_bytes: bytes,
        events_per_second: median(own.clone()),
        tidemill_ratio: median(rates[0].iter().zip(own).map(|(ours, it)| ours / it).collect()),
    });
    Ok(lines.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Clone, Debug, Serialize)]
struct Event {
    tx_id: i64,
    ts: i64,
    customer_id: i64,
    terminal_id: i64,
    amount: f64,
    country: &'static str,
    online: bool,
    session: String,
}

fn events() -> Vec<Event> {
    let mut random = SplitMix64::new(7);
    let mut below = |n: u64| random.below(n);
    let event = |i: usize| Event {
        tx_id: 12_000_000 + i as i64,
        ts: 1_767_225_600_000_000 + i as i64 * 1_234_567,
        customer_id: below(1_000_000) as i64,
        terminal_id: below(100_000) as i64,
        amount: below(1_000_000) as f64 / 100.0,
        country: ["FR", "DE", "IT", "ES"][below(4) as usize],
        online: below(3) == 0,
        session: format!("{:016x}{:08x}", below(u64::MAX), below(1 << 32)),
    };
    (0..POOL).map(event).collect()
}

/// Columns while a hand-written decoder fills them.
struct Builders {
    longs: [Vec<i64>; 4],
    amount: Vec<f64>,
    country: StringBuilder,
    online: Vec<bool>,
    session: StringBuilder,
}

impl Builders {
    fn new(rows: usize) -> Builders {
        Builders {
            longs: std::array::from_fn(|_| Vec::with_capacity(rows)),
            amount: Vec::with_capacity(rows),
            country: StringBuilder::with_capacity(rows, 2 * rows),
            online: Vec::with_capacity(rows),
            session: StringBuilder::with_capacity(rows, 24 * rows),
        }
    }

    fn finish(mut self) -> anyhow::Result<RecordBatch> {
        let [tx_id, ts, customer, terminal] = self.longs;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("tx_id", Arc::new(Int64Array::from(tx_id))),
            ("ts", Arc::new(TimestampMicrosecondArray::from(ts).with_timezone("UTC"))),
            ("customer_id", Arc::new(Int64Array::from(customer))),
            ("terminal_id", Arc::new(Int64Array::from(terminal))),
            ("amount", Arc::new(Float64Array::from(self.amount))),
            ("country", Arc::new(self.country.finish())),
            ("online", Arc::new(BooleanArray::from(self.online))),
            ("session", Arc::new(self.session.finish())),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    }
}

#[derive(Deserialize)]
struct Borrowed<'a> {
    tx_id: i64,
    ts: i64,
    customer_id: i64,
    terminal_id: i64,
    amount: f64,
    country: &'a str,
    online: bool,
    session: &'a str,
}

fn serde_columns(payloads: &[&[u8]]) -> anyhow::Result<RecordBatch> {
    let mut builders = Builders::new(payloads.len());
    for payload in payloads {
        let event: Borrowed<'_> = serde_json::from_slice(payload)?;
        builders.longs[0].push(event.tx_id);
        builders.longs[1].push(event.ts);
        builders.longs[2].push(event.customer_id);
        builders.longs[3].push(event.terminal_id);
        builders.amount.push(event.amount);
        builders.country.append_value(event.country);
        builders.online.push(event.online);
        builders.session.append_value(event.session);
    }
    builders.finish()
}

fn avro_record(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    let long = |out: &mut Vec<u8>, value: i64| {
        let mut bits = ((value << 1) ^ (value >> 63)) as u64;
        while bits >= 0x80 {
            out.push(bits as u8 | 0x80);
            bits >>= 7;
        }
        out.push(bits as u8);
    };
    for value in [event.tx_id, event.ts, event.customer_id, event.terminal_id] {
        long(&mut out, value);
    }
    out.extend(event.amount.to_le_bytes());
    long(&mut out, event.country.len() as i64);
    out.extend(event.country.as_bytes());
    out.push(event.online.into());
    long(&mut out, event.session.len() as i64);
    out.extend(event.session.as_bytes());
    out
}

/// What one would write for this schema alone: every check, no table of operations.
fn hand_columns(payloads: &[&[u8]]) -> anyhow::Result<RecordBatch> {
    fn long(rest: &mut &[u8]) -> Option<i64> {
        let (mut bits, mut shift) = (0u64, 0);
        loop {
            let (byte, after) = rest.split_first()?;
            *rest = after;
            bits |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
        let len = usize::try_from(long(rest)?).ok()?;
        let (bytes, after) = rest.split_at_checked(len)?;
        *rest = after;
        std::str::from_utf8(bytes).ok()
    }
    fn row(builders: &mut Builders, mut rest: &[u8]) -> Option<()> {
        for column in &mut builders.longs {
            column.push(long(&mut rest)?);
        }
        let (amount, after) = rest.split_first_chunk()?;
        rest = after;
        builders.amount.push(f64::from_le_bytes(*amount));
        builders.country.append_value(text(&mut rest)?);
        let (online, after) = rest.split_first()?;
        rest = after;
        builders.online.push(*online != 0);
        builders.session.append_value(text(&mut rest)?);
        rest.is_empty().then_some(())
    }
    let mut builders = Builders::new(payloads.len());
    for payload in payloads {
        row(&mut builders, payload).context("a message is not Avro")?;
    }
    builders.finish()
}

fn arrow_avro_decoder() -> anyhow::Result<Decoder> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(1), AvroSchema::new(SCHEMA.to_owned()))?;
    let builder = ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(BATCH);
    Ok(builder.with_active_fingerprint(Fingerprint::Id(1)).build_decoder()?)
}

fn arrow_avro_columns(decoder: &mut Decoder, framed: &mut Vec<u8>, payloads: &[&[u8]]) -> anyhow::Result<RecordBatch> {
    for payload in payloads {
        framed.clear();
        framed.extend([0, 0, 0, 0, 1]);
        framed.extend_from_slice(payload);
        ensure!(decoder.decode(framed)? == framed.len(), "arrow-avro left bytes over");
    }
    let batch = decoder.flush()?.context("arrow-avro gave no batch")?;
    // It writes the zone as an offset; the values are the same.
    let mut columns = batch.columns().to_vec();
    let times = arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(&columns[1]);
    columns[1] = Arc::new(times.clone().with_timezone("UTC"));
    let names = batch.schema();
    Ok(RecordBatch::try_from_iter(names.fields().iter().map(|f| f.name()).zip(columns))?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sides_agree() {
        let report = super::run(&super::Options { seconds: 0.01 }).unwrap();
        assert_eq!(report.lines.len(), 5);
        assert!(report.lines.iter().all(|l| l.events_per_second > 0.0));
        assert!((40.0..80.0).contains(&report.lines[2].message_bytes));
    }
}
