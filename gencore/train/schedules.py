"""Learning rates as functions of the fraction of the training that is done."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

__all__ = ["Schedule", "as_schedule", "constant", "cosine", "exponential", "linear", "step", "warmup"]

Schedule: TypeAlias = Callable[[float], float]
"""Maps the fraction of the training that is done, 0 to 1, to a learning rate."""


def constant(lr: float) -> Schedule:
    """Learning rate ``lr`` throughout."""
    return lambda done: lr


def linear(start: float, end: float = 0.0, *, hold: float = 0.0) -> Schedule:
    """From ``start`` to ``end`` along a line, after staying at ``start`` for the fraction ``hold`` of the training."""
    return lambda done: start + (end - start) * _progress(done, hold)


def exponential(start: float, end: float, *, hold: float = 0.0) -> Schedule:
    """From ``start`` to ``end``, both above 0, by a constant factor a step; see `linear` for ``hold``."""
    if start <= 0 or end <= 0:
        raise ValueError(f"exponential: expected start and end to be above 0, received {start} and {end}")
    return lambda done: float(start * (end / start) ** _progress(done, hold))


def cosine(start: float, end: float = 0.0, *, hold: float = 0.0) -> Schedule:
    """From ``start`` to ``end`` along half a cosine; see `linear` for ``hold``."""
    return lambda done: float(end + (start - end) * 0.5 * (1 + np.cos(np.pi * _progress(done, hold))))


def step(values: Sequence[float], boundaries: Sequence[float]) -> Schedule:
    """Piecewise constant: ``values[0]`` up to the fraction ``boundaries[0]``, ``values[1]`` from there, and so on."""
    levels, ends = list(values), list(boundaries)
    if len(levels) != len(ends) + 1 or ends != sorted(ends):
        raise ValueError(
            "step: expected one value more than boundaries, and these to ascend, "
            f"received {len(levels)} values and boundaries {ends}"
        )
    return lambda done: levels[bisect_right(ends, done)]


def warmup(then: float | Schedule, fraction: float, *, start: float = 0.0) -> Schedule:
    """From ``start`` along a line to where ``then`` begins, which gets what is left after ``fraction`` of all."""
    if not 0 < fraction < 1:
        raise ValueError(f"warmup: expected fraction to be above 0 and below 1, received {fraction}")
    after = as_schedule(then)

    def schedule(done: float) -> float:
        if done < fraction:
            return start + (after(0.0) - start) * done / fraction
        return after(_progress(done, fraction))

    return schedule


def _progress(done: float, hold: float) -> float:
    return min(max((done - hold) / (1 - hold), 0.0), 1.0) if hold < 1 else 0.0


def as_schedule(lr: float | Schedule) -> Schedule:
    """A number is a constant schedule."""
    return lr if callable(lr) else constant(float(lr))
