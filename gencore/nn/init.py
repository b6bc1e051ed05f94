"""Initial values of parameters: functions ``init(shape, key) -> float32 array``, and functions that return such.

The scale follows from the number of inputs and outputs of a weight (n_in, n_out); for convolutions (..., n_in, n_out),
both count once for each tap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gencore.kernels import sample
from gencore.random import KeyLike

__all__ = [
    "Initializer", "constant", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "lecun_normal", "normal",
    "orthogonal", "uniform", "zeros",
]  # fmt: skip

Float32Array = NDArray[np.float32]
Initializer: TypeAlias = Callable[[tuple[int, ...], KeyLike], Float32Array]
"""``init(shape, key)`` returns the initial values."""


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Numbers of inputs and of outputs of a weight of this shape."""
    if len(shape) < 2:
        raise ValueError(
            f"init: expected a weight of at least 2 axes (..., n_in, n_out), received shape {shape}"
        )
    taps = math.prod(shape[:-2])
    return taps * shape[-2], taps * shape[-1]


def constant(value: float) -> Initializer:
    """The same value everywhere."""
    return lambda shape, key: np.full(shape, value, np.float32)


zeros = constant(0.0)
"""Zeros."""


def uniform(limit: float) -> Initializer:
    """Uniform on (-limit, limit)."""
    return lambda shape, key: (sample.uniform(shape, key) * np.float32(2) - np.float32(1)) * np.float32(limit)


def normal(std: float) -> Initializer:
    """Normal with mean 0."""
    return lambda shape, key: sample.normal(shape, key) * np.float32(std)


def glorot_uniform(shape: tuple[int, ...], key: KeyLike) -> Float32Array:
    """Uniform with limit sqrt(6 / (n_in + n_out)) (Glorot & Bengio 2010)."""
    return uniform(math.sqrt(6 / sum(fans(shape))))(shape, key)


def glorot_normal(shape: tuple[int, ...], key: KeyLike) -> Float32Array:
    """Normal of variance 2 / (n_in + n_out) (Glorot & Bengio 2010)."""
    return normal(math.sqrt(2 / sum(fans(shape))))(shape, key)


def he_uniform(shape: tuple[int, ...], key: KeyLike) -> Float32Array:
    """Uniform with limit sqrt(6 / n_in), for rectifiers (He et al. 2015)."""
    return uniform(math.sqrt(6 / fans(shape)[0]))(shape, key)


def he_normal(shape: tuple[int, ...], key: KeyLike) -> Float32Array:
    """Normal of variance 2 / n_in, for rectifiers (He et al. 2015)."""
    return normal(math.sqrt(2 / fans(shape)[0]))(shape, key)


def lecun_normal(shape: tuple[int, ...], key: KeyLike) -> Float32Array:
    """Normal of variance 1 / n_in (LeCun et al. 1998)."""
    return normal(math.sqrt(1 / fans(shape)[0]))(shape, key)


def orthogonal(shape: tuple[int, ...], key: KeyLike) -> Float32Array:
    """Orthonormal rows or columns, whichever are fewer, all such matrices alike (Saxe et al. 2014)."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    gaussian = sample.normal((max(rows, columns), min(rows, columns)), key).astype(np.float64)
    q, r = np.linalg.qr(gaussian)
    q *= np.sign(np.diag(r))  # else QR's own choice of signs would show
    return np.ascontiguousarray((q if rows >= columns else q.T).reshape(shape), np.float32)
