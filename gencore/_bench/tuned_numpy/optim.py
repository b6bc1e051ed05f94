"""Steps of optimizers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.optim import Adam
from .common import together

PIECE = 8192  # elements: what is read again is still in the cache


def adam_pass(p: Adam, state: tuple[list[Array], ...], threads: int) -> Callable[[int], None]:
    """Return a function that does step number `step` on parameters, gradients, means and squares."""
    pieces = [
        tuple(x.reshape(-1)[i : i + PIECE] for x in arrays)
        for arrays in zip(*state, strict=True)
        for i in range(0, arrays[0].size, PIECE)
    ]
    now = p.step

    def task(share: slice) -> Callable[[], None]:
        a, b = np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)

        def run() -> None:
            rate = np.float32(p.lr / (1 - p.beta1**now))
            scale = np.float32((1 - p.beta2**now) ** -0.5)
            for x, g, m, v in pieces[share]:
                s, t = a[: len(x)], b[: len(x)]
                np.subtract(g, m, out=s)
                s *= np.float32(1 - p.beta1)
                m += s
                np.multiply(g, g, out=s)
                s *= np.float32(1 - p.beta2)
                v *= np.float32(p.beta2)
                v += s
                np.sqrt(v, out=s)
                s *= scale
                s += np.float32(p.eps)
                np.divide(m, s, out=t)
                t *= rate
                x -= t

        return run

    run = together([task(slice(i, None, threads)) for i in range(threads)])

    def step_number(step: int) -> None:
        nonlocal now
        now = step
        run()

    return step_number


@does("adam", "numpy")
def adam(p: Adam, threads: int) -> Candidate:
    params, means, squares = p.copies()
    update = adam_pass(p, (params, p.grads, means, squares), threads)
    steps = count(p.step)

    def prepare() -> None:
        nonlocal steps
        p.restore(params, means, squares)
        steps = count(p.step)

    def call() -> None:
        update(next(steps))

    def sample() -> list[Array]:
        prepare()
        call()
        return params

    return Candidate(call, sample, prepare=prepare, workspace=p.nbytes + threads * 8 * PIECE)
