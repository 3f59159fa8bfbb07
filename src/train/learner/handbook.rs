//! Trees on the fraud handbook's week, beside what it published and what scikit-learn gives.

use super::*;
use crate::train::handbook::{BASELINE, auc_and_precision, folder, sets};

fn judged(train: &Set, test: &Set, text: &str) -> (f64, f64) {
    let learner: Learner = serde_json::from_str(text).expect(text);
    let model = fit(&learner, train, Task::Binary, None, &Options { threads: 2, seed: 0, progress: None }).expect(text);
    auc_and_precision(&test.labels, &model.predict(&test.inputs)[0])
}

#[test]
fn trees_are_as_good_as_the_published_ones_on_the_handbooks_week() {
    let Some(folder) = folder("the handbook's trees") else { return };
    let (train, test) = sets(&folder, BASELINE);
    assert_eq!((train.rows(), test.rows()), (67_240, 58_264));
    // Learner, AUC and average precision, and how near they must come. Of depth 2 there is but one tree; with depth, equal
    // gains are broken at random by scikit-learn, and below 7 that moves little.
    for (text, auc, precision, near) in [
        (r#"{"tree": {"depth": 2}}"#, 0.7632, 0.4963, 0.00005),
        (r#"{"tree": {"depth": 3}}"#, 0.795, 0.562, 0.001),
        (r#"{"tree": {"depth": 4}}"#, 0.802, 0.570, 0.005),
        (r#"{"tree": {"depth": 5}}"#, 0.814, 0.581, 0.005),
        (r#"{"tree": {"depth": 6}}"#, 0.817, 0.588, 0.005),
        (r#"{"tree": {}}"#, 0.788, 0.309, 0.015),
        (r#"{"forest": {}}"#, 0.867, 0.658, 0.01),
    ] {
        let (a, p) = judged(&train, &test, text);
        assert!((a - auc).abs() <= near && (p - precision).abs() <= near, "{text}: AUC {a:.4}, precision {p:.4}");
    }
    // LightGBM and HistGradientBoosting reach 0.873 / 0.606 and 0.874 / 0.588 with the same settings.
    let (a, p) = judged(&train, &test, r#"{"gbdt": {}}"#);
    assert!(a > 0.868 && p > 0.585, "AUC {a:.4}, precision {p:.4}");
}
