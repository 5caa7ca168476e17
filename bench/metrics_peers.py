#!/usr/bin/env python3
"""The metrics of eval/ by their peers, as a C header for the tests.

    bench/metrics_peers.py >tests/data/metrics.h          (pip install rouge-score scipy numpy)

ROUGE and the stemmer are rouge-score's, the tests and means are scipy's; what has no package (TOFU's measures, exact
memorisation, extraction strength, distinct-n, the bootstrap) is written here in numpy from its definition.
"""
import re
import sys

import numpy as np
import scipy
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from scipy import stats

WORDS = """caresses ponies ties caress cats feed agreed plastered bled motoring sing conflated troubled sized hopping tanned falling
hissing fizzed failing filing happy sky relational conditional rational valenci hesitanci digitizer conformabli radicalli differentli
vileli analogousli vietnamization predication operator feudalism decisiveness hopefulness callousness formaliti sensitiviti
sensibiliti triplicate formative formalize electriciti electrical hopeful goodness revival allowance inference airliner gyroscopic
adjustable defensible irritant replacement adjustment dependent adoption homologou communism activate angulariti homologous effective
bowdlerize probate rate cease controll roll dies flies lies tied died spied tried enjoy enjoyment happily fully carefully logically
rationally geology theology apologi archaeology biology dying lying tying news innings outing cannings howe proceed exceed succeed
skies skiing inning syzygy toying yellowed eyed aged used using being seeing agreeing ibidem owed added egged inned up upped upping
emotionally additionally traditionally possibly terribly ability abilities realities capability university universities generously
generalization organizations nation national nationalism sensational internationalization conditions mental element elements moment
cement excitement argument agents present opinion lion onion million region legion union unions action actions decision discussion
permission television anxious famous gracious various spacious house mouse houses mice use uses used user users horse horses please
pleases pleased pleasing believe believes believed believing write writes writing written wrote writer writers author authors authored
authoring literature literary award awards awarded prestigious genre genres fictitious fictional 1956 1990s 20th b2b 3ds xylophones
yyyy yyyyed aeiou bbb sses ies ss ssing ing ed ied eed reed breed breeding freed need needed needing weed ally rally rallied tally
totally finally fall fell filled filling fuller fulfilled skill skills skilled skillful skillfully wool woolly travelling traveller
cancelled controlling controlled rolled rolling bell bells telling excel excelled sizes quizzes buzzing topped stopping tapping taping
hoped hoping snowed snowing boxed boxing played playing relied relying reliance able table tables stable unstable comfortable
terrible edible audible ant want wanted pleasant distant ent went recent absent er her water waters faster fastest better bigger ic
music musical comic comics basic basically al final medal petal equal actual actually ate late later relate related relation relative
relatively create creation creative creatively iti cities city pity ous ive five live alive lived living active activity size prize
realize realized realization realise""".split()

TEXTS = [
    ("The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."),
    ("The author's full name is Hsiao Yun-Hwa.", "Hsiao Yun-Hwa is the complete name of the writer."),
    ("Basil Mahfouz Al-Kuwaiti was born in Kuwait City, Kuwait.", "He was born in Kuwait City on 08/09/1956."),
    ("Paris", "Paris"), ("Paris", "The capital is Paris, of course: Paris."), ("", "something"), ("something", ""), ("", ""),
    ("...", "!?"), ("a a a a b", "a b a a"), ("one two three four", "four three two one"),
    ("police killed the gunman", "the gunman killed police"), ("caf\u00e9 na\u00efve r\u00e9sum\u00e9", "cafe naive resume caf"),
    ("\u212aelvin and \u0130stanbul \u0130", "kelvin stanbul i"), ("Running runners run", "He runs; the runner ran running"),
    ("Nationalists argued relentlessly about relational databases", "A nationalist argues about related databases relentless"),
    ("tabs\tand\nlines\r\nand  spaces", "Tabs and lines and spaces"), ("\u4e2d\u6587 text \u4e2d", "text"),
    ("the cat sat on the mat the cat sat", "the cat sat on a mat while the cat ran and the dog sat on the cat"),
    ("Actually, additionally and emotionally she traditionally writes.", "She actually wrote additional emotional traditions"),
    ("x" * 60 + " yes", "yes " + "x" * 60), ("it's 3.14 or 3,14?", "its 3 14 or 314"), ("UPPER lower MiXeD", "upper LOWER mixed"),
]


def number(x):
    return "NAN" if x != x else repr(float(x))


def numbers(v):
    return "{" + ", ".join(number(x) for x in v) + "}"


def string(s):
    out = ""
    for b in s.encode():
        c = chr(b)
        out += "\\" + c if c in '\\"' else c if 32 <= b < 127 and c != "?" else "\\%03o" % b
    return f'"{out}"'


def splitmix(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def stems():
    stem = PorterStemmer().stem
    print("static const struct { const char *word, *stem; } peer_stems[] = {")
    for w in dict.fromkeys(WORDS):
        print(f"    {{{string(w)}, {string(stem(w))}}},")
    print("};")


def rouges():
    # Beyond ASCII only these have an ASCII letter in lower case, which eval/rouge.c knows.
    odd = [hex(c) for c in range(128, sys.maxunicode + 1) if re.search("[a-z0-9]", chr(c).lower())]
    assert odd == ["0x130", "0x212a"], odd
    print("/* Recall, precision and F of ROUGE-1, ROUGE-2 and ROUGE-L. */")
    print("static const struct { const char *reference, *answer; bool stem; double score[9]; } peer_rouge[] = {")
    for stem in (False, True):
        scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem)
        for reference, answer in TEXTS:
            s = scorer.score(reference, answer)
            values = [x for k in ("rouge1", "rouge2", "rougeL") for x in (s[k].recall, s[k].precision, s[k].fmeasure)]
            print(f"    {{{string(reference)}, {string(answer)}, {str(stem).lower()}, {numbers(values)}}},")
    print("};")


def kolmogorov():
    """Samples follow a formula that the test repeats: v[i] = ((i * a + b) mod c) / c + d."""
    cases = [(1, 1, 7, 3, 101, 0.3), (5, 5, 7, 3, 101, 0.2), (6, 9, 7, 3, 101, 0.15), (9, 6, 7, 3, 101, 0.15), (20, 20, 37, 11, 997, 0.0),
             (40, 60, 37, 11, 997, 0.25), (20, 400, 37, 11, 997, 0.3), (400, 400, 37, 11, 9973, 0.05), (400, 400, 37, 11, 9973, 0.6),
             (300, 400, 37, 11, 13, 0.1), (10, 10, 1, 0, 3, 0.0), (3, 7, 1, 0, 100, 5.0), (37, 41, 5, 2, 23, 0.05)]
    print("static const struct { size_t n, m, a, b, c; double d, statistic, p; } peer_ks[] = {")
    for n, m, a, b, c, d in cases:
        x = [((i * a + b) % c) / c for i in range(n)]
        y = [((i * (a + 2) + b + 1) % c) / c + d for i in range(m)]
        r = stats.ks_2samp(x, y)
        print(f"    {{{n}, {m}, {a}, {b}, {c}, {d}, {number(r.statistic)}, {number(r.pvalue)}}},")
    print("};")


def signs():
    print("static const struct { size_t wins, ties, losses; double p; } peer_sign[] = {")
    for w, t, l in [(0, 0, 0), (1, 0, 0), (0, 5, 1), (5, 2, 5), (9, 0, 1), (60, 10, 40), (40, 10, 60), (500, 3, 400), (0, 0, 200),
                    (3000, 0, 2900)]:
        p = stats.binomtest(w, w + l, 0.5).pvalue if w + l else 1.0
        print(f"    {{{w}, {t}, {l}, {number(p)}}},")
    print("};")


def bootstraps():
    """x[i] = ((i * 29 + 7) mod 83) / 83 - 0.4, weight[i] = (i * 5) mod 11 + 1."""
    print("static const struct { size_t n; bool weighted; int32_t draws; double level; uint64_t seed; double value, lo, hi; } "
          "peer_bootstrap[] = {")
    for n, weighted, draws, level, seed in [(1, False, 10, 0.95, 0), (20, False, 1000, 0.95, 1), (50, True, 1000, 0.95, 2),
                                            (50, True, 777, 0.8, 2**63 + 5)]:
        x = np.array([((i * 29 + 7) % 83) / 83 - 0.4 for i in range(n)])
        weight = np.array([(i * 5) % 11 + 1.0 for i in range(n)]) if weighted else np.ones(n)
        random = splitmix(seed)
        drawn = []
        for _ in range(draws):
            k = [next(random) % n for _ in range(n)]
            drawn.append(x[k].sum() / weight[k].sum())
        lo, hi = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        print(f"    {{{n}, {str(weighted).lower()}, {draws}, {level}, {seed}u, {number(x.sum() / weight.sum())}, "
              f"{number(lo)}, {number(hi)}}},")
    print("};")


def tofu():
    print("static const struct { double nll; size_t n; double wrong[5]; double probability, choice, ratio, forget, kept; } peer_tofu[] = {")
    random = np.random.default_rng(7)
    for n, scale in [(5, 1), (5, 3), (3, 2), (3, 0.1), (1, 1), (5, 40), (5, 400)]:
        nll, wrong = random.random() * scale, random.random(n) * scale
        p, w = np.exp(-nll), np.exp(-wrong)
        ratio = np.exp(-wrong.mean()) / (p + 1e-10)
        print(f"    {{{number(nll)}, {n}, {numbers(list(wrong) + [0.0] * (5 - n))}, {number(p)}, {number(p / (p + w.sum() + 1e-10))}, "
              f"{number(ratio)}, {number(np.minimum(ratio, 1 / (ratio + 1e-10)))}, {number(np.maximum(0, 1 - ratio))}}},")
    print("};")
    print("static const struct { double v[9], mean; } peer_harmonic[] = {")
    for v in (random.random(9), random.random(9) * 1e-3, np.ones(9), np.array([0.5] * 8 + [0.0])):
        print(f"    {{{numbers(v)}, {number(stats.hmean(v))}}},")
    print("};")


def memorisation():
    """Logits of rows over a small vocabulary, then what greedy decoding says of the labels; the last label is an end token."""
    random = np.random.default_rng(11)
    print("static const struct { size_t n; float logprob[12]; uint8_t top[12]; double nll, exact, strength; } peer_memory[] = {")
    for n, sure in [(1, 0.0), (2, 9.0), (5, 0.0), (9, 2.0), (9, 9.0), (12, 1.0), (12, 3.0), (12, 3.0)]:
        logits = random.normal(size=(n, 6))
        labels = random.integers(0, 6, n)
        logits[np.arange(n), labels] += sure
        logprob = (logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(n), labels].astype(np.float32)
        top = logits.argmax(1) == labels
        hits = top[:-1]                   # without the end token
        exact = strength = float("nan")
        if n > 1:
            exact = hits.mean()
            for k in range(n - 1):        # as open-unlearning's loop, which leaves k at the last token where that is no hit
                if hits[k:].all():
                    break
            strength = 1 - k / (n - 1)
        print(f"    {{{n}, {{{', '.join(f'{x:.9g}f' for x in logprob)}}}, {{{', '.join(str(int(t)) for t in top)}}}, "
              f"{number(-logprob.astype(np.float64).sum())}, {number(exact)}, {number(strength)}}},")
    print("};")


def texts():
    answers = ["the cat sat on the mat", "no no no no no no no no", "one", "", "a b c d a b c d a b c d", " spaced\tout \n words here now "]
    print("static const struct { const char *text; size_t words, chars; double repetition; } peer_texts[] = {")
    grams = {1: [], 2: [], 3: []}
    for s in answers + ["caf\u00e9 \u4e2d\u6587 na\u00efve x"]:
        w = s.split()
        for n in grams:
            grams[n] += [tuple(w[i:i + n]) for i in range(len(w) - n + 1)]
        four = [tuple(w[i:i + 4]) for i in range(len(w) - 3)]
        print(f"    {{{string(s)}, {len(w)}, {len(s)}, {number(1 - len(set(four)) / len(four) if four else float('nan'))}}},")
    print("};")
    print(f"static const double peer_distinct[] = {numbers(len(set(g)) / len(g) for g in grams.values())};")


def main():
    print(f"/* Made by bench/metrics_peers.py (rouge-score 0.1.2, scipy {scipy.__version__}, numpy {np.__version__}). */")
    for part in (stems, rouges, kolmogorov, signs, bootstraps, tofu, memorisation, texts):
        part()


main()
