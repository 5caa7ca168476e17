#!/usr/bin/env python3
"""Writes data/quant_golden.h: blocks and what gguf-py (the reference reader and quantiser) makes of them.

    pip install gguf numpy; tests/make_quant_golden.py > tests/data/quant_golden.h
"""
import gguf
import numpy as np
from gguf import GGMLQuantizationType as T, quants

DECODE = "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()
ENCODE = "F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1".split()
SCALES = {  # where a block keeps its float16 fields
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0], "IQ4_XS": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}


def rows(values, fmt, per_line):
    values = [format(int(v), fmt) for v in values]
    return ",\n".join("    " + ", ".join(values[i:i + per_line]) for i in range(0, len(values), per_line))


def main():
    rng = np.random.default_rng(20241017)
    print("/* Blocks and their values by gguf-py: written by make_quant_golden.py. */")
    n = 256
    for name in DECODE:
        block, size = gguf.GGML_QUANT_SIZES[T[name]]
        data = rng.integers(0, 256, (n // block, size), dtype=np.uint8)
        if name == "F16":  # every kind: zero, subnormal, large, infinity; NaN is tested by itself
            half = rng.integers(0, 65536, n, dtype=np.uint16)
            half[(half & 0x7c00) == 0x7c00] &= 0xfbff
            half[:8] = [0, 0x8000, 1, 0x83ff, 0x400, 0x7bff, 0x7c00, 0xfc00]
            data = half.view(np.uint8).reshape(data.shape)
        if name == "BF16":
            data = rng.standard_normal(n).astype(np.float32).view(np.uint8).reshape(n, 4)[:, 2:].copy()
        for at in SCALES.get(name, []):
            data[:, at:at + 2] = (rng.standard_normal(n // block) / 16).astype(np.float16).view(np.uint8).reshape(-1, 2)
        values = quants.dequantize(data.reshape(1, -1), T[name]).reshape(-1)
        print(f"static const uint8_t golden_{name.lower()}_data[] = {{\n{rows(data.reshape(-1), '#04x', 20)}\n}};")
        print(f"static const uint32_t golden_{name.lower()}_bits[] = {{\n{rows(values.view(np.uint32), '#010x', 10)}\n}};")
    x = (rng.standard_normal(96) * np.repeat([1, 1e-3, 50], 32)).astype(np.float32)
    x[0], x[40] = 0, -x[41]
    print(f"static const uint32_t golden_encode_input[] = {{\n{rows(x.view(np.uint32), '#010x', 10)}\n}};")
    for name in ENCODE:
        data = x.astype(np.float16).view(np.uint8) if name == "F16" else quants.quantize(x.reshape(1, -1), T[name])
        print(f"static const uint8_t golden_{name.lower()}_encoded[] = {{\n{rows(data.view(np.uint8).reshape(-1), '#04x', 20)}\n}};")
    print("#define GOLDEN_DECODE(X) \\\n    " + " ".join(f"X({n}, {n.lower()})" for n in DECODE))
    print("#define GOLDEN_ENCODE(X) \\\n    " + " ".join(f"X({n}, {n.lower()})" for n in ENCODE))


main()
