"""Problems of reparameterised draws: forward, then backward from given gradients, and how a candidate is checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import reference
from .measure import Candidate
from .reference import Array

EPS = float(np.finfo(np.float32).eps)


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
