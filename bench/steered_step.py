#!/usr/bin/env python3
"""What steering costs: the steered step against the same text's unsteered step, taken in turn, medians. The delta's own
step is shown beside them.

    bench/steered_step.py DELTA HOST.gguf... [-r ROUNDS] [-t THREADS] [-n 64]
"""
import argparse
import json
import os
import statistics
import subprocess

CMC = os.environ.get("CMC", os.path.join(os.path.dirname(__file__), "..", "cmc"))


def bench(a, *args):
    out = subprocess.run([CMC, "bench", *args, "-t", str(a.t), "-p", "0", "-n", str(a.n), "-r", "1", "--json"],
                         capture_output=True, check=True).stdout
    return json.loads(out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("delta")
    p.add_argument("hosts", nargs="+")
    p.add_argument("-r", type=int, default=7)
    p.add_argument("-t", type=int, default=2)
    p.add_argument("-n", type=int, default=64)
    a = p.parse_args()
    for host in a.hosts:
        ratios, rows = [], []
        for _ in range(a.r):
            delta = 1 / bench(a, "-m", a.delta)["tg_tps"]
            both = bench(a, "-m", host, "-d", a.delta)
            plain, steered = 1 / both["unsteered_tg_tps"], 1 / both["steered_tg_tps"]
            ratios.append(steered / plain)
            rows.append((plain, delta, steered))
        med = [1000 * statistics.median(r[i] for r in rows) for i in range(3)]
        print(json.dumps({"host": os.path.basename(host), "host_ms": round(med[0], 2), "delta_ms": round(med[1], 2),
                          "steered_ms": round(med[2], 2), "ratio": round(statistics.median(ratios), 3),
                          "ratio_min": round(min(ratios), 3), "ratio_max": round(max(ratios), 3)}), flush=True)


main()
