"""Gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from gencore.autograd import Tensor, tensor
from gencore.kernels import optim as kernels
from gencore.optim._checks import in_place, listed

__all__ = ["clip_grad_norm", "clip_grad_value"]


def clip_grad_norm(
    params: Tensor | Iterable[Tensor], max_norm: float, *, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients by ``min(1, max_norm / (norm + 1e-6))``, in place, as `torch.nn.utils.clip_grad_norm_`.

    Parameters
    ----------
    params : Tensor or iterable of Tensors
        Those without a gradient are left out.
    max_norm : float
        What the Euclidean norm of all gradients together may be.
    error_if_nonfinite : bool
        Raise where the norm is infinite or NaN, before any gradient is changed; otherwise they become 0 or NaN.

    Returns
    -------
    float
        The norm before, summed in float64 to the same bits for any number of threads. It is on the host: gradients on
        a device are waited for.

    Raises
    ------
    ValueError
        A `max_norm` below 0 or NaN.
    FloatingPointError
        A norm that is not finite, if asked for.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: expected max_norm to be at least 0, received {max_norm}")
    grads = _own_grads(params)
    norm = math.sqrt(float(kernels.square_sum([grad._data for grad in grads])))
    if error_if_nonfinite and not math.isfinite(norm):
        raise FloatingPointError(f"clip_grad_norm: expected gradients of a finite norm, received {norm}")
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:  # also where it is NaN
        kernels.scale([grad._data for grad in grads], factor)
        for grad in grads:
            grad._bump()
    return norm


def clip_grad_value(params: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring all elements of all gradients into ``[-clip_value, clip_value]``, in place; NaN stays.

    Parameters
    ----------
    params : Tensor or iterable of Tensors
        Those without a gradient are left out.
    clip_value : float
        Largest magnitude.

    Raises
    ------
    ValueError
        A `clip_value` below 0 or NaN.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value: expected clip_value to be at least 0, received {clip_value}")
    for grad in _own_grads(params):
        np.clip(grad._data, -clip_value, clip_value, out=grad._data)
        grad._bump()


def _own_grads(params: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """The gradients there are, each once, in memory that may be written by a kernel."""
    found: dict[int, Tensor] = {}
    for p in listed(params):
        grad = p.grad
        if grad is None:
            continue
        if not in_place(grad._data):
            grad = p.grad = tensor(grad)
        found[id(grad)] = grad
    return list(found.values())
