"""Means and percentile bootstrap intervals over records."""
import random

draws, SEED = 1000, 1     # draws: of every interval


def mean(values, picks=None):
    if picks is None:
        return sum(values) / len(values)
    return sum(map(values.__getitem__, picks)) / len(picks)


def interval(sizes, f, level=0.95):
    """Of f({set: picked records}), the records of every set resampled by themselves."""
    rng = random.Random(SEED)
    values = sorted(f({s: rng.choices(range(n), k=n) for s, n in sizes.items()}) for _ in range(draws))
    tail = (1 - level) / 2
    return [values[int(tail * draws)], values[min(draws - 1, int((1 - tail) * draws))]]


def median(values):
    v = sorted(values)
    return (v[(len(v) - 1) // 2] + v[len(v) // 2]) / 2
