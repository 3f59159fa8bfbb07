//! Statistics of several classes, from counts by label and predicted class.

use std::collections::BTreeMap;

use super::binary::Curve;
use super::counts::{Counts, Tally};
use super::items::Value;
use super::measure::{Measures, place, value_of};
use super::sums::Twofold;
use crate::plan::model::Metric;

/// Of one class: labels, predictions, and labels that were predicted.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    labels: u64,
    predictions: u64,
    right: u64,
}

impl Class {
    fn precision(&self) -> f64 {
        if self.predictions == 0 { 0.0 } else { self.right as f64 / self.predictions as f64 }
    }

    fn recall(&self) -> f64 {
        if self.labels == 0 { 0.0 } else { self.right as f64 / self.labels as f64 }
    }

    fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (self.labels + self.predictions) as f64
    }
}

/// Statistics of several classes. Averages are over the classes that occur among labels or predictions.
pub(super) fn values(measures: &Measures, counts: &Counts, values: &mut Vec<Value>) {
    let mut classes: BTreeMap<u16, Class> = BTreeMap::new();
    for ((label, predicted), count) in counts.confusion() {
        classes.entry(label).or_default().labels += count;
        classes.entry(predicted).or_default().predictions += count;
        if label == predicted {
            classes.entry(label).or_default().right += count;
        }
    }
    let (rows, right) = (counts.tally(Tally::Labelled), classes.values().map(|class| class.right).sum::<u64>());
    let mean = |of: fn(&Class) -> f64, weighted: bool| {
        let weight = |class: &Class| if weighted { class.labels as f64 } else { 1.0 };
        let sum = |of: &dyn Fn(&Class) -> f64| {
            classes.values().fold(Twofold::default(), |sum, class| sum + Twofold::of(of(class))).value()
        };
        Some(sum(&|class| weight(class) * of(class)) / sum(&weight))
    };
    let accuracy = Some(right as f64 / rows as f64);
    for metric in &measures.plan.metrics {
        let value = match metric {
            // Of one label and one prediction a row, what is predicted wrongly in one class is missed in another.
            Metric::Accuracy | Metric::PrecisionMicro | Metric::RecallMicro | Metric::F1Micro => accuracy,
            Metric::PrecisionMacro => mean(Class::precision, false),
            Metric::PrecisionWeighted => mean(Class::precision, true),
            Metric::RecallMacro => mean(Class::recall, false),
            Metric::RecallWeighted => mean(Class::recall, true),
            Metric::F1Macro => mean(Class::f1, false),
            Metric::F1Weighted => mean(Class::f1, true),
            Metric::LogLoss => Some(counts.sums.get(place::LOG_LOSS).value() / rows as f64),
            Metric::Auc => {
                let areas: Option<Vec<(f64, f64)>> =
                    (0..measures.outputs).map(|class| Curve::of(counts.curve(class)).auc()).collect();
                let of = measures.outputs as f64;
                let area = areas.as_ref().map(|areas| areas.iter().map(|area| area.0).sum::<f64>() / of);
                let bound = areas.filter(|_| measures.plan.bins.is_some());
                let bound = bound.map(|areas| areas.iter().map(|area| area.1).sum::<f64>() / of);
                values.push(value_of(*metric, area, bound, rows));
                continue;
            }
            Metric::Confusion => {
                for (subject, count) in counts.confusion() {
                    let value = Some((count as f64).to_bits());
                    values.push(Value { metric: *metric, subject: Some(subject), value, bound: None, rows });
                }
                continue;
            }
            _ => continue,
        };
        values.push(value_of(*metric, value, None, rows));
    }
}
