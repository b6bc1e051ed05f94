"""Matrix products, layers and losses of the peers."""

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.dense import Entropy, Gemm, Layer
from peers.common import ONEDNN_NOTE, compiled, jax_with, numba_kernels, onednn, tensors, torch_with

lacks("gemm", "compile", "compiles to the same call as eager")
lacks("gemm", "numba", "its np.dot calls SciPy's OpenBLAS")
lacks("linear_vjp", "numba", "its np.dot calls SciPy's OpenBLAS")


@does("gemm", "torch")
def gemm_torch(p: Gemm, threads: int) -> Candidate:
    torch = torch_with(threads)
    a, b = tensors(torch, p.a, p.b)
    out = torch.empty(a.shape[0], b.shape[1])
    return Candidate(lambda: torch.mm(a, b, out=out), lambda: torch.mm(a, b, out=out).numpy())


@does("gemm", "onednn")
def gemm_onednn(p: Gemm, threads: int) -> Candidate:
    torch = torch_with(threads)
    linear = onednn(torch)
    a, b = tensors(torch, p.a, p.b.T)
    return Candidate(lambda: linear(a, b, None), lambda: linear(a, b, None).numpy(), note=ONEDNN_NOTE)


@does("gemm", "jax")
def gemm_jax(p: Gemm, threads: int) -> Candidate:
    jax = jax_with(threads)
    a, b = jax.numpy.asarray(p.a), jax.numpy.asarray(p.b)
    product = jax.jit(lambda a, b: a @ b)
    return Candidate(lambda: product(a, b).block_until_ready(), lambda: np.asarray(product(a, b)))


# --- backward of a layer ------------------------------------------------------------------------------------


def layer_torch_with(p: Layer, threads: int, wrap: str) -> Candidate:
    torch = torch_with(threads)
    x, w, y, grad = tensors(torch, *p)

    def gradients(x, w, y, grad):
        dz = torch.ops.aten.tanh_backward(grad, y)
        return dz @ w.t(), x.t() @ dz, dz.sum(0)

    step = compiled(torch)(gradients) if wrap == "compile" else gradients
    return Candidate(lambda: step(x, w, y, grad), lambda: [a.numpy() for a in step(x, w, y, grad)])


@does("linear_vjp", "torch")
def layer_torch(p: Layer, threads: int) -> Candidate:
    return layer_torch_with(p, threads, "eager")


@does("linear_vjp", "compile")
def layer_compile(p: Layer, threads: int) -> Candidate:
    return layer_torch_with(p, threads, "compile")


@does("linear_vjp", "onednn")
def layer_onednn(p: Layer, threads: int) -> Candidate:
    torch = torch_with(threads)
    linear = onednn(torch)
    x, w, y, grad = tensors(torch, *p)

    def call():
        dz = torch.ops.aten.tanh_backward(grad, y)
        return linear(dz, w, None), linear(x.t(), dz.t(), None), dz.sum(0)

    return Candidate(call, lambda: [a.numpy() for a in call()], note=ONEDNN_NOTE)


@does("linear_vjp", "jax")
def layer_jax(p: Layer, threads: int) -> Candidate:
    jax = jax_with(threads)
    arrays = [jax.numpy.asarray(a) for a in p]

    @jax.jit
    def gradients(x, w, y, grad):
        dz = grad * (1 - y * y)
        return dz @ w.T, x.T @ dz, dz.sum(0)

    return Candidate(
        lambda: jax.block_until_ready(gradients(*arrays)), lambda: [np.asarray(a) for a in gradients(*arrays)]
    )


# --- Bernoulli loss -----------------------------------------------------------------------------------------

lacks("bce", "onednn", "has no losses")
TARGETS_NOTE = "targets already float32"


def bce_torch_with(p: Entropy, threads: int, wrap: str) -> Candidate:
    torch = torch_with(threads)
    x, t, grad = tensors(torch, *p)

    def both(x, t, grad):  # by hand, since autograd takes longer
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")
        return -loss.sum(1), (t - torch.sigmoid(x)) * grad[:, None]

    step = compiled(torch)(both) if wrap == "compile" else both
    return Candidate(
        lambda: step(x, t, grad), lambda: [a.numpy() for a in step(x, t, grad)], note=TARGETS_NOTE
    )


@does("bce", "torch")
def bce_torch(p: Entropy, threads: int) -> Candidate:
    return bce_torch_with(p, threads, "eager")


@does("bce", "compile")
def bce_compile(p: Entropy, threads: int) -> Candidate:
    return bce_torch_with(p, threads, "compile")


@does("bce", "jax")
def bce_jax(p: Entropy, threads: int) -> Candidate:
    jax = jax_with(threads)
    x, t, grad = (jax.numpy.asarray(a, jax.numpy.float32) for a in p)

    @jax.jit
    def both(x, t, grad):
        value = (t * x - jax.nn.softplus(x)).sum(1)
        return value, (t - jax.nn.sigmoid(x)) * grad[:, None]

    return Candidate(
        lambda: jax.block_until_ready(both(x, t, grad)),
        lambda: [np.asarray(a) for a in both(x, t, grad)],
        note=TARGETS_NOTE,
    )


@does("bce", "numba")
def bce_numba(p: Entropy, threads: int) -> Candidate:
    kernels = numba_kernels(threads)
    value, slope = np.empty(len(p.logits), np.float32), np.empty_like(p.logits)

    def call() -> tuple[Array, Array]:
        kernels.bernoulli_loss(*p, value, slope)
        return value, slope

    return Candidate(call, call)
