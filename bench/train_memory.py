#!/usr/bin/env python3
"""The memory that `cmc train` says it will take beside what it takes: without a bound, with the least bound that it accepts,
with one half way between, and without a bound where an earlier run has left the host's states.

    bench/train_memory.py HOST.gguf --data FILE.jsonl [-n RECORDS] [-- further options of cmc train]

Each run but the last computes the host's states anew, so that their part is measured too. Options may name further hosts
(`-- -m OTHER`) and hosts for the strength alone (`-- --alpha-host OTHER`). The highest size is the kernel's own count of the
process (VmHWM). Fails where a plan is more than 10 % off, or a run outgrows its bound.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

CMC = os.environ.get("CMC", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cmc"))
MIB = 1 << 20


def train(a, folder, data, memory, keep=False):
    command = [CMC, "train", "-m", a.host, "--data", data, "-o", os.path.join(folder, "delta.gguf"), "--max-steps",
               str(a.steps), "--held-out", "0.05", "-t", str(a.t), "--fresh", "--json"] + a.more
    command += (["--memory", memory] if memory else []) + (["--cache", folder] if keep else [])
    return subprocess.run(command, capture_output=True, text=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("host")
    p.add_argument("--data", required=True)
    p.add_argument("-n", type=int, default=60)
    p.add_argument("-t", type=int, default=2)
    p.add_argument("--steps", type=int, default=6)
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    a = p.parse_args(sys.argv[1:cut])
    a.more = sys.argv[cut + 1:]
    bad = False
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "data.jsonl")
        with open(a.data) as f, open(data, "w") as out:
            out.writelines(line for _, line in zip(range(a.n), f))
        refusal = train(a, folder, data, "1M").stderr
        found = re.search(r"at least (\d+) MiB", refusal)
        if not found:
            sys.exit(refusal)
        least = int(found.group(1))
        free = None
        for name in ("no bound", "least", "between", "states"):
            bound = {"least": least, "between": (least + (free or 0)) // 2}.get(name)
            if name == "states":
                train(a, folder, data, None, keep=True)
            run = train(a, folder, data, f"{bound}M" if bound else None, keep=name == "states")
            if run.returncode:
                sys.exit(run.stderr)
            r = json.loads(run.stdout)
            planned, peak = r["memory_planned"] / MIB, r["memory_peak"] / MIB
            free = free or int(planned)
            off = planned / peak - 1
            print(f"{name:8} {f'{bound} MiB' if bound else '-':>9}  planned {planned:7.1f} MiB  highest {peak:7.1f} MiB"
                  f"  {100 * off:+5.1f} %  {r['seconds']:.1f} s", flush=True)
            bad = bad or abs(off) > 0.1 or (bound is not None and peak > bound)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
