#!/usr/bin/env python3
"""Decode and prefill speed beside llama.cpp: both programs in turn, in one run; medians and ratios.

    bench/vs_llama.py LLAMA_BENCH MODEL.gguf... [-r ROUNDS] [-t THREADS] [-p 512] [-n 128]

LLAMA_BENCH: built from the llama-cpp-python 0.3.36 source archive (vendor/llama.cpp) with explicit instruction-set flags:
    cmake -B b -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DLLAMA_CURL=OFF
    (with AVX-512: -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON; never AMX) && cmake --build b --target llama-bench
"""
import argparse
import json
import os
import statistics
import subprocess

CMC = os.environ.get("CMC", os.path.join(os.path.dirname(__file__), "..", "cmc"))


def ours(model, a):
    out = subprocess.run([CMC, "bench", "-m", model, "-t", str(a.t), "-p", str(a.p), "-n", str(a.n), "-r", "1", "--json"],
                         capture_output=True, check=True).stdout
    r = json.loads(out)
    return r["pp_tps"], r["tg_tps"]


def theirs(model, a):
    out = subprocess.run([a.bench, "-m", model, "-t", str(a.t), "-p", str(a.p), "-n", str(a.n), "-r", "1", "-o", "json"],
                         capture_output=True, check=True).stdout
    by = {(r["n_prompt"] > 0): r["avg_ts"] for r in json.loads(out)}
    return by[True], by[False]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bench")
    p.add_argument("models", nargs="+")
    p.add_argument("-r", type=int, default=5)
    p.add_argument("-t", type=int, default=2)
    p.add_argument("-p", type=int, default=512)
    p.add_argument("-n", type=int, default=128)
    a = p.parse_args()
    for model in a.models:
        rows = [(ours(model, a), theirs(model, a)) for _ in range(a.r)]
        for i, name in enumerate(("prefill", "decode")):
            c, l = [r[0][i] for r in rows], [r[1][i] for r in rows]
            ratio = [x / y for x, y in zip(c, l)]
            print(json.dumps({"model": os.path.basename(model), "what": name, "cmc_tps": round(statistics.median(c), 1),
                              "llama_cpp_tps": round(statistics.median(l), 1), "ratio": round(statistics.median(ratio), 3),
                              "ratio_min": round(min(ratio), 3), "ratio_max": round(max(ratio), 3), "rounds": a.r}), flush=True)


main()
