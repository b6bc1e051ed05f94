"""NADE of the peers: each library's own differentiation where it has one, and samples dimension after dimension."""

from itertools import count

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.nade import Nade
from peers.common import HASH_NOTE, compiled, jax_with, numba_kernels, tensors, torch_with

lacks("nade", "onednn", "torch's private op has no gradient")
lacks("nade_sample", "onednn", "has no random numbers")
lacks("nade_sample", "compile", "a loop of 784 steps takes minutes to compile")


# --- gradients ----------------------------------------------------------------------------------------------


def by_cumsum(torch, x, w, c, v, b):
    """All dimensions at once: arrays (rows, D, H)."""
    steps = x[:, :, None] * w
    a = c + torch.cumsum(steps, 1) - steps
    return b + (torch.sigmoid(a) * v).sum(2)


def nade_by_torch(p: Nade, threads: int, compiling: bool) -> Candidate:
    torch = torch_with(threads)
    functional = torch.nn.functional
    (x,) = tensors(torch, p.x)
    params = [t.requires_grad_() for t in tensors(torch, *p.params)]
    columns = list(x.T.contiguous())
    block = 4 if compiling else len(x)  # rows at a time: arrays of 6 MB

    def by_loop(_x, w, c, v, b):
        """Dimension after dimension: half the time of cumsum, in any blocks of rows."""
        a, logits = c.expand(len(x), -1), []
        for column, by, of in zip(columns, w.unbind(), v.unbind(), strict=True):
            logits.append(torch.mv(torch.sigmoid(a), of))
            a = torch.addr(a, column, by)
        return torch.stack(logits, 1) + b

    def forward(x, *params):
        logits = by_cumsum(torch, x, *params) if compiling else by_loop(x, *params)
        return -functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)

    run = compiled(torch)(forward) if compiling else forward

    @torch.enable_grad()
    def call() -> tuple[Array, list[Array]]:
        for t in params:
            t.grad = None
        found = []
        for rows in x.split(block):
            log_prob = run(rows, *params)
            (log_prob.sum() / len(x)).backward()
            found.append(log_prob.detach())
        return torch.cat(found).numpy(), [t.grad.numpy() for t in params]

    return Candidate(call, call)


@does("nade", "torch")
def nade_torch(p: Nade, threads: int) -> Candidate:
    return nade_by_torch(p, threads, False)


@does("nade", "compile")
def nade_compile(p: Nade, threads: int) -> Candidate:
    return nade_by_torch(p, threads, True)


@does("nade", "jax")
def nade_jax(p: Nade, threads: int) -> Candidate:
    jax = jax_with(threads)
    numpy = jax.numpy
    columns = numpy.asarray(p.x.T, numpy.float32)
    params = [numpy.asarray(a) for a in p.params]

    def loss(params, columns):
        w, c, v, b = params

        def step(a, at):
            x, w, v, b = at
            logit = jax.nn.sigmoid(a) @ v + b
            term = x * logit - (numpy.maximum(logit, 0) + numpy.log1p(numpy.exp(-abs(logit))))
            return a + x[:, None] * w, term

        start = numpy.broadcast_to(c, (columns.shape[1], len(c)))
        log_prob = jax.lax.scan(step, start, (columns, w, v, b))[1].sum(0)
        return log_prob.mean(), log_prob

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def call() -> object:
        return jax.block_until_ready(run(params, columns))

    def sample() -> tuple[Array, list[Array]]:
        (_, log_prob), by = call()
        return np.asarray(log_prob), [np.asarray(g) for g in by]

    return Candidate(call, sample)


@does("nade", "numba")
def nade_numba(p: Nade, threads: int) -> Candidate:
    numba_kernels(threads)
    from peers import numba_nade

    n, dims = p.x.shape
    hidden, parts = len(p.params.c), threads
    run = np.empty((parts, dims + 1, hidden), np.float32)
    a, dh, da = (np.empty((parts, hidden), np.float32) for _ in range(3))
    slope = np.empty((parts, dims), np.float32)
    by = [np.empty((parts, *shape.shape), np.float32) for shape in p.params]
    log_prob, weight = np.empty(n, np.float32), np.float32(1 / n)
    summed = [np.empty_like(g) for g in (p.params.w, p.params.v)]

    def call() -> tuple[Array, list[Array]]:
        numba_nade.gradient(p.x, *p.params, weight, log_prob, run, a, dh, da, slope, *by)
        if parts == 1:
            return log_prob, [g[0] for g in by]
        numba_nade.sum_parts(by[0], summed[0])
        numba_nade.sum_parts(by[2], summed[1])
        return log_prob, [summed[0], by[1].sum(0), summed[1], by[3].sum(0)]

    held = run.nbytes + sum(g.nbytes for g in by) + (parts > 1) * sum(g.nbytes for g in summed)
    return Candidate(call, call, workspace=held)


# --- samples ------------------------------------------------------------------------------------------------


@does("nade_sample", "torch")
def nade_sample_torch(p: Nade, threads: int) -> Candidate:
    torch = torch_with(threads)
    w, c, v, _ = tensors(torch, *p.params)
    n, dims = p.x.shape
    rows, columns, biases = list(w), list(v), p.params.b.tolist()

    def call() -> Array:
        a, uniform = c.repeat(n, 1), torch.rand(dims, n)
        out = torch.empty(dims, n)
        for d in range(dims):
            p_one = torch.mv(torch.sigmoid(a), columns[d]).add_(biases[d]).sigmoid_()
            torch.lt(uniform[d], p_one, out=out[d])
            a.addr_(out[d], rows[d])
        return out.numpy().T

    return Candidate(call, call)


@does("nade_sample", "jax")
def nade_sample_jax(p: Nade, threads: int) -> Candidate:
    jax = jax_with(threads)
    numpy = jax.numpy
    params = [numpy.asarray(a) for a in p.params]
    n = len(p.x)

    @jax.jit
    def draw(key, w, c, v, b):
        key, now = jax.random.split(key)
        uniform = jax.random.uniform(now, (len(b), n))

        def step(a, at):
            u, w, v, b = at
            x = (u < jax.nn.sigmoid(jax.nn.sigmoid(a) @ v + b)).astype(numpy.float32)
            return a + x[:, None] * w, x

        return key, jax.lax.scan(step, numpy.broadcast_to(c, (n, len(c))), (uniform, w, v, b))[1]

    state = [jax.random.key(0)]

    def call() -> object:
        state[0], found = draw(state[0], *params)
        return found.block_until_ready()

    return Candidate(call, lambda: np.asarray(call()).T)


@does("nade_sample", "numba")
def nade_sample_numba(p: Nade, threads: int) -> Candidate:
    numba_kernels(threads)
    from peers import numba_nade

    out = np.empty_like(p.x)
    a, h = (np.empty((len(p.x), len(p.params.c)), np.float32) for _ in "ah")
    seeds = count(1)

    def call() -> Array:
        numba_nade.sample(*p.params, a, h, out, next(seeds))
        return out

    return Candidate(call, lambda: call().copy(), workspace=a.nbytes + h.nbytes, note=HASH_NOTE)
