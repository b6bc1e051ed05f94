"""Draws of the peers: Bernoulli, uniform and threshold in one pass where the library can; reparameterised ones with
their gradients, by each library's own differentiation.
"""

from itertools import count

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.sample import Gumbel, Reparam, Variates
from peers.common import HASH_NOTE, compiled, jax_with, numba_kernels, tensors, torch_with

for kind in ("philox", "reparam", "gumbel"):
    lacks(kind, "onednn", "has no random numbers")


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


# --- reparameterised Gaussians ------------------------------------------------------------------------------


def reparam_by_torch(p: Reparam, threads: int, compiling: bool) -> Candidate:
    torch = torch_with(threads)
    mu, logvar, grad_z, grad_kl = tensors(torch, p.mu, p.logvar, p.grad_z, p.grad_kl)
    mu.requires_grad_(True)
    logvar.requires_grad_(True)

    def forward(mu, logvar):
        sd = torch.exp(0.5 * logvar)
        kl = 0.5 * (mu * mu + sd * sd - 1 - logvar).sum(1)
        return torch.addcmul(mu, sd, torch.randn_like(mu)), kl

    run = compiled(torch)(forward) if compiling else forward

    def call() -> object:
        with torch.enable_grad():
            z, kl = run(mu, logvar)
            return z, kl, *torch.autograd.grad([z, kl], [mu, logvar], [grad_z, grad_kl])

    return Candidate(call, lambda: [x.detach().numpy() for x in call()])


@does("reparam", "torch")
def reparam_torch(p: Reparam, threads: int) -> Candidate:
    return reparam_by_torch(p, threads, compiling=False)


@does("reparam", "compile")
def reparam_compile(p: Reparam, threads: int) -> Candidate:
    return reparam_by_torch(p, threads, compiling=True)


@does("reparam", "jax")
def reparam_jax(p: Reparam, threads: int) -> Candidate:
    jax = jax_with(threads)
    numpy = jax.numpy
    arrays = [numpy.asarray(x) for x in (p.mu, p.logvar, p.grad_z, p.grad_kl)]

    @jax.jit
    def both(key, mu, logvar, grad_z, grad_kl):
        key, now = jax.random.split(key)

        def forward(mu, logvar):
            z = mu + numpy.exp(0.5 * logvar) * jax.random.normal(now, mu.shape)
            return z, 0.5 * (mu * mu + numpy.exp(logvar) - 1 - logvar).sum(1)

        results, back = jax.vjp(forward, mu, logvar)
        return key, (*results, *back((grad_z, grad_kl)))

    state = [jax.random.key(0)]

    def call() -> object:
        state[0], results = both(state[0], *arrays)
        return jax.block_until_ready(results)

    return Candidate(call, lambda: [np.asarray(x) for x in call()])


@does("reparam", "numba")
def reparam_numba(p: Reparam, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    z, by_mu, by_logvar = (np.empty_like(p.mu) for _ in range(3))
    kl = np.empty(len(p.mu), np.float32)
    seeds = count(1)

    def call() -> tuple[Array, ...]:
        seed = next(seeds)
        kernels.reparam(p.mu, p.logvar, z, kl, seed)
        kernels.reparam_gradient(p.mu, p.logvar, p.grad_z, p.grad_kl, by_mu, by_logvar, seed)
        return z, kl, by_mu, by_logvar

    return Candidate(call, call, note=HASH_NOTE)


# --- Gumbel-softmax -----------------------------------------------------------------------------------------


def gumbel_by_torch(p: Gumbel, threads: int, compiling: bool) -> Candidate:
    torch = torch_with(threads)
    logits, grad = tensors(torch, p.logits, p.grad)
    logits.requires_grad_(True)

    def forward(logits):
        return torch.nn.functional.gumbel_softmax(logits, p.tau)

    run = compiled(torch)(forward) if compiling else forward

    def call() -> object:
        with torch.enable_grad():
            y = run(logits)
            return y, *torch.autograd.grad(y, logits, grad)

    return Candidate(call, lambda: [x.detach().numpy() for x in call()])


@does("gumbel", "torch")
def gumbel_torch(p: Gumbel, threads: int) -> Candidate:
    return gumbel_by_torch(p, threads, compiling=False)


@does("gumbel", "compile")
def gumbel_compile(p: Gumbel, threads: int) -> Candidate:
    return gumbel_by_torch(p, threads, compiling=True)


@does("gumbel", "jax")
def gumbel_jax(p: Gumbel, threads: int) -> Candidate:
    jax = jax_with(threads)
    arrays = [jax.numpy.asarray(x) for x in (p.logits, p.grad)]

    @jax.jit
    def both(key, logits, grad):
        key, now = jax.random.split(key)
        noise = jax.random.gumbel(now, logits.shape)
        y, back = jax.vjp(lambda x: jax.nn.softmax((x + noise) / p.tau), logits)
        return key, (y, *back(grad))

    state = [jax.random.key(0)]

    def call() -> object:
        state[0], results = both(state[0], *arrays)
        return jax.block_until_ready(results)

    return Candidate(call, lambda: [np.asarray(x) for x in call()])


@does("gumbel", "numba")
def gumbel_numba(p: Gumbel, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    y, by_logits = np.empty_like(p.logits), np.empty_like(p.logits)
    seeds, scale = count(1), np.float32(1 / p.tau)

    def call() -> tuple[Array, Array]:
        kernels.gumbel_softmax(p.logits, scale, y, next(seeds))
        kernels.softmax_gradient(p.grad, y, scale, by_logits)
        return y, by_logits

    return Candidate(call, call, note=HASH_NOTE)
