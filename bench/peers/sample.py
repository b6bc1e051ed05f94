"""Bernoulli draws of the peers: uniform and threshold in one pass where the library can."""

from itertools import count

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works import Variates
from peers.common import HASH_NOTE, compiled, jax_with, numba_kernels, tensors, torch_with

lacks("philox", "onednn", "has no random numbers")


@does("philox", "torch")
def variates_torch(p: Variates, threads: int) -> Candidate:
    torch = torch_with(threads)
    (probabilities,) = tensors(torch, p.p)
    uniform, out = torch.empty_like(probabilities), torch.empty(p.p.shape, dtype=torch.bool)

    def call() -> object:  # 2.5 times as fast as torch.bernoulli
        return torch.lt(uniform.uniform_(), probabilities, out=out)

    return Candidate(call, lambda: call().numpy().copy(), units=p.p.size, workspace=4 * p.p.size)


@does("philox", "compile")
def variates_compile(p: Variates, threads: int) -> Candidate:
    torch = torch_with(threads)
    (probabilities,) = tensors(torch, p.p)
    draw = compiled(torch)(lambda p: torch.rand_like(p) < p)
    return Candidate(lambda: draw(probabilities), lambda: draw(probabilities).numpy(), units=p.p.size)


@does("philox", "jax")
def variates_jax(p: Variates, threads: int) -> Candidate:
    jax = jax_with(threads)
    probabilities = jax.numpy.asarray(p.p)

    @jax.jit
    def draw(key, p):  # threefry, the default, is twice as fast here as rbg and unsafe_rbg
        key, now = jax.random.split(key)
        return key, jax.random.uniform(now, p.shape) < p

    state = [jax.random.key(0)]

    def call() -> object:
        state[0], bits = draw(state[0], probabilities)
        return bits.block_until_ready()

    return Candidate(call, lambda: np.asarray(call()), units=p.p.size)


@does("philox", "numba")
def variates_numba(p: Variates, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    out = np.empty(p.p.shape, np.bool_)
    seeds = count(1)

    def call() -> Array:
        kernels.bernoulli(p.p, out, next(seeds))
        return out

    return Candidate(call, lambda: call().copy(), units=p.p.size, note=HASH_NOTE)
