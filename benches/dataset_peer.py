"""DuckDB's ASOF join of the rows of `tidemill bench dataset`, beside its own figures.

    python benches/dataset_peer.py --tidemill target/release/tidemill      # needs duckdb

Both read the same Parquet files, join each of 200,000 entities with the newest of 5,000,000 rows of features at or before
its time, and write the sorted rows as zstd Parquet; each run is a process of its own, whose time and peak of memory are told.
The rows must be the same.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

try:
    import duckdb
except ImportError as error:
    print(f"skipped: {error} (pip install duckdb)")
    sys.exit(0)

JOIN = """
COPY (
  SELECT e.*, {columns}
  FROM read_parquet('{folder}/entities.parquet') e
  ASOF LEFT JOIN read_parquet('{folder}/lake/features/customer/event_date=*/*.parquet') f
  ON e.customer_id = f.customer_id AND e."at" >= f.event_time
  ORDER BY e."at", e."row"
) TO '{folder}/duckdb.parquet' (FORMAT parquet, COMPRESSION zstd)
"""


def join(folder, threads):
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET TimeZone = 'UTC'")
    columns = ", ".join(f"f.f{index} AS customer__f{index}" for index in range(10))
    started = time.perf_counter()
    connection.execute(JOIN.format(folder=folder, columns=columns))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def run(command):
    def processor():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = processor()
    figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    figures["cpu_seconds"] = processor() - before
    return figures


def median(runs, key):
    return sorted(run[key] for run in runs)[len(runs) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tidemill", default=os.environ.get("TIDEMILL", "target/release/tidemill"))
    parser.add_argument("--seconds", type=float, default=2.0, help="below 1: few rows, to see that it runs")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of DuckDB; tidemill takes all there are")
    parser.add_argument("--join", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.join:
        return join(arguments.join, arguments.threads)
    rows = [] if arguments.seconds >= 1 else ["--labels", "2000", "--features", "50000"]
    with tempfile.TemporaryDirectory() as folder:
        made = run([arguments.tidemill, "bench", "dataset", "--runs", "1", "--keep", folder, "--json", *rows])
        assert made["same_results"], "tidemill and its hand-written twin differ"
        ours, theirs = [], []
        for _ in range(max(arguments.turns, 1)):
            ours.append(run([arguments.tidemill, "bench", "dataset", "--json", "--only", folder]))
            theirs.append(run([sys.executable, __file__, "--join", folder, "--threads", str(arguments.threads)]))
        sides = [f"SELECT * FROM read_parquet('{folder}/{name}.parquet')" for name in ["set", "duckdb"]]
        differing = [duckdb.sql(f"SELECT count(*) FROM (({a}) EXCEPT ALL ({b}))").fetchall()[0][0] for a, b in [sides, sides[::-1]]]
        assert differing == [0, 0], f"rows that differ: {differing}"
    print(f"{made['labels']:,} entities, {made['features']:,} rows of features in {made['files']:,} files: the same rows")
    for name, side in [("tidemill", ours), (f"DuckDB {duckdb.__version__}, {arguments.threads} threads", theirs)]:
        seconds, cpu, peak = median(side, "seconds"), median(side, "cpu_seconds"), max(run["peak_bytes"] for run in side)
        print(f"{name}: {seconds:.2f} s, {cpu:.2f} s of processors (with the process's start), peak {peak / 1e6:.0f} MB")
    seconds = median(ours, "seconds") / median(theirs, "seconds")
    peak = max(run["peak_bytes"] for run in ours) / max(run["peak_bytes"] for run in theirs)
    print(f"tidemill: {seconds:.2f} x the time, {peak:.2f} x the memory of DuckDB")


main()
