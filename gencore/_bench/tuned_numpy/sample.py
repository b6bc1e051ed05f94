"""Draws: Bernoulli variates, reparameterised Gaussians, Gumbel-softmax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.sample import Gumbel, Reparam, Variates
from .common import ONE, split, together


@does("philox", "numpy")
def variates(p: Variates, threads: int) -> Candidate:
    out, uniform = np.empty(p.p.shape, bool), np.empty(p.p.shape, np.float32)

    def task(rows: slice, seed: int) -> Callable[[], None]:
        rng = np.random.Generator(np.random.SFC64(seed))

        def run() -> None:
            for i in range(rows.start, rows.stop, 64):  # 256 KB of uniforms at a time stay near
                part = slice(i, min(i + 64, rows.stop))
                rng.random(out=uniform[part], dtype=np.float32)
                np.less(uniform[part], p.p[part], out=out[part])

        return run

    call = together([task(rows, seed) for seed, rows in enumerate(split(len(p.p), threads))])

    def sample() -> Array:
        call()
        return out.copy()

    return Candidate(call, sample, units=p.p.size, workspace=uniform.nbytes, blas_threads=1)


def blocks(rows: slice, size: int) -> list[slice]:
    """Rows in blocks that stay in the cache."""
    return [slice(i, min(i + size, rows.stop)) for i in range(rows.start, rows.stop, size)]


@does("reparam", "numpy")
def reparam(p: Reparam, threads: int) -> Candidate:
    moved, excess, z, by_mu, by_logvar = (np.empty_like(p.mu) for _ in range(5))
    kl, half, size = np.empty(len(p.mu), np.float32), np.float32(0.5), max(1, 12_800 // p.mu.shape[1])
    parts = split(len(p.mu), threads)

    def forward(rows: slice, rng: np.random.Generator) -> None:
        for at in blocks(rows, size):
            m, v, e, s = p.mu[at], p.logvar[at], moved[at], excess[at]
            rng.standard_normal(out=e, dtype=np.float32)
            np.multiply(v, half, out=s)
            np.exp(s, out=s)
            e *= s
            np.add(m, e, out=z[at])
            s *= s
            s -= ONE
            kl[at] = half * (np.einsum("ij,ij->i", m, m) + s.sum(1) - v.sum(1))

    def backward(rows: slice) -> None:
        for at in blocks(rows, size):
            g, h, s = p.grad_z[at], p.grad_kl[at, None], by_logvar[at]
            np.multiply(p.mu[at], h, out=by_mu[at])
            by_mu[at] += g
            np.multiply(g, moved[at], out=s)
            excess[at] *= h
            s += excess[at]
            s *= half

    rngs = [np.random.Generator(np.random.SFC64(seed)) for seed in range(len(parts))]
    there = together([partial(forward, rows, rng) for rows, rng in zip(parts, rngs, strict=True)])
    back = together([partial(backward, rows) for rows in parts])

    def call() -> tuple[Array, ...]:
        there()
        back()
        return z, kl, by_mu, by_logvar

    return Candidate(call, call, workspace=2 * z.nbytes, blas_threads=1, note="sd eps and e^logvar - 1 kept")


@does("gumbel", "numpy")
def gumbel(p: Gumbel, threads: int) -> Candidate:
    y, by_logits, product = (np.empty_like(p.logits) for _ in range(3))
    scale, parts = np.float32(1 / p.tau), split(len(p.logits), threads)

    def forward(rows: slice, rng: np.random.Generator) -> None:
        for at in blocks(rows, 2048):
            x = y[at]
            rng.standard_exponential(out=x, dtype=np.float32)
            np.log(x, out=x)  # a Gumbel variate is minus this
            np.subtract(p.logits[at], x, out=x)
            x -= x.max(1, keepdims=True)
            x *= scale
            np.exp(x, out=x)
            x /= x.sum(1, keepdims=True)

    def backward(rows: slice) -> None:
        for at in blocks(rows, 2048):
            g, out = p.grad[at], by_logits[at]
            np.multiply(g, y[at], out=product[at])
            np.subtract(g, product[at].sum(1, keepdims=True), out=out)
            out *= y[at]
            out *= scale

    rngs = [np.random.Generator(np.random.SFC64(seed)) for seed in range(len(parts))]
    there = together([partial(forward, rows, rng) for rows, rng in zip(parts, rngs, strict=True)])
    back = together([partial(backward, rows) for rows in parts])

    def call() -> tuple[Array, Array]:
        there()
        back()
        return y, by_logits

    return Candidate(call, call, workspace=product.nbytes, blas_threads=1)
