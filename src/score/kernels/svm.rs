//! SVMClassifier and SVMRegressor, as libsvm and liblinear train them.

use super::gemm::Packed;
use super::{Args, Kernel, Scratch};
use crate::score::math;
use crate::score::post::{Choice, Labels, Post, Second, logistic};
use crate::score::proto::Attributes;
use crate::score::tensor::Tensor;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// The kernel function between a row and vectors of the model.
struct Similarity {
    shape: Shape,
    gamma: f32,
    coef0: f32,
    degree: f32,
    vectors: Packed,
    /// The vectors again, one after the other, for the distance that RBF needs.
    rows: Vec<f32>,
}

impl Similarity {
    /// `count` vectors, one after the other in `values`.
    fn new(a: Attributes, linear: bool, values: &[f32], count: usize) -> Result<Similarity, String> {
        if count == 0 || values.is_empty() || !values.len().is_multiple_of(count) {
            return Err(format!("has {} values for {count} vectors", values.len()));
        }
        let shape = match a.text("kernel_type").transpose()? {
            _ if linear => Shape::Linear,
            None | Some("LINEAR") => Shape::Linear,
            Some("POLY") => Shape::Poly,
            Some("RBF") => Shape::Rbf,
            Some("SIGMOID") => Shape::Sigmoid,
            Some(other) => return Err(format!("kernel_type {other:?} is unknown")),
        };
        let (gamma, coef0, degree) = match *a.floats("kernel_params") {
            [gamma, coef0, degree, ..] => (gamma, coef0, degree),
            [] => (0.0, 0.0, 0.0),
            _ => return Err("has fewer than three kernel_params".into()),
        };
        let k = values.len() / count;
        Ok(Similarity {
            shape,
            gamma,
            coef0,
            degree,
            vectors: Packed::new(k, count, |i, j| values[j * k + i]),
            rows: values.to_vec(),
        })
    }

    /// `out[row][vector]`; a linear kernel also adds `plus`.
    fn compute(&self, x: &Tensor, plus: f32, out: &mut Vec<f32>) -> Result<usize, String> {
        let (rows, k) = x.rows();
        let n = self.vectors.columns();
        if k != self.vectors.inner() {
            return Err(format!("has {k} inputs where its vectors have {}", self.vectors.inner()));
        }
        let x = x.to_f32().ok_or("takes numbers, not text")?;
        out.clear();
        out.resize(rows * n, 0.0);
        if self.shape == Shape::Rbf {
            for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
                for (vector, out) in self.rows.chunks_exact(k).zip(out) {
                    let distance = x.iter().zip(vector).fold(0.0f32, |s, (a, b)| s + (a - b) * (a - b));
                    *out = math::exp(-self.gamma * distance);
                }
            }
            return Ok(rows);
        }
        self.vectors.multiply(&x, rows, None, out);
        let finish: &dyn Fn(f32) -> f32 = match self.shape {
            Shape::Linear => &|v| v + plus,
            Shape::Poly => &|v| {
                let base = self.gamma * v + self.coef0;
                match self.degree {
                    2.0 => base * base,
                    3.0 => base * base * base,
                    degree => math::pow(base, degree),
                }
            },
            _ => &|v| math::tanh(self.gamma * v + self.coef0),
        };
        out.iter_mut().for_each(|v| *v = finish(*v));
        Ok(rows)
    }
}

/// What decides between the classes.
enum Mode {
    /// One weight vector per class (liblinear).
    PerClass,
    /// One decision function per pair of classes, over support vectors (libsvm).
    Pairs(Pairs),
}

struct Pairs {
    /// Start of each class's support vectors, and their end.
    starts: Vec<usize>,
    /// `[classes − 1][vectors]`.
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Platt's a and b for each pair.
    platt: Option<(Vec<f32>, Vec<f32>)>,
}

/// `SVMClassifier`.
pub(super) struct Classifier {
    similarity: Similarity,
    mode: Mode,
    rho0: f32,
    labels: Labels,
    post: Post,
    all_positive: bool,
}

impl Classifier {
    pub(super) fn new(a: Attributes) -> Result<Classifier, String> {
        let labels = Labels::of(a, "classlabels_ints", "classlabels_strings")?;
        let classes = labels.len();
        let coefficients = a.floats("coefficients");
        let rho = a.floats("rho").to_vec();
        let rho0 = *rho.first().ok_or("has no rho")?;
        let per_class: Vec<usize> = a
            .ints("vectors_per_class")
            .iter()
            .map(|&n| usize::try_from(n).map_err(|_| "has a negative number of vectors".to_string()))
            .collect::<Result<_, _>>()?;
        let vectors: usize = per_class.iter().sum();
        let (similarity, mode) = if vectors == 0 {
            (Similarity::new(a, true, coefficients, classes)?, Mode::PerClass)
        } else {
            let pairs = classes * (classes - 1) / 2;
            let platt = (a.floats("prob_a").to_vec(), a.floats("prob_b").to_vec());
            let platt = Some(platt).filter(|p| !p.0.is_empty());
            let enough = per_class.len() == classes
                && coefficients.len() >= (classes - 1) * vectors
                && rho.len() >= pairs
                && platt.as_ref().is_none_or(|(a, b)| a.len() >= pairs && b.len() >= pairs);
            if !enough {
                return Err(format!("has too few coefficients, rho or probabilities for {classes} classes"));
            }
            let mut starts = vec![0];
            starts.extend(per_class.iter().scan(0, |at, n| {
                *at += n;
                Some(*at)
            }));
            let mode = Mode::Pairs(Pairs { starts, coefficients: coefficients.to_vec(), rho, platt });
            (Similarity::new(a, false, a.floats("support_vectors"), vectors)?, mode)
        };
        let all_positive = coefficients.iter().all(|&w| w >= 0.0);
        Ok(Classifier { similarity, mode, rho0, labels, post: Post::of(a)?, all_positive })
    }
}

impl Kernel for Classifier {
    fn run(&self, args: Args, outputs: &mut [Tensor], scratch: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let plus = if matches!(self.mode, Mode::PerClass) { self.rho0 } else { 0.0 };
        let rows = self.similarity.compute(x, plus, &mut scratch.floats)?;
        let kernels = &scratch.floats;
        let [labels, rest @ ..] = outputs else { return Ok(()) };
        let labels = Some(labels).filter(|_| args.wants(0));
        let mut unasked = Tensor::default();
        let scores = rest.first_mut().unwrap_or(&mut unasked);
        match &self.mode {
            Mode::PerClass => {
                let n = self.labels.len();
                self.labels.write_to(labels, rows, |row| self.choose_linear(&kernels[row * n..(row + 1) * n]));
                let out = scores.set_f32(&[rows, n]);
                out.copy_from_slice(kernels);
                out.chunks_exact_mut(n).for_each(|row| {
                    if n > 1 {
                        self.post.apply(row)
                    }
                });
            }
            Mode::Pairs(pairs) => self.vote(pairs, kernels, rows, labels, scores),
        }
        Ok(())
    }
}

fn first_largest<T: PartialOrd + Copy>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

impl Classifier {
    fn choose_linear(&self, scores: &[f32]) -> Choice {
        let best = first_largest(scores);
        let top = scores[best];
        match scores.len() {
            2 if self.all_positive && top >= 0.5 => Choice::Class(1),
            2 if !self.all_positive && top > 0.0 => Choice::Class(1),
            _ => Choice::Class(best),
        }
    }

    fn vote(&self, pairs: &Pairs, kernels: &[f32], rows: usize, labels: Option<&mut Tensor>, scores: &mut Tensor) {
        let classes = self.labels.len();
        let vectors = self.similarity.vectors.columns();
        let count = classes * (classes - 1) / 2;
        let width = match (&pairs.platt, classes) {
            (Some(_), _) => classes,
            (None, ..=2) => 2,
            (None, _) => count,
        };
        let out = scores.set_f32(&[rows, width]);
        let mut chosen = Vec::with_capacity(rows);
        let mut decisions = vec![0.0f32; count];
        let mut votes = vec![0u32; classes];
        for (kernels, out) in kernels.chunks_exact(vectors).zip(out.chunks_exact_mut(width)) {
            pairs.decide(kernels, classes, &mut decisions, &mut votes);
            chosen.push(first_largest(&votes));
            match &pairs.platt {
                Some((a, b)) => {
                    probabilities(&decisions, a, b, classes, out);
                    self.post.apply(out);
                }
                None if classes <= 2 => {
                    let second = if self.post == Post::None { Second::Negative } else { Second::Complement };
                    second.spread(self.post, decisions.first().copied().unwrap_or(0.0), out);
                }
                None => {
                    out.copy_from_slice(&decisions);
                    self.post.apply(out);
                }
            }
        }
        self.labels.write_to(labels, rows, |row| Choice::Class(chosen[row]));
    }
}

impl Pairs {
    fn decide(&self, kernels: &[f32], classes: usize, decisions: &mut [f32], votes: &mut [u32]) {
        let vectors = kernels.len();
        votes.fill(0);
        let mut pair = 0;
        for i in 0..classes {
            for j in i + 1..classes {
                let of_i = self.starts[i]..self.starts[i + 1];
                let of_j = self.starts[j]..self.starts[j + 1];
                let part = |row: usize, range: std::ops::Range<usize>| {
                    self.coefficients[row * vectors..][range.clone()]
                        .iter()
                        .zip(&kernels[range])
                        .map(|(c, k)| f64::from(c * k))
                };
                let sum = part(j - 1, of_i).chain(part(i, of_j)).fold(0.0f64, |s, v| s + v) + f64::from(self.rho[pair]);
                decisions[pair] = sum as f32;
                votes[if sum > 0.0 { i } else { j }] += 1;
                pair += 1;
            }
        }
    }
}

/// Pairwise probabilities by Platt's sigmoid, coupled into one per class by the second method of Wu, Lin and Weng (2004), as libsvm does.
fn probabilities(decisions: &[f32], a: &[f32], b: &[f32], classes: usize, p: &mut [f32]) {
    let mut pairwise = vec![0.0f32; classes * classes];
    let mut pair = 0;
    for i in 0..classes {
        for j in i + 1..classes {
            let v = (1.0 - logistic(decisions[pair] * a[pair] + b[pair])).clamp(1e-7, 1.0 - 1e-7);
            pairwise[i * classes + j] = v;
            pairwise[j * classes + i] = 1.0 - v;
            pair += 1;
        }
    }
    let r = |i: usize, j: usize| pairwise[i * classes + j];
    let mut q = vec![0.0f32; classes * classes];
    for i in 0..classes {
        p[i] = 1.0 / classes as f32;
        for j in 0..classes {
            if j < i {
                q[i * classes + i] += r(j, i) * r(j, i);
                q[i * classes + j] = q[j * classes + i];
            } else if j > i {
                q[i * classes + i] += r(j, i) * r(j, i);
                q[i * classes + j] = -r(j, i) * r(i, j);
            }
        }
    }
    let mut qp = vec![0.0f32; classes];
    for _ in 0..100 {
        let mut pqp = 0.0f32;
        for i in 0..classes {
            qp[i] = (0..classes).fold(0.0, |s, j| s + q[i * classes + j] * p[j]);
            pqp += p[i] * qp[i];
        }
        let worst = qp.iter().fold(0.0f32, |m, v| m.max((v - pqp).abs()));
        if worst < 0.005 / classes as f32 {
            break;
        }
        for i in 0..classes {
            let diff = (pqp - qp[i]) / q[i * classes + i];
            p[i] += diff;
            pqp = (pqp + diff * (diff * q[i * classes + i] + 2.0 * qp[i])) / (1.0 + diff) / (1.0 + diff);
            for j in 0..classes {
                qp[j] = (qp[j] + diff * q[i * classes + j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
}

/// `SVMRegressor`.
pub(super) struct Regressor {
    similarity: Similarity,
    /// Weights of the support vectors; `None` where the similarity is the answer (linear).
    weights: Option<Packed>,
    rho: f32,
    one_class: bool,
}

impl Regressor {
    pub(super) fn new(a: Attributes) -> Result<Regressor, String> {
        let coefficients = a.floats("coefficients");
        let rho = *a.floats("rho").first().ok_or("has no rho")?;
        let supports = usize::try_from(a.int("n_supports").unwrap_or(0)).map_err(|_| "has a negative n_supports")?;
        let (similarity, weights) = if supports > 0 {
            if coefficients.len() != supports {
                return Err(format!("has {} coefficients for {supports} support vectors", coefficients.len()));
            }
            let weights = Packed::new(supports, 1, |i, _| coefficients[i]);
            (Similarity::new(a, false, a.floats("support_vectors"), supports)?, Some(weights))
        } else {
            (Similarity::new(a, true, coefficients, 1)?, None)
        };
        Ok(Regressor { similarity, weights, rho, one_class: a.int("one_class").unwrap_or(0) != 0 })
    }
}

impl Kernel for Regressor {
    fn run(&self, args: Args, outputs: &mut [Tensor], scratch: &mut Scratch) -> Result<(), String> {
        let plus = if self.weights.is_none() { self.rho } else { 0.0 };
        let rows = self.similarity.compute(args.get(0)?, plus, &mut scratch.floats)?;
        let out = outputs[0].set_f32(&[rows, 1]);
        match &self.weights {
            Some(w) => w.multiply(&scratch.floats, rows, Some(&[self.rho]), out),
            None => out.copy_from_slice(&scratch.floats),
        }
        if self.one_class {
            out.iter_mut().for_each(|y| *y = if *y > 0.0 { 1.0 } else { -1.0 });
        }
        Ok(())
    }
}
