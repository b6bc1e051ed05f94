"""The same works in NumPy, as its best user writes them.

float32 throughout, preallocated outputs, NumPy's fastest generator, `u (1 + exp(-x)) < 1` in place of a division, and
negated weights so that the sign costs nothing. NumPy's loops run on one core: where rows are independent they are split
among Python threads (NumPy releases the GIL), each with its own generator and its BLAS held to one thread, if
threadpoolctl is there to hold it; otherwise BLAS alone uses the cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from . import machine
from .measure import Candidate
from .reference import Array, Rbm
from .registry import does
from .works import (
    FACTOR,
    LOG_PARTITION,
    Adam,
    Ais,
    Cd,
    Chain,
    Entropy,
    Gemm,
    Gibbs,
    Gumbel,
    Layer,
    LogZ,
    Reparam,
    Variates,
)

ONE = np.float32(1)


def split(n: int, threads: int) -> list[slice]:
    """Rows for each Python thread: all in one piece if BLAS cannot be held to one thread."""
    parts = threads if threads > 1 and machine.blas_controller()(threads) else 1
    edges = [n * i // parts for i in range(parts + 1)]
    return [slice(a, z) for a, z in pairwise(edges)]


def together(tasks: Sequence[Callable[[], Any]]) -> Callable[[], list[Any]]:
    """Return a function that runs the tasks at once and returns their results."""
    if len(tasks) == 1:
        return lambda: [tasks[0]()]
    pool = ThreadPoolExecutor(len(tasks))
    return lambda: [done.result() for done in [pool.submit(task) for task in tasks]]


class Sampler:
    """One conditional layer for up to `rows` rows: out = u (1 + exp(scale (x w + bias))) < 1, with w, bias negated."""

    def __init__(self, weight: Array, bias: Array, rows: int, seed: int) -> None:
        self.weight, self.bias = -weight, -bias
        self.field = np.empty((rows, len(bias)), np.float32)
        self.uniform = np.empty_like(self.field)
        self.rng = np.random.Generator(np.random.SFC64(seed))

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return int(self.weight.nbytes + self.field.nbytes + self.uniform.nbytes)

    def draw(self, states: Array, out: Array, scale: np.float32 | None = None) -> None:
        """Draw `out` given the other side."""
        x, u = self.field[: len(states)], self.uniform[: len(states)]
        np.dot(states, self.weight, out=x)
        self.draw_from_field(x, u, out, scale)

    def draw_from_field(self, x: Array, u: Array, out: Array, scale: np.float32 | None) -> None:
        """Draw, given minus the field without its bias (overwritten)."""
        if scale is not None:
            x *= scale
        x += self.bias
        np.exp(x, out=x)
        x += ONE
        self.rng.random(out=u, dtype=np.float32)
        u *= x
        np.less(u, ONE, out=out)


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


@does("ais", "numpy")
def ais(p: Ais, threads: int) -> Candidate:
    rbm, betas = p.rbm, p.betas
    log_weights = np.empty(p.n_runs)
    parts = split(p.n_runs, threads)
    tasks = []
    for i, rows in enumerate(parts):
        n = rows.stop - rows.start
        up, down = Sampler(rbm.w, np.zeros_like(rbm.c), n, 2 * i + 20), Sampler(rbm.w.T, rbm.b, n, 2 * i + 21)
        buffers = [np.empty((n, len(rbm.c)), np.float32) for _ in range(2)]
        states = np.empty((n, len(rbm.b)), np.float32), np.empty((n, len(rbm.c)), np.float32)

        def run(
            rows: slice = rows,
            up: Sampler = up,
            down: Sampler = down,
            buffers: list[Array] = buffers,
            states: tuple[Array, Array] = states,
        ) -> None:
            (v, h), (low, high) = states, buffers
            down.draw_from_field(np.zeros_like(v), down.uniform, v, None)
            total = np.zeros(len(v))
            x = up.field
            for below, beta in zip(betas[:-1].astype(np.float32), betas[1:].astype(np.float32), strict=True):
                np.dot(v, up.weight, out=x)
                x -= rbm.c  # minus the field
                # softplus(t) - softplus(s) = log((1 + e^t) / (1 + e^s)); e^-t also decides the draw of h
                np.multiply(x, -below, out=low)
                np.exp(low, out=low)
                low += ONE
                np.multiply(x, -beta, out=high)
                np.exp(high, out=high)
                high += ONE
                np.divide(high, low, out=low)
                np.log(low, out=low)
                total += low.sum(1, dtype=np.float64)
                # u < e^t / (1 + e^t)  <=>  u (1 + e^t) < e^t
                up.rng.random(out=up.uniform, dtype=np.float32)
                up.uniform *= high
                high -= ONE
                np.less(up.uniform, high, out=h)
                down.draw(h, v, beta)
            log_weights[rows] = total

        tasks.append(run)
    call = together(tasks)

    def sample() -> Array:
        call()
        return log_weights.copy()

    held = sum(4 * (len(rbm.b) * 3 + len(rbm.c) * 5) for _ in range(p.n_runs)) + 2 * len(parts) * rbm.w.nbytes
    blas = 1 if len(parts) > 1 else threads
    return Candidate(call, sample, units=len(betas) - 1, workspace=held, blas_threads=blas)


@does("free_energy", "numpy")
def free_energy(rbm: Rbm, threads: int) -> Candidate:
    w, b, c = rbm[:3]
    v = rbm.v.astype(np.float32)
    energy = np.empty(len(v))
    parts = split(len(v), threads)
    block = 500

    def task(rows: slice) -> Callable[[], None]:
        x = np.empty((block, len(c)), np.float32)

        def run() -> None:
            for i in range(rows.start, rows.stop, block):
                part = slice(i, min(i + block, rows.stop))
                y = x[: part.stop - part.start]
                np.dot(v[part], w, out=y)
                y += c
                # sum_j log(1 + e^x) in two passes: fields of an RBM do not reach exp's limit of 88
                np.exp(y, out=y)
                np.log1p(y, out=y)
                energy[part] = -(v[part] @ b) - y.sum(1)

        return run

    work = together([task(rows) for rows in parts])

    def call() -> tuple[Array, float]:
        work()
        return energy, float(-energy.mean() - LOG_PARTITION)

    held = len(parts) * block * len(c) * 4
    blas = 1 if len(parts) > 1 else threads
    note = "states already float32"
    return Candidate(call, call, workspace=held, blas_threads=blas, note=note)


@does("log_z", "numpy")
def log_z(p: LogZ, threads: int) -> Candidate:
    w, b, c = (np.ascontiguousarray(x) for x in (p.rbm.w[:, : p.short].T, p.rbm.b, p.rbm.c[: p.short]))
    total, block = 2**p.short, min(256, 2**p.short)
    parts = split(total // block, threads)

    def task(blocks: slice) -> Callable[[], float]:
        x = np.empty((block, len(b)), np.float32)

        def run() -> float:
            part = -np.inf
            for i in range(blocks.start, blocks.stop):
                states = np.arange(i * block, (i + 1) * block)[:, None]
                h = (states >> np.arange(p.short) & 1).astype(np.float32)
                np.dot(h, w, out=x)
                x.__iadd__(b)
                np.exp(x, out=x)
                np.log1p(x, out=x)
                terms = h @ c + x.sum(1, dtype=np.float64)
                part = np.logaddexp(part, np.logaddexp.reduce(terms))
            return float(part)

        return run

    work = together([task(rows) for rows in parts])

    def call() -> float:
        return float(np.logaddexp.reduce(work()))

    held = len(parts) * block * len(b) * 4
    blas = 1 if len(parts) > 1 else threads
    note = f"timed on 2^{p.short} of 2^{len(p.rbm.c)} states and scaled"
    return Candidate(call, call, units=total, workspace=held, blas_threads=blas, note=note)


@does("pseudo", "numpy")
def pseudo(rbm: Rbm, threads: int) -> Candidate:
    w, b, c = rbm[:3]
    result = np.empty(len(rbm.v))
    growth = np.exp(w)  # flipping v_i multiplies e^x by e^(+-w_i)
    shrink = np.exp(-w)
    parts = split(len(rbm.v), threads)

    def task(rows: slice) -> Callable[[], None]:
        v = rbm.v[rows].astype(np.float32)
        y = np.empty((len(v), len(c)), np.float32)

        def run() -> None:
            field = np.exp(v @ w + c)
            softplus = np.log1p(field).sum(1, dtype=np.float64)
            total = np.zeros(len(v))
            for i in range(len(b)):
                on = v[:, i] > 0
                np.multiply(field, np.where(on[:, None], shrink[i], growth[i]), out=y)
                np.log1p(y, out=y)
                gain = y.sum(1, dtype=np.float64) - softplus + np.where(on, -b[i], b[i])  # of flipping unit i
                total -= np.logaddexp(0, gain)
            result[rows] = total

        return run

    work = together([task(rows) for rows in parts])

    def call() -> Array:
        work()
        return result

    held = 2 * w.nbytes + 4 * len(rbm.v) * len(c)
    blas = 1 if len(parts) > 1 else threads
    return Candidate(call, call, workspace=held, blas_threads=blas)


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
