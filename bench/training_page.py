#!/usr/bin/env python3
"""docs/training.md from docs/training.json (bench/transfer_table.py, bench/train-step) and docs/training_text.md.

    bench/training_page.py DOCS_DIR

A line `{{NAME}}` of the text becomes the table of that name; everything that is a figure on the page comes from the JSON.
"""
import json
import os
import sys

NAMES = {"default": "stored", "one": "1", "tuned": "20 prompts"}


def pm(mean, sd):
    return f"{mean:.4f}" + (f" ± {sd:.4f}" if sd is not None else "")


def transfer(data):
    rows = {}
    for t in data["transfer"]:
        rows.setdefault((tuple(t["beside"]), t["variant"], t["host"]), {})[t["alpha"]] = t
    hosts = list(dict.fromkeys(h for _, _, h in rows))
    split = any("gain_unaligned" in t for t in data["transfer"])
    out = []
    for host in hosts:
        direct = next(t["gain_direct"] for t in data["transfer"] if t["host"] == host)
        out += [f"On {host}" + (f"; trained beside it alone, {direct:.4f} at its best strength:" if direct is not None else ":"), "",
                "| trained beside | variant | stored strength | strength 1 | strength from 20 prompts | kept | "
                + ("at re-tokenised steps | such steps | " if split else "") + "seeds |", "|---" * (9 if split else 7) + "|"]
        for (beside, variant, h), t in rows.items():
            if h != host:
                continue
            kept = "" if direct is None else f"{100 * t['default']['gain'] / direct:.0f} % / {100 * t['tuned']['gain'] / direct:.0f} %"
            cells = [pm(t[k]["gain"], t[k]["sd"]) + ("" if k == "one" else " (" + ", ".join(f"{a:.3g}" for a in t[k]["alphas"]) + ")")
                     for k in ("default", "one", "tuned")]
            if split:
                known = "gain_unaligned" in t["one"]
                part = [f"{t[k]['gain_unaligned']:.4f}" for k in ("default", "one", "tuned")] if known else []
                kept += f" | {' / '.join(part)} | {100 * t['one']['unaligned']:.1f} %" if known else " | | "
            seen = "" if host in beside else " (this host unseen)"
            out.append(f"| {' and '.join(beside) or 'no host'}{seen} | {variant} | {' | '.join(cells)} | {kept} | {t['one']['seeds']} |")
        out.append("")
    return out


def starts(data):
    hosts = list(data["starts"][0]["gains"]) if data["starts"] else []
    out = ["| start | shape | vocabulary | file, MB | " + " | ".join(f"{h}: at 1 / 20 prompts" for h in hosts) + " | seeds |",
           "|---" * (5 + len(hosts)) + "|"]
    for s in data["starts"]:
        cells = [f"{pm(**g['one'])} / {pm(**g['tuned'])}" for g in s["gains"].values()]
        out.append(f"| {s['start']} | {s.get('shape', '')} | {s['vocab']:,} | {s['bytes'] / 1e6:.1f} | {' | '.join(cells)} | {s['seeds']} |")
    return out


def lora(data):
    best = {}
    for x in data["lora"]:
        best.setdefault(x["host"], []).append(x)
    out = ["| host | LoRA, by learning rate | best | delta beside it | r(H) | delta beside both | of the single |", "|---|---|---|---|---|---|---|"]

    def of(host, beside, variant=None):
        return next((t["gain"] for t in data["transfer"] if t["host"] == host and t["beside"] == beside and t["alpha"] == "default"
                     and (variant is None or t["variant"] == variant)), None)
    for host, runs in best.items():
        top = max(runs, key=lambda x: x["gain"])
        single = of(host, [host])
        both = next((t["gain"] for t in data["transfer"] if t["host"] == host and host in t["beside"] and len(t["beside"]) > 1
                     and t["variant"] == "both" and t["alpha"] == "default"), None)
        rates = ", ".join(f"{x['lr']:g}: {x['gain']:.4f}" for x in sorted(runs, key=lambda x: x["lr"]))
        cells = [f"{top['gain']:.4f}", *(["", ""] if single is None else [f"{single:.4f}", f"{single / top['gain']:.2f}"]),
                 *(["", ""] if both is None or not single else [f"{both:.4f}", f"{100 * both / single:.0f} %"])]
        out.append(f"| {host} | {rates} | {' | '.join(cells)} |")
    return out


def step(data):
    s = data["step"]
    out = ["| host's batches | first epoch | states kept | PyTorch's kept too | peak memory | OpenBLAS: share of the time, GFLOPS a thread, of its best alone |",
           "|---|---|---|---|---|---|"]
    for name, x in s["rows"].items():
        out.append(f"| {name} | {x['ratio_first']:.2f} x | {x['ratio_cached']:.2f} x | {x['ratio_cached_both']:.2f} x | {x['rss_ratio']:.2f} x | {100 * x['blas_share']:.0f} %, "
                   f"{x['blas_gflops']:.1f}, {100 * x['blas_of_best']:.0f} % of {s['blas_alone_gflops']:.1f} ({s['blas_core']}) |")
    return out


def main():
    docs = sys.argv[1]
    with open(os.path.join(docs, "training.json"), encoding="utf-8") as f:
        data = json.load(f)
    tables = {"TRANSFER": transfer, "STARTS": starts, "LORA": lora, "STEP": step}
    out = []
    with open(os.path.join(docs, "training_text.md"), encoding="utf-8") as f:
        for line in f.read().splitlines():
            name = line.strip("{}")
            out += tables[name](data) if line.startswith("{{") else [line]
    with open(os.path.join(docs, "training.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
