#!/usr/bin/env python3
"""What each guard costs and saves: the shipped delta at the strength stored for a host and at one that is too much.

    bench/guards.py DELTA DATA.jsonl NAME=HOST.gguf... --dir DIR [--json FILE] [--speed]

Of each host, strength and guard: the gain on the first --records pairs of DATA (cmc eval nll), and of greedy answers to the first --answers
of them how many ended by themselves, their length and their repetition (cmc eval text). With --speed that of steered decoding alone, for
which the machine must have nothing else to do; a later run takes it along. Each result is kept in DIR and not made again.
$CMC: the program (default ./cmc).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

CMC = os.environ.get("CMC", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cmc"))
PLAIN = ["--template", "plain", "--delta-template", "plain"]
GUARDS = ["", "--plausible 0.0001", "--plausible 0.01", "--shift-limit 3", "--shift-limit 1", "--alpha-length 8 --alpha-decay 0.8",
          "--steer-until ."]
TIMED = ["", "--plausible 0.01", "--shift-limit 3"]
TOO_MUCH = 4


def total(path, *words):
    """The total of a report of cmc, from a file of an earlier run where there is one."""
    if not os.path.exists(path):
        print("guards.py:", os.path.basename(path), file=sys.stderr)
        done = subprocess.run([CMC, *words, "-o", path], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(f"guards.py: cmc {' '.join(words[:2])} failed, exit {done.returncode}")
    with open(path, encoding="utf-8") as f:
        return json.loads(f.readlines()[-1])["total"]


def head(path, n, to):
    with open(path, encoding="utf-8") as f, open(to, "w", encoding="utf-8") as out:
        out.writelines(f.readlines()[:n])
    return to


def row(args, name, host, strength, guard):
    delta = args.delta + (f"={strength:g}" if strength else "")
    steer = ["-m", host, "-d", delta, *PLAIN, *guard.split()]
    stem = os.path.join(args.dir, f"{name}.{strength:g}.{guard.replace(' ', '_').replace('/', '')}")
    nll = total(stem + ".nll.jsonl", "eval", "nll", *steer, "-f", args.pairs)
    text = total(stem + ".text.jsonl", "eval", "text", *steer, "-f", args.asked, "-n", str(args.max_tokens), "--batch", "16")
    return {"host": name, "alpha": nll["deltas"][0]["alpha"], "guard": guard, "host_nll_per_token": nll["host_nll_per_token"],
            **{k: nll[k] for k in ("records", "gain", "gain_ci")}, **{k: text[k] for k in ("stop_rate", "words", "repetition")}}


def speeds(args, measure):
    """{host: {guard: tokens a second}}, the medians of rounds in turn: measured, or as they were."""
    path = os.path.join(args.dir, "speed.json")
    if not measure:
        return json.load(open(path, encoding="utf-8")) if os.path.exists(path) else {}
    out = {}
    for name, host in (h.split("=", 1) for h in args.hosts):
        runs = {guard: [] for guard in TIMED}
        for _ in range(args.rounds):
            for guard, tps in runs.items():
                done = subprocess.run([CMC, "bench", "-m", host, "-d", args.delta, "-p", "0", "-n", "32", "-r", "1", "--json", *guard.split()],
                                      capture_output=True, check=True)
                tps.append(json.loads(done.stdout)["steered_tg_tps"])
        out[name] = {guard: statistics.median(tps) for guard, tps in runs.items()}
    with open(path, "w", encoding="utf-8") as f:
        json.dump(out, f)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("delta")
    p.add_argument("data")
    p.add_argument("hosts", nargs="+", metavar="NAME=HOST.gguf")
    p.add_argument("--dir", required=True)
    p.add_argument("--records", type=int, default=60)
    p.add_argument("--answers", type=int, default=24)
    p.add_argument("--max-tokens", type=int, default=64)
    p.add_argument("--json", default="/dev/stdout")
    p.add_argument("--speed", action="store_true")
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    speed = speeds(args, args.speed)
    if args.speed:
        return
    args.pairs = head(args.data, args.records, os.path.join(args.dir, "pairs.jsonl"))
    args.asked = head(args.data, args.answers, os.path.join(args.dir, "asked.jsonl"))
    rows = [row(args, *host.split("=", 1), strength, guard) for strength in (0, TOO_MUCH) for host in args.hosts for guard in GUARDS]
    with open(args.json, "w", encoding="utf-8") as f:
        json.dump({"answers": args.answers, "max_tokens": args.max_tokens, "rows": rows, "speed": speed}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
