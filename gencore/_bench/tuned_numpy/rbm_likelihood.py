"""Likelihoods of restricted Boltzmann machines: annealed, exact, pseudo."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..measure import Candidate
from ..reference import Array, Rbm
from ..registry import does
from ..works.rbm_likelihood import LOG_PARTITION, Ais, LogZ
from .common import ONE, Sampler, split, together


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
