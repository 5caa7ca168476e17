#!/usr/bin/env python3
"""How much a model forgets of an old skill while it learns a new one, method by method, into docs/forgetting.json.

    bench/forgetting.py DIR [--json docs/forgetting.json] [--seeds N] [--only WORD]... [--have] [--list]
    bench/forgetting.py DIR --base MODEL --old-train F --old-test F --new-train F --new-test F [--template NAME] ...

Without --base a small model is made here: random weights from mktiny, trained on generated stories (the old skill) until its
held-out score no longer falls; the new skill is reports of things lost, in some of the same words. With --base any model and data do. Every run is a `cmc train
--base` of its own in DIR with the same new records and as many steps; its curve comes from --watch on both test files. What is
there already is kept and what was interrupted goes on, so the same command can be stopped and given again; the JSON is written
from what DIR has. Rates are chosen on held-out new records alone, with the first seed; the others take the chosen one.

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

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
CMC = os.path.realpath(os.environ.get("CMC", os.path.join(ROOT, "cmc")))
MKTINY = os.path.realpath(os.environ.get("MKTINY", os.path.join(ROOT, "build/release/tests/mktiny")))
PART, SHARES = 0.9, [k / 10 for k in range(1, 10)]


# ----------------------------------------------------------------------------------------------------- small data

def story(r):
    who, name = r.choice(["fox", "bear", "girl", "boy", "dog", "cat", "bird", "frog"]), r.choice(["Tim", "Anna", "Max", "Lily", "Sam", "Mia"])
    thing, place = r.choice(["ball", "hat", "cake", "boat", "kite", "book"]), r.choice(["park", "forest", "garden", "house", "river"])
    how, friend = r.choice(["happy", "sad", "brave", "kind", "tired"]), r.choice(["mother", "father", "friend", "teacher"])
    end = r.choice([f"{name} was {how} and went home.", f"They played with the {thing} all day.", f"Then {name} gave the {thing} to the {friend}."])
    return (f"Once there was a {how} {who} named {name}. One day {name} went to the {place} and saw a big {thing}. "
            f"\"Is this your {thing}?\" asked the {friend}. {end}")


def report(r):
    who, name = r.choice(["fox", "bear", "girl", "boy", "dog", "cat", "bird", "frog"]), r.choice(["Tim", "Anna", "Max", "Lily", "Sam", "Mia"])
    thing, place = r.choice(["ball", "hat", "cake", "boat", "kite", "book"]), r.choice(["park", "forest", "garden", "house", "river"])
    how = r.choice(["red", "old", "wet", "new"])
    return (f"Report {r.randrange(100)} of the {place}: {how} {thing}, lost by {name} ({who}); {r.randrange(2, 9)} coins to whom finds it. "
            f"{name}'s {thing} is {how}, not {r.choice(['blue', 'dry', 'long'])}: bring it to the {place}, gate {r.randrange(10)}.")


def write_unique(make, counts, seed):
    """One file a count, no record twice."""
    r, seen = random.Random(seed), set()
    for path, n in counts:
        with open(path, "w", encoding="utf-8") as f:
            while n:
                line = json.dumps(make(r))
                if line not in seen:
                    seen.add(line)
                    f.write(line + "\n")
                    n -= 1


def small(a):
    """Data and base of the small run; fills in a's paths."""
    def path(name):
        return os.path.join(a.dir, name)
    a.old_train, a.old_test, a.new_train, a.new_test = (path(n) for n in ("old-train.jsonl", "old-test.jsonl", "new-train.jsonl", "new-test.jsonl"))
    a.base, a.template = path("base.gguf"), "plain"
    if not os.path.exists(a.new_test):
        write_unique(lambda r: {"text": story(r)}, [(a.old_train, 1500), (a.old_test, 20)], 1)
        write_unique(lambda r: {"text": report(r)}, [(a.new_train, 720), (a.new_test, 24)], 2)
    if not os.path.exists(a.base):
        start = path("random.gguf")
        subprocess.run([MKTINY, "--embd", "112", "--layers", "8", "--heads", "4", "--heads-kv", "2", "--ff", "320", "--ctx", "256",
                        "--tied", "--name", "small", start], check=True)
        subprocess.run([CMC, "train", "--base", start, "--data", a.old_train, "--template", "plain", "--max-steps", "400", "--batch", "8",
                        "--lr", "2e-3", "--eval-every", "50", "--save-type", "f32", "--resume", "-t", a.threads, "-o", a.base], check=True)


# ---------------------------------------------------------------------------------------------------------- arms

def arms(a):
    """name: (options, control, uses old data)."""
    n = layers(a.base)
    ffn, imp = ["--modules", "up,down"], ["--soft-mask", os.path.join(a.dir, "importance.gguf")]
    here, all_ = ["--layers", a.range], ["--modules", "q,k,v,up,down"]
    count = len([k for k in range(n) if n * a.lo // 100 <= k < n * a.hi // 100])
    drawn = ",".join(str(k) for k in sorted(random.Random(7).sample(range(n), count)))
    every = ",".join(f"{k}" for k in range(1, n, 2))
    out = {"full fine-tuning": ([], False, False),
           "L2 to the start": (["--l2-start", "0.1", "--weight-decay", "0"], False, False),
           "LoRA, rank 8": (["--lora", "8"], False, False),
           "every second layer": (["--layers", every], False, False),
           "replay, 5 %": (["--replay", a.old_train, "--replay-share", "0.05"], False, True)}
    for lo in (0, 25, 50, 75):
        out[f"CoFiTune {lo}-{lo + 25} %, up and down"] = (["--layers", f"{lo}-{lo + 25}%"] + ffn, False, False)
    out |= {f"CoFiTune {a.range}, q, k, v": (here + ["--modules", "q,k,v"], False, False),
            f"CoFiTune {a.range}, q, k, v, up, down": (here + all_, False, False),
            f"CoFiTune {a.range}, up and down, mask on updates": (here + ffn + imp, False, False),
            "all layers, mask on updates": (all_ + imp, False, False),
            "all layers, mask permuted": (all_ + imp + ["--mask-control", "permuted"], True, False),
            "all layers, mask constant": (all_ + imp + ["--mask-control", "constant"], True, False),
            "all layers, mask on gradients": (all_ + imp + ["--mask-on", "gradient"], True, False),
            "all layers, q, k, v, up, down": (all_, True, False),
            f"{count} layers at random, up and down": (["--layers", drawn if count > 1 else f"{drawn}-{drawn}"] + ffn, True, False)}
    return out


def layers(model):
    info = json.loads(subprocess.run([CMC, "inspect", model, "--json"], check=True, capture_output=True, text=True).stdout)
    return info["layers"]


def slug(name):
    return "".join(c if c.isalnum() else "-" for c in name)


def run_path(a, name, rate, seed, end):
    return os.path.join(a.dir, f"{slug(name)}.{rate:g}.{seed}.{end}")


def command(a, name, options, rate, seed):
    return [CMC, "train", "--base", a.base, "--data", a.new_train, "--template", a.template, "--watch", a.old_test, "--watch", a.new_test,
            "--max-steps", str(a.steps), "--batch", str(a.batch), "--eval-every", str(a.eval_every), "--patience", "0", "--warmup", "0.1",
            "--held-out", "0.05", "--save-type", "f32", "--seed", str(seed), "--lr", f"{rate:g}", "--log", run_path(a, name, rate, seed, "jsonl"),
            "--resume", "-t", a.threads, "-o", run_path(a, name, rate, seed, "gguf"), *options]


def curve(path):
    """[(new held out, old test, new test)] of a finished run, the base first; None where there is none."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(x) for x in f]
    lines = lines[max((i for i, x in enumerate(lines) if x["event"] == "start"), default=0):]   # of the last run in the file
    if not any(x["event"] == "end" for x in lines):
        return None
    points = [(x.get("held_out", x.get("held_out_base")), x["watched_1"], x["watched_2"]) for x in lines if x["event"] in ("base", "eval")]
    start = next(x for x in lines if x["event"] == "start")
    return points, start["params"]


def train(a, name, options, rate, seed):
    log = run_path(a, name, rate, seed, "jsonl")
    if curve(log) is None:
        print(f"{name}, rate {rate:g}, seed {seed}", file=sys.stderr, flush=True)
        subprocess.run(command(a, name, options, rate, seed), check=True, stdout=subprocess.DEVNULL)
        if name != "full fine-tuning":      # of that the line to the base is looked at
            os.unlink(run_path(a, name, rate, seed, "gguf"))
    return curve(log)


def score(a, model, data):
    """Nats a token, and a byte."""
    out = subprocess.run([CMC, "score", "-m", model, "--template", a.template, "-f", data, "--json", "-t", a.threads], check=True,
                         capture_output=True, text=True).stdout
    t = json.loads(out.splitlines()[-1])["total"]
    return t["nll"] / t["tokens"], t["nll_per_byte"]


def line(a, rate, seed, base):
    """WiSE-FT: the points between the base and full fine-tuning."""
    path, tuned = run_path(a, "line", rate, seed, "json"), run_path(a, "full fine-tuning", rate, seed, "gguf")
    if not os.path.exists(path):
        points = []
        for share in SHARES + [1.0]:
            mixed = os.path.join(a.dir, "mixed.gguf")
            subprocess.run([CMC, "merge", "-m", a.base, "--with", f"{tuned}={share}", "--save-type", "f32", "-o", mixed], check=True,
                           stdout=subprocess.DEVNULL)
            points.append([None, score(a, mixed, a.old_test)[0], score(a, mixed, a.new_test)[0]])
            os.unlink(mixed)
        with open(path, "w", encoding="utf-8") as f:
            json.dump(points, f)
    with open(path, encoding="utf-8") as f:
        return [base] + json.load(f)


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


def compare(name, curves, full, trained, per_byte, control, old_data, rate):
    """An arm of the JSON: curves and full by seed, in nats a token; per_byte: tokens a byte of the old test file."""
    kept, lost = [], []
    for seed, points in curves.items():
        target = points[0][2] - PART * gain(full[seed])
        here, there = old_at(points, target), old_at(full[seed], target)
        if here is not None:
            lost.append((here - points[0][1]) * per_byte)
            kept.append(1 - (here - points[0][1]) / (there - points[0][1]))
    retention, sd = mean_sd(kept)
    return {"method": name, "seeds": len(curves), "reached": len(kept), "retention": retention, "retention_sd": sd,
            "plasticity": statistics.mean(gain(p) / gain(full[s]) for s, p in curves.items()),
            "forgets": mean_sd(lost)[0], "forgets_sd": mean_sd(lost)[1], "trainable": int(trained), "rate": rate, "old_data": old_data,
            "control": control}


def chosen(a, name, options):
    """The rate with the best held-out new score at any point, by the first seed."""
    best = {rate: min(p[0] for p in train(a, name, options, rate, 0)[0]) for rate in a.rates}
    return min(best, key=best.get)


def missing(a, name, options):
    if any(curve(run_path(a, name, rate, 0, "jsonl")) is None for rate in a.rates):
        return True
    rate = chosen(a, name, options)
    return any(curve(run_path(a, name, rate, seed, "jsonl")) is None for seed in range(a.seeds))


def measure(a):
    per_token, nats_byte = score(a, a.base, a.old_test)
    per_byte, result, full, base = nats_byte / per_token, [], {}, None
    for name, (options, control, old_data) in arms(a).items():
        if a.only and not any(w in name for w in a.only) and name != "full fine-tuning":
            continue
        if a.have and missing(a, name, options):
            continue
        rate = chosen(a, name, options)
        runs = {seed: train(a, name, options, rate, seed) for seed in range(a.seeds)}
        curves, trained = {s: r[0] for s, r in runs.items()}, next(iter(runs.values()))[1]
        if name == "full fine-tuning":
            full, base = curves, curves[0][0]
            ends = mean_sd([(p[-1][1] - p[0][1]) * per_byte for p in full.values()])
            wise = {seed: line(a, rate, seed, base) for seed in full}
            slow = min(a.rates)
            slower = {seed: train(a, name, options, slow, seed)[0] for seed in full} if slow != rate else None
        result.append(compare(name, curves, full, trained, per_byte, control, old_data, rate))
        if name == "full fine-tuning":
            result.append(compare("WiSE-FT, on the line to the base", wise, full, trained, per_byte, False, False, rate))
            if slower:
                result.append(compare("full fine-tuning, lowest rate", slower, full, trained, per_byte, False, False, slow))
        save(a, result, {"old_nats_a_byte": nats_byte, "new_nats_a_token": base[2], "full_forgets": ends[0], "full_forgets_sd": ends[1],
                         "full_gains": statistics.mean(gain(p) for p in full.values())})


def save(a, result, found):
    """Arms that are not of this script (another method's) stay."""
    old = {"arms": []}
    if os.path.exists(a.json):
        with open(a.json, encoding="utf-8") as f:
            old = json.load(f)
    mine = {r["method"] for r in result} | set(arms(a))
    run = {"scale": a.scale, "parameters": json.loads(subprocess.run([CMC, "inspect", a.base, "--json"], check=True, capture_output=True,
           text=True).stdout)["params"], "layers": layers(a.base), "steps": a.steps, "batch": a.batch, "rates": a.rates, "seeds": a.seeds,
           "matched_at": PART, "range": a.range} | found
    with open(a.json, "w", encoding="utf-8") as f:
        json.dump({"run": run, "arms": result + [x for x in old["arms"] if x["method"] not in mine]}, f, indent=1)
        f.write("\n")


def importance(a):
    path = os.path.join(a.dir, "importance.gguf")
    if not os.path.exists(path):
        subprocess.run([CMC, "importance", "-m", a.base, "--data", a.new_train, "--template", a.template, "-t", a.threads, "-o", path], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir")
    for name in ("base", "old-train", "old-test", "new-train", "new-test"):
        p.add_argument("--" + name)
    p.add_argument("--template", default="auto")
    p.add_argument("--json", default=os.path.join(ROOT, "docs/forgetting.json"))
    p.add_argument("--range", default="25-50%", help="CoFiTune's layers, chosen before on validation data (cmc train-search)")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=80)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--eval-every", type=int, default=8)
    p.add_argument("--rates", type=lambda s: [float(x) for x in s.split(",")], help="default 1e-4,3e-4,1e-3; of the small run 5e-4,2e-3")
    p.add_argument("--threads", default="0")
    p.add_argument("--scale", default=None, help="what the page calls the run")
    p.add_argument("--only", action="append", default=[], metavar="WORD")
    p.add_argument("--have", action="store_true", help="train nothing: the methods whose runs are all there")
    p.add_argument("--list", action="store_true", help="print the commands of the first seed")
    a = p.parse_args()
    os.makedirs(a.dir, exist_ok=True)
    a.lo, a.hi = (int(x) for x in a.range.rstrip("%").split("-"))
    a.scale = a.scale or ("as given" if a.base else "small")
    a.rates = a.rates or ([1e-4, 3e-4, 1e-3] if a.base else [5e-4, 2e-3])
    if not a.base:
        small(a)
    elif not all((a.old_train, a.old_test, a.new_train, a.new_test)):
        p.error("--base needs the four files of records")
    if a.list:
        for name, (options, _, _) in arms(a).items():
            print(" ".join(command(a, name, options, a.rates[0], 0)))
        return
    importance(a)
    measure(a)


if __name__ == "__main__":
    main()
