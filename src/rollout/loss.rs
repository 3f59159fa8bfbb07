//! The loss of a row: how far a prediction is from its label.

use crate::plan::model::Loss;

/// A probability is taken as at least this, so that one certain mistake does not outweigh all else.
const LEAST: f64 = 1e-15;

/// The loss of `scores`, the outputs that are held against the label: one score, or the probabilities of classes 0, 1, …. `threshold`
/// is the score from which on one score predicts the positive class. `None` where a score is not finite or the label does not fit.
pub fn loss(metric: Loss, scores: &[f64], label: f64, threshold: f64) -> Option<f64> {
    if !label.is_finite() || scores.iter().any(|score| !score.is_finite()) {
        return None;
    }
    let (first, several) = (*scores.first()?, scores.len() > 1);
    let class = || (label >= 0.0 && label.fract() == 0.0 && label < scores.len() as f64).then_some(label as usize);
    let binary = label == 0.0 || label == 1.0;
    let surprise = |p: f64| -p.clamp(LEAST, 1.0).ln();
    match metric {
        Loss::LogLoss if several => Some(surprise(scores[class()?])),
        Loss::LogLoss => binary.then(|| surprise(if label == 1.0 { first } else { 1.0 - first })),
        Loss::Brier => binary.then(|| (first - label).powi(2)),
        Loss::Error if several => {
            let mut best = 0;
            for (i, score) in scores.iter().enumerate() {
                if *score > scores[best] {
                    best = i;
                }
            }
            Some(f64::from(u8::from(best != class()?)))
        }
        Loss::Error => binary.then(|| f64::from(u8::from((first >= threshold) != (label == 1.0)))),
        Loss::SquaredError => Some((first - label).powi(2)).filter(|loss| loss.is_finite()),
        Loss::AbsoluteError => Some((first - label).abs()).filter(|loss| loss.is_finite()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let cases: &[(Loss, &[f64], f64, Option<f64>)] = &[
            (Loss::LogLoss, &[0.25], 1.0, Some(4f64.ln())),
            (Loss::LogLoss, &[0.25], 0.0, Some(-(0.75f64.ln()))),
            (Loss::LogLoss, &[0.0], 1.0, Some(-(1e-15f64.ln()))),
            (Loss::LogLoss, &[1.5], 1.0, Some(0.0)),
            (Loss::LogLoss, &[0.2, 0.5, 0.3], 2.0, Some(-(0.3f64.ln()))),
            (Loss::LogLoss, &[0.2, 0.8], 2.0, None),
            (Loss::LogLoss, &[0.2], 0.5, None),
            (Loss::Brier, &[0.25], 1.0, Some(0.5625)),
            (Loss::Error, &[0.5], 1.0, Some(0.0)),
            (Loss::Error, &[0.5], 0.0, Some(1.0)),
            (Loss::Error, &[0.4, 0.4, 0.2], 0.0, Some(0.0)),
            (Loss::Error, &[0.4, 0.4, 0.2], 1.0, Some(1.0)),
            (Loss::SquaredError, &[3.0], 1.0, Some(4.0)),
            (Loss::AbsoluteError, &[3.0], 4.5, Some(1.5)),
            (Loss::AbsoluteError, &[f64::NAN], 4.5, None),
            (Loss::SquaredError, &[1e200], 0.0, None),
            (Loss::Error, &[], 0.0, None),
        ];
        for (metric, scores, label, expected) in cases {
            let got = loss(*metric, scores, *label, 0.5);
            assert_eq!(got, *expected, "{metric:?} of {scores:?} and {label}");
        }
    }
}
