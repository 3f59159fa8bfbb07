"""Writes tests/golden/train/{logistic,linear,handbook}.json: weights of scikit-learn's linear models on made-up rows, and on the
training week of the fraud handbook (2018-07-25 to 07-31).

    python tests/python/make_linear_golden.py [--data DIR]

`--data` is the directory that holds `fraud/transactions.parquet`; it defaults to $TIDEMILL_DATA, else ../shared/data. Without it
handbook.json is left alone. Needs numpy, pyarrow, scikit-learn. Every solver runs to the last digits it can reach. Inputs are multiples of 1/64, so that single
precision holds them exactly.
"""

import argparse
import json
import os
import pathlib
import warnings

import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/train"
DAY = 86_400


def grid(values: np.ndarray) -> np.ndarray:
    return np.round(values * 64) / 64


def inputs(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    x = rng.normal(size=(rows, columns))
    # Some columns lean on each other; one is of another size.
    x[:, 1] += 0.8 * x[:, 0]
    x[:, 2] = x[:, 2] * 3 + 1
    return grid(x)


def logistic() -> dict:
    rng = np.random.default_rng(8)
    x = inputs(rng, 240, 6)
    z = x @ np.array([1.2, -0.7, 0.3, 0.0, 0.05, -2.0]) - 1.5
    sets = {"binary": (rng.random(240) < 1 / (1 + np.exp(-z))).astype(int)}
    for classes in (3, 4):
        scores = x @ rng.normal(size=(6, classes)) + rng.gumbel(size=(240, classes))
        sets[f"classes_{classes}"] = scores.argmax(axis=1)
    weights = grid(rng.random(240) * 3)
    weights[::17] = 0
    cases = []
    for name, labels in sets.items():
        for c, l1_ratio, intercept, balanced, weighted in [
            (1.0, 0.0, True, False, False),
            (0.05, 0.0, True, False, True),
            (1000.0, 0.0, True, False, False),
            (1.0, 0.0, False, True, False),
            (0.1, 1.0, True, False, False),
            (0.2, 0.5, True, False, True),
            (1.0, 0.7, False, False, False),
        ]:
            if name == "classes_4" and l1_ratio == 1.0:
                # With an even number of classes a column's weights may all move between the middle two at no cost.
                continue
            model = LogisticRegression(
                C=c,
                l1_ratio=l1_ratio,
                fit_intercept=intercept,
                class_weight="balanced" if balanced else None,
                solver="saga" if l1_ratio > 0 else "newton-cg",
                tol=1e-13,
                max_iter=500_000,
            )
            model.fit(x, labels, sample_weight=weights if weighted else None)
            intercepts = model.intercept_ if intercept else np.zeros(len(model.coef_))
            if len(intercepts) > 1:
                # Only the differences of a softmax's intercepts mean anything.
                intercepts = intercepts - intercepts.mean()
            cases.append(
                {
                    "labels": name,
                    "settings": {"c": c, "l1_ratio": l1_ratio, "intercept": intercept, "balanced": balanced},
                    "weighted": weighted,
                    "weights": model.coef_.tolist(),
                    "intercepts": intercepts.tolist(),
                }
            )
    return {
        "columns": x.T.tolist(),
        "labels": {k: v.tolist() for k, v in sets.items()},
        "row_weights": weights.tolist(),
        "cases": cases,
    }


def linear() -> dict:
    rng = np.random.default_rng(9)
    rows = 150
    x = inputs(rng, rows, 5)
    doubled = np.column_stack([x, x[:, 0] - x[:, 3], np.full(rows, 2.0)])
    y = grid(x @ np.array([2.0, -1.0, 0.5, 0.0, 0.01]) + 3 + rng.normal(size=rows))
    weights = grid(rng.random(rows) * 3)
    weights[::13] = 0
    cases = []

    def case(columns, settings, model, weighted):
        data = x if columns == "plain" else doubled
        model.fit(data, y, sample_weight=weights if weighted else None)
        cases.append(
            {
                "columns": columns,
                "settings": settings,
                "weighted": weighted,
                "weights": [model.coef_.tolist()],
                "intercepts": [float(model.intercept_)],
            }
        )

    for weighted in (False, True):
        total = weights.sum() if weighted else rows
        for intercept in (True, False):
            given = {"intercept": intercept}
            case("plain", given, LinearRegression(fit_intercept=intercept), weighted)
            if intercept:
                case("doubled", given, LinearRegression(fit_intercept=intercept, tol=1e-12), weighted)
            for alpha in (0.01, 1.0):
                ridge = Ridge(alpha=alpha * total, fit_intercept=intercept, solver="cholesky")
                case("plain", {**given, "alpha": alpha}, ridge, weighted)
                case("doubled", {**given, "alpha": alpha}, ridge, weighted)
                lasso = Lasso(alpha=alpha, fit_intercept=intercept, tol=1e-14, max_iter=1_000_000)
                case("plain", {**given, "alpha": alpha, "l1_ratio": 1.0}, lasso, weighted)
                net = ElasticNet(alpha=alpha, l1_ratio=0.4, fit_intercept=intercept, tol=1e-14, max_iter=1_000_000)
                case("doubled", {**given, "alpha": alpha, "l1_ratio": 0.4}, net, weighted)
    return {
        "plain": x.T.tolist(),
        "doubled": doubled.T.tolist(),
        "labels": y.tolist(),
        "row_weights": weights.tolist(),
        "cases": cases,
    }


def windows(keys: np.ndarray, seconds: np.ndarray, values: np.ndarray, rows: np.ndarray, delay: int) -> list:
    """Per 1, 7 and 30 days the number of a key's rows and the sum of their values in (t - delay - w, t - delay]; rows are in order."""
    order = np.argsort(keys, kind="stable")
    starts = np.searchsorted(keys[order], np.arange(keys.max() + 2))
    place = np.empty(len(keys), dtype=np.int64)
    place[order] = np.arange(len(keys))
    sums = np.concatenate([[0], np.cumsum(values[order])])
    columns = [[] for _ in range(6)]
    for row in rows:
        first = starts[keys[row]]
        own = seconds[order[first : place[row] + 1]]
        until = seconds[row] - delay * DAY
        for i, days in enumerate((1, 7, 30)):
            low = first + np.searchsorted(own, until - days * DAY, side="right")
            high = first + np.searchsorted(own, until, side="right")
            columns[2 * i].append(high - low)
            columns[2 * i + 1].append(sums[high] - sums[low])
    return [np.array(c, dtype=float) for c in columns]


def handbook(file: pathlib.Path) -> dict:
    table = pq.read_table(file)
    column = {name: table[name].to_numpy() for name in table.column_names}
    seconds, amounts, frauds = column["TX_TIME_SECONDS"].astype(np.int64), column["TX_AMOUNT"], column["TX_FRAUD"]
    day = seconds // DAY
    rows = np.flatnonzero((day >= 115) & (day < 122))
    cents = np.round(amounts * 100).astype(np.int64)
    x = [amounts[rows], np.isin(day[rows] % 7, [0, 6]).astype(float), (seconds[rows] % DAY < 7 * 3600).astype(float)]
    customer = windows(column["CUSTOMER_ID"], seconds, cents, rows, 0)
    terminal = windows(column["TERMINAL_ID"], seconds, frauds.astype(np.int64), rows, 7)
    for i in range(0, 6, 2):
        x += [customer[i], customer[i + 1] / 100 / customer[i]]
    for i in range(0, 6, 2):
        x += [terminal[i], terminal[i + 1] / np.maximum(terminal[i], 1)]
    x = np.column_stack(x).astype(np.float32).astype(np.float64)
    means, scales = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-13, max_iter=1000)
    model.fit((x - means) / scales, frauds[rows])
    return {
        "means": means.tolist(),
        "scales": scales.tolist(),
        "weights": model.coef_[0].tolist(),
        "intercept": float(model.intercept_[0]),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=pathlib.Path, default=os.environ.get("TIDEMILL_DATA", ROOT / "../shared/data"))
    transactions = pathlib.Path(arguments.parse_args().data) / "fraud/transactions.parquet"
    warnings.simplefilter("ignore")
    OUT.mkdir(parents=True, exist_ok=True)
    for name, made in (("logistic", logistic()), ("linear", linear())):
        (OUT / f"{name}.json").write_text(json.dumps(made) + "\n")
        print(f"{name}.json: {len(made['cases'])} cases")
    if transactions.is_file():
        (OUT / "handbook.json").write_text(json.dumps(handbook(transactions), indent=1) + "\n")
        print("handbook.json")
    else:
        print(f"no {transactions}: handbook.json is left alone")


if __name__ == "__main__":
    main()
