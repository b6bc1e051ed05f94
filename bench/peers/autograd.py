"""Gradients of a chain of small ops: what a tape costs beside the arithmetic."""

import numpy as np

from gencore._bench.measure import Candidate
from gencore._bench.reference import Array
from gencore._bench.registry import does, lacks
from gencore._bench.works.autograd import FACTOR, Chain
from peers.common import tensors, torch_with

for _peer in ("compile", "jax", "numba"):
    lacks("autograd", _peer, "compiles the chain into one function: there is no tape to time")
for _peer in ("onednn", "sklearn", "rbms"):
    lacks("autograd", _peer, "does not differentiate")


@does("autograd", "torch")
def chain_torch(p: Chain, threads: int) -> Candidate:
    torch = torch_with(threads)
    x, b, w = tensors(torch, p.x, p.b, p.w)
    x.requires_grad_(), b.requires_grad_()

    @torch.enable_grad()
    def call() -> tuple[float, Array, Array]:
        y = x
        for _ in range(p.steps):
            y = (y * FACTOR + b).tanh() - w
        value = y.sum()
        dx, db = torch.autograd.grad(value, [x, b])
        return value.item(), np.asarray(dx), np.asarray(db)

    return Candidate(call, call)
