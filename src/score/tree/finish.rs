//! From sums of leaf weights to labels and scores, special case for special case as onnxruntime has it.

use super::flat::Real;
use super::forest::Forest;
use crate::score::kernels::Args;
use crate::score::post::{Choice, Labels, Post, Second, probit};
use crate::score::tensor::Tensor;

/// How the weights of several trees become one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

impl Aggregate {
    /// Whether weights are added up, not chosen between.
    pub(super) fn adds(self) -> bool {
        matches!(self, Aggregate::Sum | Aggregate::Average)
    }

    /// Whether a new weight displaces the one held.
    pub(super) fn prefers<T: Real>(self, new: T, held: T) -> bool {
        match self {
            Aggregate::Min => new < held,
            Aggregate::Max => new > held,
            Aggregate::Sum | Aggregate::Average => false,
        }
    }
}

/// The raw result of the walk.
pub(super) struct Sums<'a, T> {
    /// `rows` × `targets`, or `rows` alone where there is but one target with weights, `only`.
    pub(super) sums: &'a [T],
    pub(super) seen: &'a [bool],
    pub(super) targets: usize,
    pub(super) only: Option<usize>,
}

impl<T: Real> Sums<'_, T> {
    /// A target's score in a row and whether any leaf gave it one.
    #[inline(always)]
    fn get(&self, row: usize, target: usize) -> (T, bool) {
        match self.only {
            Some(only) if only == target => (self.sums[row], true),
            Some(_) => (T::default(), false),
            None => (self.sums[row * self.targets + target], self.seen[row * self.targets + target]),
        }
    }
}

/// A classifier's part of [`Finish`].
struct Classes {
    labels: Labels,
    /// Two classes of which one alone has weights.
    binary: bool,
    all_positive: bool,
}

/// What is done with the sums.
pub(super) struct Finish {
    aggregate: Aggregate,
    post: Post,
    base: Vec<f64>,
    trees: usize,
    targets: usize,
    classes: Option<Classes>,
}

impl Finish {
    pub(super) fn regressor(forest: &Forest, aggregate: Aggregate, post: Post, base: Vec<f64>) -> Finish {
        Finish { aggregate, post, base, trees: forest.roots.len(), targets: forest.targets, classes: None }
    }

    pub(super) fn classifier(forest: &Forest, labels: Labels, post: Post, base: Vec<f64>) -> Result<Finish, String> {
        if base.len() > labels.len() {
            return Err(format!("has {} base_values for {} classes", base.len(), labels.len()));
        }
        let classes = Classes { binary: labels.len() == 2 && forest.one_id, all_positive: forest.all_positive, labels };
        Ok(Finish {
            aggregate: Aggregate::Sum,
            post,
            base,
            trees: forest.roots.len(),
            targets: forest.targets,
            classes: Some(classes),
        })
    }

    pub(super) fn aggregate(&self) -> Aggregate {
        self.aggregate
    }

    /// Whether weights are chosen between, not added up.
    pub(super) fn picks(&self) -> bool {
        !self.aggregate.adds()
    }

    /// Writes the outputs: scores for a regressor; labels and scores for a classifier.
    pub(super) fn write<T: Real>(&self, sums: &Sums<T>, rows: usize, args: Args, outputs: &mut [Tensor]) {
        match (&self.classes, outputs) {
            (None, [scores, ..]) => self.write_regression(sums, scores.set_f32(&[rows, self.targets])),
            (Some(classes), [labels, rest @ ..]) => {
                // A classifier may be asked for its labels alone, or for its scores alone.
                let mut unasked = Tensor::default();
                let scores = rest.first_mut().unwrap_or(&mut unasked).set_f32(&[rows, self.targets]);
                let labels = Some(labels).filter(|_| args.wants(0));
                match self.targets {
                    1 => self.write_one(classes, sums, labels, scores),
                    2 => self.write_two(classes, sums, labels, scores),
                    _ => self.write_many(classes, sums, labels, scores),
                }
            }
            (_, []) => {}
        }
    }

    fn write_regression<T: Real>(&self, sums: &Sums<T>, out: &mut [f32]) {
        let n = self.targets;
        for (row, out) in out.chunks_exact_mut(n).enumerate() {
            for (target, out) in out.iter_mut().enumerate() {
                let (sum, seen) = sums.get(row, target);
                let base = match self.base.as_slice() {
                    all if all.len() == n => T::of_f64(all[target]),
                    _ => T::default(),
                };
                let value = match self.aggregate {
                    // A target among several that no leaf gave a weight is 0, its base value notwithstanding.
                    _ if n > 1 && !seen => T::default(),
                    Aggregate::Average => sum.divided(self.trees) + base,
                    Aggregate::Min | Aggregate::Max if !seen => base,
                    _ => sum + base,
                };
                *out = value.to_f64() as f32;
            }
            match (n, self.post) {
                // One target knows no other transform.
                (1, Post::Probit) => out[0] = probit(out[0]),
                (1, _) => {}
                (_, post) => post.apply(out),
            }
        }
    }

    fn write_one<T: Real>(&self, classes: &Classes, sums: &Sums<T>, labels: Option<&mut Tensor>, scores: &mut [f32]) {
        let base = self.base.first().copied().unwrap_or(0.0);
        let score = |row| (sums.get(row, 0).0 + T::of_f64(base)).to_f64() as f32;
        classes.labels.write_to(labels, scores.len(), |row| Choice::Unnamed(score(row) > 0.0));
        for (row, out) in scores.iter_mut().enumerate() {
            Second::Absent.spread(self.post, score(row), std::slice::from_mut(out));
        }
    }

    fn write_two<T: Real>(&self, classes: &Classes, sums: &Sums<T>, labels: Option<&mut Tensor>, scores: &mut [f32]) {
        let rows = scores.len() / 2;
        let decide = |row: usize| {
            let ((mut s0, has0), (mut s1, has1)) = (sums.get(row, 0), sums.get(row, 1));
            match self.base.as_slice() {
                // The two base values are taken for equal here, and the second class for the negative of the first.
                [_, b1] if has1 => {
                    s1 = T::of_f64(*b1) + s0;
                    s0 = -s1;
                }
                [b0, b1] => {
                    s1 = s1 + T::of_f64(*b1);
                    s0 = s0 + T::of_f64(*b0);
                }
                [b0] => s0 = s0 + T::of_f64(*b0),
                _ => {}
            }
            let alone = !has1 && self.base.len() < 2;
            let has0 = has0 || alone;
            let positive = if has1 {
                s1
            } else if has0 {
                s0
            } else {
                T::default()
            };
            // A class that no leaf gave a weight is 0, its base value notwithstanding.
            let shown = |s: T, seen: bool| if seen { s.to_f64() as f32 } else { 0.0 };
            (shown(s0, has0), shown(s1, has1), alone, positive.to_f64())
        };
        for (row, out) in scores.chunks_exact_mut(2).enumerate() {
            let (s0, s1, alone, _) = decide(row);
            if alone {
                let second = match (classes.binary, classes.all_positive) {
                    (true, true) => Second::Complement,
                    (true, false) => Second::Negative,
                    (false, _) if self.base.is_empty() => Second::Negative,
                    (false, _) => Second::Absent,
                };
                second.spread(self.post, s0, out);
            } else {
                out.copy_from_slice(&[s0, s1]);
                self.post.apply(out);
            }
        }
        let at = if classes.binary && classes.all_positive { 0.5 } else { 0.0 };
        classes.labels.write_to(labels, rows, |row| {
            let positive = decide(row).3 > at;
            match &classes.labels {
                Labels::Ints(_) if !classes.binary => Choice::Unnamed(positive),
                _ => Choice::Class(positive as usize),
            }
        });
    }

    fn write_many<T: Real>(&self, classes: &Classes, sums: &Sums<T>, labels: Option<&mut Tensor>, scores: &mut [f32]) {
        let n = self.targets;
        let rows = scores.len() / n;
        let score = |row: usize, class: usize| {
            let (sum, seen) = sums.get(row, class);
            match self.base.get(class) {
                Some(&base) if seen => (sum + T::of_f64(base), true),
                Some(&base) => (T::of_f64(base), true),
                None => (sum, seen),
            }
        };
        classes.labels.write_to(labels, rows, |row| {
            let mut best: Option<(usize, T)> = None;
            for class in 0..n {
                let (s, seen) = score(row, class);
                if seen && best.is_none_or(|(_, top)| s > top) {
                    best = Some((class, s));
                }
            }
            Choice::Class(best.map_or(0, |(class, _)| class))
        });
        for (row, out) in scores.chunks_exact_mut(n).enumerate() {
            for (class, out) in out.iter_mut().enumerate() {
                *out = score(row, class).0.to_f64() as f32;
            }
            self.post.apply(out);
        }
    }
}
