"""Matrix products, layers and losses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.dense import Entropy, Gemm, Layer
from .common import ONE, split, together


@does("gemm", "numpy")
def gemm(p: Gemm, threads: int) -> Candidate:
    out = np.empty((p.a.shape[0], p.b.shape[1]), np.float32)
    return Candidate(lambda: np.dot(p.a, p.b, out=out), lambda: np.dot(p.a, p.b, out=out))


@does("linear_vjp", "numpy")
def linear_vjp(p: Layer, threads: int) -> Candidate:
    dz, grad_x, grad_w = np.empty_like(p.y), np.empty_like(p.x), np.empty_like(p.w)
    ones = np.ones(len(p.x), np.float32)

    def call() -> tuple[Array, Array, Array]:
        np.multiply(p.y, p.y, out=dz)
        np.subtract(ONE, dz, out=dz)
        np.multiply(dz, p.grad, out=dz)
        np.dot(dz, p.w.T, out=grad_x)
        np.dot(p.x.T, dz, out=grad_w)
        return grad_x, grad_w, ones @ dz

    return Candidate(call, call, workspace=dz.nbytes)


@does("bce", "numpy")
def bce(p: Entropy, threads: int) -> Candidate:
    x, t = p.logits, p.targets.astype(np.float32)
    tail, work, slope, value = (
        np.empty_like(x),
        np.empty_like(x),
        np.empty_like(x),
        np.empty(len(x), np.float32),
    )

    def task(rows: slice) -> Callable[[], None]:
        def run() -> None:  # e^-x overflows for no logit here
            for i in range(rows.start, rows.stop, 16):  # rows that stay near
                part = slice(i, min(i + 16, rows.stop))
                e, q, s = tail[part], work[part], slope[part]
                np.negative(x[part], out=e)
                np.exp(e, out=e)
                e += ONE
                np.reciprocal(e, out=q)
                np.subtract(t[part], q, out=s)
                s *= p.grad[part, None]
                np.log(e, out=e)
                np.subtract(t[part], ONE, out=q)
                q *= x[part]
                q -= e
                np.sum(q, axis=1, out=value[part])

        return run

    run = together([task(rows) for rows in split(len(x), threads)])

    def call() -> tuple[Array, Array]:
        run()
        return value, slope

    note = "targets already float32"
    return Candidate(call, call, workspace=tail.nbytes + work.nbytes + t.nbytes, blas_threads=1, note=note)
