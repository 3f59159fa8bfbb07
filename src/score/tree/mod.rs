//! Tree ensembles: TreeEnsembleClassifier, TreeEnsembleRegressor and ai.onnx.ml 5's TreeEnsemble.
//!
//! [`forest`] reads the attributes into one form of tree, [`flat`] lays the trees out for the walk and walks them, [`finish`] turns
//! sums into labels and probabilities.
//!
//! Sums are in the precision of the input and in tree order for every row, so a row's score does not depend on the batch, and it is what
//! onnxruntime gives on one thread.

mod finish;
mod flat;
mod forest;
#[cfg(test)]
mod tests;

use finish::{Aggregate, Finish, Sums};
use flat::{Flat, Real};
use forest::Forest;

use super::kernels::{Args, Kernel, Scratch};
use super::post::{Labels, Post};
use super::proto::Attributes;
use super::tensor::{Data, Tensor};

/// A tree ensemble, ready to run on single and, for models that take doubles, on double precision.
pub(crate) struct TreeKernel {
    single: Flat<f32>,
    /// Laid out on demand: few models take doubles.
    double: std::sync::OnceLock<Flat<f64>>,
    forest: Forest,
    finish: Finish,
}

impl TreeKernel {
    /// `TreeEnsembleClassifier`.
    pub(crate) fn classifier(a: Attributes) -> Result<TreeKernel, String> {
        let labels = Labels::of(a, "classlabels_int64s", "classlabels_strings")?;
        let forest = Forest::of_lists(a, "class", labels.len())?;
        let base = a.floats_or_tensor("base_values")?;
        let finish = Finish::classifier(&forest, labels, Post::of(a)?, base)?;
        TreeKernel::new(forest, finish)
    }

    /// `TreeEnsembleRegressor`.
    pub(crate) fn regressor(a: Attributes) -> Result<TreeKernel, String> {
        let targets = a.int("n_targets").unwrap_or(1);
        let targets = usize::try_from(targets).ok().filter(|&t| t > 0).ok_or(format!("n_targets is {targets}"))?;
        let forest = Forest::of_lists(a, "target", targets)?;
        let aggregate = match a.text("aggregate_function").transpose()? {
            None | Some("SUM") => Aggregate::Sum,
            Some("AVERAGE") => Aggregate::Average,
            Some("MIN") => Aggregate::Min,
            Some("MAX") => Aggregate::Max,
            Some(other) => return Err(format!("aggregate_function {other:?} is unknown")),
        };
        let finish = Finish::regressor(&forest, aggregate, Post::of(a)?, a.floats_or_tensor("base_values")?);
        TreeKernel::new(forest, finish)
    }

    /// `TreeEnsemble` of ai.onnx.ml 5.
    pub(crate) fn ensemble(a: Attributes) -> Result<TreeKernel, String> {
        let forest = Forest::of_arrays(a)?;
        let aggregate = match a.int("aggregate_function").unwrap_or(1) {
            0 => Aggregate::Average,
            1 => Aggregate::Sum,
            2 => Aggregate::Min,
            3 => Aggregate::Max,
            other => return Err(format!("aggregate_function {other} is unknown")),
        };
        let finish =
            Finish::regressor(&forest, aggregate, Post::of_code(a.int("post_transform").unwrap_or(0))?, Vec::new());
        TreeKernel::new(forest, finish)
    }

    fn new(forest: Forest, finish: Finish) -> Result<TreeKernel, String> {
        Ok(TreeKernel { single: Flat::new(&forest)?, double: Default::default(), forest, finish })
    }

    fn run_on<T: Real>(
        &self,
        flat: &Flat<T>,
        x: &[T],
        (rows, width): (usize, usize),
        work: &mut Work<T>,
        args: Args,
        outputs: &mut [Tensor],
    ) -> Result<(), String> {
        if width < self.forest.inputs {
            return Err(format!("has {width} inputs where its trees read {}", self.forest.inputs));
        }
        let targets = self.forest.targets;
        if flat.one_target().is_some() {
            work.sums.clear();
            work.sums.resize(rows, T::default());
            if self.finish.picks() {
                flat.pick(x, rows, width, &mut work.block, &mut work.sums, self.finish.aggregate());
            } else {
                flat.sum(x, rows, width, &mut work.block, &mut work.sums);
            }
        } else {
            work.sums.clear();
            work.sums.resize(rows * targets, T::default());
            work.seen.clear();
            work.seen.resize(rows * targets, false);
            flat.sum_targets(x, rows, width, &mut work.block, &mut work.sums, &mut work.seen, self.finish.aggregate());
        }
        let sums = Sums { sums: &work.sums, seen: &work.seen, targets, only: flat.one_target() };
        self.finish.write(&sums, rows, args, outputs);
        Ok(())
    }
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Work<T> {
    block: Vec<T>,
    sums: Vec<T>,
    seen: Vec<bool>,
}

impl Kernel for TreeKernel {
    fn run(&self, args: Args, outputs: &mut [Tensor], scratch: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let shape = x.rows();
        match &x.data {
            Data::F32(v) => self.run_on(&self.single, v, shape, &mut scratch.tree32, args, outputs),
            Data::F64(v) => {
                let flat = match self.double.get() {
                    Some(flat) => flat,
                    None => {
                        let laid = Flat::new(&self.forest)?;
                        self.double.get_or_init(|| laid)
                    }
                };
                self.run_on(flat, v, shape, &mut scratch.tree64, args, outputs)
            }
            _ => {
                let v = x.to_f32().ok_or("takes numbers, not text")?;
                self.run_on(&self.single, &v, shape, &mut scratch.tree32, args, outputs)
            }
        }
    }
}
