"""Gibbs chains and CD training steps of the peers."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array, logistic
from gencore._bench.registry import does
from gencore._bench.works.rbm_chains import Cd, Gibbs
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

# --- PyTorch ------------------------------------------------------------------------------------------------


def torch_layers(torch: Any, private: bool) -> Callable[..., None]:
    """mean(out, states, weight, bias): weight is (in, out)."""
    if private:
        linear = onednn(torch)

        def mean(out: Any, states: Any, weight: Any, bias: Any) -> None:
            out.copy_(linear(states, weight.t(), bias, "sigmoid"))

    else:

        def mean(out: Any, states: Any, weight: Any, bias: Any) -> None:
            torch.addmm(bias, states, weight, out=out).sigmoid_()

    return mean


def gibbs_torch_with(p: Gibbs, threads: int, private: bool) -> Candidate:
    torch = torch_with(threads)
    mean = torch_layers(torch, private)
    w, b, c = tensors(torch, *p.rbm[:3])
    v = tensors(torch, p.rbm.v)[0]
    h = torch.empty(len(v), len(c))
    means, uniforms = (torch.empty_like(h), torch.empty_like(v)), (torch.empty_like(h), torch.empty_like(v))

    def chain(v: Any, steps: int) -> Any:
        for _ in range(steps):
            mean(means[0], v, w, c)
            torch.lt(uniforms[0].uniform_(), means[0], out=h)  # faster than torch.bernoulli
            mean(means[1], h, w.t(), b)
            torch.lt(uniforms[1].uniform_(), means[1], out=v)
        return v

    held = 4 * sum(x.numel() for x in (h, *means, *uniforms))
    return Candidate(
        lambda: chain(v, p.steps),
        lambda start: chain(torch.from_numpy(start).float(), 1).numpy(),
        units=p.steps,
        workspace=held,
        note=ONEDNN_NOTE if private else "",
    )


@does("gibbs", "torch")
def gibbs_torch(p: Gibbs, threads: int) -> Candidate:
    return gibbs_torch_with(p, threads, private=False)


@does("gibbs", "onednn")
def gibbs_onednn(p: Gibbs, threads: int) -> Candidate:
    return gibbs_torch_with(p, threads, private=True)


@does("gibbs", "compile")
def gibbs_compile(p: Gibbs, threads: int) -> Candidate:
    torch = torch_with(threads)
    w, b, c = tensors(torch, *p.rbm[:3])
    state = [tensors(torch, p.rbm.v)[0]]

    @compiled(torch)
    def step(v, w, b, c):
        h = (torch.rand(v.shape[0], c.shape[0]) < torch.sigmoid(torch.addmm(c, v, w))).float()
        return (torch.rand_like(v) < torch.sigmoid(torch.addmm(b, h, w.t()))).float()

    def call() -> None:
        for _ in range(p.steps):
            state[0] = step(state[0], w, b, c)

    def sample(start: Array) -> Array:
        return step(torch.from_numpy(start).float(), w, b, c).numpy()

    return Candidate(call, sample, units=p.steps)


def cd_candidate(
    p: Cd, torch: Any, step: Callable[..., None], workspace: int = 0, note: str = ""
) -> Candidate:
    """Wrap step(w, b, c), which updates in place."""
    start = tensors(torch, *p.rbm[:3])
    model = [x.clone() for x in start]

    def prepare() -> None:
        for x, x0 in zip(model, start, strict=True):
            x.copy_(x0)

    def sample() -> list[Array]:
        prepare()
        step(*model)
        return [(x - x0).numpy() for x, x0 in zip(model, start, strict=True)]

    return Candidate(lambda: step(*model), sample, prepare=prepare, workspace=workspace, note=note)


def cd_torch_with(p: Cd, threads: int, private: bool) -> Candidate:
    torch = torch_with(threads)
    mean = torch_layers(torch, private)
    linear = onednn(torch)
    (data,) = tensors(torch, p.rbm.v)
    n, n_hidden = len(data), len(p.rbm.c)
    h = torch.empty(n, n_hidden)
    v, field_v, uniform_v = (torch.empty_like(data) for _ in range(3))
    positive, negative, uniform_h = (torch.empty_like(h) for _ in range(3))
    rate = p.lr / n

    def add_product(w: Any, left: Any, right: Any, alpha: float) -> None:
        if private:
            w.add_(linear(left.t(), right.t(), None), alpha=alpha)
        else:
            w.addmm_(left.t(), right, alpha=alpha)

    def step(w: Any, b: Any, c: Any) -> None:
        mean(positive, data, w, c)
        torch.lt(uniform_h.uniform_(), positive, out=h)
        for i in range(p.k):
            if i:
                mean(negative, v, w, c)
                torch.lt(uniform_h.uniform_(), negative, out=h)
            mean(field_v, h, w.t(), b)
            torch.lt(uniform_v.uniform_(), field_v, out=v)
        mean(negative, v, w, c)
        add_product(w, data, positive, rate)
        add_product(w, v, negative, -rate)
        b.add_((data - v).sum(0), alpha=rate)
        c.add_((positive - negative).sum(0), alpha=rate)

    held = 4 * n * (3 * data.shape[1] + 4 * n_hidden)
    return cd_candidate(p, torch, step, held, ONEDNN_NOTE if private else "")


@does("cd", "torch")
def cd_torch(p: Cd, threads: int) -> Candidate:
    return cd_torch_with(p, threads, private=False)


@does("cd", "onednn")
def cd_onednn(p: Cd, threads: int) -> Candidate:
    return cd_torch_with(p, threads, private=True)


@does("cd", "compile")
def cd_compile(p: Cd, threads: int) -> Candidate:
    torch = torch_with(threads)
    data = tensors(torch, p.rbm.v)[0]
    rate = p.lr / len(data)

    @compiled(torch)
    def step(w, b, c):
        positive = torch.sigmoid(torch.addmm(c, data, w))
        mean = positive
        for _ in range(p.k):
            h = (torch.rand_like(mean) < mean).float()
            v = (torch.rand_like(data) < torch.sigmoid(torch.addmm(b, h, w.t()))).float()
            mean = torch.sigmoid(torch.addmm(c, v, w))
        w.add_(data.t() @ positive - v.t() @ mean, alpha=rate)
        b.add_((data - v).sum(0), alpha=rate)
        c.add_((positive - mean).sum(0), alpha=rate)

    return cd_candidate(p, torch, step)


# --- JAX ----------------------------------------------------------------------------------------------------


def jax_draw(jax: Any) -> Callable[..., Any]:
    """Draw 0/1 float32 given the field."""

    def draw(key, field):
        uniform = jax.random.uniform(key, field.shape)  # threefry: faster than rbg on the CPU
        return (uniform * (1 + jax.numpy.exp(-field)) < 1).astype(jax.numpy.float32)

    return draw


@does("gibbs", "jax")
def gibbs_jax(p: Gibbs, threads: int) -> Candidate:
    jax = jax_with(threads)
    draw = jax_draw(jax)
    w, b, c = (jax.numpy.asarray(x) for x in p.rbm[:3])

    @jax.jit
    def chain(v, key, steps):
        def body(_, state):
            v, key = state
            key, key_h, key_v = jax.random.split(key, 3)
            h = draw(key_h, v @ w + c)
            return draw(key_v, h @ w.T + b), key

        return jax.lax.fori_loop(0, steps, body, (v, key))

    state = [jax.numpy.asarray(p.rbm.v, jax.numpy.float32), jax.random.key(0)]

    def call() -> None:
        state[:] = chain(*state, p.steps)
        state[0].block_until_ready()

    def sample(start: Array) -> Array:
        return np.asarray(chain(jax.numpy.asarray(start, jax.numpy.float32), jax.random.key(1), 1)[0])

    return Candidate(call, sample, units=p.steps)


@does("cd", "jax")
def cd_jax(p: Cd, threads: int) -> Candidate:
    from functools import partial

    jax = jax_with(threads)
    jnp = jax.numpy
    draw = jax_draw(jax)
    data = jnp.asarray(p.rbm.v, jnp.float32)

    @partial(jax.jit, donate_argnums=(0, 1, 2, 3))
    def step(w, b, c, key):
        field = data @ w + c
        positive = jax.nn.sigmoid(field)

        def body(_, state):
            v, field, key = state
            key, key_h, key_v = jax.random.split(key, 3)
            v = draw(key_v, draw(key_h, field) @ w.T + b)
            return v, v @ w + c, key

        v, field, key = jax.lax.fori_loop(0, p.k, body, (data, field, key))
        negative = jax.nn.sigmoid(field)
        rate = p.lr / len(data)
        w = w + rate * (data.T @ positive - v.T @ negative)
        return w, b + rate * (data - v).sum(0), c + rate * (positive - negative).sum(0), key

    key = [jax.random.key(0)]
    model: list[Any] = []

    def prepare() -> None:
        model[:] = [jnp.array(x) for x in p.rbm[:3]]

    def call() -> None:
        *model[:], key[0] = step(*model, key[0])
        model[0].block_until_ready()

    def sample() -> list[Array]:
        prepare()
        call()
        return [np.asarray(x) - x0 for x, x0 in zip(model, p.rbm[:3], strict=True)]

    return Candidate(call, sample, prepare=prepare)


# --- numba --------------------------------------------------------------------------------------------------


@does("gibbs", "numba")
def gibbs_numba(p: Gibbs, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    w, b, c = p.rbm[:3]
    w_t = np.ascontiguousarray(w.T)
    v, h = p.rbm.v.copy(), np.zeros((len(p.rbm.v), len(c)), np.uint8)
    seeds = count(1, p.steps)

    def sample(start: Array) -> Array:
        last = start.copy()
        kernels.gibbs_chain(last, last, h, w, w_t, b, c, 1, next(seeds))
        return last

    return Candidate(
        lambda: kernels.gibbs_chain(v, v, h, w, w_t, b, c, p.steps, next(seeds)),
        sample,
        units=p.steps,
        workspace=h.nbytes + w_t.nbytes,
        note=HASH_NOTE,
    )


@does("cd", "numba")
def cd_numba(p: Cd, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    start = p.rbm[:3]
    w, b, c = model = start[0].copy(), start[1].copy(), start[2].copy()
    n = len(p.rbm.v)
    v, h, w_t = p.rbm.v.copy(), np.empty((n, len(c)), np.uint8), np.empty((len(c), len(b)), np.float32)
    both = np.empty(
        (2 * n, len(b)), np.float32
    )  # data over model: one product for fields, one for the gradient
    both[:n] = p.rbm.v
    field = np.empty((2 * n, len(c)), np.float32)
    step = np.empty_like(w)
    seeds = count(1, p.k)
    rate = np.float32(p.lr / n)

    def call() -> None:
        np.copyto(w_t, w.T)
        kernels.gibbs_chain(p.rbm.v, v, h, w, w_t, b, c, p.k, next(seeds))
        both[n:] = v
        np.dot(both, w, out=field)
        kernels.means(field, c)
        np.multiply(field[:n], rate, out=field[:n])
        np.multiply(field[n:], -rate, out=field[n:])
        np.dot(both.T, field, out=step)
        np.add(w, step, out=w)
        b[...] += rate * (both[:n].sum(0) - both[n:].sum(0))
        c[...] += field.sum(0)

    def prepare() -> None:
        for x, x0 in zip(model, start, strict=True):
            x[...] = x0

    def sample() -> list[Array]:
        prepare()
        call()
        return [x - x0 for x, x0 in zip(model, start, strict=True)]

    held = sum(x.nbytes for x in (v, h, w_t, both, field, step))
    note = "products by NumPy's BLAS; " + HASH_NOTE
    # BLAS' threads would spin against numba's.
    return Candidate(call, sample, prepare=prepare, workspace=held, blas_threads=1, note=note)


# --- scikit-learn and rbms ----------------------------------------------------------------------------------


def fitted_sklearn(p: Any, learning_rate: float = 0.1) -> Any:
    """Make a BernoulliRBM with these parameters, in float32 (its partial_fit would go over to float64)."""
    from sklearn.neural_network import BernoulliRBM

    w, b, c, v, _ = p.rbm
    model = BernoulliRBM(
        n_components=len(c), learning_rate=learning_rate, batch_size=len(v), n_iter=1, random_state=0
    )
    model.fit(v[:2].astype(np.float32))
    model.components_ = w.T.copy(order="F")  # the order that its fit makes
    model.intercept_visible_, model.intercept_hidden_ = b.copy(), c.copy()
    model.random_state_ = np.random.RandomState(0)
    return model


@does("gibbs", "sklearn")
def gibbs_sklearn(p: Gibbs, threads: int) -> Candidate:
    model = fitted_sklearn(p)
    state = [p.rbm.v.astype(np.float32)]

    def call() -> None:
        for _ in range(p.steps):
            state[0] = model.gibbs(state[0])

    return Candidate(call, lambda start: model.gibbs(start.astype(np.float32)), units=p.steps)


@does("cd", "sklearn")
def cd_sklearn(p: Cd, threads: int) -> Candidate:
    from gencore._bench.measure import Absent

    if p.k != 1:
        raise Absent("one step of persistent CD is all it has")
    model = fitted_sklearn(p, p.lr)
    v = p.rbm.v.astype(np.float32)
    rng = np.random.RandomState(1)
    w, b, c = p.rbm[:3]

    def prepare() -> None:
        model.components_[...] = w.T
        model.intercept_visible_[...], model.intercept_hidden_[...] = b, c

    def sample() -> list[Array]:
        prepare()
        # Hidden states drawn from the data make its persistent step the CD-1 step of the check.
        model.h_samples_ = (rng.random_sample((len(v), len(c))) < logistic(c + v @ w)).astype(np.float32)
        model._fit(v, rng)
        return [model.components_.T - w, model.intercept_visible_ - b, model.intercept_hidden_ - c]

    return Candidate(
        lambda: model._fit(v, rng), sample, prepare=prepare, note="PCD-1, the same products as CD-1; _fit"
    )


def rbms_model(p: Any, threads: int) -> tuple[Any, Any]:
    """Import torch and make rbms' model with these parameters."""
    torch = torch_with(threads)
    from rbms.bernoulli_bernoulli.classes import BBRBM

    w, b, c = tensors(torch, *p.rbm[:3])
    return torch, BBRBM(weight_matrix=w, vbias=b, hbias=c)


@does("gibbs", "rbms")
def gibbs_rbms(p: Gibbs, threads: int) -> Candidate:
    torch, model = rbms_model(p, threads)

    def chains(v: Array) -> Any:
        return model.init_chains(num_samples=len(v), start_v=tensors(torch, v)[0])

    state = [chains(p.rbm.v)]

    def call() -> None:
        state[0] = model.sample_state(n_steps=p.steps, chains=state[0])

    def sample(start: Array) -> Array:
        return model.sample_state(n_steps=1, chains=chains(start))["visible"].numpy()

    return Candidate(call, sample, units=p.steps)


@does("cd", "rbms")
def cd_rbms(p: Cd, threads: int) -> Candidate:
    torch, model = rbms_model(p, threads)
    data = tensors(torch, p.rbm.v)[0]
    model.init_grad()
    optimizer = torch.optim.SGD(model.parameters(), lr=p.lr, maximize=True)

    # The pieces of its train(), without normalize_grad, which would make it another step.
    def step(w: Any, b: Any, c: Any) -> None:
        optimizer.zero_grad(set_to_none=False)
        batch = model.init_chains(num_samples=len(data), start_v=data)
        chains = model.sample_state(
            n_steps=p.k, chains=model.init_chains(num_samples=len(data), start_v=data)
        )
        model.compute_gradient(data=batch, chains=chains, centered=False)
        optimizer.step()

    start = tensors(torch, *p.rbm[:3])

    def prepare() -> None:
        for x, x0 in zip(model.parameters(), start, strict=True):
            x.copy_(x0)

    def sample() -> list[Array]:
        prepare()
        step(*model.parameters())
        return [(x - x0).numpy() for x, x0 in zip(model.parameters(), start, strict=True)]

    return Candidate(
        lambda: step(*model.parameters()), sample, prepare=prepare, note="without its gradient normalisation"
    )
