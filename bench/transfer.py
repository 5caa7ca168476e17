#!/usr/bin/env python3
"""One delta, several hosts, no retraining: held-out NLL with and without it, and what greedy answers do.

    bench/transfer.py DELTA DATA.jsonl HOST.gguf... [--answers N] [--records N] [--markdown]

NLL is over the response tokens under the template `plain` on both sides, at the alpha that the delta's file gives for each
host. Intervals: paired bootstrap over records (10,000 resamples, seed 1), of the gain in nats a token and a byte.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile

CMC = os.environ.get("CMC", os.path.join(os.path.dirname(__file__), "..", "cmc"))
PLAIN = ["--template", "plain", "--delta-template", "plain"]


def run(*args):
    out = subprocess.run([CMC, *args, "--json"], capture_output=True, check=True).stdout.decode()
    return [json.loads(line) for line in out.splitlines()]


def bootstrap(gains, weights, n=10000):
    """95 % interval of sum(gains) / sum(weights), records resampled together."""
    rng = random.Random(1)
    k = len(gains)
    vals = []
    for _ in range(n):
        pick = rng.choices(range(k), k=k)
        vals.append(sum(gains[i] for i in pick) / sum(weights[i] for i in pick))
    vals.sort()
    return vals[int(0.025 * n)], vals[int(0.975 * n)]


def nll(host, delta, data):
    rows = [r for r in run("score", "-m", host, "-d", delta, "-f", data, *PLAIN) if "n" in r]
    gains = [r["host_nll"] - r["nll"] for r in rows]
    tokens, size = [r["tokens"] for r in rows], [r["bytes"] for r in rows]
    host_nll, steered = sum(r["host_nll"] for r in rows), sum(r["nll"] for r in rows)
    out = {"host": os.path.basename(host), "records": len(rows), "tokens": sum(tokens), "bytes": sum(size)}
    for unit, w in (("token", tokens), ("byte", size)):
        lo, hi = bootstrap(gains, w)
        out[unit] = {"host": host_nll / sum(w), "steered": steered / sum(w), "gain": sum(gains) / sum(w), "low": lo, "high": hi}
    return out


def answers(host, delta, data, n):
    """Stop rate and median length (tokens) of greedy answers to the first n prompts, without and with the delta."""
    with open(data, encoding="utf-8") as f:
        records = [json.loads(line) for line in f][:n]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as f:
        for r in records:
            f.write(json.dumps({"instruction": r.get("instruction") or r.get("question")}) + "\n")
        f.flush()
        out = {}
        for side, options in (("unsteered", []), ("steered", ["-d", delta])):
            got = run("run", "-m", host, *options, "-f", f.name, *PLAIN, "-n", "256", "--batch", "32")
            out[side] = {"stop_rate": sum(g["stop"] == "eos" for g in got) / len(got),
                         "median_tokens": statistics.median(g["tokens"] for g in got),
                         "empty": sum(not g["text"].strip() for g in got) / len(got)}
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("delta")
    p.add_argument("data")
    p.add_argument("hosts", nargs="+")
    p.add_argument("--answers", type=int, default=0)
    p.add_argument("--records", type=int, default=0, help="only the first N records")
    a = p.parse_args()
    data = a.data
    if a.records:
        tmp = tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8")
        with open(a.data, encoding="utf-8") as f:
            tmp.writelines(line for i, line in enumerate(f) if i < a.records)
        tmp.flush()
        data = tmp.name
    for host in a.hosts:
        r = nll(host, a.delta, data)
        if a.answers:
            r["answers"] = answers(host, a.delta, data, a.answers)
        print(json.dumps(r), flush=True)


main()
