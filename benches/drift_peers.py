"""Evidently and SciPy on the rows of `tidemill bench drift`, beside its own figures.

    python benches/drift_peers.py --tidemill target/release/tidemill      # needs evidently, scipy, pandas < 3, pyarrow

All run on one thread, and all times are of the processor. Tidemill's time is of all statistics (PSI by both definitions, KS with its p-value, chi-square,
Jensen-Shannon, Wasserstein, shift, missing values) for all columns; a peer's is of what is named. "window" leaves out what is
done once for a reference, which the peers do again each time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ[name] = "1"

try:
    import numpy as np
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset
    from scipy import stats
    from scipy.spatial import distance
except ImportError as error:
    print(f"skipped: {error} (pip install evidently scipy 'pandas<3' pyarrow)")
    sys.exit(0)

warnings.filterwarnings("ignore")


def timed(run, runs=3):
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        result = run()
        seconds.append(time.process_time() - started)
    return sorted(seconds)[len(seconds) // 2], result


def evidently_preset(reference, current, method):
    definition = DataDefinition(numerical_columns=list(reference.columns))
    def run():
        report = Report([DataDriftPreset(num_method=method)])
        a = Dataset.from_pandas(current, data_definition=definition)
        b = Dataset.from_pandas(reference, data_definition=definition)
        return report.run(a, b)
    return timed(run, 1)[0]


def scipy_all(reference, current):
    found = {}
    for name in reference.columns:
        a, b = reference[name].dropna().to_numpy(), current[name].dropna().to_numpy()
        edges = np.unique(np.quantile(a, np.linspace(0, 1, 11)))[1:-1]
        p = np.bincount(np.searchsorted(edges, a), minlength=len(edges) + 1) / len(a)
        q = np.bincount(np.searchsorted(edges, b), minlength=len(edges) + 1) / len(b)
        p1, q1 = np.maximum(p, 1e-6), np.maximum(q, 1e-6)
        ks = stats.ks_2samp(a, b, method="asymp")
        found[name] = {
            "psi": float(np.sum((q1 - p1) * np.log(q1 / p1))),
            "ks": float(ks.statistic),
            "ks_p": float(ks.pvalue),
            "js": float(distance.jensenshannon(p, q)),
            "wasserstein": float(stats.wasserstein_distance(a, b) / max(a.std(), 0.001)),
            "shift_sd": float((b.mean() - a.mean()) / a.std()),
        }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tidemill", default=os.environ.get("TIDEMILL", "target/release/tidemill"))
    parser.add_argument("--seconds", type=float, default=2.0, help="below 1: few rows, to see that it runs")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    rows = [] if arguments.seconds >= 1 else ["--rows", "20000", "--reference", "5000"]
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.tidemill, "bench", "drift", "--job-events", "0", "--keep", folder, "--json", *rows]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        reference, current = (pd.read_parquet(os.path.join(folder, f"{name}.parquet")) for name in ["reference", "current"])
    names = list(reference.columns)
    peers = {}
    peers["SciPy and NumPy, psi + ks + js + wasserstein + shift"], theirs = timed(lambda: scipy_all(reference, current), arguments.turns)
    for method, what in [("psi", "psi"), ("ks", "ks"), ("jensenshannon", "js"), ("wasserstein", "wasserstein")]:
        peers[f"Evidently preset, {what}"] = evidently_preset(reference, current, method)
    worst = {}
    for column, metric, value in ours["values"]:
        if metric in theirs[names[column]]:
            gap = abs(value - theirs[names[column]][metric])
            worst[metric] = max(worst.get(metric, 0.0), gap)
    total, window = ours["total_seconds"], ours["window_seconds"]
    print(f"tidemill, all statistics: {total:.3f} s with the reference, {window:.3f} s a window")
    for name, seconds in peers.items():
        print(f"{name}: {seconds:.2f} s = {seconds / total:.0f} x, {seconds / window:.0f} x a window")
    print("largest differences from SciPy:", {name: float(f"{gap:.2g}") for name, gap in worst.items()})


main()
