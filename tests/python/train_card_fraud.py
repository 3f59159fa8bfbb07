"""Trains models/card_fraud.onnx, the demo's model, on the job's own feature tables.

    python tests/python/train_card_fraud.py [--tidemill target/release/tidemill] [--out models/card_fraud.onnx]
    python tests/python/train_card_fraud.py --lakes DIR...        # on tables that a run has left behind

Needs lightgbm, numpy, onnx, onnxruntime, pandas, pyarrow, scikit-learn.

Runs dataflows/card_fraud.yaml, without its model, on eight worlds with other seeds than the demo's, as fast as it goes; joins
the rows of `feature_sets/fraud_inputs` with the labels; fits gradient-boosted trees on six worlds, judges them on the other
two, and writes the trees as one ai.onnx.ml.TreeEnsembleClassifier: `input` float [N, K] -> `label` int64 [N],
`probabilities` float [N, 2]. The columns are the set's, in the set's order.
"""

import argparse
import pathlib
import tempfile

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pandas as pd
from card_fraud_job import ROOT, read_table, run_job
from onnx import TensorProto, helper
from sklearn.metrics import average_precision_score, roc_auc_score

SEEDS = range(101, 109)
TEST_SEEDS = 2
SIZE_MAX = 300_000
AUC_MIN = 0.93


def read_lake(lake: pathlib.Path) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Features (float32, in the set's order), labels and the day of each row."""
    rows = read_table(lake / "feature_sets" / "fraud_inputs")
    known = read_table(lake / "feature_sets" / "known")[["tx_id", "is_fraud"]]
    rows = rows.merge(known, on="tx_id", validate="one_to_one").sort_values("tx_id", ignore_index=True)
    other = {"event_time", "event_date", "tx_id", "customer_id", "terminal_id", "is_fraud"}
    features = [c for c in rows.columns if c not in other and not c.startswith("_")]
    day = (rows["event_time"] - rows["event_time"].min()).dt.days
    # The engine hands the model 32-bit floats; trees fitted on others would flip rows at their thresholds.
    return rows[features].astype("float32"), rows["is_fraud"], day


def fit(x: pd.DataFrame, y: pd.Series) -> lightgbm.LGBMClassifier:
    model = lightgbm.LGBMClassifier(
        n_estimators=80,
        num_leaves=15,
        learning_rate=0.1,
        min_child_samples=100,
        random_state=1,
        deterministic=True,
        force_row_wise=True,
        num_threads=1,
        verbose=-1,
    )
    return model.fit(x, y)


def export(model: lightgbm.LGBMClassifier, features: list[str]) -> bytes:
    """The trees as one operator. Thresholds are rounded down to 32 bits, so that `x <= threshold` holds for the same 32-bit x;
    the usual exporter rounds to nearest, which takes in the value above now and then."""
    nodes = {name: [] for name in ["treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids"]}
    leaves = {name: [] for name in ["treeids", "nodeids", "ids", "weights"]}

    def add(tree: int, node: dict) -> int:
        number = nodes["treeids"].count(tree)
        for name, value in [("treeids", tree), ("nodeids", number)]:
            nodes[name].append(value)
        for name, value in [("featureids", 0), ("modes", "LEAF"), ("values", 0.0), ("truenodeids", 0), ("falsenodeids", 0)]:
            nodes[name].append(value)
        place = len(nodes["treeids"]) - 1
        if "leaf_value" in node:
            for name, value in [("treeids", tree), ("nodeids", number), ("ids", 0), ("weights", node["leaf_value"])]:
                leaves[name].append(value)
            return number
        assert node["decision_type"] == "<=" and node["missing_type"] == "None", node
        threshold = np.float32(node["threshold"])
        if float(threshold) > node["threshold"]:
            threshold = np.nextafter(threshold, np.float32(-np.inf))
        nodes["featureids"][place] = node["split_feature"]
        nodes["modes"][place] = "BRANCH_LEQ"
        nodes["values"][place] = float(threshold)
        nodes["truenodeids"][place] = add(tree, node["left_child"])
        nodes["falsenodeids"][place] = add(tree, node["right_child"])
        return number

    for tree in model.booster_.dump_model()["tree_info"]:
        add(tree["tree_index"], tree["tree_structure"])
    trees = helper.make_node(
        "TreeEnsembleClassifier",
        ["input"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        classlabels_int64s=[0, 1],
        post_transform="LOGISTIC",
        **{f"nodes_{name}": values for name, values in nodes.items()},
        **{f"class_{name}": values for name, values in leaves.items()},
    )
    graph = helper.make_graph(
        [trees],
        "card_fraud",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", len(features)])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
        ],
        doc_string="Card fraud on generated traffic; inputs: " + ", ".join(features),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    exported = helper.make_model(graph, producer_name="tidemill", opset_imports=opsets)
    exported.ir_version = 8
    onnx.checker.check_model(exported)
    return exported.SerializeToString(deterministic=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidemill", default=str(ROOT / "target" / "release" / "tidemill"))
    parser.add_argument("--lakes", nargs="+", type=pathlib.Path, help="tables of finished runs instead of new runs")
    parser.add_argument("--out", default=str(ROOT / "models" / "card_fraud.onnx"))
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        lakes = options.lakes or [run_job(options.tidemill, seed, pathlib.Path(directory)) for seed in SEEDS]
        worlds = [read_lake(lake) for lake in lakes]
    train, test = worlds[:-TEST_SEEDS], worlds[-TEST_SEEDS:]
    features = list(train[0][0].columns)
    model = fit(pd.concat([x for x, _, _ in train]), pd.concat([y for _, y, _ in train]))
    x, y, day = (pd.concat([world[i] for world in test], ignore_index=True) for i in range(3))
    bytes_ = export(model, features)

    session = onnxruntime.InferenceSession(bytes_, providers=["CPUExecutionProvider"])
    score = session.run(["probabilities"], {"input": x.to_numpy()})[0][:, 1]
    off = np.abs(score - model.predict_proba(x)[:, 1]).max()
    assert off < 1e-6, f"the exported model is off by {off:.1e}"
    auc = roc_auc_score(y, score)
    print(f"inputs: {', '.join(features)}")
    print(f"train {sum(len(w[1]) for w in train)} rows, test {len(y)} rows, {y.mean():.4f} fraudulent")
    print(f"test: AUC {auc:.4f}, average precision {average_precision_score(y, score):.4f}")
    for begin, end in [(0, 2), (2, 4), (4, 8), (8, 15)]:
        rows = (day >= begin) & (day < end)
        print(f"  days {begin:2} to {end:2}: AUC {roc_auc_score(y[rows], score[rows]):.4f}")
    assert auc >= AUC_MIN, f"AUC {auc:.4f} is below {AUC_MIN}"
    assert len(bytes_) <= SIZE_MAX, f"{len(bytes_)} bytes are more than {SIZE_MAX}"
    pathlib.Path(options.out).write_bytes(bytes_)
    print(f"{options.out}: {len(bytes_)} bytes")


if __name__ == "__main__":
    main()
