"""An unmodified tritonclient asks a server for scores, by HTTP and by gRPC, and onnxruntime scores the same rows.

    python infer_peer.py HOST:PORT MODELS.json [TOKEN WEAK_TOKEN]

MODELS.json is a list of {"name", "file", "inputs": FILE.parquet or null, "tolerance"}: models that the server has, and rows for each. Ends with 1, saying why, at the
first difference.
"""

import json
import sys

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
import tritonclient.grpc as tg
import tritonclient.http as th
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


def fail(what):
    sys.exit(f"infer_peer: {what}")


def equal(what, ours, theirs, tolerance):
    if ours.shape != theirs.shape:
        fail(f"{what}: shape {ours.shape} instead of {theirs.shape}")
    if theirs.dtype.kind == "f":
        near = np.isclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)
        if not near.all():
            at = np.argwhere(~near)[0]
            fail(f"{what}: {ours[tuple(at)]} instead of {theirs[tuple(at)]} at {at}")
    else:
        ours, theirs = ours.astype(str), theirs.astype(str)
        if not (ours == theirs).all():
            fail(f"{what}: labels differ")


def text(values):
    return np.array([v.decode() if isinstance(v, bytes) else v for v in values.flatten()]).reshape(values.shape)


def rows_of(path, session):
    if path is None:  # made up: a shipped model has no rows of its own
        rng = np.random.default_rng(7)
        words = np.array(["JFK", "LGA", "AA", "UA", "elsewhere"], dtype=object)
        make = {
            "tensor(float)": lambda size: (rng.normal(size=size) * 20).astype(np.float32),
            "tensor(int64)": lambda size: rng.integers(0, 20, size=size),
            "tensor(string)": lambda size: rng.choice(words, size=size),
        }
        return {i.name: make[i.type]([300] + i.shape[1:]) for i in session.get_inputs()}
    table = pq.read_table(path)
    types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(string)": np.object_}
    inputs = session.get_inputs()
    if len(inputs) == 1:
        matrix = np.stack([c.to_numpy(zero_copy_only=False) for c in table.columns], axis=1)
        if len(inputs[0].shape) > 2:
            matrix = matrix.reshape([len(matrix)] + [d for d in inputs[0].shape[1:]])
        return {inputs[0].name: np.ascontiguousarray(matrix.astype(types[inputs[0].type]))}
    return {
        i.name: np.ascontiguousarray(table[i.name].to_numpy(zero_copy_only=False).astype(types[i.type]).reshape([-1] + [1] * (len(i.shape) - 1)))
        for i in inputs
    }


def tensors(module, rows, **how):
    made = []
    for name, values in rows.items():
        kind = "BYTES" if values.dtype == np.object_ else np_to_triton_dtype(values.dtype)
        tensor = module.InferInput(name, list(values.shape), kind)
        tensor.set_data_from_numpy(values, **how)
        made.append(tensor)
    return made


def refused(what, status, part, call):
    try:
        call()
    except InferenceServerException as error:
        if status not in str(error.status()) or part not in str(error):
            fail(f"{what}: refused with {error.status()}: {error}")
        return
    fail(f"{what}: was not refused")


def main():
    address, models = sys.argv[1], json.load(open(sys.argv[2]))
    token = {"authorization": f"Bearer {sys.argv[3]}"} if len(sys.argv) > 3 else {}  # copied for each call: the client writes into it
    http, grpc = th.InferenceServerClient(address), tg.InferenceServerClient(address)
    if not (http.is_server_live() and http.is_server_ready() and grpc.is_server_live() and grpc.is_server_ready()):
        fail("the server is not ready")
    if http.get_server_metadata()["name"] != "tidemill" or grpc.get_server_metadata().name != "tidemill":
        fail("another server")
    compared = 0
    for model in models:
        name = model["name"]
        session = ort.InferenceSession(model["file"], providers=["CPUExecutionProvider"])
        rows = rows_of(model["inputs"], session)
        theirs = session.run(None, rows)
        outputs = [o.name for o in session.get_outputs()]
        told = http.get_model_metadata(name, headers=dict(token))
        if [i["name"] for i in told["inputs"]] != [i.name for i in session.get_inputs()]:
            fail(f"{name}: inputs {told['inputs']}")
        if not http.is_model_ready(name, headers=dict(token)) or not grpc.is_model_ready(name, headers=dict(token)):
            fail(f"{name} is not ready")
        if [o.name for o in grpc.get_model_metadata(name, headers=dict(token)).outputs] != [o["name"] for o in told["outputs"]]:
            fail(f"{name}: HTTP and gRPC tell of different outputs")
        plain = all(v.dtype != np.object_ for v in rows.values())
        answers = {
            "http, binary": http.infer(name, tensors(th, rows), headers=dict(token)),
            "http, gzip": http.infer(name, tensors(th, rows), headers=dict(token), request_compression_algorithm="gzip"),
            "http, deflate": http.infer(name, tensors(th, rows), headers=dict(token), request_compression_algorithm="deflate"),
            "http, version": http.infer(name, tensors(th, rows), model_version="1", headers=dict(token)),
            "grpc": grpc.infer(name, tensors(tg, rows), headers=dict(token)),
            "grpc, version": grpc.infer(name, tensors(tg, rows), model_version="1", request_id="r7", headers=dict(token)),
        }
        finite = all(np.isfinite(v).all() for v in rows.values() if v.dtype.kind == "f")
        if plain and finite:
            wanted = [th.InferRequestedOutput(o, binary_data=False) for o in outputs]
            answers["http, json"] = http.infer(name, tensors(th, rows, binary_data=False), outputs=wanted, headers=dict(token))
        for how, answer in answers.items():
            for output, expected in zip(outputs, theirs):
                if isinstance(expected, list):
                    continue  # a ZipMap's dictionaries; ours is the tensor before it
                found = answer.as_numpy(output)
                if found is None:
                    fail(f"{name} by {how}: no output {output}")
                if found.dtype == np.object_:
                    found = text(found)
                equal(f"{name}.{output} by {how}", found, np.asarray(expected), model["tolerance"])
                compared += found.size
        if answers["grpc, version"].get_response().id != "r7":
            fail("the request's id does not come back")
        # One output alone, and one row.
        one = {k: v[:1] for k, v in rows.items()}
        alone = http.infer(name, tensors(th, one), outputs=[th.InferRequestedOutput(outputs[-1])], headers=dict(token))
        if [o["name"] for o in alone.get_response()["outputs"]] != [outputs[-1]]:
            fail(f"{name}: more outputs than were asked for")

    # A stream: answers come in the order of the requests, and an error ends nothing.
    name = models[0]["name"]
    session = ort.InferenceSession(models[0]["file"], providers=["CPUExecutionProvider"])
    rows = rows_of(models[0]["inputs"], session)
    answers = []
    streaming = tg.InferenceServerClient(address)
    streaming.start_stream(callback=lambda result, error: answers.append((result, error)), headers=dict(token))
    for i in range(5):
        streaming.async_stream_infer(name if i != 2 else "nobody", tensors(tg, {k: v[i : i + 1] for k, v in rows.items()}), request_id=str(i))
    streaming.stop_stream()
    kinds = [(error is None, None if error else result.get_response().id) for result, error in answers]
    if kinds != [(True, "0"), (True, "1"), (False, None), (True, "3"), (True, "4")]:
        fail(f"the stream answered {kinds}")

    stats = http.get_inference_statistics(name, headers=dict(token))["model_stats"][0]
    by_grpc = grpc.get_inference_statistics(name, headers=dict(token)).model_stats[0]
    if stats["inference_stats"]["success"]["count"] < 8 or by_grpc.inference_stats.success.count < 8:
        fail(f"statistics: {stats}")
    if not stats["latency_us"]["p99"] >= stats["latency_us"]["p50"] > 0 or not stats["batch_stats"]:
        fail(f"latency: {stats}")
    index = {(m["name"], m["version"]): m["state"] for m in http.get_model_repository_index(headers=dict(token))}
    by_grpc = {(m.name, m.version): m.state for m in grpc.get_model_repository_index(headers=dict(token)).models}
    if index != by_grpc or index.get((name, "1")) != "READY":
        fail(f"index: {index} and {by_grpc}")
    config = http.get_model_config(name, headers=dict(token))
    by_grpc = grpc.get_model_config(name, headers=dict(token)).config
    if config["max_batch_size"] != by_grpc.max_batch_size or config["input"][0]["name"] != by_grpc.input[0].name:
        fail(f"configuration: {config} and {by_grpc}")

    good = rows
    wrong = {k: np.zeros([len(v), v.shape[-1] + 1], v.dtype) for k, v in rows.items()}
    stranger = {"nothing": next(iter(rows.values()))}
    doubles = {k: v.astype(np.int64) for k, v in rows.items()}
    for what, asked, given, version, http_status, grpc_status, part in [
        ("unknown model", "nobody", good, "", "404", "NOT_FOUND", "nobody"),
        ("unknown version", name, good, "99", "404", "NOT_FOUND", "99"),
        ("wrong shape", name, wrong, "", "400", "INVALID_ARGUMENT", "shape"),
        ("wrong name", name, stranger, "", "400", "INVALID_ARGUMENT", "nothing"),
        ("wrong type", name, doubles, "", "400", "INVALID_ARGUMENT", "INT64"),
    ]:
        refused(f"{what}, http", http_status, part, lambda: http.infer(asked, tensors(th, given), model_version=version, headers=dict(token)))
        refused(f"{what}, grpc", grpc_status, part, lambda: grpc.infer(asked, tensors(tg, given), model_version=version, headers=dict(token)))
    if token:
        weak = {"authorization": f"Bearer {sys.argv[4]}"}
        for headers, http_status, grpc_status in [({}, "401", "UNAUTHENTICATED"), (weak, "403", "PERMISSION_DENIED")]:
            refused("without a right, http", http_status, "", lambda: http.infer(name, tensors(th, good), headers=dict(headers)))
            refused("without a right, grpc", grpc_status, "", lambda: grpc.infer(name, tensors(tg, good), headers=dict(headers)))
    print(f"{compared} values of {len(models)} models compared")


if __name__ == "__main__":
    main()
