"""Computes the features of the card fraud job a second time, in pandas, and compares every value of every row.

    python tests/python/check_card_fraud.py --tidemill target/release/tidemill [--workers N]

Needs numpy, pandas, pyarrow. Counts, extremes and risks must be equal, averages and deviations to 1e-9. Exits 1 at a difference.
"""

import argparse
import pathlib
import sys
import tempfile

import numpy as np
import pandas as pd
from card_fraud_job import read_table, run_job

DAY = 86_400_000_000
WINDOWS = {"1h": DAY // 24, "1d": DAY, "7d": 7 * DAY}
LABEL_DELAY = DAY


def customer(rows: pd.DataFrame) -> pd.DataFrame:
    """Windows (t - w, t] of the customer's own payments, the row included, later ones of the same time not."""
    ordered = rows.sort_values(["customer_id", "event_time", "tx_id"])
    amounts = ordered.set_index("event_time").groupby("customer_id", sort=False)["amount"]
    week = amounts.rolling("7D")
    out = {f"nb_tx_{name}": amounts.rolling(f"{width // 1_000_000}s").count() for name, width in WINDOWS.items()}
    out |= {"avg_amount_1d": amounts.rolling("1D").mean(), "avg_amount_7d": week.mean()}
    # A window of one row deviates by nothing; pandas' running sums say so only nearly.
    out |= {"std_amount_7d": week.std(ddof=0).fillna(0.0), "max_amount_7d": week.max()}
    frame = pd.DataFrame({f"customer__{k}": v.to_numpy() for k, v in out.items()}, index=ordered.index).reindex(rows.index)
    frame["customer__night"] = (rows["event_time"].dt.hour <= 6).astype(float)
    frame["customer__weekend"] = (rows["event_time"].dt.day_of_week >= 5).astype(float)
    frame["customer__amount_ratio"] = rows["amount"] / frame["customer__avg_amount_7d"]
    return frame


def terminal(rows: pd.DataFrame) -> pd.DataFrame:
    """Windows (t - delay - w, t - delay] of the terminal's payments, whose labels are all known by t."""
    time = rows["event_time"].astype("datetime64[us, UTC]").astype("int64").to_numpy()
    fraud = rows["is_fraud"].to_numpy()
    out = {f"terminal__{name}_{window}": np.zeros(len(rows)) for window in ["1d", "7d"] for name in ["nb_tx", "risk"]}
    for group in rows.groupby("terminal_id", sort=False).indices.values():
        times, frauds = time[group], np.concatenate([[0], np.cumsum(fraud[group])])
        end = np.searchsorted(times, times - LABEL_DELAY, side="right")
        for window in ["1d", "7d"]:
            begin = np.searchsorted(times, times - LABEL_DELAY - WINDOWS[window], side="right")
            count = end - begin
            out[f"terminal__nb_tx_{window}"][group] = count
            out[f"terminal__risk_{window}"][group] = (frauds[end] - frauds[begin]) / np.maximum(count, 1)
    return pd.DataFrame(out, index=rows.index)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidemill", required=True)
    parser.add_argument("--workers", default="1")
    parser.add_argument("--seed", type=int, default=101)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        lake = run_job(options.tidemill, options.seed, pathlib.Path(directory), "--workers", options.workers)
        rows = read_table(lake / "feature_sets" / "fraud_inputs")
        known = read_table(lake / "feature_sets" / "known")[["tx_id", "is_fraud"]]
    rows = rows.merge(known, on="tx_id", validate="one_to_one").sort_values("tx_id", ignore_index=True)
    expected = pd.concat([customer(rows), terminal(rows)], axis=1)
    named = {c for c in rows.columns if c.startswith(("customer__", "terminal__"))}
    assert named == set(expected.columns), f"the job's features have changed: {named ^ set(expected.columns)}"
    worst = 0
    for column in expected:
        rounded = "avg" in column or "std" in column or "ratio" in column
        off = (rows[column].astype(float) - expected[column]).abs()
        wrong = int((~(off <= (1e-9 if rounded else 0.0))).sum())
        worst = max(worst, wrong)
        print(f"{column:26} off by {off.max():.1e} at most, {wrong} rows wrong")
    print(f"{len(rows)} rows: {'equal' if worst == 0 else 'DIFFERENT'}")
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
