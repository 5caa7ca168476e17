#!/usr/bin/env python3
"""Deltas trained in several ways, on hosts they were trained beside and on hosts they were not: who gains what.

    bench/transfer_table.py MANIFEST.json DATA.jsonl --json FILE [--cache DIR]

MANIFEST: {"hosts": {NAME: MODEL.gguf, ...},
           "deltas": [{"beside": [NAME, ...], "variant": "paper", "files": [one a seed, ...]}, ...],
           "starts": [{"start": "random", "vocab": 49152, "parameters": N, "bytes": N, "beside": [...], "files": [...], "hosts": [...]}, ...],
           "lora": [{"host": NAME, "lr": X, "file": ADAPTER.gguf, "held_out": X}, ...]}
A delta's file may be PLUS:LESS, a pair. Held-out pairs with odd numbers choose (the best strength, from the first 20 of them), those with
even numbers are reported: gains in nats a byte over the host alone, at the strength that the delta's file gives a host it was not
trained beside (a training host's own where it was), and at the strength from 20 prompts. Beside each gain stands what of it comes from
targets where the delta reads a re-tokenised prefix (`gain_unaligned`; without a shift at such steps the gain would be the rest) and their
share of all (`unaligned`). bench/alpha_grid.c scores; what it said is kept in --cache. Adapters are scored by `cmc score`. FILE gets `transfer`, `starts` and `lora`; bench/training_page.py makes the page. What FILE holds already and
the manifest has no files for, or fewer seeds of, stays as it is: a table can grow by the runs that are at hand.
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
GRID_FORMAT = "alpha_grid 2"   # of what is kept: another one is asked for anew
CHOOSE, REPORT = "1:2:20", "2:2:150"


def stored(delta, host):
    """The strength that the delta's file gives for this host; for one not named there the mean of those it was trained beside,
    which is what the trainer stores."""
    def inspect(path):
        return json.loads(subprocess.run([CMC, "inspect", path, "--json"], capture_output=True, check=True).stdout)
    table, name = (inspect(delta.split(":")[0])["delta"] or {}).get("alphas", []), inspect(host)["name"]
    return next((e["alpha"] for e in table if e["host"] == name), statistics.mean(e["alpha"] for e in table) if table else 1.0)


def keyed(cache, parts):
    return os.path.join(cache, hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:24] + ".json")


def stamp(path):
    return [(p, os.path.getmtime(p)) for p in path.split(":")]


def grid(host, data, which, arms, cache):
    """arms: [(file, strengths)]. For each arm sums of NLL and counts over the records, what is not kept scored in one go."""
    paths = [keyed(cache, [GRID_FORMAT, host, data, which, stamp(f), a]) for f, a in arms]
    todo = [k for k, p in enumerate(paths) if not os.path.exists(p)]
    for at in range(0, len(todo), 24):
        some = todo[at:at + 24]
        args = [f"{arms[k][0]}={','.join(f'{x:g}' for x in arms[k][1])}" for k in some]
        out = subprocess.run([GRID, host, data, which] + args, capture_output=True, check=True).stdout.decode()
        rows = [json.loads(line) for line in out.splitlines()]
        for i, k in enumerate(some):
            few = [r["unaligned"][i] for r in rows]
            sums = {"host": sum(r["host"] for r in rows), "bytes": sum(r["bytes"] for r in rows), "tokens": sum(r["tokens"] for r in rows),
                    "nll": [sum(r["nll"][i][a] for r in rows) for a in range(len(arms[k][1]))],
                    "unaligned": {"host": sum(u["host"] for u in few), "tokens": sum(u["tokens"] for u in few),
                                  "nll": [sum(u["nll"][a] for u in few) for a in range(len(arms[k][1]))]}}
            with open(paths[k] + ".part", "w", encoding="utf-8") as f:
                json.dump(sums, f)
            os.replace(paths[k] + ".part", paths[k])
    result = []
    for p in paths:
        with open(p, encoding="utf-8") as f:
            result.append(json.load(f))
    return result


def gains(r, of=None):
    """In nats a byte of all; of: where they come from."""
    of = of or r
    return [(of["host"] - x) / r["bytes"] for x in of["nll"]]


def cells(host, files, a):
    """For each file: gain at the default strength, at 1, at that from 20 prompts, and the two strengths; of the gains the parts at
    unaligned targets, and the share of those."""
    chosen = []
    for r in grid(host, a.data, CHOOSE, [(f, ALPHAS) for f in files], a.cache):
        g = gains(r)
        chosen.append(ALPHAS[g.index(max(g))])
    default = [stored(f, host) for f in files]
    rows = grid(host, a.data, REPORT, [(f, [d, 1.0, c]) for f, d, c in zip(files, default, chosen)], a.cache)
    kinds = ("default", "one", "tuned")
    return [dict(zip(kinds, gains(r)), alpha=d, alpha_tuned=c, part=dict(zip(kinds, gains(r, r["unaligned"]))),
                 unaligned=r["unaligned"]["tokens"] / r["tokens"]) for r, d, c in zip(rows, default, chosen)]


def lora_gain(host, adapter, a):
    path = keyed(a.cache, ["lora", host, a.data, stamp(adapter)])
    if not os.path.exists(path):
        def total(*options):
            out = subprocess.run([CMC, "score", "-m", host, "-f", a.data, "--template", "plain", "--json", *options],
                                 capture_output=True, check=True).stdout.decode()
            rows = [r for r in map(json.loads, out.splitlines()) if "n" in r and r["n"] % 2 == 0]
            return sum(r["nll"] for r in rows), sum(r["bytes"] for r in rows)
        (before, n), (after, _) = total(), total("--lora", adapter)
        with open(path, "w", encoding="utf-8") as f:
            json.dump((before - after) / n, f)
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def spread(values):
    return round(statistics.mean(values), 5), round(statistics.stdev(values), 5) if len(values) > 1 else None


def grown(old, new, key):
    """The rows of old in their places, replaced by those of new with the same key and no fewer seeds; then the other new ones."""
    better = {key(x): x for x in new}
    for x in old:
        if better.get(key(x), x).get("seeds", 1) < x.get("seeds", 1):
            better[key(x)] = x
    return [better.pop(key(x), x) for x in old] + [x for x in new if key(x) in better]


def transfer(m, by, old):
    out = []
    direct = {t["host"]: t["gain_direct"] for t in old if t["gain_direct"] is not None}
    seeds = {(*t["beside"], t["variant"], t["host"]): t["seeds"] for t in old}
    for (i, h), c in by.items():
        d = m["deltas"][i]
        if d["beside"] == [h] and not d.get("vary") and len(c) >= seeds.get((h, d["variant"], h), 0):
            direct[h] = max(direct.get(h, -9.0), statistics.mean(x["tuned"] for x in c))
    for (i, h), c in by.items():
        d = m["deltas"][i]
        for kind in ("default", "one", "tuned"):
            mean, sd = spread([x[kind] for x in c])
            alphas = [x["alpha_tuned"] if kind == "tuned" else 1.0 if kind == "one" else x["alpha"] for x in c]
            out.append({"beside": d["beside"], "host": h, "variant": d["variant"], "alpha": kind, "gain": mean,
                        "gain_unaligned": spread([x["part"][kind] for x in c])[0], "unaligned": round(statistics.mean(x["unaligned"] for x in c), 5),
                        "gain_direct": round(direct[h], 5) if h in direct else None, "seeds": len(c), "sd": sd, "alphas": alphas})
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("manifest")
    p.add_argument("data")
    p.add_argument("--cache", default=os.path.join(ROOT, "build/transfer"))
    p.add_argument("--json", required=True)
    a = p.parse_args()
    os.makedirs(a.cache, exist_ok=True)
    with open(a.manifest, encoding="utf-8") as f:
        m = json.load(f)
    by, starts = {}, []
    for h, path in m["hosts"].items():
        files = [f for d in m["deltas"] for f in d["files"]]
        result = cells(path, files, a)
        for i, d in enumerate(m["deltas"]):
            by[i, h] = [result.pop(0) for _ in d["files"]]
    for s in m.get("starts", []):
        entry = {k: v for k, v in s.items() if k not in ("files", "hosts")} | {"seeds": len(s["files"]), "gains": {}}
        for h in s.get("hosts", m["hosts"]):
            c = cells(m["hosts"][h], s["files"], a)
            entry["gains"][h] = {kind: dict(zip(("mean", "sd"), spread([x[kind] for x in c]))) for kind in ("one", "tuned")}
        starts.append(entry)
    old = {"transfer": [], "starts": [], "lora": []}
    if os.path.exists(a.json):
        with open(a.json, encoding="utf-8") as f:
            old |= json.load(f)
    lora = [x | {"gain": round(lora_gain(m["hosts"][x["host"]], x["file"], a), 5)} for x in m.get("lora", [])]
    for x in lora:
        del x["file"]
    result = old | {
        "transfer": grown(old["transfer"], transfer(m, by, old["transfer"]), lambda t: (*t["beside"], t["variant"], t["host"], t["alpha"])),
        "starts": grown(old["starts"], starts, lambda s: (s["start"], s.get("shape"), s["vocab"])),
        "lora": grown(old["lora"], lora, lambda x: (x["host"], x["lr"]))}
    with open(a.json + ".part", "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    os.replace(a.json + ".part", a.json)


if __name__ == "__main__":
    main()
