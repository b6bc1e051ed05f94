"""Chains of restricted Boltzmann machines, and learning by them."""

from __future__ import annotations

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.rbm_chains import Cd, Gibbs
from .common import ONE, Sampler, split, together


@does("gibbs", "numpy")
def gibbs(p: Gibbs, threads: int) -> Candidate:
    rbm = p.rbm
    v, h = rbm.v.astype(np.float32), np.empty((len(rbm.v), len(rbm.c)), np.float32)
    parts = split(len(v), threads)
    samplers = []
    tasks = []
    for i, rows in enumerate(parts):
        n = rows.stop - rows.start
        up, down = Sampler(rbm.w, rbm.c, n, 2 * i + 10), Sampler(rbm.w.T, rbm.b, n, 2 * i + 11)
        samplers += [up, down]

        def run(steps: int = p.steps, rows: slice = rows, up: Sampler = up, down: Sampler = down) -> None:
            for _ in range(steps):
                up.draw(v[rows], h[rows])
                down.draw(h[rows], v[rows])

        tasks.append(run)

    def sample(start: Array) -> Array:
        v[...] = start
        for task in tasks:
            task(1)
        last = v.copy()
        v[...] = rbm.v
        return last

    held = h.nbytes + sum(s.nbytes for s in samplers)
    blas = 1 if len(parts) > 1 else threads
    return Candidate(together(tasks), sample, units=p.steps, workspace=held, blas_threads=blas)


@does("cd", "numpy")
def cd(p: Cd, threads: int) -> Candidate:
    start = [x.copy() for x in p.rbm[:3]]
    w, b, c = model = [x.copy() for x in start]
    data = p.rbm.v.astype(np.float32)
    n = len(data)
    v, h, mean = np.empty_like(data), np.empty((n, len(c)), np.float32), np.empty((n, len(c)), np.float32)
    fields, uniforms = (np.empty_like(h), np.empty_like(v)), (np.empty_like(h), np.empty_like(v))
    dw, step = np.empty_like(w), np.empty_like(w)
    rng = np.random.Generator(np.random.SFC64(12))
    rate = np.float32(p.lr / n)

    def denominator(states: Array, weight: Array, bias: Array, x: Array) -> Array:
        np.dot(states, weight, out=x)
        x += bias
        np.negative(x, out=x)
        np.exp(x, out=x)
        x += ONE
        return x  # 1 / mean

    def draw(x: Array, u: Array, out: Array) -> None:
        rng.random(out=u, dtype=np.float32)
        u *= x
        np.less(u, ONE, out=out)

    def call() -> None:
        x = denominator(data, w, c, fields[0])
        np.divide(ONE, x, out=mean)
        np.dot(data.T, mean, out=dw)
        db, dc = data.sum(0), mean.sum(0)
        draw(x, uniforms[0], h)
        for i in range(p.k):
            if i:
                draw(denominator(v, w, c, fields[0]), uniforms[0], h)
            draw(denominator(h, w.T, b, fields[1]), uniforms[1], v)
        np.divide(ONE, denominator(v, w, c, fields[0]), out=mean)
        np.dot(v.T, mean, out=step)
        np.subtract(dw, step, out=dw)
        np.multiply(dw, rate, out=dw)
        np.add(w, dw, out=w)
        b[...] += rate * (db - v.sum(0))
        c[...] += rate * (dc - mean.sum(0))

    def prepare() -> None:
        for x, x0 in zip(model, start, strict=True):
            x[...] = x0

    def sample() -> list[Array]:
        prepare()
        call()
        return [x - x0 for x, x0 in zip(model, start, strict=True)]

    held = sum(x.nbytes for x in (v, h, mean, *fields, *uniforms, dw, step))
    return Candidate(call, sample, prepare=prepare, workspace=held)
