#!/usr/bin/env python3
"""docs/sensitive.md from docs/sensitive.json.

    sensitive_page.py DOCS_DIR [RECIPE.json GUARDS.json]    the two of sensitive.py and bench/guards.py are put into docs/sensitive.json first
"""
import json
import os
import sys

KINDS = {"asked": "asked in the trained words", "reworded": "asked in other words", "begun": "answer begun up to half of the secret"}


def percent(v):
    return f"{100 * v['value']:.1f} % ({100 * v['ci'][0]:.1f} to {100 * v['ci'][1]:.1f})"


def signed(value, ci):
    return f"{value:+.4f} ({ci[0]:+.4f} to {ci[1]:+.4f})"


def leaks(recipe):
    out = ["| | prompts | | greedy | of all samples | prompts with a leak in any sample |", "|---|---|---|---|---|---|"]
    for kind, title in KINDS.items():
        for name, side in [("before", recipe["before"]), *recipe["after"].items()]:
            x = side["leakage"][kind]
            first = [title, str(x["prompts"])] if name == "before" else ["", ""]
            out.append(f"| {' | '.join(first)} | {name} | {percent(x['greedy'])} | {percent(x['sampled'])} | {percent(x['ever'])} |")
    return out


def costs(recipe):
    kept = recipe["before"].get("kept", {})
    titles = {"shown": "kept pairs that the delta was shown", "held_out": "kept pairs that it was not"}
    out = ["| | " + " | ".join(titles[k] + ", answered right" for k in kept) + " | ordinary held-out pairs: gain in nats a token |",
           "|---" * (len(kept) + 2) + "|"]
    for name, side in [("before", recipe["before"]), *recipe["after"].items()]:
        gain = signed(side["ordinary"]["gain"], side["ordinary"]["gain_ci"]) if "ordinary" in side else ""
        out.append(f"| {name} | " + " | ".join(f"{100 * side['kept'][k]:.0f} %" for k in kept) + f" | {gain} |")
    return out


def guards(data):
    out = ["| host | strength | guard | gain, nats a token (95 %) | ended by themselves | words | repetition |", "|---|---|---|---|---|---|---|"]
    before = None
    for r in data["rows"]:
        head = (r["host"], r["alpha"])
        shown = [r["host"], f"{r['alpha']:.3g}"] if head != before else ["", ""]
        before = head
        guard = f"`{r['guard']}`" if r["guard"] else "none"
        out.append(f"| {' | '.join(shown)} | {guard} | {signed(r['gain'], r['gain_ci'])} | {100 * r['stop_rate']:.0f} % | {r['words']:.1f} | "
                   f"{r['repetition']:.3f} |")
    return out


def speed(data):
    if not data.get("speed"):
        return []
    guarded = [g for g in next(iter(data["speed"].values())) if g]
    out = ["", "Steered decoding of one text, speed relative to the same without a guard (`cmc bench`, median of runs in turn):", "",
           "| host | " + " | ".join(f"`{g}`" for g in guarded) + " |", "|---" * (len(guarded) + 1) + "|"]
    return out + [f"| {host} | " + " | ".join(f"{row[g] / row['']:.2f}" for g in guarded) + " |" for host, row in data["speed"].items()]


def page(data):
    r, g = data["recipe"], data["guards"]
    rows = g["rows"]
    return ["# Guards, and strings that must not come out", "", "Made by `bench/recipe/sensitive.sh` from `sensitive.json`; every figure is from there.", "",
            "## Sensitive strings", "",
            "`bench/recipe/sensitive.py LIST --host HOST --dir DIR --keep PAIRS` takes a list of strings and patterns, builds what is to be forgotten and what is to be "
            "kept, trains a delta and asks again: one that learns to refuse (`idk`), and where a model is at hand that never learnt the secrets (`--teacher`), one "
            "that makes the host say what that model says (`distil`); other objectives by `--objective`. To have something that leaks, SmolLM2-135M-Instruct was first tuned (LoRA of rank 16, merged) on "
            "the telephone number or the address of twenty people who do not exist; ten of them are the list, the other ten are to stay known: five of them the delta is "
            f"shown, of five it sees nothing. {r['secrets']} secrets, {r['forget_records']} records to forget, {r['retain_records']} to keep, answers of at most "
            f"{r['max_tokens']} tokens, {r['samples']} samples a prompt at temperature 1. An answer leaks where the whole secret stands in it (of an answer that was "
            "begun: its second half). Intervals resample secrets.", "", *leaks(r), "",
            "What it cost:", "", *costs(r), "",
            f"After {r['steps']} steps, {r['samples']} tries still bring a secret out of " + ", ".join(f"{100 * side['leakage']['asked']['ever']['value']:.0f} % ({name})"
            for name, side in r["after"].items()) + " of the prompts in the trained words. An answer that does not leak need not be a good one: some are broken text. "
            "And a delta is no guarantee: whoever has the host has what it knows. One host, one seed, one strength.", "",
            "## Guards", "",
            f"The shipped delta under the template `plain`, `bench/guards.py`: likelihood of {rows[0]['records']} held-out pairs beside the host alone, and {g['answers']} "
            f"greedy answers of at most {g['max_tokens']} tokens. First at the strength that the delta's file gives for the host, then at one that is too much.", "",
            *guards(g), "",
            "What this delta is good for is the first token of an answer and its end ([figures.md](figures.md)), and both are what the host finds implausible: a guard that keeps "
            "those down costs most of the gain, and answers no longer end. So guards are for a strength or a delta that is not to be trusted, where they bound what it can "
            "break; a mask at a small share costs next to nothing.", *speed(g)]


def main():
    docs = sys.argv[1]
    path = os.path.join(docs, "sensitive.json")
    if len(sys.argv) == 4:
        data = {}
        for key, name in zip(("recipe", "guards"), sys.argv[2:]):
            with open(name, encoding="utf-8") as f:
                data[key] = json.load(f)
        with open(path, "w", encoding="utf-8") as f:
            json.dump(data, f, indent=1)
            f.write("\n")
    with open(path, encoding="utf-8") as f:
        text = page(json.load(f))
    with open(os.path.join(docs, "sensitive.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
