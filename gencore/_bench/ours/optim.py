"""Steps of optimizers."""

from __future__ import annotations

from itertools import count

from gencore.kernels import optim

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.optim import Adam


@does("adam", "gencore")
def adam(p: Adam, threads: int) -> Candidate:
    params, means, squares = p.copies()
    steps = count(p.step)

    def prepare() -> None:
        nonlocal steps
        p.restore(params, means, squares)
        steps = count(p.step)

    def call() -> None:
        optim.adam_step(params, p.grads, exp_avgs=means, exp_avg_sqs=squares, lr=p.lr, step=next(steps),
                        beta1=p.beta1, beta2=p.beta2, eps=p.eps)  # fmt: skip

    def sample() -> list[Array]:
        prepare()
        call()
        return params

    return Candidate(call, sample, prepare=prepare, workspace=p.nbytes)
