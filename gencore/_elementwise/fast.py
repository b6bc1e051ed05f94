"""Functions of ``math`` for float32 on the CPU that LLVM can vectorise: numba's are a call an element.

Polynomials in float64 without branches, rounded to float32 once: the ends (overflow, denormals, NaN) come by
themselves. Errors before that rounding are below 2e-9 of the value, 0.02 units in the last place of float32. float64
arguments go to the functions of ``math``.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

__all__ = ["STAND_INS"]

LN2 = math.log(2.0)
LOG2E = 1 / LN2
MAGIC = 1.5 * 2.0**52  # added to a small number, leaves its nearest integer in the low bits
MAGIC_BITS = int(np.float64(MAGIC).view(np.int64))
SQRT_HALF_BITS = int(np.float64(math.sqrt(0.5)).view(np.int64))
ONE_BITS = 1023 << 52
E2, E3, E4, E5, E6, E7, E8 = (1 / math.factorial(k) for k in range(2, 9))
i64, f64 = np.int64, np.float64


@njit(error_model="numpy")
def _exp(x: Any) -> Any:
    """Of a float64 that was a float32: 2^k e^r, |r| < log(2)/2, where r^9/9! is below 2e-10."""
    x = 150.0 if x > 150.0 else x  # NaN stays
    x = -150.0 if x < -150.0 else x
    t = x * LOG2E + MAGIC
    r = x - (t - MAGIC) * LN2
    p = 1.0 + r * (1.0 + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * (E6 + r * (E7 + r * E8)))))))
    return p * i64((f64(t).view(i64) + i64(1023)) << i64(52)).view(f64)


@njit(error_model="numpy")
def _log(x: Any) -> Any:
    """Of a normal positive float64: k log 2 + log m, sqrt(1/2) < m < sqrt(2); s^2 < 0.03, s^12/13 is below 1e-10."""
    bits = f64(x).view(i64)
    # The exponent, without an arithmetic shift or a conversion of int64, which AVX2 lacks.
    k = ((bits - i64(SQRT_HALF_BITS) + i64(ONE_BITS)) >> i64(52)) & i64(2047)
    m = i64(bits - (k << i64(52)) + i64(ONE_BITS)).view(f64)
    e = i64(k + i64(MAGIC_BITS)).view(f64) - MAGIC - 1023.0
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    series = 1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11)))))
    return e * LN2 + 2.0 * s * series


def exp(x: Any) -> Any:
    """Stand-in for ``math.exp``."""
    return math.exp(x)


def expm1(x: Any) -> Any:
    """Stand-in for ``math.expm1``."""
    return math.expm1(x)


def tanh(x: Any) -> Any:
    """Stand-in for ``math.tanh``."""
    return math.tanh(x)


def log(x: Any) -> Any:
    """Stand-in for ``math.log``, which gives -inf and NaN where that raises."""
    return math.log(x)


def log1p(x: Any) -> Any:
    """Stand-in for ``math.log1p``, which gives -inf and NaN where that raises."""
    return math.log1p(x)


@njit(error_model="numpy")
def _exp32(x: Any) -> Any:
    return np.float32(_exp(f64(x)))


@njit(error_model="numpy")
def _expm132(x: Any) -> Any:
    x = f64(x)
    near = x * (1.0 + x * (E2 + x * (E3 + x * (E4 + x * (E5 + x * (E6 + x * E7))))))
    return np.float32(near if abs(x) < 0.1 else _exp(x) - 1.0)


@njit(error_model="numpy")
def _tanh32(x: Any) -> Any:
    x = f64(x)
    q = x * x
    near = x * (1.0 + q * (-1 / 3 + q * (2 / 15 + q * (-17 / 315 + q * (62 / 2835)))))
    far = 1.0 - 2.0 / (_exp(2.0 * x) + 1.0)
    return np.float32(near if abs(x) < 0.1 else far)


@njit(error_model="numpy")
def _log_ends(x: Any, y: Any) -> Any:
    """Y, but for an x at which there is no finite logarithm."""
    y = y if x < math.inf else x  # inf, NaN
    y = y if x != 0.0 else -math.inf
    return math.nan if x < 0.0 else y


@njit(error_model="numpy")
def _log32(x: Any) -> Any:
    x = f64(x)
    return np.float32(_log_ends(x, _log(x)))


@njit(error_model="numpy")
def _log1p32(x: Any) -> Any:
    x = f64(x)
    near = x * (1.0 - 0.5 * x)
    return np.float32(near if abs(x) < 5e-5 else _log_ends(1.0 + x, _log(1.0 + x)))


def _declare(stand_in: Any, of_float32: Any, otherwise: Any) -> None:
    ours, numbas = lambda x: of_float32(x), lambda x: otherwise(x)
    overload(stand_in, jit_options={"error_model": "numpy"})(lambda x: ours if x is types.float32 else numbas)


STAND_INS: dict[Any, Any] = {}
"""What to put in the place of functions, and of the modules that have them."""

for _stand_in, _float32 in (
    (exp, _exp32),
    (expm1, _expm132),
    (tanh, _tanh32),
    (log, _log32),
    (log1p, _log1p32),
):
    _declare(_stand_in, _float32, getattr(np, _stand_in.__name__))
    for _module in (math, np):
        STAND_INS[getattr(_module, _stand_in.__name__)] = _stand_in
for _module in (math, np):
    _copy = ModuleType(_module.__name__)
    _copy.__dict__.update(_module.__dict__)
    _copy.__dict__.update({f.__name__: f for f in (exp, expm1, tanh, log, log1p)})
    STAND_INS[_module] = _copy
