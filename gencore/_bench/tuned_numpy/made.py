"""MADE: dense products with weights that are 0 where masked; samples dimension after dimension."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.made import Made
from .common import ONE, split, together


@does("made", "numpy")
def made(p: Made, threads: int) -> Candidate:
    w, c, v, b = p.params
    masks = [mask.astype(np.float32) for mask in p.masks]
    x = p.x.astype(np.float32)
    n, scale = len(x), np.float32(1 / len(x))
    h, dh = (np.empty((n, len(c)), np.float32) for _ in "hd")
    logits, slope, work = (np.empty((n, len(b)), np.float32) for _ in "lsw")
    by_w, by_v, ones = np.empty_like(w), np.empty_like(v), np.ones(n, np.float32)

    def call() -> tuple[Array, list[Array]]:
        np.dot(x, w, out=h)
        np.add(h, c, out=h)
        np.maximum(h, 0, out=h)
        np.dot(h, v, out=logits)
        np.add(logits, b, out=logits)
        # e^-x overflows for no logit here: softplus(x) = x + log(1 + e^-x), logistic(x) = 1 / (1 + e^-x)
        np.negative(logits, out=work)
        np.exp(work, out=work)
        np.add(work, ONE, out=work)
        np.reciprocal(work, out=slope)
        np.log(work, out=work)
        np.add(work, logits, out=work)
        np.multiply(logits, x, out=logits)
        np.subtract(logits, work, out=work)
        log_prob = work.sum(axis=1)
        np.subtract(x, slope, out=slope)
        np.multiply(slope, scale, out=slope)
        np.dot(h.T, slope, out=by_v)
        np.multiply(by_v, masks[1], out=by_v)
        np.dot(slope, v.T, out=dh)
        np.multiply(dh, h > 0, out=dh)
        np.dot(x.T, dh, out=by_w)
        np.multiply(by_w, masks[0], out=by_w)
        return log_prob, [by_w, np.dot(ones, dh), by_v, np.dot(ones, slope)]

    held = 2 * h.nbytes + 3 * logits.nbytes + x.nbytes + 4 * w.nbytes
    return Candidate(call, call, workspace=held, blas_threads=threads)


@does("made_sample", "numpy")
def made_sample(p: Made, threads: int) -> Candidate:
    w, c, v, b = p.params
    n, dims = p.x.shape
    columns = np.ascontiguousarray(v.T)
    out = np.empty((dims, n), np.bool_)
    seen = np.searchsorted(p.degree, np.arange(dims))  # by each dimension: the units before this one

    def task(rows: slice, seed: int) -> Callable[[], None]:
        rng = np.random.Generator(np.random.SFC64(seed))
        count = rows.stop - rows.start
        a, h = (np.empty((count, len(c)), np.float32) for _ in "ah")
        logit = np.empty(count, np.float32)

        def run() -> None:
            a[...] = c
            uniform = rng.random((dims, count), np.float32)
            # u < logistic(x) is log u / (1 - u) < x
            thresholds = np.log(uniform / (ONE - uniform)) - b[:, None]
            for d in range(dims):
                # Units are computed when they have seen all that they see.
                begin, end = (seen[d - 1] if d > 0 else 0), seen[d]
                if end > begin:
                    np.maximum(a[:, begin:end], 0, out=h[:, begin:end])
                np.dot(h[:, :end], columns[d, :end], out=logit)
                drawn = np.less(thresholds[d], logit, out=out[d, rows])
                ones = np.flatnonzero(drawn)
                if len(ones):
                    a[ones, end:] += w[d, end:]

        return run

    parts = split(n, threads)
    run = together([task(rows, seed) for seed, rows in enumerate(parts)])

    def call() -> Array:
        run()
        return out

    held = 8 * n * len(c) + out.nbytes + columns.nbytes
    blas = 1 if len(parts) > 1 else threads
    return Candidate(call, lambda: call().T.copy(), workspace=held, blas_threads=blas)
