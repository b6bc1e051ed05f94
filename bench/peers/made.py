"""MADE of the peers: dense products with weights that are 0 where masked, whose gradients are masked; samples by loops.

Weights that start at 0 where they are masked stay there if their gradients do: this saves a user the products with the
masks on the way forth and back (measured: the gradient of ``w * mask`` costs torch one pass more over the weights).
"""

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.made import Made
from peers.common import compiled, jax_with, tensors, torch_with

lacks("made", "onednn", "torch's private op has no gradient")
lacks("made_sample", "onednn", "has no random numbers")
lacks("made_sample", "compile", "a loop of 784 steps takes minutes to compile")


# --- gradients ----------------------------------------------------------------------------------------------


def made_by_torch(p: Made, threads: int, compiling: bool) -> Candidate:
    torch = torch_with(threads)
    functional = torch.nn.functional
    (x,) = tensors(torch, p.x)
    params = [t.requires_grad_() for t in tensors(torch, *p.params)]
    masks = tensors(torch, *p.masks)

    def forward(x, w, c, v, b):
        logits = torch.addmm(b, torch.relu(torch.addmm(c, x, w)), v)
        return -functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)

    run = compiled(torch)(forward) if compiling else forward

    @torch.enable_grad()
    def call() -> tuple[Array, list[Array]]:
        for t in params:
            t.grad = None
        log_prob = run(x, *params)
        log_prob.mean().backward()
        params[0].grad.mul_(masks[0])
        params[2].grad.mul_(masks[1])
        return log_prob.detach().numpy(), [t.grad.numpy() for t in params]

    return Candidate(call, call)


@does("made", "torch")
def made_torch(p: Made, threads: int) -> Candidate:
    return made_by_torch(p, threads, False)


@does("made", "compile")
def made_compile(p: Made, threads: int) -> Candidate:
    return made_by_torch(p, threads, True)


@does("made", "jax")
def made_jax(p: Made, threads: int) -> Candidate:
    jax = jax_with(threads)
    numpy = jax.numpy
    x = numpy.asarray(p.x, numpy.float32)
    params = [numpy.asarray(a) for a in p.params]
    masks = [numpy.asarray(mask, numpy.float32) for mask in p.masks]

    def loss(params, x):
        w, c, v, b = params
        z = jax.nn.relu(x @ w + c) @ v + b
        log_prob = (x * z - (numpy.maximum(z, 0) + numpy.log1p(numpy.exp(-abs(z))))).sum(1)
        return log_prob.mean(), log_prob

    @jax.jit
    def run(params, x, masks):
        (_, log_prob), (by_w, by_c, by_v, by_b) = jax.value_and_grad(loss, has_aux=True)(params, x)
        return log_prob, [by_w * masks[0], by_c, by_v * masks[1], by_b]

    def call() -> object:
        return jax.block_until_ready(run(params, x, masks))

    def sample() -> tuple[Array, list[Array]]:
        log_prob, by = call()
        return np.asarray(log_prob), [np.asarray(g) for g in by]

    return Candidate(call, sample)


# --- samples ------------------------------------------------------------------------------------------------


@does("made_sample", "torch")
def made_sample_torch(p: Made, threads: int) -> Candidate:
    torch = torch_with(threads)
    w, c, v = tensors(torch, *p.params[:3])
    n, dims = p.x.shape
    rows, columns, biases = list(w), list(v.T.contiguous()), p.params.b.tolist()

    def call() -> Array:
        a, uniform = c.repeat(n, 1), torch.rand(dims, n)
        out = torch.empty(dims, n)
        for d in range(dims):
            p_one = torch.mv(torch.relu(a), columns[d]).add_(biases[d]).sigmoid_()
            torch.lt(uniform[d], p_one, out=out[d])
            a.addr_(out[d], rows[d])
        return out.numpy().T

    return Candidate(call, call)


@does("made_sample", "jax")
def made_sample_jax(p: Made, threads: int) -> Candidate:
    jax = jax_with(threads)
    numpy = jax.numpy
    w, c, v, b = (numpy.asarray(a) for a in p.params)
    n = len(p.x)

    @jax.jit
    def draw(key, w, c, v, b):
        key, now = jax.random.split(key)
        uniform = jax.random.uniform(now, (len(b), n))

        def step(a, at):
            u, w, v, b = at
            x = (u < jax.nn.sigmoid(jax.nn.relu(a) @ v + b)).astype(numpy.float32)
            return a + x[:, None] * w, x

        return key, jax.lax.scan(step, numpy.broadcast_to(c, (n, len(c))), (uniform, w, v.T, b))[1]

    state = [jax.random.key(0)]

    def call() -> object:
        state[0], found = draw(state[0], w, c, v, b)
        return found.block_until_ready()

    return Candidate(call, lambda: np.asarray(call()).T)
