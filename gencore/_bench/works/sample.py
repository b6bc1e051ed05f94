"""Draws: Bernoulli variates, reparameterised Gaussians, Gumbel-softmax."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work


class Variates(NamedTuple):
    """Bernoulli draws with probabilities p (rows, units) into an array of one byte or more each."""

    p: Array


@lru_cache
def _variates(tiny: bool) -> Variates:
    rows, units = (64, 40) if tiny else (256, 1024)
    return Variates(np.random.default_rng(2).random((rows, units), dtype=np.float32))


def _variates_cost(p: Variates) -> Cost:
    # A Philox4x32-10 block is 20 products 32x32 -> 64 and serves 8 variates of 16 bits. A vector unit makes half as
    # many of those as multiply-adds, so a product counts as 2 multiply-adds, 4 operations: 20 / 8 * 4.
    return Cost(10, 0, "Philox's products alone, at the multiply-add units' rate")


def _check_variates(p: Variates, candidate: Candidate) -> str:
    # A row of `got` is one array of draws; its statistics are the means over rows and over columns, and products of
    # neighbours, which reused random numbers would shift.
    def statistics(x: Array) -> Array:
        x = np.asarray(x, float) - p.p
        down, across = x[1:] * x[:-1], x[:, 1:] * x[:, :-1]
        return np.concatenate([x.mean(0), x.mean(1), down.mean(0), across.mean(1)])

    rng = np.random.default_rng(3)
    got = np.stack([statistics(candidate.sample()) for _ in range(30)])
    want = np.stack([statistics(rng.random(p.p.shape) < p.p) for _ in range(30)])
    return reference.same_distribution("draws", got, want)


@dataclass(frozen=True, eq=False)
class Reparam:
    """Gaussian draws and their KL divergence, forward, and backward from given gradients of both."""

    mu: Array
    logvar: Array
    grad_z: Array
    grad_kl: Array

    def check(self, candidate: Candidate) -> str:
        """`sample() -> (z, kl, grad_mu, grad_logvar)`. The noise is read off z; the rest follows from it."""
        z, kl, by_mu, by_logvar = (np.asarray(x, float) for x in candidate.sample())
        mu, logvar, g, h = (
            x.astype(float) for x in (self.mu, self.logvar, self.grad_z, self.grad_kl[:, None])
        )
        eps = (z - mu) * np.exp(-logvar / 2)

        def statistics(x: Array) -> Array:
            return np.stack([x, x**2, x**3, x**4, np.abs(x), x * np.roll(x, 1), x * np.roll(x, 16)], axis=1)

        normal = np.random.default_rng(14).standard_normal(eps.size)
        found = reference.same_distribution("noise", statistics(eps.ravel()), statistics(normal))
        terms = mu**2 + np.exp(logvar) + 1 + np.abs(logvar)
        bound = 16 * EPS * float(terms.sum(1).max())
        reference.close("kl", kl, 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(1), bound)
        bound = 16 * EPS * float((np.abs(g) + np.abs(h * mu)).max())
        reference.close("gradient by mu", by_mu, g + h * mu, bound)
        # z - mu is known to the rounding of z.
        want = 0.5 * (g * (z - mu) + h * np.expm1(logvar))
        bound = (
            16 * EPS * float((np.abs(g) * (np.abs(z) + np.abs(mu)) + np.abs(h) * (np.exp(logvar) + 1)).max())
        )
        return f"{found}; {reference.close('gradient by logvar', by_logvar, want, bound)}"


def reparam_work(rows: int, units: int) -> Work:
    """Reparameterised Gaussians."""

    @lru_cache
    def problem(tiny: bool) -> Reparam:
        rng = np.random.default_rng(13)
        shape = (60, min(units, 40)) if tiny else (rows, units)
        mu, logvar, grad = (rng.standard_normal(shape, np.float32) for _ in range(3))
        return Reparam(mu, logvar, grad, rng.standard_normal(shape[0], np.float32))

    def cost(p: Reparam) -> Cost:
        return Cost(0, 4.0 * (7 * p.mu.size + 2 * p.grad_kl.size), "each array read or written once a pass")

    name = f"reparam_{rows}x{units}"
    return Work(name, f"Gaussian draw + KL {rows}x{units}", "reparam", problem, cost, Reparam.check)


@dataclass(frozen=True, eq=False)
class Gumbel:
    """Gumbel-softmax draws at temperature tau, forward, and backward from a given gradient."""

    logits: Array
    grad: Array
    tau: float = 0.7

    def check(self, candidate: Candidate) -> str:
        """`sample() -> (y, grad_logits)`. All rows of logits are alike: rows of y are independent draws of one law."""
        y, by_logits = (np.asarray(x, float) for x in candidate.sample())
        reference.close("sums of rows", y.sum(1), np.ones(len(y)), 16 * EPS)
        noise = np.random.default_rng(16).gumbel(size=self.logits.shape)
        x = (self.logits + noise) / self.tau
        want = np.exp(x - x.max(1, keepdims=True))
        want /= want.sum(1, keepdims=True)

        def statistics(y: Array) -> Array:
            return np.concatenate(
                [y, y**2, np.eye(y.shape[1])[y.argmax(1)], y * np.roll(y, 1, axis=0)], axis=1
            )

        found = reference.same_distribution("draws", statistics(y), statistics(want))
        grad = self.grad.astype(float)
        gradient = y * (grad - (grad * y).sum(1, keepdims=True)) / self.tau
        bound = 16 * EPS * float(np.abs(grad).max()) / self.tau
        return f"{found}; {reference.close('gradient', by_logits, gradient, bound)}"


@lru_cache
def _gumbel(tiny: bool) -> Gumbel:
    rng = np.random.default_rng(15)
    shape = (500, 10) if tiny else (104_857, 10)
    logits = np.tile(rng.standard_normal(shape[1], np.float32), (shape[0], 1))
    return Gumbel(logits, rng.standard_normal(shape, np.float32))


def _gumbel_cost(p: Gumbel) -> Cost:
    return Cost(0, 4.0 * 5 * p.logits.size, "each array read or written once a pass")


WORKS = (
    Work("philox", "Bernoulli draw, one variate", "philox", _variates, _variates_cost, _check_variates),
    reparam_work(10_000, 100),
    reparam_work(50_000, 20),
    Work("gumbel", "Gumbel-softmax 104,857x10", "gumbel", _gumbel, _gumbel_cost, Gumbel.check),
)
