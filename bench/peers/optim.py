"""Optimizer steps of the peers."""

from itertools import count

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.registry import does, lacks
from gencore._bench.works.optim import Adam
from peers.common import jax_with, numba_kernels, tensors, torch_with

lacks("adam", "compile", "fused=True is one kernel already; a compiled step takes longer")


@does("adam", "torch")
def adam_torch(p: Adam, threads: int) -> Candidate:
    torch = torch_with(threads)
    params = [t.requires_grad_() for t in tensors(torch, *p.params)]
    for t, g in zip(params, tensors(torch, *p.grads), strict=True):
        t.grad = g
    optimizer = torch.optim.Adam(params, lr=p.lr, betas=(p.beta1, p.beta2), eps=p.eps, fused=True)
    optimizer.step()  # makes the state

    def prepare() -> None:
        for t, x, m, v in zip(params, p.params, p.means, p.squares, strict=True):
            state = optimizer.state[t]
            for tensor, start in ((t, x), (state["exp_avg"], m), (state["exp_avg_sq"], v)):
                tensor.copy_(torch.from_numpy(start))
            state["step"].fill_(p.step - 1)

    def sample() -> list:
        prepare()
        optimizer.step()
        return [t.detach().numpy() for t in params]

    return Candidate(
        optimizer.step, sample, prepare=prepare, workspace=p.nbytes, note="fused=True; foreach is slower"
    )


@does("adam", "jax")
def adam_jax(p: Adam, threads: int) -> Candidate:
    jax = jax_with(threads)
    jnp = jax.numpy
    grads = [jnp.asarray(g) for g in p.grads]

    def update(params, means, squares, grads, rate, scale):
        tree = jax.tree_util.tree_map
        means = tree(lambda m, g: m + (1 - p.beta1) * (g - m), means, grads)
        squares = tree(lambda v, g: p.beta2 * v + (1 - p.beta2) * g * g, squares, grads)
        params = tree(lambda x, m, v: x - rate * m / (jnp.sqrt(v) * scale + p.eps), params, means, squares)
        return params, means, squares

    jitted = jax.jit(update, donate_argnums=(0, 1, 2))
    state, steps = None, count(p.step)

    def prepare() -> None:
        nonlocal state, steps
        state = tuple([jnp.array(x) for x in xs] for xs in (p.params, p.means, p.squares))
        steps = count(p.step)

    def call() -> None:
        nonlocal state
        step = next(steps)
        rate, scale = np.float32(p.lr / (1 - p.beta1**step)), np.float32((1 - p.beta2**step) ** -0.5)
        state = jax.block_until_ready(jitted(*state, grads, rate, scale))

    def sample() -> list:
        prepare()
        call()
        return [np.asarray(x) for x in state[0]]

    return Candidate(call, sample, prepare=prepare, workspace=p.nbytes, note="jit, buffers donated")


@does("adam", "numba")
def adam_numba(p: Adam, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    lists = p.copies()
    arrays = [
        tuple(x.reshape(-1) for x in xs) for xs in zip(lists[0], p.grads, lists[1], lists[2], strict=True)
    ]
    constants = [np.float32(x) for x in (1 - p.beta1, p.beta2, 1 - p.beta2, p.eps)]
    steps = count(p.step)

    def prepare() -> None:
        nonlocal steps
        p.restore(*lists)
        steps = count(p.step)

    def call() -> None:
        step = next(steps)
        rate, scale = np.float32(p.lr / (1 - p.beta1**step)), np.float32((1 - p.beta2**step) ** -0.5)
        for four in arrays:
            kernels.adam(*four, rate, scale, *constants)

    def sample() -> list:
        prepare()
        call()
        return lists[0]

    return Candidate(call, sample, prepare=prepare, workspace=p.nbytes)
