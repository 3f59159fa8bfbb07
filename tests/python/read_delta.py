"""Reads a Delta table with every Python reader that analysts use and checks that they agree.

usage: read_delta.py TABLE EXPECTED.json

EXPECTED.json: {"rows": n, "columns": [...], "sums": {"column": sum}, "nulls": {"column": n}, "dates": {"YYYY-MM-DD": n}}
Sums are compared to a relative 1e-12. Exits 1 with what differs.
"""

import json
import sys

import pandas
import polars
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet
from deltalake import DeltaTable


def profile_arrow(table):
    return {
        "rows": table.num_rows,
        "columns": sorted(table.column_names),
        "sums": lambda name: pc.sum(table[name]).as_py() or 0,
        "nulls": lambda name: table[name].null_count,
        "dates": {str(d["values"]): d["counts"] for d in pc.value_counts(table["event_date"]).to_pylist()},
    }


def profile_pandas(frame):
    return {
        "rows": len(frame),
        "columns": sorted(frame.columns),
        "sums": lambda name: frame[name].sum(),
        "nulls": lambda name: int(frame[name].isna().sum()),
        "dates": {str(d)[:10]: int(n) for d, n in frame["event_date"].value_counts().items()},
    }


def profile_polars(frame):
    counts = frame["event_date"].value_counts()
    return {
        "rows": frame.height,
        "columns": sorted(frame.columns),
        "sums": lambda name: frame[name].sum() or 0,
        "nulls": lambda name: frame[name].null_count(),
        "dates": {str(d)[:10]: n for d, n in counts.iter_rows()},
    }


def main(path, expected_path):
    with open(expected_path) as file:
        expected = json.load(file)
    delta = DeltaTable(path)
    files = delta.file_uris()
    hive = pyarrow.dataset.partitioning(pyarrow.schema([("event_date", pyarrow.date32())]), flavor="hive")
    readers = {
        "deltalake, arrow": lambda: profile_arrow(pyarrow.table(delta.to_pyarrow_table())),
        "deltalake, pandas": lambda: profile_pandas(delta.to_pandas()),
        "polars, delta": lambda: profile_polars(polars.read_delta(path)),
        "pyarrow over the log's files": lambda: profile_arrow(
            pyarrow.dataset.dataset(files, partitioning=hive, partition_base_dir=path).to_table()
        ),
        "pyarrow over a glob": lambda: profile_arrow(
            pyarrow.dataset.dataset(path, partitioning=hive, exclude_invalid_files=True).to_table()
        ),
        "pandas, one file at a time": lambda: profile_pandas(
            pandas.concat(
                pandas.read_parquet(f, partitioning=None).assign(event_date=f.split("event_date=")[1][:10]) for f in files
            )
        ),
        "polars over the log's files": lambda: profile_polars(polars.read_parquet(files, hive_partitioning=True)),
    }
    faults = []
    for name, read in readers.items():
        found = read()
        for key in ("rows", "dates"):
            if found[key] != expected[key]:
                faults.append(f"{name}: {key}: {found[key]} instead of {expected[key]}")
        if found["columns"] != sorted(expected["columns"]):
            faults.append(f"{name}: columns: {found['columns']} instead of {sorted(expected['columns'])}")
            continue
        for column, wanted in expected["sums"].items():
            if abs(found["sums"](column) - wanted) > 1e-12 * max(1.0, abs(wanted)):
                faults.append(f"{name}: sum of {column}: {found['sums'](column)!r} instead of {wanted!r}")
        for column, wanted in expected["nulls"].items():
            if found["nulls"](column) != wanted:
                faults.append(f"{name}: nulls of {column}: {found['nulls'](column)} instead of {wanted}")
        print(f"{name}: {found['rows']} rows")

    skipped = delta.to_pyarrow_dataset().count_rows(filter=pc.field("event_date") == delta_first_date(expected))
    if skipped != min(expected["dates"].items())[1]:
        faults.append(f"rows of the first date by partition pruning: {skipped}")
    transactions = delta.transaction_version(expected["application"])
    if transactions != expected["epoch"]:
        faults.append(f"transaction id: {transactions} instead of {expected['epoch']}")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def delta_first_date(expected):
    import datetime

    return datetime.date.fromisoformat(min(expected["dates"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
