#!/usr/bin/env python3
"""Compares cmc with log-probabilities and ids that were computed elsewhere.

    bench/oracle_check.py ORACLE.json MODEL.gguf [--llama LLAMA_SERVER]

ORACLE.json: {"cases":[{"text","ids","next_logprob","argmax"}]}. Prints ids that differ, and for the exact and the fast path
the mean and the largest |difference| over all tokens of the cases. With --llama, llama.cpp's own on the same file.
"""
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

CMC = os.environ.get("CMC", os.path.join(os.path.dirname(__file__), "..", "cmc"))


def run(*args):
    return subprocess.run([CMC, *args], capture_output=True, check=True).stdout.decode()


def score(model, cases, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as f:
        f.writelines(json.dumps({"text": c["text"]}) + "\n" for c in cases)
        f.flush()
        out = [json.loads(line) for line in run("score", "-m", model, "-f", f.name, "--tokens", "--json", *options).splitlines()]
    return [r for r in out if "n" in r]


def differences(cases, got):
    return [abs(a - b) for c, g in zip(cases, got) for a, b in zip(c["next_logprob"], g["logprobs"])]


def llama_differences(server, model, cases):
    """Teacher forcing over HTTP gives no prompt log-probabilities, so every prefix is asked for its next token's."""
    port = 18431
    proc = subprocess.Popen([server, "-m", model, "-c", "4096", "-t", "2", "--port", str(port), "--no-webui"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    diffs = []
    try:
        for _ in range(60):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(0.5)
        for c in cases:
            if len(c["ids"]) > 120:
                continue
            for i in range(1, len(c["ids"])):
                body = json.dumps({"prompt": c["ids"][:i], "n_predict": 1, "temperature": 0, "n_probs": 5000,
                                   "cache_prompt": True}).encode()
                req = urllib.request.Request(f"http://127.0.0.1:{port}/completion", body, {"Content-Type": "application/json"})
                top = json.load(urllib.request.urlopen(req))["completion_probabilities"][0]["top_logprobs"]
                lp = {t["id"]: t["logprob"] for t in top}
                if c["ids"][i] in lp:
                    diffs.append(abs(lp[c["ids"][i]] - c["next_logprob"][i - 1]))
    finally:
        proc.kill()
    return diffs


def show(name, d):
    print(f"{name}: {len(d)} tokens, mean |difference| {sum(d) / len(d):.6f}, largest {max(d):.6f}")


def main():
    oracle, model = sys.argv[1:3]
    cases = json.load(open(oracle, encoding="utf-8"))["cases"]
    wrong = 0
    for i, c in enumerate(cases):
        ids = json.loads(run("tokenize", "-m", model, "--json", "--", c["text"]))["ids"]
        if ids != c["ids"]:
            wrong += 1
            print(f"case {i}: ids differ: {ids[:12]}... for {c['ids'][:12]}...")
    print(f"ids: {len(cases) - wrong} of {len(cases)} cases equal")
    for name, options in (("exact", ["--exact"]), ("fast", [])):
        show(name, differences(cases, score(model, cases, *options)))
    if "--llama" in sys.argv:
        show("llama.cpp (cases up to 120 tokens)", llama_differences(sys.argv[sys.argv.index("--llama") + 1], model, cases))
    sys.exit(wrong > 0)


main()
