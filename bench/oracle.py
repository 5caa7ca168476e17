#!/usr/bin/env python3
"""Makes the expected values of the real-model tests, independently of cmc.

Token ids come from llama.cpp's llama-tokenize; log-probabilities from a plain numpy forward pass in float32 over weights
dequantised by the `gguf` package. Needs: pip install gguf numpy.

    bench/oracle.py MODEL.gguf LLAMA_TOKENIZE TEXTS.json > OUT.json      (TEXTS.json: a list of strings)
    bench/oracle.py MODEL.gguf --check ORACLE.json                       compare with values made elsewhere
"""
import json
import subprocess
import sys
import tempfile

import numpy as np
from gguf import GGUFReader, dequantize


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.meta = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("tokenizer.ggml.t")}
        self.arch = self.meta["general.architecture"]
        self.raw = {t.name: t for t in reader.tensors}
        self.cache = {}

    def key(self, name, default=None):
        return self.meta.get(f"{self.arch}.{name}", default)

    def weight(self, name):
        if name not in self.cache:
            t = self.raw[name]
            self.cache[name] = dequantize(t.data, t.tensor_type).astype(np.float32)
        return self.cache[name]

    def get(self, name):
        return self.weight(name) if name in self.raw else None


def rms_norm(x, w, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True, dtype=np.float32) + np.float32(eps)) * w


def rope(x, base, n_rot, neox):
    """x: [heads, T, width]."""
    half = n_rot // 2
    inv = base ** (-np.arange(half, dtype=np.float64) * 2 / n_rot)
    angle = np.arange(x.shape[1], dtype=np.float64)[:, None] * inv[None, :]
    c, s = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    out = x.copy()
    if neox:
        a, b = x[..., :half], x[..., half:n_rot]
        out[..., :half], out[..., half:n_rot] = a * c - b * s, a * s + b * c
    else:
        a, b = x[..., 0:n_rot:2], x[..., 1:n_rot:2]
        out[..., 0:n_rot:2], out[..., 1:n_rot:2] = a * c - b * s, a * s + b * c
    return out


def attention(m, x, i, p):
    T = x.shape[0]
    pre = f"blk.{i}."
    q, k, v = (x @ m.weight(pre + f"attn_{n}.weight").T for n in "qkv")
    for t, n in ((q, "q"), (k, "k"), (v, "v")):
        b = m.get(pre + f"attn_{n}.bias")
        if b is not None:
            t += b
    q = q.reshape(T, p["h"], p["dk"]).transpose(1, 0, 2)
    k = k.reshape(T, p["hk"], p["dk"]).transpose(1, 0, 2)
    v = v.reshape(T, p["hk"], p["dv"]).transpose(1, 0, 2)
    qn, kn = m.get(pre + "attn_q_norm.weight"), m.get(pre + "attn_k_norm.weight")
    if qn is not None:
        q, k = rms_norm(q, qn, p["eps"]), rms_norm(k, kn, p["eps"])
    local = m.arch == "gemma3" and (i + 1) % 6 != 0
    base = 10000.0 if local else p["base"]
    q, k = (rope(t, base, p["rot"], m.arch != "llama") for t in (q, k))
    group = p["h"] // p["hk"]
    pos = np.arange(T)
    hide = pos[None, :] > pos[:, None]
    if local:
        hide |= pos[:, None] - pos[None, :] >= p["window"]
    out = np.empty((T, p["h"] * p["dv"]), np.float32)
    for h in range(p["h"]):
        s = (q[h] @ k[h // group].T) * np.float32(p["dk"] ** -0.5)
        s[hide] = -np.inf
        s = np.exp(s - s.max(axis=-1, keepdims=True))
        out[:, h * p["dv"]:(h + 1) * p["dv"]] = (s / s.sum(axis=-1, keepdims=True)) @ v[h // group]
    return out @ m.weight(pre + "attn_output.weight").T


def feed_forward(m, x, i):
    pre = f"blk.{i}.ffn_"
    g, u = x @ m.weight(pre + "gate.weight").T, x @ m.weight(pre + "up.weight").T
    if m.arch == "gemma3":
        g = 0.5 * g * (1 + np.tanh(np.float32(0.7978845608) * (g + np.float32(0.044715) * g**3)))
    else:
        g = g / (1 + np.exp(-g))
    return (g * u) @ m.weight(pre + "down.weight").T


def log_probs(m, ids):
    """next_logprob[i] = log p(ids[i+1] | ids[..i]), and the argmax at every position."""
    d = m.key("embedding_length")
    heads = m.key("attention.head_count")
    p = {"h": heads, "hk": m.key("attention.head_count_kv", heads), "dk": m.key("attention.key_length", d // heads),
         "dv": m.key("attention.value_length", d // heads), "eps": m.key("attention.layer_norm_rms_epsilon"),
         "base": m.key("rope.freq_base", 10000.0), "window": m.key("attention.sliding_window", 0)}
    p["rot"] = m.key("rope.dimension_count", p["dk"])
    x = m.weight("token_embd.weight")[ids]
    if m.arch == "gemma3":
        x = x * np.float32(d**0.5)
    for i in range(m.key("block_count")):
        pre = f"blk.{i}."
        a = attention(m, rms_norm(x, m.weight(pre + "attn_norm.weight"), p["eps"]), i, p)
        post = m.get(pre + "post_attention_norm.weight")
        x = x + (a if post is None else rms_norm(a, post, p["eps"]))
        f = feed_forward(m, rms_norm(x, m.weight(pre + "ffn_norm.weight"), p["eps"]), i)
        post = m.get(pre + "post_ffw_norm.weight")
        x = x + (f if post is None else rms_norm(f, post, p["eps"]))
    x = rms_norm(x, m.weight("output_norm.weight"), p["eps"])
    head = m.get("output.weight")
    head = m.weight("token_embd.weight") if head is None else head
    lp, arg = [], []
    for t in range(len(ids)):
        z = (x[t] @ head.T).astype(np.float64)
        arg.append(int(z.argmax()))
        if t + 1 < len(ids):
            lp.append(round(float(z[ids[t + 1]] - z.max() - np.log(np.exp(z - z.max()).sum())), 5))
    return lp, arg


def tokenize(program, model, text):
    with tempfile.NamedTemporaryFile("wb", suffix=".txt") as f:
        f.write(text.encode())
        f.flush()
        out = subprocess.run([program, "-m", model, "-f", f.name, "--ids", "--no-parse-special", "--log-disable"],
                             capture_output=True, check=True).stdout.decode()
    return json.loads(out[out.rindex("["):])


def main():
    m = Model(sys.argv[1])
    if sys.argv[2] == "--check":
        for c in json.load(open(sys.argv[3]))["cases"]:
            if len(c["ids"]) > 600:
                continue
            lp, _ = log_probs(m, c["ids"])
            diff = np.abs(np.array(lp) - np.array(c["next_logprob"]))
            print(len(c["ids"]), "mean", diff.mean(), "largest", diff.max())
        return
    cases = []
    for text in json.load(open(sys.argv[3])):
        ids = tokenize(sys.argv[2], sys.argv[1], text)
        lp, arg = log_probs(m, ids)
        cases.append({"text": text, "ids": ids, "next_logprob": lp, "argmax": arg})
    how = "ids by llama.cpp; log-probabilities by numpy in float32 from dequantised weights (bench/oracle.py)"
    print('{"how": ' + json.dumps(how) + ', "cases": [\n' + ",\n".join(json.dumps(c) for c in cases) + "\n]}")


main()
