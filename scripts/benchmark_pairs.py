"""Contestants in turns: A B, B A, A B ..., and what the pairs of blocks say."""

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np

BLOCK_SECONDS, MIN_STEPS = 1.0, 3
Contestants = dict[str, Callable[[int], float]]  # name -> (steps -> seconds)


def turn(names: Sequence[str], number: int) -> list[str]:
    """The contestants of a turn in their order: A B, B A, A B, ..."""
    return list(names) if number % 2 == 0 else list(names)[::-1]


def measure(contestants: Contestants, turns: int) -> dict[str, list[float]]:
    """Seconds per step of every block; a contestant's turn begins with one uncounted.

    While the others run, its caches cool and a virtual machine may give its free pages
    to the host: on one, the first step of XLA:CPU after a pause takes twice as long.
    """
    steps = {}
    for name, run in contestants.items():
        run(2)
        steps[name] = max(MIN_STEPS, math.ceil(BLOCK_SECONDS / (run(2) / 2)))
    seconds = {name: [] for name in contestants}
    for number in range(turns):
        for name in turn(list(contestants), number):
            contestants[name](1)
            seconds[name].append(contestants[name](steps[name]) / steps[name])
    return seconds


def bootstrap_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """(median, lower, upper) of paired ratios, by their logarithms.

    The interval holds 95 % of the medians of 10,000 resamples.
    """
    logs = np.log(ratios)
    resampled = np.random.default_rng(0).choice(logs, (10_000, len(logs)))
    low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return float(np.exp(np.median(logs))), float(np.exp(low)), float(np.exp(high))


def summarize(blocks: dict[str, list[float]]) -> dict[str, dict]:
    """Medians, and how many times as fast the first contestant is as each other.

    Returns:
      `seconds` per step by name, `ratios` (median, lower, upper), and all `blocks`.
    """
    first, *others = blocks
    ratios = {
        name: bootstrap_interval(np.divide(blocks[name], blocks[first]))
        for name in others
    }
    seconds = {name: statistics.median(values) for name, values in blocks.items()}
    return {"seconds": seconds, "ratios": ratios, "blocks": blocks}
