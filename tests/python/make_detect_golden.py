"""Makes tests/golden/stats/detect.json: where River's change detectors find changes.

Streams are made by splitmix64, so that the Rust test makes the same ones from their seeds. With the folder of the shared data
as argument the findings on `drift_known` and `elec2` go in too; without, those that the file has stay.

    python tests/python/make_detect_golden.py [../shared/data]
"""

import json
import sys
from pathlib import Path

import river
from river import drift

OUT = Path(__file__).parent.parent / "golden/stats/detect.json"
MASK = (1 << 64) - 1
FADING = 0.999


def fractions(seed):
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield ((z ^ (z >> 31)) >> 11) / (1 << 53)


def stream(case):
    unit = fractions(case["seed"])
    for steps, first, last in case["parts"]:
        for step in range(steps):
            level = first + (last - first) * step / steps
            u = next(unit)
            yield (1.0 if u < level else 0.0) if case["kind"] == "bits" else level + u


def make(name, settings):
    kinds = {"adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley, "ddm": drift.binary.DDM}
    return kinds[name](**settings)


def findings(name, settings, numbers):
    detector = make(name, settings)
    changes, warnings, before = [], [], False
    for at, x in enumerate(numbers):
        detector.update(bool(x) if name == "ddm" else x)
        if detector.drift_detected:
            if name == "adwin":
                kept = [int(detector.width), detector.estimation]
            else:
                mean = detector._x_mean if name == "page_hinkley" else detector._p
                kept = [int(mean.n), mean.get()]
            changes.append([at, *kept])
        if name == "ddm":
            if detector.warning_detected and not before:
                warnings.append(at)
            before = detector.warning_detected
    found = {"detector": name, "settings": settings, "changes": changes}
    return found | ({"warnings": warnings} if name == "ddm" else {})


USUAL = [("adwin", {}), ("page_hinkley", {}), ("ddm", {})]
ODD = [
    ("adwin", {"delta": 0.3, "clock": 1, "max_buckets": 3, "min_window_length": 1, "grace_period": 0}),
    ("adwin", {"delta": 0.05, "clock": 7, "max_buckets": 12, "min_window_length": 20, "grace_period": 100}),
    ("page_hinkley", {"min_instances": 5, "delta": 0.05, "threshold": 8.0, "alpha": 0.99, "mode": "up"}),
    ("page_hinkley", {"threshold": 10.0, "mode": "down"}),
    ("ddm", {"drift_threshold": 2.5}),
]
SHAPES = {
    "stationary": [[6000, 0.2, 0.2]],
    "up": [[3000, 0.2, 0.2], [3000, 0.35, 0.35]],
    "down": [[3000, 0.4, 0.4], [3000, 0.15, 0.15]],
    "gradual": [[2000, 0.1, 0.1], [2000, 0.1, 0.5], [2000, 0.5, 0.5]],
    "many": [[700, 0.1, 0.1], [700, 0.5, 0.5], [700, 0.2, 0.2], [700, 0.9, 0.9], [700, 0.0, 0.0], [700, 1.0, 1.0]],
}


def generated():
    cases = []
    for kind in ["bits", "numbers"]:
        for i, (name, parts) in enumerate(SHAPES.items()):
            for seed in range(1, 4):
                case = {"name": f"{kind} {name} {seed}", "kind": kind, "seed": 1000 * i + seed, "parts": parts}
                numbers = list(stream(case))
                detectors = [d for d in USUAL + ODD if kind == "bits" or d[0] != "ddm"]
                case["runs"] = [findings(name, settings, numbers) for name, settings in detectors]
                cases.append(case)
    return cases


def drift_known(data):
    import pyarrow.parquet as pq

    table = pq.read_table(data / "drift_known/error_streams.parquet")
    ids, errors = table["stream"].to_numpy(), table["error"].to_numpy(zero_copy_only=False)
    out = []
    for number in sorted(set(ids.tolist())):
        bits = errors[ids == number].astype(float).tolist()
        runs = {name: [c[0] for c in findings(name, settings, bits)["changes"]] for name, settings in USUAL}
        out.append({"stream": number, **runs})
    return out


def elec2(data):
    import pyarrow.parquet as pq

    labels = pq.read_table(data / "elec2/elec2.parquet")["label_up"].to_pylist()
    # River's NoChangeClassifier repeats the last label; at the first row it predicts nothing, and nothing is counted.
    errors = [float(a != b) for a, b in zip(labels, labels[1:])]
    runs, value, length = [], 0.0, 0
    for error in errors:
        if error != value:
            runs.append(length)
            value, length = error, 0
        length += 1
    runs.append(length)
    total, weight = 0.0, 0.0
    for error in errors:
        total, weight = error + FADING * total, 1.0 + FADING * weight
    found = findings("adwin", {}, errors)["changes"]
    return {
        "rows": len(errors),
        "accuracy": 1.0 - sum(errors) / len(errors),
        "fading": total / weight,
        "adwin": [c[0] for c in found],
        "error_runs": runs,
    }


def main():
    before = json.loads(OUT.read_text()) if OUT.exists() else {}
    golden = {"river": river.__version__, "streams": generated()}
    if len(sys.argv) > 1:
        data = Path(sys.argv[1])
        golden |= {"drift_known": drift_known(data), "elec2": elec2(data)}
    else:
        golden |= {key: before[key] for key in ("drift_known", "elec2") if key in before}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'  {json.dumps(key)}: ' + ("[\n" + ",\n".join(f"    {json.dumps(v)}" for v in value) + "\n  ]"
             if isinstance(value, list) else json.dumps(value)) for key, value in golden.items()]
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()
