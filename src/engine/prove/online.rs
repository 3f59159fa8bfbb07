//! Online values held against those of a replay, as of the job's clock.
//!
//! Every entity that the replay knows is asked for: whether it is there, whether its values are stale, and every value bit
//! for bit. The event time of an entity without rows in any window may differ after a restore, and is not compared.

use std::path::Path;

use serde::Serialize;

use super::DIFFERENCES_MAX;
use super::compare::compare as compare_rows;
use super::compare::{RowDifference, aligned, union};
use super::recorded::Recorded;
use super::show::{Difference, Shown, show};
use crate::base::{EventTime, format_time};
use crate::engine::EngineError;
use crate::ops::key;
use crate::plan::model::{Clock, Plan};
use crate::store::online::{OnlineReader, OnlineStore, ReadRows};

/// Entities that are asked for at once.
const ENTITIES: usize = 1_000;

/// What was found of the online store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnlineProof {
    /// The job's clock.
    pub clock: Option<String>,
    /// Entities that are the same, over all views.
    pub keys: u64,
    /// Values of them.
    pub values: u64,
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
    let store = OnlineStore::open(directory, plan.clock)?;
    let ours = store.reader();
    let mut proof = OnlineProof { clock: store.now().map(format_time), keys: 0, values: 0 };
    let mut differences = Vec::new();
    for view in &plan.views {
        let mut after: Option<Vec<u8>> = None;
        while differences.is_empty() {
            let keys = store.keys_after(&view.name, after.as_deref(), ENTITIES)?;
            let Some(last) = keys.last() else { break };
            after = Some(last.clone());
            let (found, expected) = (theirs.read_encoded(&view.name, &keys)?, ours.read_encoded(&view.name, &keys)?);
            hold(&view.name, &keys, &found, &expected, &mut proof, &mut differences)?;
        }
    }
    Ok((proof, differences))
}

fn hold(
    view: &str,
    keys: &[Vec<u8>],
    found: &ReadRows,
    expected: &ReadRows,
    proof: &mut OnlineProof,
    differences: &mut Vec<Difference>,
) -> Result<(), EngineError> {
    let difference = |row: usize, column: &str, recorded: Shown, replayed: Shown| {
        let names = expected.schema.entity.iter().map(|column| column.name.clone());
        Difference {
            kind: "online",
            table: format!("online {view}"),
            entity: names.zip(key::show(&keys[row])).collect(),
            tick: None,
            position: None,
            event_time: None,
            column: Some(column.to_owned()),
            recorded: Some(recorded),
            replayed: Some(replayed),
        }
    };
    let words = |value: String| Shown { value, bits: None };
    if found.now != expected.now {
        let clock = |now: Option<EventTime>| words(now.map_or("none".to_owned(), format_time));
        differences.push(difference(0, "the job's clock", clock(found.now), clock(expected.now)));
        return Ok(());
    }
    let unlike = |what: String| EngineError::Unprovable(format!("online view {view}: {what}"));
    let schema = union(&expected.values.schema(), &found.values.schema()).map_err(unlike)?;
    let arrow = |error: arrow::error::ArrowError| unlike(error.to_string());
    let (mut there, mut here) =
        (aligned(&found.values, &schema).map_err(arrow)?, aligned(&expected.values, &schema).map_err(arrow)?);
    // Rows of both sides are in the order of the keys: their number is what matches them.
    let numbers: arrow::array::ArrayRef =
        std::sync::Arc::new(arrow::array::UInt64Array::from_iter_values(0..keys.len() as u64));
    for batch in [&mut there, &mut here] {
        let schema = batch.schema();
        let named = schema.fields().iter().map(|f| f.name().clone()).zip(batch.columns().to_vec());
        let columns: Vec<(String, arrow::array::ArrayRef)> = named.chain([(String::new(), numbers.clone())]).collect();
        *batch = arrow::array::RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        )
        .map_err(arrow)?;
    }
    let compared = compare_rows(&there, &here, &[""]).map_err(arrow)?;
    let mut other = vec![None; keys.len()];
    for one in &compared.differences {
        if let RowDifference::Value { recorded, column, .. } = one {
            other[*recorded] = Some(*column);
        }
    }
    let state = |rows: &ReadRows, row: usize| match rows.states[row] {
        None => "not there",
        Some(state) if rows.now.is_some_and(|now| now > state.valid_until) => "stale",
        Some(_) => "there",
    };
    for row in 0..keys.len() {
        let (recorded, replayed) = (state(found, row), state(expected, row));
        if recorded != replayed && differences.len() < DIFFERENCES_MAX {
            differences.push(difference(row, "(state)", words(recorded.to_owned()), words(replayed.to_owned())));
        } else if let Some(column) = other[row] {
            if differences.len() < DIFFERENCES_MAX {
                let schema = there.schema();
                let name = schema.field(column).name();
                let values = (show(there.column(column), row), show(here.column(column), row));
                differences.push(difference(row, name, values.0, values.1));
            }
        } else if recorded == replayed {
            proof.keys += 1;
            proof.values += expected.values.num_columns() as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array};
    use arrow::datatypes::DataType;

    use super::*;
    use crate::store::online::{ColumnSchema, OnlineRows, Stamp, ViewSchema};

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
        let cases: [(&[(i64, f64, EventTime)], EventTime, &str); 6] = [
            (&base, 10, ""),
            (&[(1, 0.5, 30), (2, 0.0, 20), (-3, 1.0, 6)], 10, ""),
            (&[(1, 0.5f64.next_up(), 20), (2, 0.0, 20), (-3, 1.0, 5)], 10, "id=1, column x\n    recorded 0.50000"),
            (&[(1, 0.5, 20), (2, -0.0, 20), (-3, 1.0, 5)], 10, "id=2, column x\n    recorded -0 (0x8000"),
            (&[(1, 0.5, 20), (2, 0.0, 20)], 10, "id=-3, column (state)\n    recorded not there\n    replayed stale"),
            (&[(1, 0.5, 20), (2, 0.0, 20), (-3, 1.0, 15)], 10, "id=-3, column (state)\n    recorded there"),
        ];
        for (number, (values, now, expected)) in cases.into_iter().enumerate() {
            let theirs = store(&dir.path().join(format!("theirs-{number}")), values, now);
            let keys = ours.keys_after("v", None, 10).unwrap();
            assert_eq!(keys.len(), 3);
            let (found, replayed) =
                (theirs.reader().read_encoded("v", &keys).unwrap(), ours.reader().read_encoded("v", &keys).unwrap());
            let mut proof = OnlineProof { clock: None, keys: 0, values: 0 };
            let mut differences = Vec::new();
            hold("v", &keys, &found, &replayed, &mut proof, &mut differences).unwrap();
            let text: String = differences.iter().map(ToString::to_string).collect();
            match expected {
                "" => assert_eq!((text.as_str(), proof.keys, proof.values), ("", 3, 3)),
                expected => assert!(text.contains(expected) && proof.keys == 2, "{text}"),
            }
        }
        assert_eq!(ours.keys_after("v", Some(&ours.keys_after("v", None, 1).unwrap()[0]), 9).unwrap().len(), 2);
    }
}
