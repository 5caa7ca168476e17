"""A folder of cached steps: each is one command with one result file, run once, its command and times kept."""
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time


@dataclasses.dataclass
class Step:
    name: str            # also the result's place in the folder, without its suffix
    command: list        # arguments of cmc; the result's file is added as -o, where the command does not print it
    suffix: str = ".jsonl"
    trains: bool = False     # it keeps a log, and goes on from its checkpoint where it was interrupted

    @property
    def prints(self):
        return self.command[0] == "run"


class Work:
    """root: the folder. roots: {folder or file: name that stands for it in printed commands}. kept: what a page that was made before
    has (its results.json), for what is not in this folder."""

    def __init__(self, root, cmc, roots, threads=0, kept=None):
        self.root, self.cmc, self.threads = os.path.abspath(root), cmc, threads
        self.roots = {self.root: "WORK", **roots}
        self.kept = kept or {}
        self.steps = {}

    def path(self, name):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def add(self, step):
        """Gives the result's path. A step of the same name is the same step."""
        self.steps.setdefault(step.name, step)
        return self.path(step.name + step.suffix)

    def write(self, name, lines):
        """A file of records made from others; written only where it differs, so that what depends on it stays."""
        path, text = self.path(name), "".join(lines)
        if not os.path.exists(path) or open(path, encoding="utf-8").read() != text:
            with open(path + ".part", "w", encoding="utf-8") as f:
                f.write(text)
            os.replace(path + ".part", path)
        return path

    def shown(self, command):
        """The command as a reader would type it: no folder of this machine."""
        words = ["cmc"]
        for word in command:
            for path, name in sorted(self.roots.items(), key=lambda x: -len(x[0])):
                word = word.replace(path, name)
            words.append(word.replace("\n", "'\\n'"))
        return " ".join(words)

    def result(self, step):
        return self.path(step.name + step.suffix)

    def record(self, name):
        """{"command", "seconds", "cpu_seconds"}; times are None of a result that was put here from elsewhere."""
        step = self.steps[name]
        path = self.path(f"log/{name}.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                return json.load(f)
        return {"command": self.shown(self.whole(step)), "seconds": None, "cpu_seconds": None}

    def whole(self, step):
        if step.prints:
            return step.command
        training = ["--resume", "--log", self.path(f"log/{step.name}.steps.jsonl")] if step.trains else []
        return [*step.command, *training, "-o", self.result(step)]

    def done(self, step):
        """Its result is there, made by this very command, and no file of this folder that it goes by is newer."""
        result, log = self.result(step), self.path(f"log/{step.name}.json")
        if not os.path.exists(result):
            return False
        made, own = os.path.getmtime(result), [w for w in step.command if w.startswith(self.root) and os.path.isfile(w)]
        same = not os.path.exists(log) or self.record(step.name)["command"] == self.shown(self.whole(step))
        return same and all(os.path.getmtime(w) <= made for w in own)

    def run(self, only=(), minutes=None, dry=False):
        """Runs in order what is not done yet; only: names that hold one of these. Gives what failed or was left."""
        end, left = time.time() + 60 * minutes if minutes else None, []
        for step in self.steps.values():
            if self.done(step) or (only and not any(w in step.name for w in only)):
                continue
            if dry:
                print(f"# {step.name}\n{self.shown(self.whole(step))}")
            elif end and time.time() > end or not self.ready(step) or not self.run_one(step):
                left.append(step.name)
        return left

    def ready(self, step):
        """The results of other steps that it works with are there."""
        results = {self.result(s) for s in self.steps.values()}
        return all(os.path.exists(w) for w in step.command if w in results)

    def run_one(self, step):
        """False where it failed: it is tried again the next time."""
        log, command = self.path(f"log/{step.name}.txt"), [self.cmc, *self.whole(step), "-t", str(self.threads)]
        if os.path.exists(self.result(step)):    # by other settings: its checkpoint is no good either
            for path in (self.result(step), self.result(step) + ".ckpt"):
                if os.path.exists(path):
                    os.remove(path)
        print(f"{time.strftime('%H:%M:%S')} {step.name}", file=sys.stderr, flush=True)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        part = self.result(step) + ".part"
        with open(log, "w", encoding="utf-8") as f, open(part if step.prints else os.devnull, "w", encoding="utf-8") as out:
            status = subprocess.run(command, stdout=out if step.prints else f, stderr=f).returncode
        if step.prints and not status:
            os.replace(part, self.result(step))
        after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.time() - start
        if status:
            print(f"{step.name}: failed ({status}), see {log}", file=sys.stderr, flush=True)
            return False
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        with open(self.path(f"log/{step.name}.json"), "w", encoding="utf-8") as f:
            json.dump({"command": self.shown(self.whole(step)), "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}, f)
        return True


def read_report(path):
    """(a line a record, the total) of what cmc eval wrote."""
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    return [x for x in lines if "total" not in x], lines[-1]["total"]
