"""Writes tests/golden/stats/drift.json: samples with what SciPy and Evidently make of them.

    python -m venv venv && venv/bin/pip install evidently scipy numpy pandas
    venv/bin/python tests/python/make_drift_golden.py > tests/golden/stats/drift.json

The tests read the file alone; neither library is needed to run them.
"""

import json
import sys
import warnings

import evidently
import numpy as np
import pandas as pd
import scipy
from evidently.legacy.calculations.stattests.chisquare_stattest import _chi_stat_test
from evidently.legacy.calculations.stattests.jensenshannon import _jensenshannon
from evidently.legacy.calculations.stattests.kl_div import _kl_div
from evidently.legacy.calculations.stattests.psi import _psi
from evidently.legacy.calculations.stattests.wasserstein_distance_norm import _wasserstein_distance_norm
from evidently.legacy.core import ColumnType
from scipy import stats
from scipy.spatial import distance

warnings.filterwarnings("ignore")


def bins_of(reference, count=10):
    return np.unique(np.quantile(reference, np.linspace(0, 1, count + 1)))[1:-1]


def shares(values, edges):
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1) / len(values)


def numeric(name, reference, current):
    reference, current = np.asarray(reference, float), np.asarray(current, float)
    a, b = reference[~np.isnan(reference)], current[~np.isnan(current)]
    p, q = shares(a, bins_of(a)), shares(b, bins_of(a))
    fp, fq = np.maximum(p, 1e-6), np.maximum(q, 1e-6)
    ra, rb = pd.Series(a), pd.Series(b)
    ks = stats.ks_2samp(a, b, method="asymp")
    num = ColumnType.Numerical
    expected = {
        "psi": float(np.sum((fq - fp) * np.log(fq / fp))),
        "psi_evidently": float(_psi(ra, rb, num, 0.1)[0]),
        "ks": float(ks.statistic),
        "ks_p": float(ks.pvalue),
        "wasserstein": float(_wasserstein_distance_norm(ra, rb, num, 0.1)[0]),
        "shift_sd": float((b.mean() - a.mean()) / a.std()),
        "missing": float(np.isnan(current).mean()),
    }
    if len(np.unique(a)) <= 20:
        keys = np.union1d(a, b)
        table = np.array([[np.sum(a == k) for k in keys], [np.sum(b == k) for k in keys]])
        expected["js"] = float(_jensenshannon(ra, rb, num, 0.1)[0])
        expected["kl"] = float(_kl_div(ra, rb, num, 0.1)[0])
    else:
        table = np.array([p * len(a), q * len(b)])
        expected["js"] = float(distance.jensenshannon(p, q))
    chi = stats.chi2_contingency(table, correction=False)
    expected["chi_square"], expected["chi_square_p"] = float(chi.statistic), float(chi.pvalue)
    # A shift in standard deviations of a constant is none.
    expected = {name: value for name, value in expected.items() if np.isfinite(value)}
    nulls = lambda xs: [None if np.isnan(x) else float(x) for x in xs]
    return {"name": name, "reference": nulls(reference), "current": nulls(current), "expected": expected}


def categories(name, reference, current):
    ra, rb = pd.Series(reference), pd.Series(current)
    cat = ColumnType.Categorical
    keys = sorted(set(reference) | set(current))
    table = np.array([[reference.count(k) for k in keys], [current.count(k) for k in keys]])
    fp, fq = (np.maximum(row / row.sum(), 1e-6) for row in table)
    chi = stats.chi2_contingency(table, correction=False)
    expected = {
        "psi": float(np.sum((fq - fp) * np.log(fq / fp))),
        "psi_evidently": float(_psi(ra, rb, cat, 0.1)[0]),
        "js": float(_jensenshannon(ra, rb, cat, 0.1)[0]),
        "kl": float(_kl_div(ra, rb, cat, 0.1)[0]),
        "chi_square": float(chi.statistic),
        "chi_square_p": float(chi.pvalue),
        "chi_square_evidently_p": float(_chi_stat_test(ra, rb, cat, 0.05)[0]),
    }
    return {"name": name, "reference": reference, "current": current, "expected": expected}


def main():
    rng = np.random.default_rng(20260101)
    r = lambda xs: np.round(xs, 3)
    holes = r(rng.normal(10, 2, 700))
    holes[::9] = np.nan
    more_holes = r(rng.normal(10, 2, 300))
    more_holes[::4] = np.nan
    numbers = [
        numeric("normal, no drift", r(rng.normal(0, 1, 900)), r(rng.normal(0, 1, 400))),
        numeric("normal, shifted", r(rng.normal(0, 1, 900)), r(rng.normal(0.4, 1, 300))),
        numeric("lognormal, wider", r(rng.lognormal(3, 0.5, 900)), r(rng.lognormal(3, 0.8, 400))),
        numeric("far from zero", r(1.7e6 + rng.normal(0, 3, 600)), r(1.7e6 + rng.normal(0.5, 3, 300))),
        numeric("half zeros", np.where(rng.random(800) < 0.5, 0, r(rng.exponential(2, 800))), np.where(rng.random(300) < 0.6, 0, r(rng.exponential(2, 300)))),
        numeric("counts", rng.poisson(3, 900), rng.poisson(3.3, 400)),
        numeric("many counts", rng.poisson(60, 900), rng.poisson(63, 400)),
        numeric("binary", rng.random(900) < 0.3, rng.random(400) < 0.35),
        numeric("with holes", holes, more_holes),
        numeric("apart", r(rng.normal(0, 1, 300)), r(rng.normal(50, 1, 200))),
        numeric("constant", np.full(300, 5.0), np.concatenate([np.full(150, 5.0), np.full(50, 6.0)])),
    ]
    pick = lambda n, names, p: [str(x) for x in rng.choice(names, n, p=p)]
    texts = [
        categories("three", pick(900, ["a", "b", "c"], [0.5, 0.3, 0.2]), pick(400, ["a", "b", "c"], [0.45, 0.3, 0.25])),
        categories("a new one", pick(900, ["a", "b"], [0.7, 0.3]), pick(400, ["a", "b", "z"], [0.6, 0.3, 0.1])),
        categories("one gone", pick(900, ["a", "b", "c"], [0.7, 0.28, 0.02]), pick(100, ["a", "b"], [0.7, 0.3])),
    ]
    ks = [[int(n), float(d), float(stats.kstwo.sf(d, n))]
          for n in [1, 2, 5, 17, 60, 140, 141, 500, 3000, 40000, 1000000]
          for d in np.array([0.3, 0.6, 0.9, 1.2, 1.5, 2.0, 3.0]) / np.sqrt(n) if 0 < d < 1]
    chi = [[x, k, float(stats.chi2.sf(x, k))] for k in [1, 2, 9, 40, 300] for x in [0.1, 1.0, 5.0, 20.0, 90.0, 400.0]]
    chi_isf = [[t, k, float(stats.chi2.isf(t, k))] for k in [1, 2, 9, 40, 300] for t in [0.5, 0.05, 0.01, 1e-4]]
    normal = [[t, float(stats.norm.isf(t))] for t in [0.4, 0.05, 0.005, 1e-6]]
    fisher = [[c, o, n, m, float(stats.hypergeom.sf(c - 1, n + m, c + o, n))]
              for c, o, n, m in [(1, 100, 100, 100000), (5, 0, 200, 1000), (30, 200, 1000, 10000), (0, 3, 50, 50), (800, 7000, 10000, 100000)]]
    json.dump({
        "made_by": "tests/python/make_drift_golden.py",
        "versions": {"evidently": evidently.__version__, "scipy": scipy.__version__, "numpy": np.__version__, "pandas": pd.__version__},
        "numeric": numbers, "categories": texts, "kolmogorov": ks, "chi_square": chi, "chi_square_inverse": chi_isf,
        "normal_inverse": normal, "fisher": fisher,
    }, sys.stdout, separators=(",", ":"))
    print()


main()
