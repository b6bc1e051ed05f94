"""Dense linear algebra with fused epilogues, its gradients, and the losses of a net's last layer.

Arrays may be CuPy's, or others with ``__cuda_array_interface__``: results are made on their device, kernels are queued
on CuPy's (or PyTorch's) current stream, and nothing waits for them, so that values are not checked there: bytes other
than 0 count as 1. Sums go in the CPU's order and give its bits (those of a level with fused multiply-add). No cuBLAS.
Extra memory there: of `linear_vjp`, what it needs on the CPU; of the others none.
"""

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.autograd import defvjp, primitive
from gencore.kernels._arrays import as_matrix, empty, is_cuda_array
from gencore.kernels._contiguous import contiguous
from gencore.kernels._dense_loss import (
    bernoulli_log_prob,
    bernoulli_log_prob_vjp,
    binary_cross_entropy_with_logits,
    log_sum_exp,
    log_sum_exp_vjp,
    softmax_cross_entropy,
    softmax_cross_entropy_vjp,
)
from gencore.kernels._logistic_mixture import logistic_mixture_log_prob

__all__ = [
    "activation_vjp",
    "bernoulli_log_prob",
    "bernoulli_log_prob_vjp",
    "binary_cross_entropy_with_logits",
    "linear",
    "linear_vjp",
    "log_sum_exp",
    "log_sum_exp_vjp",
    "logistic_mixture_log_prob",
    "matmul",
    "softmax_cross_entropy",
    "softmax_cross_entropy_vjp",
]

Float32Array = NDArray[np.float32]
Factor = NDArray[np.float32 | np.uint8 | np.bool_]
Activation = Literal["identity", "logistic", "tanh", "relu", "softplus"]

ACTIVATIONS: Final = {"identity": 0, "logistic": 1, "tanh": 2, "relu": 3, "softplus": 4}
_FLOAT32: Final = np.dtype(np.float32)


def matmul(
    a: Factor,
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
    a : (m, k) float32, uint8 or bool, or (k, m) with ``transpose_a``
        Left factor. Bytes must be 0 and 1.
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
        Where to write. Must not share memory with ``a``, ``b`` or ``bias``. For arrays only: what a Tensor remembers
        is not written over.

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
    other rows of the call, and a factor of 0 and 1 gives the bits of adding the rows that its ones select. For bytes
    that is what is done, at a cost in proportion to the ones; a row that none selects is not read, be it NaN. Else NaN
    and inf propagate. The error before the activation is at most ``k eps / 2 sum_p |a[i, p] b[p, j]|`` to first order,
    plus the rounding of the bias. ``k = 0`` gives ``activation(bias)``.

    Gradient, to any order and in any orientation: products of dz = g activation' with the other factor, where the slope
    of the activation comes from its value, and for the bias the sum of dz over its rows.

    Extra memory: a panel of at most 48 KB on the stack of each thread. Below AVX-512, a copy of ``a`` where
    ``transpose_a`` reads columns that lie a multiple of 1 KB apart. With bytes: a copy of ``b``, ``a`` as bits.

    Examples
    --------
    >>> x = np.array([[1, 2], [3, 4]], np.float32)
    >>> matmul(x, x, np.array([0, -20], np.float32), transpose_b=True, activation="relu")
    array([[ 5.,  0.],
           [11.,  5.]], dtype=float32)
    """
    code = activation_code("dense.matmul", activation)
    if out is None:
        return _matmul(a, b, bias, transpose_a=transpose_a, transpose_b=transpose_b, activation=activation)
    _core.dense_matmul(
        a=a, b=b, bias=bias, out=out, transpose_a=transpose_a, transpose_b=transpose_b, activation=code
    )
    return out


@primitive
def _matmul(
    a: Factor,
    b: Float32Array,
    bias: Float32Array | None,
    *,
    transpose_a: bool,
    transpose_b: bool,
    activation: Activation,
) -> Float32Array:
    return _product(a, b, bias, transpose_a, transpose_b, ACTIVATIONS[activation])


def _product(
    a: Factor, b: Float32Array, bias: Float32Array | None, transpose_a: bool, transpose_b: bool, code: int
) -> Float32Array:
    """`matmul` of arrays, by the number of the activation."""
    try:
        out: Float32Array = empty(a, (a.shape[transpose_a], b.shape[not transpose_b]), _FLOAT32)
    except (AttributeError, IndexError, TypeError):
        out = np.empty((0, 0), _FLOAT32)  # not matrices: the compiled function says which and why
    _core.dense_matmul(
        a=a, b=b, bias=bias, out=out, transpose_a=transpose_a, transpose_b=transpose_b, activation=code
    )
    return out


@primitive
def linear(
    x: Factor, w: Float32Array, bias: Float32Array | None = None, *, activation: Activation = "identity"
) -> Float32Array:
    """One layer of a net: ``activation(x w + bias)``.

    Parameters
    ----------
    x : (..., k) float32, uint8 or bool
        Rows of inputs, with any leading axes. Bytes must be 0 and 1; see `matmul`.
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
    code = activation_code("dense.linear", activation)
    rows, leading = _as_rows("dense.linear", "x", x)
    try:
        out = _product(rows, w, bias, False, False, code)
    except (TypeError, ValueError) as error:
        raise type(error)(_in_words_of_linear(str(error))) from None
    return out if leading is None else out.reshape(*leading, out.shape[1])


def linear_vjp(
    grad: Float32Array,
    x: Factor | None,
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
    x : (..., k) float32, uint8 or bool, or None where ``grad_w`` is not needed
        The layer's input; bytes must be 0 and 1.
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
    activation_code("dense.linear_vjp", activation)
    found = iter(_linear_vjp(grad, x, w, y, activation=activation, wanted=needs) if any(needs) else ())
    grad_x, grad_w, grad_bias = (next(found) if needed else None for needed in needs)
    return grad_x, grad_w, grad_bias


@primitive
def _linear_vjp(
    grad: Float32Array,
    x: Factor | None,
    w: Float32Array | None,
    y: Float32Array | None,
    *,
    activation: Activation,
    wanted: tuple[bool, bool, bool],
) -> tuple[Float32Array, ...]:
    """Those of the three gradients that are wanted."""
    rows, leading_of_grad = _as_rows("dense.linear_vjp", "grad", grad)
    inputs, leading = _as_rows("dense.linear_vjp", "x", x)
    values, _ = _as_rows("dense.linear_vjp", "y", y)
    if x is None:
        leading = leading_of_grad
    outs: list[Float32Array | None] = [None, None, None]
    try:
        (m, n), k = rows.shape, 0
        if wanted[0] or wanted[1]:
            k = w.shape[0] if inputs is None else inputs.shape[1]  # type: ignore[union-attr]
        for i, shape in enumerate(((m, k), (k, n), (n,))):
            outs[i] = empty(rows, shape, _FLOAT32) if wanted[i] else None
    except (AttributeError, IndexError, TypeError, ValueError):
        pass  # not matrices: the compiled function says which and why
    _core.dense_linear_vjp(
        grad=rows, x=inputs, w=w, y=values, grad_x=outs[0], grad_w=outs[1], grad_bias=outs[2],
        activation=ACTIVATIONS[activation],
    )  # fmt: skip
    if outs[0] is not None and leading is not None:
        outs[0] = outs[0].reshape(*leading, outs[0].shape[1])
    return tuple(out for out in outs if out is not None)


def activation_vjp(
    grad: Float32Array, y: Float32Array, *, activation: Activation, bias: bool = False
) -> tuple[Float32Array, Float32Array | None]:
    """Gradient of ``y = activation(z + bias)`` with respect to z, and to the bias.

    Parameters
    ----------
    grad, y : (..., n) float32
        Gradient of the result, and the result; y is not read for the identity.
    activation : str
        As in `linear`.
    bias : bool
        Whether the bias' gradient is wanted.

    Returns
    -------
    dz : (..., n) float32
        ``grad activation'``; `grad` itself for the identity.
    grad_bias : (n,) float32, or None
        The sum of dz over its rows, as in `linear_vjp`.
    """
    if activation == "identity":
        return grad, linear_vjp(grad, None, None, None, needs=(False, False, True))[2] if bias else None
    found = _activation_vjp(grad, y, activation=activation, bias=bias)
    return found[0], found[1] if bias else None


@primitive
def _activation_vjp(grad: Any, y: Any, *, activation: Activation, bias: bool) -> tuple[Any, ...]:
    rows, _ = _as_rows("dense.activation_vjp", "grad", grad)
    values, _ = _as_rows("dense.activation_vjp", "y", y)
    dz = empty(grad, grad.shape, _FLOAT32)
    out, _ = _as_rows("dense.activation_vjp", "dz", dz)
    by_bias = empty(grad, grad.shape[-1:], _FLOAT32) if bias else None
    _core.dense_linear_vjp(
        grad=rows, y=values, grad_z=out, grad_bias=by_bias, activation=ACTIVATIONS[activation]
    )
    return (dz,) if by_bias is None else (dz, by_bias)


# --- gradients ----------------------------------------------------------------------------------------------


def _times_slope(g: Any, y: Any, activation: str) -> Any:
    """Multiply by the slope of the activation, which comes from its value y."""
    match activation:
        case "logistic":
            return g * (y * (1 - y))
        case "tanh":
            return g * ((1 - y) * (1 + y))
        case "relu":
            return np.where(y <= 0, np.float32(0), g)
        case "softplus":
            return g * -np.expm1(-y)
    return g


def _times_slope_of_slope(g: Any, y: Any, activation: str) -> Any:
    """Multiply by the slope of that slope in y; None where it is 0."""
    match activation:
        case "logistic":
            return g * (1 - 2 * y)
        case "tanh":
            return g * (-2 * y)
        case "softplus":
            return g * np.exp(-y)
    return None


def _rows_of(x: Any) -> Any:
    return x if x.ndim == 2 else np.reshape(x, (int(np.prod(x.shape[:-1])), x.shape[-1]))


def _matmul_rule(
    needs: tuple[bool, ...],
    g: Any,
    ans: Any,
    a: Any,
    b: Any,
    _bias: Any,
    *,
    transpose_a: bool,
    transpose_b: bool,
    activation: Activation,
) -> tuple[Any, Any, Any]:
    dz = contiguous(_times_slope(g, ans, activation))
    grad_a = grad_b = None
    if needs[0] and transpose_a:
        grad_a = matmul(b, dz, transpose_a=transpose_b, transpose_b=True)
    elif needs[0]:
        grad_a = matmul(dz, b, transpose_b=not transpose_b)
    if needs[1] and transpose_b:
        if a.dtype == np.float32:
            grad_b = matmul(dz, a, transpose_a=True, transpose_b=transpose_a)
        else:  # bytes go on the left
            grad_b = contiguous(np.transpose(matmul(a, dz, transpose_a=not transpose_a)))
    elif needs[1]:
        grad_b = matmul(a, dz, transpose_a=not transpose_a)
    grad_bias = linear_vjp(dz, None, None, None, needs=(False, False, True))[2] if needs[2] else None
    return grad_a, grad_b, grad_bias


def _linear_rule(
    needs: tuple[bool, ...], g: Any, ans: Any, x: Any, w: Any, _bias: Any = None, *, activation: Activation = "identity"
) -> tuple[Any, ...]:  # fmt: skip
    wanted = (needs[0], needs[1], len(needs) > 2 and needs[2])
    y = None if activation == "identity" else ans
    # As many as there are arguments: the bias may have been left out.
    return linear_vjp(contiguous(g), x, w, y, activation=activation, needs=wanted)[: len(needs)]


def _linear_vjp_rule(
    needs: tuple[bool, ...],
    g: tuple[Any, ...],
    _ans: Any,
    grad: Any,
    x: Any,
    w: Any,
    y: Any,
    *,
    activation: Activation,
    wanted: tuple[bool, bool, bool],
) -> tuple[Any, Any, Any, Any]:
    """Go back to dz, which is multiplied by w' and by x and is summed, and from dz = grad slope(y) to grad and y."""
    found = iter(g)
    of_x, of_w, of_bias = (next(found) if one else None for one in wanted)
    of_x, of_w = (None if one is None else contiguous(one) for one in (of_x, of_w))
    terms = []
    if of_x is not None:
        terms.append(linear(of_x, w))
    if of_w is not None:
        terms.append(linear(x, of_w))
    if of_bias is not None:
        terms.append(np.broadcast_to(of_bias, grad.shape))
    of_dz = sum(terms[1:], terms[0])
    grad_grad = grad_x = grad_w = grad_y = None
    if needs[0]:
        grad_grad = _times_slope(of_dz, y, activation)
    if needs[3]:
        grad_y = _times_slope_of_slope(of_dz * grad, y, activation)
    if (needs[1] and of_w is not None) or (needs[2] and of_x is not None):
        dz = contiguous(_rows_of(_times_slope(grad, y, activation)))
        if needs[1] and of_w is not None:
            grad_x = np.reshape(matmul(dz, of_w, transpose_b=True), x.shape)
        if needs[2] and of_x is not None:
            grad_w = matmul(_rows_of(of_x), dz, transpose_a=True)
    return grad_grad, grad_x, grad_w, grad_y


def _activation_vjp_rule(
    needs: tuple[bool, ...], g: Any, _ans: Any, grad: Any, y: Any, *, activation: Activation, bias: bool
) -> tuple[Any, Any]:
    of_dz = g[0]
    if bias and g[1] is not None:
        of_bias = np.broadcast_to(g[1], grad.shape)
        of_dz = of_bias if of_dz is None else of_dz + of_bias
    by_grad = _times_slope(of_dz, y, activation) if needs[0] else None
    by_y = _times_slope_of_slope(of_dz * grad, y, activation) if needs[1] else None
    return by_grad, by_y


defvjp(_matmul, joint=_matmul_rule)
defvjp(_activation_vjp, joint=_activation_vjp_rule)
defvjp(linear, joint=_linear_rule)
defvjp(_linear_vjp, joint=_linear_vjp_rule)


def activation_code(op: str, activation: str) -> int:
    """Return the kernels' number for an activation; raises ValueError, in the name of `op`, where there is none."""
    code = ACTIVATIONS.get(activation)
    if code is None:
        names = ", ".join(ACTIVATIONS)
        raise ValueError(f"{op}: expected activation to be one of {names}, received {activation!r}")
    return code


def _as_rows(op: str, name: str, array: Any) -> tuple[Any, tuple[int, ...] | None]:
    """(..., k) as (rows, k), sharing the memory, and the leading axes unless there is just one.

    What the kernel would refuse is left for it to say.
    """
    if not isinstance(array, np.ndarray):
        if not is_cuda_array(array) or len(array.shape) in (0, 2):
            return array, None
        return as_matrix(op, name, array), tuple(array.shape[:-1])
    if array.ndim == 2:
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
    """What matmul expects of its arguments, said of linear's; what it received may be "a strided array"."""
    message, received, found = message.partition(", received")
    for there, here in (("matmul", "linear"), ("op(a)", "x"), ("op(b)", "w"), (" a ", " x "), (" b ", " w ")):
        message = message.replace(there, here)
    return message + received + found
