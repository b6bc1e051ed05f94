"""Steps of optimizers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.optim import Adam
from .common import together


@does("adam", "numpy")
def adam(p: Adam, threads: int) -> Candidate:
    params, means, squares = p.copies()
    step = p.step
    piece = 8192  # elements: what is read again is still in the cache
    pieces = [
        tuple(x.reshape(-1)[i : i + piece] for x in arrays)
        for arrays in zip(params, p.grads, means, squares, strict=True)
        for i in range(0, arrays[0].size, piece)
    ]

    def task(share: slice) -> Callable[[], None]:
        a, b = np.empty(piece, np.float32), np.empty(piece, np.float32)

        def run() -> None:
            rate = np.float32(p.lr / (1 - p.beta1**step))
            scale = np.float32((1 - p.beta2**step) ** -0.5)
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

    shares = [slice(i, None, threads) for i in range(threads)]
    run = together([task(share) for share in shares])

    def prepare() -> None:
        nonlocal step
        p.restore(params, means, squares)
        step = p.step

    def call() -> None:
        nonlocal step
        run()
        step += 1

    def sample() -> list[Array]:
        prepare()
        call()
        return params

    return Candidate(call, sample, prepare=prepare, workspace=p.nbytes + threads * 8 * piece)
