"""Writes tests/golden/rollout/statistics.json: what SciPy, statsmodels and plain numerical integration make of the statistics of rollouts.

    python -m venv venv && venv/bin/pip install numpy scipy statsmodels
    venv/bin/python tests/python/make_rollout_golden.py > tests/golden/rollout/statistics.json

Nothing here is taken from the formulas in src/rollout/stat: the mixture likelihood ratio is integrated over its prior, the interval
is found by bisection of that ratio, the sequence is tuned by minimising that interval. The tests read the file alone.
"""

import json

import numpy as np
import scipy
import statsmodels
import statsmodels.api as sm
from scipy import integrate, optimize, special, stats
from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail


def likelihood_ratio(z, x):
    """Of a z-value against 0, its mean drawn from a normal distribution of variance `x`."""
    width = np.sqrt(x)
    f = lambda m: np.exp(stats.norm.logpdf(z, m) - stats.norm.logpdf(z) + stats.norm.logpdf(m, 0, width))
    peak = z * x / (1 + x)
    near = np.sqrt(x / (1 + x))
    return integrate.quad(f, peak - 12 * near, peak + 12 * near, epsabs=0, epsrel=1e-11, limit=400)[0]


def reach(x, alpha):
    """The z-value at which the ratio is 1 / alpha."""
    return optimize.brentq(lambda z: np.log(likelihood_ratio(z, x)) + np.log(alpha), 0.0, 60.0, xtol=1e-11)


def sequences():
    for alpha in (0.2, 0.05, 0.01, 0.001):
        best = optimize.minimize_scalar(lambda log_x: reach(np.exp(log_x), alpha), bounds=(0.0, 5.0), method="bounded", options={"xatol": 1e-9})
        x = float(np.exp(best.x))
        for factor in (0.01, 0.3, 1.0, 7.0, 300.0):
            z = [0.0, 1.3, 2.5, 4.0]
            yield {
                "alpha": alpha,
                "tuned": 1000.0,
                "rows": 1000.0 * factor,
                "reach": reach(x * factor, alpha),
                "z": z,
                "p": [min(1.0, 1.0 / likelihood_ratio(v, x * factor)) for v in z],
            }


def sample(rng, rows, kind):
    if kind == "rate":
        return (rng.random(rows) < 0.2).astype(float)
    if kind == "skewed":
        return rng.lognormal(-2.0, 1.5, rows)
    return rng.normal(1e6, 1.0, rows)


def variance_of_mean(values, groups):
    if groups is None:
        return float(np.var(values, ddof=1) / len(values))
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return float(fit.cov_params()[0, 0] * (len(values) - 1) / len(values)) * len(values) / (len(values) - 1)


def differences():
    rng = np.random.default_rng(20260101)
    for kind in ("rate", "skewed", "level"):
        for grouped in (False, True):
            strata, weights, lifts, errors = [], [], [], []
            for n, m in ((60, 25), (40, 40), (5, 17)):
                a, b = sample(rng, n, kind), sample(rng, m, kind)
                ga, gb = (rng.integers(0, 4, n), rng.integers(4, 9, m)) if grouped else (None, None)
                va, vb = variance_of_mean(a, ga), variance_of_mean(b, gb)
                # The variance of a row of the smaller sample is at least that of the larger.
                if n < m:
                    va = max(va, vb * m / n)
                else:
                    vb = max(vb, va * n / m)
                weights.append(n * m / (n + m))
                lifts.append(np.mean(b) - np.mean(a))
                errors.append(va + vb)
                plain = lambda values: None if values is None else values.tolist()
                strata.append({"champion": a.tolist(), "challenger": b.tolist(), "groups": [plain(ga), plain(gb)]})
            w = np.array(weights)
            lift = float(np.dot(w, lifts) / w.sum())
            error = float(np.sqrt(np.dot(w**2, errors)) / w.sum())
            yield {
                "strata": strata,
                "lift": lift,
                "error": error,
                "information": float(w.sum()),
                "fixed_p": float(2 * stats.norm.sf(abs(lift) / error)),
            }


def pairs():
    rng = np.random.default_rng(7)
    for kind in ("skewed", "level"):
        a = sample(rng, 80, kind)
        b = a + rng.normal(0.05, 0.2, 80)
        yield {
            "champion": a.tolist(),
            "challenger": b.tolist(),
            "lift": float(np.mean(b - a)),
            "error": float(stats.sem(b - a)),
        }


def ratios():
    for counts in ([0, 0], [950, 50], [900, 100], [90_000, 5_500], [10, 0], [0, 3], [9_500_000, 499_000]):
        for share in (0.05, 0.5):
            prior = 1000.0 * np.array([1 - share, share])
            log = special.betaln(*(prior + counts)) - special.betaln(*prior) - np.dot(counts, np.log([1 - share, share]))
            yield {"counts": counts, "share": share, "concentration": 1000.0, "evidence": float(log)}


def sizes():
    for baseline, effect, alpha, power in ((0.05, 0.01, 0.05, 0.8), (0.05, -0.005, 0.05, 0.9), (0.3, 0.03, 0.01, 0.8), (0.01, 0.002, 0.1, 0.5)):
        # statsmodels' one-tailed size at half the level; its ratio is the second sample's.
        low, high = sorted((baseline, baseline + effect))
        arm = samplesize_proportions_2indep_onetail(high - low, low, power, ratio=1, alpha=alpha / 2, value=0, alternative="larger")
        yield {"baseline": baseline, "effect": effect, "alpha": alpha, "power": power, "rows_per_arm": float(arm)}


if __name__ == "__main__":
    made = f"NumPy {np.__version__}, SciPy {scipy.__version__}, statsmodels {statsmodels.__version__}"
    parts = (("sequences", sequences), ("differences", differences), ("pairs", pairs), ("ratios", ratios), ("sizes", sizes))
    print(json.dumps({"made_with": made, **{name: list(make()) for name, make in parts}}, indent=None, separators=(",", ":")))
