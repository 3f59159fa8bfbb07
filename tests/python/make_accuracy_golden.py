"""Makes tests/golden/stats/accuracy.json: small samples and what scikit-learn says of them.

Needs scikit-learn and NumPy. The file names their versions; the tests need neither.
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


def calibration(scores, labels):
    """The definition of ours; scikit-learn has none for the error itself."""
    at = np.minimum((scores * 10).astype(int), 9)
    error = 0.0
    for b in range(10):
        inside = at == b
        if inside.any():
            error += abs(scores[inside].mean() - labels[inside].mean()) * inside.sum() / len(scores)
    return error


def binary(name, scores, labels, threshold=0.5):
    scores, labels = np.asarray(scores, float), np.asarray(labels, int)
    predicted = (scores >= threshold).astype(int)
    positives, both = labels.sum(), 0 < labels.sum() < len(labels)
    tn, fp, fn, tp = m.confusion_matrix(labels, predicted, labels=[0, 1]).ravel()
    inside = scores.min() >= 0 and scores.max() <= 1
    expected = {
        "accuracy": m.accuracy_score(labels, predicted),
        "precision": m.precision_score(labels, predicted, zero_division=np.nan),
        "recall": m.recall_score(labels, predicted, zero_division=np.nan),
        "f1": m.f1_score(labels, predicted, zero_division=np.nan),
        "auc": m.roc_auc_score(labels, scores) if both else None,
        "average_precision": m.average_precision_score(labels, scores) if positives else None,
        "log_loss": m.log_loss(labels, scores, labels=[0, 1]) if inside else None,
        "brier": m.brier_score_loss(labels, scores, pos_label=1) if inside else None,
        "calibration_error": calibration(scores, labels) if inside else None,
        "positive_rate": labels.mean(),
    }
    expected = {key: None if value is None else number(value) for key, value in expected.items()}
    return {
        "name": name, "task": "binary", "threshold": threshold, "scores": [[s] for s in scores.tolist()],
        "labels": labels.tolist(), "expected": expected,
        "confusion": {"0 0": int(tn), "0 1": int(fp), "1 0": int(fn), "1 1": int(tp)},
    }


def multiclass(name, scores, labels):
    scores, labels = np.asarray(scores, float), np.asarray(labels, int)
    predicted, classes = scores.argmax(axis=1), range(scores.shape[1])
    expected = {"accuracy": m.accuracy_score(labels, predicted)}
    for average in ["macro", "micro", "weighted"]:
        expected[f"precision_{average}"] = m.precision_score(labels, predicted, average=average, zero_division=0)
        expected[f"recall_{average}"] = m.recall_score(labels, predicted, average=average, zero_division=0)
        expected[f"f1_{average}"] = m.f1_score(labels, predicted, average=average, zero_division=0)
    expected["log_loss"] = m.log_loss(labels, scores, labels=list(classes))
    every = all((labels == c).any() for c in classes)
    expected["auc"] = m.roc_auc_score(labels, scores, multi_class="ovr", average="macro") if every else None
    counts = m.confusion_matrix(labels, predicted, labels=list(classes))
    return {
        "name": name, "task": "multiclass", "scores": scores.tolist(), "labels": labels.tolist(),
        "expected": {key: None if value is None else number(value) for key, value in expected.items()},
        "confusion": {f"{i} {j}": int(counts[i, j]) for i in classes for j in classes if counts[i, j]},
    }


def regression(name, scores, labels):
    scores, labels = np.asarray(scores, float), np.asarray(labels, float)
    expected = {
        "mse": m.mean_squared_error(labels, scores),
        "rmse": m.root_mean_squared_error(labels, scores),
        "mae": m.mean_absolute_error(labels, scores),
        "r2": m.r2_score(labels, scores) if len(labels) > 1 else None,
        "mape": m.mean_absolute_percentage_error(labels, scores),
    }
    return {
        "name": name, "task": "regression", "scores": [[s] for s in scores.tolist()], "labels": labels.tolist(),
        "expected": {key: None if value is None else number(value) for key, value in expected.items()},
    }


def ranking(name, queries, scores, labels, k):
    queries, scores, labels = np.asarray(queries), np.asarray(scores, float), np.asarray(labels, float)
    of = {"ndcg": [], "map": [], "precision_at_k": [], "recall_at_k": []}
    for query in np.unique(queries):
        mine = queries == query
        s, l = scores[mine], labels[mine]
        if not (l > 0).any():
            continue
        of["ndcg"].append(m.ndcg_score([l], [s], k=k) if len(l) > 1 else 1.0)
        of["map"].append(m.average_precision_score(l > 0, s))
        first = np.argsort(-s, kind="stable")[:k]
        of["precision_at_k"].append((l[first] > 0).sum() / k)
        of["recall_at_k"].append((l[first] > 0).sum() / (l > 0).sum())
    return {
        "name": name, "task": "ranking", "k": k, "queries": queries.tolist(),
        "scores": [[s] for s in scores.tolist()], "labels": labels.tolist(),
        "expected": {key: number(np.mean(values)) if values else None for key, values in of.items()},
    }


def main():
    r = np.random.default_rng(20261121)
    n = 400
    labels = (r.random(n) < 0.2).astype(int)
    smooth = np.clip(0.2 + 0.3 * labels + r.normal(0, 0.2, n), 0, 1)
    ties = np.round(smooth, 1)
    rare = (r.random(n) < 0.01).astype(int)
    rare[7] = 1
    logits = r.normal(0, 3, n) + 2 * labels
    probabilities = r.dirichlet([1.0, 2.0, 0.5, 1.0], n)
    classes = np.array([r.choice(4, p=0.6 * p + 0.1) for p in probabilities])
    y = r.normal(1e6, 1, n)
    small = np.exp(r.normal(-20, 4, n))
    queries = r.integers(0, 30, n)
    relevance = np.where(r.random(n) < 0.4, r.integers(1, 5, n), 0)
    relevance[queries == 3] = 0
    found = relevance + r.normal(0, 2, n)
    cases = [
        binary("smooth", smooth, labels),
        binary("ties", ties, labels, 0.3),
        binary("extremes", np.where(smooth > 0.6, 1.0, np.where(smooth < 0.2, 0.0, smooth)), labels),
        binary("rare", smooth, rare),
        binary("one class", smooth[:50], np.zeros(50, int)),
        binary("only positives", smooth[:50], np.ones(50, int)),
        binary("one row", [0.7], [1]),
        binary("all scores equal", np.full(20, 0.5), labels[:20]),
        binary("no probabilities", logits, labels, 0.0),
        multiclass("four classes", probabilities, classes),
        multiclass("ties between classes", np.array([r.multinomial(8, p) for p in probabilities]) / 8, classes),
        multiclass("a class that never comes", probabilities, np.where(classes == 3, 1, classes)),
        multiclass("one row", probabilities[:1], classes[:1]),
        regression("far from zero", y + r.normal(0, 0.5, n), y),
        regression("many magnitudes", small * np.exp(r.normal(0, 0.3, n)), small),
        regression("labels with zeros", r.normal(0, 1, 30), np.where(r.random(30) < 0.3, 0.0, r.normal(0, 1, 30))),
        regression("one label", [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]),
        regression("one label, all right", [2.0, 2.0], [2.0, 2.0]),
        regression("one row", [1.5], [2.0]),
        ranking("queries", queries, found, relevance, 5),
        ranking("ties", queries, np.round(found), relevance, 10),
        ranking("nothing relevant", [1, 1, 2], [0.1, 0.2, 0.3], [0, 0, 0], 3),
    ]
    versions = {"scikit-learn": sklearn.__version__, "numpy": np.__version__}
    path = ROOT / "tests/golden/stats/accuracy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"versions": versions, "cases": cases}, separators=(",", ":")) + "\n")
    print(f"{path}: {len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
