"""Gradients through the tape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain of small ops and its gradient: `steps` times y = tanh(FACTOR y + b) - w from y = x, then sum(y).

    Four ops a step, of every common kind: with a number, with a leaf that gradients add up in, a function, and with an
    array that needs no gradient. Vectors are so short that an op costs what calling it costs.
    """

    x: Array
    b: Array
    w: Array
    steps: int

    def check(self, candidate: Candidate) -> str:
        """`sample() -> (value, dx, db)`."""
        y, slopes = self.x.astype(float), []
        for _ in range(self.steps):
            t = np.tanh(FACTOR * y + self.b)
            slopes.append(1 - t * t)
            y = t - self.w
        g, db, growth = np.ones_like(y), np.zeros_like(y), 1.0
        for slope in reversed(slopes):
            db += g * slope
            g = FACTOR * g * slope
            growth = max(growth, float(np.abs(g).max()))
        value, dx, got = candidate.sample()
        # Eight roundings a step, forward and back, each of which grows at most as a gradient does.
        relative = 8 * self.steps * EPS * growth
        reference.close("value", value, y.sum(), relative * float(np.abs(y).sum()))
        reference.close("dx", dx, g, relative * growth)
        return reference.close("db", got, db, relative * float(np.abs(db).max()))


FACTOR = 1.001


@lru_cache
def _chain(tiny: bool) -> Chain:
    x, b = 0.03 * np.random.default_rng(9).standard_normal((2, 8)).astype(np.float32)
    return Chain(x, b, b, 5 if tiny else 250)


def _chain_cost(p: Chain) -> Cost:
    return Cost(12.0 * p.steps * p.x.size, 0, "an operation an element and op, two more on the way back")


WORKS = (Work("autograd", "gradient of 1,000 small ops", "autograd", _chain, _chain_cost, Chain.check),)
