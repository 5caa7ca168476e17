#!/usr/bin/env python3
"""Trains what docs/training.md compares, and says in a manifest what there is for bench/transfer_table.py.

    bench/transfer_runs.py DIR SMOLLM2 GEMMA [--host NAME=MODEL.gguf] [--only WORD]... [--seeds N] [--list]

Every delta and adapter is a `cmc train` of its own, with bench/recipe/data/train.jsonl and the options in RUNS below; the
files are DIR/NAME.SEED.gguf. What is there already is kept, what was interrupted goes on from its checkpoint, and the
hosts' states are shared. --only takes the runs in whose name WORD is; --host adds a host that only scores; --list prints the
commands. DIR/manifest.json then holds what DIR has. All of it takes hours on two cores: about 1.5 minutes for a delta beside
SmolLM2, 3 beside Gemma, 4 beside both. $CMC: the program (default ./cmc).
"""
import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
CMC = os.path.realpath(os.environ.get("CMC", os.path.join(ROOT, "cmc")))
DATA = os.path.join(ROOT, "bench/recipe/data/train.jsonl")
S, G = "SmolLM2-135M", "Gemma-3-270M"
STEPS = ["--template", "plain", "--max-steps", "220", "--eval-every", "44"]

# name: (beside, variant, options)
DELTAS = {
    "s": ([S], "paper", []),
    "s-kl01": ([S], "KL 0.1", ["--kl", "0.1"]),
    "s-kl025": ([S], "KL 0.25", ["--kl", "0.25"]),
    "s-kl05": ([S], "KL 0.5", ["--kl", "0.5"]),
    "s-temperature": ([S], "host at temperatures 0.7 to 1.4", ["--host-temperature", "0.7:1.4"]),
    "s-unigram": ([S], "up to 0.3 of a unigram mixed in", ["--host-mix", "0.3"]),
    "s-mix-g": ([S], "up to 0.3 of Gemma mixed in", ["--host-mix", "0.3", "--host-mix-with", G]),
    "s-cuts": ([S], "half of the answers cut", ["--cuts", "0.5"]),
    "g": ([G], "through the map", []),
    "g-rows": ([G], "through the map, rows for the rest", ["--prefix-rows"]),
    "sg": ([S, G], "both", []),
    "sg-kl01": ([S, G], "both, KL 0.1", ["--kl", "0.1"]),
    "sg-kl03": ([S, G], "both, KL 0.3", ["--kl", "0.3"]),
    "sg-kl1": ([S, G], "both, KL 1", ["--kl", "1"]),
}
RATES = {"025": 2.5e-4, "05": 5e-4, "1": 1e-3}   # of the adapters, one seed
ADAPTERS = {f"lora-{n}-{k}": (host, lr) for n, host in (("s", S), ("g", G)) for k, lr in RATES.items()}


def commands(a):
    """(name, seed, file, command), in the order they run."""
    def paths(options):
        return [a.hosts.get(x, x) for x in options]

    def out(name, seed):
        return os.path.join(a.dir, f"{name}.{seed}.gguf")
    common = [CMC, "train", "--data", DATA, *STEPS, "--batches", "int8", "--resume"]
    for seed in range(a.seeds):
        for name, (beside, _, options) in DELTAS.items():
            hosts = [x for h in beside for x in ("-m", a.hosts[h])] + (["--vocab", a.hosts[S]] if beside[0] != S else [])
            yield name, seed, out(name, seed), common + hosts + paths(options) + [
                "--delta-template", "plain", "--cache", os.path.join(a.dir, "states"), "--seed", str(seed), "-o", out(name, seed)]
    for name, (host, lr) in ADAPTERS.items():
        yield name, 0, out(name, 0), common + ["--base", a.hosts[host], "--lora", "8", "--lr", f"{lr:g}", "-o", out(name, 0)]


def manifest(a):
    def files(name):
        return [f for f in (os.path.join(a.dir, f"{name}.{seed}.gguf") for seed in range(a.seeds)) if os.path.exists(f)]
    return {"hosts": a.hosts,
            "deltas": [{"beside": b, "variant": v, "vary": bool(o), "files": files(n)} for n, (b, v, o) in DELTAS.items() if files(n)],
            "lora": [{"host": h, "lr": lr, "file": files(n)[0]} for n, (h, lr) in ADAPTERS.items() if files(n)]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir")
    p.add_argument("smollm2")
    p.add_argument("gemma")
    p.add_argument("--host", action="append", default=[], metavar="NAME=MODEL")
    p.add_argument("--only", action="append", default=[], metavar="WORD")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--list", action="store_true")
    a = p.parse_args()
    a.hosts = {S: a.smollm2, G: a.gemma} | dict(h.split("=", 1) for h in a.host)
    os.makedirs(a.dir, exist_ok=True)
    for name, seed, path, command in commands(a):
        if a.only and not any(w in name for w in a.only):
            continue
        if a.list:
            print(" ".join(command))
        elif not os.path.exists(path):
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
            subprocess.run(command, check=True)
    with open(os.path.join(a.dir, "manifest.json"), "w", encoding="utf-8") as f:
        json.dump(manifest(a), f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
