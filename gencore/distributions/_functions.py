"""Special functions that NumPy lacks, and products that are 0 where one factor is, as primitives.

An outcome of weight 0 adds nothing, however improbable it is: ``0 log 0 = 0``, and no gradient comes from it.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from gencore.autograd import defvjp, primitive
from gencore.autograd.functions import where
from gencore.autograd.tensors import plain

__all__ = ["digamma", "log_gamma", "ndtr", "ndtri", "spread", "weighted", "xlog1py", "xlogy"]

_quiet = {"divide": "ignore", "invalid": "ignore"}


# --- shapes -------------------------------------------------------------------------------------------------


def _spread_array(x: Any, shape: tuple[int, ...]) -> Any:
    return np.asarray(np.broadcast_to(x, shape), order="C")


spread = primitive(_spread_array, view=True)
"""An array broadcast to a shape, contiguous, as kernels take it."""
defvjp(spread, lambda g, _ans, _x, _shape: g)


# --- products with logarithms -------------------------------------------------------------------------------


@primitive
def weighted(w: Any, x: Any) -> Any:
    """``w x``, and 0 where w is 0, also for an infinite x."""
    with np.errstate(invalid="ignore"):
        return np.where(np.equal(w, 0), 0, w * x)


defvjp(
    weighted,
    lambda g, _ans, w, x: g * where(np.equal(plain(w), 0) & np.isinf(plain(x)), 0, x),
    lambda g, _ans, w, _x: g * w,
)


@primitive
def _ratio(a: Any, b: Any) -> Any:
    """``a / b``, and 0 where a is 0, also for b = 0."""
    with np.errstate(**_quiet):  # type: ignore[arg-type]
        return np.where(np.equal(a, 0), 0, a / b)


defvjp(
    _ratio,
    lambda g, _ans, _a, b: _ratio(g, b),
    lambda g, ans, _a, b: -_ratio(g * ans, b),
)


@primitive
def xlogy(x: Any, y: Any) -> Any:
    """``x log y``, and 0 where x is 0; ``xlogy(1.0, y)`` is a logarithm that takes 0 without a warning."""
    with np.errstate(**_quiet):  # type: ignore[arg-type]
        return np.where(np.equal(x, 0), 0, x * np.log(y))


defvjp(
    xlogy,
    lambda g, _ans, x, y: g * xlogy(1.0, where(np.equal(plain(x), 0) & np.equal(plain(y), 0), 1, y)),
    lambda g, _ans, x, y: _ratio(g * x, y),
)


@primitive
def xlog1py(x: Any, y: Any) -> Any:
    """``x log(1 + y)``, and 0 where x is 0."""
    with np.errstate(**_quiet):  # type: ignore[arg-type]
        return np.where(np.equal(x, 0), 0, x * np.log1p(y))


defvjp(
    xlog1py,
    lambda g, _ans, x, y: g * xlog1py(1.0, where(np.equal(plain(x), 0) & np.equal(plain(y), -1), 0, y)),
    lambda g, _ans, x, y: _ratio(g * x, 1 + y),
)


# --- the normal distribution function -----------------------------------------------------------------------

# Element by element, in float64: exact to its rounding also in the tails, and no hot loop of a model needs it.
_erfc = np.frompyfunc(math.erfc, 1, 1)
_standard = NormalDist()


def _quantile(p: float) -> float:
    if 0 < p < 1:
        return _standard.inv_cdf(p)
    return -math.inf if p == 0 else math.inf if p == 1 else math.nan


_quantiles = np.frompyfunc(_quantile, 1, 1)


def _kind(x: Any) -> Any:
    return np.asarray(x).dtype


@primitive
def ndtr(x: Any) -> Any:
    """Distribution function of the standard normal, about 0.1 us an element."""
    half = _erfc(np.asarray(x, np.float64) * -math.sqrt(0.5))
    return (0.5 * np.asarray(half, np.float64)).astype(_kind(x))


defvjp(ndtr, lambda g, _ans, x: g * np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)))


@primitive
def ndtri(p: Any) -> Any:
    """Inverse of `ndtr`, about 1 us an element; -inf at 0 and inf at 1."""
    with np.errstate(invalid="ignore"):  # NaN beyond the ends
        return np.asarray(_quantiles(np.asarray(p, np.float64)), np.float64).astype(_kind(p))


defvjp(ndtri, lambda g, ans, _p: g * np.exp(0.5 * ans * ans) * math.sqrt(2 * math.pi))


# --- the gamma function -------------------------------------------------------------------------------------

# Stirling's series of B_2k / (2k (2k - 1) x^(2k - 1)), from 10 up: its first term left out is 691 / 360360 x^-11, below
# 2e-14 there. Smaller arguments are brought there by the recurrence.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
_SHIFT = 10


@primitive
def log_gamma(x: Any) -> Any:
    """``log Gamma(x)`` for x > 0, in float64 within."""
    exact = np.asarray(x, np.float64)
    y = exact + _SHIFT
    total = (y - 0.5) * np.log(y) - y + 0.5 * math.log(2 * math.pi)
    for k, c in enumerate(_STIRLING):
        total = total + c * y ** (-2 * k - 1)
    for i in range(_SHIFT):
        total = total - np.log(exact + i)
    return total.astype(_kind(x))


@primitive
def digamma(x: Any) -> Any:
    """Derivative of `log_gamma`, in float64 within."""
    exact = np.asarray(x, np.float64)
    y = exact + _SHIFT
    total = np.log(y) - 0.5 / y
    for k, c in enumerate(_STIRLING):
        total = total - (2 * k + 1) * c * y ** (-2 * k - 2)
    for i in range(_SHIFT):
        total = total - 1 / (exact + i)
    return total.astype(_kind(x))


@primitive
def _trigamma(x: Any) -> Any:
    exact = np.asarray(x, np.float64)
    y = exact + _SHIFT
    total = 1 / y + 0.5 / (y * y)
    for k, c in enumerate(_STIRLING):
        total = total + (2 * k + 1) * (2 * k + 2) * c * y ** (-2 * k - 3)
    for i in range(_SHIFT):
        total = total + (exact + i) ** -2
    return total.astype(_kind(x))


defvjp(log_gamma, lambda g, _ans, x: g * digamma(x))
defvjp(digamma, lambda g, _ans, x: g * _trigamma(x))
