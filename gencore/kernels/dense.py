"""Dense linear algebra with fused epilogues."""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import _core

Float32Array = NDArray[np.float32]
Activation = Literal["identity", "logistic", "tanh", "relu", "softplus"]

_ACTIVATIONS: Final = {"identity": 0, "logistic": 1, "tanh": 2, "relu": 3, "softplus": 4}
_FLOAT32: Final = np.dtype(np.float32)


def matmul(
    a: Float32Array,
    b: Float32Array,
    bias: Float32Array | None = None,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    activation: Activation = "identity",
    out: Float32Array | None = None,
) -> Float32Array:
    """Matrix product with bias and activation in one pass: ``activation(op(a) op(b) + bias)``.

    Parameters
    ----------
    a : (m, k) float32, or (k, m) with ``transpose_a``
        Left factor.
    b : (k, n) float32, or (n, k) with ``transpose_b``
        Right factor.
    bias : (n,) float32, optional
        Added to every row.
    transpose_a, transpose_b : bool
        Use the transpose of what is stored; nothing is copied.
    activation : {"identity", "logistic", "tanh", "relu", "softplus"}
        Applied to each element while it is in the cache. ``logistic(x) = 1 / (1 + exp(-x))``,
        ``softplus(x) = log(1 + exp(x))``.
    out : (m, n) float32, optional
        Where to write. Must not share memory with ``a``, ``b`` or ``bias``.

    Returns
    -------
    (m, n) float32
        ``out``, or a new array.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order, an unknown activation, a read-only ``out``.

    Notes
    -----
    Each element is the chain ``s = fma(a[i, p], b[p, j], s)`` over ``p = 0, 1, ...`` from ``s = 0`` (product and sum
    are rounded apart on processors without FMA). Hence the bits depend neither on the number of threads nor on the
    other rows of the call, and a factor of 0 and 1 gives the bits of adding the rows that its ones select. The error
    before the activation is at most ``k eps / 2 sum_p |a[i, p] b[p, j]|`` to first order, plus the rounding of the
    bias. NaN and inf propagate. ``k = 0`` gives ``activation(bias)``.

    Extra memory: a panel of at most 48 KB on the stack of each thread. Below AVX-512, a copy of ``a`` where
    ``transpose_a`` reads columns that lie a multiple of 1 KB apart.

    Examples
    --------
    >>> x = np.array([[1, 2], [3, 4]], np.float32)
    >>> matmul(x, x, np.array([0, -20], np.float32), transpose_b=True, activation="relu")
    array([[ 5.,  0.],
           [11.,  5.]], dtype=float32)
    """
    code = _ACTIVATIONS.get(activation)
    if code is None:
        names = ", ".join(_ACTIVATIONS)
        raise ValueError(f"dense.matmul: expected activation to be one of {names}, received {activation!r}")
    if out is None:
        try:
            out = np.empty((a.shape[transpose_a], b.shape[not transpose_b]), _FLOAT32)
        except (AttributeError, IndexError, TypeError):
            out = np.empty((0, 0), _FLOAT32)  # not matrices: the compiled function says which and why
    _core.dense_matmul(
        a=a, b=b, bias=bias, out=out, transpose_a=transpose_a, transpose_b=transpose_b, activation=code
    )
    return out
