#!/usr/bin/env python3
"""The shipped instruction delta is taught a second skill, method by method, and its rival, a delta for each skill added at run time, into
docs/second-skill.json.

    bench/second_skill.py DIR [--json docs/second-skill.json] [--host MODEL] [--seeds N] [--only WORD]... [--have] [--list]

The old skill is answering bench/recipe/data/test.jsonl beside the host, which deltas/instruct.gguf helps with; the new one is made here: a
sentence about things lost is to be written as JSON. Both are asked in the same template, so that one file has to tell them apart by the question.
Every run is a `cmc train -m HOST --init deltas/instruct.gguf` of its own in DIR with the same new records and as many steps; runs that are
there are kept, and what was interrupted goes on. Rates, retention and plasticity as in bench/forgetting.py; rates that were not chosen are there
too where they reach the matched score, of other methods than full fine-tuning with the first seed alone. The rival's second delta begins
at random and sees the same records; its curve goes over its strength, the first delta's staying what its file says.
$CMC: the program (default ./cmc).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import forgetting
import forgetting_costs as costs
import forgetting_data as data

ROOT, CMC, FULL = forgetting.ROOT, forgetting.CMC, forgetting.FULL
DELTA = os.path.join(ROOT, "deltas/instruct.gguf")
RIVAL, SHARES = "two deltas, added at run time", [k / 10 for k in range(1, 16)]


def arms():
    """By name: what `cmc train --init` gets beside the rest. IMPORTANCE and REPLAY stand for files."""
    mask, arm = ["--soft-mask", "IMPORTANCE"], forgetting.Arm

    def blocks(kind):
        return ["--expand", kind, "--blocks", "2"]      # one for each layer
    return {FULL: arm([]),
            RIVAL: arm([]),
            "replay, 5 %": arm(["--replay", "REPLAY", "--replay-share", "0.05"], old_data=True),
            "replay, 30 %": arm(["--replay", "REPLAY", "--replay-share", "0.3"], old_data=True),
            "L2 to the start": arm(["--l2-start", "0.1", "--weight-decay", "0"]),
            "LoRA, rank 8": arm(["--lora", "8"]),
            "blocks beside the layers, mse": arm(blocks("concat")),
            "blocks beside the layers, no alignment": arm(blocks("concat") + ["--align", "none"]),
            "blocks behind the layers": arm(blocks("stack") + ["--align", "none"]),
            "mask on updates": arm(mask),
            "mask permuted": arm(mask + ["--mask-control", "permuted"], control=True),
            "mask constant": arm(mask + ["--mask-control", "constant"], control=True),
            "the embedding alone": arm(["--modules", "embeddings"]),
            "the layers alone": arm(["--layers", "0-1"])}


def run_path(a, name, rate, seed, end):
    return os.path.join(a.dir, f"{forgetting.slug(name)}.{rate:g}.{seed}.{end}")


def command(a, name, options, rate, seed):
    files = {"IMPORTANCE": os.path.join(a.dir, "importance.gguf"), "REPLAY": a.old_train}
    start = ["--vocab", DELTA, "--embd", "64", "--layers", "2"] if name == RIVAL else ["--init", DELTA]
    return [CMC, "train", "-m", a.host, *start, "--data", a.new_train, "--template", "plain", "--delta-template", "plain", "--watch", a.old_test,
            "--watch", a.new_test, "--max-steps", str(a.steps), "--batch", "8", "--eval-every", str(a.eval_every), "--patience", "0", "--warmup", "0.1",
            "--held-out", "0.1", "--save-type", "f32", "--seed", str(seed), "--lr", f"{rate:g}", "--log", run_path(a, name, rate, seed, "jsonl"),
            "--cache", os.path.join(a.dir, "states"), "--resume", "-t", a.threads, "-o", run_path(a, name, rate, seed, "gguf"),
            *[files.get(x, x) for x in options]]


def train(a, name, options, rate, seed):
    log = run_path(a, name, rate, seed, "jsonl")
    if forgetting.curve(log) is None:
        print(f"{name}, rate {rate:g}, seed {seed}", file=sys.stderr, flush=True)
        subprocess.run(command(a, name, options, rate, seed), check=True, stdout=subprocess.DEVNULL)
    return forgetting.curve(log)


def score(a, records, *deltas):
    """Totals of cmc score beside the host, and nats a token under the deltas."""
    args = [x for d in deltas for x in ("-d", d)]
    out = subprocess.run([CMC, "score", "-m", a.host, *args, "--template", "plain", "-f", records, "--json", "-t", a.threads], check=True,
                         capture_output=True, text=True).stdout
    total = json.loads(out.splitlines()[-1])["total"]
    return total, total["nll"] / total["tokens"]


def kept_line(path, make):
    """Points of a line, made once."""
    if not os.path.exists(path):
        with open(path + ".part", "w", encoding="utf-8") as f:
            json.dump(make(), f)
        os.rename(path + ".part", path)
    return costs.load(path)


def line_to_start(a, tuned):
    """WiSE-FT between the start and what full fine-tuning made of it."""
    mixed, out = os.path.join(a.dir, "mixed.gguf"), []
    for share in forgetting.SHARES:
        subprocess.run([CMC, "merge", "-m", DELTA, "--with", f"{tuned}={share}", "--save-type", "f32", "-o", mixed], check=True, stdout=subprocess.DEVNULL)
        out.append([None] + [score(a, f, f"{mixed}=1")[1] for f in (a.old_test, a.new_test)])
    return out


def line_of_rival(a, second):
    return [[None] + [score(a, f, DELTA, f"{second}={share}")[1] for f in (a.old_test, a.new_test)] for share in SHARES]


def chosen(a, name, options):
    best = {rate: min(p[0] for p in train(a, name, options, rate, 0)[0]) for rate in a.rates}
    return min(best, key=best.get)


def missing(a, name, arm):
    if any(forgetting.curve(run_path(a, name, rate, 0, "jsonl")) is None for rate in a.rates):
        return True
    rates = forgetting.all_rates(a, name, chosen(a, name, arm.options))
    return any(forgetting.curve(run_path(a, name, rate, seed, "jsonl")) is None for rate in rates for seed in range(a.seeds))


def row(name, curves, full, per_byte, gain, **more):
    """An arm of the JSON: as bench/forgetting.py has it, and what share of the shipped delta's gain over the host alone is kept there."""
    r, kept = forgetting.compare(name, curves, full, per_byte), []
    for seed, points in curves.items():
        at = forgetting.old_at(points, points[0][2] - forgetting.PART * forgetting.gain(full[seed]))
        if at is not None:
            kept.append(1 - (at - points[0][1]) / gain)
    r["gain_kept"], r["gain_kept_sd"] = forgetting.mean_sd(kept)
    return r | {"rate": None, "old_data": False, "control": False} | more


def measure(a):
    total, _ = score(a, a.old_test)
    host = [score(a, f)[1] for f in (a.old_test, a.new_test)]
    begin, first = ([None] + [score(a, f, d)[1] for f in (a.old_test, a.new_test)] for d in (f"{DELTA}=1", DELTA))
    per_byte, rows, full = total["tokens"] / total["bytes"], [], {}
    size = costs.inspect(CMC, DELTA)["params"]
    found = {"host": host, "start": begin[1:], "as_stored": first[1:], "steps": a.steps, "rates": a.rates, "seeds": a.seeds, "parameters": size, "matched_at": forgetting.PART}
    for name, arm in arms().items():
        if (a.only and name != FULL and not any(w in name for w in a.only)) or (a.have and missing(a, name, arm)):
            continue
        best = chosen(a, name, arm.options)
        for rate in [best] + [r for r in a.rates if r != best]:
            seeds = range(a.seeds) if rate == best or name == FULL else [0]     # the first has every rate
            runs = {seed: train(a, name, arm.options, rate, seed) for seed in seeds}
            curves, at = {s: r[0] for s, r in runs.items()}, "" if rate == best else f", rate {rate:g}"
            added = costs.inspect(CMC, run_path(a, name, rate, 0, "gguf"))["params"] - size if "--expand" in arm.options else 0
            how = {"rate": rate, "trainable": int(runs[0][1]), "parameters": size + added, "control": arm.control, "old_data": arm.old_data}
            if name == RIVAL:
                curves = {s: [first] + kept_line(run_path(a, "added", rate, s, "json"), lambda s=s, rate=rate: line_of_rival(a, run_path(a, name, rate, s, "gguf")))
                          for s in curves}
                how["parameters"] = 2 * size
            if not full:
                full = curves
                found["full_forgets"] = statistics.mean((p[-1][1] - p[0][1]) * per_byte for p in full.values())
                found["full_gains"] = statistics.mean(forgetting.gain(p) for p in full.values())
            one = row(name + at, curves, full, per_byte, host[0] - begin[1], **how)
            rows += [one] if rate == best or name == FULL or one["reached"] else []
            if name == FULL:
                lines = {s: [begin] + kept_line(run_path(a, "line-to-start", rate, s, "json"),
                                                lambda s=s, rate=rate: line_to_start(a, run_path(a, name, rate, s, "gguf"))) for s in full}
                rows.append(row("WiSE-FT, on the line to the start" + at, lines, full, per_byte, host[0] - begin[1], **how))
        with open(a.json + ".part", "w", encoding="utf-8") as f:
            json.dump({"run": found, "arms": rows}, f, indent=1)
            f.write("\n")
        os.rename(a.json + ".part", a.json)


def prepare(a):
    def path(name):
        return os.path.join(a.dir, name)
    a.old_train, a.old_test, a.new_train, a.new_test = (path(n) for n in ("old-train.jsonl", "old-test.jsonl", "new-train.jsonl", "new-test.jsonl"))
    data.first(os.path.join(ROOT, "bench/recipe/data/train.jsonl"), 200, a.old_train)
    data.first(os.path.join(ROOT, "bench/recipe/data/test.jsonl"), 40, a.old_test)
    data.notes(a.new_train, 320, a.new_test, 40)
    if not os.path.exists(path("importance.gguf")):
        subprocess.run([CMC, "importance", "--resume", "-m", DELTA, "--data", a.new_train, "--template", "plain", "-t", a.threads, "-o", path("importance.gguf")], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir")
    p.add_argument("--json", default=os.path.join(ROOT, "docs/second-skill.json"))
    p.add_argument("--host", help="default: SmolLM2, fetched where it is not there")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=80)
    p.add_argument("--eval-every", type=int, default=8)
    p.add_argument("--rates", type=lambda s: [float(x) for x in s.split(",")], default=[1e-3, 4e-3, 1.6e-2])
    p.add_argument("--threads", default="0")
    p.add_argument("--only", action="append", default=[], metavar="WORD")
    p.add_argument("--have", action="store_true", help="train nothing: the methods whose runs are all there")
    p.add_argument("--list", action="store_true", help="print the commands of the first seed")
    a = p.parse_args()
    a.host = a.host or subprocess.run([os.path.join(ROOT, "scripts/fetch-model.sh"), "smollm2"], check=True, capture_output=True, text=True).stdout.strip()
    os.makedirs(a.dir, exist_ok=True)
    prepare(a)
    if a.list:
        for name, arm in arms().items():
            print(" ".join(command(a, name, arm.options, a.rates[0], 0)))
    else:
        measure(a)


if __name__ == "__main__":
    main()
