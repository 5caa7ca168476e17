#!/usr/bin/env python3
"""Random texts through cmc, llama.cpp and Hugging Face's tokenizers with the vocabularies ggml-vocab-*.gguf; counts the
texts that come out differently and shows the first ones.

Usage: vocab_check.py --cmc CMC --vocabs DIR [--llama-tokenize PROGRAM] [--texts N] [--seed N] [--only NAME]

The packages gguf and tokenizers are needed. All texts go through the two programs in one call, with a control token
between them: what stands between control tokens is tokenised on its own. The tokenizers are put together from the
vocabulary and the pre-tokenizers that the models' own tokenizer.json have; their normalisers (NFC for Qwen, MPT) are
left out, for neither program has any.
"""
import argparse
import glob
import os
import random
import subprocess
import sys
import tempfile

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers as pre

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = (CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
          r"|\s+")
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
CASED = ("A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
         "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
         "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
         "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
         "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
         "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
         "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
         "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
         "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
         "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")


def split(*regexes):
    return [pre.Split(Regex(r), "isolated") for r in regexes]


def byte_level(use_regex):
    return [pre.ByteLevel(add_prefix_space=False, use_regex=use_regex)]


DIGITS_GPT2 = [pre.Digits(individual_digits=True)] + byte_level(True)
PRE = {
    "gpt-2": byte_level(True),
    "mpt": byte_level(True),
    "starcoder": DIGITS_GPT2,
    "refact": DIGITS_GPT2,
    "command-r": DIGITS_GPT2,
    "falcon": [pre.Punctuation("contiguous")] + byte_level(True) + [pre.Digits(individual_digits=False)] +
              split("[0-9][0-9][0-9]"),
    "deepseek-coder": split(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK) + [pre.Digits(individual_digits=True)] +
                      byte_level(False),
    "deepseek-llm": split(r"[\r\n]", r"\s?[" + CASED + "]+",
                          "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+", r"\s+$", CJK) +
                    [pre.Digits(individual_digits=True)] + byte_level(False),
    "llama-bpe": split(CL100K % "{1,3}") + byte_level(False),
    "qwen2": split(CL100K % "") + byte_level(False),
    "qwen35": split(QWEN35) + byte_level(False),
}


class Vocab:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        get = lambda key, default=None: reader.fields[key].contents() if key in reader.fields else default
        self.path = path
        self.name = os.path.basename(path)[len("ggml-vocab-"):-len(".gguf")]
        self.model = get("tokenizer.ggml.model")
        self.tokens = get("tokenizer.ggml.tokens")
        self.types = get("tokenizer.ggml.token_type")
        self.merges = get("tokenizer.ggml.merges")

    def separator(self):
        """A control token that takes no space along with it."""
        for i, t in enumerate(self.types):
            if t == 3 and self.tokens[i] in ("<s>", "<bos>", "<|endoftext|>", "<|begin_of_text|>", "</s>", "<PAD>",
                                             "<\uff5cbegin\u2581of\u2581sentence\uff5c>"):
                return i
        return None

    def hugging_face(self):
        """The model's tokenizer, or None where its parts are not known."""
        if self.name not in PRE and self.model != "gemma4":
            return None
        ids = {t: i for i, t in enumerate(self.tokens)}
        pairs = [(m[:m.index(" ", 1)], m[m.index(" ", 1) + 1:]) for m in self.merges]
        if self.model == "gemma4":
            tok = Tokenizer(models.BPE(ids, pairs, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
            tok.normalizer = normalizers.Replace(" ", "\u2581")
        else:
            tok = Tokenizer(models.BPE(ids, pairs, ignore_merges=self.name == "llama-bpe"))
            tok.pre_tokenizer = pre.Sequence(PRE[self.name])
        tok.add_tokens([AddedToken(t, normalized=False, special=False)
                        for i, t in enumerate(self.tokens) if self.types[i] == 4])
        return tok


THINGS = [" the", " of", "The", "don't", "I'LL", "we've", "'s", "'", "''", "\u2019s", "'\u017f", ".", "...", ", ", "!?",
          "=====", "----", "\n", "\n\n", "\r\n", "\r", "\t", " ", "  ", "    ", "         ", "\n   ", " \n", "\xa0",
          "\u3000", "\u180e", "\x85", "\u2028", "https://example.org/a/b?c=d&e=%20f#g", "aGVsbG8gd29ybGQgaGVsbG8=", "1",
          "12", "123", "1234567", "3.14", "\u00bd", "\u00b2", "\u2167", "\u0663", "x86_64", "<b>", "</b>", "<", ">",
          "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "e\u0301", "na\xefve",
          "\u201cquote\u201d",
          "def f(x):\n\treturn x", '{"a": [1, 2]}', "[", "]", "(", ")", "_", "$", "+", "^", "|", "`", "~", "\u20ac",
          "\u6211\u60f3\u5728", "\u5de5\u4f5c", "\u3053\u3093", "\ud55c\uad6d", "\u0e01\u0e38", "\u0939\u093f\u0928",
          "\u043f\u0440\u0438\u0432\u0435\u0442", "\x01", "\x1f", "\x7f", "\u200b", "\ufeff", "\ufffd",
          "McDonald", "ABCdef"]
RANGES = [(0x61, 0x7a), (0x41, 0x5a), (0x30, 0x39), (0x4e00, 0x9fa5), (0x3041, 0x3096), (0xac00, 0xd7a3),
          (0xe01, 0xe3a), (0x391, 0x3a1), (0x410, 0x44f), (0x300, 0x36f), (0x1f600, 0x1f64f), (0x21, 0x2f), (0x2000, 0x200f),
          (0x660, 0x669), (0xc0, 0xff), (0xe000, 0xe010), (0x10ff00, 0x10ffff), (0x900, 0x94f)]


def random_text(rng):
    out = []
    for _ in range(rng.randint(1, 12)):
        if rng.random() < 0.3:
            lo, hi = rng.choice(RANGES)
            out += [chr(rng.randint(lo, hi)) for _ in range(rng.randint(1, 12))]
        else:
            out.append(rng.choice(THINGS))
    return "".join(out)


def one_call(argv, texts, v, sep):
    """The ids of each text, from one call of a program that is given them all."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as f:
        mark = v.tokens[sep].encode()
        f.write(mark + mark.join(t.encode() for t in texts))
        f.flush()
        r = subprocess.run(argv + ["-f", f.name], capture_output=True, text=True, errors="replace")
    if r.returncode != 0:
        sys.exit(f"{argv[0]}: {r.stderr.strip()}")
    ids = [int(x) for x in r.stdout.strip().strip("[]").replace(",", " ").split()]
    parts, at = [], -1
    for i in ids:
        if i == sep:
            parts.append([])
        else:
            parts[-1].append(i)
    return parts


def compare(what, texts, ours, theirs, show):
    bad = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    print(f"  {what}: {len(texts) - len(bad)} of {len(texts)} equal", flush=True)
    for i in bad[:show]:
        print(f"    {texts[i]!r}\n      cmc   {ours[i]}\n      other {theirs[i]}")
    return len(bad)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--cmc", required=True)
    args.add_argument("--vocabs", required=True)
    args.add_argument("--llama-tokenize")
    args.add_argument("--texts", type=int, default=2000)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--show", type=int, default=3)
    args.add_argument("--only")
    a = args.parse_args()
    for path in sorted(glob.glob(os.path.join(a.vocabs, "ggml-vocab-*.gguf"))):
        v = Vocab(path)
        if v.model in ("bert", "t5") or (a.only and v.name not in a.only.split(",")):
            continue
        print(v.name, flush=True)
        sep = v.separator()
        rng = random.Random(a.seed)
        marks = [t for i, t in enumerate(v.tokens) if v.types[i] in (2, 3)]
        texts = [random_text(rng) for _ in range(a.texts)]
        texts = [t for t in texts if not any(m in t for m in marks)]
        ours = one_call([a.cmc, "tokenize", "-m", path, "--ids", "--no-bos", "--special"], texts, v, sep)
        if a.llama_tokenize:
            argv = [a.llama_tokenize, "-m", path, "--ids", "--no-bos", "--log-disable"]
            compare("llama.cpp", texts, ours, one_call(argv, texts, v, sep), a.show)
        tok = v.hugging_face()
        if tok is not None:
            theirs = [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
            compare("tokenizers", texts, ours, theirs, a.show)


if __name__ == "__main__":
    main()
