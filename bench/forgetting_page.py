#!/usr/bin/env python3
"""docs/forgetting.md from docs/forgetting.json (bench/forgetting.py) and docs/forgetting_text.md.

    bench/forgetting_page.py DOCS_DIR

A line `{{NAME}}` of the text becomes the part of that name; everything that is a figure on the page comes from the JSON.
"""
import json
import os
import sys


def pm(mean, sd, digits=2):
    if mean is None:
        return "not reached"
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "")


def setting(data):
    r = data["run"]
    forgets = r["full_forgets"] >= 0.1
    return [f"Scale: **{r['scale']}**. The model has {r['parameters']:,} parameters in {r['layers']} layers. Each run: {r['steps']} steps of {r['batch']} new records; "
            f"rates {', '.join(f'{x:g}' for x in r['rates'])}; {r['seeds']} seeds.", "",
            f"Before: {r['old_nats_a_byte']:.4f} nats a byte of the old test file, {r['new_nats_a_token']:.4f} nats a token of the new one. Full fine-tuning gains "
            f"{r['full_gains']:.4f} nats a token of the new and has lost {pm(r['full_forgets'], r['full_forgets_sd'], 4)} nats a byte of the old at its end: "
            + ("more than the 0.1 below which the comparison would say nothing." if forgets else "**less than the 0.1 below which this comparison says nothing.**")]


def table(arms):
    out = ["| method | retention | forgets, nats a byte | plasticity | trained | rate | seeds that reach it |", "|---|---|---|---|---|---|---|"]
    for x in sorted(arms, key=lambda x: -(x["retention"] if x["retention"] is not None else -9)):
        old = " (uses old data)" if x.get("old_data") else ""
        rate = f"{x['rate']:g}" if x.get("rate") else ""
        out.append(f"| {x['method']}{old} | {pm(x['retention'], x['retention_sd'])} | {pm(x.get('forgets'), x.get('forgets_sd'), 4)} | "
                   f"{x['plasticity']:.2f} | {x['trainable']:,} | {rate} | {x.get('reached', x['seeds'])} of {x['seeds']} |")
    return out


# what a control takes away of a method, by how their names begin and end
CONTROLLED = [("all layers, mask on updates", "all layers, mask permuted", "importance carries no information"),
              ("all layers, mask on updates", "all layers, mask constant", "importance carries no information"),
              ("CoFiTune", "at random, up and down", "the choice of layers carries none")]


def matched(data):
    """The controls that keep as much as the method, within two standard deviations."""
    arms, out = [x for x in data["arms"] if x["retention"] is not None], []
    for method, control, meaning in CONTROLLED:
        for m in (x for x in arms if x["method"].startswith(method) and x["method"].endswith(("mask on updates", "up and down")) and not x["control"]):
            for c in (x for x in arms if x["method"].endswith(control) and x["control"]):
                sd = ((m["retention_sd"] or 0) ** 2 + (c["retention_sd"] or 0) ** 2) ** 0.5
                if m["retention"] - c["retention"] <= 2 * sd:
                    out.append(f"**A control matches the method: \"{c['method']}\" keeps {pm(c['retention'], c['retention_sd'])}, \"{m['method']}\" "
                               f"{pm(m['retention'], m['retention_sd'])}: here {meaning}.**")
    return out or ["No control that was run matches its method."]


def verdict(data):
    """What beats the best of tuned full fine-tuning and WiSE-FT by more than two standard deviations, at a plasticity of 0.9."""
    arms = data["arms"]
    lines = [x for x in arms if x["method"].startswith(("full fine-tuning", "WiSE-FT")) and x["retention"] is not None]
    best = max(lines, key=lambda x: x["retention"])
    out = [f"The best of full fine-tuning (at any rate) and WiSE-FT is {best['method']}, with a retention of {pm(best['retention'], best['retention_sd'])}. "
           "Better than that by more than two standard deviations, with a plasticity of 0.9 or more:", ""]
    good = []
    for x in arms:
        if x["control"] or x in lines or x["retention"] is None or x.get("reached", x["seeds"]) < x["seeds"]:
            continue
        sd = ((x["retention_sd"] or 0) ** 2 + (best["retention_sd"] or 0) ** 2) ** 0.5
        if x["plasticity"] >= 0.9 and x["retention"] - best["retention"] > 2 * sd > 0:
            good.append(f"- {x['method']}" + (" (uses old data)" if x.get("old_data") else ""))
    return out + (good or ["- nothing."])


def main():
    folder = sys.argv[1]
    with open(os.path.join(folder, "forgetting.json"), encoding="utf-8") as f:
        data = json.load(f)
    parts = {"MATCHED": matched(data), "SETTING": setting(data), "METHODS": table([x for x in data["arms"] if not x["control"]]),
             "CONTROLS": table([x for x in data["arms"] if x["control"]]), "VERDICT": verdict(data)}
    with open(os.path.join(folder, "forgetting_text.md"), encoding="utf-8") as f:
        text = f.read().splitlines()
    page = []
    for line in text:
        name = line[2:-2] if line.startswith("{{") and line.endswith("}}") else None
        page += parts[name] if name else [line]
    with open(os.path.join(folder, "forgetting.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(page) + "\n")


if __name__ == "__main__":
    main()
