"""The recipe for instructions: a delta trained once beside the first host, applied to all, and what stands beside it: the host
alone, a larger delta that begins as the first host's own embedding and first layers, a delta trained beside that host itself, LoRA
tuning of that host at three rates, and a delta trained on shuffled answers.

Of the held-out pairs those with odd numbers choose the adapter's rate, and the temperature and strength at which each arm is sampled;
those with even numbers are reported.
"""
import json
import os
import random

import resample
from work import Step, read_report

HERE = os.path.dirname(os.path.abspath(__file__))
TRAIN, TEST = os.path.join(HERE, "data/train.jsonl"), os.path.join(HERE, "data/test.jsonl")
PLAIN = ["--template", "plain"]
STEPS = [*PLAIN, "--max-steps", "220", "--eval-every", "44", "--batches", "int8"]
RATES = ("0.001", "0.0005", "0.00025")
SCORE = ["eval", "nll", *PLAIN, "--batches", "int8"]
ANSWER = ["eval", "text", *PLAIN, "--batch", "32", "-n", "256"]
PROMPTS = 100
SHIPPED = ("one", "large", "shuffled")       # deltas of the first host
SAMPLED = ("base", *SHIPPED, "lora")         # arms that are also measured at a temperature of their own
TEMPERATURES, STRENGTHS = ("0.9", "0.8", "0.7"), ("0.75", "1")
AS_IS = ("1", None)   # temperature 1, at the strength that a delta's file gives
LAYERS = 6   # of the first host, that the larger delta begins as

# What the page says must hold.
CLOSED, STOPS, LENGTH, EMPTY = 0.5, 0.8, (0.67, 1.5), 0.01


def data(work):
    """{"choose", "report", "prompts", "shuffled": path}"""
    with open(TEST, encoding="utf-8") as f:
        test = f.readlines()
    with open(TRAIN, encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    answers = [r["output"] for r in records]
    random.Random(1).shuffle(answers)
    shuffled = [json.dumps({**r, "output": a}, ensure_ascii=False) + "\n" for r, a in zip(records, answers)]
    parts = {"choose": test[0::2], "report": test[1::2], "prompts": test[1::2][:PROMPTS], "shuffled": shuffled}
    return {name: work.write(f"instruction/data/{name}.jsonl", lines) for name, lines in parts.items()}


def delta(work, name, host, vocab, seed, train, start=()):
    other = ["--vocab", vocab] if vocab != host else []
    return work.add(Step(f"instruction/{name}.{seed}", ["train", "-m", host, *other, *start, "--data", train, *STEPS, "--delta-template", "plain",
                                                        "--cache", work.path("instruction/states"), "--seed", str(seed)], ".gguf", True))


def measure(work, name, host, what, steering, sets, answers=True):
    """Steps that measure a host with what steers it; for an adapter also on the pairs that choose."""
    work.add(Step(f"instruction/{name}.{what}.nll", [*SCORE, "-m", host, *steering, "-f", sets["report"]]))
    if answers:
        work.add(Step(f"instruction/{name}.{what}.answers", [*ANSWER, "-m", host, *steering, "-f", sets["prompts"]]))


def best_rate(work, name):
    """The adapter's rate with the least NLL on the pairs that choose; None until all are measured."""
    paths = {r: work.path(f"instruction/{name}.lora-{r}.choose.jsonl") for r in RATES}
    if not all(os.path.exists(p) for p in paths.values()):
        return None
    return min(RATES, key=lambda r: read_report(paths[r])[1]["nll_per_byte"])


def plan_adapters(work, name, host, sets):
    for rate in RATES:
        adapter = work.add(Step(f"instruction/{name}-lora-{rate}", ["train", "--base", host, "--lora", "8", "--lr", rate, "--data", TRAIN,
                                                                    *STEPS], ".gguf", True))
        work.add(Step(f"instruction/{name}.lora-{rate}.choose", [*SCORE, "-m", host, "--lora", adapter, "-f", sets["choose"]]))
        measure(work, name, host, f"lora-{rate}", ["--lora", adapter], sets, answers=rate == best_rate(work, name))


def sampled_settings(arm):
    """[(temperature, strength or None)] that the pairs choose among."""
    return [AS_IS, *((t, s) for t in TEMPERATURES for s in (STRENGTHS if arm in SHIPPED else (None,)))]


def sampled_step(name, arm, setting, rate):
    """The adapter as it is was measured to choose its rate."""
    if arm == "lora" and setting == AS_IS:
        return f"instruction/{name}.lora-{rate}.choose"
    return f"instruction/{name}.{arm}.{setting[0]}{f'-{setting[1]}' if setting[1] else ''}.choose"


def sampled_best(work, name, arm):
    """The setting with the least NLL on the pairs that choose, by seed 0; None until all are measured."""
    rate = best_rate(work, name)
    paths = {s: work.path(sampled_step(name, arm, s, rate) + ".jsonl") for s in sampled_settings(arm)}
    if not all(os.path.exists(p) for p in paths.values()):
        return None
    return min(paths, key=lambda s: read_report(paths[s])[1]["nll_per_byte"])


def sampled_command(host, arm, steering, setting):
    """steering: an adapter's or a delta's file, or None."""
    strength = f"={setting[1]}" if setting[1] else ""
    steered = {"base": [], "lora": ["--lora", steering]}.get(arm, ["-d", f"{steering}{strength}"])
    return [*SCORE, "-m", host, *steered, *(["--temperature", setting[0]] if setting != AS_IS else [])]


def plan_sampled(work, name, host, sets, seeds):
    """Each arm at the temperature and the strength that suit it, where they are not those that are measured already."""
    rate = best_rate(work, name)
    for arm in (a for a in SAMPLED if a != "lora" or rate):
        def file(seed, of=arm):
            return work.path(f"instruction/{name}-lora-{rate}.gguf" if of == "lora" else f"instruction/{of}.{seed}.gguf")
        for setting in sampled_settings(arm):
            work.add(Step(sampled_step(name, arm, setting, rate), [*sampled_command(host, arm, file(0), setting), "-f", sets["choose"]]))
        best = sampled_best(work, name, arm)
        for seed in range(seeds if arm in ("one", "large") else 1) if best and best != AS_IS else ():
            work.add(Step(f"instruction/{name}.{arm}.sampled.{seed}.nll", [*sampled_command(host, arm, file(seed), best), "-f", sets["report"]]))


def plan(work, hosts, seeds):
    """Adds the steps in the order of their worth."""
    sets = data(work)
    first = next(iter(hosts.values()))
    for seed in range(seeds):
        one = delta(work, "one", first, first, seed, TRAIN)
        for name, host in hosts.items():
            if seed == 0:
                measure(work, name, host, "base", [], sets)
            measure(work, name, host, f"one.{seed}", ["-d", one], sets)
        large = delta(work, "large", first, first, seed, TRAIN, ["--init", first, "--cut", str(LAYERS)])
        for name, host in hosts.items():
            measure(work, name, host, f"large.{seed}", ["-d", large], sets)
        if seed == 0:
            for name, host in hosts.items():
                if host != first:
                    measure(work, name, host, "own.0", ["-d", delta(work, f"{name}-own", host, first, 0, TRAIN)], sets)
            control = delta(work, "shuffled", first, first, 0, sets["shuffled"])
            for name, host in hosts.items():
                measure(work, name, host, "shuffled.0", ["-d", control], sets)
            for name, host in hosts.items():
                plan_adapters(work, name, host, sets)
    for name, host in hosts.items():
        plan_sampled(work, name, host, sets, seeds)


# ------------------------------------------------------------------------------------------------------------ what came of it

ARMS = ("base", "one", "large", "own", "shuffled")


def reports(work, name, what, kind):
    """An arm's reports of this kind, a seed each; the host alone and adapters have one."""
    paths = [work.path(f"instruction/{name}.{what}.{kind}.jsonl")] + [work.path(f"instruction/{name}.{what}.{s}.{kind}.jsonl") for s in range(10)]
    return [read_report(p)[0] for p in paths if os.path.exists(p)]


def record_means(runs, key):
    """Of every record the mean over seeds."""
    return [resample.mean([r[key] for r in of]) for of in zip(*runs)]


def with_interval(n, f):
    """f of the picked records, and its interval."""
    return f(range(n)), resample.interval({"": n}, lambda p: f(p[""]))


def likelihoods(runs, base, tuned):
    """NLL per byte, and what share of the gap from the host alone to the tuned host is closed, from lines of reports."""
    nll, size = record_means(runs, "nll"), [r["bytes"] for r in base]
    out = {}
    out["nll"], out["nll_ci"] = with_interval(len(size), lambda p: resample.mean(nll, p) / resample.mean(size, p))
    out["nll_seeds"] = [sum(r["nll"] for r in run) / sum(size) for run in runs]
    if tuned:
        host, lora = [r["nll"] for r in base], [r["nll"] for r in tuned]
        out["closed"], out["closed_ci"] = with_interval(len(size), lambda p: (resample.mean(host, p) - resample.mean(nll, p))
                                                        / (resample.mean(host, p) - resample.mean(lora, p)))
    return out


def answers(runs, references):
    """How many answers stopped by themselves and how many are empty, and the median length beside the references', in words."""
    n, out = len(runs[0]), {}
    for key, of in (("stop", lambda r: r["stop"] == "eos"), ("empty", lambda r: r["words"] == 0)):
        values = record_means([[{key: of(r)} for r in run] for run in runs], key)
        out[key], out[f"{key}_ci"] = with_interval(n, lambda p, v=values: resample.mean(v, p))
    words = [[r["words"] for r in run] for run in runs]
    out["length_ratio"], out["length_ratio_ci"] = with_interval(
        n, lambda p: resample.median([w[i] for w in words for i in p]) / resample.median([references[i] for i in p]))
    return out


def collect(work, hosts):
    """[{"host", "seen", "lora_rate", "arms": {"base", "one", "large", "own", "shuffled", "lora", "lora-RATE": figures}}] of what is there."""
    with open(work.path("instruction/data/prompts.jsonl"), encoding="utf-8") as f:
        references = [len(json.loads(line)["output"].split()) for line in f]
    out = []
    for i, name in enumerate(hosts):
        base, best = reports(work, name, "base", "nll"), best_rate(work, name)
        tuned = reports(work, name, f"lora-{best}", "nll") if best else []
        host = {"host": name, "seen": i == 0, "lora_rate": best, "arms": {}, "sampled": {}}
        for what in (*ARMS, *(f"lora-{r}" for r in RATES)) if base else ():
            runs, said = reports(work, name, what, "nll"), reports(work, name, what, "answers")
            if runs:
                arm = likelihoods(runs, base[0], tuned[0] if tuned and what != "base" else None)
                host["arms"]["lora" if what == f"lora-{best}" else what] = arm | (answers(said, references) if said else {})
        for arm in SAMPLED if tuned else ():
            setting = sampled_best(work, name, arm)
            runs = reports(work, name, {AS_IS: f"lora-{best}" if arm == "lora" else arm}.get(setting, f"{arm}.sampled"), "nll") if setting else []
            if runs:
                strength = setting[1] and float(setting[1])
                host["sampled"][arm] = {"temperature": float(setting[0]), "strength": strength, **likelihoods(runs, base[0], tuned[0])}
        out.append(host)
    return out
