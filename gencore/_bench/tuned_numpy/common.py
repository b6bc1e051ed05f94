"""What several of NumPy's candidates share: threads, and a conditional layer of an RBM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from .. import machine
from ..reference import Array

ONE = np.float32(1)


def split(n: int, threads: int) -> list[slice]:
    """Rows for each Python thread: all in one piece if BLAS cannot be held to one thread."""
    parts = threads if threads > 1 and machine.blas_controller()(threads) else 1
    edges = [n * i // parts for i in range(parts + 1)]
    return [slice(a, z) for a, z in pairwise(edges)]


def together(tasks: Sequence[Callable[[], Any]]) -> Callable[[], list[Any]]:
    """Return a function that runs the tasks at once and returns their results."""
    if len(tasks) == 1:
        return lambda: [tasks[0]()]
    pool = ThreadPoolExecutor(len(tasks))
    return lambda: [done.result() for done in [pool.submit(task) for task in tasks]]


class Sampler:
    """One conditional layer for up to `rows` rows: out = u (1 + exp(scale (x w + bias))) < 1, with w, bias negated."""

    def __init__(self, weight: Array, bias: Array, rows: int, seed: int) -> None:
        self.weight, self.bias = -weight, -bias
        self.field = np.empty((rows, len(bias)), np.float32)
        self.uniform = np.empty_like(self.field)
        self.rng = np.random.Generator(np.random.SFC64(seed))

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return int(self.weight.nbytes + self.field.nbytes + self.uniform.nbytes)

    def draw(self, states: Array, out: Array, scale: np.float32 | None = None) -> None:
        """Draw `out` given the other side."""
        x, u = self.field[: len(states)], self.uniform[: len(states)]
        np.dot(states, self.weight, out=x)
        self.draw_from_field(x, u, out, scale)

    def draw_from_field(self, x: Array, u: Array, out: Array, scale: np.float32 | None) -> None:
        """Draw, given minus the field without its bias (overwritten)."""
        if scale is not None:
            x *= scale
        x += self.bias
        np.exp(x, out=x)
        x += ONE
        self.rng.random(out=u, dtype=np.float32)
        u *= x
        np.less(u, ONE, out=out)
