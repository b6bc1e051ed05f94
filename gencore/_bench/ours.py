"""Our kernels, called as a user calls them."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import numpy as np

import gencore as gc
from gencore.kernels import dense, optim, sample
from gencore.kernels import rbm as kernels

from .measure import Candidate
from .reference import Array, Rbm
from .registry import does
from .works import (
    AIS_TEMPERATURES,
    FACTOR,
    LOG_PARTITION,
    Adam,
    Ais,
    Cd,
    Chain,
    Entropy,
    Gemm,
    Gibbs,
    Gumbel,
    Layer,
    LogZ,
    Reparam,
    Variates,
)


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


@does("ais", "gencore")
def ais(p: Ais, threads: int) -> Candidate:
    w, b, c = p.rbm[:3]
    keys = count(1)

    def run(betas: Array) -> Array:
        return kernels.ais(w, b, c, betas=betas, base_bias=b, n_runs=p.n_runs, key=next(keys))[0]

    def call() -> Array:
        return run(p.betas)

    whole = np.linspace(0, 1, AIS_TEMPERATURES + 1)
    return Candidate(call, call, units=len(p.betas) - 1, whole=lambda: run(whole))


@does("free_energy", "gencore")
def free_energy(rbm: Rbm, threads: int) -> Candidate:
    def call() -> tuple[Array, float]:
        energy = kernels.free_energy(rbm.w, rbm.b, rbm.c, rbm.v)
        return energy, float(-energy.mean() - LOG_PARTITION)

    return Candidate(call, call)


@does("log_z", "gencore")
def log_z(p: LogZ, threads: int) -> Candidate:
    w, b, c = p.rbm[:3]
    short = np.ascontiguousarray(w[:, : p.short]), b, c[: p.short].copy()
    return Candidate(
        lambda: kernels.log_partition_exact(w, b, c),
        lambda: kernels.log_partition_exact(*short),
        units=2 ** len(c),
    )


@does("pseudo", "gencore")
def pseudo(rbm: Rbm, threads: int) -> Candidate:
    def call() -> Array:
        return kernels.pseudo_log_likelihood(rbm.w, rbm.b, rbm.c, rbm.v)

    return Candidate(call, call)


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


@does("autograd", "gencore")
def autograd(p: Chain, threads: int) -> Candidate:
    x, b = (gc.tensor(a, requires_grad=True) for a in (p.x, p.b))
    w = gc.tensor(p.w)

    def call() -> tuple[float, Array, Array]:
        y = x
        for _ in range(p.steps):
            y = (y * FACTOR + b).tanh() - w
        value = y.sum()
        dx, db = gc.grad(value, [x, b])
        return value.item(), dx.numpy(), db.numpy()

    return Candidate(call, call)
