#!/usr/bin/env python3
"""How much a model forgets of an old skill while it learns a new one, method by method, into docs/forgetting.json.

    bench/forgetting.py DIR [--json docs/forgetting.json] [--seeds N] [--only WORD]... [--have] [--list] [--speed]
    bench/forgetting.py DIR --base MODEL --scale NAME [--old-train F --old-test F --new-train F --new-test F] [--template NAME] ...

Without --base a small model is made here: random weights from mktiny, trained on generated stories (the old skill) until its
held-out score no longer falls; the new skill is reports of things lost, in some of the same words. With --base any model and data do;
where no data are named the old skill is answering bench/recipe/data/test.jsonl, and the new one the same reports. Every run is a `cmc train
--base` of its own in DIR with the same new records and as many steps; its curve comes from --watch on both test files. What is
there already is kept and what was interrupted goes on, so the same command can be stopped and given again; the JSON is written
from what DIR has, and keeps other scales' parts. Rates are chosen on held-out new records alone, with the first seed; the others take the
chosen one; full fine-tuning and the line from it to the base are there at every rate. --speed times decoding with the files that came out, on a machine that is otherwise idle.

A method's retention is 1 - d/D: d and D are what it and full fine-tuning lose of the old skill (nats a byte of its test file)
where their curves reach the same score on the new test file, 90 % of what full fine-tuning gains at most; of two points on both
sides of that score the line between them. Plasticity is the most that a method gains of it, as a share of full fine-tuning's.
$CMC and $MKTINY: the programs (default ./cmc and build/release/tests/mktiny).
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections import namedtuple

import forgetting_costs as costs
import forgetting_data as data

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
CMC = os.path.realpath(os.environ.get("CMC", os.path.join(ROOT, "cmc")))
MKTINY = os.path.realpath(os.environ.get("MKTINY", os.path.join(ROOT, "build/release/tests/mktiny")))
PART, SHARES = 0.9, [k / 10 for k in range(1, 11)]
OLD_TEST, NEW_TEST = 12, 8      # records of a given base's test files, where none are named
FULL, BLOCKS_BESIDE = "full fine-tuning", "Control LLM, concat lerp, mse"


# ----------------------------------------------------------------------------------------------------- models and data

def small(a):
    """Data and base of the small run; fills in a's paths."""
    def path(name):
        return os.path.join(a.dir, name)
    a.old_train, a.old_test, a.new_train, a.new_test = (path(n) for n in ("old-train.jsonl", "old-test.jsonl", "new-train.jsonl", "new-test.jsonl"))
    a.base, a.template = path("base.gguf"), "plain"
    data.stories(a.old_train, a.old_test)
    data.reports(a.new_train, 720, a.new_test, 24)
    if not os.path.exists(a.base):
        start = path("random.gguf")
        subprocess.run([MKTINY, "--embd", "112", "--layers", "8", "--heads", "4", "--heads-kv", "2", "--ff", "320", "--ctx", "256",
                        "--tied", "--name", "small", start], check=True)
        subprocess.run([CMC, "train", "--base", start, "--data", a.old_train, "--template", "plain", "--max-steps", "400", "--batch", "8",
                        "--lr", "2e-3", "--eval-every", "50", "--save-type", "f32", "--resume", "-t", a.threads, "-o", a.base], check=True)


def given(a):
    """Data beside a given base, where none are named."""
    def path(name):
        return os.path.join(a.dir, name)
    if not a.old_test:
        a.old_train, a.old_test = os.path.join(ROOT, "bench/recipe/data/train.jsonl"), path("old-test.jsonl")
        data.first(os.path.join(ROOT, "bench/recipe/data/test.jsonl"), OLD_TEST, a.old_test)
    if not a.new_test:
        a.new_train, a.new_test = path("new-train.jsonl"), path("new-test.jsonl")
        data.reports(a.new_train, a.steps * a.batch * 3 // 2, a.new_test, NEW_TEST)


# ---------------------------------------------------------------------------------------------------------- arms

Arm = namedtuple("Arm", "options control old_data", defaults=(False, False))


def arms(a):
    """By name, what matters most first."""
    n = costs.inspect(CMC, a.base)["layers"]
    ffn, imp = ["--modules", "up,down"], ["--soft-mask", os.path.join(a.dir, "importance.gguf")]
    here, every = ["--layers", a.range], ["--modules", "q,k,v,up,down"]
    count = len(costs.chosen_layers(a.range, n))
    drawn = sorted(random.Random(7).sample(range(n), count))
    blocks = min((e for e in range(1, n) if n % e == 0), key=lambda e: abs(e - n / 4))
    beside = range(n // blocks - 1, n, n // blocks)

    def listed(layers):
        layers = list(layers)
        return ["--layers", ",".join(str(k) for k in layers) if len(layers) > 1 else f"{layers[0]}-{layers[0]}"]

    def expand(kind, *more):
        return ["--expand", kind, "--blocks", str(blocks), *more]
    out = {FULL: Arm([]),
           "LoRA, rank 8": Arm(["--lora", "8"]),
           f"CoFiTune {a.range.replace('%', ' %')}, up and down": Arm(here + ffn),
           BLOCKS_BESIDE: Arm(expand("concat")),
           "Control LLM, concat lerp, no alignment": Arm(expand("concat", "--align", "none")),
           f"{count} layers at random, up and down": Arm(listed(drawn) + ffn, control=True),
           "Control LLM, nothing frozen": Arm(expand("concat", "--unfrozen"), control=True),
           "all layers, q, k, v, up, down": Arm(every, control=True),
           "all layers, mask on updates": Arm(every + imp),
           "all layers, mask constant": Arm(every + imp + ["--mask-control", "constant"], control=True),
           "all layers, mask permuted": Arm(every + imp + ["--mask-control", "permuted"], control=True),
           "L2 to the start": Arm(["--l2-start", "0.1", "--weight-decay", "0"]),
           "replay, 5 %": Arm(["--replay", a.old_train, "--replay-share", "0.05"], old_data=True),
           "Control LLM, stack": Arm(expand("stack", "--align", "none")),
           "Control LLM, hybrid, mse": Arm(expand("hybrid")),
           "Control LLM, concat dlerp, mse": Arm(expand("concat", "--merge", "dlerp")),
           "Control LLM, concat lerp, relative": Arm(expand("concat", "--align", "relative")),
           "all layers, mask on gradients": Arm(every + imp + ["--mask-on", "gradient"], control=True),
           f"the {blocks} layers that blocks stand beside": Arm(listed(beside)),
           f"CoFiTune {a.range.replace('%', ' %')}, up and down, mask on updates": Arm(here + ffn + imp),
           f"CoFiTune {a.range.replace('%', ' %')}, q, k, v": Arm(here + ["--modules", "q,k,v"]),
           f"CoFiTune {a.range.replace('%', ' %')}, q, k, v, up, down": Arm(here + every)}
    for lo in (0, 25, 50, 75):
        out.setdefault(f"CoFiTune {lo}-{lo + 25} %, up and down", Arm(["--layers", f"{lo}-{lo + 25}%"] + ffn))
    return out


def slug(name):
    return "".join(c if c.isalnum() else "-" for c in name)


def run_path(a, name, rate, seed, end):
    return os.path.join(a.dir, f"{slug(name)}.{rate:g}.{seed}.{end}")


def command(a, name, arm, rate, seed):
    stored = "f32" if name == FULL else a.save_type     # of full fine-tuning the line to the base is looked at
    return [CMC, "train", "--base", a.base, "--data", a.new_train, "--template", a.template, "--watch", a.old_test, "--watch", a.new_test,
            "--max-steps", str(a.steps), "--batch", str(a.batch), "--eval-every", str(a.eval_every), "--patience", "0", "--warmup", "0.1",
            "--held-out", "0.05", "--save-type", stored, "--seed", str(seed), "--lr", f"{rate:g}", "--log", run_path(a, name, rate, seed, "jsonl"),
            "--resume", "-t", a.threads, "-o", run_path(a, name, rate, seed, "gguf"), *arm.options]


def curve(path):
    """[(new held out, old test, new test)] of a finished run, the base first, and what was trained; None where there is none."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(x) for x in f]
    lines = lines[max((i for i, x in enumerate(lines) if x["event"] == "start"), default=0):]   # of the last run in the file
    if not any(x["event"] == "end" for x in lines):
        return None
    points = [(x.get("held_out", x.get("held_out_base")), x["watched_1"], x["watched_2"]) for x in lines if x["event"] in ("base", "eval")]
    start = next(x for x in lines if x["event"] == "start")
    return points, start.get("trained", start["params"])


def wanted(name, arm, seed):
    """Whether the file that comes out is needed: for a line of strengths, or to be timed."""
    return name in (FULL, BLOCKS_BESIDE) or seed == 0 and ("--expand" in arm.options or "--lora" in arm.options)


def train(a, name, arm, rate, seed):
    log = run_path(a, name, rate, seed, "jsonl")
    if curve(log) is None:
        print(f"{name}, rate {rate:g}, seed {seed}", file=sys.stderr, flush=True)
        subprocess.run(command(a, name, arm, rate, seed), check=True, stdout=subprocess.DEVNULL)
        if not wanted(name, arm, seed):
            os.unlink(run_path(a, name, rate, seed, "gguf"))
    return curve(log)


def score(a, model, records, *more):
    """Totals of cmc score: records, tokens, bytes, nll, nll_per_byte."""
    out = subprocess.run([CMC, "score", "-m", model, "--template", a.template, "-f", records, "--json", "-t", a.threads, *more], check=True,
                         capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])["total"]


def nats_a_token(a, model, records, *more):
    t = score(a, model, records, *more)
    return t["nll"] / t["tokens"]


# lines of strengths, of files that are there: name of the line, whose files, and how a point of it comes about

def line_to_base(a, tuned, share, mixed):
    subprocess.run([CMC, "merge", "-m", a.base, "--with", f"{tuned}={share}", "--save-type", "f32", "-o", mixed], check=True, stdout=subprocess.DEVNULL)
    return [mixed]


def dial(_a, expanded, share, _mixed):
    return [expanded, "--expand-strength", str(share)]


def folded(a, expanded, share, mixed):
    subprocess.run([CMC, "merge", "-m", expanded, "--fold", "--expand-strength", str(share), "--save-type", a.save_type, "-o", mixed], check=True,
                   stdout=subprocess.DEVNULL)
    return [mixed]


LINES = [("WiSE-FT, on the line to the base", FULL, line_to_base),
         (f"{BLOCKS_BESIDE}, by --expand-strength", BLOCKS_BESIDE, dial),
         (f"{BLOCKS_BESIDE}, folded", BLOCKS_BESIDE, folded)]


def line(a, how, tuned, path, base):
    """The points at growing shares, the base first."""
    if not os.path.exists(path):
        points, mixed = [], os.path.join(a.dir, "mixed.gguf")
        for share in SHARES:
            model, *more = how(a, tuned, share, mixed)
            points.append([None, nats_a_token(a, model, a.old_test, *more), nats_a_token(a, model, a.new_test, *more)])
        if os.path.exists(mixed):
            os.unlink(mixed)
        with open(path, "w", encoding="utf-8") as f:
            json.dump(points, f)
    return [base] + costs.load(path)


# ------------------------------------------------------------------------------------------------------- analysis

def old_at(points, target):
    """The old skill's score where the curve first reaches the new one's; None: it never does."""
    for (_, a0, b0), (_, a1, b1) in zip(points, points[1:]):
        if b1 <= target:
            x = 0.0 if b0 <= b1 else min(max((b0 - target) / (b0 - b1), 0.0), 1.0)
            return a0 + x * (a1 - a0)
    return None


def gain(points):
    return points[0][2] - min(p[2] for p in points)


def mean_sd(v):
    return (statistics.mean(v) if v else None, statistics.stdev(v) if len(v) > 1 else None)


def compare(name, curves, full, per_byte):
    """What an arm of the JSON says of retention: curves and full by seed, in nats a token; per_byte: tokens a byte of the old test file."""
    kept, lost = [], []
    for seed, points in curves.items():
        target = points[0][2] - PART * gain(full[seed])
        here, there = old_at(points, target), old_at(full[seed], target)
        if here is not None:
            lost.append((here - points[0][1]) * per_byte)
            kept.append(1 - (here - points[0][1]) / (there - points[0][1]))
    retention, retention_sd = mean_sd(kept)
    plasticity, plasticity_sd = mean_sd([gain(p) / gain(full[s]) for s, p in curves.items()])
    forgets, forgets_sd = mean_sd(lost)
    mean = [[statistics.mean(p[i][2] for p in curves.values()), statistics.mean((p[i][1] - p[0][1]) * per_byte for p in curves.values())]
            for i in range(len(next(iter(curves.values()))))]
    return {"method": name, "seeds": len(curves), "reached": len(kept), "retention": retention, "retention_sd": retention_sd,
            "plasticity": plasticity, "plasticity_sd": plasticity_sd, "forgets": forgets, "forgets_sd": forgets_sd, "curve": mean}


def chosen(a, name, arm):
    """The rate with the best held-out new score at any point, by the first seed."""
    best = {rate: min(p[0] for p in train(a, name, arm, rate, 0)[0]) for rate in a.rates}
    return min(best, key=best.get)


def all_rates(a, name, rate):
    """Those that all seeds take: the chosen one, and of full fine-tuning the others too, for it may forget less by a lower rate alone."""
    return [rate] + [r for r in a.rates if r != rate and name == FULL]


def missing(a, name, arm):
    if any(curve(run_path(a, name, rate, 0, "jsonl")) is None for rate in a.rates):
        return True
    rates = all_rates(a, name, chosen(a, name, arm))
    return any(curve(run_path(a, name, rate, seed, "jsonl")) is None for rate in rates for seed in range(a.seeds))


class Costs:
    """The columns of cost; a line's are those of the runs whose files it goes between."""

    def __init__(self, a):
        self.a, self.shape = a, costs.Shape(CMC, a.base)
        t, o = score(a, a.base, a.new_test), score(a, a.base, a.old_test)
        self.tokens = a.steps * a.batch * t["tokens"] / t["records"]
        self.replayed = a.steps * a.batch * 0.05 / 0.95 * o["tokens"] / o["records"]
        self.speeds = costs.load(os.path.join(a.dir, "speed.json"))

    def of(self, name, arm, trained, rate, ordinary=False):
        tokens = self.tokens + (self.replayed if arm.old_data else 0)
        out = run_path(self.a, name, rate, 0, "gguf")
        added = trained if "--lora" in arm.options else costs.inspect(CMC, out)["params"] - self.shape.params if "--expand" in arm.options else 0
        same = ordinary or not added
        speed = self.speeds.get("base" if same else name, {})
        return {"trainable": int(trained), "parameters": self.shape.params + (0 if ordinary else int(added)),
                "training_flops": costs.training_flops(self.shape, arm.options, trained, tokens),
                "tokens_per_second": speed.get("tokens_per_second"), "speed_beside_base": speed.get("beside_base"), "rate": rate,
                "old_data": arm.old_data, "control": arm.control}


def measure(a):
    t = score(a, a.base, a.old_test)
    per_byte, result, full, cost = t["tokens"] / t["bytes"], [], {}, Costs(a)
    for name, arm in arms(a).items():
        if a.only and not any(w in name for w in a.only) and name != FULL:
            continue
        if a.have and missing(a, name, arm):
            continue
        best = chosen(a, name, arm)
        for rate in all_rates(a, name, best):
            runs = {seed: train(a, name, arm, rate, seed) for seed in range(a.seeds)}
            curves, trained, at = {s: r[0] for s, r in runs.items()}, runs[0][1], "" if rate == best else f", rate {rate:g}"
            if not full:
                full, base = curves, curves[0][0]
                ends = mean_sd([(p[-1][1] - p[0][1]) * per_byte for p in full.values()])
            result.append(compare(name + at, curves, full, per_byte) | cost.of(name, arm, trained, rate))
            for called, whose, how in LINES:
                if whose == name:
                    points = {s: line(a, how, run_path(a, name, rate, s, "gguf"), run_path(a, how.__name__, rate, s, "json"), base) for s in curves}
                    result.append(compare(called + at, points, full, per_byte) | cost.of(name, arm, trained, rate, ordinary=how is not dial))
        save(a, result, {"old_nats_a_byte": t["nll_per_byte"], "new_nats_a_token": base[2], "full_forgets": ends[0], "full_forgets_sd": ends[1],
                         "full_gains": statistics.mean(gain(p) for p in full.values()), "parameters": cost.shape.params,
                         "layers": cost.shape.layers, "tokens": cost.tokens})


def save(a, result, found):
    """This scale's run, and its arms; other scales', and arms of this one that were not looked at, stay."""
    old = costs.load(a.json) or {"runs": [], "arms": []}
    run = {"scale": a.scale, "steps": a.steps, "batch": a.batch, "rates": a.rates, "seeds": a.seeds, "matched_at": PART, "range": a.range} | found
    done = {r["method"] for r in result}
    mine = [{"scale": a.scale} | r for r in result] + [x for x in old["arms"] if x["scale"] == a.scale and x["method"] not in done]
    runs = [run if x["scale"] == a.scale else x for x in old["runs"]]
    runs += [run] if run not in runs else []
    runs.sort(key=lambda x: -x["parameters"])
    every = mine + [x for x in old["arms"] if x["scale"] != a.scale]
    with open(a.json + ".part", "w", encoding="utf-8") as f:
        json.dump({"runs": runs, "arms": [x for r in runs for x in every if x["scale"] == r["scale"]]}, f, indent=1)
        f.write("\n")
    os.rename(a.json + ".part", a.json)


def time_files(a):
    """Decoding with the base, which stands for every ordinary model stored as it is, and with each file of another kind."""
    files = {"base": ["-m", a.base]}
    for name, arm in arms(a).items():
        for rate in a.rates:
            path = run_path(a, name, rate, 0, "gguf")
            if os.path.exists(path) and name != FULL:
                files[name] = ["-m", a.base, "--lora", path] if "--lora" in arm.options else ["-m", path]
    with open(os.path.join(a.dir, "speed.json"), "w", encoding="utf-8") as f:
        json.dump(costs.speeds(CMC, files, a.speed_threads), f, indent=1)


def importance(a):
    path = os.path.join(a.dir, "importance.gguf")
    if not os.path.exists(path):
        subprocess.run([CMC, "importance", "--resume", "-m", a.base, "--data", a.new_train, "--template", a.template, "-t", a.threads, "-o", path], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir")
    for name in ("base", "old-train", "old-test", "new-train", "new-test"):
        p.add_argument("--" + name)
    p.add_argument("--template", default="plain")
    p.add_argument("--json", default=os.path.join(ROOT, "docs/forgetting.json"))
    p.add_argument("--range", default="25-50%", help="CoFiTune's layers, chosen before on validation data (cmc train-search)")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=80)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--eval-every", type=int, default=8)
    p.add_argument("--rates", type=lambda s: [float(x) for x in s.split(",")], help="default 1e-4,3e-4,1e-3; of the small run 5e-4,2e-3,8e-3")
    p.add_argument("--threads", default="0")
    p.add_argument("--scale", default=None, help="what the page calls the run")
    p.add_argument("--only", action="append", default=[], metavar="WORD")
    p.add_argument("--have", action="store_true", help="train nothing: the methods whose runs are all there")
    p.add_argument("--list", action="store_true", help="print the commands of the first seed")
    p.add_argument("--speed", action="store_true", help="time decoding with the files that are there, for the next JSON")
    p.add_argument("--speed-threads", default="2")
    a = p.parse_args()
    os.makedirs(a.dir, exist_ok=True)
    a.scale = a.scale or ("as given" if a.base else "small")
    a.rates = a.rates or ([1e-4, 3e-4, 1e-3] if a.base else [5e-4, 2e-3, 8e-3])
    a.save_type = "q8_0" if a.base else "f32"
    if a.base:
        given(a)
    else:
        small(a)
    if a.list:
        for name, arm in arms(a).items():
            print(" ".join(command(a, name, arm, a.rates[0], 0)))
    elif a.speed:
        time_files(a)
    else:
        importance(a)
        measure(a)


if __name__ == "__main__":
    main()
