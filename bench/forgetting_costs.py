"""What a run of bench/forgetting.py costs: parameters, floating-point operations of training, tokens a second of what comes out.

A step's operations are 2 (F + B + T) for each token: F the weights of the matrices that the token goes through forwards (the output matrix
among them, the embedding's look-up not), B those that its gradient comes back through, T those that get a gradient. Back it comes through the
output matrix and everything down to the lowest part that is trained, as the trainer has it. Attention between tokens, norms, merges and the
optimiser are left out.
"""
import json
import mmap
import os
import statistics
import struct
import subprocess

MATRICES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
FEED_FORWARD = ("gate", "up", "down")


def inspect(cmc, path):
    return json.loads(subprocess.run([cmc, "inspect", path, "--json"], check=True, capture_output=True, text=True).stdout)


class Shape:
    """A llama's matrices, found in the header by their stored names."""

    def __init__(self, cmc, path):
        info = inspect(cmc, path)
        self.layers, self.params = info["layers"], info["params"]
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            def size(name):
                at = data.find(struct.pack("<Q", len(name)) + name.encode())
                if at < 0:
                    return 0
                at += 8 + len(name)
                (n,) = struct.unpack_from("<I", data, at)
                rows, columns = struct.unpack_from("<2Q", data, at + 4) if n == 2 else (0, 0)
                return rows * columns
            self.matrix = {k: size(f"blk.0.{name}.weight") for k, name in MATRICES.items()}
            self.head = size("output.weight") or size("token_embd.weight")
        self.layer = sum(self.matrix.values())
        self.feed_forward = sum(self.matrix[k] for k in FEED_FORWARD)


def chosen_layers(text, n):
    """As --layers has it."""
    if not text:
        return list(range(n))
    if text.endswith("%"):
        lo, hi = (float(x) for x in text[:-1].split("-"))
        return list(range(int(lo * n / 100 + 1e-9), int(hi * n / 100 + 1e-9)))
    out = set()
    for part in text.split(","):
        lo, _, hi = part.partition("-")
        out |= set(range(int(lo), int(hi or lo) + 1))
    return sorted(out)


def weights_at_work(s, options, trained):
    """(F, B, T) of a run with these options that trains so many parameters."""
    given = dict(zip(options, options[1:] + [""]))
    whole = s.layers * s.layer + s.head
    if "--lora" in given:
        return whole + trained, whole + trained, trained
    if "--expand" in given:
        blocks = int(given["--blocks"])
        lowest, added = s.layers // blocks - 1, blocks * s.layer
        if "--unfrozen" in given:
            return whole + added, whole + added, whole + added
        return whole + added, s.head + added + (s.layers - lowest - 1) * s.layer, added
    if "--layers" not in given and "--modules" not in given:
        return whole, whole, whole
    which, modules = chosen_layers(given.get("--layers"), s.layers), given.get("--modules", ",".join(MATRICES)).split(",")
    only_ffn = all(m in FEED_FORWARD for m in modules)
    back = s.head + (s.layers - which[0] - 1) * s.layer + (s.feed_forward if only_ffn else s.layer)
    return whole, back, len(which) * sum(s.matrix[m] for m in modules)


def training_flops(s, options, trained, tokens):
    return 2 * sum(weights_at_work(s, options, trained)) * tokens


def speeds(cmc, files, threads, rounds=5, gen=64):
    """files: {name: arguments of cmc bench}, the first of them what the others are held against; in turn, so that a slow minute
    slows all. {name: {"tokens_per_second", "beside_base"}}, medians."""
    got = {name: [] for name in files}
    for _ in range(rounds):
        for name, args in files.items():
            out = subprocess.run([cmc, "bench", *args, "-p", "0", "-n", str(gen), "-r", "1", "-t", str(threads), "--json"], check=True,
                                 capture_output=True, text=True).stdout
            got[name].append(json.loads(out)["tg_tps"])
    base = got[next(iter(files))]
    return {name: {"tokens_per_second": statistics.median(v), "beside_base": statistics.median(x / y for x, y in zip(v, base))}
            for name, v in got.items()}


def load(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as f:
        return json.load(f)
