"""Draws at a temperature, with their gradients; users find them in `kernels.sample`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.autograd import defvjp, primitive
from gencore.kernels._arrays import as_matrix, contiguous, empty
from gencore.kernels._contiguous import in_order
from gencore.random import KeyLike, as_key

__all__ = ["gumbel_softmax", "gumbel_softmax_vjp", "relaxed_bernoulli", "relaxed_bernoulli_vjp"]

Float32Array = NDArray[np.float32]


def gumbel_softmax(
    logits: Float32Array, tau: float, key: KeyLike, hard: bool = False, *, step: int = 0, first_row: int = 0
) -> Float32Array:
    """Differentiable draws of categories: ``softmax((logits + G) / tau)`` with Gumbel noise ``G = -log(-log u)``.

    Parameters
    ----------
    logits : (..., K) float32
        Log-probabilities of K categories up to a constant for each row. -inf is probability 0.
    tau : float
        Temperature, above 0. Towards 0 draws become one-hot: exact draws of ``softmax(logits)``, but gradients grow.
    key : Key, int or Generator
        Random numbers.
    hard : bool
        Return the one-hot of the largest (the first of equals), with the gradient of the soft draw (straight-through).
    step, first_row : int
        Coordinates of the random numbers.

    Returns
    -------
    float32 of the shape of `logits`
        Rows sum to 1.

    Notes
    -----
    Random numbers: element ``e = (first_row + row) K + k`` has word ``e mod 2^30`` of row ``e / 2^30`` of its stream.
    So rows may be drawn in parts, but another K gives other numbers. u is from 2^-24 to 1 - 2^-24: G is finite, from
    -2.9 to 16.7, and so is the result for finite logits, however small tau. A row with NaN or inf, or of -inf only, is
    NaN.

    Relative error: ``(2 |x| + 12) 2^-24 / tau`` for the largest ``x = |logits + G|`` of the row, and 2e-6.

    Gradient: to `logits`, ``y (g - sum_k g y) / tau`` by `gumbel_softmax_vjp`; kept for it is the result, or `logits`
    where hard, whose soft draw is made again. None to `tau`. Second derivatives exist. Extra memory: 5 KB a thread.

    Raises
    ------
    ValueError, TypeError
        `tau` not positive and finite; wrong shape, dtype or memory order; a coordinate out of range.

    Sources: Jang, Gu & Poole (2017), "Categorical reparameterization with Gumbel-softmax"; Maddison, Mnih & Teh (2017),
    "The concrete distribution".
    """
    draw = _hard_gumbel_softmax if hard else _gumbel_softmax
    result: Float32Array = draw(in_order(logits), tau=tau, key=as_key(key), step=step, first_row=first_row)
    return result


def relaxed_bernoulli(
    logits: Float32Array, tau: float, key: KeyLike, hard: bool = False, *, step: int = 0, first_row: int = 0
) -> Float32Array:
    """Differentiable draws of bits: ``logistic((logits + L) / tau)`` with logistic noise ``L = log(u / (1 - u))``.

    Parameters
    ----------
    logits : (..., D) float32
        Log-odds of 1.
    tau : float
        Temperature, above 0.
    key : Key, int or Generator
        Random numbers.
    hard : bool
        Return 1 where ``logits + L > 0``, else 0, with the gradient of the soft draw (straight-through).
    step, first_row : int
        Coordinates of the random numbers.

    Returns
    -------
    float32 of the shape of `logits`
        In [0, 1].

    Notes
    -----
    L is finite, within 16.7 of 0. NaN stays where it is. Gradient: to `logits`, ``g y (1 - y) / tau``; otherwise as in
    `gumbel_softmax`. Extra memory: 3 KB a thread.

    Raises
    ------
    ValueError, TypeError
        As in `gumbel_softmax`.

    Source: Maddison, Mnih & Teh (2017), "The concrete distribution".
    """
    draw = _hard_relaxed_bernoulli if hard else _relaxed_bernoulli
    result: Float32Array = draw(in_order(logits), tau=tau, key=as_key(key), step=step, first_row=first_row)
    return result


def _draw(op: str, logits: Any, **options: Any) -> Any:
    y = empty(logits, np.shape(logits), np.float32)
    function = getattr(_core, op.replace(".", "_"))
    function(logits=as_matrix(op, "logits", logits), y=as_matrix(op, "y", y), **options)
    return y


def _draw_vjp(op: str, grad: Any, **arguments: Any) -> Any:
    """Gradients of sums come broadcast, so that of the result is made contiguous."""
    grad = contiguous(grad)
    out = empty(grad, np.shape(grad), np.float32)
    for name in ("y", "logits"):
        if name in arguments:
            arguments[name] = as_matrix(op, name, arguments[name])
    function = getattr(_core, op.replace(".", "_"))
    function(grad=as_matrix(op, "grad", grad), grad_logits=as_matrix(op, "grad_logits", out), **arguments)
    return out


# --- Gumbel-softmax -----------------------------------------------------------------------------------------


@primitive
def _gumbel_softmax(logits: Any, *, tau: float, **at: int) -> Any:
    return _draw("sample.gumbel_softmax", logits, tau=tau, **at)


@primitive
def _hard_gumbel_softmax(logits: Any, *, tau: float, **at: int) -> Any:
    return _draw("sample.gumbel_softmax", logits, hard=True, tau=tau, **at)


@primitive
def gumbel_softmax_vjp(grad: Float32Array, y: Float32Array, *, tau: float) -> Float32Array:
    """Gradient of `gumbel_softmax` to its logits from the soft draw y: ``y (grad - sum_k grad y) / tau``.

    Parameters
    ----------
    grad, y : (..., K) float32
        Gradient of the result, and the soft result.
    tau : float
        Temperature.

    Returns
    -------
    float32 of the shape of `grad`
    """
    result: Float32Array = _draw_vjp("sample.gumbel_softmax_vjp", grad, y=y, tau=tau)
    return result


@primitive
def _hard_gumbel_softmax_vjp(grad: Any, logits: Any, **options: Any) -> Any:
    return _draw_vjp("sample.gumbel_softmax_vjp", grad, logits=logits, **options)


def _softmax_vjp_by_y(u: Any, grad: Any, y: Any, tau: float) -> Any:
    """Gradient of ``sum u softmax_vjp(grad, y)`` to y."""
    by_grad, by_u = np.sum(grad * y, axis=-1, keepdims=True), np.sum(u * y, axis=-1, keepdims=True)
    return (u * grad - u * by_grad - grad * by_u) / tau


def _hard_softmax_vjp_by_logits(u: Any, _ans: Any, grad: Any, logits: Any, *, tau: float, **at: Any) -> Any:
    y = _gumbel_softmax(logits, tau=tau, **at)
    return gumbel_softmax_vjp(_softmax_vjp_by_y(u, grad, y, tau), y, tau=tau)


# The Jacobian is symmetric: the gradient of a vjp to its first argument is the vjp of what comes back.
defvjp(_gumbel_softmax, lambda g, ans, _logits, *, tau, **_at: gumbel_softmax_vjp(g, ans, tau=tau))
defvjp(
    _hard_gumbel_softmax, lambda g, _ans, logits, **options: _hard_gumbel_softmax_vjp(g, logits, **options)
)
defvjp(
    gumbel_softmax_vjp,
    lambda u, _ans, _grad, y, *, tau: gumbel_softmax_vjp(u, y, tau=tau),
    lambda u, _ans, grad, y, *, tau: _softmax_vjp_by_y(u, grad, y, tau),
)
defvjp(
    _hard_gumbel_softmax_vjp,
    lambda u, _ans, _grad, logits, **options: _hard_gumbel_softmax_vjp(u, logits, **options),
    _hard_softmax_vjp_by_logits,
)


# --- relaxed Bernoulli --------------------------------------------------------------------------------------


@primitive
def _relaxed_bernoulli(logits: Any, *, tau: float, **at: int) -> Any:
    return _draw("sample.relaxed_bernoulli", logits, tau=tau, **at)


@primitive
def _hard_relaxed_bernoulli(logits: Any, *, tau: float, **at: int) -> Any:
    return _draw("sample.relaxed_bernoulli", logits, hard=True, tau=tau, **at)


@primitive
def relaxed_bernoulli_vjp(grad: Float32Array, y: Float32Array, *, tau: float) -> Float32Array:
    """Gradient of `relaxed_bernoulli` to its logits from the soft draw y: ``grad y (1 - y) / tau``.

    Parameters
    ----------
    grad, y : (..., D) float32
        Gradient of the result, and the soft result.
    tau : float
        Temperature.

    Returns
    -------
    float32 of the shape of `grad`
    """
    result: Float32Array = _draw_vjp("sample.relaxed_bernoulli_vjp", grad, y=y, tau=tau)
    return result


@primitive
def _hard_relaxed_bernoulli_vjp(grad: Any, logits: Any, **options: Any) -> Any:
    return _draw_vjp("sample.relaxed_bernoulli_vjp", grad, logits=logits, **options)


def _hard_bernoulli_vjp_by_logits(u: Any, _ans: Any, grad: Any, logits: Any, *, tau: float, **at: Any) -> Any:
    y = _relaxed_bernoulli(logits, tau=tau, **at)
    return relaxed_bernoulli_vjp(u * grad * (1 - 2 * y) / tau, y, tau=tau)


defvjp(_relaxed_bernoulli, lambda g, ans, _logits, *, tau, **_at: relaxed_bernoulli_vjp(g, ans, tau=tau))
defvjp(
    _hard_relaxed_bernoulli,
    lambda g, _ans, logits, **options: _hard_relaxed_bernoulli_vjp(g, logits, **options),
)
defvjp(
    relaxed_bernoulli_vjp,
    lambda u, _ans, _grad, y, *, tau: relaxed_bernoulli_vjp(u, y, tau=tau),
    lambda u, _ans, grad, y, *, tau: u * grad * (1 - 2 * y) / tau,
)
defvjp(
    _hard_relaxed_bernoulli_vjp,
    lambda u, _ans, _grad, logits, **options: _hard_relaxed_bernoulli_vjp(u, logits, **options),
    _hard_bernoulli_vjp_by_logits,
)
