"""Matrix products, layers and losses."""

from __future__ import annotations

import numpy as np

from gencore.kernels import dense

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.dense import Entropy, Gemm, Layer


@does("gemm", "gencore")
def gemm(p: Gemm, threads: int) -> Candidate:
    out = np.empty((p.a.shape[0], p.b.shape[1]), np.float32)

    def call() -> Array:
        return dense.matmul(p.a, p.b, out=out)

    return Candidate(call, call)


@does("linear_vjp", "gencore")
def linear_vjp(p: Layer, threads: int) -> Candidate:
    def call() -> object:
        return dense.linear_vjp(p.grad, p.x, p.w, p.y, activation="tanh")

    return Candidate(call, call)


@does("bce", "gencore")
def bce(p: Entropy, threads: int) -> Candidate:
    def call() -> tuple[Array, Array]:
        value = dense.bernoulli_log_prob(p.logits, p.targets)
        return value, dense.bernoulli_log_prob_vjp(p.grad, p.logits, p.targets)

    return Candidate(call, call)
