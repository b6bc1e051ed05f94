"""Gradients through the tape."""

from __future__ import annotations

import gencore as gc

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.autograd import FACTOR, Chain


@does("autograd", "gencore")
def autograd(p: Chain, threads: int) -> Candidate:
    x, b = (gc.tensor(a, requires_grad=True) for a in (p.x, p.b))
    w = gc.tensor(p.w)

    def call() -> tuple[float, Array, Array]:
        y = x
        for _ in range(p.steps):
            y = (y * FACTOR + b).tanh() - w
        value = y.sum()
        dx, db = gc.grad(value, [x, b])
        return value.item(), dx.numpy(), db.numpy()

    return Candidate(call, call)
