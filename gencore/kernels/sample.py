"""Random variates into arrays.

A variate depends on its coordinates alone: for row ``r`` and unit ``u`` of an array these are (``key``, ``step``,
``first_row + r``, ``u``) and, of continuous variates, the number of units. So an array may be made in parts, by rows;
the bits are those of the whole for any number of threads. Units run along the last axis, rows along all the others
together. Different functions, keys and steps give independent numbers.

Reparameterised draws (`gaussian_reparam`, `location_scale`, `gumbel_softmax`, `relaxed_bernoulli`) are differentiable:
their gradients compute the noise again from its coordinates, and none is ever stored.

Arrays may be CuPy's, or others with ``__cuda_array_interface__``: results are made on their device, kernels are queued
on CuPy's or PyTorch's current stream for their arrays, else on the stream that the array names, and nothing waits for
them.

Uniforms and Bernoulli draws are the same bits on every ISA level and device; normal and exponential variates agree
to the rounding of their logarithms.

Source: Salmon, Moraes, Dror & Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10).
"""

from collections.abc import Callable
from operator import index
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.kernels._arrays import as_matrix, empty, new, same_shape
from gencore.kernels._relaxed import (
    gumbel_softmax,
    gumbel_softmax_vjp,
    relaxed_bernoulli,
    relaxed_bernoulli_vjp,
)
from gencore.kernels._reparam import (
    gaussian_log_prob,
    gaussian_log_prob_vjp,
    gaussian_reparam,
    gaussian_reparam_vjp,
    gaussian_sample,
    location_scale,
    location_scale_vjp,
)
from gencore.random import KeyLike, as_key

__all__ = [
    "bernoulli", "bernoulli_bits", "categorical", "exponential", "gaussian_log_prob", "gaussian_log_prob_vjp",
    "gaussian_reparam", "gaussian_reparam_vjp", "gaussian_sample", "gumbel_softmax", "gumbel_softmax_vjp",
    "location_scale", "location_scale_vjp", "normal", "relaxed_bernoulli", "relaxed_bernoulli_vjp", "uniform",
]  # fmt: skip

Float32Array = NDArray[np.float32]
Shape = SupportsIndex | tuple[SupportsIndex, ...]


def uniform(
    shape: Shape,
    key: KeyLike,
    *,
    step: int = 0,
    first_row: int = 0,
    out: Float32Array | None = None,
    device: Any = "cpu",
) -> Float32Array:
    """Uniform variates in the open interval (0, 1).

    ``(k + 1/2) 2^-23`` for a uniform integer k of 23 bits: neither 0 nor 1 ever occurs, so logarithms of the
    variate and of its complement are finite.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the result; an int n means (n,), one row.
    key : Key, int or Generator
        Random numbers.
    step : int
        From 0 to 2^56 - 1: another step, other numbers.
    first_row : int
        Row of the first random numbers; rows go to 2^32 - 1.
    out : float32 array of that shape, optional
        Where to write; may be on a CUDA device.
    device : "cpu", "cuda" or an array
        Without `out`, where the new array is made: NumPy's, CuPy's on its current device, or beside an array and of
        its kind.

    Returns
    -------
    float32 array of that shape
        ``out``, or a new array.

    Raises
    ------
    ValueError, TypeError
        A coordinate out of range; `out` of another shape or dtype, not contiguous, or read-only; another device.
    ImportError
        "cuda" without CuPy.
    """
    return _variates(_core.sample_uniform, "sample.uniform", shape, key, step, first_row, out, device)


def normal(
    shape: Shape,
    key: KeyLike,
    *,
    step: int = 0,
    first_row: int = 0,
    out: Float32Array | None = None,
    device: Any = "cpu",
) -> Float32Array:
    """Standard normal variates.

    Box and Muller's: units t and t + 32 of each 64 are ``sqrt(-2 log u) (cos, sin)(2 pi u')`` for the uniforms
    u, u' of those units. u is at least 2^-24, so no variate is beyond 5.77, which of normal variates 8 in 10^9
    are. Relative error: below 5e-7.

    Parameters
    ----------
    shape, key, step, first_row, out, device
        As in `uniform`.

    Returns
    -------
    float32 array of that shape
    """
    return _variates(_core.sample_normal, "sample.normal", shape, key, step, first_row, out, device)


def exponential(
    shape: Shape,
    key: KeyLike,
    *,
    step: int = 0,
    first_row: int = 0,
    out: Float32Array | None = None,
    device: Any = "cpu",
) -> Float32Array:
    """Exponential variates of mean 1: ``-log u`` of a uniform u, hence from 6.0e-8 to 16.6.

    Relative error: below 1.2e-7.

    Parameters
    ----------
    shape, key, step, first_row, out, device
        As in `uniform`.

    Returns
    -------
    float32 array of that shape
    """
    return _variates(_core.sample_exponential, "sample.exponential", shape, key, step, first_row, out, device)


def bernoulli(
    p: Float32Array,
    key: KeyLike,
    *,
    step: int = 0,
    first_row: int = 0,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """1 with probability ``p``, else 0.

    ``u < p`` for a uniform u of 32 bits: exact for p of 0 and 1, and within 2^-33 of p everywhere. 16 bits of
    u decide unless p lies in their interval; only then the other 16 are computed.

    Parameters
    ----------
    p : float32 array
        Probabilities.
    key, step, first_row
        As in `uniform`.
    out : uint8 or bool array of the shape of `p`, optional
        Where to write.

    Returns
    -------
    uint8 array of the shape of `p`

    Raises
    ------
    ValueError, TypeError
        On the CPU, a p outside [0, 1] or NaN (on a CUDA device, which is not waited for, it counts as the nearer end,
        NaN as 0); wrong dtype or memory order; as in `uniform`.
    """
    if out is None:
        out = empty(p, np.shape(p), np.uint8)
    same_shape("sample.bernoulli", "out", out, "p", p)
    _core.sample_bernoulli(
        p=as_matrix("sample.bernoulli", "p", p), out=as_matrix("sample.bernoulli", "out", out),
        key=as_key(key), first_row=first_row, step=step,
    )  # fmt: skip
    return out


def bernoulli_bits(
    p: Float32Array,
    key: KeyLike,
    *,
    rows: int | None = None,
    step: int = 0,
    first_row: int = 0,
    out: NDArray[np.uint64] | None = None,
) -> NDArray[np.uint64]:
    """The draws of `bernoulli` as packed bits, 64 units a word: an eighth of the memory of bytes.

    Unit u of a row is bit ``u % 64`` of its word ``u // 64``; bits beyond the last unit are 0. On a little-endian
    machine, ``numpy.unpackbits(words.view(numpy.uint8), axis=-1, bitorder="little", count=units)`` are the bytes that
    `bernoulli` gives for the same arguments.

    Parameters
    ----------
    p : (..., units) float32
        Probabilities.
    key, step, first_row
        As in `uniform`.
    rows : int, optional
        With p of shape (units,): how many rows to draw with these probabilities, which are not repeated in memory.
    out : uint64 array of the result's shape, optional
        Where to write.

    Returns
    -------
    (..., ceil(units / 64)) or (rows, ceil(units / 64)) uint64

    Notes
    -----
    Has no gradient. Extra memory: none. See `bernoulli` for what a probability is resolved to.

    Raises
    ------
    ValueError, TypeError
        As in `bernoulli`; `rows` below 0, or with a p that has rows of its own.
    """
    shape = tuple(np.shape(p))
    if rows is not None and (len(shape) != 1 or rows < 0):
        raise ValueError(
            "sample.bernoulli_bits: expected rows to be at least 0, with p of shape (units,), "
            f"received {rows} with p of shape {shape}"
        )
    words = -(-shape[-1] // 64) if shape else 1
    wanted = (*(shape[:-1] if rows is None else (rows,)), words)
    if out is None:
        out = empty(p, wanted, np.uint64)
    elif tuple(np.shape(out)) != wanted:
        raise ValueError(
            f"sample.bernoulli_bits: expected out of shape {wanted}, a word for each 64 units, "
            f"received {tuple(np.shape(out))}"
        )
    _core.sample_bernoulli_bits(
        p=as_matrix("sample.bernoulli_bits", "p", p), out=as_matrix("sample.bernoulli_bits", "out", out),
        key=as_key(key), first_row=first_row, step=step,
    )  # fmt: skip
    return out


def categorical(
    logits: Float32Array, key: KeyLike, *, step: int = 0, first_row: int = 0
) -> NDArray[np.int64]:
    """One category k a row, with probability ``softmax(logits[row])[k]``.

    By inversion of one uniform of 23 bits: probabilities are resolved to 2^-23, and a category of less may never
    occur.

    Parameters
    ----------
    logits : (..., n_categories) float32
        Log-probabilities up to a constant for each row. -inf is probability 0, but not for a whole row.
    key, step, first_row
        As in `uniform`; one random number a row.

    Returns
    -------
    (...) int64
        From 0 to n_categories - 1.

    Notes
    -----
    Extra memory: 4 bytes a category for each thread.

    Raises
    ------
    ValueError, TypeError
        On the CPU, a logit that is NaN or inf, or a row of -inf only (on a CUDA device, which is not waited for, such
        rows get -1); no categories; wrong dtype or memory order.
    """
    out: NDArray[np.int64] = empty(logits, np.shape(logits)[:-1], np.int64)
    _core.sample_categorical(
        logits=as_matrix("sample.categorical", "logits", logits), out=out.reshape(-1), key=as_key(key),
        first_row=first_row, step=step,
    )  # fmt: skip
    return out


def _variates(
    function: Callable[..., None],
    op: str,
    shape: Shape,
    key: KeyLike,
    step: int,
    first_row: int,
    out: Float32Array | None,
    device: Any,
) -> Float32Array:
    try:
        wanted = tuple(map(index, shape if isinstance(shape, tuple) else (shape,)))
    except TypeError:
        raise TypeError(
            f"{op}: expected shape to be an integer or a tuple of integers, received {shape!r}"
        ) from None
    if out is None:
        out = new(op, wanted, np.float32, device)
    elif np.shape(out) != wanted:
        raise ValueError(f"{op}: expected out of shape {wanted}, as given, received {np.shape(out)}")
    function(out=as_matrix(op, "out", out), key=as_key(key), first_row=first_row, step=step)
    return out
