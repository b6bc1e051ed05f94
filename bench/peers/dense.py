"""Matrix products of the peers."""

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.registry import does, lacks
from gencore._bench.works import Gemm
from peers.common import ONEDNN_NOTE, jax_with, onednn, tensors, torch_with

lacks("gemm", "compile", "compiles to the same call as eager")
lacks("gemm", "numba", "its np.dot calls SciPy's OpenBLAS")


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
