"""NADE: gradients through the tape, and samples."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import numpy as np

import gencore as gc
from gencore.kernels import autoregressive

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.nade import Nade


@does("nade", "gencore")
def nade(p: Nade, threads: int) -> Candidate:
    # Kernels are typed for arrays.
    params = [cast(Array, gc.tensor(a, requires_grad=True)) for a in p.params]

    def call() -> tuple[Any, Any]:
        log_prob: Any = autoregressive.nade_log_prob(p.x, *params)
        return log_prob, gc.grad(np.mean(log_prob), cast(Any, params))

    def sample() -> tuple[Array, list[Array]]:
        log_prob, by = call()
        return log_prob.numpy(), [g.numpy() for g in by]

    return Candidate(call, sample, note="through the tape")


@does("nade_sample", "gencore")
def nade_sample(p: Nade, threads: int) -> Candidate:
    steps = count()

    def call() -> Array:
        return autoregressive.nade_sample(*p.params, len(p.x), 1, step=next(steps))

    return Candidate(call, call)
