"""AIS, free energies, exact log Z and pseudo-likelihood of the peers."""

from collections.abc import Callable
from itertools import count, pairwise
from typing import Any

import numpy as np

from gencore._bench.measure import Absent, Candidate
from gencore._bench.reference import Array, Rbm
from gencore._bench.registry import does, lacks
from gencore._bench.works.rbm_likelihood import LOG_PARTITION, Ais, LogZ
from peers.common import (
    HASH_NOTE,
    ONEDNN_NOTE,
    compiled,
    jax_with,
    numba_kernels,
    onednn,
    tensors,
    torch_with,
)
from peers.rbm_chains import fitted_sklearn, jax_draw, rbms_model

lacks("ais", "sklearn", "has no partition function")
lacks("log_z", "sklearn", "has no partition function")
lacks("pseudo", "sklearn", "its score_samples flips one unit a row: a stochastic estimate")
lacks("pseudo", "rbms", "has no pseudo-likelihood")
for kind in ("log_z", "pseudo"):
    lacks(kind, "onednn", "no large product in it")


def shortened(p: LogZ) -> str:
    return f"timed on 2^{p.short} of 2^{len(p.rbm.c)} states and scaled"


def first_hidden(p: LogZ) -> tuple[Array, Array, Array]:
    """Parameters of the RBM with its first `short` hidden units; weights as (short, n_visible)."""
    return np.ascontiguousarray(p.rbm.w[:, : p.short].T), p.rbm.b, p.rbm.c[: p.short].copy()


def hidden_states(p: LogZ) -> Array:
    return (np.arange(2**p.short)[:, None] >> np.arange(p.short) & 1).astype(np.float32)


# --- PyTorch ------------------------------------------------------------------------------------------------


def ais_torch_with(p: Ais, threads: int, private: bool) -> Candidate:
    torch = torch_with(threads)
    softplus = torch.nn.functional.softplus
    w, b, c = tensors(torch, *p.rbm[:3])
    field, mean, uniform, h = (torch.empty(p.n_runs, len(c)) for _ in range(4))
    v, uniform_v, field_v = (torch.empty(p.n_runs, len(b)) for _ in range(3))
    zero, betas = torch.zeros(len(b)), p.betas.tolist()
    linear = onednn(torch)

    def fields(out: Any, states: Any, weight: Any, bias: Any, beta: float) -> None:
        if private:
            torch.add(bias, linear(states, weight.t(), None), alpha=beta, out=out)
        else:
            torch.addmm(bias, states, weight, alpha=beta, out=out)

    def run() -> Array:
        total = torch.zeros(p.n_runs, dtype=torch.float64)
        torch.lt(uniform_v.uniform_(), torch.sigmoid(b), out=v)
        for low, high in pairwise(betas):
            fields(field, v, w, c, 1.0)
            total += (softplus(field * high) - softplus(field * low)).sum(1)
            torch.sigmoid(field.mul_(high), out=mean)
            torch.lt(uniform.uniform_(), mean, out=h)
            fields(field_v, h, w.t(), b, high)
            torch.lt(uniform_v.uniform_(), field_v.sigmoid_(), out=v)
        return total.numpy()

    held = 4 * p.n_runs * (4 * len(c) + 3 * len(b)) + 4 * zero.numel()
    return Candidate(run, run, units=len(betas) - 1, workspace=held, note=ONEDNN_NOTE if private else "")


@does("ais", "torch")
def ais_torch(p: Ais, threads: int) -> Candidate:
    return ais_torch_with(p, threads, private=False)


@does("ais", "onednn")
def ais_onednn(p: Ais, threads: int) -> Candidate:
    return ais_torch_with(p, threads, private=True)


@does("ais", "compile")
def ais_compile(p: Ais, threads: int) -> Candidate:
    torch = torch_with(threads)
    softplus = torch.nn.functional.softplus
    w, b, c = tensors(torch, *p.rbm[:3])
    (betas,) = tensors(torch, p.betas)  # a Python number would compile once a temperature

    @compiled(torch)
    def step(v, low, high, total):
        field = torch.addmm(c, v, w)
        total = total + (softplus(field * high) - softplus(field * low)).sum(1)
        h = (torch.rand_like(field) < torch.sigmoid(field * high)).float()
        v = (torch.rand_like(v) < torch.sigmoid(b + high * (h @ w.t()))).float()
        return v, total

    def run() -> Array:
        v = (torch.rand(p.n_runs, len(b)) < torch.sigmoid(b)).float()
        total = torch.zeros(p.n_runs, dtype=torch.float64)
        for k in range(len(betas) - 1):
            v, total = step(v, betas[k], betas[k + 1], total)
        return total.numpy()

    return Candidate(run, run, units=len(betas) - 1)


def free_energy_torch_with(rbm: Rbm, threads: int, fields: Callable[..., Any], note: str = "") -> Candidate:
    torch = torch_with(threads)
    w, b, c = tensors(torch, *rbm[:3])
    v = tensors(torch, rbm.v)[0]

    def call() -> tuple[Any, float]:
        energy = -(v @ b) - torch.nn.functional.softplus(fields(v, w, c)).sum(1)
        return energy, float(-energy.mean(dtype=torch.float64) - LOG_PARTITION)

    return Candidate(call, call, note=note or "states already float32")


@does("free_energy", "torch")
def free_energy_torch(rbm: Rbm, threads: int) -> Candidate:
    torch = torch_with(threads)
    return free_energy_torch_with(rbm, threads, lambda v, w, c: torch.addmm(c, v, w))


@does("free_energy", "onednn")
def free_energy_onednn(rbm: Rbm, threads: int) -> Candidate:
    linear = onednn(torch_with(threads))
    return free_energy_torch_with(rbm, threads, lambda v, w, c: linear(v, w.t(), c), ONEDNN_NOTE)


@does("free_energy", "compile")
def free_energy_compile(rbm: Rbm, threads: int) -> Candidate:
    torch = torch_with(threads)
    w, b, c = tensors(torch, *rbm[:3])
    v = tensors(torch, rbm.v)[0]

    @compiled(torch)
    def energy_of(v, w, b, c):
        energy = -(v @ b) - torch.nn.functional.softplus(torch.addmm(c, v, w)).sum(1)
        return energy, -energy.double().mean()

    def call() -> tuple[Any, float]:
        energy, likelihood = energy_of(v, w, b, c)
        return energy, float(likelihood) - LOG_PARTITION

    return Candidate(call, call, note="states already float32")


def log_z_torch_with(p: LogZ, threads: int, wrap: Callable[..., Any]) -> Candidate:
    torch = torch_with(threads)
    w, b, c = tensors(torch, *first_hidden(p))
    blocks = tensors(torch, hidden_states(p))[0].split(1024)

    def terms(h, w, b, c):
        return h @ c + torch.nn.functional.softplus(torch.addmm(b, h, w)).sum(1)

    terms = wrap(terms)

    def call() -> float:
        return float(torch.logsumexp(torch.cat([terms(h, w, b, c) for h in blocks]).double(), 0))

    return Candidate(call, call, units=2**p.short, note=shortened(p))


@does("log_z", "torch")
def log_z_torch(p: LogZ, threads: int) -> Candidate:
    return log_z_torch_with(p, threads, lambda f: f)


@does("log_z", "compile")
def log_z_compile(p: LogZ, threads: int) -> Candidate:
    return log_z_torch_with(p, threads, compiled(torch_with(threads)))


def pseudo_torch_with(rbm: Rbm, threads: int, wrap: Callable[..., Any]) -> Candidate:
    torch = torch_with(threads)
    softplus = torch.nn.functional.softplus
    w, b, c = tensors(torch, *rbm[:3])
    v = tensors(torch, rbm.v)[0]

    def row(field, sign):  # flipping unit i adds sign_i w_i to the fields
        gain = softplus(torch.addcmul(field, sign[:, None], w)).sum(1) - softplus(field).sum() + sign * b
        return -softplus(gain.double()).sum()

    row = wrap(row)

    def call() -> Array:
        fields, signs = torch.addmm(c, v, w), 1 - 2 * v
        return torch.stack([row(fields[r], signs[r]) for r in range(len(v))]).numpy()

    return Candidate(call, call)


@does("pseudo", "torch")
def pseudo_torch(rbm: Rbm, threads: int) -> Candidate:
    return pseudo_torch_with(rbm, threads, lambda f: f)


@does("pseudo", "compile")
def pseudo_compile(rbm: Rbm, threads: int) -> Candidate:
    return pseudo_torch_with(rbm, threads, compiled(torch_with(threads)))


# --- JAX ----------------------------------------------------------------------------------------------------


@does("ais", "jax")
def ais_jax(p: Ais, threads: int) -> Candidate:
    jax = jax_with(threads)
    jnp, softplus, draw = jax.numpy, jax.nn.softplus, jax_draw(jax)
    w, b, c = (jnp.asarray(x) for x in p.rbm[:3])
    betas = jnp.asarray(p.betas, jnp.float32)

    @jax.jit
    def run(key, betas):
        key, now = jax.random.split(key)
        v = (jax.random.uniform(now, (p.n_runs, len(b))) < jax.nn.sigmoid(b)).astype(jnp.float32)

        def body(state, pair):
            v, key, total, lost = state
            low, high = pair
            key, key_h, key_v = jax.random.split(key, 3)
            field = v @ w + c
            # JAX computes in float32 by default: Kahan's sum keeps the log-weights exact.
            gain = (softplus(high * field) - softplus(low * field)).sum(1) - lost
            new = total + gain
            v = draw(key_v, b + high * (draw(key_h, high * field) @ w.T))
            return (v, key, new, (new - total) - gain), None

        zero = jnp.zeros(p.n_runs, jnp.float32)
        return jax.lax.scan(body, (v, key, zero, zero), (betas[:-1], betas[1:]))[0][2]

    keys = (jax.random.key(i) for i in count())

    def call() -> Array:
        return np.asarray(run(next(keys), betas))

    return Candidate(call, call, units=len(p.betas) - 1)


@does("free_energy", "jax")
def free_energy_jax(rbm: Rbm, threads: int) -> Candidate:
    jax = jax_with(threads)
    w, b, c, v = (jax.numpy.asarray(x, jax.numpy.float32) for x in rbm[:4])

    @jax.jit
    def energy_of(v, w, b, c):
        energy = -(v @ b) - jax.nn.softplus(v @ w + c).sum(1)
        return energy, -energy.mean() - LOG_PARTITION

    def call() -> tuple[Array, float]:
        energy, likelihood = energy_of(v, w, b, c)
        return np.asarray(energy), float(likelihood)

    return Candidate(call, call, note="states already float32")


@does("log_z", "jax")
def log_z_jax(p: LogZ, threads: int) -> Candidate:
    jax = jax_with(threads)
    jnp = jax.numpy
    w, b, c = (jnp.asarray(x) for x in first_hidden(p))
    states = jnp.asarray(hidden_states(p)).reshape(-1, min(512, 2**p.short), p.short)

    @jax.jit
    def log_z(states, w, b, c):
        terms = jax.lax.map(lambda h: h @ c + jax.nn.softplus(h @ w + b).sum(1), states)
        return jax.nn.logsumexp(terms)

    def call() -> float:
        return float(log_z(states, w, b, c))

    return Candidate(call, call, units=2**p.short, note=shortened(p))


@does("pseudo", "jax")
def pseudo_jax(rbm: Rbm, threads: int) -> Candidate:
    jax = jax_with(threads)
    jnp, softplus = jax.numpy, jax.nn.softplus
    w, b, c, v = (jnp.asarray(x, jnp.float32) for x in rbm[:4])

    @jax.jit
    def score(v, w, b, c):
        fields, signs = v @ w + c, 1 - 2 * v

        def row(pair):
            field, sign = pair
            gain = softplus(field + sign[:, None] * w).sum(1) - softplus(field).sum() + sign * b
            return -softplus(gain).sum()

        return jax.lax.map(row, (fields, signs))

    def call() -> Array:
        return np.asarray(score(v, w, b, c))

    return Candidate(call, call)


# --- numba --------------------------------------------------------------------------------------------------


@does("ais", "numba")
def ais_numba(p: Ais, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    w, b, c = p.rbm[:3]
    w_t, zero = np.ascontiguousarray(w.T), np.zeros_like(b)
    v, h = np.zeros((p.n_runs, len(b)), np.uint8), np.zeros((p.n_runs, len(c)), np.uint8)
    total = np.empty(p.n_runs)
    seeds = count(1, 2 * len(p.betas) + 2)

    def call() -> Array:
        kernels.ais(w, w_t, b, c, zero, p.betas, v, h, total, next(seeds))
        return total.copy()

    return Candidate(call, call, units=len(p.betas) - 1, workspace=w_t.nbytes + h.nbytes, note=HASH_NOTE)


@does("free_energy", "numba")
def free_energy_numba(rbm: Rbm, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    w, b, c, v = rbm[:4]
    out = np.empty(len(v))

    def call() -> tuple[Array, float]:
        kernels.free_energy(v, w, b, c, out)
        return out, float(-out.mean() - LOG_PARTITION)

    return Candidate(call, call)


@does("log_z", "numba")
def log_z_numba(p: LogZ, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    w, b, c = (x.astype(np.float64) for x in first_hidden(p))
    low = min(6, p.short)
    bits = np.arange(2**low)[:, None] >> np.arange(low) & 1
    table, bias = np.exp(bits @ w[:low]), bits @ c[:low]
    out = np.empty((2 ** (p.short - low), 2**low))

    def call() -> float:
        kernels.log_z_terms(w, b, c, table, bias, low, out)
        peak = out.max()
        return float(peak + np.log(np.exp(out - peak).sum()))

    note = "a table of e^w over 64 states, as ours; " + shortened(p)
    return Candidate(call, call, units=2**p.short, workspace=out.nbytes + table.nbytes, note=note)


@does("pseudo", "numba")
def pseudo_numba(rbm: Rbm, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    w, b, c, v = rbm[:4]
    growth, shrink, states, out = np.exp(w), np.exp(-w), v.astype(np.float32), np.empty(len(v))

    def call() -> Array:
        kernels.pseudo_log_likelihood(v, states @ w + c, growth, shrink, b, out)
        return out.copy()

    return Candidate(call, call, workspace=2 * w.nbytes, blas_threads=1)


# --- scikit-learn and rbms ----------------------------------------------------------------------------------


@does("free_energy", "sklearn")
def free_energy_sklearn(rbm: Rbm, threads: int) -> Candidate:
    from types import SimpleNamespace

    model = fitted_sklearn(SimpleNamespace(rbm=rbm))
    v = rbm.v.astype(np.float32)

    def call() -> tuple[Array, float]:
        energy = model._free_energy(v)
        return energy, float(-energy.mean(dtype=np.float64) - LOG_PARTITION)

    return Candidate(call, call, note="_free_energy; states already float32")


@does("free_energy", "rbms")
def free_energy_rbms(rbm: Rbm, threads: int) -> Candidate:
    from types import SimpleNamespace

    torch, model = rbms_model(SimpleNamespace(rbm=rbm), threads)
    v = tensors(torch, rbm.v)[0]

    def call() -> tuple[Any, float]:
        energy = model.compute_energy_visibles(v)
        return energy, float(-energy.mean(dtype=torch.float64) - LOG_PARTITION)

    return Candidate(call, call, note="states already float32")


@does("log_z", "rbms")
def log_z_rbms(p: LogZ, threads: int) -> Candidate:
    torch = torch_with(threads)
    from rbms.bernoulli_bernoulli.classes import BBRBM
    from rbms.partition_function.exact import compute_partition_function

    w, b, c = tensors(torch, *first_hidden(p))
    model = BBRBM(weight_matrix=w.t().contiguous(), vbias=b, hbias=c)
    states = tensors(torch, hidden_states(p))[0]

    def call() -> float:
        return compute_partition_function(model, states)

    return Candidate(call, call, units=2**p.short, note=shortened(p))


@does("ais", "rbms")
def ais_rbms(p: Ais, threads: int) -> Candidate:
    torch, model = rbms_model(p, threads)
    from rbms.partition_function import ais

    if not np.allclose(p.betas, np.linspace(0, 1, len(p.betas))):
        raise Absent("knows no schedule but an even one")

    def run() -> Array:  # compute_partition_function_ais up to its last line, which keeps the mean alone
        steps = ais.interpolate_ebm(
            model.independent_model(), model, steps=torch.linspace(0, 1, len(p.betas))
        )
        chains = model.independent_model().init_chains(num_samples=p.n_runs)
        log_weights, now = torch.zeros(p.n_runs), next(steps)
        for _ in range(len(p.betas) - 1):
            before, now = now.clone(), next(steps)
            log_weights, chains = ais.update_weights_ais(before, now, chains, log_weights)
        return log_weights.numpy()

    def call() -> float:
        return ais.compute_partition_function_ais(p.n_runs, len(p.betas), model)

    return Candidate(call, run, units=len(p.betas) - 1)
