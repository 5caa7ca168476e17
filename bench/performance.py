#!/usr/bin/env python3
"""Measures cmc beside llama.cpp, both programs in turn, and makes docs/performance.json and the page of it.

    bench/peers.sh PEERS_DIR                                              builds llama.cpp's programs, once
    bench/performance.py PEERS_DIR SMOLLM2 GEMMA DELTA [-r ROUNDS]        measures; into docs/performance.json
    bench/performance.py --page docs/performance.md                       the page of that file

Each measurement is written as it is done, and left out where it is there already, but for --again. The machine must have
nothing else to do. $CMC: the program (default ./cmc); the programs of bench/ are taken from beside it (make check-programs).
"""
import argparse
import json
import mmap
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CMC = os.path.realpath(os.environ.get("CMC", os.path.join(HERE, "..", "cmc")))
ORACLE = os.path.join(HERE, "..", "tests", "data", "oracle")
TEXTS = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.json", "gemma": "gemma-3-270m-q4_k_m.json"}
PROMPT = "Write down what you know about the sea."
# What was asked for; where it is a least and not a most, the name begins with "least".
ASKED = {"smollm2": {"least decode": 2.0, "least prefill": 3.0, "least share": 0.50, "most first": 0.3},
         "gemma": {"least decode": 1.8, "least prefill": 1.5, "least share": 0.65},
         "any": {"most ab": 1.35, "least batch": 4.0, "most kl": 1.1}}
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110),
          12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2)}   # ggml type: weights, bytes
COPY_BYTES, ROWS_COMPUTED = 18, 2400      # of the screen's copy for 32 weights; of rows a token, the mean (docs/design.md)


# ------------------------------------------------------------------------------------------------------ programs

def die(text):
    sys.exit("performance.py: " + text)


def run(*command, stdin=None):
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, check=False, stdin=stdin)
    except OSError as e:
        die(f"{command[0]}: {e.strerror}")
    if done.returncode:
        die(f"{os.path.basename(command[0])} failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout


def bench_program(name):
    return os.path.join(os.path.dirname(CMC), "bench", name)


def peer(a, name):
    return os.path.join(a.peers, "build", "bin", name) if name == "llama-bench" else os.path.join(a.peers, name)


def check_programs(a):
    for path in CMC, bench_program("memory_speed"), bench_program("logits_kl"), peer(a, "llama-bench"), peer(a, "llama_logits"):
        if not os.access(path, os.X_OK):
            die(f"{path} is not there: build it first (scripts/build.sh with TARGETS=\"all check-programs\"; bench/peers.sh)")


def cmc_bench(model, threads, prompt, gen, *options):
    return json.loads(run(CMC, "bench", "-m", model, "-t", threads, "-p", prompt, "-n", gen, "-r", 1, "--json", *options))


def llama_bench(a, model):
    rows = json.loads(run(peer(a, "llama-bench"), "-m", model, "-t", a.threads, "-p", a.prompt, "-n", a.gen, "-r", 1, "-o", "json"))
    return {"pp_tps" if r["n_prompt"] else "tg_tps": r["avg_ts"] for r in rows}


def inspect(model):
    return json.loads(run(CMC, "inspect", model, "--json"))


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def over(x, y):
    return spread([i / j for i, j in zip(x, y)])


class Header:
    """What of a GGUF file's header cmc inspect does not give: keys and tensors are found by their stored names."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self.data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self.arch = inspect(path)["arch"]

    def after(self, name):
        at = self.data.find(struct.pack("<Q", len(name)) + name.encode())
        return None if at < 0 else at + 8 + len(name)

    def number(self, key):
        at = self.after(f"{self.arch}.{key}")
        return None if at is None else struct.unpack_from("<I", self.data, at + 4)[0]

    def tensor_bytes(self, name):
        at = self.after(name)
        if at is None:
            return 0
        (n,) = struct.unpack_from("<I", self.data, at)
        dims = struct.unpack_from(f"<{n}Q", self.data, at + 4)
        weights, size = BLOCKS[struct.unpack_from("<I", self.data, at + 4 + 8 * n)[0]]
        total = size
        for d in dims:
            total *= d
        return total // weights

    def kv_bytes(self):
        """Of one position: cmc keeps keys and values in float16."""
        heads = self.number("attention.head_count")
        head = self.number("attention.key_length") or self.number("embedding_length") // heads
        value = self.number("attention.value_length") or head
        return self.number("block_count") * (self.number("attention.head_count_kv") or heads) * (head + value) * 2


def bytes_a_token(model, gen):
    """Weights, keys and values that are read for one of gen tokens decoded from an empty cache."""
    h = Header(model)
    tied = h.tensor_bytes("output.weight") == 0
    weights = inspect(model)["bytes"] - (0 if tied else h.tensor_bytes("token_embd.weight"))
    return weights - screened(h, weights, h.tensor_bytes("token_embd.weight" if tied else "output.weight")), h.kv_bytes() * (gen + 1) / 2


def screened(h, weights, matrix):
    """What a step does not read of the output matrix where cmc estimates logits from a copy of it and computes some (runtime/screen.c)."""
    rows = h.number("vocab_size") or inspect_tokens(h)
    width = h.number("embedding_length")
    copy, computed = rows * width // 32 * COPY_BYTES, ROWS_COMPUTED * matrix // rows
    return matrix - copy - computed if matrix >= copy + max(8 << 20, weights // 6) else 0


def inspect_tokens(h):
    return inspect(h.path)["vocab"]["n"]


# -------------------------------------------------------------------------------------------------- measurements

def measure_speed(a, model):
    """Decode and prefill of both programs, and how fast memory is read, in turn."""
    weights, kv = bytes_a_token(model, a.gen)
    ours, theirs, memory = [], [], []
    for _ in range(a.r):
        ours.append(cmc_bench(model, a.threads, a.prompt, a.gen))
        theirs.append(llama_bench(a, model))
        memory.append(json.loads(run(bench_program("memory_speed"), weights, a.threads)))
    best = [m["gbps_best"] for m in memory]
    out = {"isa": ours[0]["isa"], "blas_core": ours[0]["blas_core"], "bytes_weights": weights, "bytes_kv": kv,
           "memory_gbps": spread(best), "memory_median_gbps": spread([m["gbps_median"] for m in memory])}
    for name, key in (("decode", "tg_tps"), ("prefill", "pp_tps")):
        x, y = [r[key] for r in ours], [r[key] for r in theirs]
        out[name] = {"cmc_tps": spread(x), "llama_tps": spread(y), "ratio": over(x, y)}
    out["share"] = spread([r["tg_tps"] * (weights + kv) / 1e9 / m for r, m in zip(ours, best)])
    return out


def measure_batch(a, model):
    pairs = [[cmc_bench(model, a.threads, 0, a.gen, "--batch", n)["tg_tps"] for n in (1, 8)] for _ in range(a.r)]
    one, eight = zip(*pairs)
    return {"one_tps": spread(one), "eight_tps": spread(eight), "ratio": over(eight, one)}


def measure_ab(a, model):
    """A step of both sides against a step of the steered side alone; both go on for the same number of tokens."""
    end = ["-m", model, "-d", a.delta, "-t", a.threads, "-n", a.gen, "--ignore-eos", "--json", PROMPT]
    alone, both = [], []
    for _ in range(a.r):
        alone.append(1000 / json.loads(run(CMC, "run", *end))["decode_tps"])
        r = json.loads(run(CMC, "ab", *end))
        if r["steered"]["tokens"] != r["unsteered"]["tokens"]:
            die("cmc ab: the two sides are not of the same length")
        both.append(1000 / r["steered"]["decode_tps"])
    return {"alone_ms": spread(alone), "both_ms": spread(both), "ratio": over(both, alone)}


def measure_steered(a, model):
    """At a strength next to 0, which leaves the text as it is, so that both sides decode the same tokens, and at the delta's own: what
    greedy decoding may pass over hangs on how far the shifts differ."""
    ms = {"": ([], []), "own_": ([], [])}
    for _ in range(a.r):
        for key, strength in (("", "=1e-6"), ("own_", "")):
            r = cmc_bench(model, a.threads, 0, a.gen, "-d", a.delta + strength)
            ms[key][0].append(1000 / r["unsteered_tg_tps"])
            ms[key][1].append(1000 / r["steered_tg_tps"])
    delta, host = inspect(a.delta)["bytes"], inspect(model)["bytes"]
    out = {"delta_bytes": delta, "host_bytes": host, "most": 1 + 1.25 * delta / host + 0.03}
    for key, (plain, steered) in ms.items():
        out |= {f"{key}plain_ms": spread(plain), f"{key}steered_ms": spread(steered), f"{key}ratio": over(steered, plain)}
    return out


def measure_context(a, model):
    """Few tokens after long contexts; at most 3 rounds, for filling the cache takes most of the time."""
    most, gen, rows = inspect(model)["context"], min(a.gen, 32), []
    for context in sorted({min(c, most - gen) for c in a.contexts}):
        tps = {1: [], 2: []}
        for _ in range(min(a.r, 3)):
            for threads, got in tps.items():
                got.append(cmc_bench(model, threads, 0, gen, "--context", context)["tg_tps"])
        rows.append({"context": context, "tps": {str(t): spread(v) for t, v in tps.items()}})
    return {"rows": rows, "gen": gen}


def measure_vocabulary(a, _):
    models = [a.delta, a.models["smollm2"], a.models["gemma"]]
    tps = [[cmc_bench(m, a.threads, 0, a.gen)["tg_tps"] for m in models] for _ in range(a.r)]
    rows = [{"model": name_of(m), "tokens": inspect(m)["vocab"]["n"], "bytes": inspect(m)["bytes"], "tps": spread(v)}
            for m, v in zip(models, zip(*tps))]
    return {"rows": sorted(rows, key=lambda r: r["tokens"])}


def measure_first(a, model):
    """From the program's start to its end, one token; the file was read just before."""
    seconds = []
    for _ in range(a.r + 1):
        start = time.monotonic()
        run(CMC, "run", "-m", model, "-t", a.threads, "-n", 1, PROMPT)
        seconds.append(time.monotonic() - start)
    return {"seconds": spread(seconds[1:])}


def divergences(a, model, ids, batch):
    """Both programs take `batch` tokens at a time: 0 a whole text, or as many as llama_logits takes at once. They run beside
    each other, so each with one thread: the results are the same."""
    end = ["1", *([str(batch)] if batch else [])]
    with subprocess.Popen([peer(a, "llama_logits"), model, ids, "-", *end], stdout=subprocess.PIPE) as theirs:
        r = json.loads(run(bench_program("logits_kl"), model, ids, "-", *end, stdin=theirs.stdout))
    if theirs.returncode:
        die("llama_logits failed")
    return {"tokens": r["tokens"], "cmc": r["fast"], "llama": r["other"], "ratio": r["fast"]["mean"] / r["other"]["mean"]}


def measure_kl(a, model):
    """Not timed, and the same in every round. In batches and token by token, which other kernels multiply."""
    role = next(r for r, m in a.models.items() if m == model)
    with open(os.path.join(ORACLE, TEXTS[role]), encoding="utf-8") as f:
        cases = json.load(f)["cases"]
    with tempfile.NamedTemporaryFile("w", suffix=".ids") as ids:
        ids.writelines(" ".join(map(str, c["ids"])) + "\n" for c in cases)
        ids.flush()
        return {"texts": len(cases), "prefill": divergences(a, model, ids.name, 0), "decode": divergences(a, model, ids.name, 1)}


MEASUREMENTS = {"speed": measure_speed, "batch": measure_batch, "ab": measure_ab, "steered": measure_steered,
                "context": measure_context, "vocabulary": measure_vocabulary, "first": measure_first, "kl": measure_kl}


def write(path, data):
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(data, f, indent=1)
        f.write("\n")
    os.replace(path + ".new", path)


def measure_all(a):
    data = load(a.json) if os.path.exists(a.json) else {}
    for name in a.only or MEASUREMENTS:
        for role, model in {"": None}.items() if name == "vocabulary" else a.models.items():
            key = f"{name} {role}".strip()
            if key in data and not a.again:
                print(f"{key}: there already", file=sys.stderr)
                continue
            print(f"{key} ...", file=sys.stderr, flush=True)
            got = MEASUREMENTS[name](a, model)
            about = {"threads": a.threads, "rounds": a.r, "prompt": a.prompt, "gen": a.gen, "delta": name_of(a.delta)}
            data[key] = {"model": name_of(model) if model else None, **about, **got}
            write(a.json, data)


def load(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError) as e:
        return die(f"{path}: {e}")


def name_of(path):
    return os.path.basename(path).removesuffix(".gguf")


# ------------------------------------------------------------------------------------------------------ the page

def figure(s, digits):
    """The median, and from the least to the greatest."""
    return f"{s['median']:.{digits}f} ({s['min']:.{digits}f} to {s['max']:.{digits}f})"


def asked(role, what, value, digits=2, unit=""):
    """Two cells: the limit, and whether it is kept."""
    for side in (role, "any"):
        for kind in ("least", "most"):
            limit = ASKED[side].get(f"{kind} {what}")
            if limit is not None:
                met = value >= limit if kind == "least" else value <= limit
                return f"at {kind} {limit:.{digits}f}{unit} | {'yes' if met else 'no'}"
    return " | "


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(r) + " |" for r in rows)])


def entries(data, name):
    return [(role, data[f"{name} {role}"]) for role in TEXTS if f"{name} {role}" in data]


def page_speed(data):
    rows = []
    for role, e in entries(data, "speed"):
        for what, n in (("decode", e["gen"]), ("prefill", e["prompt"])):
            d = e[what]
            rows.append([e["model"], f"{what} {n}", figure(d["cmc_tps"], 1), figure(d["llama_tps"], 1),
                         figure(d["ratio"], 2), asked(role, what, d["ratio"]["median"])])
    return ("Beside llama.cpp", "`cmc bench` and `llama-bench` in turn, tokens a second. Gemma's logits are screened here ([design.md](design.md), \"Choosing a token\"); "
            "llama.cpp computes them all.",
            table(["model", "", "cmc", "llama.cpp", "ratio", "asked", "met"], rows))


def page_share(data):
    rows = []
    for role, e in entries(data, "speed"):
        gb = (e["bytes_weights"] + e["bytes_kv"]) / 1e9
        rows.append([e["model"], f"{e['bytes_weights'] / 1e6:.1f} + {e['bytes_kv'] / 1e6:.1f}",
                     figure(spread([t * gb for t in e["decode"]["cmc_tps"]["values"]]), 1), figure(e["memory_gbps"], 1),
                     figure(e["share"], 2), asked(role, "share", e["share"]["median"])])
    return ("The roofline", "What decoding reads in a second (weights, and keys and values at the mean context) against the best "
            "of 8 plain readings of as many bytes of memory, `bench/memory_speed`, measured in the same rounds. Of a model whose logits are screened "
            "(Gemma here: [design.md](design.md), \"Choosing a token\") the copy in 4.5 bits a weight and the rows that are computed count in the output matrix's place.",
            table(["model", "MB a token: weights + cache", "GB/s of decoding", "GB/s of memory", "share", "asked", "met"], rows))


def page_batch(data):
    rows = [[e["model"], figure(e["one_tps"], 1), figure(e["eight_tps"], 1), figure(e["ratio"], 2),
             asked(role, "batch", e["ratio"]["median"])] for role, e in entries(data, "batch")]
    return ("Eight sequences side by side", "`cmc bench --batch 8` against `--batch 1`, tokens a second of all together. Eight take matrices laid out anew and all of "
            "Gemma's logits, one takes them as stored and screened ([design.md](design.md), \"Few tokens\").",
            table(["model", "one", "eight", "ratio", "asked", "met"], rows))


def page_steered(data):
    rows = []
    for _, e in entries(data, "steered"):
        for key, strength in (("", "1e-6"), ("own_", "its own")):
            met = "yes" if e[f"{key}ratio"]["median"] <= e["most"] else "no"
            rows.append([e["model"], strength, figure(e[f"{key}plain_ms"], 2), figure(e[f"{key}steered_ms"], 2), figure(e[f"{key}ratio"], 3),
                         f"at most {e['most']:.3f} | {met}"])
    delta = delta_name(data, "steered")
    return ("What steering costs", f"Milliseconds a token of greedy decoding, `cmc bench -d {delta}.gguf=1e-6`, a strength that leaves both sides "
            f"the same text, and `-d {delta}.gguf`, at the delta's own. Where the greatest steered logit is all that is asked for, tokens that cannot be it are passed "
            "over ([design.md](design.md), \"Choosing a token\"). The limit is 1 + 1.25 b/B + 0.03, where b and B are the bytes of the delta and the host.",
            table(["host", "strength", "unsteered", "steered", "ratio", "asked", "met"], rows))


def page_ab(data):
    rows = [[e["model"], figure(e["alone_ms"], 2), figure(e["both_ms"], 2), figure(e["ratio"], 3),
             asked(role, "ab", e["ratio"]["median"])] for role, e in entries(data, "ab")]
    return ("Both sides at once", "A step of `cmc ab`, steered and unsteered side by side, against a step of `cmc run` steered; "
            "milliseconds, as many tokens on both sides (`--ignore-eos`).",
            table(["host", "steered alone", "both", "ratio", "asked", "met"], rows))


def page_context(data):
    rows = [[e["model"], f"{r['context']:,}", *(figure(r["tps"][t], 1) for t in ("1", "2"))]
            for _, e in entries(data, "context") for r in e["rows"]]
    gen = sorted({e["gen"] for _, e in entries(data, "context")})
    return ("By context", f"`cmc bench --context N -n {' or '.join(map(str, gen))}`, tokens a second; the longest that fits "
            "where a model has less.", table(["model", "context", "1 thread", "2 threads"], rows))


def page_vocabulary(data):
    rows = [[f"{r['tokens']:,}", r["model"], f"{r['bytes'] / 1e6:.1f}", figure(r["tps"], 1)]
            for r in data["vocabulary"]["rows"]]
    return ("By vocabulary", f"`cmc bench -n {data['vocabulary']['gen']}`, tokens a second; the models differ in all else too.",
            table(["tokens", "model", "MB", "tokens/s"], rows))


def page_first(data):
    rows = [[e["model"], figure(e["seconds"], 3), asked(role, "first", e["seconds"]["median"], unit=" s")]
            for role, e in entries(data, "first")]
    return ("The first token", "`cmc run -n 1` from the program's start to its end, the file in the system's cache; seconds.",
            table(["model", "seconds", "asked", "met"], rows))


def page_kl(data):
    rows = []
    for role, e in entries(data, "kl"):
        for way, name in (("prefill", "in batches"), ("decode", "one by one")):
            d = e[way]
            rows.append([e["model"], name, f"{d['cmc']['mean']:.2e}", f"{d['llama']['mean']:.2e}",
                         f"{d['ratio']:.2f}" if d["ratio"] >= 0.01 else "below 0.01",
                         asked(role, "kl", d["ratio"]), f"{100 * d['cmc']['same']:.2f} %", f"{100 * d['llama']['same']:.2f} %"])
    size = " and ".join(f"{e['prefill']['tokens']:,}" for _, e in entries(data, "kl"))
    return ("Quality", f"Mean KL divergence from cmc's exact path (`--exact`), in nats, over every position of the texts in "
            f"`tests/data/oracle` ({size} tokens, the same ids for both): of cmc's fast path and of llama.cpp, and how often the "
            "most likely token is the exact path's. In batches as a prompt is read, and one by one as an answer is written.",
            table(["model", "tokens", "cmc", "llama.cpp", "ratio", "asked", "met", "same token: cmc", "llama.cpp"], rows))


def delta_name(data, name):
    return entries(data, name)[0][1]["delta"]


def rounds(data, name):
    """Of each measurement of that name, by its model where there are several."""
    found = {data[k]["model"] or "": data[k]["rounds"] for k in data if k.split()[0] == name and "rounds" in data[k]}
    counts = sorted(set(found.values()))
    return f"{counts[0]} rounds." if len(counts) == 1 else "Rounds: " + ", ".join(f"{n} of {m}" for m, n in found.items()) + "."


def shared(data, key):
    """A setting of all measurements, or all that there were."""
    return " or ".join(sorted({str(e[key]) for e in data.values() if key in e}))


PAGES = {"speed": (page_speed, page_share), "batch": (page_batch,), "steered": (page_steered,), "ab": (page_ab,),
         "context": (page_context,), "vocabulary": (page_vocabulary,), "first": (page_first,), "kl": (page_kl,)}


def page(data):
    which = run(os.path.join(HERE, "..", "scripts", "fetch-archive.sh"), "--which").split()[0].decode()
    out = ["# Performance", "<!-- made by bench/performance.py --page: change that, not this -->",
           f"`bench/performance.py PEERS_DIR SMOLLM2 GEMMA DELTA -r {shared(data, 'rounds')}`, then `--page`. All figures are "
           f"from [performance.json](performance.json): medians of {shared(data, 'rounds')} rounds (by context at most 3), "
           f"each program in turn, with the least and the greatest; {shared(data, 'threads')} threads where nothing else is said.",
           "*Asked* is what this project set itself, *met* whether the median keeps it.",
           f"Instructions cmc used: {shared(data, 'isa')}; OpenBLAS core {shared(data, 'blas_core')}. llama.cpp is that of "
           f"llama-cpp-python {which}, built by `bench/peers.sh` with this machine's instruction sets but for AMX."]
    for name, makers in PAGES.items():
        if name not in data and not entries(data, name):
            continue
        for make in makers:
            title, text, rows = make(data)
            out += [f"## {title}", f"{text} {rounds(data, name)}", rows]
    return "\n\n".join(out) + "\n"


# --------------------------------------------------------------------------------------------------- the command

def lengths(text):
    return [int(x) for x in text.split(",")]


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("peers", nargs="?", metavar="PEERS_DIR")
    p.add_argument("models", nargs="*", metavar="SMOLLM2 GEMMA DELTA")
    p.add_argument("-r", type=int, default=5, help="rounds (default 5)")
    p.add_argument("-t", "--threads", type=int, default=2)
    p.add_argument("-p", "--prompt", type=int, default=512, help="tokens of the prompt (default 512)")
    p.add_argument("-n", "--gen", type=int, default=128, help="tokens decoded (default 128)")
    p.add_argument("--contexts", type=lengths, default=[128, 1024, 4096, 8192], metavar="N,...")
    p.add_argument("--only", action="append", choices=list(MEASUREMENTS), help="may be repeated")
    p.add_argument("--again", action="store_true", help="also what is there already")
    p.add_argument("--json", default=os.path.join(HERE, "..", "docs", "performance.json"), metavar="FILE")
    p.add_argument("--page", metavar="FILE", help="write the page; without PEERS_DIR and models nothing is measured")
    a = p.parse_args()
    if (a.peers or not a.page) and len(a.models) != 3:
        p.error("PEERS_DIR SMOLLM2 GEMMA DELTA are needed")
    if a.r < 1 or a.gen < 2 or a.prompt < 1 or a.threads < 1 or min(a.contexts) < 1:
        p.error("rounds, threads and lengths must be at least 1, and -n 2")
    return a


def main():
    a = options()
    if a.peers:
        *hosts, a.delta = a.models
        for path in a.models:
            if not os.path.isfile(path):
                die(f"{path}: no such file")
        a.models = dict(zip(TEXTS, hosts))
        check_programs(a)
        if os.getloadavg()[0] > 0.5:
            print(f"performance.py: the machine is busy (load {os.getloadavg()[0]:.1f}): no figures to keep", file=sys.stderr)
        measure_all(a)
    if a.page:
        text = page(load(a.json))
        with open(a.page, "w", encoding="utf-8") as f:
            f.write(text)


main()
