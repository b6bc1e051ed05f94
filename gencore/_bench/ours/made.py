"""MADE: gradients through the tape, and samples by one pass."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import numpy as np

import gencore as gc
from gencore.kernels import autoregressive, dense
from gencore.kernels import sample as draws

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.made import Made


@does("made", "gencore")
def made(p: Made, threads: int) -> Candidate:
    # Kernels are typed for arrays.
    params = [cast(Array, gc.tensor(a, requires_grad=True)) for a in p.params]
    places = np.arange(len(p.params.b))

    def call() -> tuple[Any, Any]:
        w, c, v, b = params
        h = autoregressive.masked_linear(p.x, w, c, in_degree=places, out_degree=p.degree, activation="relu")
        logits = autoregressive.masked_linear(h, v, b, in_degree=p.degree, out_degree=places, strict=True)
        log_prob: Any = dense.bernoulli_log_prob(logits, p.x)
        return log_prob, gc.grad(np.mean(log_prob), cast(Any, params))

    def sample() -> tuple[Array, list[Array]]:
        log_prob, by = call()
        return log_prob.numpy(), [g.numpy() for g in by]

    return Candidate(call, sample, note="through the tape")


@does("made_sample", "gencore")
def made_sample(p: Made, threads: int) -> Candidate:
    steps = count()
    degrees = [np.arange(len(p.params.b)), p.degree]
    zeros, ones = np.zeros(p.x.shape, np.float32), np.ones(p.x.shape, np.float32)

    def call() -> Array:
        noise = draws.location_scale(zeros, ones, 1, "logistic", step=next(steps))
        return autoregressive.masked_sample(
            noise, [p.params.w, p.params.v], [p.params.c, p.params.b], degrees=degrees, activation="relu"
        )

    return Candidate(call, call, workspace=3 * zeros.nbytes)
