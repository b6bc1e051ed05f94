"""Draws: Bernoulli variates, reparameterised Gaussians, Gumbel-softmax."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import numpy as np

import gencore as gc
from gencore.kernels import sample

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.sample import Gumbel, Reparam, Variates


@does("philox", "gencore")
def variates(p: Variates, threads: int) -> Candidate:
    steps = count()
    out = np.empty(p.p.shape, np.uint8)

    def call() -> Array:
        return sample.bernoulli(p.p, 1, step=next(steps), out=out)

    return Candidate(call, lambda: call().copy(), units=p.p.size)


@does("reparam", "gencore")
def reparam(p: Reparam, threads: int) -> Candidate:
    # Kernels are typed for arrays.
    mu, logvar = (cast(Array, gc.tensor(x, requires_grad=True)) for x in (p.mu, p.logvar))
    steps = count()

    def call() -> list[Any]:
        results: Any = sample.gaussian_reparam(mu, logvar, 1, step=next(steps))
        return [*results, *gc.grad(results, cast(Any, [mu, logvar]), [p.grad_z, p.grad_kl])]

    return Candidate(call, lambda: [x.numpy() for x in call()], note="through the tape")


@does("gumbel", "gencore")
def gumbel(p: Gumbel, threads: int) -> Candidate:
    logits = cast(Array, gc.tensor(p.logits, requires_grad=True))
    steps = count()

    def call() -> list[Any]:
        y: Any = sample.gumbel_softmax(logits, p.tau, 1, step=next(steps))
        return [y, gc.grad(y, cast(Any, logits), p.grad)]

    return Candidate(call, lambda: [x.numpy() for x in call()], note="through the tape")
