"""Compute 95 % intervals for the benchmarks."""

import statistics

from scipy import stats


def interval(values: list[float]) -> tuple[float, float, float]:
    """Return the mean of two or more values, and the ends of its 95 % interval by Student's t."""
    mean = statistics.mean(values)
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of the share hits / count, by Wilson's score."""
    found = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return found.low, found.high
