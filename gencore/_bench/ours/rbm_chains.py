"""Chains of restricted Boltzmann machines, and learning by them."""

from __future__ import annotations

from itertools import count

from gencore.kernels import optim
from gencore.kernels import rbm as kernels

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.rbm_chains import Cd, Gibbs


@does("gibbs", "gencore")
def gibbs(p: Gibbs, threads: int) -> Candidate:
    w, b, c, v, _ = p.rbm
    state = v.copy()
    done = count(step=p.steps)

    def call() -> object:
        return kernels.gibbs_chain(w, b, c, state, steps=p.steps, key=1, first_step=next(done), out=state)

    return Candidate(
        call,
        lambda start: kernels.gibbs_chain(w, b, c, start, steps=1, key=2),
        units=p.steps,
        note="chains as bytes; packed bits inside",
    )


@does("cd", "gencore")
def cd(p: Cd, threads: int) -> Candidate:
    start = p.rbm[:3]
    model = w, b, c = start[0].copy(), start[1].copy(), start[2].copy()
    gradient = kernels.cd_gradient(w, b, c, p.rbm.v, k=p.k, key=1)
    pairs = [(w, gradient.weight), (b, gradient.visible_bias), (c, gradient.hidden_bias)]
    steps = count(step=p.k)

    def prepare() -> None:
        for x, x0 in zip(model, start, strict=True):
            x[...] = x0

    def call() -> None:
        kernels.cd_gradient(w, b, c, p.rbm.v, k=p.k, key=1, first_step=next(steps), out=gradient)
        for param, grad in pairs:
            optim.sgd(param, grad, lr=p.lr)

    def update() -> list[Array]:
        prepare()
        call()
        return [x - x0 for x, x0 in zip(model, start, strict=True)]

    return Candidate(call, update, prepare=prepare, workspace=sum(grad.nbytes for _, grad in pairs))
