"""Dense linear algebra with fused epilogues, its gradients, and the losses of a net's last layer."""

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.kernels._dense_loss import (
    bernoulli_log_prob,
    bernoulli_log_prob_vjp,
    binary_cross_entropy_with_logits,
    log_sum_exp,
    log_sum_exp_vjp,
    softmax_cross_entropy,
    softmax_cross_entropy_vjp,
)

__all__ = [
    "bernoulli_log_prob",
    "bernoulli_log_prob_vjp",
    "binary_cross_entropy_with_logits",
    "linear",
    "linear_vjp",
    "log_sum_exp",
    "log_sum_exp_vjp",
    "matmul",
    "softmax_cross_entropy",
    "softmax_cross_entropy_vjp",
]

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
    code = _activation_code("dense.matmul", activation)
    if out is None:
        try:
            out = np.empty((a.shape[transpose_a], b.shape[not transpose_b]), _FLOAT32)
        except (AttributeError, IndexError, TypeError):
            out = np.empty((0, 0), _FLOAT32)  # not matrices: the compiled function says which and why
    _core.dense_matmul(
        a=a, b=b, bias=bias, out=out, transpose_a=transpose_a, transpose_b=transpose_b, activation=code
    )
    return out


def linear(
    x: Float32Array, w: Float32Array, bias: Float32Array | None = None, *, activation: Activation = "identity"
) -> Float32Array:
    """One layer of a net: ``activation(x w + bias)``.

    Parameters
    ----------
    x : (..., k) float32
        Rows of inputs, with any leading axes.
    w : (k, n) float32
        Weights: a column for each output.
    bias : (n,) float32, optional
        Added to every row.
    activation : {"identity", "logistic", "tanh", "relu", "softplus"}
        As in `matmul`.

    Returns
    -------
    (..., n) float32

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order, an unknown activation.

    Notes
    -----
    The bits are those of `matmul` on all rows at once. Gradient: `linear_vjp`, to any order.

    Examples
    --------
    >>> linear(np.array([[[1, 2]]], np.float32), np.array([[1], [1]], np.float32), np.array([-4], np.float32))
    array([[[-1.]]], dtype=float32)
    """
    _activation_code("dense.linear", activation)
    rows, leading = _as_rows("dense.linear", "x", x)
    try:
        out = matmul(rows, w, bias, activation=activation)
    except (TypeError, ValueError) as error:
        raise type(error)(_in_words_of_linear(str(error))) from None
    return out if leading is None else out.reshape(*leading, out.shape[1])


def linear_vjp(
    grad: Float32Array,
    x: Float32Array | None,
    w: Float32Array | None,
    y: Float32Array | None,
    *,
    activation: Activation = "identity",
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Float32Array | None, Float32Array | None, Float32Array | None]:
    """Gradients of `linear` with respect to ``x``, ``w`` and ``bias``.

    With ``dz = grad activation'``: ``grad_x = dz w'``, ``grad_w = x' dz`` and ``grad_bias``, the sum of dz over its
    rows. The slope of the activation comes from its value: ``y (1 - y)``, ``(1 - y) (1 + y)``, ``y > 0``,
    ``1 - exp(-y)``.

    Parameters
    ----------
    grad : (..., n) float32
        Gradient with respect to the layer's output.
    x : (..., k) float32, or None where ``grad_w`` is not needed
        The layer's input.
    w : (k, n) float32, or None where ``grad_x`` is not needed
        Its weights.
    y : (..., n) float32, or None for the identity
        Its output.
    activation : str
        As in `linear`.
    needs : three bools
        Which of the three to compute.

    Returns
    -------
    grad_x : (..., k) float32, or None
    grad_w : (k, n) float32, or None
    grad_bias : (n,) float32, or None

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order, an unknown activation, an input left out that is needed.

    Notes
    -----
    The products are chains as `matmul`'s. A bias' sum goes in float32 over stretches of 32 rows, whose sums are added
    in float64: 33 roundings at most, however long the batch. The same bits for any number of threads. Where ``y`` is
    NaN, relu passes grad on.

    Extra memory: dz unless the activation is the identity; for the bias, n floats for each 32 rows.
    """
    code = _activation_code("dense.linear_vjp", activation)
    rows, _ = _as_rows("dense.linear_vjp", "grad", grad)
    inputs, leading = _as_rows("dense.linear_vjp", "x", x)
    values, _ = _as_rows("dense.linear_vjp", "y", y)
    try:
        m, n = rows.shape
        shapes = ((m, w.shape[0]) if needs[0] else None, (inputs.shape[1], n) if needs[1] else None, (n,))  # type: ignore[union-attr]
    except (AttributeError, IndexError, TypeError, ValueError):
        shapes = ((0, 0), (0, 0), (0,))  # not matrices: the compiled function says which and why
    outs = [
        np.empty(shape, _FLOAT32) if needed and shape is not None else None
        for shape, needed in zip(shapes, needs, strict=True)
    ]
    _core.dense_linear_vjp(
        grad=rows, x=inputs, w=w, y=values, grad_x=outs[0], grad_w=outs[1], grad_bias=outs[2], activation=code
    )
    if outs[0] is not None and leading is not None:
        outs[0] = outs[0].reshape(*leading, outs[0].shape[1])
    return outs[0], outs[1], outs[2]


def _activation_code(op: str, activation: str) -> int:
    code = _ACTIVATIONS.get(activation)
    if code is None:
        names = ", ".join(_ACTIVATIONS)
        raise ValueError(f"{op}: expected activation to be one of {names}, received {activation!r}")
    return code


def _as_rows(op: str, name: str, array: Any) -> tuple[Any, tuple[int, ...] | None]:
    """(..., k) as (rows, k), sharing the memory, and the leading axes unless there is just one.

    What the kernel would refuse is left for it to say.
    """
    if not isinstance(array, np.ndarray) or array.ndim == 2:
        return array, None
    if array.ndim == 0:
        raise ValueError(f"{op}: expected {name} to have at least 1 dimension, received shape ()")
    if not array.flags.c_contiguous:
        raise TypeError(
            f"{op}: expected {name} to be contiguous in C order (cure: numpy.ascontiguousarray), "
            "received a strided array"
        )
    leading = array.shape[:-1]
    return array.reshape(int(np.prod(leading)), array.shape[-1]), leading


def _in_words_of_linear(message: str) -> str:
    """What matmul says of its arguments, said of linear's."""
    for there, here in (("matmul", "linear"), ("op(a)", "x"), ("op(b)", "w"), (" a ", " x "), (" b ", " w ")):
        message = message.replace(there, here)
    return message
