//! What was routed to whom in a tick, and how it goes with predictions until their labels come.

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::rollout::ScoreMoments;

/// Which version scored a row of which rollout, as one number: so it goes with a prediction until its label comes. 0 is no
/// rollout; else the rollout's number, negative for the champion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Number of the rollout, from 1.
    pub serial: u32,
    /// Whether the challenger scored.
    pub challenger: bool,
}

impl Assigned {
    /// As a number.
    pub fn code(self) -> f64 {
        if self.challenger { f64::from(self.serial) } else { -f64::from(self.serial) }
    }

    /// From a number; nothing of rows outside rollouts.
    pub fn of(code: f64) -> Option<Assigned> {
        // What is no number becomes 0.
        let serial = code.abs() as u32;
        (serial > 0).then_some(Assigned { serial, challenger: code > 0.0 })
    }
}

/// What one worker has routed in a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Number of the rollout.
    pub serial: u32,
    /// Of champion and challenger.
    pub arms: [ArmTally; 2],
    /// Rows by group, where rows are assigned by a column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<u16, u64>,
}

/// What was routed to one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmTally {
    /// Rows.
    pub rows: u64,
    /// Rows that it could not score.
    pub errors: u64,
    /// Scores.
    pub scores: ScoreMoments,
}

impl Tally {
    /// Adds another worker's.
    pub fn add(&mut self, other: Tally) {
        self.serial = self.serial.max(other.serial);
        for (arm, other) in self.arms.iter_mut().zip(&other.arms) {
            arm.rows += other.rows;
            arm.errors += other.errors;
            arm.scores.merge(&other.scores);
        }
        other.groups.into_iter().for_each(|(group, rows)| *self.groups.entry(group).or_default() += rows);
    }

    /// As a row of one text.
    pub fn batch(&self) -> Result<RecordBatch, String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        let column: ArrayRef = Arc::new(StringArray::from_iter_values([text]));
        let schema = Arc::new(Schema::new(vec![Field::new("tally", DataType::Utf8, false)]));
        RecordBatch::try_new(schema, vec![column]).map_err(|error| error.to_string())
    }

    /// The sum of a tick's tallies.
    pub fn of(batches: &[RecordBatch]) -> Result<Tally, String> {
        let mut sum = Tally::default();
        for batch in batches {
            let texts = batch.columns().first().and_then(|column| column.as_string_opt::<i32>());
            for text in texts.into_iter().flatten().flatten() {
                sum.add(serde_json::from_str(text).map_err(|error| error.to_string())?);
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn assignments_come_back(serial in 1u32.., challenger in any::<bool>()) {
            let assigned = Assigned { serial, challenger };
            prop_assert_eq!(Assigned::of(assigned.code()), Some(assigned));
        }

        /// The sum does not depend on who had which rows, nor on the order.
        #[test]
        fn tallies_add_up_however_rows_are_spread(rows in prop::collection::vec((0usize..3, any::<bool>(), -1e3..1e3f64, 0u16..20), 0..50)) {
            let mut workers = vec![Tally::default(); 3];
            let mut alone = Tally::default();
            for (worker, challenger, score, group) in rows {
                for tally in [&mut workers[worker], &mut alone] {
                    let arm = &mut tally.arms[usize::from(challenger)];
                    arm.rows += 1;
                    arm.scores.add(score, 1);
                    *tally.groups.entry(group).or_default() += 1;
                }
            }
            let batches = |tallies: &[Tally]| tallies.iter().map(|t| t.batch().expect("JSON")).collect::<Vec<_>>();
            let one = Tally::of(&batches(&[alone])).expect("read back");
            prop_assert_eq!(&Tally::of(&batches(&workers)).expect("read back"), &one);
            workers.reverse();
            prop_assert_eq!(&Tally::of(&batches(&workers)).expect("read back"), &one);
        }
    }

    #[test]
    fn rows_outside_rollouts_have_no_arm() {
        assert_eq!([Assigned::of(0.0), Assigned::of(-0.0), Assigned::of(f64::NAN)], [None; 3]);
    }
}
