#!/usr/bin/env python3
"""tokenizer.json: ids of random texts by cmc and by PyPI's `tokenizers`, part by part and shape by shape.

usage: hf_check.py --ids PROGRAM [--text FILE...] [--gguf FILE...] [--spm FILE...] [-n 10000] [--only NAME]

PROGRAM is tests/mkids. Small vocabularies are trained on --text (needs tens of kilobytes); a GGUF file's vocabulary or
a SentencePiece model's gives the shapes that use one like it. Needs tokenizers, gguf (with --gguf) and sentencepiece
(for the shapes with its normaliser). Exits with 1 where any id differs.
"""
import argparse
import base64
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

SP = "\u2581"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace("{1,3}", "")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK_V3 = [r"\p{N}{1,3}", r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+".encode().decode("unicode_escape"),
               r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
               r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
DEEPSEEK_LLM = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}"]


# ------------------------------------------------------------------------------------------------ random texts
WORDS = ("the of and to in is you that it he was for on are as with his they I at be this have from or one had by word "
         "but not what all were we when your can said there use an each which she do how their if will up other about "
         "out many then them these so some her would make like him into time has look two more write go see number no "
         "way could people my than first water been call who oil its now find long down day did get come made may part "
         "don't I'll we've it's THE You're they'D isn'T").split()
THINGS = ["def f(x):\n\treturn x + 1", "{\"a\": [1, 2.5e-3, null]}", "for (int i = 0; i < n; i++) {",
          "https://example.org/a/b?c=d&e=%20f#g", "x86_64", "3.14", "1,234,567.89", "12:34:56", "C:\\dir", "foo_bar",
          "fooBar", "FOOBar", "!!!", "...", "\u2026", "''", "--", "=====", "<b>", "</b>", "#include <a.h>", "$x^2$",
          "@user", "a.b,c;d", "(a)", "[b]", "\u201cquote\u201d", "na\xefve", "e\u0301", "A\u030a", "\xc5", "\ufb01",
          "\u2126", "\u212b", "\uff21\uff22", "\uff21\u0301", "\xbd", "\xb2", "\u2463", "\u24b6", "\u0130", "\u1e9e",
          "\u017fs", "'\u017f", "\u212a", "\u200d", "\u200b", "\ufeff", "\u2581", "\u2581\u2581", " \u2581 ", "\xa0",
          "\u3000", "\u2028", "\x85", "\x1c", "\x0b", "\x00", "\x01", "\x7f", "\u180e",
          "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "\u0e01\u0e33",
          "\u1112\u1161\u11ab", "\ud55c\uae00", "\u0915\u094d\u0937", "\u0b95\u0bca", "\u0639\u0631\u0628\u064a",
          "<0x0A>", "<0xE4>", "\u0660\u0661", "\u4e8c\u5341", "\r\n", "\r", "\t\t", "\n\n\n", "<unk>", "<s>", "</s>"]
RANGES = [(0x4e00, 0x9fff), (0x3041, 0x3096), (0x30a1, 0x30fa), (0xac00, 0xd7a3), (0x0391, 0x03c9), (0x0410, 0x044f),
          (0x05d0, 0x05ea), (0x0621, 0x064a), (0x0905, 0x0939), (0x0e01, 0x0e30), (0xc0, 0x17f), (0x1f600, 0x1f64f),
          (0x300, 0x36f), (0x2190, 0x21ff), (0x2200, 0x22ff), (0x20a0, 0x20bf), (0xff01, 0xff5e), (0x1d400, 0x1d4ff),
          (0xe000, 0xe010), (0x20000, 0x20100), (0x2460, 0x24ff), (0x2150, 0x218b), (0xa0, 0xbf), (0x10400, 0x1044f)]


def random_thing(r, specials):
    k = r.randrange(14)
    if k < 5:
        return " " + r.choice(WORDS)
    if k == 5:
        return r.choice(WORDS).upper() if r.random() < 0.3 else r.choice(WORDS)
    if k == 6:
        return str(r.randrange(10 ** r.randrange(1, 9)))
    if k in (7, 8):
        return r.choice(THINGS)
    if k == 9:
        lo, hi = r.choice(RANGES)
        return "".join(chr(r.randrange(lo, hi + 1)) for _ in range(r.randrange(1, 5)))
    if k == 10:
        return r.choice([" ", "\n", "\t", "  \n", "\r\n"]) * r.choice([1, 1, 2, 3, 5, 17, 40])
    if k == 11:
        return "".join(chr(r.randrange(0x20, 0x7f)) for _ in range(r.randrange(1, 8)))
    if k == 12 and specials:
        s = r.choice(specials)
        return s if r.random() < 0.8 else s[:r.randrange(1, len(s) + 1)]
    return r.choice(".,;:!?-'\"/()[]{}<>+*=&%$#@^~`|\\ ") * r.randrange(1, 4)


def random_texts(n, seed, specials):
    r = random.Random(seed)
    out = ["", " ", "  ", "\n", "a", " a", SP, SP + "a", "\u0301", "\u0301a"]
    while len(out) < n:
        out.append("".join(random_thing(r, specials) for _ in range(r.choice([1, 1, 2, 3, 5, 8, 13, 30]))))
    return out


# ------------------------------------------------------------------------------------------------ making files
def added(id_, content, special=True, **kw):
    t = {"id": id_, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": not special, "special": special}
    t.update(kw)
    return t


def whole(model, normalizer=None, pre=None, post=None, decoder=None, tokens=()):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(tokens),
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model}


def sequence(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def byte_level(space=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def replace(a, b, kind="String"):
    return {"type": "Replace", "pattern": {kind: a}, "content": b}


def metaspace(scheme, cut=True):
    return {"type": "Metaspace", "replacement": SP, "prepend_scheme": scheme, "split": cut}


def template(token, id_):
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": token, "type_id": 0}},
                                                     {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]}}}


def bpe(vocab, merges, **kw):
    m = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
         "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
         "vocab": vocab, "merges": merges}
    m.update(kw)
    return m


def train(kind, lines, size, specials=(), **kw):
    """A small model, as tokenizer.json has it."""
    if kind == "unigram":
        tok, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer(
            vocab_size=size, unk_token="<unk>", special_tokens=list(specials), show_progress=False)
        tok.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        tok, trainer = Tokenizer(models.BPE(**kw)), trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(specials), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else [],
            **{k: v for k, v in kw.items() if k in ("continuing_subword_prefix", "end_of_word_suffix")})
        tok.pre_tokenizer = (pre_tokenizers.ByteLevel(add_prefix_space=False) if kind == "bytes"
                             else pre_tokenizers.Metaspace() if kind == "meta" else pre_tokenizers.WhitespaceSplit())
    tok.train_from_iterator(lines, trainer)
    return json.loads(tok.to_str())["model"]


def with_bytes(model):
    """The same with byte fallback."""
    model = json.loads(json.dumps(model))
    names = [f"<0x{b:02X}>" for b in range(256)]
    if model["type"] == "Unigram":
        model["vocab"] += [[s, 0.0] for s in names]
    else:
        n = len(model["vocab"])
        model["vocab"].update({s: n + i for i, s in enumerate(names)})
    model["byte_fallback"] = True
    return model


def spm_merges(pieces):
    """pieces: {spelling: (id, score)} -> merges in the order in which SentencePiece would do them."""
    out = []
    for s, (_, score) in pieces.items():
        pairs = [(s[:i], s[i:]) for i in range(1, len(s)) if s[:i] in pieces and s[i:] in pieces]
        out += [(-score, pieces[a][0], pieces[b][0], [a, b]) for a, b in pairs]
    return [m[3] for m in sorted(out, key=lambda m: m[:3])]


def gguf_vocab(path):
    from gguf import GGUFReader
    f = GGUFReader(path).fields

    def strings(key):
        p = f[key]
        return [bytes(p.parts[i]).decode("utf-8", "replace") for i in p.data]

    def numbers(key):
        p = f[key]
        return [p.parts[i][0].item() for i in p.data]
    t = strings("tokenizer.ggml.tokens")
    kinds = numbers("tokenizer.ggml.token_type") if "tokenizer.ggml.token_type" in f else [1] * len(t)
    if "tokenizer.ggml.merges" in f:
        return t, kinds, [m.split(" ") for m in strings("tokenizer.ggml.merges")], None
    return t, kinds, None, numbers("tokenizer.ggml.scores")


def spm_vocab(path):
    import sentencepiece as spm
    p = spm.SentencePieceProcessor(model_file=path)
    t = [p.id_to_piece(i) for i in range(p.get_piece_size())]
    kinds = [2 if p.is_unknown(i) else 3 if p.is_control(i) else 6 if p.is_byte(i) else 1 for i in range(len(t))]
    return t, kinds, None, [p.get_score(i) for i in range(len(t))]


def from_vocab(v, all_added=False, **kw):
    """BPE model and added tokens of a real vocabulary."""
    tokens, kinds, merges, scores = v
    special = [i for i, k in enumerate(kinds) if k in (2, 3)]
    user = [i for i, k in enumerate(kinds) if k == 4]
    vocab, seen = {}, set()
    for i, s in enumerate(tokens):
        vocab[s if s not in vocab else f"<again {i}>"] = i
    if merges is None:
        merges = spm_merges({s: (i, scores[i]) for s, i in vocab.items() if kinds[i] in (1, 5)})
    merges = [m for m in merges if len(m) == 2 and m[0] in vocab and m[1] in vocab and m[0] + m[1] in vocab]
    names = {i: s for s, i in vocab.items()}
    extra = [added(i, names[i]) for i in special] + [added(i, names[i], False, normalized=False) for i in user]
    return bpe(vocab, merges, **kw), sorted(extra, key=lambda t: t["id"])


# ------------------------------------------------------------------------------------------------ the cases
DECODE_SPM = sequence("decoders", replace(SP, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                      {"type": "Strip", "content": " ", "start": 1, "stop": 0})
DECODE_BYTES = byte_level(True)
SPECIALS = ["<unk>", "<s>", "</s>", "<|im_end|>"]


def charsmap(lines, rules=None):
    """SentencePiece's own nmt_nfkc_cf normaliser, or that of `rules` (a TSV file), out of a model trained here."""
    import sentencepiece as spm
    with tempfile.TemporaryDirectory() as d:
        spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_prefix=f"{d}/m", vocab_size=300,
                                       minloglevel=2, hard_vocab_limit=False,
                                       **({"normalization_rule_tsv": rules} if rules else
                                          {"normalization_rule_name": "nmt_nfkc_cf"}))
        data = open(f"{d}/m.model", "rb").read()
    at = 0
    while at < len(data):  # the protobuf's third field is the normaliser, whose second is the map
        tag, at = varint(data, at)
        size, at = varint(data, at)
        if tag >> 3 == 3:
            inner, p = data[at:at + size], 0
            while p < len(inner):
                tag, p = varint(inner, p)
                if tag & 7 == 0:
                    _, p = varint(inner, p)
                    continue
                size, p = varint(inner, p)
                if tag >> 3 == 2:
                    return base64.b64encode(inner[p:p + size]).decode()
                p += size
        at += size
    raise SystemExit("hf_check: the SentencePiece model has no normaliser")


def varint(data, at):
    v = shift = 0
    while True:
        b = data[at]
        at += 1
        v |= (b & 127) << shift
        shift += 7
        if b < 128:
            return v, at


def part_cases(lines, size=1500, rules=None):
    """Every part on its own, over small models."""
    tokens = [added(i, s) for i, s in enumerate(SPECIALS)]
    chars = train("chars", lines, size, SPECIALS, unk_token="<unk>")
    meta = train("meta", lines, size, SPECIALS, unk_token="<unk>")
    byte = train("bytes", lines, size, SPECIALS)
    uni = train("unigram", lines, size, SPECIALS)
    n = len(chars["vocab"])

    def c(name, model=chars, t=tokens, **kw):
        return name, whole(model, tokens=t, **kw)
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt"):
        yield c(f"normalizer {form}", meta, normalizer={"type": form}, pre=metaspace("first"))
    yield c("normalizer Strip", meta, normalizer={"type": "Strip", "strip_left": True, "strip_right": True},
            pre=metaspace("first"))
    yield c("normalizer Strip right", meta, normalizer={"type": "Strip", "strip_left": False, "strip_right": True})
    yield c("normalizer Prepend", meta, normalizer={"type": "Prepend", "prepend": SP})
    yield c("normalizer Replace String", meta, normalizer=replace(" ", SP))
    yield c("normalizer Replace Regex", meta, normalizer=replace(r"\s+|[0-9]{2,3}", SP, "Regex"),
            pre=metaspace("first"))
    yield c("normalizer ByteLevel", byte, normalizer={"type": "ByteLevel"})
    yield c("normalizer Sequence", meta, normalizer=sequence("normalizers", {"type": "NFKD"}, {"type": "StripAccents"},
            {"type": "Lowercase"}, replace("``", '"'), {"type": "Prepend", "prepend": "x"}), pre=metaspace("first"))
    try:
        pre = {"type": "Precompiled", "precompiled_charsmap": charsmap(lines, rules)}
        yield c("normalizer Precompiled", uni, normalizer=pre, pre=metaspace("always"))
        yield c("shape T5 / XLM-R", uni, normalizer=sequence("normalizers", pre, replace(" {2,}", " ", "Regex")),
                pre=sequence("pretokenizers", {"type": "WhitespaceSplit"}, metaspace("always")),
                decoder={"type": "Metaspace", "replacement": SP, "prepend_scheme": "always", "split": True})
        yield c("shape T5, byte fallback", with_bytes(uni), normalizer=pre, pre=metaspace("first"))
    except ImportError:
        print("hf_check: no sentencepiece, so no Precompiled", file=sys.stderr)
    for space in (False, True):
        for regex in (False, True):
            yield c(f"pre ByteLevel space={space} regex={regex}", byte, pre=byte_level(space, regex))
    for how in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        yield c(f"pre Split {how}", pre=split(r"[aeiou]|\d+|\s", how))
        yield c(f"pre Split {how} invert", pre=split(r"\w+", how, True))
        yield c(f"pre Split {how} String", pre=split("e", how, kind="String"))
        yield c(f"pre Punctuation {how}", pre={"type": "Punctuation", "behavior": how})
        yield c(f"pre Split {how} empty", pre=split(r"(?=[A-Z])|x*", how))
    for one in (False, True):
        yield c(f"pre Digits {one}", pre={"type": "Digits", "individual_digits": one})
    for scheme in ("always", "first", "never"):
        for cut in (False, True):
            yield c(f"pre Metaspace {scheme} split={cut}", meta, pre=metaspace(scheme, cut))
    yield c("pre Sequence, Metaspace first", meta, normalizer={"type": "NFKC"}, pre=sequence(
        "pretokenizers", {"type": "Punctuation", "behavior": "Isolated"}, metaspace("first")))
    for name in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer"):
        yield c(f"pre {name}", pre={"type": name})
    yield c("pre CharDelimiterSplit", pre={"type": "CharDelimiterSplit", "delimiter": "e"})
    yield c("pre FixedLength", pre={"type": "FixedLength", "length": 3})
    for name, re in (("words", r"\b\w+\b|\W"), ("hex", r"\h+|\H"), ("case", r"(?i:the|[k-m]+|is)"),
                     ("dot", r"(?m:a.)|b."), ("lines", r"^.|.$"), ("lazy", r"<.*?>|a{,2}b|(?<=a)t|(?<!h)e"),
                     ("scripts", r"\p{Han}+|\p{Hiragana}+|\p{Katakana}|\p{^L}|\P{^N}"),
                     ("sets", r"[\d\s_]+|[^\S\n]|[a-c\-z\]]|\u4e00|\x41|[\x{3041}-\x{3096}]"),
                     ("groups", r"(?:ab|(c|d)+)(?!e)|(?>a+)b|\s++|t(?i:HE)|(?:(?i)IN|of)")):
        yield c(f"regex {name}", pre=split(re))
    flags = [added(n, "the", False), added(n + 1, "[M]", True, lstrip=True), added(n + 2, "[R]", True, rstrip=True),
             added(n + 3, "is", False, single_word=True), added(n + 4, "<x> ", False, normalized=False),
             added(n + 5, "[MR]", False, lstrip=True, rstrip=True), added(n + 6, "\u00c5", False),
             added(n + 7, "[M][R]"), added(n + 8, "Not", False)]
    flags = [t for t in flags if t["content"] not in chars["vocab"]]
    for i, t in enumerate(flags):
        t["id"] = n + i
    lower = sequence("normalizers", {"type": "NFD"}, {"type": "Lowercase"})
    yield c("added tokens", t=tokens + flags, normalizer=lower)
    base = [t for t in flags if t["content"] not in meta["vocab"]]
    for i, t in enumerate(base):
        base[i] = dict(t, id=len(meta["vocab"]) + i)
    yield c("added tokens, Metaspace first", meta, t=tokens + base, pre=metaspace("first"))
    yield c("model BPE fuse_unk", dict(chars, fuse_unk=True))
    yield c("model BPE no unk", dict(chars, unk_token=None))
    yield c("model BPE byte_fallback", with_bytes(meta), pre=metaspace("always"))
    few = with_bytes(meta)
    few["vocab"] = {s: i for i, s in enumerate(s for s in few["vocab"] if s != "<0xFF>" and s != "<0xF0>")}
    yield c("model BPE some bytes", dict(few, fuse_unk=True))
    yield c("model BPE ignore_merges", dict(byte, ignore_merges=True), pre=byte_level())
    yield c("model BPE prefix", train("chars", lines, size, SPECIALS, unk_token="<unk>",
            continuing_subword_prefix="##"), pre={"type": "Whitespace"}, decoder={"type": "WordPiece", "prefix": "##",
                                                                                 "cleanup": True})
    yield c("model BPE suffix", train("chars", lines, size, SPECIALS, unk_token="<unk>", end_of_word_suffix="</w>"),
            pre={"type": "Whitespace"}, decoder={"type": "BPEDecoder", "suffix": "</w>"})
    yield c("model Unigram", uni, pre=metaspace("always"))
    yield c("model Unigram whole text", uni, pre=metaspace("first", False))
    yield c("model Unigram byte_fallback", with_bytes(uni), pre=metaspace("always"))


def bytes_shape(v, pre, normalizer=None, **kw):
    model, tokens = from_vocab(v, **kw)
    return whole(model, normalizer, pre, byte_level(True), DECODE_BYTES, tokens)


def regexes(*patterns):
    return sequence("pretokenizers", *[split(p) for p in patterns], byte_level(False, False))


def gguf_cases(path):
    """A vocabulary in the shapes of all families that have one of its kind."""
    v, name = gguf_vocab(path), os.path.basename(path)
    if v[2] is None:
        yield from spm_cases(v, name)
        return
    yield f"shape GPT-2, {name}", bytes_shape(v, byte_level())
    yield f"shape Llama 3, {name}", bytes_shape(v, regexes(LLAMA3), ignore_merges=True)
    yield f"shape Qwen 2/3, {name}", bytes_shape(v, regexes(QWEN), {"type": "NFC"})
    yield f"shape tekken, {name}", bytes_shape(v, regexes(TEKKEN), ignore_merges=True)
    yield f"shape StarCoder, {name}", bytes_shape(v, sequence(
        "pretokenizers", {"type": "Digits", "individual_digits": True}, byte_level()))
    yield f"shape DeepSeek V2, {name}", bytes_shape(v, sequence(
        "pretokenizers", *[split(p) for p in DEEPSEEK_LLM[:4]], {"type": "Digits", "individual_digits": True},
        byte_level(False, False)))
    yield f"shape DeepSeek V3, {name}", bytes_shape(v, regexes(*DEEPSEEK_V3))
    yield f"shape Falcon, {name}", bytes_shape(v, sequence(
        "pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"}, byte_level(),
        {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")))


def spm_cases(v, name):
    unk = next((s for s, k in zip(v[0], v[1]) if k == 2), "<unk>")
    model, tokens = from_vocab(v, unk_token=unk, fuse_unk=True, byte_fallback=True)
    bos = next(t for t in tokens if t["content"] in ("<s>", "<bos>"))
    post = template(bos["content"], bos["id"])
    norm = sequence("normalizers", {"type": "Prepend", "prepend": SP}, replace(" ", SP))
    yield f"shape Llama 2, {name}", whole(model, norm, None, post, DECODE_SPM, tokens)
    yield f"shape Phi-3, {name}", whole(model, norm, None, post, DECODE_SPM,
                                        [dict(t, rstrip=t["content"] not in ("<s>", unk)) for t in tokens])
    yield f"shape Mistral v3, {name}", whole(model, None, metaspace("first", False), post, DECODE_SPM, tokens)
    yield f"shape Gemma 2/3, {name}", whole(model, replace(" ", SP), split(" ", "MergedWithPrevious", kind="String"),
                                            post, DECODE_SPM, tokens)


# ------------------------------------------------------------------------------------------------ comparing
def ours(program, path, texts, *flags):
    data = b"".join(struct.pack("<I", len(t)) + t for t in (s.encode() for s in texts))
    p = subprocess.run([program, path, *flags], input=data, capture_output=True)
    if p.returncode != 0:
        return None, p.stderr.decode().strip()
    lines = p.stdout.decode().split("\n")[:-1]
    return [l if l.startswith("!") else [int(x) for x in l.split()] for l in lines], p.stderr.decode().strip()


def theirs(tok, texts, bos):
    out = []
    for t in texts:
        try:
            out.append(tok.encode(t, add_special_tokens=bos).ids)
        except Exception as e:
            out.append(f"! {e}")
    return out


def check(name, spec, args, work):
    path = os.path.join(work, "tokenizer.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(spec, f, ensure_ascii=False)
    tok = Tokenizer.from_file(path)
    specials = [t["content"] for t in spec["added_tokens"]]
    texts = random_texts(args.n, f"{args.seed} {name}", specials[:60])
    want = theirs(tok, texts, spec["post_processor"] is not None)
    got, note = ours(args.ids, path, texts, "special", "bos")
    if got is None:
        print(f"{name:45} REFUSED {note}", flush=True)
        return False
    bad = [i for i in range(len(texts)) if got[i] != want[i]
           and not (isinstance(got[i], str) and isinstance(want[i], str))]
    print(f"{name:45} {len(texts) - len(bad):6}/{len(texts)}  {note}", flush=True)
    for i in bad[:args.show]:
        print(f"    {texts[i]!r}\n      tokenizers {want[i]}\n      cmc        {got[i]}")
    return not bad


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--ids", required=True)
    a.add_argument("--text", nargs="*", default=[])
    a.add_argument("--gguf", nargs="*", default=[])
    a.add_argument("--spm", nargs="*", default=[])
    a.add_argument("-n", type=int, default=10000)
    a.add_argument("--seed", default="1")
    a.add_argument("--only", default="")
    a.add_argument("--show", type=int, default=2)
    args = a.parse_args()
    ok, n = True, 0
    with tempfile.TemporaryDirectory() as work:
        def run(cases):
            nonlocal ok, n
            for name, spec in cases:
                if args.only in name:
                    ok = check(name, spec, args, work) and ok
                    n += 1
        if args.text:
            run(part_cases([l for f in args.text for l in open(f, encoding="utf-8") if l.strip()]))
        for path in args.gguf:
            run(gguf_cases(path))
        for path in args.spm:
            run(spm_cases(spm_vocab(path), os.path.basename(path)))
    print(f"{n} tokenizers, {'all ids equal' if ok else 'DIFFERENCES'}")
    return 0 if ok and n > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
