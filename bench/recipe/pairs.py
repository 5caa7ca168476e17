#!/usr/bin/env python3
"""The text work of the instruct recipe (see instruct.sh): makes prompts, cleans what the model wrote, splits it.

    pairs.py questions OPENINGS N            -> JSONL of {"text": an opened user turn}
    pairs.py answers RAW_QUESTIONS           -> JSONL of chat prompts for the questions that are whole
    pairs.py pairs RAW_ANSWERS TRAIN TEST N  -> cleaned, de-duplicated {"instruction","output"}, each answer its first
                                                sentence; the last N are TEST
    pairs.py texts PAIRS                     -> JSONL of {"text": question and answer}, for a plain language model
"""
import json
import re
import sys

BRIEF = "\n\nAnswer briefly, in one or two short sentences."
OPEN = "<|im_start|>user\n"
ENDED = ("eos", "stop")   # how a text ends that was not cut


def lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def questions(openings, n):
    """Every opening in turn, n in all: the model goes on from it with another seed each time."""
    with open(openings, encoding="utf-8") as f:
        words = [w.rstrip("\n") for w in f]
    return [json.dumps({"text": OPEN + words[i % len(words)]}) + "\n" for i in range(n)]


def shingles(text, k):
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i:i + k]) for i in range(max(1, len(words) - k + 1))}


class Seen:
    """Near duplicates by the share of word k-grams that a text has in common with one seen before (Jaccard)."""

    def __init__(self, k, limit):
        self.k, self.limit, self.sets, self.index = k, limit, [], {}

    def near(self, text):
        s = shingles(text, self.k)
        counts = {}
        for g in s:
            for i in self.index.get(g, ()):
                counts[i] = counts.get(i, 0) + 1
        if any(c / (len(s) + len(self.sets[i]) - c) > self.limit for i, c in counts.items()):
            return True
        for g in s:
            self.index.setdefault(g, []).append(len(self.sets))
        self.sets.append(s)
        return False


def repetitive(text):
    words = re.findall(r"\w+", text.lower())
    grams = [tuple(words[i:i + 4]) for i in range(len(words) - 3)]
    return len(grams) > 8 and len(set(grams)) / len(grams) < 0.8


def whole_question(q):
    return (4 <= len(q.split()) <= 50 and re.search(r'[.?!"]$', q) and q.count('"') % 2 == 0 and
            not re.search(r"[`{}\\|<>#*]|https?:|\bcode\b|\bPython\b", q) and q.isprintable() and not repetitive(q))


def kept_questions(made, known=()):
    """made: (the opened turn, what the model made of it), each. Those that are whole and near none before them, nor near the known."""
    seen = Seen(3, 0.4)
    for q in known:
        seen.near(q)
    for opened, r in made:
        q = (opened[len(OPEN):] + r["text"]).strip()
        if r["stop"] in ENDED and whole_question(q) and not seen.near(q):
            yield q


def answers(raw):
    for q in kept_questions((r["prompt"], r) for r in lines(raw)):
        print(json.dumps({"instruction": q + BRIEF}, ensure_ascii=False))


def new_questions(prompts, raw, known):
    """Of what the model made of the prompts; known: files of pairs."""
    opened = lines(prompts)
    made = ((opened[r["n"] - 1]["text"], r) for r in lines(raw))
    return [json.dumps({"instruction": q}) + "\n" for q in kept_questions(made, (p["instruction"] for path in known for p in lines(path)))]


def answered(prompts, raw):
    """The prompts with what a model answered, where it came to an end and is not empty."""
    asked = lines(prompts)
    return [json.dumps({**asked[r["n"] - 1], "output": r["text"].strip()}) + "\n" for r in lines(raw) if r["stop"] in ENDED and r["text"].strip()]


def whole_answer(a):
    return (2 <= len(a.split()) and re.search(r'[.!?"\')]$', a) and a.count('"') % 2 == 0 and a.count("(") == a.count(")") and
            not re.search(r"```|https?:|\bas an AI\b|[<>|\\{}]", a, re.I) and not repetitive(a) and
            all(c.isprintable() or c == "\n" for c in a))


def first_sentence(a):
    """The answer up to its first full stop that a new sentence (or the end) follows; abbreviations are no stops."""
    for m in re.finditer(r'[.!?]["\')]*(?=\s+["(]?[A-Z0-9]|\s*$)', a):
        if not re.search(r"\b(?:[A-Z]|Dr|Mr|Mrs|Ms|St|vs|etc|e\.g|i\.e|No)\.$", a[:m.end()]):
            return a[:m.end()]
    return a


def pairs(raw, train, test, n_test):
    out, seen = [], Seen(5, 0.25)
    for r in lines(raw):
        q, a = r["instruction"][:-len(BRIEF)], first_sentence(r["text"].strip())
        if r["stop"] in ENDED and whole_answer(a) and not seen.near(a):
            out.append({"instruction": q, "output": a})
    for path, part in ((train, out[:-n_test]), (test, out[-n_test:])):
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(p, ensure_ascii=False) + "\n" for p in part)
    print(f"{len(out) - n_test} pairs in {train}, {n_test} in {test}", file=sys.stderr)


if __name__ == "__main__":
    verb, args = sys.argv[1], sys.argv[2:]
    if verb == "questions":
        sys.stdout.writelines(questions(args[0], int(args[1])))
    elif verb == "answers":
        answers(args[0])
    elif verb == "pairs":
        pairs(args[0], args[1], args[2], int(args[3]))
    elif verb == "texts":
        for r in lines(args[0]):
            print(json.dumps({"text": r["instruction"] + "\n" + r["output"]}))
    else:
        sys.exit(__doc__)
