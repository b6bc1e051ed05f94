"""Gradients of fused kernels by the tape: what their own backward kernels cannot give, derivatives of derivatives."""

from typing import Any

from gencore.autograd import Tensor, enable_grad, grad, tensor
from gencore.kernels._contiguous import contiguous

__all__ = ["through_tape"]


def through_tape(
    needs: tuple[bool, ...],
    function: Any,
    grads: tuple[Any, ...],
    arguments: tuple[Any, ...],
    *,
    create_graph: bool = True,
) -> tuple[Any, ...]:
    """The gradients of a function of Tensors, themselves recorded with `create_graph`.

    They are partial: arguments may depend on each other, so each goes in by an identity at which its own begins.
    """
    with enable_grad():
        leaves = [
            None if a is None else contiguous(a) if isinstance(a, Tensor) else tensor(a, requires_grad=True)
            for a in arguments
        ]
        results = function(*leaves)
        given = [(y, g) for y, g in zip(results, grads, strict=True) if g is not None]
        wanted = [a for a, need in zip(leaves, needs, strict=True) if need and a is not None]
        found = iter(
            grad(
                [y for y, _ in given],
                wanted,
                [g for _, g in given],
                create_graph=create_graph,
                allow_unused=True,
            )
        )
    return tuple(
        next(found) if need and a is not None else None for a, need in zip(leaves, needs, strict=True)
    )
