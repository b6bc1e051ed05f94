"""NADE: the gradient of a batch's mean log-likelihood, and ancestral samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work
from .exact import BitModel, Parameters, close_gradients


def forward(params: Parameters, x: Array) -> tuple[list[Array], Array]:
    """Hidden units before each dimension, and the logits (N, D)."""
    w, c, v, b = params.precise()
    a, hidden, logits = np.tile(c, (len(x), 1)), [], np.empty(x.shape)
    for d in range(len(b)):
        hidden.append(reference.logistic(a))
        logits[:, d] = b[d] + hidden[d] @ v[d]
        a = a + x[:, d : d + 1] * w[d]
    return hidden, logits


def gradients(params: Parameters, x: Array, weights: Array) -> tuple[Array, list[Array], list[Array]]:
    """Log-probabilities of x, gradients of their weighted sum, and these with the magnitude of each term."""
    w, c, v, b = params.precise()
    x = x.astype(float)
    hidden, logits = forward(params, x)
    log_prob = np.sum(x * logits - reference.softplus(logits), axis=1)
    slopes = (weights[:, None] * (x - reference.logistic(logits))).T
    sums = [[np.zeros_like(p) for p in (w, c, v, b)] for _ in range(2)]
    for magnitude, found in enumerate(sums):
        of = np.abs if magnitude else np.asarray
        da = np.zeros((len(x), len(c)))
        for d in reversed(range(len(b))):
            h, g = hidden[d], of(slopes[d])
            found[0][d] = x[:, d] @ da
            found[2][d], found[3][d] = g @ h, g.sum()
            da = da + np.outer(g, of(v[d])) * h * (1 - h)
        found[1][...] = da.sum(0)
    return log_prob, sums[0], sums[1]


def draw(params: Parameters, n: int, rng: np.random.Generator) -> Array:
    """Ancestral samples in float64."""
    w, c, v, b = params.precise()
    a, x = np.tile(c, (n, 1)), np.zeros((n, len(b)))
    for d in range(len(b)):
        x[:, d] = rng.random(n) < reference.logistic(b[d] + reference.logistic(a) @ v[d])
        a += x[:, d : d + 1] * w[d]
    return x


@dataclass(frozen=True, eq=False)
class Nade(BitModel):
    """A batch of MNIST's density, and a model that has seen its rates.

    p(x_d = 1 | x before d) = logistic(b_d + v_d . logistic(c + sum_e<d x_e w_e)); w and v are (D, H).
    """

    x: Array  # (N, D) uint8
    params: Parameters

    @cached_property
    def want(self) -> tuple[Array, list[Array], list[Array]]:
        """In float64, of the mean log-probability."""
        return gradients(self.params, self.x, np.full(len(self.x), 1 / len(self.x)))

    def check_gradient(self, candidate: Candidate) -> str:
        """`sample() -> (log-probabilities, gradients of their mean by w, c, v, b)`."""
        log_prob, by = candidate.sample()
        want, gradient, magnitude = self.want
        # Each logit within a rounding of the sum of its magnitudes.
        of_logit = float((np.abs(self.params.v).sum(1) + np.abs(self.params.b)).max())
        found = reference.close("log-probabilities", log_prob, want, EPS * len(self.params.b) * of_logit)
        found += f"; {close_gradients(by, gradient, magnitude)}"
        return found

    def logits(self, x: Array) -> Array:
        """Of rows (N, D), in float64."""
        return forward(self.params, x)[1]

    def samples(self, n: int, rng: np.random.Generator) -> Array:
        """Ancestral ones in float64."""
        return draw(self.params, n, rng)


@lru_cache
def _nade(tiny: bool) -> Nade:
    rows, dims, hidden = (20, 36, 20) if tiny else (100, 784, 500)
    x = reference.synthetic_rbm(dims, hidden, 30 if tiny else 128).v[:rows]
    rng = np.random.default_rng(22)
    # Hidden units that see enough to swing: independent dimensions would be found out.
    w, v = (rng.normal(0, scale, (dims, hidden)).astype(np.float32) for scale in (0.2, 0.1))
    c = rng.normal(0, 0.1, hidden).astype(np.float32)
    rate = (x.sum(0) + 1) / (len(x) + 2)
    # Samples have about the data's rates: the mean field of a half-on hidden layer is taken off.
    b = np.log(rate / (1 - rate)) - v @ reference.logistic(c.astype(float))
    return Nade(np.ascontiguousarray(x), Parameters(w, c, v, b.astype(np.float32)))


def _gradient_cost(p: Nade) -> Cost:
    return Cost(6.0 * len(p.x) * p.params.v.size, 0, "products of logits and gradients, no logistic function")


def _sample_cost(p: Nade) -> Cost:
    return Cost(2.0 * len(p.x) * p.params.v.size, 0, "products of logits, no logistic function")


WORKS = (
    Work("nade", "NADE gradient 100 of 784x500", "nade", _nade, _gradient_cost, Nade.check_gradient),
    Work("nade_sample", "NADE 100 samples 784x500", "nade_sample", _nade, _sample_cost, Nade.check_sample),
)
