"""Measure how fast this machine reads from memory, the lower bound for the time of a full scan."""

import time

import numpy as np


def memory_bandwidth(num_bytes: int = 2**27) -> float:
    """Measure how many bytes per second one thread reads from memory, in the best of 3 passes."""
    words = np.ones(num_bytes // 8, dtype=np.uint64)
    passes = []
    for _ in range(3):
        begin = time.perf_counter()
        words.max()  # memory limits the speed of a maximum, but not the speed of a sum
        passes.append(time.perf_counter() - begin)
    return num_bytes / min(passes)
