#!/usr/bin/env python3
"""The table of what each way of carrying a shift across vocabularies gains, from runs of rule_gain (see rule_gain.c).

    bench/rule_gain.py RUN.jsonl... [--markdown]

The runs are those of one pair of vocabularies, one file a delta (seeds). For each variant the strength is chosen on the records
with odd numbers, over all deltas, and everything is reported on the even ones: the gain over the unsteered host, its difference
from the rule `prefix` with a 95 % interval (paired bootstrap over records, 10,000 resamples, deltas averaged) and the spread of
that difference over the deltas. `at prefix` is the difference on targets that the map reaches by prefix alone.
"""
import argparse
import json
import random
import statistics


def read(path):
    with open(path, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    return rows[:-1], rows[-1]["total"]


def per_token(rows, key, variant, a, count):
    n = sum(r[count] for r in rows)
    return sum(r[key][variant][a] for r in rows) / n if n else 0.0


def bootstrap(diff, tokens, n=10000):
    rng = random.Random(1)
    k, vals = len(diff), []
    for _ in range(n):
        pick = rng.choices(range(k), k=k)
        vals.append(sum(diff[i] for i in pick) / sum(tokens[i] for i in pick))
    vals.sort()
    return vals[int(0.025 * n)], vals[int(0.975 * n)]


def table(runs, totals):
    odd = [[r for r in rows if r["n"] % 2] for rows in runs]
    even = [[r for r in rows if r["n"] % 2 == 0] for rows in runs]
    variants = list(runs[0][0]["nll"])
    alphas = totals[0]["alphas"]
    best = {v: min(range(len(alphas)), key=lambda a: sum(per_token(rows, "nll", v, a, "tokens") for rows in odd)) for v in variants}
    tokens = [r["tokens"] for r in even[0]]
    host = statistics.mean(sum(r["host"] for r in rows) / sum(tokens) for rows in even)
    out = []
    for v in variants:
        a, d = best[v], best["prefix"]
        gains = [host - per_token(rows, "nll", v, a, "tokens") for rows in even]
        by_seed = [per_token(rows, "nll", "prefix", d, "tokens") - per_token(rows, "nll", v, a, "tokens") for rows in even]
        diff = [statistics.mean(rows[i]["nll"]["prefix"][d] - rows[i]["nll"][v][a] for rows in even) for i in range(len(tokens))]
        low, high = bootstrap(diff, tokens) if v != "prefix" else (0.0, 0.0)
        prefix = statistics.mean(per_token(rows, "nll_prefix", "prefix", d, "prefix_tokens") -
                                 per_token(rows, "nll_prefix", v, a, "prefix_tokens") for rows in even)
        chain = {"chain-1": 0, "chain-8": 1, "chain-32": 2}.get(v)
        out.append({"variant": v, "alpha": alphas[a], "gain": statistics.mean(gains), "difference": statistics.mean(by_seed),
                    "low": low, "high": high, "sd": statistics.stdev(by_seed) if len(by_seed) > 1 else 0.0, "at_prefix": prefix,
                    "rows": 1 + (totals[0]["rows_behind"][chain] if chain is not None else 0)})
    share = sum(r["prefix_tokens"] for r in even[0]) / sum(tokens)
    return {"host": host, "records": len(tokens), "tokens": sum(tokens), "prefix_share": share, "deltas": len(runs), "rows": out}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+")
    p.add_argument("--markdown", action="store_true")
    a = p.parse_args()
    loaded = [read(path) for path in a.runs]
    t = table([rows for rows, _ in loaded], [total for _, total in loaded])
    if not a.markdown:
        print(json.dumps(t, indent=1))
        return
    print(f"{t['records']} records, {t['tokens']} tokens, {100 * t['prefix_share']:.1f} % of them mapped by prefix; "
          f"{t['deltas']} deltas; the unsteered host has {t['host']:.4f} nats a token\n")
    print("| variant | alpha | gain | minus prefix | 95 % | sd over deltas | at prefix | delta rows a step |")
    print("|---|---|---|---|---|---|---|---|")
    for r in t["rows"]:
        print(f"| {r['variant']} | {r['alpha']} | {r['gain']:.4f} | {r['difference']:+.5f} | {r['low']:+.5f} to {r['high']:+.5f} | "
              f"{r['sd']:.5f} | {r['at_prefix']:+.3f} | {r['rows']:.1f} |")


if __name__ == "__main__":
    main()
