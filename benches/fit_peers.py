"""scikit-learn's HistGradientBoosting and LightGBM on the rows of `tidemill bench fit`, beside its own boosted trees.

    python benches/fit_peers.py --tidemill target/release/tidemill                # needs scikit-learn, lightgbm, pyarrow
    python benches/fit_peers.py --fraud data/fraud/transactions.parquet           # also the fraud handbook's week

Everyone fits 100 trees of 31 leaves at rate 0.1 with 255 bins on one thread, in turn; processor seconds, the best of the turns. Memory is what
a fit takes at its peak beyond the rows that are held already.
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
    import lightgbm
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import average_precision_score, roc_auc_score
except ImportError as error:
    print(f"skipped: {error} (pip install scikit-learn lightgbm pyarrow)")
    sys.exit(0)

warnings.filterwarnings("ignore")
DAY = 86_400


def status(name):
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
    except OSError:
        return 0


def forget_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def handbook(path, folder, first=115):
    """The fraud handbook's baseline: the week from 2018-07-25 and the test week two weeks later, without the cards known by then."""
    names = ["TX_TIME_SECONDS", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD"]
    table = pq.read_table(path, columns=names)
    seconds, customer, terminal, amount, fraud = (table[name].to_numpy() for name in names)
    seconds, fraud, day = seconds.astype(np.int64), fraud.astype(np.int64), seconds // DAY
    cents = np.round(amount * 100)
    columns = [amount, np.isin(day % 7, [0, 6]), seconds % DAY < 7 * 3600]
    for key, summed, delay in [(customer, cents, 0), (terminal, fraud, 7)]:
        order = np.argsort(key, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
        for days in [1, 7, 30]:
            count, total = np.zeros(len(key)), np.zeros(len(key))
            for rows in groups:
                times, sums = seconds[rows], np.concatenate([[0], np.cumsum(summed[rows])])
                # Of equal times a card sees the rows before it, a terminal's known labels all.
                end = np.arange(1, len(rows) + 1) if delay == 0 else np.searchsorted(times, times - delay * DAY, "right")
                start = np.searchsorted(times, times - (delay + days) * DAY, "right")
                count[rows], total[rows] = end - start, sums[end] - sums[start]
            mean = np.divide(total, count, out=np.zeros(len(key)), where=count > 0)
            columns += [count, mean / 100 if delay == 0 else mean]
    train = (day >= first) & (day < first + 7)
    test = np.zeros(len(day), bool)
    for k in range(7):
        known = np.unique(customer[(fraud == 1) & (day >= first) & (day <= first + 6 + k)])
        test |= (day == first + 14 + k) & ~np.isin(customer, known)
    for name, rows in [("train", train), ("test", test)]:
        arrays = {f"f{index}": np.asarray(column)[rows].astype(np.float32) for index, column in enumerate(columns)}
        pq.write_table(pa.table({**arrays, "label": fraud[rows].astype(np.float32)}), os.path.join(folder, f"{name}.parquet"))


def read(folder, name):
    table = pq.read_table(os.path.join(folder, f"{name}.parquet"))
    columns = [table[c].to_numpy(zero_copy_only=False).astype(np.float32) for c in table.column_names if c != "label"]
    return np.ascontiguousarray(np.stack(columns, axis=1)), table["label"].to_numpy()


def compare(what, tidemill, folder, turns):
    (x, y), (x_test, y_test) = read(folder, "train"), read(folder, "test")
    ours = "tidemill gbdt"
    peers = {
        "LightGBM": lambda: lightgbm.LGBMClassifier(n_estimators=100, learning_rate=0.1, num_leaves=31, max_bin=255, n_jobs=1, verbose=-1),
        "HistGradientBoosting": lambda: HistGradientBoostingClassifier(
            max_iter=100, learning_rate=0.1, max_leaf_nodes=31, max_bins=255, early_stopping=False
        ),
    }
    figures = {}
    def best(name, seconds, predict, **others):
        held = figures.setdefault(name, {"seconds": seconds, "predict": predict, **others})
        held["seconds"], held["predict"] = min(held["seconds"], seconds), min(held["predict"], predict)
    for _ in range(turns):
        command = [tidemill, "bench", "fit", "--input", folder, "--runs", "1", "--threads", "1", "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        fit = report["fits"][0]
        best(ours, fit["cpu_seconds"], report["predict_us_per_row"], auc=report["auc"], ap=report["average_precision"], peak=report["peak_bytes"] or 0)
        for name, make in peers.items():
            forget_peak()
            held, started = status("VmRSS"), time.process_time()
            model = make().fit(x, y)
            fitted = time.process_time()
            peak = status("VmHWM") - held
            told = model.predict_proba(x_test)[:, 1]
            predicted = (time.process_time() - fitted) / len(y_test) * 1e6
            best(name, fitted - started, predicted, auc=roc_auc_score(y_test, told), ap=average_precision_score(y_test, told), peak=peak)
    command = [tidemill, "bench", "fit", "--input", folder, "--runs", str(turns), "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(f"{what}: {len(y):,} rows of {x.shape[1]} columns, tested on {len(y_test):,}; one thread")
    for name, f in figures.items():
        ratio = figures[ours]["seconds"] / f["seconds"]
        print(
            f"  {name:<22} {f['seconds']:7.3f} s  AUC {f['auc']:.4f}  AP {f['ap']:.4f}  predict {f['predict']:5.2f} µs/row"
            f"  peak {f['peak'] / 1e6:6.0f} MB  tidemill / it {ratio:.2f}"
        )
    one, two = (fit["seconds"] for fit in report["fits"])
    print(f"  tidemill on 1 and 2 threads: {one:.3f} s and {two:.3f} s of the clock = {one / two:.2f} x; the same model: {report['same_model']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tidemill", default=os.environ.get("TIDEMILL", "target/release/tidemill"))
    parser.add_argument("--seconds", type=float, default=2.0, help="below 1: few rows, to see that it runs")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--fraud", metavar="transactions.parquet", help="the handbook's transactions")
    arguments = parser.parse_args()
    rows = "500000" if arguments.seconds >= 1 else "5000"
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.tidemill, "bench", "fit", "--rows", rows, "--runs", "1", "--threads", "1", "--learner", '{"gbdt": {"trees": 1}}', "--keep", folder, "--json"]
        subprocess.run(command, check=True, capture_output=True)
        compare("made-up rows", arguments.tidemill, folder, arguments.turns)
    if arguments.fraud:
        with tempfile.TemporaryDirectory() as folder:
            handbook(arguments.fraud, folder)
            compare("the handbook's week", arguments.tidemill, folder, arguments.turns)


main()
