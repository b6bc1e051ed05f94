"""LSTMs."""

from __future__ import annotations

from typing import Any

import gencore as gc
from gencore.kernels import recurrent

from ..measure import Candidate
from ..reference import Array
from ..registry import does
from ..works.recurrent import Diagonal, Lstm


@does("lstm", "gencore")
def lstm(p: Lstm, threads: int) -> Candidate:
    leaves: Any = [gc.tensor(a, requires_grad=True) for a in p[:4]]

    def call() -> list[Array]:
        for leaf in leaves:
            leaf.grad = None
        h: Any = recurrent.lstm(*leaves)[0]
        h.backward(p.grad)
        return [h.numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    return Candidate(call, call, note="through the tape")


@does("diagonal_bilstm", "gencore")
def diagonal_bilstm(p: Diagonal, threads: int) -> Candidate:
    leaves: Any = [gc.tensor(a, requires_grad=True) for a in p[:4]]

    def call() -> list[Array]:
        for leaf in leaves:
            leaf.grad = None
        h: Any = recurrent.diagonal_bilstm(*leaves)
        h.backward(p.grad)
        return [h.numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    return Candidate(call, call, note="through the tape")
