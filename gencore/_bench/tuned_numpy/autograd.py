"""Gradients through the tape."""

from __future__ import annotations

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.autograd import FACTOR, Chain


@does("autograd", "numpy")
def autograd(p: Chain, threads: int) -> Candidate:
    factor = np.float32(FACTOR)

    def call() -> tuple[float, Array, Array]:
        y, states = p.x, []
        for _ in range(p.steps):
            t = np.tanh(y * factor + p.b)
            states.append(t)
            y = t - p.w
        g, db = np.ones_like(y), np.zeros_like(y)
        for t in reversed(states):
            g = g - g * t * t
            db += g
            g = g * factor
        return float(y.sum()), g, db

    return Candidate(call, call, note="the gradient written by hand: what the ops alone cost")
