"""Errors per second through the change detectors of River and of Tidemill, on one thread, in one session.

    pip install river
    python benches/river_detectors.py [--tidemill target/release/tidemill] [--seconds 2] [--turns 5] [--json]

Tidemill makes the stream and leaves it in a file (`bench detectors --keep FILE`), and River is given the same. The two take turns, so that a machine
that slows down slows down both. They must find as many changes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

try:
    import river
    from river import drift
except ImportError:
    print("skipped: River is not installed (pip install river)")
    sys.exit(0)


def tidemill(binary, errors, keep):
    done = subprocess.run([binary, "bench", "detectors", "--errors", str(errors), "--keep", keep, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{binary} bench detectors: {done.stderr.strip()}")
    return {line["detector"]: line for line in json.loads(done.stdout)["lines"]}


def run(detector, errors):
    changes, start = 0, time.perf_counter()
    for error in errors:
        detector.update(error)
        changes += detector.drift_detected
    return len(errors) / (time.perf_counter() - start), changes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tidemill", default=os.environ.get("TIDEMILL", "target/release/tidemill"))
    parser.add_argument("--seconds", type=float, default=2.0, help="about as long for each detector of River")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    errors = max(20_000, int(options.seconds * 500_000))
    makers = {"adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley, "ddm": drift.binary.DDM}
    rates = {name: ([], []) for name in makers}
    with tempfile.TemporaryDirectory() as folder:
        keep = os.path.join(folder, "errors")
        for _ in range(options.turns):
            ours = tidemill(options.tidemill, errors, keep)
            with open(keep, "rb") as file:
                bits = list(file.read())
            for name, make in makers.items():
                rate, changes = run(make(), bits)
                if changes != ours[name]["changes"]:
                    sys.exit(f"{name}: River finds {changes} changes, Tidemill {ours[name]['changes']}")
                rates[name][0].append(ours[name]["errors_per_second"])
                rates[name][1].append(rate)
    report = {"river": river.__version__, "errors": errors, "detectors": {}}
    for name, (ours, theirs) in rates.items():
        ratio = statistics.median(a / b for a, b in zip(ours, theirs))
        report["detectors"][name] = {"tidemill": statistics.median(ours), "river": statistics.median(theirs), "ratio": ratio}
    if options.json:
        print(json.dumps(report))
        return
    print(f"River {river.__version__}, {errors} errors, medians of {options.turns} turns")
    for name, figures in report["detectors"].items():
        print(f"  {name:<14} Tidemill {figures['tidemill'] / 1e6:8.2f} M errors/s, River {figures['river'] / 1e6:6.2f} M, ratio {figures['ratio']:.1f}")


main()
