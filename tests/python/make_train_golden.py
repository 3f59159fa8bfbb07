"""Makes tests/golden/train/metrics.json: small samples and what scikit-learn says of them.

Statistics of all rows and of a resample (each row counted so many times), and DeLong's covariance by its definition, pair
by pair. Needs scikit-learn and NumPy. The file names their versions; the tests need neither.
"""

import json
import pathlib
import warnings

import numpy as np
import sklearn
from sklearn import metrics as m

warnings.simplefilter("ignore")
ROOT = pathlib.Path(__file__).resolve().parents[2]


def number(value):
    value = float(value)
    return value if np.isfinite(value) else None


def calibration(scores, labels, times):
    """The definition of ours; scikit-learn has none for the error itself."""
    at = np.minimum((scores * 10).astype(int), 9)
    error = 0.0
    for b in range(10):
        inside = (at == b) & (times > 0)
        if inside.any():
            w = times[inside]
            error += abs(np.average(scores[inside], weights=w) - np.average(labels[inside], weights=w)) * w.sum()
    return error / times.sum()


def binary(scores, labels, times, threshold):
    predicted = (scores >= threshold).astype(int)
    there = labels[times > 0]
    both, w = 0 < there.sum() < len(there), {"sample_weight": times}
    inside = scores.min() >= 0 and scores.max() <= 1
    return {
        "accuracy": m.accuracy_score(labels, predicted, **w),
        "precision": m.precision_score(labels, predicted, zero_division=np.nan, **w),
        "recall": m.recall_score(labels, predicted, zero_division=np.nan, **w),
        "f1": m.f1_score(labels, predicted, zero_division=np.nan, **w),
        "auc": m.roc_auc_score(labels, scores, **w) if both else np.nan,
        "average_precision": m.average_precision_score(labels, scores, **w) if there.sum() else np.nan,
        "log_loss": m.log_loss(labels, scores, labels=[0, 1], **w) if inside else np.nan,
        "brier": m.brier_score_loss(labels, scores, pos_label=1, **w) if inside else np.nan,
        "calibration_error": calibration(scores, labels, times) if inside else np.nan,
    }


def classes(scores, labels, times, _):
    k, w = scores.shape[1], {"sample_weight": times}
    predicted = scores.argmax(axis=1)
    there = times > 0
    told = sorted(set(labels[there]) | set(predicted[there]))
    expected = {"accuracy": m.accuracy_score(labels, predicted, **w), "log_loss": m.log_loss(labels, scores, labels=range(k), **w)}
    for average in ["macro", "micro", "weighted"]:
        for name, of in [("precision", m.precision_score), ("recall", m.recall_score), ("f1", m.f1_score)]:
            expected[f"{name}_{average}"] = of(labels, predicted, average=average, labels=told, zero_division=0, **w)
    areas = [m.roc_auc_score(labels == c, scores[:, c], **w) if 0 < (labels[there] == c).sum() < there.sum() else np.nan for c in range(k)]
    expected["auc"] = np.mean(areas)
    return expected


def regression(scores, labels, times, _):
    w = {"sample_weight": times}
    return {
        "mse": m.mean_squared_error(labels, scores, **w),
        "rmse": m.root_mean_squared_error(labels, scores, **w),
        "mae": m.mean_absolute_error(labels, scores, **w),
        "mape": m.mean_absolute_percentage_error(labels, scores, **w),
        "r2": m.r2_score(labels, scores, **w),
    }


def delong(a, b, labels):
    """Variances of both areas and of their difference, from all pairs."""
    positive, negative = labels == 1, labels == 0

    def parts(scores):
        p, n = scores[positive][:, None], scores[negative][None, :]
        above = (p > n) + 0.5 * (p == n)
        return above.mean(axis=1), above.mean(axis=0)

    (pa, na), (pb, nb) = parts(a), parts(b)
    cov = np.cov(pa, pb) / len(pa) + np.cov(na, nb) / len(na)
    return {"challenger": cov[0, 0], "champion": cov[1, 1], "difference": cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]}


def case(name, task, of, scores, labels, random, threshold=0.5):
    scores, labels = np.asarray(scores, float), np.asarray(labels, float if task == "regression" else int)
    once = np.ones(len(labels))
    times = np.bincount(random.integers(0, len(labels), len(labels)), minlength=len(labels))
    columns = scores.T if scores.ndim == 2 else scores[None, :]
    return {
        "name": name, "task": task, "threshold": threshold, "scores": columns.tolist(), "labels": labels.tolist(),
        "expected": {key: number(value) for key, value in of(scores, labels, once, threshold).items()},
        "times": times.tolist(),
        "resampled": {key: number(value) for key, value in of(scores, labels, times.astype(float), threshold).items()},
    }


def main():
    random = np.random.default_rng(20260)
    cases = []
    labels = (random.random(400) < 0.2).astype(int)
    good = np.clip(random.normal(0.3 + 0.25 * labels, 0.15), 0, 1)
    cases.append(case("two classes", "binary", binary, good, labels, random))
    cases.append(case("two classes, ties", "binary", binary, np.round(good, 1), labels, random, 0.3))
    cases.append(case("no probabilities", "binary", binary, good * 6 - 3, labels, random, 0.0))
    cases.append(case("zeros and ones", "binary", binary, (good > 0.45).astype(float), labels, random))
    cases.append(case("one class", "binary", binary, good[:30], np.zeros(30), random))
    cases.append(case("nothing predicted", "binary", binary, good[:50] * 0.1, labels[:50], random, 0.9))
    kinds = random.integers(0, 4, 300)
    raw = random.gamma(1.0, 1.0, (300, 4)) + 2.0 * np.eye(4)[kinds] * random.random((300, 1))
    cases.append(case("four classes", "classes", classes, raw / raw.sum(axis=1, keepdims=True), kinds, random))
    values = random.normal(20, 8, 250)
    cases.append(case("numbers", "regression", regression, values + random.normal(1, 4, 250), values, random))
    cases.append(case("large numbers", "regression", regression, 1e8 + values + random.normal(0, 4, 250), 1e8 + values, random))
    pairs = []
    for name, a, b in [("continuous", good, np.clip(good + random.normal(0, 0.1, 400), 0, 1)),
                       ("ties", np.round(good, 1), np.round(np.clip(good + random.normal(0, 0.2, 400), 0, 1), 1))]:
        pairs.append({"name": name, "challenger": a.tolist(), "champion": b.tolist(), "labels": labels.tolist(), "variance": delong(a, b, labels)})
    out = {"made_with": {"scikit-learn": sklearn.__version__, "numpy": np.__version__}, "cases": cases, "delong": pairs}
    path = ROOT / "tests/golden/train/metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
