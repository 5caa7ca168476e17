#!/usr/bin/env python3
"""Deltas trained in several ways, on hosts they were trained beside and on hosts they were not: who gains what.

    bench/transfer_table.py MANIFEST.json DATA.jsonl [--records N] [--cache DIR] [--json FILE]

MANIFEST: {"hosts": {"SmolLM2": "path.gguf", ...}, "deltas": [{"beside": ["SmolLM2"], "variant": "paper", "files": ["seed0.gguf", ...]}, ...]}.
Every delta is scored on every host at a grid of strengths (bench/alpha_grid.c, beside this script's build). Two gains in nats a byte,
on the records with even numbers: at the strength that the delta's file gives a host it does not know, and at the best of the grid
on the first 20 records with odd numbers. `kept` is the share of the best gain of a delta that was trained beside that host alone.
Means over the files (seeds), with their standard deviation. --json writes the list `transfer` of docs/training.json.
"""
import argparse
import hashlib
import json
import os
import statistics
import subprocess

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
GRID = os.environ.get("ALPHA_GRID", os.path.join(ROOT, "build/release/bench/alpha_grid"))
CMC = os.environ.get("CMC", os.path.join(ROOT, "cmc"))
ALPHAS = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0]


def default_alpha(delta):
    out = subprocess.run([CMC, "inspect", delta, "--json"], capture_output=True, check=True).stdout
    return json.loads(out)["delta"]["alpha"]


def grid(host, delta, data, records, alphas, cache):
    key = hashlib.sha256(" ".join([host, delta, str(os.path.getmtime(delta)), data, str(records)] + [f"{a:g}" for a in alphas]).encode())
    path = os.path.join(cache, key.hexdigest()[:24] + ".jsonl")
    if not os.path.exists(path):
        out = subprocess.run([GRID, host, delta, data, str(records)] + [f"{a:g}" for a in alphas], capture_output=True, check=True)
        with open(path + ".part", "wb") as f:
            f.write(out.stdout)
        os.replace(path + ".part", path)
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f][:-1]


def gain(rows, k):
    return sum(r["host"] - r["nll"][k] for r in rows) / sum(r["bytes"] for r in rows)


def cell(host, files, a):
    """(default, tuned) gains of each file, and the tuned strengths."""
    default, tuned, strengths = [], [], []
    for delta in files:
        alphas = ALPHAS + [default_alpha(delta)]
        rows = grid(host, delta, a.data, a.records, alphas, a.cache)
        even = [r for r in rows if r["n"] % 2 == 0]
        seen = [r for r in rows if r["n"] % 2][:20]
        best = max(range(len(ALPHAS)), key=lambda k: gain(seen, k))
        default.append(gain(even, len(ALPHAS)))
        tuned.append(gain(even, best))
        strengths.append(ALPHAS[best])
    return default, tuned, strengths


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("manifest")
    p.add_argument("data")
    p.add_argument("--records", type=int, default=300)
    p.add_argument("--cache", default=os.path.join(ROOT, "build/transfer"))
    p.add_argument("--json")
    a = p.parse_args()
    os.makedirs(a.cache, exist_ok=True)
    with open(a.manifest, encoding="utf-8") as f:
        m = json.load(f)
    cells = {(i, h): cell(path, d["files"], a) for i, d in enumerate(m["deltas"]) for h, path in m["hosts"].items()}
    direct = {h: max((statistics.mean(cells[i, h][1]) for i, d in enumerate(m["deltas"]) if d["beside"] == [h]), default=None)
              for h in m["hosts"]}
    out = []
    print("| trained beside | variant | host | gain, default strength | gain, strength from 20 prompts | kept | seeds |")
    print("|---|---|---|---|---|---|---|")
    for i, d in enumerate(m["deltas"]):
        for h in m["hosts"]:
            default, tuned, strengths = cells[i, h]
            texts = []
            for name, values in (("default", default), ("tuned", tuned)):
                sd = statistics.stdev(values) if len(values) > 1 else 0.0
                mean = statistics.mean(values)
                out.append({"beside": d["beside"], "host": h, "variant": d["variant"], "alpha": name, "gain": round(mean, 5),
                            "gain_direct": None if direct[h] is None else round(direct[h], 5), "seeds": len(values), "sd": round(sd, 5)})
                texts.append(f"{mean:.4f}" + (f" ± {sd:.4f}" if len(values) > 1 else ""))
            kept = "" if not direct[h] else f"{100 * out[-2]['gain'] / direct[h]:.0f} % / {100 * out[-1]['gain'] / direct[h]:.0f} %"
            print(f"| {' and '.join(d['beside'])} | {d['variant']} | {h}{'' if h in d['beside'] else ' (unseen)'} | {texts[0]} | "
                  f"{texts[1]} (at {', '.join(f'{s:g}' for s in strengths)}) | {kept} | {len(tuned)} |")
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump({"transfer": out}, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
