"""What benchmarks share: the interval about a mean."""

import statistics

from scipy import stats


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean, and the 95 % interval about it by Student's t; two values at least."""
    mean = statistics.mean(values)
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval about a share of hits, by Wilson's score."""
    found = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return found.low, found.high
