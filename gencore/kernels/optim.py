"""Fused parameter updates, in place."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import _core

__all__ = ["sgd"]

Float32Array = NDArray[np.float32]


def sgd(
    param: Float32Array,
    grad: Float32Array,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    velocity: Float32Array | None = None,
) -> None:
    """One step of stochastic gradient ascent with momentum, in place and in one pass.

    ``velocity <- momentum velocity + lr (grad - weight_decay param)``, then ``param <- param + velocity``. The
    gradient points uphill: it is that of a log-likelihood. (To descend, give a negative `lr` and negative
    `weight_decay`.)

    Parameters
    ----------
    param : float32 array
        Parameters of any shape. Updated.
    grad : float32 array of the same shape
        Gradient.
    lr : float
        Learning rate.
    momentum : float
        What is kept of the last step.
    weight_decay : float
        Strength of the pull towards 0: the gradient of ``-weight_decay / 2 |param|^2`` is added.
    velocity : float32 array of the same shape, optional
        The last step, at first zeros. Updated. Needed where `momentum` is not 0.

    Raises
    ------
    ValueError, TypeError
        Shapes that differ; wrong dtype or memory order; a read-only array; a number that is not finite; momentum
        without velocity.

    Notes
    -----
    The same bits for any number of threads. A NaN in `grad` makes NaN of its parameter and no other.

    Source: Rumelhart, Hinton & Williams (1986), "Learning representations by back-propagating errors".
    """
    for name, array in (("grad", grad), ("velocity", velocity)):
        if array is not None and np.shape(array) != np.shape(param):
            raise ValueError(
                f"optim.sgd: expected {name} of shape {np.shape(param)}, the shape of param, "
                f"received {np.shape(array)}"
            )
    _core.optim_sgd(
        param=_as_vector("param", param), grad=_as_vector("grad", grad),
        velocity=None if velocity is None else _as_vector("velocity", velocity),
        lr=lr, momentum=momentum, weight_decay=weight_decay,
    )  # fmt: skip


def _as_vector(name: str, array: Any) -> Any:
    """All elements in a row, sharing the memory. What the kernel would refuse is left for it to say."""
    if not isinstance(array, np.ndarray) or array.ndim == 1:
        return array
    if not array.flags.c_contiguous:
        raise TypeError(
            f"optim.sgd: expected {name} to be contiguous in C order (cure: numpy.ascontiguousarray), "
            "received a strided array"
        )
    return array.reshape(-1)
