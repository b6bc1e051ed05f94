"""Levels under mixtures of logistics; `gencore.kernels.dense` offers it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.autograd import (
    Tensor,
    defvjp,
    log_softmax,
    log_sum_exp,
    primitive,
    softplus,
)
from gencore.kernels._arrays import empty
from gencore.kernels._contiguous import contiguous
from gencore.kernels._through_tape import through_tape

__all__ = ["logistic_mixture_log_prob"]

Float32Array = NDArray[np.float32]
LevelArray = NDArray[np.uint8]

_LEAST_LOG_SCALE = -7.0


@primitive
def logistic_mixture_log_prob(
    params: Float32Array, x: LevelArray, *, levels: int = 256, n_mixtures: int = 10
) -> Float32Array:
    """Log-probability of each row of levels, each unit under its own discretised mixture of K logistics.

    Level l stands at ``y = 2 l / (levels - 1) - 1``. With ``h = 1 / (levels - 1)`` and F the logistic function,
    ``P(l) = sum_k softmax(logits)_k (F((y + h - mean_k) / s_k) - F((y - h - mean_k) / s_k))``, where the first level's
    bin begins at -inf and the last one's ends at inf: probabilities of levels sum to one.

    Parameters
    ----------
    params : (N, 3 K D) float32
        For each unit K logits of the weights, K means, K logarithms of scales, which count as -7 below it.
    x : (N, D) uint8
        Levels, below `levels`.
    levels : int
        Values of a unit, 2 to 256.
    n_mixtures : int
        K, 1 to 256.

    Returns
    -------
    (N,) float32
        Sums over units, in float64 before they are rounded.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; a level out of range, named with its place.

    Notes
    -----
    The mass of a bin is ``F(upper) F(-lower) (1 - exp(lower - upper))``: no difference of near numbers, at any distance
    from the means and for any scale. An error of a few 1e-7 of ``|y - mean| / s`` remains from y and the means.

    Gradient: to `params`, by a kernel that computes the probabilities again; to second order through Tensor operations.

    Extra memory: none; on a CUDA device 8 N D bytes. There, where nothing is waited for, a level out of range makes NaN
    of its row, and of its unit's gradient.

    Source: Salimans et al. (2017), "PixelCNN++", without their terms across colours.

    Examples
    --------
    >>> flat = np.array([[0, 0, 9]], np.float32)  # one broad logistic: half of it lies on either side
    >>> np.exp(logistic_mixture_log_prob(flat, np.array([[1]], np.uint8), levels=2, n_mixtures=1))
    array([0.5], dtype=float32)
    """
    out: Float32Array = empty(params, np.shape(x)[:1] or (0,), np.float32)
    _core.dense_logistic_mixture_log_prob(params=params, x=x, levels=levels, n_mixtures=n_mixtures, out=out)
    return out


def _rule(
    _needs: tuple[bool, ...],
    g: Any,
    _ans: Any,
    params: Any,
    x: Any,
    *,
    levels: int = 256,
    n_mixtures: int = 10,
) -> tuple[Any, None]:
    if not (isinstance(g, Tensor) or isinstance(params, Tensor)):
        out = empty(params, params.shape, np.float32)
        _core.dense_logistic_mixture_log_prob_vjp(
            grad=contiguous(g), params=params, x=x, levels=levels, n_mixtures=n_mixtures, grad_params=out
        )
        return out, None
    (by_params,) = through_tape((True,), lambda p: (_in_tensors(p, x, levels, n_mixtures),), (g,), (params,))
    return by_params, None


def _in_tensors(params: Any, x: Any, levels: int, n_mixtures: int) -> Any:
    """The same in Tensor operations."""
    parts = params.reshape(*x.shape, 3, n_mixtures)
    half = np.float32(1 / (levels - 1))
    y = (x.astype(np.float32) * (2 * half) - np.float32(1))[..., None]
    inverse = np.exp(-np.maximum(parts[:, :, 2], np.float32(_LEAST_LOG_SCALE)))
    upper, lower = (y + half - parts[:, :, 1]) * inverse, (y - half - parts[:, :, 1]) * inverse
    first, last = (x == 0)[..., None], (x == levels - 1)[..., None]
    inside = np.log(-np.expm1(-2 * half * inverse))
    mass = (
        np.where(first | last, np.float32(0), inside)
        - np.where(last, np.float32(0), softplus(-upper))
        - np.where(first, np.float32(0), softplus(lower))
    )
    return np.sum(log_sum_exp(log_softmax(parts[:, :, 0], axis=-1) + mass, axis=-1), axis=1)


defvjp(logistic_mixture_log_prob, joint=_rule)
