"""Runs dataflows/card_fraud.yaml without its model and reads what it left behind: shared by the scripts beside this file."""

import pathlib
import subprocess

import pandas as pd
import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run_job(tidemill: str, seed: int, directory: pathlib.Path, *arguments: str) -> pathlib.Path:
    """Computes the features of 24 days of one world as fast as it goes; returns the directory of the job's tables.

    Labels arrive as a feature set of their own, `feature_sets/known`: the model, to which labels belong, is left out because it
    may not have been made yet.
    """
    text, model = (ROOT / "dataflows" / "card_fraud.yaml").read_text().split("\nmodels:\n")
    assert "\nlabels:\n" in model and text.count("\nfeature_sets:\n") == 1, "card_fraud.yaml has another shape now"
    known = "\nfeature_sets:\n  known: {on: fraud_labels, take: [tx_id, is_fraud]}\n"
    file = directory / f"card_fraud_{seed}.yaml"
    file.write_text(text.replace("\nfeature_sets:\n", known) + "\n")
    lake = directory / f"lake_{seed}"
    sets = {"sinks.offline.delta.uri": lake, "sinks.online.embedded.path": directory / f"online_{seed}"}
    for source in ["tx", "fraud_labels"]:
        generator = f"sources.{source}.generator"
        sets |= {f"{generator}.seed": seed, f"{generator}.duration": "24d", f"{generator}.rate": "max"}
    command = [tidemill, "run", str(file), "--until-end", *arguments]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return lake


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """A table that one run has written: no file of it is compacted or orphaned, so a plain read is exact."""
    files = sorted(path.rglob("*.parquet"))
    return pd.concat([pq.ParquetFile(f).read().to_pandas() for f in files], ignore_index=True)
