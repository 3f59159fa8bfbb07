"""Scores over HTTP: Tidemill beside onnxruntime behind a plain Python server, in one run.

    pip install onnxruntime numpy fastapi uvicorn
    python benches/infer_peers.py [--tidemill target/release/tidemill] [--peer uvicorn|http.server] [--model trees] [--seconds 3] [--json]

`tidemill bench serving_infer` leaves its model, asks its own server and this one with the same requests (one row of 20 numbers as bytes, by the Open
Inference Protocol), and takes turns between them. The peer has one process and onnxruntime on one thread, as is usual behind uvicorn; it does no more than read
the request, run the session and write the answer.
"""

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort


def scorer(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    types = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}

    def score(body, header):
        asked = json.loads(body[:header])
        at, inputs = header, {}
        for tensor in asked["inputs"]:
            size = tensor["parameters"]["binary_data_size"]
            inputs[tensor["name"]] = np.frombuffer(body, np.float32, size // 4, at).reshape(tensor["shape"])
            at += size
        told, raw = [], []
        for name, values in zip(outputs, session.run(None, inputs)):
            raw.append(values.tobytes())
            size = {"binary_data_size": len(raw[-1])}
            told.append({"name": name, "datatype": types[str(values.dtype)], "shape": list(values.shape), "parameters": size})
        head = json.dumps({"model_name": "m", "outputs": told}).encode()
        return b"".join([head, *raw]), len(head)

    return score


def serve(kind, path, port):
    score = scorer(path)
    if kind == "uvicorn":
        import uvicorn
        from fastapi import FastAPI, Request, Response

        app = FastAPI()

        @app.post("/v2/models/{name}/infer")
        async def infer(name: str, request: Request):
            body, header = score(await request.body(), int(request.headers["inference-header-content-length"]))
            return Response(body, headers={"Inference-Header-Content-Length": str(header)}, media_type="application/octet-stream")

        uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)
        return
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer, header = score(body, int(self.headers["Inference-Header-Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Inference-Header-Content-Length", str(header))
            self.end_headers()
            self.wfile.write(answer)
            self.wfile.flush()

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    Server(("127.0.0.1", port), Handler).serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tidemill", default=os.environ.get("TIDEMILL", "target/release/tidemill"))
    parser.add_argument("--peer", choices=["uvicorn", "http.server"], default=None, help="default: uvicorn with FastAPI if they are there")
    parser.add_argument("--model", default="trees", help="trees, mlp or logistic")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each server and number of connections")
    parser.add_argument("--turns", type=int, default=3, help="turns that the servers take; the figures are medians")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs=2, metavar=("MODEL", "PORT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer is None:
        both = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn"))
        args.peer = "uvicorn" if both else "http.server"
    if args.serve:
        serve(args.peer, args.serve[0], int(args.serve[1]))
        return

    def bench(*arguments):
        done = subprocess.run([args.tidemill, "bench", "serving_infer", "--model", args.model, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{args.tidemill} bench serving_infer: {done.stderr.strip()}")
        return done.stdout

    with tempfile.TemporaryDirectory() as folder:
        bench("--seconds", "0.05", "--turns", "1", "--keep", folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        model = os.path.join(folder, args.model + ".onnx")
        peer = subprocess.Popen([sys.executable, __file__, "--peer", args.peer, "--serve", model, str(port)])
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            arguments = ["--seconds", str(args.seconds), "--turns", str(args.turns), "--peer", f"127.0.0.1:{port}", "--peer-pid", str(peer.pid)]
            text = bench(*arguments, "--json")
        finally:
            peer.kill()
            peer.wait()
    report = json.loads(text)
    peers = {line["connections"]: line for line in report["lines"] if line["server"] == "peer"}
    for line in report["lines"]:
        beside = peers[line["connections"]]
        line["times_the_peer"] = line["requests_per_s"] / beside["requests_per_s"]
        line["times_the_peer_per_core"] = beside["server_cpu_us"] / max(line["server_cpu_us"], 1e-9)
    if args.json:
        print(json.dumps({"peer": args.peer, "onnxruntime": ort.__version__, **report}))
        return
    print(f"{report['model']}, one row of 20; peer: onnxruntime {ort.__version__} behind {args.peer}")
    print(f"{'server':<14}{'connections':>12}{'requests/s':>12}{'p50 us':>9}{'p99 us':>9}{'CPU us/request':>16}{'x peer':>8}{'x peer per core':>17}")
    for l in report["lines"]:
        print(
            f"{l['server']:<14}{l['connections']:>12}{l['requests_per_s']:>12.0f}{l['p50_us']:>9}{l['p99_us']:>9}{l['server_cpu_us']:>16.0f}"
            f"{l['times_the_peer']:>8.1f}{l['times_the_peer_per_core']:>17.1f}"
        )


if __name__ == "__main__":
    main()
