#!/usr/bin/env python3
"""Two recipes and the page of their results: one instruction delta for several hosts, and unlearning (TOFU).

    bench/recipe/results.py [options] WORK NAME=MODEL.gguf...

The deltas are trained beside the first host and applied to all. Every training and measurement is a command of cmc whose result
is kept in WORK: what is there is not made again, what was interrupted goes on, and a run with more seeds or hosts adds what they
need. In the end docs/results.json, docs/results.md and its plots are made from what WORK holds.
"""
import argparse
import json
import os
import sys

import instruction
import resample
import results_page
import unlearning
from work import Work

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))


def page_before(docs):
    path = os.path.join(docs, "results.json")
    if not os.path.exists(path):
        sys.exit(f"results.py: {path}: not found; --keep is for a page that was made before")
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work", metavar="WORK", help="the folder of what is kept")
    p.add_argument("hosts", metavar="NAME=MODEL.gguf", nargs="+")
    p.add_argument("--tofu", metavar="DIR", help="where TOFU's JSON files are; without it there is no unlearning")
    p.add_argument("--seeds", type=int, default=3, help="of the deltas, at the chosen setting (default 3)")
    p.add_argument("--only", action="append", default=[], metavar="WORD", help="run the steps in whose name WORD is (may be repeated)")
    p.add_argument("--minutes", type=float, help="begin no step after so many minutes")
    p.add_argument("-t", "--threads", type=int, default=0, help="of every command; 0: one for each core. 1 is best where cores are shared")
    p.add_argument("--no-page", action="store_true", help="run the steps alone")
    p.add_argument("--keep", action="store_true", help="what WORK lacks stays as the page has it: arms, steps, the rates that were chosen, and "
                   "without --tofu all of unlearning")
    p.add_argument("--list", action="store_true", help="print the commands that are still to run, and run none")
    p.add_argument("--cmc", default=os.environ.get("CMC", os.path.join(ROOT, "cmc")), help="the program (default ./cmc, or $CMC)")
    p.add_argument("--docs", default=os.path.join(ROOT, "docs"), help="where the page goes (default docs)")
    p.add_argument("--draws", type=int, default=resample.draws, help="resamples behind an interval (default %(default)s)")
    a = p.parse_args()
    resample.draws = a.draws
    hosts = {name: os.path.realpath(path) for name, path in (h.split("=", 1) for h in a.hosts)}
    roots = {path: f"{name}.gguf" for name, path in hosts.items()} | {ROOT + "/": ""}
    if a.tofu:
        roots[os.path.realpath(a.tofu)] = "TOFU"
        for file, _ in unlearning.SETS.values():
            if not os.path.isfile(os.path.join(a.tofu, file)):
                sys.exit(f"results.py: {os.path.join(a.tofu, file)}: not found; --tofu names a folder with TOFU's files (arXiv 2401.06121)")
    work = Work(a.work, os.path.realpath(a.cmc), roots, a.threads, page_before(a.docs) if a.keep else None)
    left, planned = [], -1
    while planned < len(work.steps):     # what is measured decides what else is to be measured
        planned = len(work.steps)
        if a.tofu:
            unlearning.plan(work, hosts, a.tofu, a.seeds)
        instruction.plan(work, hosts, a.seeds)
        left = work.run(a.only, a.minutes, a.list)
        if a.list:
            return
    if not a.no_page:
        results_page.write(a.docs, work, hosts)
    if left:
        sys.exit(f"{len(left)} steps are left: {' '.join(left)}")


if __name__ == "__main__":
    main()
