#!/usr/bin/env python3
"""A saved delta as an ordinary model in llama.cpp: its next-token log-probabilities there and in cmc, for one delta stored as
F32, F16 and Q8_0.

    bench/delta_in_llama.py LLAMA_SERVER DELTA.gguf [--data FILE.jsonl] [-n TEXTS] [-k POSITIONS] [--save bench/delta_save]

LLAMA_SERVER: llama.cpp's server (bench/peers.sh says how it is configured; -DLLAMA_BUILD_SERVER=ON adds it). It gets the same
token ids as cmc, keys and values stored as F32, and says the log-probability of every token of the vocabulary at POSITIONS
places in each text; cmc scores the same texts with --exact. Compared are the tokens that stand there, in nats. Fails where
the mean difference of a type is above its limit: rounding alone for F32 and F16, and for Q8_0 more, because llama.cpp quantises
activations to 8 bits there.
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
CMC = os.environ.get("CMC", os.path.join(ROOT, "cmc"))
LIMIT = {"f32": 1e-4, "f16": 1e-3, "q8_0": 2e-2}   # mean difference, nats


def texts(path, n):
    """Questions with their answers, spread over the file."""
    with open(path) as f:
        records = [json.loads(line) for line in f]
    found = [f'{r["instruction"]} {r["output"]}' for r in records if "output" in r]
    return found[::max(1, len(found) // n)][:n]


def ours(model, lines):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        for t in lines:
            f.write(json.dumps({"text": t}) + "\n")
        f.flush()
        out = subprocess.run([CMC, "score", "-m", model, "-f", f.name, "--exact", "--tokens", "--json"], check=True,
                             capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    return [(r["ids"], r["logprobs"]) for r in rows if "ids" in r]


class Server:
    def __init__(self, program, model):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen([program, "-m", model, "--port", str(self.port), "--host", "127.0.0.1", "-t", "1",
                                         "-c", "1024", "-np", "1", "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--no-warmup"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if self.process.poll() is not None:
                sys.exit(f"{program} ended with {self.process.returncode}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1)
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{program} did not start")

    def next_logprobs(self, ids, n_vocab):
        """Token id to log-probability after these ids."""
        ask = {"prompt": ids, "n_predict": 1, "n_probs": n_vocab, "temperature": 0, "cache_prompt": True,
               "post_sampling_probs": False}
        r = urllib.request.Request(f"http://127.0.0.1:{self.port}/completion", json.dumps(ask).encode(),
                                   {"Content-Type": "application/json"})
        answer = json.load(urllib.request.urlopen(r, timeout=120))
        return {t["id"]: t["logprob"] for t in answer["completion_probabilities"][0]["top_logprobs"]}

    def stop(self):
        self.process.terminate()
        self.process.wait()


def compare(program, model, lines, k, n_vocab):
    mine = ours(model, lines)
    server = Server(program, model)
    differences = []
    try:
        for ids, logprobs in mine:
            for at in sorted({1 + i * (len(ids) - 2) // k for i in range(k)}):
                theirs = server.next_logprobs(ids[:at], n_vocab)
                differences.append(abs(theirs[ids[at]] - logprobs[at - 1]))
    finally:
        server.stop()
    return differences


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("server")
    p.add_argument("delta")
    p.add_argument("--data", default=os.path.join(ROOT, "bench", "recipe", "data", "test.jsonl"))
    p.add_argument("-n", type=int, default=20)
    p.add_argument("-k", type=int, default=5)
    p.add_argument("--save", default=os.path.join(ROOT, "bench", "delta_save"))
    a = p.parse_args()
    lines = texts(a.data, a.n)
    bad = False
    n_vocab = json.loads(subprocess.run([CMC, "inspect", a.delta, "--json"], check=True, capture_output=True,
                                        text=True).stdout)["vocab"]["n"]
    print(f"{len(lines)} texts, {a.k} places in each; differences of log-probabilities in nats")
    for kind, limit in LIMIT.items():
        with tempfile.TemporaryDirectory() as d:
            model = os.path.join(d, f"{kind}.gguf")
            subprocess.run([a.save, a.delta, kind, model], check=True)
            differences = compare(a.server, model, lines, a.k, n_vocab)
            mean = statistics.mean(differences)
            print(f"{kind:5} {os.path.getsize(model) / 1e6:6.1f} MB  mean {mean:.2e}  largest {max(differences):.2e}"
                  f"  ({len(differences)} places; limit {limit:g} for the mean)")
            bad = bad or mean > limit
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
