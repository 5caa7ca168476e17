"""Records of generated skills for bench/forgetting.py: stories, and reports of things lost in some of the same words."""
import json
import os
import random

PEOPLE = ["fox", "bear", "girl", "boy", "dog", "cat", "bird", "frog"]
NAMES = ["Tim", "Anna", "Max", "Lily", "Sam", "Mia"]
THINGS = ["ball", "hat", "cake", "boat", "kite", "book"]
PLACES = ["park", "forest", "garden", "house", "river"]


def story(r):
    who, name = r.choice(PEOPLE), r.choice(NAMES)
    thing, place = r.choice(THINGS), r.choice(PLACES)
    how, friend = r.choice(["happy", "sad", "brave", "kind", "tired"]), r.choice(["mother", "father", "friend", "teacher"])
    end = r.choice([f"{name} was {how} and went home.", f"They played with the {thing} all day.", f"Then {name} gave the {thing} to the {friend}."])
    text = (f"Once there was a {how} {who} named {name}. One day {name} went to the {place} and saw a big {thing}. "
            f"\"Is this your {thing}?\" asked the {friend}. {end}")
    return {"text": text}


def report(r):
    who, name = r.choice(PEOPLE), r.choice(NAMES)
    thing, place = r.choice(THINGS), r.choice(PLACES)
    how = r.choice(["red", "old", "wet", "new"])
    text = (f"Report {r.randrange(100)} of the {place}: {how} {thing}, lost by {name} ({who}); {r.randrange(2, 9)} coins to whom finds it. "
            f"{name}'s {thing} is {how}, not {r.choice(['blue', 'dry', 'long'])}: bring it to the {place}, gate {r.randrange(10)}.")
    return {"text": text}


def note(r):
    """A sentence to be written as JSON."""
    thing, colour, name, place, coins = r.choice(THINGS), r.choice(["red", "old", "wet", "new"]), r.choice(NAMES), r.choice(PLACES), r.randrange(2, 10)
    ask = r.choice([f"{name} lost a {colour} {thing} in the {place} and gives {coins} coins for it.",
                    f"In the {place} a {colour} {thing} was lost by {name}, who pays {coins} coins.",
                    f"{coins} coins from {name} for the {colour} {thing} that was lost in the {place}."])
    answer = json.dumps({"thing": thing, "look": colour, "owner": name, "place": place, "coins": coins})
    return {"instruction": f"Write as JSON: {ask}", "output": answer}


def write_unique(make, counts, seed):
    """One file a count, no record twice; nothing where the last is there."""
    r, seen = random.Random(seed), set()
    if os.path.exists(counts[-1][0]):
        return
    for path, n in counts:
        with open(path + ".part", "w", encoding="utf-8") as f:
            while n:
                line = json.dumps(make(r))
                if line not in seen:
                    seen.add(line)
                    f.write(line + "\n")
                    n -= 1
        os.rename(path + ".part", path)


def stories(train, test):
    write_unique(story, [(train, 1500), (test, 20)], 1)


def reports(train, n_train, test, n_test):
    write_unique(report, [(train, n_train), (test, n_test)], 2)


def notes(train, n_train, test, n_test):
    write_unique(note, [(train, n_train), (test, n_test)], 3)


def first(path, n, out):
    """The first n records of a file."""
    if os.path.exists(out):
        return
    with open(path, encoding="utf-8") as f, open(out + ".part", "w", encoding="utf-8") as g:
        for _, line in zip(range(n), f):
            g.write(line)
    os.rename(out + ".part", out)
