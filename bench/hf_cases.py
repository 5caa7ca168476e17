#!/usr/bin/env python3
"""Writes tests/data/hf/cases.h: small tokenizer.json files, texts, and their ids by PyPI's `tokenizers`.

usage: hf_cases.py --text FILE... > tests/data/hf/cases.h        (needs tokenizers and sentencepiece)
"""
import argparse
import json
import os
import random
import sys
import tempfile

import tokenizers
from tokenizers import Tokenizer

import hf_check

SIZE, TEXTS = 420, 36
SHAPES = [("shape Llama 3", dict(pre=hf_check.regexes(hf_check.LLAMA3))),
          ("shape Qwen 2/3", dict(pre=hf_check.regexes(hf_check.QWEN), normalizer={"type": "NFC"})),
          ("shape tekken", dict(pre=hf_check.regexes(hf_check.TEKKEN))),
          ("shape DeepSeek V3", dict(pre=hf_check.regexes(*hf_check.DEEPSEEK_V3))),
          ("shape DeepSeek V2", dict(pre=hf_check.regexes(*hf_check.DEEPSEEK_LLM))),
          ("shape StarCoder", dict(pre=hf_check.sequence(
              "pretokenizers", {"type": "Digits", "individual_digits": True}, hf_check.byte_level()))),
          ("shape Falcon", dict(pre=hf_check.sequence(
              "pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"}, hf_check.byte_level(),
              {"type": "Digits", "individual_digits": False}, hf_check.split("[0-9][0-9][0-9]"))))]


def c_string(s):
    return '"' + s.replace("\\", "\\\\").replace('"', '\\"').replace("??", "?\\?") + '"'


def cases(lines):
    with tempfile.TemporaryDirectory() as d:
        rules = os.path.join(d, "rules.tsv")
        with open(rules, "w", encoding="utf-8") as f:
            for a, b in (("\uff21", "A"), ("\u2026", "..."), ("\x7f", ""), ("\n", " "), ("\u3000", " "), ("E", "e"),
                         ("\ufb01", "fi"), ("e\u0301", "\u00e9"), ("\u00bd", "1/2")):
                f.write(" ".join(f"{ord(c):04X}" for c in a) + "\t" + " ".join(f"{ord(c):04X}" for c in b) + "\n")
        yield from hf_check.part_cases(lines, SIZE, rules)
    special = [hf_check.added(i, s) for i, s in enumerate(hf_check.SPECIALS)]
    byte = hf_check.train("bytes", lines, SIZE, hf_check.SPECIALS)
    for name, parts in SHAPES:
        yield name, hf_check.whole(byte, tokens=special, decoder=hf_check.DECODE_BYTES,
                                   post=hf_check.template("<s>", 1), **parts)
    meta = hf_check.with_bytes(hf_check.train("meta", lines, SIZE, hf_check.SPECIALS, unk_token="<unk>"))
    norm = hf_check.sequence("normalizers", {"type": "Prepend", "prepend": hf_check.SP},
                             hf_check.replace(" ", hf_check.SP))
    for name, n, pre in (("shape Llama 2", norm, None), ("shape Mistral v3", None, hf_check.metaspace("first", False)),
                         ("shape Gemma", hf_check.replace(" ", hf_check.SP),
                          hf_check.split(" ", "MergedWithPrevious", kind="String"))):
        yield name, hf_check.whole(dict(meta, fuse_unk=True), n, pre, hf_check.template("<s>", 1), hf_check.DECODE_SPM,
                                   special)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--text", nargs="+", required=True)
    lines = [l for f in a.parse_args().text for l in open(f, encoding="utf-8") if l.strip()]
    r = random.Random("cases")
    texts = [t for t in hf_check.random_texts(4000, "cases", hf_check.SPECIALS + ["[M]", "[R]", "[MR]", "the"])
             if len(t) < 60]
    texts = texts[:10] + r.sample(texts[10:], TEXTS - 10)
    models, out = {}, []
    for name, spec in cases(lines):
        text = json.dumps(spec)
        tok = Tokenizer.from_str(text)
        model = models.setdefault(json.dumps(spec["model"], separators=(",", ":")), len(models))
        bos = spec["post_processor"] is not None
        ids = [tok.encode(t, add_special_tokens=bos).ids for t in texts]
        out.append((name, json.dumps(dict(spec, model=model), separators=(",", ":")),
                    json.dumps(ids, separators=(",", ":"))))
    print(f"/* Small tokenizer.json files, and ids of texts by PyPI's tokenizers {tokenizers.__version__}. Made by "
          "bench/hf_cases.py. */")
    print("static const char HF_TEXTS[] =\n    " + c_string(json.dumps(texts)) + ";")
    print("static const char *const HF_MODELS[] = {\n" + "".join(f"    {c_string(m)},\n" for m in models) + "};")
    print("static const struct hf_case { const char *name, *file, *ids; } HF_CASES[] = {")
    for case in out:
        print("    {" + ",\n     ".join(map(c_string, case)) + "},")
    print("};")
    return 0


if __name__ == "__main__":
    sys.exit(main())
