"""The recipe for instructions: a delta trained once beside the first host, applied to all, and what stands beside it: the host
alone, a delta that learnt from the pairs without a teacher, one that did so beside that host itself, LoRA tuning of that host at
three rates, and one that learnt from shuffled answers.

The one delta is taught: the first host is tuned on the pairs, and the delta learns to make the untuned host say what the tuned one
says, of every token and not of the right one alone, in the pairs and in the tuned host's own answers to further questions. So one
host's tuning is all that is paid for, and the delta carries it to others.

Of the held-out pairs those with odd numbers choose the adapter's rate; those with even numbers are reported.
"""
import json
import os
import random

import pairs
import resample
from work import Step, read_report

HERE = os.path.dirname(os.path.abspath(__file__))
OPENINGS = os.path.join(HERE, "openings.txt")
TRAIN, TEST = os.path.join(HERE, "data/train.jsonl"), os.path.join(HERE, "data/test.jsonl")
PLAIN = ["--template", "plain"]
STEPS = [*PLAIN, "--max-steps", "220", "--eval-every", "44", "--batches", "int8"]
TAUGHT = [*PLAIN, "--max-steps", "1040", "--batches", "int8", "--objective", "distil", "--retain-term", "none"]
RATES = ("0.001", "0.0005", "0.00025")
SCORE = ["eval", "nll", *PLAIN, "--batches", "int8"]
ANSWER = ["eval", "text", *PLAIN, "--batch", "32", "-n", "256"]
PROMPTS = 100
QUESTIONS = 9000     # that the first host is asked to make, besides those of the pairs; about two thirds are whole and new

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


def delta(work, name, host, vocab, seed, how):
    """how: the objective's options and the data."""
    other = ["--vocab", vocab] if vocab != host else []
    return work.add(Step(f"instruction/{name}.{seed}", ["train", "-m", host, *other, *how, "--delta-template", "plain",
                                                        "--cache", work.path("instruction/states"), "--seed", str(seed)], ".gguf", True))


def taught(work, host, lora):
    """How a delta learns what its host says once it is tuned by the adapter; None until the text for it is made."""
    teacher = work.add(Step("instruction/teacher", ["merge", "-m", host, "--lora", lora], ".gguf"))
    opened = work.write("instruction/data/opened.jsonl", pairs.questions(OPENINGS, QUESTIONS))
    made = work.add(Step("instruction/questions", ["run", "-m", host, "-f", opened, "--batch", "48", "--json", "--special", "--temperature", "0.8",
                                                   "--top-p", "0.95", "--seed", "11", "-n", "48", "--stop", "\n"]))
    if not os.path.exists(made):
        return None
    asked = work.write("instruction/data/questions.jsonl", pairs.new_questions(opened, made, (TRAIN, TEST)))
    said = work.add(Step("instruction/answers", ["run", "-m", teacher, "-f", asked, "--batch", "48", "--json", *PLAIN, "--temperature", "1",
                                                 "--seed", "12", "-n", "100"]))
    if not os.path.exists(said):
        return None
    more = work.write("instruction/data/more.jsonl", pairs.answered(asked, said))
    return ["--data", TRAIN, "--data", more, *TAUGHT, "--teacher", teacher]


def measure(work, name, host, what, steering, sets, answers=True):
    """Steps that measure a host with what steers it; for an adapter also on the pairs that choose."""
    work.add(Step(f"instruction/{name}.{what}.nll", [*SCORE, "-m", host, *steering, "-f", sets["report"]]))
    if answers:
        work.add(Step(f"instruction/{name}.{what}.answers", [*ANSWER, "-m", host, *steering, "-f", sets["prompts"]]))


def best_rate(work, name):
    """The adapter's rate with the least NLL on the pairs that choose; until all are measured, the one that a kept page chose, if any."""
    paths = {r: work.path(f"instruction/{name}.lora-{r}.choose.jsonl") for r in RATES}
    if not all(os.path.exists(p) for p in paths.values()):
        return next((r["lora_rate"] for r in work.kept.get("instruction", ()) if r["host"] == name), None)
    return min(RATES, key=lambda r: read_report(paths[r])[1]["nll_per_byte"])


def adapter(work, name, host, rate):
    return work.add(Step(f"instruction/{name}-lora-{rate}", ["train", "--base", host, "--lora", "8", "--lr", rate, "--data", TRAIN, *STEPS], ".gguf", True))


def plan_adapters(work, name, host, sets):
    for rate in RATES:
        file = adapter(work, name, host, rate)
        work.add(Step(f"instruction/{name}.lora-{rate}.choose", [*SCORE, "-m", host, "--lora", file, "-f", sets["choose"]]))
        measure(work, name, host, f"lora-{rate}", ["--lora", file], sets, answers=rate == best_rate(work, name))


def plan(work, hosts, seeds):
    """Adds the steps in the order of their worth."""
    sets = data(work)
    first_name, first = next(iter(hosts.items()))
    for name, host in hosts.items():
        measure(work, name, host, "base", [], sets)
        plan_adapters(work, name, host, sets)
    rate = best_rate(work, first_name)
    how = taught(work, first, adapter(work, first_name, first, rate)) if rate else None
    for seed in range(seeds if how else 0):
        steer(work, hosts, f"one.{seed}", delta(work, "one", first, first, seed, how), sets)
    alone = ["--data", TRAIN, *STEPS]
    for seed in range(seeds):
        steer(work, hosts, f"untaught.{seed}", delta(work, "untaught", first, first, seed, alone), sets)
    for name, host in ((n, h) for n, h in hosts.items() if h != first):
        steer(work, {name: host}, "own.0", delta(work, f"{name}-own", host, first, 0, alone), sets)
    steer(work, hosts, "shuffled.0", delta(work, "shuffled", first, first, 0, ["--data", sets["shuffled"], *STEPS]), sets)


def steer(work, hosts, what, file, sets):
    for name, host in hosts.items():
        measure(work, name, host, what, ["-d", file], sets)


# ------------------------------------------------------------------------------------------------------------ what came of it

ARMS = ("base", "one", "untaught", "own", "shuffled")


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
    """[{"host", "seen", "lora_rate", "arms": {"base", "one", "untaught", "own", "shuffled", "lora", "lora-RATE": figures}}] of what is there."""
    with open(work.path("instruction/data/prompts.jsonl"), encoding="utf-8") as f:
        references = [len(json.loads(line)["output"].split()) for line in f]
    out = []
    for i, name in enumerate(hosts):
        base, best = reports(work, name, "base", "nll"), best_rate(work, name)
        tuned = reports(work, name, f"lora-{best}", "nll") if best else []
        host = {"host": name, "seen": i == 0, "lora_rate": best, "arms": {}}
        for what in (*ARMS, *(f"lora-{r}" for r in RATES)) if base else ():
            runs, said = reports(work, name, what, "nll"), reports(work, name, what, "answers")
            if runs:
                arm = likelihoods(runs, base[0], tuned[0] if tuned and what != "base" else None)
                host["arms"]["lora" if what == f"lora-{best}" else what] = arm | (answers(said, references) if said else {})
        out.append(host)
    return out
