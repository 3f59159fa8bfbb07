//! Rows on which an exported model would show a rounding: for every question of every tree, rows that come to it and stand at its threshold, just
//! above and just below; gaps and unknown categories in every input.

use super::data::{Column, MISSING, Matrix};
use super::model::{Ensemble, Fitted, Node, Split};
use super::pipeline::Pipeline;
use super::prepare::{Recipe, Step};

/// Questions that are probed at most, evenly over all.
const QUESTIONS: usize = 8_000;

/// A category that no set has.
const UNKNOWN: &str = "a category that no row has";

/// What a value of a row is changed to.
#[derive(Clone, Copy, Debug)]
enum To {
    Number(f32),
    /// A place in the recipe's levels.
    Level(u32),
    Gap,
    Unknown,
}

/// Rows of `inputs`, which are the pipeline's in its order, changed where it is asked.
pub(super) fn probes(pipeline: &Pipeline, inputs: &Matrix) -> Matrix {
    let rows = inputs.rows();
    if rows == 0 {
        return inputs.clone();
    }
    let mut changes: Vec<Vec<(usize, To)>> = Vec::new();
    for (input, column) in pipeline.prepare.columns.iter().enumerate() {
        changes.push(vec![(input, To::Gap)]);
        if !matches!(column.step, Step::Number(_)) {
            changes.push(vec![(input, To::Unknown)]);
        }
    }
    if let Fitted::Ensemble(ensemble) = &pipeline.fitted {
        let questions = ensemble.trees.iter().map(|t| t.nodes.len() / 2).sum::<usize>();
        let mut asker = Asker {
            recipe: &pipeline.prepare,
            sources: pipeline.prepare.sources(),
            every: questions.div_ceil(QUESTIONS).max(1),
            met: 0,
            changes: &mut changes,
        };
        asker.ask(ensemble);
    }
    // Rows are taken in turn, by a stride that meets many of them.
    let picked: Vec<u32> = (0..changes.len()).map(|i| (i * 7919 % rows) as u32).collect();
    let mut made = inputs.take(&picked);
    for (row, changes) in changes.into_iter().enumerate() {
        for (input, to) in changes {
            change(&mut made.columns[input], row, to, &pipeline.prepare.columns[input].step);
        }
    }
    made
}

fn change(column: &mut Column, row: usize, to: To, step: &Step) {
    match (column, to) {
        (Column::Number(values), To::Number(value)) => values[row] = value,
        (Column::Number(values), _) => values[row] = f32::NAN,
        (Column::Category { codes, levels }, to) => {
            let level = match (to, step) {
                (To::Unknown, _) => UNKNOWN,
                (To::Level(code), Step::Native(kept)) => kept.get(code as usize).map_or(UNKNOWN, String::as_str),
                _ => {
                    codes[row] = MISSING;
                    return;
                }
            };
            let place = levels.iter().position(|l| l == level).unwrap_or_else(|| {
                levels.push(level.to_string());
                levels.len() - 1
            });
            codes[row] = place as u32;
        }
    }
}

/// What a path demands of a prepared column: a number above one and at most another, or one of some categories.
#[derive(Clone, Debug)]
enum Demand {
    Number { above: f32, most: f32, gap: bool },
    Level { codes: Vec<u32>, gap: bool },
}

impl Demand {
    /// A value that meets it; nothing where none does.
    fn meet(&self) -> Option<To> {
        match self {
            Demand::Number { above, most, .. } if above < most => Some(To::Number(*most)),
            Demand::Level { codes, .. } if !codes.is_empty() => Some(To::Level(codes[0])),
            Demand::Number { gap, .. } | Demand::Level { gap, .. } => gap.then_some(To::Gap),
        }
    }
}

struct Asker<'a> {
    recipe: &'a Recipe,
    sources: Vec<usize>,
    /// One question of so many is probed.
    every: usize,
    met: usize,
    changes: &'a mut Vec<Vec<(usize, To)>>,
}

impl Asker<'_> {
    fn ask(&mut self, ensemble: &Ensemble) {
        for tree in &ensemble.trees {
            let mut open: Vec<(usize, Vec<(u32, Demand)>)> = vec![(0, Vec::new())];
            while let Some((at, path)) = open.pop() {
                let Some(Node::Branch { column, split, missing_left, left, right, .. }) = tree.nodes.get(at) else {
                    continue;
                };
                if self.met.is_multiple_of(self.every) {
                    self.probe(*column, split, &path);
                }
                self.met += 1;
                for (child, yes) in [(*left, true), (*right, false)] {
                    let mut path = path.clone();
                    if self.demand(&mut path, *column, split, *missing_left, yes) {
                        open.push((child as usize, path));
                    }
                }
            }
        }
    }

    /// The input behind a prepared column, where the column's values are the input's.
    fn plain(&self, column: u32) -> Option<usize> {
        let input = *self.sources.get(column as usize)?;
        match &self.recipe.columns[input].step {
            Step::Number(fill) if fill.scale.is_none() => Some(input),
            Step::Native(_) => Some(input),
            Step::Number(_) | Step::OneHot(_) | Step::Ordinal(..) => None,
        }
    }

    /// Adds what an answer demands; false where no row can give it.
    fn demand(&self, path: &mut Vec<(u32, Demand)>, column: u32, split: &Split, missing_left: bool, yes: bool) -> bool {
        if self.plain(column).is_none() {
            return true;
        }
        let place = path.iter().position(|(c, _)| *c == column).unwrap_or_else(|| {
            let levels = match self.recipe.columns.get(self.sources[column as usize]).map(|c| &c.step) {
                Some(Step::Native(levels)) => levels.len() as u32,
                _ => 0,
            };
            path.push((
                column,
                match split {
                    Split::AtMost(_) => Demand::Number { above: f32::NEG_INFINITY, most: f32::MAX, gap: true },
                    Split::In(_) => Demand::Level { codes: (0..levels).collect(), gap: true },
                },
            ));
            path.len() - 1
        });
        match (&mut path[place].1, split) {
            (Demand::Number { above, most, gap }, Split::AtMost(t)) => {
                if yes {
                    *most = most.min(*t);
                } else {
                    *above = above.max(*t);
                }
                *gap &= missing_left == yes;
            }
            (Demand::Level { codes, gap }, Split::In(set)) => {
                codes.retain(|c| set.binary_search(c).is_ok() == yes);
                *gap &= missing_left == yes;
            }
            _ => {}
        }
        path[place].1.meet().is_some()
    }

    /// Rows that come to a question and stand on either side of it.
    fn probe(&mut self, column: u32, split: &Split, path: &[(u32, Demand)]) {
        let Some(input) = self.plain(column) else { return };
        let there: Vec<(usize, To)> = path
            .iter()
            .filter(|(c, _)| *c != column)
            .filter_map(|(c, demand)| Some((self.plain(*c)?, demand.meet()?)))
            .collect();
        let values: Vec<To> = match split {
            Split::AtMost(t) => vec![To::Number(*t), To::Number(t.next_up()), To::Number(t.next_down()), To::Gap],
            Split::In(set) => {
                let first_other = (0..).find(|c| set.binary_search(c).is_err()).unwrap_or(0);
                let own = set.first().map(|c| To::Level(*c));
                own.into_iter().chain([To::Level(first_other), To::Gap]).collect()
            }
        };
        for value in values {
            let mut changes = there.clone();
            changes.push((input, value));
            self.changes.push(changes);
        }
    }
}
