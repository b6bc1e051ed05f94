"""What every candidate must agree with: plain float64 NumPy, and two-sample tests where the result is random.

Nothing here calls a kernel of ours.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Disagreement(Exception):
    """A candidate computes something else; it is not timed."""


class Rbm(NamedTuple):
    """Parameters and states of a synthetic RBM; `density` is measured on its own chains."""

    w: Array
    b: Array
    c: Array
    v: Array  # (n, n_visible) uint8, near stationarity
    density: tuple[float, float]  # visible, hidden

    @property
    def flops(self) -> float:
        """Operations of one dense product of one row of states with w."""
        return 2.0 * self.w.size


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), safe at both ends."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), safe at both ends."""
    return np.asarray(np.logaddexp(0, x))


@lru_cache
def synthetic_rbm(n_visible: int, n_hidden: int, rows: int, seed: int = 0) -> Rbm:
    """Build an RBM whose stationary densities are those of one trained on MNIST: about .14 visible, .21 hidden.

    Weights are N(0, .1^2). The visible rates fall off from the middle of the image as MNIST's do. Biases follow from
    the wanted rates p: with the field of a unit about normal, E[logistic(a + s z)] = p at
    a = logit(p) sqrt(1 + pi s^2 / 8). The chains start from the rates and run 20 steps, enough to forget the start in
    a model as loosely coupled as this one. Random weights flip more units a step than a trained RBM's do, so updating
    flipped units only wins nothing here.
    """
    rng = np.random.default_rng(seed)
    side = max(1, round(n_visible**0.5))
    at = (np.arange(n_visible) % side, np.arange(n_visible) // side)
    distance = sum((a - (side - 1) / 2) ** 2 for a in at) / (side / 2) ** 2
    p = np.exp(-3 * distance)
    p = np.clip(p * 0.14 / p.mean(), 1e-3, 0.9)
    q = np.full(n_hidden, 0.21)
    w = 0.1 * rng.standard_normal((n_visible, n_hidden))

    def bias(rate: Array, weight: Array, other: Array) -> Array:
        spread = (weight**2).T @ (other * (1 - other))
        return np.asarray(np.log(rate / (1 - rate)) * np.sqrt(1 + np.pi / 8 * spread) - other @ weight)

    b, c = bias(p, w.T, q), bias(q, w, p)
    weights, b, c = (np.ascontiguousarray(x, np.float32) for x in (w, b, c))
    v = rng.random((rows, n_visible)) < p
    for _ in range(20):
        v, h = gibbs_step(weights, b, c, v, rng)
    rbm = Rbm(weights, b, c, v.astype(np.uint8), (float(v.mean()), float(h.mean())))
    for x in rbm[:4]:
        x.flags.writeable = False  # shared by all candidates
    return rbm


def gibbs_step(w: Array, b: Array, c: Array, v: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw h ~ p(h | v), then v ~ p(v | h)."""
    h = rng.random((len(v), len(c))) < logistic(c + v.astype(float) @ w)
    return rng.random(v.shape) < logistic(b + h.astype(float) @ w.T), h


def free_energy(rbm: Rbm, v: Array) -> Array:
    """-b.v - sum_j softplus(c_j + v w_j)."""
    v = v.astype(float)
    return np.asarray(-v @ rbm.b.astype(float) - softplus(rbm.c + v @ rbm.w.astype(float)).sum(1))


def log_partition(rbm: Rbm, n_hidden: int) -> float:
    """Log Z of the RBM's first n_hidden hidden units with all visible ones, by enumeration."""
    h = (np.arange(2**n_hidden)[:, None] >> np.arange(n_hidden) & 1).astype(float)
    w, c = rbm.w[:, :n_hidden].astype(float), rbm.c[:n_hidden].astype(float)
    return float(np.logaddexp.reduce(h @ c + softplus(rbm.b + h @ w.T).sum(1)))


def pseudo_log_likelihood(rbm: Rbm, v: Array) -> Array:
    """sum_i log p(v_i | v without i), from free energies of v and of v with unit i flipped."""
    total = np.zeros(len(v))
    before = free_energy(rbm, v)
    for i in range(v.shape[1]):
        flipped = v.copy()
        flipped[:, i] ^= 1
        total -= softplus(before - free_energy(rbm, flipped))
    return total


def cd_update(rbm: Rbm, v: Array, k: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """CD-k estimate of the gradient of the mean log-likelihood: weights, visible biases, hidden biases."""
    model = v
    for _ in range(k):
        model, _ = gibbs_step(rbm.w, rbm.b, rbm.c, model, rng)
    phases = [(x.astype(float), logistic(rbm.c + x.astype(float) @ rbm.w)) for x in (v, model)]
    (x, h), (y, g) = phases
    return (x.T @ h - y.T @ g) / len(v), (x - y).mean(0), (h - g).mean(0)


def ais_log_weights(rbm: Rbm, betas: Array, n_runs: int, rng: np.random.Generator) -> Array:
    """Log-weights of AIS from the model with zero weights, zero hidden biases and visible biases b."""
    w, b, c = (x.astype(float) for x in (rbm.w, rbm.b, rbm.c))
    v = rng.random((n_runs, len(b))) < logistic(b)
    total = np.zeros(n_runs)
    for low, high in pairwise(betas):
        field = c + v @ w
        total += (softplus(high * field) - softplus(low * field)).sum(1)
        h = rng.random(field.shape) < logistic(high * field)
        v = rng.random(v.shape) < logistic(b + high * (h @ w.T))
    return total


def close(what: str, got: Any, want: Any, tolerance: float) -> str:
    """Check arrays element by element against an absolute tolerance; say the largest error."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    if got.shape != want.shape:
        raise Disagreement(f"{what}: expected shape {want.shape}, received {got.shape}")
    error = float(np.abs(got - want).max())
    if not error <= tolerance:
        raise Disagreement(f"{what}: off by {error:.3g}, allowed {tolerance:.3g}")
    return f"{what} within {error:.1e} of float64"


def same_distribution(what: str, got: Array, want: Array, grain: float = 0.0) -> str:
    """Two-sample test: rows are independent draws, columns are statistics.

    Welch's z of each column. With the same law z^2 averages to about 1 over m columns: allowed are 1 + 12 / sqrt(m),
    for m = 2 passed once in 10^4 runs, and at least 2.5, for columns that move together; of a single column, |z| < 7.
    Columns that never vary must be equal. `grain` is the rounding of a mean.
    """
    got, want = np.asarray(got, float), np.asarray(want, float)
    if got.ndim != 2 or got.shape[1:] != want.shape[1:]:
        raise Disagreement(f"{what}: expected draws of shape (n, {want.shape[1]}), received {got.shape}")
    error = np.sqrt(got.var(0, ddof=1) / len(got) + want.var(0, ddof=1) / len(want) + grain**2)
    difference = got.mean(0) - want.mean(0)
    still = error == 0
    if np.any(difference[still] != 0):
        raise Disagreement(f"{what}: what cannot vary differs by {np.abs(difference[still]).max():.3g}")
    z = difference[~still] / error[~still]
    mean_square, largest = float(np.mean(z**2)), float(np.abs(z).max())
    found = f"mean z^2 {mean_square:.2f}, largest |z| {largest:.1f}"
    if not (mean_square < max(2.5, 1 + 12 / np.sqrt(z.size)) and largest < 7):
        raise Disagreement(f"{what}: another distribution, {found}")
    return f"{what}: {z.size} statistics, {found}"
