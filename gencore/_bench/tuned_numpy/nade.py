"""NADE: dimension after dimension on the whole batch; hidden units are computed again in rows with a one only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.nade import Nade
from .common import ONE, split, together


def logistic(x: Array, out: Array) -> Array:
    """1 / (1 + e^-x)."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += ONE
    return np.reciprocal(out, out=out)


class Rows:
    """The gradient's share of some rows."""

    def __init__(self, p: Nade, rows: slice) -> None:
        self.x, self.scale, self.p = p.x[rows], np.float32(1 / len(p.x)), p
        n, dims = self.x.shape
        self.ones = [np.flatnonzero(column) for column in self.x.T]
        self.a, self.h, self.dh, self.da = (np.empty((n, len(p.params.c)), np.float32) for _ in range(4))
        self.product = np.empty_like(self.a)
        self.logits, self.states = np.empty((dims, n), np.float32), self.x.T.astype(np.float32)
        self.by_w, self.by_v = np.empty_like(p.params.w), np.empty_like(p.params.v)

    def forward(self) -> Array:
        """Log-probabilities; keeps the hidden units that a one replaced."""
        w, c, v, b = self.p.params
        a, h = self.a, self.h
        a[...] = c
        logistic(a, h)
        self.replaced: list[Array] = []
        for d, rows in enumerate(self.ones):
            np.dot(h, v[d], out=self.logits[d])
            if len(rows):
                self.replaced.append(h[rows])
                new = a[rows] + w[d]
                a[rows] = new
                h[rows] = logistic(new, new)
        self.logits += b[:, None]
        # e^-x overflows for no logit here.
        excess = np.exp(-self.logits)
        excess += ONE
        self.slopes = self.states - ONE / excess
        self.slopes *= self.scale
        terms = (self.states - ONE) * self.logits - np.log(excess)
        return np.asarray(terms.sum(0))

    def run(self) -> tuple[Array, tuple[Array, ...]]:
        """Both."""
        return self.forward(), self.backward()

    def backward(self) -> tuple[Array, Array, Array, Array]:
        """Gradients of w, c, v, b."""
        v, h, da, dh = self.p.params.v, self.h, self.da, self.dh
        da.fill(0)
        dh.fill(0)
        for d in reversed(range(len(v))):
            rows, g = self.ones[d], self.slopes[d]
            if len(rows):  # back to the hidden units before this one
                now = h[rows]
                sums = da[rows] + dh[rows] * now * (ONE - now)
                da[rows], dh[rows] = sums, 0
                np.sum(sums, axis=0, out=self.by_w[d])
                h[rows] = self.replaced.pop()
            else:
                self.by_w[d] = 0
            np.dot(g, h, out=self.by_v[d])
            np.multiply(g[:, None], v[d], out=self.product)
            dh += self.product
        da += dh * h * (ONE - h)
        return self.by_w, da.sum(0), self.by_v, self.slopes.sum(1)


@does("nade", "numpy")
def nade(p: Nade, threads: int) -> Candidate:
    parts = [Rows(p, rows) for rows in split(len(p.x), threads)]
    run = together([part.run for part in parts])

    def call() -> tuple[Array, list[Array]]:
        done = run()
        log_prob = np.concatenate([found for found, _ in done])
        by: list[Array] = list(done[0][1])
        for _, more in done[1:]:
            by = [a + b for a, b in zip(by, more, strict=True)]
        return log_prob, by

    held = sum(5 * part.a.nbytes + 3 * part.logits.nbytes + 2 * part.by_w.nbytes for part in parts)
    return Candidate(call, call, workspace=held, blas_threads=1 if len(parts) > 1 else threads)


@does("nade_sample", "numpy")
def nade_sample(p: Nade, threads: int) -> Candidate:
    w, c, v, b = p.params
    n, dims = p.x.shape
    out = np.empty((dims, n), np.bool_)

    def task(rows: slice, seed: int) -> Callable[[], None]:
        rng = np.random.Generator(np.random.SFC64(seed))
        count = rows.stop - rows.start
        a, h = (np.empty((count, len(c)), np.float32) for _ in "ah")
        logit = np.empty(count, np.float32)

        def run() -> None:
            a[...] = c
            logistic(a, h)
            uniform = rng.random((dims, count), np.float32)
            thresholds = (
                np.log(uniform / (ONE - uniform)) - b[:, None]
            )  # u < logistic(x) is log u / (1 - u) < x
            for d in range(dims):
                np.dot(h, v[d], out=logit)
                drawn = np.less(thresholds[d], logit, out=out[d, rows])
                ones = np.flatnonzero(drawn)
                if len(ones):
                    new = a[ones] + w[d]
                    a[ones] = new
                    h[ones] = logistic(new, new)

        return run

    parts = split(n, threads)
    run = together([task(rows, seed) for seed, rows in enumerate(parts)])

    def call() -> Array:
        run()
        return out

    held = 8 * n * len(c) + out.nbytes
    blas = 1 if len(parts) > 1 else threads
    return Candidate(call, lambda: call().T.copy(), workspace=held, blas_threads=blas)
