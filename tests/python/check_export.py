"""Runs exported models in onnxruntime, for the test that compares them with our own scores.

    python tests/python/check_export.py DIR

For every NAME.onnx in DIR there is a NAME.json: {"names", "columns", "output"}. Writes NAME.out.json: {"values", "labels"}.
Needs numpy, onnxruntime; with onnx, every file is checked by its rules as well.
"""

import json
import math
import pathlib
import sys

import numpy as np
import onnxruntime

try:
    import onnx
except ImportError:
    onnx = None


def main() -> None:
    onnxruntime.set_default_logger_severity(3)
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.onnx"))
    for file in files:
        if onnx is not None:
            onnx.checker.check_model(str(file), full_check=True)
        ask = json.loads(file.with_suffix(".json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        inputs = session.get_inputs()
        columns = {
            name: np.array(values, dtype=object if isinstance(values[0], str) else np.float32)
            for name, values in zip(ask["names"], ask["columns"])
        }
        if [i.name for i in inputs] == ["input"]:
            feed = {"input": np.column_stack([columns[name] for name in ask["names"]]).astype(np.float32)}
        else:
            feed = {i.name: columns[i.name].reshape(-1, 1) for i in inputs}
        names = [o.name for o in session.get_outputs()]
        results = dict(zip(names, session.run(None, feed)))
        values = [None if math.isnan(v) else v for v in results[ask["output"]].astype(float).ravel().tolist()]
        labels = results["label"].tolist() if "label" in results else None
        file.with_suffix(".out.json").write_text(json.dumps({"values": values, "labels": labels}))
    rules = f"onnx {onnx.__version__}" if onnx is not None else "no onnx, so its rules are not checked"
    print(f"{len(files)} models in onnxruntime {onnxruntime.__version__}; {rules}")


if __name__ == "__main__":
    main()
