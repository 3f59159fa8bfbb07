//! What the ai.onnx.ml operators do to raw scores: the post transforms, class labels, and the ways in which one score becomes two.
//!
//! The ONNX documents leave most of this open; onnxruntime's answers are the ones that exporters test against, so they are ours.

use super::math;
use super::proto::Attributes;
use super::tensor::Tensor;

/// `post_transform`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Post {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl Post {
    pub(crate) fn of(a: Attributes) -> Result<Post, String> {
        match a.text("post_transform").transpose()? {
            None | Some("NONE") => Ok(Post::None),
            Some("LOGISTIC") => Ok(Post::Logistic),
            Some("SOFTMAX") => Ok(Post::Softmax),
            Some("SOFTMAX_ZERO") => Ok(Post::SoftmaxZero),
            Some("PROBIT") => Ok(Post::Probit),
            Some(other) => Err(format!("post_transform {other:?} is unknown")),
        }
    }

    /// By the number that `TreeEnsemble` (ai.onnx.ml 5) uses, read as onnxruntime reads it: the ONNX document has 1 and 2 the other way round.
    pub(crate) fn of_code(code: i64) -> Result<Post, String> {
        match code {
            0 => Ok(Post::None),
            1 => Ok(Post::Logistic),
            2 => Ok(Post::Softmax),
            3 => Ok(Post::SoftmaxZero),
            4 => Ok(Post::Probit),
            other => Err(format!("post_transform {other} is unknown")),
        }
    }

    /// Transforms the scores of one row in place, as for two and more scores.
    pub(crate) fn apply(self, scores: &mut [f32]) {
        match self {
            Post::None => {}
            Post::Logistic => scores.iter_mut().for_each(|s| *s = logistic(*s)),
            Post::Probit => scores.iter_mut().for_each(|s| *s = probit(*s)),
            Post::Softmax => softmax(scores),
            Post::SoftmaxZero => softmax_zero(scores),
        }
    }
}

/// The logistic function by way of |x|, as onnxruntime computes it: the probabilities of x and −x add up to 1.
pub(crate) fn logistic(x: f32) -> f32 {
    let v = 1.0 / (1.0 + math::exp(-x.abs()));
    if x < 0.0 { 1.0 - v } else { v }
}

/// The probit function by Winitzki's approximation of the inverse error function, rounded step by step as onnxruntime does.
pub(crate) fn probit(p: f32) -> f32 {
    const A: f32 = 0.147;
    let x = 2.0 * p - 1.0;
    let log = math::ln((1.0 - x) * (1.0 + x));
    let v = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    let v2 = 1.0 / A * log;
    let root = (-v + (v * v - v2).sqrt()).sqrt();
    std::f32::consts::SQRT_2 * if x < 0.0 { -root } else { root }
}

/// Softmax of one row.
pub(crate) fn softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for s in scores.iter_mut() {
        *s = math::exp(*s - top);
        sum += *s;
    }
    scores.iter_mut().for_each(|s| *s /= sum);
}

/// Softmax of the scores that are not zero.
fn softmax_zero(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::MIN, f32::max);
    let of_zero = math::exp(-top);
    let mut sum = 0.0;
    for s in scores.iter_mut() {
        if *s > 1e-7 || *s < -1e-7 {
            *s = math::exp(*s - top);
            sum += *s;
        } else {
            *s *= of_zero;
        }
    }
    scores.iter_mut().for_each(|s| *s /= sum);
}

/// How a single score of a two-class model becomes the scores of both classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    /// It does not: the other is 0.
    Absent,
    /// The score is a probability: the other is its complement. `LOGISTIC` takes it for a margin all the same.
    Complement,
    /// The score is a margin: the other is its negative, and `LOGISTIC` makes probabilities of both.
    Negative,
}

impl Second {
    /// Writes both scores.
    pub(crate) fn spread(self, post: Post, score: f32, out: &mut [f32]) {
        let pair = match (post, self) {
            (Post::Probit, _) => [probit(score), 0.0],
            (_, Second::Absent) => [score, 0.0],
            (Post::Logistic, _) => [logistic(-score), logistic(score)],
            (_, Second::Complement) => [1.0 - score, score],
            (_, Second::Negative) => [-score, score],
        };
        out.copy_from_slice(&pair[..out.len()]);
    }
}

/// The labels of a classifier's classes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    /// From the two attributes of which a classifier has one.
    pub(crate) fn of(a: Attributes, ints: &str, texts: &str) -> Result<Labels, String> {
        let words = a.texts(texts)?;
        let labels = if words.is_empty() { Labels::Ints(a.ints(ints).to_vec()) } else { Labels::Texts(words) };
        if labels.len() == 0 { Err(format!("has neither {ints} nor {texts}")) } else { Ok(labels) }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Labels::Ints(v) => v.len(),
            Labels::Texts(v) => v.len(),
        }
    }

    /// Writes the label of each row, if there is anywhere to write to; `class` gives the row's choice.
    pub(crate) fn write_to(&self, out: Option<&mut Tensor>, rows: usize, class: impl Fn(usize) -> Choice) {
        let Some(out) = out else { return };
        match self {
            Labels::Ints(labels) => out.set_i64(&[rows]).iter_mut().enumerate().for_each(|(i, l)| {
                *l = match class(i) {
                    Choice::Class(c) => labels[c],
                    Choice::Unnamed(positive) => positive.into(),
                }
            }),
            Labels::Texts(labels) => out.set_text(&[rows]).iter_mut().enumerate().for_each(|(i, l)| match class(i) {
                Choice::Class(c) => l.clone_from(&labels[c]),
                Choice::Unnamed(positive) => *l = if positive { "1".into() } else { "0".into() },
            }),
        }
    }
}

/// Which label a row gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// That of a class.
    Class(usize),
    /// 1 or 0, whatever the labels are: onnxruntime's answer where a model of one score names its classes incompletely.
    Unnamed(bool),
}
