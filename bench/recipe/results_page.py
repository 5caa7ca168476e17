"""docs/results.json from what the recipes' folder holds, and docs/results.md with its plot from that: no figure is typed."""
import json
import os
import re

import instruction
import results_plot
import resample
import unlearning


def figures(work, hosts, earlier):
    """What docs/results.json holds. earlier: what docs/training.json has of adapters, [{"host", "lr", "gain"}]."""
    return {"instruction": [instruction_row(h, [x for x in earlier if x["host"] == h["host"]]) for h in instruction.collect(work, hosts)],
            **unlearning_rows(unlearning.collect(work, hosts)),
            "steps": [{"step": name, **work.record(name)} for name in sorted(work.steps) if os.path.exists(work.result(work.steps[name]))]}


def with_kept(data, work):
    """The figures, and what the page that is kept has beyond them: arms and steps that were not measured in this folder, and where
    a whole recipe was not planned, all that is said of it."""
    kept, planned = work.kept, {name.split("/")[0] for name in work.steps}
    if not kept:
        return data
    for i, row in enumerate(data["instruction"]):
        before = next((r["arms"] for r in kept["instruction"] if r["host"] == row["host"]), {})
        names = [*instruction.ARMS, *("lora" if r == row["lora_rate"] else f"lora-{r}" for r in instruction.RATES)]
        arms = {n: {**before.get(n, {}), **row["arms"].get(n, {})} for n in names if n in before or n in row["arms"]}
        data["instruction"][i] = instruction_row({**row, "arms": arms}, [])
    if "unlearning" not in planned:
        data.update({key: kept[key] for key in kept if key.startswith("unlearning")})
    mine = {s["step"] for s in data["steps"]}
    beyond = [s for s in kept["steps"] if s["step"] not in mine and (s["step"] in work.steps or s["step"].split("/")[0] not in planned)]
    data["steps"] = sorted(data["steps"] + beyond, key=lambda s: s["step"])
    return data


def instruction_row(h, earlier):
    """A host whose adapters are not measured here has them from an earlier run on the same pairs, steps and rates, where there was one."""
    arms = h["arms"]
    if earlier and "lora" not in arms and "base" in arms:
        best = max(earlier, key=lambda x: x["gain"])
        h["lora_rate"] = f"{best['lr']:g}"
        arms["lora"] = {"nll": arms["base"]["nll"] - best["gain"], "earlier": True}
        for name in (n for n in arms if n not in ("base", "lora")):
            arms[name]["closed"] = (arms["base"]["nll"] - arms[name]["nll"]) / best["gain"]

    def of(arm, key):
        return arms.get(arm, {}).get(key)
    return {"host": h["host"], "seen": h["seen"], "nll_base": of("base", "nll"), "nll_delta": of("one", "nll"), "nll_lora": of("lora", "nll"),
            "stop_base": of("base", "stop"), "stop_delta": of("one", "stop"), "length_ratio": of("one", "length_ratio"),
            "lora_rate": h["lora_rate"], "arms": arms}


def unlearning_rows(rows):
    deltas = [r for r in rows if r["kind"] == "delta"]
    return {"unlearning": deltas, "unlearning_beside": [r for r in rows if r["kind"] != "delta"],
            "unlearning_chosen": unlearning.named(unlearning.choose(rows))}


# ------------------------------------------------------------------------------------------------------------- statements

def statement(text, holds=None, measured=""):
    """holds None: not measured yet."""
    return {"text": text, "holds": holds, "measured": measured}


def closes_half(what, host, arm):
    text = f"{what} closes at least half of the gap in NLL per byte between {host} alone and LoRA-tuned"
    if "closed" not in arm:
        return statement(text)
    spread = f" ({span(arm['closed_ci'], 100, 0)})" if "closed_ci" in arm else ", by adapters of an earlier run"
    return statement(text, arm["closed"] >= instruction.CLOSED, f"{100 * arm['closed']:.0f} %" + spread)


def instruction_statements(data):
    out = []
    for r in data["instruction"]:
        one = r["arms"].get("one", {})
        out.append(closes_half("The delta", r["host"], one))
        if r["seen"]:
            continue
        if "stop" not in one:
            out.append(statement(f"Steered, {r['host']} stops by itself in over 80 % of its answers, of a good length and hardly any empty"))
            continue
        out.append(statement(f"Steered, {r['host']} stops by itself in over 80 % of its answers", one["stop"] > instruction.STOPS,
                             f"{100 * one['stop']:.1f} % ({span(one['stop_ci'], 100, 1)})"))
        lo, hi = instruction.LENGTH
        out.append(statement(f"with a median length within {lo} to {hi} of the references'", lo <= one["length_ratio"] <= hi,
                             f"{one['length_ratio']:.2f} ({span(one['length_ratio_ci'], 1, 2)})"))
        out.append(statement("and under 1 % empty answers", one["empty"] < instruction.EMPTY, f"{100 * one['empty']:.1f} %"))
    return out


def chosen_row(data, host):
    """The chosen setting on a host, over its seeds."""
    return (unlearning.choose(data["unlearning"]) or {}).get(host)


def seeds_text(values):
    return f" ({len(values)} seeds: {', '.join(values)})" if len(values) > 1 else ", one seed"


def unlearning_statements(data):
    out = []
    for zero in (r for r in data["unlearning_beside"] if r["kind"] == "alpha 0"):
        host, above = zero["host"], zero["rouge_forget"] - zero["rouge_twin"]
        out.append(statement(f"At alpha 0 {host} knows: ROUGE-L on the forget set at least 0.25 above its twin's", above >= unlearning.KNOWS_ROUGE,
                             f"{above:.3f} ({span(zero['rouge_difference_ci'], 1, 3)})"))
        out.append(statement("and forget quality below 0.001", zero["forget_quality"] < unlearning.KNOWS_QUALITY, f"{zero['forget_quality']:.2g}"))
        r = chosen_row(data, host)
        if not r:
            out.append(statement(f"Steered, {host}'s ROUGE-L on the forget set is within 0.05 of the twin's, its utility within 5 % of that at alpha 0"))
            continue
        off, ratio = r["rouge_forget"] - r["rouge_twin"], r["utility"] / r["utility_alpha0"]
        out.append(statement(f"Steered at {r['alpha']:g}, {host}'s ROUGE-L on the forget set is within 0.05 of the twin's",
                             abs(off) <= unlearning.NEAR_ROUGE, f"{off:+.3f}" + seeds_text([f"{x['rouge_forget'] - x['rouge_twin']:+.3f}" for x in r["of"]])))
        out.append(statement("with utility within 5 % of that at alpha 0", abs(ratio - 1) <= unlearning.NEAR_UTILITY, f"{100 * (ratio - 1):+.1f} %"
                             + seeds_text([f"{100 * (x['utility'] / x['utility_alpha0'] - 1):+.1f}" for x in r["of"]])))
        if r["seen"]:
            out.append(statement("and forget quality above 0.05", r["forget_quality"] > unlearning.FORGOTTEN, f"{r['forget_quality']:.2g}"
                                 + seeds_text([f"{q:.2g}" for q in r["qualities"]])))
    return out


# ------------------------------------------------------------------------------------------------------------------ the page

def span(ci, scale, digits):
    return f"{scale * ci[0]:.{digits}f} to {scale * ci[1]:.{digits}f}"


def with_ci(r, key, scale=1, digits=3):
    """An earlier run's figures have no interval."""
    if key not in r:
        return ""
    return f"{scale * r[key]:.{digits}f}" + (f" ({span(r[key + '_ci'], scale, digits)})" if key + "_ci" in r else "")


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(r) + " |" for r in rows), ""]


def statement_table(statements):
    word = {True: "**holds**", False: "**does not hold**", None: "not measured"}
    return table(["statement", "", "measured"], [[s["text"], word[s["holds"]], s["measured"]] for s in statements])


ARM_NAMES = {"base": "the host alone", "one": "**the one delta**",
             "untaught": "a delta that learnt from the pairs alone, without a teacher", "own": "the same, trained beside this host",
             "shuffled": "control: the same beside the first host, of shuffled answers"}


def instruction_table(data):
    rows = []
    for h in data["instruction"]:
        for name, arm in h["arms"].items():
            shown = ARM_NAMES.get(name) or (f"LoRA of the host, rate {h['lora_rate']}, chosen" if name == "lora" else f"LoRA, rate {name[5:]}")
            shown += " in [training.json](training.json)" if arm.get("earlier") else ""
            seeds = ", ".join(f"{x:.4f}" for x in arm["nll_seeds"]) if len(arm.get("nll_seeds", [])) > 1 else ""
            rows.append([h["host"] + ("" if h["seen"] else " (unseen)"), shown, with_ci(arm, "nll", 1, 4), seeds, with_ci(arm, "closed", 100, 0),
                         with_ci(arm, "stop", 100, 0), with_ci(arm, "length_ratio", 1, 2), with_ci(arm, "empty", 100, 0)])
    return table(["host", "", "NLL per byte", "its seeds", "gap closed, %", "stops, %", "length / reference", "empty, %"], rows)


def unlearning_cells(r):
    return [with_ci(r, "rouge_forget"), with_ci(r, "utility"), f"{r['forget_quality']:.2g}" if r.get("forget_quality") is not None else "",
            f"{100 * r['stopped']:.0f}"]


def beside_table(data):
    names = {"twin": "twin: never saw the forget set", "alpha 0": "alpha 0: knows it", "prompt": "refusal prompt"}
    rows = [[r["host"], names.get(r["kind"]) or f"the host itself tuned, {r['objective']}", *unlearning_cells(r)] for r in data["unlearning_beside"]]
    return table(["host", "", "ROUGE-L on the forget set", "model utility", "forget quality", "stops, %"], rows)


def change(ratio):
    """In per cent. A harmonic mean can be next to 0, and a ratio to it any number."""
    return f"{100 * (ratio - 1):+.1f}" if ratio < 10 else "over +900"


def sweep_table(data):
    rows = [[r["host"] + ("" if r["seen"] else " (unseen)"), r["objective"], str(r["seed"]), f"{r['alpha']:g}", *unlearning_cells(r),
             f"{change(r['utility'] / r['utility_alpha0'])} ({' to '.join(change(x) for x in r['utility_ratio_ci'])})"]
            for r in data["unlearning"]]
    return table(["host", "objective", "seed", "alpha", "ROUGE-L on the forget set", "model utility", "forget quality", "stops, %",
                  "utility beside alpha 0, %"], rows)


def parts_table(data):
    """What the utility is the harmonic mean of, at alpha 0 and at the chosen setting's first seed."""
    rows = []
    for zero in (r for r in data["unlearning_beside"] if r["kind"] == "alpha 0"):
        chosen = chosen_row(data, zero["host"])
        for name, r in [("alpha 0", zero)] + ([(f"alpha {chosen['alpha']:g}", chosen["of"][0])] if chosen else []):
            rows.append([zero["host"], name, *(f"{v:.3f}" for part in r["parts"].values() for v in part.values())])
    return table(["host", "", *(f"{s}: {k}" for s in ("retain", "real authors", "world facts") for k in ("probability", "ROUGE-L", "truth ratio"))], rows)


def step_table(data):
    def seconds(x):
        return "made before" if x is None else f"{x:,.0f}"
    rows = [[s["step"], seconds(s["seconds"]), seconds(s["cpu_seconds"]), f"`{s['command']}`"] for s in data["steps"]]
    known = [s for s in data["steps"] if s["seconds"] is not None]
    total = f"{len(known)} steps were timed: {sum(s['seconds'] for s in known) / 60:.0f} minutes, {sum(s['cpu_seconds'] for s in known) / 60:.0f} of a core."
    return [total, "", *table(["step", "s", "s of a core", "command"], rows)]


def page(data, text):
    """The page: the text, with each line {{NAME}} replaced by the table of that name."""
    tables = {"INSTRUCTION_STATEMENTS": lambda d: statement_table(instruction_statements(d)), "INSTRUCTION": instruction_table,
              "UNLEARNING_STATEMENTS": lambda d: statement_table(unlearning_statements(d)), "BESIDE": beside_table, "SWEEP": sweep_table,
              "CHOSEN": chosen_text, "PARTS": parts_table, "PLOT": plot_text, "STEPS": step_table}
    out, said = [], settings()
    for line in text.splitlines():
        name = line.strip("{}")
        out += tables[name](data) if line.startswith("{{") and name in tables else [re.sub(r"{{(\w+)}}", lambda m: said[m[1]], line)]
    return "\n".join(out).rstrip("\n") + "\n"


def plot_text(data):
    if not data["unlearning"]:
        return []
    return ["![Forget quality and ROUGE-L on the forget set against model utility](results-unlearning.svg)", "",
            "A line is an objective, a point a strength, small points further seeds; the shaded part is where the demands are met.", ""]


def settings():
    """What the text says of the recipes' settings: {name: words}."""
    def after(options, flag):
        return options[options.index(flag) + 1]
    u, terms = unlearning, {}
    wide, taught, late = (u.OBJECTIVES[name] for name in ("npo-wide", "distil-wide", "late-wide"))
    for name, arm in u.OBJECTIVES.items():
        terms.setdefault(arm.term, []).append(f"`{name}`")
    return {
        "one_steps": after(instruction.TAUGHT, "--max-steps"), "rates": ", ".join(instruction.RATES), "prompts": str(instruction.PROMPTS), "answer_tokens": after(instruction.ANSWER, "-n"),
        "steps": after(instruction.STEPS, "--max-steps"), "draws": f"{resample.draws:,}",
        "forget": str(abs(u.SETS["forget"][1])), "retain": str(u.SETS["retain"][1]),
        "forget_others": str(abs(int(u.OTHERS * u.SETS["forget"][1]))), "retain_others": str(int(u.OTHERS * u.SETS["retain"][1])), "authors": str(u.SETS["real-authors"][1]),
        "facts": str(u.SETS["world-facts"][1]), "tune_rank": after(u.TUNE, "--lora"), "tune_epochs": after(u.TUNE, "--epochs"),
        "tune_batch": after(u.TUNE, "--batch"), "tune_rate": after(u.TUNE, "--lr"),
        "questions": f"{instruction.QUESTIONS:,}",
        "rate_others": after(u.TUNE_OTHERS, "--lr"), "epochs_others": after(u.TUNE_OTHERS, "--epochs"), "forget_epochs": after(u.FORGETTING, "--epochs"),
        "forget_batch": after(u.FORGETTING, "--batch"), "alphas": ", ".join(f"{a:g}" for a in u.ALPHAS), "tofu_tokens": after(u.MEASURE, "-n"), "wide": str(u.WIDE),
        "wide_weight": after(wide.options, "--retain-weight"), "wide_epochs": after(wide.options, "--epochs"),
        "stirred": str(u.STIRRED), "taught_alphas": ", ".join(f"{a:g}" for a in taught.alphas),
        "taught_steps": after(taught.options, "--max-steps"), "taught_rate": after(taught.options, "--lr"),
        "late_alphas": ", ".join(f"{a:g}" for a in late.alphas), "late_alphas_others": ", ".join(f"{a:g}" for a in late.others),
        "late_steps": after(late.options, "--max-steps"),
        "late_start": after(late.steering, "--alpha-start"), "own_rank": after(u.OWN, "--lora"), "terms": "; ".join(f"{', '.join(names)}: {term or 'its own'}" for term, names in terms.items()), "refuse": u.REFUSE,
    }


def chosen_text(data):
    c = data["unlearning_chosen"]
    if not c:
        return ["Nothing is measured yet.", ""]
    return [f"Chosen by the rule: **{c['objective']}**, " + ", ".join(f"at {a:g} on {h}" for h, a in c["alphas"].items()) + ".", "", *gains_text(data)]


def gains_text(data):
    """Settings that would meet all demands if a utility above that at alpha 0 were no miss; of hosts that were not trained beside too."""
    hosts = dict.fromkeys(r["host"] for r in data["unlearning"])
    met = [r for h in hosts for r in unlearning.settings(data["unlearning"], h) if abs(r["rouge_forget"] - r["rouge_twin"]) <= unlearning.NEAR_ROUGE
           and r["forget_quality"] > unlearning.FORGOTTEN and r["utility"] > (1 - unlearning.NEAR_UTILITY) * r["utility_alpha0"]]
    if not met:
        return []
    return ["The rule counts a utility that rises as a miss, too, as the demand is worded. ROUGE-L and forget quality are met, and no utility is lost, by:", "",
            *(f"- **{r['objective']}** at {r['alpha']:g} ({r['seeds']} seed{'s' * (r['seeds'] > 1)}) on {r['host']}" + ("" if r["seen"] else ", which it never saw")
              + f": ROUGE-L {r['rouge_forget'] - r['rouge_twin']:+.3f}, forget quality {r['forget_quality']:.2g}, utility "
              f"{100 * (r['utility'] / r['utility_alpha0'] - 1):+.1f} %." for r in met), ""]


def write(docs, work, hosts):
    earlier = []
    if os.path.exists(os.path.join(docs, "training.json")):
        with open(os.path.join(docs, "training.json"), encoding="utf-8") as f:
            earlier = json.load(f)["lora"]
    data = with_kept(figures(work, hosts, earlier), work)
    with open(os.path.join(docs, "results_text.md"), encoding="utf-8") as f:
        text = f.read()
    files = {"results.json": json.dumps(data, indent=1, ensure_ascii=False) + "\n", "results.md": page(data, text)}
    if data["unlearning"]:
        files["results-unlearning.svg"] = results_plot.unlearning(data)
    for name, text in files.items():
        with open(os.path.join(docs, name + ".part"), "w", encoding="utf-8") as f:
            f.write(text)
        os.replace(os.path.join(docs, name + ".part"), os.path.join(docs, name))
