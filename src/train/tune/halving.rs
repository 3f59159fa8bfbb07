//! Successive halving: many points with little, the best of them with more.
//!
//! Source: K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TrainError;

/// What is given little of at first, and how it grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HalvingOptions {
    /// `rows`, of which each fit gets a share, or the name of a setting that is a whole number, such as `trees`.
    pub of: String,
    /// In the first round.
    pub from: f64,
    /// In the last round.
    pub to: f64,
    /// One of so many goes on to the next round, with so many times as much.
    #[serde(default = "three")]
    pub keep: u32,
}

fn three() -> u32 {
    3
}

impl HalvingOptions {
    /// Whether shares of the rows are what grows.
    pub fn of_rows(&self) -> bool {
        self.of == "rows"
    }

    /// What each round gives.
    ///
    /// # Errors
    /// When the ends are none.
    pub(super) fn rounds(&self) -> Result<Vec<f64>, TrainError> {
        let asked = |what: String, mend: &str| Err(TrainError::asked(format!("halving: {what}"), mend));
        if self.keep < 2 {
            return asked(format!("keep is {}", self.keep), "write 2 or more: one of so many goes on");
        }
        if !(self.from > 0.0 && self.from < self.to && self.to.is_finite()) {
            return asked(format!("{} to {} does not grow", self.from, self.to), "write such as `from: 20, to: 540`");
        }
        if self.of_rows() && self.to > 1.0 {
            return asked(format!("a share of {} of the rows", self.to), "write a share of at most 1");
        }
        if !self.of_rows() && self.from.fract() + self.to.fract() != 0.0 {
            return asked(format!("{} and {} are not whole", self.from, self.to), "write whole numbers, or `of: rows`");
        }
        let mut rounds = vec![self.to];
        loop {
            let next = rounds[rounds.len() - 1] / f64::from(self.keep);
            let next = if self.of_rows() { next } else { next.round() };
            if next < self.from * 0.999 {
                break;
            }
            rounds.push(next);
        }
        // The first round has what was asked for, even where the steps do not come out even.
        if rounds.len() == 1 {
            rounds.push(self.from);
        } else if let Some(first) = rounds.last_mut() {
            *first = self.from;
        }
        rounds.reverse();
        Ok(rounds)
    }

    /// How many go on of so many.
    pub(super) fn survivors(&self, of: usize) -> usize {
        (of / self.keep as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_grow_to_the_end() {
        let rounds = |of: &str, from, to, keep| HalvingOptions { of: of.into(), from, to, keep }.rounds();
        assert_eq!(rounds("trees", 20.0, 540.0, 3).unwrap(), [20.0, 60.0, 180.0, 540.0]);
        assert_eq!(rounds("trees", 10.0, 100.0, 3).unwrap(), [10.0, 33.0, 100.0]);
        assert_eq!(rounds("rows", 0.25, 1.0, 2).unwrap(), [0.25, 0.5, 1.0]);
        assert_eq!(rounds("rows", 0.9, 1.0, 3).unwrap(), [0.9, 1.0]);
        for (of, from, to, keep, expected) in [
            ("rows", 0.1, 2.0, 3, "a share of 2"),
            ("rows", 0.5, 0.5, 3, "does not grow"),
            ("trees", 0.5, 8.0, 3, "not whole"),
            ("trees", 1.0, 8.0, 1, "keep is 1"),
        ] {
            let fault = rounds(of, from, to, keep).unwrap_err().to_string();
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
