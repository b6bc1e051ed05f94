"""Matrix products, layers and losses."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work


class Gemm(NamedTuple):
    """out (m, n) = a (m, k) b (k, n), float32."""

    a: Array
    b: Array


def gemm_work(m: int, n: int, k: int) -> Work:
    """Matrix product; `sample() -> (m, n)`."""

    @lru_cache
    def problem(tiny: bool) -> Gemm:
        rng = np.random.default_rng(1)
        scale = 16 if tiny else 1
        shape = [max(1, x // scale) for x in (m, n, k)]
        a, b = rng.standard_normal((shape[0], shape[2])), rng.standard_normal((shape[2], shape[1]))
        return Gemm(a.astype(np.float32), b.astype(np.float32))

    def cost(p: Gemm) -> Cost:
        (m, k), n = p.a.shape, p.b.shape[1]
        return Cost(2.0 * m * n * k, 0, "multiply-adds of the product")

    def check(p: Gemm, candidate: Candidate) -> str:
        exact = p.a.astype(float) @ p.b.astype(float)
        # At most k roundings of a sum of |a||b|.
        bound = EPS * p.a.shape[1] * float((np.abs(p.a) @ np.abs(p.b)).max())
        return reference.close("product", candidate.sample(), exact, bound)

    return Work(f"gemm_{m}x{n}x{k}", f"GEMM {m}x{n}x{k}", "gemm", problem, cost, check)


class Layer(NamedTuple):
    """Backward of y = tanh(x w + bias): the gradients (x, w, bias) of a float32 layer, given that of y."""

    x: Array
    w: Array
    y: Array
    grad: Array


@lru_cache
def _layer(tiny: bool) -> Layer:
    m, k, n = (8, 49, 31) if tiny else (128, 784, 500)
    rng = np.random.default_rng(12)
    x, w, grad = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n), (m, n)))
    w /= np.float32(k**0.5)
    return Layer(x, w, np.tanh(x @ w), grad)


def _layer_cost(p: Layer) -> Cost:
    (m, k), n = p.x.shape, p.w.shape[1]
    return Cost(4.0 * m * n * k, 0, "multiply-adds of the two products")


def _check_layer(p: Layer, candidate: Candidate) -> str:
    """`sample() -> (grad_x, grad_w, grad_bias)`."""
    x, w, y, grad = (a.astype(float) for a in p)
    dz = grad * (1 - y * y)
    # 1 - y^2 may lose a unit of 1; then at most as many roundings as a sum has terms, of a sum of magnitudes.
    size, terms = np.abs(grad), max(*p.x.shape, p.w.shape[1]) + 8
    exact = (dz @ w.T, x.T @ dz, dz.sum(0))
    magnitudes = (size @ np.abs(w.T), np.abs(x.T) @ size, size.sum(0))
    for name, got, want, magnitude in zip("xwb", candidate.sample(), exact, magnitudes, strict=True):
        said = reference.close(f"gradient of {name}", got, want, EPS * terms * float(magnitude.max()))
    return said


class Entropy(NamedTuple):
    """Log-probability of targets under Bernoulli units, one number a row, and its gradient for the logits."""

    logits: Array
    targets: Array  # uint8
    grad: Array  # of each row's log-probability


@lru_cache
def _entropy(tiny: bool) -> Entropy:
    n, units = (8, 49) if tiny else (128, 784)
    rng = np.random.default_rng(13)
    logits = rng.normal(0, 3, (n, units)).astype(np.float32)
    targets = (rng.random((n, units)) < reference.logistic(logits)).astype(np.uint8)
    return Entropy(logits, targets, np.full(n, 1 / n, np.float32))


def _entropy_cost(p: Entropy) -> Cost:
    return Cost(0, 9.0 * p.logits.size, "logits and targets read once, the gradient written")


def _check_entropy(p: Entropy, candidate: Candidate) -> str:
    """`sample() -> (log-probabilities (n,), gradient (n, units))`."""
    x, t = p.logits.astype(float), p.targets.astype(float)
    terms = t * x - reference.softplus(x)
    value, slope = candidate.sample()
    exact = p.grad[:, None] * (t - reference.logistic(x))
    reference.close("gradient", slope, exact, 8 * EPS * float(p.grad.max()))
    bound = EPS * x.shape[1] * float(np.abs(terms).sum(1).max())  # a sum in float32, at its worst
    return reference.close("log-probability", value, terms.sum(1), bound)


WORKS = (
    gemm_work(1024, 1024, 1024),
    gemm_work(128, 500, 784),
    gemm_work(64, 256, 256),
    gemm_work(32, 64, 64),
    gemm_work(1, 512, 512),
    Work("linear_vjp", "tanh layer backward 128x784x500", "linear_vjp", _layer, _layer_cost, _check_layer),
    Work("bce", "Bernoulli loss + grad, 128x784", "bce", _entropy, _entropy_cost, _check_entropy),
)
