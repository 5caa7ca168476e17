#!/usr/bin/env python3
"""How the time to build a token map grows with the vocabulary, beside the paper's way: an edit distance for every pair.

    bench/map_growth.py HOST.gguf DELTA.gguf [-r ROUNDS] [-s SAMPLE] [--limit SECONDS]

HOST's tokens are cut to 32k, 64k, 128k and all (a seeded choice), and mapped to DELTA's, then to a vocabulary as large as
the cut: its own tokens, of which every other one has an ending of another's. cmc's time is the least of ROUNDS builds, as
`cmc map --json` gives it. For the paper's way rapidfuzz (PyPI) computes, in C++ and on one core as cmc does, the distances of
SAMPLE host tokens to every delta token; only that is timed, not the choice among them in Python, and extrapolated to all host
tokens. Both take turns within one run, and what they find for the sample is compared (rule `reference`).

The rule `default` needs the delta's tokenizer, which a cut of a vocabulary has no more: it is timed on the files as they are.

Prints a JSON object a line, last the exponents of growth where both vocabularies grow (1: in proportion, 2: as the square).
Exits 1 where results differ, or where mapping all of HOST to DELTA takes longer than --limit.
Needs: pip install gguf rapidfuzz
"""
import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

from gguf import GGUFReader, GGUFWriter, TokenType
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

CMC = os.environ.get("CMC", os.path.join(os.path.dirname(__file__), "..", "cmc"))
SPECIAL_IDS = 3
SPACE = "\u2581"


def read_tokens(path):
    """The spellings and types in a GGUF file."""
    fields = GGUFReader(path).fields
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    return ([bytes(tokens.parts[i]).decode() for i in tokens.data], [int(types.parts[i][0]) for i in types.data])


def write_vocabulary(path, tokens, types):
    w = GGUFWriter(path, "llama")
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_scores([-float(i) for i in range(len(tokens))])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def cut(tokens, types, n, rng):
    chosen = sorted(rng.sample(range(len(tokens)), n)) if n < len(tokens) else range(n)
    return [tokens[i] for i in chosen], [types[i] for i in chosen]


def changed(tokens, types, rng):
    """Every other ordinary token with another one's last two characters."""
    return [t + rng.choice(tokens)[-2:] if i % 2 and k == TokenType.NORMAL else t
            for i, (t, k) in enumerate(zip(tokens, types))]


def build(host, delta, rule, ids=None):
    extra = ["--ids", ids] if ids else []
    out = subprocess.run([CMC, "map", host, delta, "--rule", rule, "--json"] + extra, capture_output=True, check=True)
    return json.loads(out.stdout)["seconds"]


def paper_entry(h, delta, first, distance):
    """The rule's entry for one host token that is none of the special ones, from its distances to all."""
    if h in first:
        return first[h]
    best, to = None, -1
    for i, d in enumerate(delta):
        if (h.startswith(d) or d.startswith(h)) and (d != SPACE or not h.strip(SPACE)):
            if best is None or distance[i] < best:
                best, to = distance[i], i
    return to


def paper(host, delta, sample):
    """Seconds a host token, and the entries of the sample."""
    first = {}
    for i, d in enumerate(delta):
        first.setdefault(d, i)
    found, seconds = {}, 0.0
    for i in sample:
        h = host[i]
        start = time.perf_counter()
        distance = cdist([h], delta, scorer=Levenshtein.distance, workers=1)[0]
        seconds += time.perf_counter() - start
        special = i < SPECIAL_IDS or (len(h) > 2 and h.startswith("<") and h.endswith(">"))
        found[i] = (i if i < len(delta) else -1) if special else paper_entry(h, delta, first, distance)
    return seconds / len(sample), found


def measure(name, host, delta, a, folder, rng):
    """One size: files are written once, then cmc and the paper's way take turns."""
    paths = [os.path.join(folder, x) for x in ("host.gguf", "delta.gguf", "ids.json")]
    write_vocabulary(paths[0], *host)
    write_vocabulary(paths[1], *delta)
    times = {"prefix": [], "reference": [], "paper": []}
    same = total = 0
    for _ in range(a.r):
        times["prefix"].append(build(paths[0], paths[1], "prefix"))
        times["reference"].append(build(paths[0], paths[1], "reference", paths[2]))
        sample = rng.sample(range(len(host[0])), a.s)
        seconds, found = paper(host[0], delta[0], sample)
        times["paper"].append(seconds * len(host[0]))
        with open(paths[2]) as f:
            ids = json.load(f)
        same += sum(ids[i] == to for i, to in found.items())
        total += len(found)
    t = {k: min(v) for k, v in times.items()}
    row = {"delta": name, "n_host": len(host[0]), "n_delta": len(delta[0]), "cmc_prefix_s": round(t["prefix"], 4),
           "cmc_reference_s": round(t["reference"], 4), "every_pair_s": round(t["paper"], 1),
           "ratio": round(t["paper"] / t["reference"]), "same": same, "of": total, "rounds": a.r}
    print(json.dumps(row), flush=True)
    return row


def exponent(rows, key):
    """The slope of log time over log size, by least squares."""
    x = [math.log(r["n_host"]) for r in rows]
    y = [math.log(r[key]) for r in rows]
    mx, my = statistics.mean(x), statistics.mean(y)
    return sum((p - mx) * (q - my) for p, q in zip(x, y)) / sum((p - mx) ** 2 for p in x)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("host")
    p.add_argument("delta")
    p.add_argument("-r", type=int, default=5, help="rounds (default 5)")
    p.add_argument("-s", type=int, default=20, help="host tokens a round for the paper's way (default 20)")
    p.add_argument("--limit", type=float, default=0.3, help="most seconds for HOST to DELTA (default 0.3)")
    a = p.parse_args()
    rng = random.Random(1)
    host, delta = read_tokens(a.host), read_tokens(a.delta)
    sizes = [n for n in (32768, 65536, 131072) if n < len(host[0])] + [len(host[0])]
    fixed, equal = [], []
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            h = cut(*host, n, rng)
            fixed.append(measure("given", h, delta, a, folder, rng))
            equal.append(measure("as large", h, (changed(*h, rng), h[1]), a, folder, rng))
    growth = {k: round(exponent(equal, k), 2) for k in ("cmc_prefix_s", "cmc_reference_s", "every_pair_s")}
    whole = min(build(a.host, a.delta, "default") for _ in range(a.r))
    print(json.dumps({"exponents": growth, "limit_s": a.limit, "default_s": whole}))
    if any(r["same"] != r["of"] for r in fixed + equal):
        sys.exit("map_growth: the entries differ from those of every pair")
    if whole >= a.limit:
        sys.exit("map_growth: too slow")


main()
