"""Rows per second of onnxruntime and of Tidemill on the models of `tidemill bench score`, on one thread, in one session.

    pip install onnxruntime pyarrow numpy
    python benches/onnxruntime_scores.py [--tidemill target/release/tidemill] [--seconds 2] [--json]

Tidemill leaves its models and rows in a folder (`bench score --keep DIR`) and times itself; onnxruntime is then given the same files. The two take turns,
so that a machine that slows down slows down both. Scores must agree to 1e-6.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq

OUTPUT = {"trees": ("probabilities", 1), "mlp": ("score", 0), "logistic": ("score", 0)}


def tidemill(binary, arguments):
    done = subprocess.run([binary, "bench", "score", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{binary} bench score {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def rate(sess, output, batches, seconds):
    """Rows per second over calls on one batch after the other."""
    size = len(batches[0])
    calls = max(1, 256 // size)
    done, start = 0, time.perf_counter()
    while True:
        for _ in range(calls):
            sess.run([output], {"X": batches[done % len(batches)]})
            done += 1
        spent = time.perf_counter() - start
        if spent >= seconds:
            return done * size / spent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tidemill", default=os.environ.get("TIDEMILL", "target/release/tidemill"))
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each model and batch size, on either side")
    parser.add_argument("--turns", type=int, default=3, help="turns that the two take; the figures are medians")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        tidemill(args.tidemill, ["--seconds", "0.01", "--keep", folder, "--json"])
        rows = pq.read_table(os.path.join(folder, "rows.parquet"))
        x = np.ascontiguousarray(np.stack([c.to_numpy() for c in rows.columns], axis=1))
        sessions, apart = {}, {}
        for name, (output, element) in OUTPUT.items():
            model = os.path.join(folder, name + ".onnx")
            sessions[name] = session(model)
            theirs = sessions[name].run([output], {"X": x})[0].reshape(len(x), -1)[:, element]
            scores = os.path.join(folder, "scores.parquet")
            tidemill(args.tidemill, ["--model", model, "--input", os.path.join(folder, "rows.parquet"), "--out", scores])
            table = pq.read_table(scores)
            column = output if output in table.column_names else f"{output}.{element}"
            apart[name] = float(np.abs(table[column].to_numpy() - theirs).max())
            if apart[name] > 1e-6:
                sys.exit(f"{name}: scores differ by {apart[name]:.1e}")

        figures = {}
        for _ in range(args.turns):
            report = json.loads(tidemill(args.tidemill, ["--seconds", str(2 * args.seconds / args.turns), "--json"]))
            for line in report["lines"]:
                name, size = line["model"], line["batch"]
                batches = [np.ascontiguousarray(x[i : i + size]) for i in range(0, len(x) - size + 1, size)]
                theirs = rate(sessions[name], OUTPUT[name][0], batches, args.seconds / args.turns)
                figures.setdefault((name, size), []).append((line["rows_per_second"], theirs))

    lines = []
    for (name, size), turns in figures.items():
        ours, theirs = (statistics.median(t[i] for t in turns) for i in (0, 1))
        ratio = statistics.median(a / b for a, b in turns)
        lines.append({"model": name, "batch": size, "tidemill": ours, "onnxruntime": theirs, "ratio": ratio, "largest_difference": apart[name]})
    if args.json:
        print(json.dumps({"onnxruntime": ort.__version__, "lines": lines}))
        return
    print(f"{'model':<10}{'batch':>7}{'tidemill':>14}{'onnxruntime':>14}{'ratio':>8}   rows/s, one thread, onnxruntime {ort.__version__}")
    for l in lines:
        print(f"{l['model']:<10}{l['batch']:>7}{l['tidemill']:>14.0f}{l['onnxruntime']:>14.0f}{l['ratio']:>8.2f}")


if __name__ == "__main__":
    main()
