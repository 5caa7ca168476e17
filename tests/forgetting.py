#!/usr/bin/env python3
"""The experiment on forgetting (bench/forgetting.py and its page) on a tiny model: $CMC and $MKTINY. The last line counts."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(ROOT, "bench"))
sys.dont_write_bytecode = True
import forgetting  # noqa: E402
import forgetting_costs as costs  # noqa: E402
import forgetting_page  # noqa: E402

COLUMNS = {"method", "seeds", "retention", "retention_sd", "plasticity", "trainable", "parameters", "training_flops", "tokens_per_second", "control"}


def arm(method, retention, sd=0.01, control=False, scale="tiny"):
    return {"scale": scale, "method": method, "seeds": 3, "reached": 3, "retention": retention, "retention_sd": sd, "plasticity": 1.0, "control": control,
            "old_data": False, "rate": 1e-3}


class Analysis(unittest.TestCase):
    def test_curves_are_read_off_between_points(self):
        points = [(None, 1.0, 4.0), (None, 1.2, 3.0), (None, 1.6, 2.0), (None, 2.0, 2.5)]
        self.assertAlmostEqual(forgetting.old_at(points, 2.5), 1.4)
        self.assertAlmostEqual(forgetting.old_at(points, 3.75), 1.05)
        self.assertIsNone(forgetting.old_at(points, 1.9))
        self.assertAlmostEqual(forgetting.gain(points), 2.0)
        half = {0: [(None, 1.0, 4.0), (None, 1.1, 2.0)]}
        r = forgetting.compare("half", half, {0: [(None, 1.0, 4.0), (None, 1.2, 2.0)]}, 0.5)
        self.assertAlmostEqual(r["retention"], 0.5)
        self.assertAlmostEqual(r["forgets"], 0.9 * 0.1 * 0.5)
        self.assertAlmostEqual(r["plasticity"], 1.0)
        none = forgetting.compare("none", {0: [(None, 1.0, 4.0), (None, 1.0, 3.0)]}, half, 0.5)
        self.assertEqual((none["retention"], none["reached"], none["plasticity"]), (None, 0, 0.5))

    def test_layers_and_operations(self):
        self.assertEqual(costs.chosen_layers("25-50%", 8), [2, 3])
        self.assertEqual(costs.chosen_layers("0,2,4-6", 8), [0, 2, 4, 5, 6])
        s = costs.Shape.__new__(costs.Shape)
        s.layers, s.matrix, s.head = 4, {"q": 4, "k": 2, "v": 2, "o": 4, "gate": 8, "up": 8, "down": 8}, 100
        s.layer, s.feed_forward = 36, 24
        self.assertEqual(costs.weights_at_work(s, [], 0), (244, 244, 244))
        self.assertEqual(costs.weights_at_work(s, ["--layers", "2-3", "--modules", "up,down"], 0), (244, 100 + 36 + 24, 32))
        self.assertEqual(costs.weights_at_work(s, ["--layers", "2-3", "--modules", "q,up"], 0), (244, 100 + 36 + 36, 24))
        self.assertEqual(costs.weights_at_work(s, ["--lora", "2"], 10), (254, 254, 10))
        self.assertEqual(costs.weights_at_work(s, ["--expand", "concat", "--blocks", "2"], 72), (316, 100 + 72 + 72, 72))
        self.assertEqual(costs.weights_at_work(s, ["--expand", "concat", "--blocks", "2", "--unfrozen"], 316), (316, 316, 316))

    def test_a_control_that_matches_comes_first(self):
        run = {"scale": "tiny", "range": "25-50%"}
        arms = [arm("full fine-tuning", 0.0), arm("all layers, mask on updates", 0.8), arm("all layers, mask permuted", 0.81, control=True),
                arm("Control LLM, concat lerp, mse", 0.9), arm("Control LLM, nothing frozen", 0.5, control=True)]
        said = forgetting_page.matched({"runs": [run], "arms": arms}, None)
        self.assertEqual(len(said), 1)
        self.assertIn("a control matches the method: \"all layers, mask permuted\"", said[0])
        self.assertNotIn("rates", said[0])
        arms[2]["rate"] = 2e-3
        self.assertIn("(at the rates 0.002 and 0.001, each chosen on its own)", forgetting_page.matched({"runs": [run], "arms": arms}, None)[0])
        arms[2]["retention"] = 0.7
        self.assertEqual(forgetting_page.matched({"runs": [run], "arms": arms}, None), ["tiny: none of the 2 controls that were run matches its method."])
        self.assertIn("- Control LLM, concat lerp, mse", forgetting_page.verdict(arms))
        arms.append(arm("WiSE-FT, on the line to the base", 0.89))
        self.assertEqual(forgetting_page.verdict(arms)[-1], "- nothing.")


class Runs(unittest.TestCase):
    def test_from_runs_to_the_page(self):
        with tempfile.TemporaryDirectory() as folder:
            def path(name):
                return os.path.join(folder, name)
            subprocess.run([forgetting.MKTINY, "--layers", "4", "--ctx", "256", "--tied", "--seed", "3", path("base.gguf")], check=True, capture_output=True)
            command = [sys.executable, "-B", os.path.join(ROOT, "bench/forgetting.py"), path("runs"), "--base", path("base.gguf"), "--scale", "tiny", "--json",
                       path("forgetting.json"), "--seeds", "2", "--steps", "4", "--batch", "2", "--eval-every", "2", "--rates", "1e-3,1e-2", "--threads", "1",
                       "--only", "lerp, mse", "--only", "nothing frozen"]
            first = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(first.returncode, 0, first.stderr)
            again = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual((again.returncode, again.stderr), (0, ""))      # all is there
            with open(path("forgetting.json"), encoding="utf-8") as f:
                data = json.load(f)
            methods = {x["method"]: x for x in data["arms"]}
            self.assertLessEqual({"full fine-tuning", "WiSE-FT, on the line to the base", "Control LLM, concat lerp, mse", "Control LLM, nothing frozen",
                                  "Control LLM, concat lerp, mse, folded"}, set(methods))
            for x in data["arms"]:
                self.assertLessEqual(COLUMNS, set(x))
            blocks, free = methods["Control LLM, concat lerp, mse"], methods["Control LLM, nothing frozen"]
            self.assertEqual(free["trainable"] - blocks["trainable"], data["runs"][0]["parameters"])
            self.assertEqual(blocks["parameters"], free["parameters"])
            self.assertEqual(methods["Control LLM, concat lerp, mse, folded"]["parameters"], data["runs"][0]["parameters"])
            self.assertLess(blocks["training_flops"], free["training_flops"])
            with open(path("forgetting_text.md"), "w", encoding="utf-8") as f:
                f.write("{{MATCHED}}\nwords\n{{SCALE tiny}}\n")
            subprocess.run([sys.executable, "-B", os.path.join(ROOT, "bench/forgetting_page.py"), folder], check=True)
            with open(path("forgetting.md"), encoding="utf-8") as f:
                page = f.read()
            self.assertRegex(page.splitlines()[0], "tiny: .*control")
            self.assertIn("| Control LLM, nothing frozen |", page)
            with open(path("forgetting.svg"), encoding="utf-8") as f:
                self.assertEqual(f.read().count("<polyline"), len(data["arms"]))


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=0).result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed, {len(result.skipped)} skipped")
    sys.exit(bad > 0)
