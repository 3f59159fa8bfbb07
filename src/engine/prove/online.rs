//! Online values held against those of a replay, as of the job's clock.
//!
//! Every entity that the replay knows is asked for: whether it is there, whether its values are stale, and every value bit
//! for bit. The event time of an entity without rows in any window may differ after a restore, and is not compared.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use serde::Serialize;

use super::DIFFERENCES_MAX;
use super::compare::{self as rows, RowDifference};
use super::recorded::Recorded;
use super::show::{Difference, Shown, show};
use crate::base::{EventTime, format_time};
use crate::engine::EngineError;
use crate::ops::key;
use crate::plan::model::{Clock, OnlinePlace, Plan, RedisLayout};
use crate::store::online::{OnlineReader, ReadRows};

/// Entities that are asked for at once.
const ENTITIES: usize = 1_000;

/// What was found of the online store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OnlineProof {
    /// Entities that are the same, over all views.
    pub keys: u64,
    /// Values of them.
    pub values: u64,
    /// Entities whose windows have run empty, and that a Redis which had lost its values has no more.
    pub let_go: u64,
}

/// Whether online values can be compared.
///
/// # Errors
/// When they cannot: why, and what to do.
pub fn check(plan: &Plan, recorded: &Recorded) -> Result<(), EngineError> {
    if plan.clock == Clock::Wall {
        let what = "--online: the job's clock is the wall clock, so what its values were is not known any more; leave --online out";
        return Err(EngineError::Unprovable(what.to_owned()));
    }
    let last = recorded.last_tick();
    if last + 1 != recorded.log_end {
        return Err(EngineError::Unprovable(format!(
            "--online: the newest epoch ends with tick {last} and the job has gone on to tick {}, so its online values are ahead of what is proven: stop the job, or, if it was killed, run it again and stop it",
            recorded.log_end - 1
        )));
    }
    Ok(())
}

/// Compares the plan's online store with that of a replay in `directory`.
///
/// # Errors
/// When one of them cannot be read.
pub fn compare(plan: &Plan, directory: &Path) -> Result<(OnlineProof, Vec<Difference>), EngineError> {
    let Some(sink) = &plan.online else { return Err(EngineError::defect("no online sink")) };
    let theirs = OnlineReader::of(&sink.store)?;
    let ours = OnlineReader::open(directory)?;
    let lets_go = matches!(sink.store, OnlinePlace::Redis(_));
    let feast = matches!(&sink.store, OnlinePlace::Redis(redis) if redis.layout != RedisLayout::Native);
    let mut sides = Sides { theirs, ours, lets_go, feast, proof: OnlineProof::default(), differences: Vec::new() };
    for view in &plan.views {
        sides.view(&view.name)?;
    }
    Ok((sides.proof, sides.differences))
}

/// The two stores.
struct Sides {
    theirs: OnlineReader,
    ours: OnlineReader,
    /// Entities whose windows have run empty are not written again after the store lost them.
    lets_go: bool,
    /// The store has Feast's layout, which holds no keys with nulls, and times by the second.
    feast: bool,
    proof: OnlineProof,
    differences: Vec<Difference>,
}

impl Sides {
    fn view(&mut self, view: &str) -> Result<(), EngineError> {
        let mut after: Option<Vec<u8>> = None;
        while self.differences.is_empty()
            && let Some(keys) = self.ours.keys_after(view, after.as_deref(), ENTITIES)?
            && let Some(last) = keys.last()
        {
            after = Some(last.clone());
            let keys: Vec<Vec<u8>> = keys.into_iter().filter(|key| !self.feast || !has_null(key)).collect();
            if keys.is_empty() {
                continue;
            }
            let mut found = (self.theirs.read_encoded(view, &keys)?, self.ours.read_encoded(view, &keys)?);
            if self.feast {
                found.1.values = whole_seconds(&found.1.values)
                    .map_err(|error| EngineError::Unprovable(format!("online view {view}: {error}")))?;
            }
            self.hold(view, &keys, &found.0, &found.1)?;
        }
        // What the replay does not know, where it can be listed.
        after = None;
        while self.differences.is_empty()
            && let Some(keys) = self.theirs.keys_after(view, after.as_deref(), ENTITIES)?
            && let Some(last) = keys.last()
        {
            after = Some(last.clone());
            let ours = self.ours.read_encoded(view, &keys)?;
            for (row, _) in ours.states.iter().enumerate().filter(|(_, state)| state.is_none()).take(DIFFERENCES_MAX) {
                let (there, gone) = (words("there".to_owned()), words("not there".to_owned()));
                self.differences.push(difference(view, &ours, &keys[row], "(state)", there, gone));
            }
        }
        Ok(())
    }

    /// Holds rows of both stores against each other, by the number of their key.
    fn hold(&mut self, view: &str, keys: &[Vec<u8>], found: &ReadRows, expected: &ReadRows) -> Result<(), EngineError> {
        if found.now != expected.now {
            let clock = |now: Option<EventTime>| words(now.map_or("none".to_owned(), format_time));
            let (there, here) = (clock(found.now), clock(expected.now));
            self.differences.push(difference(view, expected, &keys[0], "the job's clock", there, here));
            return Ok(());
        }
        let (there, here) = numbered(&found.values, &expected.values)
            .map_err(|what| EngineError::Unprovable(format!("online view {view}: {what}")))?;
        let compared = rows::compare(&there, &here, &[NUMBER])
            .map_err(|error| EngineError::Unprovable(format!("online view {view}: {error}")))?;
        let mut other = vec![None; keys.len()];
        for one in &compared.differences {
            if let RowDifference::Value { recorded, column, .. } = one {
                other[*recorded] = Some(*column);
            }
        }
        for (row, key) in keys.iter().enumerate() {
            let (recorded, replayed) = (state(found, row), state(expected, row));
            let for_ever = expected.states[row].is_some_and(|state| state.valid_until == EventTime::MAX);
            if recorded != replayed && self.lets_go && recorded == State::NotThere && for_ever {
                self.proof.let_go += 1;
            } else if recorded != replayed {
                let (there, here) = (words(recorded.to_string()), words(replayed.to_string()));
                self.push(|| difference(view, expected, key, "(state)", there, here));
            } else if let Some(column) = other[row] {
                let schema = there.schema();
                let (there, here) = (show(there.column(column), row), show(here.column(column), row));
                self.push(|| difference(view, expected, key, schema.field(column).name(), there, here));
            } else {
                self.proof.keys += 1;
                self.proof.values += expected.values.num_columns() as u64;
            }
        }
        Ok(())
    }

    fn push(&mut self, difference: impl FnOnce() -> Difference) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference());
        }
    }
}

fn has_null(key: &[u8]) -> bool {
    key::parts(key).is_none_or(|parts| parts.contains(&key::Part::Null))
}

/// The batch with its times cut to the second.
fn whole_seconds(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let cut = |column: &ArrayRef| -> ArrayRef {
        match column.as_primitive_opt::<TimestampMicrosecondType>() {
            None => Arc::clone(column),
            Some(times) => {
                let cut = times.unary::<_, TimestampMicrosecondType>(|time| time - time.rem_euclid(1_000_000));
                Arc::new(cut.with_data_type(column.data_type().clone()))
            }
        }
    };
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), batch.columns().iter().map(cut).collect(), &options)
}

/// Whether an entity is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NotThere,
    Stale,
    There,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::NotThere => "not there",
            State::Stale => "stale",
            State::There => "there",
        })
    }
}

fn state(rows: &ReadRows, row: usize) -> State {
    match rows.states[row] {
        None => State::NotThere,
        Some(state) if rows.now.is_some_and(|now| now > state.valid_until) => State::Stale,
        Some(_) => State::There,
    }
}

/// Name of the column that numbers rows; no feature has it.
const NUMBER: &str = "";

/// Both batches with one schema, and their rows numbered.
fn numbered(there: &RecordBatch, here: &RecordBatch) -> Result<(RecordBatch, RecordBatch), String> {
    let schema = rows::union(&here.schema(), &there.schema())?;
    let number = |batch: &RecordBatch| {
        let batch = rows::aligned(batch, &schema)?;
        let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..batch.num_rows() as u64));
        let named = schema.fields().iter().map(|field| field.name().as_str()).zip(batch.columns().iter().cloned());
        RecordBatch::try_from_iter_with_nullable(
            named.chain([(NUMBER, numbers)]).map(|(name, column)| (name, column, true)),
        )
    };
    let both = (number(there), number(here));
    Ok((both.0.map_err(|error| error.to_string())?, both.1.map_err(|error| error.to_string())?))
}

fn words(value: String) -> Shown {
    Shown { value, bits: None }
}

fn difference(view: &str, of: &ReadRows, key: &[u8], column: &str, recorded: Shown, replayed: Shown) -> Difference {
    let names = of.schema.entity.iter().map(|column| column.name.clone());
    Difference {
        kind: "online",
        table: format!("online {view}"),
        entity: names.zip(key::show(key)).collect(),
        tick: None,
        position: None,
        event_time: None,
        column: Some(column.to_owned()),
        recorded: Some(recorded),
        replayed: Some(replayed),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};
    use arrow::datatypes::DataType;

    use super::*;
    use crate::store::online::{ColumnSchema, OnlineRows, OnlineStore, Stamp, ViewSchema};

    fn store(dir: &Path, values: &[(i64, f64, EventTime)], now: EventTime) -> OnlineStore {
        let store = OnlineStore::open(dir, Clock::Event).unwrap();
        let schema = ViewSchema {
            view: "v".into(),
            entity: vec![ColumnSchema::new("id", &DataType::Int64).unwrap()],
            columns: vec![ColumnSchema::new("x", &DataType::Float64).unwrap()],
            ttl: None,
            job: "j".into(),
            job_version: 1,
        };
        let view = store.define(&schema).unwrap();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|v| v.0)));
        let column: ArrayRef = Arc::new(Float64Array::from_iter_values(values.iter().map(|v| v.1)));
        let rows = OnlineRows {
            keys: vec![keys],
            event_time: vec![0; values.len()],
            valid_until: values.iter().map(|v| v.2).collect(),
            values: vec![column],
        };
        store.put(&view, Stamp { generation: 1, tick: 1 }, &rows).unwrap();
        store.set_now(now);
        store
    }

    #[test]
    fn values_presence_and_staleness() {
        let dir = tempfile::tempdir().unwrap();
        let base = [(1, 0.5, 20), (2, 0.0, 20), (-3, 1.0, 5)];
        let ours = store(&dir.path().join("ours"), &base, 10);
        let more = [(1, 0.5, 20), (2, 0.0, 20), (-3, 1.0, 5), (9, 0.0, 5)];
        type Rows<'a> = &'a [(i64, f64, EventTime)];
        let cases: [(Rows<'_>, EventTime, &str); 8] = [
            (&base, 11, "column the job's clock"),
            (&more, 10, "id=9, column (state)\n    recorded there\n    replayed not there"),
            (&base, 10, ""),
            (&[(1, 0.5, 30), (2, 0.0, 20), (-3, 1.0, 6)], 10, ""),
            (&[(1, 0.5f64.next_up(), 20), (2, 0.0, 20), (-3, 1.0, 5)], 10, "id=1, column x\n    recorded 0.5000"),
            (&[(1, 0.5, 20), (2, -0.0, 20), (-3, 1.0, 5)], 10, "id=2, column x\n    recorded -0 (0x8000"),
            (&[(1, 0.5, 20), (2, 0.0, 20)], 10, "id=-3, column (state)\n    recorded not there\n    replayed stale"),
            (&[(1, 0.5, 20), (2, 0.0, 20), (-3, 1.0, 15)], 10, "id=-3, column (state)\n    recorded there"),
        ];
        for (number, (values, now, expected)) in cases.into_iter().enumerate() {
            let theirs = store(&dir.path().join(format!("theirs-{number}")), values, now);
            let mut sides = Sides {
                theirs: theirs.reader(),
                ours: ours.reader(),
                lets_go: false,
                feast: false,
                proof: OnlineProof::default(),
                differences: Vec::new(),
            };
            sides.view("v").unwrap();
            let text: String = sides.differences.iter().map(ToString::to_string).collect();
            match expected {
                "" => assert_eq!((text.as_str(), sides.proof.keys, sides.proof.values), ("", 3, 3)),
                expected => assert!(text.contains(expected), "{text}"),
            }
        }
    }
}
