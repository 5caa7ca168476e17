#!/usr/bin/env python3
"""The recipes' driver and page (bench/recipe/results.py) with a program that answers in cmc's place. The last line counts.

What stands for cmc notes its command and writes a result of the right form: the host alone has the highest NLL, an adapter the lowest,
the delta's falls between; a tuned host knows the forget set, a strength of 1 takes just that away, more strength takes everything away.
"""
import importlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
RECIPE = os.path.join(ROOT, "bench/recipe")

STUB = r'''
import json, os, sys
a = sys.argv[1:]
def after(word, n=1):
    return a[a.index(word) + n] if word in a else None
def count(path):
    return sum(1 for line in open(path) if line.strip())
out = after("-o")
with open(os.environ["STUB_LOG"], "a") as f:
    f.write(" ".join(a) + "\n")
if os.environ.get("STUB_FAIL", "\0") in (out or ""):
    sys.exit(1)
for word in ("-m", "--base", "-d", "--lora", "--reference", "--teacher"):   # what a step works with must be there
    if a[0] != "train" or word != "--lora":
        p = after(word)
        if p and not os.path.exists(p.split("=")[0]):
            sys.exit(1)
lines, total = [], {}
if a[:2] == ["eval", "nll"]:
    per = 40 if after("--lora") else 70 if after("-d") and "shuffled" not in after("-d") else 100
    lines = [{"n": i + 1, "nll": per + i % 3, "bytes": 100} for i in range(count(after("-f")))]
    total = {"nll_per_byte": per / 100 + ("0.001" in (after("--lora") or "")) * 0.01}
elif a[:2] == ["eval", "text"]:
    stops = bool(after("-d") or after("--lora"))
    lines = [{"n": i + 1, "words": 20 if stops else 0, "stop": "eos" if stops or i % 4 == 0 else "length"} for i in range(count(after("-f")))]
elif a[:2] == ["eval", "tofu"]:
    alphas = [float(x) for x in after("--alphas").split(",")] if after("--alphas") else [None]
    knows, totals = "-host" in after("-m"), []
    for x in alphas:
        left = (max(0.0, 1 - x) if x is not None else 1.0) if knows else 0.0
        rouge, kept = 0.3 + 0.5 * left, 0.5 if x is None or x <= 1 else 0.2
        for s in ("forget", "retain", "real_authors", "world_facts"):
            for i in range(count(after("--" + s.replace("_", "-")))):
                v = rouge if s == "forget" else kept
                lines.append({**({} if x is None else {"alpha": x}), "set": s, "n": i + 1, "probability": v, "rougeL_recall": v,
                              "truth_ratio": 1 - v, "stop": "eos"})
        totals.append({**({} if x is None else {"alpha": x}), "forget": {"rougeL_recall": rouge, "rougeL_recall_ci": [rouge - 0.01, rouge + 0.01]},
                       **{s: {"probability": kept, "rougeL_recall": kept, "truth_ratio": kept} for s in ("retain", "real_authors", "world_facts")},
                       "model_utility": kept, "forget_quality": 1e-9 ** left if after("--reference") else None, "forget_distance": left})
    total = {"alphas": totals} if after("--alphas") else totals[0]
if a[0] == "run":     # new words, so that it repeats none
    for i in range(count(after("-f"))):
        print(json.dumps({"n": i + 1, "text": f" is w{i} x{i} y{i} z{i}?", "stop": "eos" if i % 3 else "length"}))
    sys.exit(0)
with open(out, "w") as f:
    f.writelines(json.dumps(x) + "\n" for x in lines)
    if total or lines:
        f.write(json.dumps({"total": total}) + "\n")
'''


class Recipes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory()
        cls.dir = cls.tmp.name
        stub = cls.at("cmc")
        with open(stub, "w", encoding="utf-8") as f:
            f.write(f"#!{sys.executable}\n{STUB}")
        os.chmod(stub, stat.S_IRWXU)
        os.mkdir(cls.at("tofu"))
        for name, n in (("forget05", 120), ("retain", 100), ("real_authors", 6), ("world_facts", 5)):
            with open(cls.at(f"tofu/{name}_perturbed.json"), "w", encoding="utf-8") as f:
                for i in range(n):
                    f.write(json.dumps({"question": f"{name} {i}?", "answer": "a", "paraphrased_answer": "b", "perturbed_answer": ["c"]}) + "\n")
        for name in ("one.gguf", "two.gguf"):
            open(cls.at(name), "w", encoding="utf-8").close()
        cls.run_driver()

    @classmethod
    def tearDownClass(cls):
        cls.tmp.cleanup()

    @classmethod
    def at(cls, name):
        return os.path.join(cls.dir, name)

    @classmethod
    def run_driver(cls, work="work", options=(), fail="\n", tofu=True):
        """Gives the exit status and the commands that it ran."""
        docs = cls.at(f"docs-{work}")
        os.makedirs(docs, exist_ok=True)
        with open(os.path.join(docs, "results_text.md"), "w", encoding="utf-8") as f:
            f.write("words\n\n{{INSTRUCTION_STATEMENTS}}\n{{INSTRUCTION}}\n{{UNLEARNING_STATEMENTS}}\n{{BESIDE}}\n{{CHOSEN}}\n{{PARTS}}\n{{PLOT}}\n{{SWEEP}}\n{{STEPS}}\n")
        log = cls.at("log")
        open(log, "w", encoding="utf-8").close()
        p = subprocess.run([sys.executable, os.path.join(RECIPE, "results.py"), "--cmc", cls.at("cmc"), "--docs", docs,
                            *(["--tofu", cls.at("tofu")] if tofu else []), "--draws", "20", *options, cls.at(work), f"One={cls.at('one.gguf')}", f"Two={cls.at('two.gguf')}"],
                           capture_output=True, env={**os.environ, "STUB_LOG": log, "STUB_FAIL": fail})
        cls.errors = p.stderr.decode()
        with open(log, encoding="utf-8") as f:
            return p.returncode, f.read().splitlines()

    def data(self, work="work"):
        with open(self.at(f"docs-{work}/results.json"), encoding="utf-8") as f:
            return json.load(f)

    def page(self, work="work"):
        with open(self.at(f"docs-{work}/results.md"), encoding="utf-8") as f:
            return f.read()

    def test_keys(self):
        d = self.data()
        self.assertEqual([(r["host"], r["seen"]) for r in d["instruction"]], [("One", True), ("Two", False)])
        for r in d["instruction"]:
            self.assertLessEqual({"nll_base", "nll_delta", "nll_lora", "stop_base", "stop_delta", "length_ratio"}, set(r))
        for r in d["unlearning"]:
            self.assertLessEqual({"host", "seen", "objective", "alpha", "rouge_forget", "rouge_twin", "utility", "utility_alpha0",
                                  "forget_quality"}, set(r))

    def test_instruction_figures(self):
        r = self.data()["instruction"][1]
        self.assertAlmostEqual(r["nll_base"] - r["nll_delta"], 0.3)
        self.assertAlmostEqual(r["arms"]["one"]["closed"], 0.5)
        self.assertAlmostEqual(r["arms"]["shuffled"]["closed"], 0)
        self.assertAlmostEqual(r["arms"]["lora"]["closed"], 1)
        self.assertEqual(len(r["arms"]["one"]["nll_seeds"]), 3)
        self.assertEqual((r["stop_base"], r["stop_delta"], r["arms"]["one"]["empty"], r["arms"]["base"]["empty"]), (0.25, 1, 0, 1))

    def test_rate_is_chosen_on_other_pairs(self):
        self.assertEqual({r["lora_rate"] for r in self.data()["instruction"]}, {"0.0005"})

    def test_setting_is_chosen(self):
        chosen = self.data()["unlearning_chosen"]
        self.assertEqual(chosen["alphas"], {"One": 1, "Two": 1})
        seeds = {r["seed"] for r in self.data()["unlearning"] if r["objective"] == chosen["objective"]}
        self.assertEqual(seeds, {0, 1, 2})

    def test_seeds_decide(self):
        """Of what has the most seeds, by their means."""
        sys.path.insert(0, RECIPE)
        unlearning, d = importlib.import_module("unlearning"), self.data()
        rows = [{**r, "utility": r["utility_alpha0"], "rouge_forget": r["rouge_twin"], "forget_quality": 0.5} for r in d["unlearning"] if r["objective"] != "kl"]
        first = next(r for r in rows if r["host"] == "One")
        rows += [{**first, "objective": "kl", "seed": 0, "forget_quality": 1}]
        self.assertNotEqual(unlearning.choose(rows)["One"]["objective"], "kl")
        off = 1.5 * unlearning.NEAR_UTILITY
        rows += [{**first, "objective": "kl", "seed": s, "forget_quality": 1, "utility": x * first["utility_alpha0"]} for s, x in ((1, 1 + off), (2, 1 - off))]
        chosen = unlearning.choose(rows)
        self.assertEqual((list(chosen)[0], chosen["One"]["objective"], chosen["One"]["seeds"]), ("One", "kl", 3))
        self.assertAlmostEqual(chosen["One"]["utility"], first["utility_alpha0"])

    def test_statements(self):
        page = self.page()
        self.assertIn("| The delta closes at least half of the gap in NLL per byte between Two alone and LoRA-tuned | **holds** | 50 %", page)
        self.assertIn("| Steered at 1, Two's ROUGE-L on the forget set is within 0.05 of the twin's | **holds** |", page)
        self.assertNotIn("does not hold", page.replace("with a median length within 0.67 to 1.5 of the references' | **does not hold**", ""))
        self.assertNotIn(self.dir, page)

    def test_what_is_missed_is_said(self):
        sys.path.insert(0, RECIPE)
        results_page, d = importlib.import_module("results_page"), self.data()
        for r in d["unlearning"]:
            r["utility"] = 0.9 * r["utility_alpha0"]
        d["instruction"][1]["arms"]["one"].update(closed=0.49, stop=0.8, empty=0.01)
        said = {s["text"]: s["holds"] for s in results_page.instruction_statements(d) + results_page.unlearning_statements(d)}
        self.assertFalse(said["The delta closes at least half of the gap in NLL per byte between Two alone and LoRA-tuned"])
        self.assertFalse(said["Steered, Two stops by itself in over 80 % of its answers"])
        self.assertFalse(said["and under 1 % empty answers"])
        self.assertFalse(said["with utility within 5 % of that at alpha 0"])
        self.assertTrue(said["At alpha 0 Two knows: ROUGE-L on the forget set at least 0.25 above its twin's"])

    def test_adapters_of_an_earlier_run(self):
        sys.path.insert(0, RECIPE)
        results_page = importlib.import_module("results_page")
        h = {"host": "One", "seen": True, "lora_rate": None, "arms": {"base": {"nll": 1.0}, "one": {"nll": 0.9}}}
        r = results_page.instruction_row(h, [{"host": "One", "lr": 0.001, "gain": 0.4}, {"host": "One", "lr": 0.0005, "gain": 0.25}])
        self.assertAlmostEqual(r["nll_lora"], 0.6)
        self.assertAlmostEqual(r["arms"]["one"]["closed"], 0.25)
        self.assertEqual(results_page.instruction_statements({"instruction": [r]})[0]["holds"], False)

    def test_hosts_after_the_first_are_made_otherwise(self):
        said = {s["step"]: s["command"] for s in self.data()["steps"]}
        for kind in ("host", "twin"):
            self.assertIn("/rest-", said[f"unlearning/Two-{kind}.lora"])
            self.assertNotIn("/rest-", said[f"unlearning/One-{kind}.lora"])
        for seed, alphas in ((0, ("1.3,1.4,1.5", "1.4,1.6,1.8")), (1, ("1.4", "1.8"))):
            for host, at in zip(("One", "Two"), alphas):
                self.assertIn(f"--alphas {at} ", said[f"unlearning/{host}.late-wide.{seed}.tofu"])

    def test_the_delta_is_taught_beyond_the_pairs(self):
        """Of the further questions those that came to an end, of the answers to them likewise; the teacher is the chosen adapter's."""
        with open(self.at("work/instruction/data/questions.jsonl"), encoding="utf-8") as f:
            asked = [json.loads(line)["instruction"] for line in f]
        with open(self.at("work/instruction/data/more.jsonl"), encoding="utf-8") as f:
            more = [json.loads(line) for line in f]
        self.assertEqual(len(asked), 6000)
        self.assertEqual(asked[0], "What are the is w1 x1 y1 z1?")
        self.assertEqual([m["instruction"] for m in more], [q for i, q in enumerate(asked) if i % 3])
        self.assertEqual(more[0]["output"], "is w1 x1 y1 z1?")
        said = {s["step"]: s["command"] for s in self.data()["steps"]}
        self.assertIn("--lora WORK/instruction/One-lora-0.0005.gguf", said["instruction/teacher"])
        self.assertIn("--data bench/recipe/data/train.jsonl --data WORK/instruction/data/more.jsonl", said["instruction/one.0"])
        self.assertIn("--teacher WORK/instruction/teacher.gguf", said["instruction/one.0"])
        self.assertNotIn("--teacher", said["instruction/untaught.0"])
        self.assertIn("--stop '\\n'", said["instruction/questions"])

    def test_nothing_is_made_twice(self):
        before = self.page()
        self.assertEqual(self.run_driver(), (0, []))
        self.assertEqual(self.page(), before)

    def test_what_other_settings_made_is_made_again(self):
        work, log = self.at("work"), self.at("work/log/instruction/Two.shuffled.0.nll.json")
        with open(log, encoding="utf-8") as f:
            record = json.load(f)
        with open(log, "w", encoding="utf-8") as f:
            json.dump({**record, "command": record["command"] + " --exact"}, f)
        status, ran = self.run_driver()
        self.assertEqual((status, len(ran)), (0, 1))
        twin = os.path.join(work, "unlearning/Two-twin.tofu.jsonl")
        os.utime(twin)
        status, ran = self.run_driver()
        self.assertTrue(ran and all("--reference " + twin in c for c in ran), ran)

    def test_what_failed_is_made_the_next_time(self):
        status, ran = self.run_driver("again", ["--only", "instruction/"], fail="shuffled.0.gguf")
        self.assertEqual(status, 1)
        self.assertIn("shuffled.0", self.errors)
        self.assertIn("One", [r["host"] for r in self.data("again")["instruction"]])
        status, ran = self.run_driver("again", ["--only", "instruction/"])
        self.assertEqual(status, 0)
        self.assertTrue(ran and all("shuffled" in c for c in ran), ran)

    def test_a_page_that_is_kept(self):
        """A folder that holds little adds to the page, and takes nothing from it but what it measured anew."""
        before, docs = self.data(), self.at("docs-little")
        shutil.copytree(self.at("docs-work"), docs)
        before["instruction"][1]["arms"]["lora-0.001"]["nll"] = 0.625
        before["steps"].append({"step": "instruction/gone", "command": "cmc", "seconds": 1, "cpu_seconds": 1})
        with open(os.path.join(docs, "results.json"), "w", encoding="utf-8") as f:
            json.dump(before, f)
        parts = ("One.base", "One-lora-0.0005", "One.lora-0.0005.nll", "teacher", "questions", "instruction/answers", "instruction/one.", "One.one.")
        status, ran = self.run_driver("little", ["--keep", *(x for p in parts for x in ("--only", p))], tofu=False)
        self.assertEqual(status, 0, self.errors)
        self.assertTrue(any("--teacher" in c for c in ran) and not any("0.001" in c for c in ran), ran)
        after = self.data("little")
        self.assertEqual([r["lora_rate"] for r in after["instruction"]], ["0.0005", "0.0005"])
        self.assertEqual([list(r["arms"]) for r in after["instruction"]], [list(r["arms"]) for r in before["instruction"]])
        self.assertEqual(after["instruction"][1]["arms"]["lora-0.001"]["nll"], 0.625)
        self.assertEqual(len(after["instruction"][0]["arms"]["one"]["nll_seeds"]), 3)
        for key in ("unlearning", "unlearning_beside", "unlearning_chosen"):
            self.assertEqual(after[key], before[key])
        self.assertEqual([s["step"] for s in after["steps"]], [s["step"] for s in before["steps"] if s["step"] != "instruction/gone"])
        self.assertEqual(self.run_driver("none", ["--keep"], tofu=False)[0], 1)
        self.assertIn("results.json: not found", self.errors)


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=0).result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed, {len(result.skipped)} skipped")
    sys.exit(bad > 0)
