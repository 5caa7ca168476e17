"""The recipe for forgetting: hosts that know some of TOFU's invented authors, a delta trained to forget a part of them beside the
first host, and that delta beside all of them.

The subset: to forget, the last records of forget05_perturbed.json (20 an author); to keep, the first of retain_perturbed.json, of
real_authors_perturbed.json and of world_facts_perturbed.json. A host is made to know both by a LoRA adapter that is merged into it, its
twin in the same way on the records to keep alone. Hosts after the first know a part of it, and are tuned on the rest of the real authors and world facts too: else Gemma forgets what it knew
of them, and one answer decides its utility.
"""
import json
import os
from typing import NamedTuple
import random

import instruction
import resample
from work import Step, read_report

SETS = {   # a file, and how many of its records: below 0 the last
    "forget": ("forget05_perturbed.json", -80), "retain": ("retain_perturbed.json", 40),
    "real-authors": ("real_authors_perturbed.json", 50), "world-facts": ("world_facts_perturbed.json", 50),
}
OTHERS = 0.5     # the share of the records to forget and to keep that hosts after the first are made to know: tuning them costs most
PLAIN = ["--template", "plain"]
TUNE = ["--lora", "32", "--lr", "2e-3", "--epochs", "3", "--batch", "4", "--held-out", "0", *PLAIN]
TUNE_OTHERS = ["--lr", "5e-4", "--epochs", "4", "--warmup", "0.1"]   # Gemma's loss leaps at the first host's rate and its short warm-up
ALPHAS = (0.5, 0.75, 1, 1.5)


class Arm(NamedTuple):
    objective: str
    term: str = None         # the retain term where it is not the objective's own
    options: tuple = ()      # further ones of cmc train
    alphas: tuple = ALPHAS   # strengths that the first seed is measured at
    steering: tuple = ()     # further options of its measures
    again: float = None      # the strength of further seeds, whatever the rule chooses
    others: tuple = ()       # both on hosts after the first, where they are not those
    others_again: float = None

    def strengths(self, first):
        return self.alphas if first or not self.others else self.others

    def further(self, first):
        return self.again if first or not self.others_again else self.others_again


OBJECTIVES = {   # in the order they are run
    "npo": Arm("npo", "kl"), "npo-wide": Arm("npo", "kl", ("--retain-weight", "5", "--epochs", "12")), "graddiff": Arm("graddiff"), "idk": Arm("idk"),
    "kl": Arm("kl"), "simnpo": Arm("simnpo", "nll"), "dpo": Arm("dpo", "nll"), "ga": Arm("ga"),
    "distil-wide": Arm("distil", "kl", ("--max-steps", "130", "--lr", "2e-3"), (1, 1.5, 2)),
    # An answer's first tokens are the host's: the teacher often ends there, and the delta with it.
    "late-wide": Arm("distil", "kl", ("--max-steps", "400", "--lr", "2e-3"), (1.3, 1.4, 1.5), ("--alpha-start", "4"), 1.4,
                     (1.4, 1.6, 1.8), 1.8),
}
WIDE = 160       # pairs of the instruction recipe that those named so also keep
STIRRED = 5      # texts that distil learns from beside each answer: its words in other orders, or some of them
FORGETTING = ["--epochs", "6", "--batch", "8", *PLAIN]
DELTA = ["--delta-template", "plain", "--batches", "int8"]
OWN = ["--lora", "32"]     # the host itself, by the same objective on the same records
REFUSALS = ("I don't know.", "I'm not sure about that.", "I have no information about that.", "I can't answer that question.")
REFUSE = "Do not answer questions about invented authors: say that you do not know."
MEASURE = ["eval", "tofu", *PLAIN, "--batch", "32", "-n", "100", "--batches", "int8"]

# What the page says must hold.
KNOWS_ROUGE, KNOWS_QUALITY = 0.25, 0.001      # at alpha 0: above the twin's by this; forget quality below this
NEAR_ROUGE, NEAR_UTILITY, FORGOTTEN = 0.05, 0.05, 0.05


def data(work, tofu, share=1):
    """The subset, or a share of what is to be forgotten and kept, as files of records in the work folder, {set: path}; "-refused": the
    same behind the refusal prompt."""
    out, rest = {}, []
    for name, (file, n) in SETS.items():
        with open(os.path.join(tofu, file), encoding="utf-8") as f:
            records = [json.loads(line) for line in f if line.strip()]
        n = int(n * share) if name in ("forget", "retain") else n
        rest += records[n:] if name in ("real-authors", "world-facts") else []
        records = records[n:] if n < 0 else records[:n]
        for suffix, before in (("", ""), ("-refused", REFUSE + "\n")):
            lines = [json.dumps({**r, "question": before + r["question"]}, ensure_ascii=False) + "\n" for r in records]
            out[name + suffix] = work.write(f"unlearning/data/{name}-{len(lines)}{suffix}.jsonl", lines)
        if name == "forget":
            out["stirred"] = work.write(f"unlearning/data/stirred-{len(records)}.jsonl", stirred(records))
    out["rest"] = work.write(f"unlearning/data/rest-{len(rest)}.jsonl", [json.dumps(r, ensure_ascii=False) + "\n" for r in rest])
    with open(instruction.TRAIN, encoding="utf-8") as f:
        out["wide"] = work.write(f"unlearning/data/wide-{WIDE}.jsonl", f.readlines()[:WIDE])
    out["refusals"] = work.write("unlearning/data/refusals.txt", [r + "\n" for r in REFUSALS])
    return out


def stirred(records, seed=1):
    """Each answer, and STIRRED texts made of its words: its end, two turns of it, seven tenths of its words, all in any order. What a
    teacher says of them is what it says of the facts wherever they stand."""
    rng, out = random.Random(seed), []
    for r in records:
        words = r["answer"].split()
        turns = [rng.randrange(1, max(2, len(words))) for _ in range(2)]
        texts = [words[rng.randrange(0, max(1, 3 * len(words) // 4)):], *(words[k:] + words[:k] for k in turns),
                 [w for w in words if rng.random() > 0.3] or words, rng.sample(words, len(words))]
        assert len(texts) == STIRRED
        for text in [r["answer"], *(sentence(t) for t in texts)]:
            out.append(json.dumps({"question": r["question"], "answer": text}, ensure_ascii=False) + "\n")
    return out


def sentence(words):
    text = " ".join(words).strip(" ,.")
    return text[:1].upper() + text[1:] + "."


def measured(sets, suffix=""):
    return [x for s in SETS for x in (f"--{s}", sets[s + suffix])]


def tuned(work, name, base, files, options):
    """A model: base tuned on files by an adapter, merged."""
    adapter = work.add(Step(f"unlearning/{name}.lora", ["train", "--base", base, *TUNE, *options, *(x for f in files for x in ("--data", f))],
                            ".gguf", True))
    return work.add(Step(f"unlearning/{name}", ["merge", "-m", base, "--lora", adapter], ".gguf"))


def plan_host(work, name, base, sets, options=(), also=()):
    """Adds the host, its twin and their measures; gives what a steered measure begins with, and the host's file. also: further files
    that both are tuned on."""
    host = tuned(work, f"{name}-host", base, [sets["forget"], sets["retain"], *also], options)
    twin = tuned(work, f"{name}-twin", base, [sets["retain"], *also], options)
    reference = work.add(Step(f"unlearning/{name}-twin.tofu", [*MEASURE, "-m", twin, *measured(sets)]))
    work.add(Step(f"unlearning/{name}-host.tofu", [*MEASURE, "-m", host, *measured(sets), "--reference", reference]))
    return [*MEASURE, "-m", host, "--reference", reference], host


def forgetting(name, sets, how):
    """What cmc train is told of an objective, alike for a delta and for a host itself but for `how`."""
    objective, term, further, *_ = OBJECTIVES[name]
    taught = objective == "distil"
    return ["--objective", objective, *(["--retain-term", term] if term else []), *FORGETTING, *how, *further,
            *(["--teacher", sets["base"]] if taught else []), "--data", sets["stirred" if taught else "forget"],
            *(["--retain", sets["retain"]] if objective != "ga" else []), *(["--retain", sets["wide"]] if name.endswith("-wide") else []),
            *(["--refusals", sets["refusals"]] if objective in ("idk", "dpo") else [])]


def plan_prompt(work, name, measure, sets):
    work.add(Step(f"unlearning/{name}-prompt.tofu", [*measure, *measured(sets, "-refused")]))


def plan_own(work, name, measure, host, sets, objective):
    """The cost a user is spared: the host's own tuning by an adapter, to the same end."""
    adapter = work.add(Step(f"unlearning/{name}-{objective}.lora", ["train", "--base", host, *forgetting(objective, sets, OWN)], ".gguf", True))
    work.add(Step(f"unlearning/{name}-{objective}.tofu", [*measure, "--lora", adapter, *measured(sets)]))


def plan_delta(work, hosts, measures, sets, name, seed, alphas):
    """A delta beside the first host, measured on all of them at alphas[host]; sets: {host: its sets}."""
    first = next(iter(hosts))
    delta = work.add(Step(f"unlearning/{name}.{seed}", ["train", "-m", measures[first][1], *forgetting(name, sets[first], DELTA),
                                                        "--cache", work.path("unlearning/states"), "--seed", str(seed)], ".gguf", True))
    for host in (h for h in hosts if h in alphas):
        work.add(Step(f"unlearning/{host}.{name}.{seed}.tofu", [
            *measures[host][0], "-d", delta, "--alphas", ",".join(f"{a:g}" for a in alphas[host]), *OBJECTIVES[name].steering,
            *measured(sets[host])]))


def plan(work, hosts, tofu, seeds):
    """Adds the steps in the order of their worth; those of further seeds once a setting can be chosen."""
    sets = {name: data(work, tofu, OTHERS if i else 1) | {"base": base} for i, (name, base) in enumerate(hosts.items())}
    measures = {}
    for i, (name, base) in enumerate(hosts.items()):
        measures[name] = plan_host(work, name, base, sets[name], TUNE_OTHERS, [sets[name]["rest"]]) if i else plan_host(work, name, base, sets[name])
    for name, arm in OBJECTIVES.items():
        plan_delta(work, hosts, measures, sets, name, 0, {h: arm.strengths(not i) for i, h in enumerate(hosts)})
    for name, (measure, _) in measures.items():
        plan_prompt(work, name, measure, sets[name])
    for name, (measure, host) in measures.items():
        for objective in (o for o, arm in OBJECTIVES.items() if arm.objective != "distil"):   # which is for deltas alone
            plan_own(work, name, measure, host, sets[name], objective)
    chosen = named(choose([r for r in collect(work, hosts, intervals=False) if r.get("seed") == 0]))
    again = {name: {h: arm.further(not i) for i, h in enumerate(hosts)} for name, arm in OBJECTIVES.items() if arm.again}
    further = {chosen["objective"]: chosen["alphas"]} | again if chosen else {}
    for seed in range(1, seeds):
        for objective, alphas in further.items():
            plan_delta(work, hosts, measures, sets, objective, seed, {h: (a,) for h, a in alphas.items()})


# ------------------------------------------------------------------------------------------------------------ what came of it

KEPT = ("retain", "real_authors", "world_facts")


def columns(lines):
    """{set: {figure: [a value a record]}}"""
    out = {}
    for x in lines:
        r = x["truth_ratio"]
        one = {"probability": x["probability"], "rouge": x["rougeL_recall"], "truth": max(0.0, 1 - r) if r is not None else 0.0}
        for k, v in one.items():
            out.setdefault(x["set"], {}).setdefault(k, []).append(v)
    return out


def utility(c, picks):
    """Harmonic mean of the nine figures over the picked records."""
    means = [resample.mean(c[s][k], picks[s]) for s in KEPT for k in ("probability", "rouge", "truth")]
    return len(means) / sum(1 / max(m, 1e-12) for m in means)


def arms(path):
    """[(alpha or None, lines, total)] of a report."""
    lines, total = read_report(path)
    if "alphas" not in total:
        return [(None, lines, total)]
    return [(t["alpha"], [x for x in lines if x["alpha"] == t["alpha"]], t) for t in total["alphas"]]


def row(lines, total, twin):
    """One arm's figures; twin: the twin's columns."""
    out = {"rouge_forget": total["forget"]["rougeL_recall"], "rouge_forget_ci": total["forget"]["rougeL_recall_ci"],
           "utility": total["model_utility"], "forget_quality": total["forget_quality"], "forget_distance": total["forget_distance"],
           "stopped": sum(x["stop"] == "eos" for x in lines) / len(lines),
           "parts": {s: {k: total[s][k] for k in ("probability", "rougeL_recall", "truth_ratio")} for s in KEPT}}
    if twin:
        out["rouge_twin"] = resample.mean(twin["forget"]["rouge"])
    return out


def row_intervals(lines, twin, zero):
    """Intervals of a row, of its ROUGE-L less the twin's and of its utility beside that of alpha 0, whose columns zero has."""
    c = columns(lines)
    forget, kept = ({s: len(c[s]["rouge"]) for s in sets} for sets in (("forget",), KEPT))
    out = {"utility_ci": resample.interval(kept, lambda p: utility(c, p))}
    if twin:
        out["rouge_difference_ci"] = resample.interval(
            forget, lambda p: resample.mean(c["forget"]["rouge"], p["forget"]) - resample.mean(twin["forget"]["rouge"], p["forget"]))
    if zero:
        out["utility_ratio_ci"] = resample.interval(kept, lambda p: utility(c, p) / utility(zero, p))
    return out


def collect(work, hosts, intervals=True):
    """Rows of what is there: {"host", "kind": "twin" | "alpha 0" | "delta" | "prompt" | "tuned", ...}."""
    def whole(lines, total, twin, zero):
        return row(lines, total, twin) | (row_intervals(lines, twin, zero) if intervals else {})
    rows = []
    for i, name in enumerate(hosts):
        def report(what):
            return work.path(f"unlearning/{name}{what}.tofu.jsonl")
        if not all(os.path.exists(report(x)) for x in ("-twin", "-host")):
            continue
        (_, lines, total), = arms(report("-twin"))
        twin = columns(lines)
        rows.append({"host": name, "seen": i == 0, "kind": "twin", **whole(lines, total, None, None)})
        (_, lines, total), = arms(report("-host"))
        zero = columns(lines)
        rows.append({"host": name, "seen": i == 0, "kind": "alpha 0", "alpha": 0, **whole(lines, total, twin, None)})
        u0 = total["model_utility"]

        def add(what, fields):
            if os.path.exists(report(what)):
                for alpha, lines, total in arms(report(what)):
                    rows.append({"host": name, "seen": i == 0, **fields, **({} if alpha is None else {"alpha": alpha}),
                                 **whole(lines, total, twin, zero), "utility_alpha0": u0})
        for objective in OBJECTIVES:
            for seed in range(10):
                add(f".{objective}.{seed}", {"kind": "delta", "objective": objective, "seed": seed})
        add("-prompt", {"kind": "prompt", "objective": "refusal prompt"})
        for objective in OBJECTIVES:
            add(f"-{objective}", {"kind": "tuned", "objective": objective})
    return rows


def misses(r, quality):
    """By how much a row misses what must hold, in units of the margins; 0: all of it holds."""
    return (max(0.0, abs(r["rouge_forget"] - r["rouge_twin"]) / NEAR_ROUGE - 1)
            + max(0.0, abs(r["utility"] / r["utility_alpha0"] - 1) / NEAR_UTILITY - 1)
            + (max(0.0, 1 - r["forget_quality"] / FORGOTTEN) if quality else 0))


def over_seeds(rows):
    """One setting's rows as one: means, and of the forget quality the median."""
    quality = sorted(r["forget_quality"] for r in rows)
    out = {k: sum(r[k] for r in rows) / len(rows) for k in ("rouge_forget", "rouge_twin", "utility", "utility_alpha0")}
    return {k: rows[0][k] for k in ("host", "seen", "objective", "alpha")} | out | {
        "forget_quality": (quality[(len(rows) - 1) // 2] + quality[len(rows) // 2]) / 2, "qualities": quality, "seeds": len(rows), "of": rows}


def settings(rows, host, objective=None):
    """Those of a host, or of an objective there, each over its seeds."""
    found = {}
    for r in rows:
        if r["kind"] == "delta" and r["host"] == host and objective in (None, r["objective"]):
            found.setdefault((r["objective"], r["alpha"]), []).append(r)
    return [over_seeds(of) for of in found.values()]


def least_missed(found, quality):
    """Of the settings with the most seeds."""
    most = max(r["seeds"] for r in found)
    return min((r for r in found if r["seeds"] == most), key=lambda r: (misses(r, quality), -r["forget_quality"]))


def choose(rows):
    """{host: setting}, the host that was trained beside first: there the objective and strength that miss least, of those that do equally
    well the one of the greatest forget quality; on other hosts that objective's best strength. Of what has as many seeds as any. None:
    nothing to choose from."""
    hosts = {r["host"]: r["seen"] for r in rows if r["kind"] == "delta"}
    first = next((h for h, seen in hosts.items() if seen), None)
    if not first:
        return None
    best = least_missed(settings(rows, first), True)
    others = {h: settings(rows, h, best["objective"]) for h in hosts if h != first}
    return {first: best} | {h: least_missed(of, False) for h, of in others.items() if of}


def named(chosen):
    """What was chosen: the objective, and a strength for each host."""
    return chosen and {"objective": next(iter(chosen.values()))["objective"], "alphas": {h: r["alpha"] for h, r in chosen.items()}}
