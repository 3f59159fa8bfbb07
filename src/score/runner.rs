//! Tensors in, tensors out: a model's own inputs and outputs, for callers that name them instead of columns.

use super::error::ScoreError;
use super::model::Model;
use super::scorer::Running;
use super::tensor::{Data, Tensor};

/// Runs a model on one thread. Keeps its buffers from run to run.
pub(crate) struct Runner {
    running: Running,
    outputs: usize,
    /// Inputs and outputs of several rows, for a model that takes one at a time.
    single: Option<(Vec<Tensor>, Vec<Tensor>)>,
}

impl Model {
    /// What runs the model on one thread and gives all of its outputs.
    ///
    /// # Errors
    /// The neural engine cannot start.
    pub(crate) fn runner(&self) -> Result<Runner, ScoreError> {
        let wanted: Vec<usize> = (0..self.outputs().len()).collect();
        let malformed = |why| ScoreError::Malformed { path: self.path().into(), why };
        let running = self.engine.start(&wanted).map_err(malformed)?;
        let inputs = vec![Tensor::default(); self.inputs().len()];
        let single = self.single_rows.then(|| (inputs, vec![Tensor::default(); wanted.len()]));
        Ok(Runner { running, outputs: wanted.len(), single })
    }
}

impl Runner {
    /// The tensor of an input, to be filled before a run: rows first, then the dimensions that the model says.
    pub(crate) fn input(&mut self, i: usize) -> &mut Tensor {
        match &mut self.single {
            Some((inputs, _)) => &mut inputs[i],
            None => self.running.input(i),
        }
    }

    /// Runs the model on the inputs as they are, of this many rows, at least one. The error says which node refused what.
    pub(crate) fn run(&mut self, rows: usize) -> Result<(), String> {
        let Some((inputs, outputs)) = &mut self.single else {
            return self.running.go(rows);
        };
        for row in 0..rows {
            for (i, input) in inputs.iter().enumerate() {
                let one = part(input, row, 1);
                self.running.input(i).copy(&one, &one.dims);
            }
            self.running.go(1)?;
            for (o, output) in outputs.iter_mut().enumerate() {
                let one = self.running.output(o);
                if row == 0 {
                    output.clone_from(one);
                } else {
                    append(output, one)?;
                }
            }
        }
        Ok(())
    }

    /// How many outputs the model has.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// An output after a run.
    pub(crate) fn output(&self, i: usize) -> &Tensor {
        match &self.single {
            Some((_, outputs)) => &outputs[i],
            None => self.running.output(i),
        }
    }
}

/// Some rows of a tensor.
pub(crate) fn part(x: &Tensor, first: usize, rows: usize) -> Tensor {
    let width = x.width();
    let range = first * width..(first + rows) * width;
    let mut dims = x.dims.clone();
    dims[0] = rows;
    let data = match &x.data {
        Data::F32(v) => Data::F32(v[range].to_vec()),
        Data::F64(v) => Data::F64(v[range].to_vec()),
        Data::I64(v) => Data::I64(v[range].to_vec()),
        Data::Bool(v) => Data::Bool(v[range].to_vec()),
        Data::Text(v) => Data::Text(v[range].to_vec()),
    };
    Tensor::new(dims, data)
}

/// Puts the rows of one tensor behind those of another of the same type and width.
pub(crate) fn append(to: &mut Tensor, from: &Tensor) -> Result<(), String> {
    let fits = !to.dims.is_empty() && to.dims.len() == from.dims.len() && to.dims[1..] == from.dims[1..];
    if !fits {
        return Err(format!("rows have the shapes {:?} and {:?}", to.dims, from.dims));
    }
    match (&mut to.data, &from.data) {
        (Data::F32(a), Data::F32(b)) => a.extend_from_slice(b),
        (Data::F64(a), Data::F64(b)) => a.extend_from_slice(b),
        (Data::I64(a), Data::I64(b)) => a.extend_from_slice(b),
        (Data::Bool(a), Data::Bool(b)) => a.extend_from_slice(b),
        (Data::Text(a), Data::Text(b)) => a.extend_from_slice(b),
        _ => return Err(format!("rows are {} and {}", to.kind().name(), from.kind().name())),
    }
    to.dims[0] += from.dims[0];
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Float32Array};
    use arrow::datatypes::{DataType, Float32Type};

    use super::*;
    use crate::plan::model::ModelOutput;

    fn model(name: &str) -> Model {
        let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
        Model::load(folder.join(format!("{name}.onnx"))).expect("loads")
    }

    /// Our kernels, trees, and the neural engine give by tensors what they give by columns, to the bit.
    #[test]
    fn tensors_score_as_columns_do() {
        for name in ["lr_binary", "forest_binary", "convolution", "torch_mlp", "mlp_binary"] {
            let model = model(name);
            let input = &model.inputs()[0];
            let (width, rows) = (input.width().expect("it says its width"), 11);
            let values: Vec<f32> = (0..rows * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
            let names: Vec<String> = (0..width).map(|i| format!("x{i}")).collect();
            let typed: Vec<(&str, DataType)> = names.iter().map(|n| (n.as_str(), DataType::Float32)).collect();
            let (output, info) = model
                .outputs()
                .iter()
                .enumerate()
                .find(|(_, o)| o.element == crate::score::Element::Float)
                .expect("a float output");
            let wanted = ModelOutput { name: "score".into(), tensor: info.name.clone(), element: Some(0) };
            let columns: Vec<ArrayRef> = (0..width)
                .map(|c| Arc::new(Float32Array::from_iter_values((0..rows).map(|r| values[r * width + c]))) as ArrayRef)
                .collect();
            let scores =
                model.bind(&typed, &[wanted]).expect("fits").scorer().expect("starts").score(&columns).expect("scores");
            let by_columns: Vec<u32> =
                scores.columns[0].as_primitive::<Float32Type>().values().iter().map(|v| v.to_bits()).collect();

            let mut runner = model.runner().expect("starts");
            let mut shape = vec![rows];
            shape.extend(input.dims.as_ref().expect("dimensions"));
            runner.input(0).set_f32(&shape).copy_from_slice(&values);
            runner.run(rows).expect("runs");
            let out = runner.output(output);
            let step = out.width();
            let by_tensors: Vec<u32> =
                out.f32s().expect("floats").chunks_exact(step).map(|row| row[0].to_bits()).collect();
            assert_eq!(by_tensors, by_columns, "{name}");
        }
    }

    #[test]
    fn rows_are_cut_and_joined() {
        let all = Tensor::new(vec![3, 2], Data::I64(vec![1, 2, 3, 4, 5, 6]));
        let mut joined = part(&all, 0, 1);
        append(&mut joined, &part(&all, 1, 2)).expect("they fit");
        assert_eq!(joined, all);
        assert!(append(&mut joined, &Tensor::new(vec![1, 3], Data::I64(vec![1, 2, 3]))).is_err());
        assert!(append(&mut joined, &Tensor::new(vec![1, 2], Data::Bool(vec![true, false]))).is_err());
    }
}
