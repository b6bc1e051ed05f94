"""Variational autoencoders: a step of training, and the importance-weighted likelihood of images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count

import numpy as np

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.vae import Iwae, Layers, VaeStep
from .common import ONE, split, together
from .optim import adam_pass

HALF = np.float32(0.5)


def layer(x: Array, weight: Array, bias: Array, out: Array) -> Array:
    """X w + bias into `out`."""
    np.dot(x, weight, out=out)
    out += bias
    return out


@does("vae_step", "numpy")
def vae_step(p: VaeStep, threads: int) -> Candidate:
    params, means, squares = p.adam.copies()
    grads = [np.empty_like(a) for a in params]
    net, by = Layers.of(params), Layers.of(grads)
    x = p.x.astype(np.float32)
    n, per_row = len(x), np.float32(1 / len(x))
    # Of each layer the result and its gradient; those of the two heads share that of what they see.
    h1, h2, mean, logvar, d1, d2, logits = (np.empty((n, len(bias)), np.float32) for _, bias in net)
    g_h1, g_h2, g_mean, g_logvar, g_d1, g_d2, slope = (
        np.empty_like(a) for a in (h1, h2, mean, logvar, d1, d2, logits)
    )
    moved, z, work, ones = (
        np.empty_like(mean),
        np.empty_like(mean),
        np.empty_like(logits),
        np.ones(n, np.float32),
    )
    rng = np.random.Generator(np.random.SFC64(31))
    update = adam_pass(p.adam, (params, grads, means, squares), threads)
    steps = count(p.adam.step)

    def forward() -> float:
        np.tanh(layer(x, *net.encoder1, h1), out=h1)
        np.tanh(layer(h1, *net.encoder2, h2), out=h2)
        layer(h2, *net.mean, mean)
        layer(h2, *net.logvar, logvar)
        rng.standard_normal(out=moved, dtype=np.float32)
        np.multiply(logvar, HALF, out=z)
        np.exp(z, out=z)
        np.multiply(z, z, out=g_logvar)  # the variance
        np.multiply(moved, z, out=moved)
        np.add(mean, moved, out=z)
        kl = 0.5 * float(np.vdot(mean, mean) + g_logvar.sum() - logvar.sum() - mean.size)
        np.tanh(layer(z, *net.decoder1, d1), out=d1)
        np.tanh(layer(d1, *net.decoder2, d2), out=d2)
        layer(d2, *net.out, logits)
        # e^-x overflows for no logit here: softplus(x) = x + log(1 + e^-x), logistic(x) = 1 / (1 + e^-x)
        np.negative(logits, out=work)
        np.exp(work, out=work)
        np.add(work, ONE, out=work)
        np.reciprocal(work, out=slope)
        np.log(work, out=work)
        fit = float(np.vdot(x, logits)) - float(logits.sum()) - float(work.sum())
        np.subtract(slope, x, out=slope)
        np.multiply(slope, per_row, out=slope)
        return (kl - fit) / n

    def through(
        grad: Array, inputs: Array, at: tuple[Array, Array], into: tuple[Array, Array], out: Array
    ) -> None:
        np.dot(inputs.T, grad, out=into[0])
        np.dot(ones, grad, out=into[1])
        np.dot(grad, at[0].T, out=out)

    def tanh_back(y: Array, grad: Array) -> Array:
        np.multiply(y, y, out=y)
        np.subtract(ONE, y, out=y)
        np.multiply(grad, y, out=grad)
        return grad

    def backward() -> None:
        through(slope, d2, net.out, by.out, g_d2)
        through(tanh_back(d2, g_d2), d1, net.decoder2, by.decoder2, g_d1)
        through(tanh_back(d1, g_d1), z, net.decoder1, by.decoder1, g_mean)
        # by logvar: 0.5 (g (z - mean) + (variance - 1) / n)
        np.subtract(g_logvar, ONE, out=g_logvar)
        np.multiply(g_logvar, per_row, out=g_logvar)
        np.multiply(moved, g_mean, out=moved)
        np.add(g_logvar, moved, out=g_logvar)
        np.multiply(g_logvar, HALF, out=g_logvar)
        np.multiply(mean, per_row, out=mean)
        np.add(g_mean, mean, out=g_mean)
        through(g_logvar, h2, net.logvar, by.logvar, g_h1)
        through(g_mean, h2, net.mean, by.mean, g_h2)
        np.add(g_h2, g_h1, out=g_h2)
        through(tanh_back(h2, g_h2), h1, net.encoder2, by.encoder2, g_h1)
        tanh_back(h1, g_h1)
        np.dot(x.T, g_h1, out=by.encoder1[0])
        np.dot(ones, g_h1, out=by.encoder1[1])

    def prepare() -> None:
        nonlocal steps
        p.adam.restore(params, means, squares)
        steps = count(p.adam.step)

    def call() -> float:
        loss = forward()
        backward()
        update(next(steps))
        return loss

    def sample() -> tuple[float, list[Array]]:
        prepare()
        return call(), params

    held = 2 * sum(a.nbytes for a in (h1, h2, mean, logvar, d1, d2, logits)) + x.nbytes + work.nbytes
    held += p.adam.nbytes + sum(g.nbytes for g in grads)
    return Candidate(call, sample, prepare=prepare, workspace=held, note="gradients written by hand")


@does("iwae", "numpy")
def iwae(p: Iwae, threads: int) -> Candidate:
    net, x = p.layers, p.x.astype(np.float32)
    means, logvars = (np.empty((len(x), len(net.mean[1])), np.float32) for _ in range(2))
    block = 250  # draws: their logits stay near
    estimates = np.empty(len(x))
    parts = split(len(x), threads)

    def task(rows: slice, seed: int) -> Callable[[int], None]:
        rng = np.random.Generator(np.random.SFC64(seed))
        noise, z = (np.empty((block, means.shape[1]), np.float32) for _ in range(2))
        first, second, logits = (np.empty((block, len(bias)), np.float32) for _, bias in net[4:])

        def log_weights(i: int, n: int) -> Array:
            e, y, a, b, o = noise[:n], z[:n], first[:n], second[:n], logits[:n]
            rng.standard_normal(out=e, dtype=np.float32)
            np.multiply(e, np.exp(HALF * logvars[i]), out=y)
            y += means[i]
            ratio = 0.5 * (np.einsum("ij,ij->i", e, e) - np.einsum("ij,ij->i", y, y) + logvars[i].sum())
            np.tanh(layer(y, *net.decoder1, a), out=a)
            np.tanh(layer(a, *net.decoder2, b), out=b)
            layer(b, *net.out, o)
            fit = o @ x[i]
            # softplus in two passes: logits here do not reach exp's limit of 88
            np.exp(o, out=o)
            np.log1p(o, out=o)
            return np.asarray(ratio + fit - o.sum(1), float)

        def run(n_samples: int) -> None:
            for i in range(rows.start, rows.stop):
                sizes = [min(block, n_samples - done) for done in range(0, n_samples, block)]
                weights = np.concatenate([log_weights(i, n) for n in sizes])
                top = weights.max()
                estimates[i] = top + np.log(np.exp(weights - top).mean())

        return run

    tasks = [task(rows, seed) for seed, rows in enumerate(parts)]
    whole = together([partial(run, p.n_samples) for run in tasks])

    def encode() -> None:
        _, _, means[...], logvars[...] = net.encode(x)

    def call() -> Array:
        encode()
        whole()
        return estimates

    def sample(n_samples: int) -> Array:
        encode()
        for run in tasks:
            run(n_samples)
        return estimates.copy()

    held = len(parts) * block * 4 * (2 * means.shape[1] + sum(len(bias) for _, bias in net[4:]))
    blas = 1 if len(parts) > 1 else threads
    return Candidate(call, sample, units=len(x), workspace=held, blas_threads=blas)
