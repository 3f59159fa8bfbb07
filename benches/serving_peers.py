"""Runs `tidemill bench serving` beside Feast's own Python server, on one Redis and in one run.

serving_peers.py --redis HOST:PORT [--tidemill PATH] [--entities N] [--seconds S] [--connections N] [--turns N] [--json]

Feast's server gets a view of the same name with the same entities, features and values, written by Feast itself; it runs
with one worker, as `feast serve` does. Needs: feast[redis] 0.67.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

try:
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64
except ImportError as error:
    print(f"skipped: {error} (pip install 'feast[redis]==0.67.0')")
    sys.exit(0)

COLUMNS = 20


def repository(folder: Path, redis: str, entities: int) -> FeatureStore:
    (folder / "feature_store.yaml").write_text(
        f"project: tidemill_bench_{os.getpid()}\nregistry: {folder}/registry.db\nprovider: local\n"
        f"online_store:\n  type: redis\n  connection_string: {redis}\nentity_key_serialization_version: 3\n"
    )
    store = FeatureStore(repo_path=str(folder))
    customer = Entity(name="customer_id", join_keys=["customer_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="customer",
        entities=[customer],
        schema=[Field(name=f"s_{n + 1}d", dtype=Float64) for n in range(COLUMNS)],
        source=FileSource(path=str(folder / "none.parquet"), timestamp_field="event_timestamp"),
        ttl=timedelta(days=365),
    )
    store.apply([customer, view])
    rows = {"customer_id": range(entities), "event_timestamp": [datetime.now(timezone.utc)] * entities}
    rows |= {f"s_{n + 1}d": [(id * 7 + n) / 3 for id in range(entities)] for n in range(COLUMNS)}
    store.write_to_online_store("customer", pd.DataFrame(rows))
    return store


def serve(folder: Path) -> tuple[subprocess.Popen, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    feast = Path(sys.executable).with_name("feast")
    command = [feast, "-c", folder, "serve", "-h", "127.0.0.1", "-p", str(port), "--no-access-log", "-w", "1"]
    # By default it ends the worker, and all connections with it, after some thousand requests.
    command += ["--max-requests", "1000000000"]
    log = open(folder / "server.log", "w")
    server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            return server, url
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
    sys.exit(f"Feast's server does not start: {(folder / 'server.log').read_text()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", required=True, help="host:port, without a password")
    parser.add_argument("--tidemill", default="target/release/tidemill")
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = repository(Path(folder), options.redis, options.entities)
        server, url = serve(Path(folder))
        try:
            command = [options.tidemill, "bench", "serving", "--redis", f"redis://{options.redis}"]
            command += ["--entities", str(options.entities), "--seconds", str(options.seconds)]
            command += ["--connections", str(options.connections), "--peer", url, "--peer-pid", str(server.pid)]
            command += ["--json"] if options.json else []
            turns = [subprocess.run(command, stdout=subprocess.PIPE, text=True) for _ in range(options.turns)]
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
            store.teardown()
    for figures in turns:
        print(json.dumps(json.loads(figures.stdout)) if options.json and figures.returncode == 0 else figures.stdout)
    sys.exit(max(figures.returncode for figures in turns))


if __name__ == "__main__":
    main()
