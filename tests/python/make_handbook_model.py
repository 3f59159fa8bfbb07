"""Writes models/fraud_handbook.onnx from the published scaler and logistic regression, and checks its scores.

    python tests/python/make_handbook_model.py [--data DIR] [--out models/fraud_handbook.onnx]

Needs numpy, onnx, onnxruntime, pyarrow. `--data` is the directory that holds `fraud/reference_lr.json`; it defaults to
$TIDEMILL_DATA, else ../shared/data. The file is the same, byte for byte, on every run.

The graph: `input` float [N, 15] -> ai.onnx.ml.Scaler -> ai.onnx.ml.LinearClassifier -> `label` int64 [N],
`probabilities` float [N, 2]; element 1 is the probability of fraud.
"""

import argparse
import json
import os
import pathlib

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
from onnx import TensorProto, helper

ROOT = pathlib.Path(__file__).resolve().parents[2]


def build(reference: dict) -> onnx.ModelProto:
    coef = reference["lr_coef"]
    intercept = reference["lr_intercept"]
    scaler = helper.make_node(
        "Scaler",
        ["input"],
        ["scaled"],
        domain="ai.onnx.ml",
        offset=reference["scaler_mean"],
        scale=[1.0 / s for s in reference["scaler_scale"]],
    )
    # LOGISTIC on both classes: their raw scores are each other's negative, so the probabilities sum to one.
    classifier = helper.make_node(
        "LinearClassifier",
        ["scaled"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        classlabels_ints=[0, 1],
        coefficients=[-c for c in coef] + coef,
        intercepts=[-intercept, intercept],
        multi_class=0,
        post_transform="LOGISTIC",
    )
    graph = helper.make_graph(
        [scaler, classifier],
        "fraud_handbook",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", len(coef)])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
        ],
        doc_string="Logistic regression of the fraud detection handbook; inputs: " + ", ".join(reference["features"]),
    )
    model = helper.make_model(
        graph,
        producer_name="tidemill",
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def score(model: bytes, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"input": rows.astype(np.float32)})[0][:, 1].astype(np.float64)


def expected(reference: dict, rows: np.ndarray) -> np.ndarray:
    z = (rows - np.array(reference["scaler_mean"])) / np.array(reference["scaler_scale"])
    return 1.0 / (1.0 + np.exp(-(reference["lr_intercept"] + z @ np.array(reference["lr_coef"]))))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", default=os.environ.get("TIDEMILL_DATA", str(ROOT.parent / "shared" / "data")))
    arguments.add_argument("--out", default=str(ROOT / "models" / "fraud_handbook.onnx"))
    options = arguments.parse_args()

    fraud = pathlib.Path(options.data) / "fraud"
    reference = json.loads((fraud / "reference_lr.json").read_text())
    model = build(reference).SerializeToString(deterministic=True)

    # Rows spread as the training set was, and the published sample of real rows.
    random = np.random.default_rng(1)
    spread = random.normal(reference["scaler_mean"], reference["scaler_scale"], size=(100_000, len(reference["features"])))
    golden = pq.read_table(fraud / "golden_features.parquet").to_pandas()
    for name, rows in [("spread", spread), ("golden", golden[reference["features"]].to_numpy(np.float64))]:
        off = np.abs(score(model, rows) - expected(reference, rows)).max()
        print(f"{name}: {len(rows)} rows, scores off by {off:.1e} at most")
        assert off < 1e-6, "the exported model does not give the published scores"

    pathlib.Path(options.out).write_bytes(model)
    print(f"{options.out}: {len(model)} bytes")


if __name__ == "__main__":
    main()
