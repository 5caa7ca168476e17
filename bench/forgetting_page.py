#!/usr/bin/env python3
"""docs/forgetting.md and docs/forgetting.svg from docs/forgetting.json (bench/forgetting.py), docs/second-skill.json (bench/second_skill.py) and
docs/forgetting_text.md.

    bench/forgetting_page.py DOCS_DIR

A line `{{MATCHED}}` of the text becomes what the controls say, `{{SCALE NAME}}` the tables of that scale, `{{SECOND}}` those of the deltas; everything that is a figure on the page
comes from the JSON.
"""
import json
import os
import sys

import forgetting_plot


def pm(mean, sd, digits=2):
    if mean is None:
        return "not reached"
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "")


def of_scale(data, run):
    return [x for x in data["arms"] if x["scale"] == run["scale"]]


def setting(r):
    forgets = r["full_forgets"] >= 0.1
    return [f"The model has {r['parameters']:,} parameters in {r['layers']} layers. Each run: {r['steps']} steps of {r['batch']} new records, {r['tokens']:,.0f} tokens; "
            f"rates {', '.join(f'{x:g}' for x in r['rates'])}; {r['seeds']} seed{'s' if r['seeds'] > 1 else ''}. Layers chosen for CoFiTune: {r['range']}.", "",
            f"Before: {r['old_nats_a_byte']:.4f} nats a byte of the old test file, {r['new_nats_a_token']:.4f} nats a token of the new one. Full fine-tuning gains "
            f"{r['full_gains']:.4f} nats a token of the new and has lost {pm(r['full_forgets'], r['full_forgets_sd'], 4)} nats a byte of the old at its end: "
            + ("more than the 0.1 below which the comparison would say nothing." if forgets else "**less than the 0.1 below which this comparison says nothing.**")]


def speed(x):
    return f"{x['tokens_per_second']:.0f} ({x['speed_beside_base']:.2f})" if x["tokens_per_second"] else ""


def table(arms):
    out = ["| method | retention | forgets, nats a byte | plasticity | trained | in all | training, FLOP | tokens/s (beside the base) | rate | seeds that reach it |",
           "|---|---|---|---|---|---|---|---|---|---|"]
    for x in sorted(arms, key=lambda x: -(x["retention"] if x["retention"] is not None else -9)):
        old = " (uses old data)" if x["old_data"] else ""
        out.append(f"| {x['method']}{old} | {pm(x['retention'], x['retention_sd'], 3)} | {pm(x['forgets'], x['forgets_sd'], 4)} | "
                   f"{pm(x['plasticity'], x['plasticity_sd'])} | {x['trainable']:,} | {x['parameters']:,} | {x['training_flops']:.2e} | {speed(x)} | {x['rate']:g} | "
                   f"{x['reached']} of {x['seeds']} |")
    return out


MASKS = [("mask on updates", "mask permuted", "importance carries no information"), ("mask on updates", "mask constant", "importance carries no information")]


def controlled(run):
    """A method, the control that would have to keep less if its claim were true, and what it means if it does not."""
    here = f"CoFiTune {run['range'].replace('%', ' %')}, up and down"
    return [("all layers, " + method, "all layers, " + control, meaning) for method, control, meaning in MASKS] + [
            (here, " layers at random, up and down", "the choice of layers carries none"),
            ("Control LLM, concat lerp, mse", "Control LLM, nothing frozen", "freezing the model keeps nothing")]


def matching(called, arms, pairs):
    """The controls among the arms that keep as much as their method, within two standard deviations."""
    arms, found, tried = [x for x in arms if x["retention"] is not None], [], 0
    for method, control, meaning in pairs:
        for m in (x for x in arms if x["method"] == method):
            for c in (x for x in arms if x["method"].endswith(control)):
                tried += 1
                sd = ((m["retention_sd"] or 0) ** 2 + (c["retention_sd"] or 0) ** 2) ** 0.5
                if m["retention"] - c["retention"] <= 2 * sd:
                    rates = "" if c["rate"] == m["rate"] else f" (at the rates {c['rate']:g} and {m['rate']:g}, each chosen on its own)"
                    found.append(f"**{called}: a control matches the method: \"{c['method']}\" keeps {pm(c['retention'], c['retention_sd'])}, \"{m['method']}\" "
                                 f"{pm(m['retention'], m['retention_sd'])}{rates}: here {meaning}.**")
    return found or [f"{called}: none of the {tried} controls that were run matches its method."]


def matched(data, deltas):
    """Scale by scale, and of deltas."""
    out = [line for run in data["runs"] for line in matching(run["scale"], of_scale(data, run), controlled(run))]
    return "\n\n".join(out + (matching("deltas", deltas["arms"], MASKS) if deltas else [])).split("\n")


def verdict(arms):
    """What beats the best of tuned full fine-tuning and WiSE-FT by more than two standard deviations, at a plasticity of 0.9."""
    lines = [x for x in arms if x["method"].startswith(("full fine-tuning", "WiSE-FT")) and x["retention"] is not None]
    best = max(lines, key=lambda x: x["retention"])
    out = [f"The best of full fine-tuning (at any rate) and WiSE-FT is {best['method']}, with a retention of {pm(best['retention'], best['retention_sd'])}. "
           "Better than that by more than two standard deviations, with a plasticity of 0.9 or more:", ""]
    good = []
    for x in arms:
        if x["control"] or x in lines or x["retention"] is None or x["reached"] < x["seeds"]:
            continue
        sd = ((x["retention_sd"] or 0) ** 2 + (best["retention_sd"] or 0) ** 2) ** 0.5
        if x["plasticity"] >= 0.9 and x["retention"] - best["retention"] > 2 * sd > 0:
            good.append(f"- {x['method']}" + (" (uses old data)" if x["old_data"] else ""))
    return out + (good or ["- nothing."])


def scale(data, name):
    run = next(r for r in data["runs"] if r["scale"] == name)
    arms = of_scale(data, run)
    return setting(run) + ["", "### Methods", ""] + table([x for x in arms if not x["control"]]) + ["", "### Controls", ""] + \
        table([x for x in arms if x["control"]]) + ["", "### What follows", ""] + verdict(arms)


def second(data):
    """A delta that is taught a second skill."""
    r = data["run"]
    (host_old, host_new), (old, new) = r["host"], r["start"]
    out = [f"Nats a token beside the host: the old test file {host_old:.3f} by the host alone and {old:.3f} under the delta as it is shipped, the new one {host_new:.3f} and {new:.3f}. "
           f"Each run: {r['steps']} steps of 8 new records; rates {', '.join(f'{x:g}' for x in r['rates'])}; {r['seeds']} seed{'s' if r['seeds'] > 1 else ''}. Full fine-tuning gains "
           f"{r['full_gains']:.3f} nats a token of the new skill and has lost {r['full_forgets']:.4f} nats a byte of the old one at its end.", "",
           "| method | retention | of the old skill's gain over the host | forgets, nats a byte | plasticity | trained | parameters at run time | rate | seeds that reach it |",
           "|---|---|---|---|---|---|---|---|---|"]
    for x in sorted(data["arms"], key=lambda x: -(x["retention"] if x["retention"] is not None else -9)):
        notes = " (uses old data)" if x["old_data"] else " (control)" if x["control"] else ""
        out.append(f"| {x['method']}{notes} | {pm(x['retention'], x['retention_sd'], 3)} | {pm(x['gain_kept'], x['gain_kept_sd'])} | {pm(x['forgets'], x['forgets_sd'], 4)} | "
                   f"{pm(x['plasticity'], x['plasticity_sd'])} | {x['trainable']:,} | {x['parameters']:,} | {x['rate']:g} | {x['reached']} of {x['seeds']} |")
    return out


def load(folder, name):
    if not os.path.exists(os.path.join(folder, name)):
        return None
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return json.load(f)


def main():
    folder = sys.argv[1]
    data, deltas = load(folder, "forgetting.json"), load(folder, "second-skill.json")
    with open(os.path.join(folder, "forgetting_text.md"), encoding="utf-8") as f:
        text = f.read().splitlines()
    page = []
    for line in text:
        name = line[2:-2] if line.startswith("{{") and line.endswith("}}") else None
        if name == "SECOND":
            page += second(deltas)
        else:
            page += [line] if not name else matched(data, deltas) if name == "MATCHED" else scale(data, name.removeprefix("SCALE "))
    with open(os.path.join(folder, "forgetting.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(page) + "\n")
    with open(os.path.join(folder, "forgetting.svg"), "w", encoding="utf-8") as f:
        f.write(forgetting_plot.plot(data))


if __name__ == "__main__":
    main()
