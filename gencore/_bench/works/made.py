"""MADE: the gradient of a batch's mean log-likelihood, and ancestral samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work
from .exact import BitModel, Parameters, close_gradients


@dataclass(frozen=True, eq=False)
class Made(BitModel):
    """A batch of MNIST's density, and a model: logits = relu(x (w * M) + c) (v * N) + b.

    w (D, H) and v (H, D) are 0 where the masks M and N are 0. Hidden unit j sees dimensions up to `degree[j]`,
    dimension d hidden units of degrees below d.
    """

    x: Array  # (N, D) uint8
    params: Parameters
    degree: Array  # (H,) int64, ascending

    @property
    def masks(self) -> tuple[Array, Array]:
        """M and N, bool."""
        places = np.arange(len(self.params.b))
        return self.degree >= places[:, None], places > self.degree[:, None]

    def forward(self, params: Parameters, x: Array) -> tuple[Array, Array]:
        """Hidden units and logits, in the precision of the parameters; what masks hide counts as 0."""
        first, second = self.masks
        h = np.maximum(x @ (params.w * first) + params.c, 0)
        return h, h @ (params.v * second) + params.b

    def gradients(self, params: Parameters) -> tuple[Array, list[Array], list[Array]]:
        """Log-probabilities, gradients of their mean, and these with the magnitude of each term, in float64."""
        first, second = self.masks
        precise, x = params.precise(), self.x.astype(float)
        h, logits = self.forward(precise, x)
        log_prob = np.sum(x * logits - reference.softplus(logits), axis=1)
        slope = (x - reference.logistic(logits)) / len(x)
        found = []
        for of in (np.asarray, np.abs):
            g = of(slope)
            dh = (g @ of(precise.v * second).T) * (h > 0)
            found.append([(x.T @ dh) * first, dh.sum(0), (h.T @ g) * second, g.sum(0)])
        return log_prob, found[0], found[1]

    @cached_property
    def want(self) -> tuple[Array, list[Array], list[Array]]:
        """Of the parameters as they are."""
        return self.gradients(self.params)

    def check_gradient(self, candidate: Candidate) -> str:
        """`sample() -> (log-probabilities, gradients of their mean by w, c, v, b)`, 0 where the masks are."""
        log_prob, by = candidate.sample()
        want, gradient, magnitude = self.want
        h, _ = self.forward(self.params.precise(), self.x.astype(float))
        # Each logit within some roundings of the sum of its magnitudes.
        of_logit = float((h @ np.abs(self.params.v)).max() + np.abs(self.params.b).max())
        found = reference.close("log-probabilities", log_prob, want, 2 * EPS * len(self.params.b) * of_logit)
        found += f"; {close_gradients(by, gradient, magnitude)}"
        for name, got, mask in zip("wv", (by[0], by[2]), self.masks, strict=True):
            if np.any(np.asarray(got)[~mask]):
                raise reference.Disagreement(f"gradient by {name}: not 0 where it is masked")
        return found

    def logits(self, x: Array) -> Array:
        """Of rows (N, D), in float64."""
        return self.forward(self.params.precise(), x)[1]

    def samples(self, n: int, rng: np.random.Generator) -> Array:
        """Ancestral ones in float64."""
        precise, (_, second) = self.params.precise(), self.masks
        first = precise.w * self.masks[0]
        a, x = np.tile(precise.c, (n, 1)), np.zeros((n, len(precise.b)))
        v = precise.v * second
        for d in range(len(precise.b)):
            x[:, d] = rng.random(n) < reference.logistic(precise.b[d] + np.maximum(a, 0) @ v[:, d])
            a += x[:, d : d + 1] * first[d]
        return x


@lru_cache
def _made(tiny: bool) -> Made:
    rows, dims, hidden = (20, 36, 20) if tiny else (100, 784, 500)
    x = reference.synthetic_rbm(dims, hidden, 30 if tiny else 128).v[:rows]
    rng = np.random.default_rng(24)
    degree = np.sort(rng.integers(0, dims - 1, hidden))
    w, v = (rng.normal(0, scale, (dims, hidden)).astype(np.float32) for scale in (0.1, 0.05))
    v = np.ascontiguousarray(v.T)
    c = rng.normal(0, 0.1, hidden).astype(np.float32)
    w *= degree >= np.arange(dims)[:, None]
    v *= np.arange(dims) > degree[:, None]
    rate = (x.sum(0) + 1) / (len(x) + 2)
    # Samples have about the data's rates: what the hidden units give on average is taken off.
    mean = np.maximum(x @ w.astype(float) + c, 0).mean(0)
    b = np.log(rate / (1 - rate)) - mean @ v
    return Made(np.ascontiguousarray(x), Parameters(w, c, v, b.astype(np.float32)), degree)


def _gradient_cost(p: Made) -> Cost:
    """Forward, and the gradients for v, h and w: five products of which half is masked."""
    return Cost(5.0 * len(p.x) * p.params.v.size, 0, "products, of what is not masked")


def _sample_cost(p: Made) -> Cost:
    return Cost(2.0 * len(p.x) * p.params.v.size, 0, "products of one pass, of what is not masked")


WORKS = (
    Work("made", "MADE gradient 100 of 784-500-784", "made", _made, _gradient_cost, Made.check_gradient),
    Work(
        "made_sample", "MADE 100 samples 784-500-784", "made_sample", _made, _sample_cost, Made.check_sample
    ),
)
