"""Masked layers; `gencore.kernels.autoregressive` offers the function."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.autograd import defvjp, primitive
from gencore.kernels import dense
from gencore.kernels._arrays import empty
from gencore.kernels._contiguous import contiguous

Float32Array = NDArray[np.float32]
DegreeArray = NDArray[np.int64]

_NAME = "autoregressive.masked_linear"


def masked_linear(
    x: dense.Factor,
    w: Float32Array,
    bias: Float32Array | None = None,
    *,
    in_degree: DegreeArray,
    out_degree: DegreeArray,
    strict: bool = False,
    activation: dense.Activation = "identity",
) -> Float32Array:
    """Layer whose units see what comes before: ``activation(x (w * M) + bias)``, the layer of MADE.

    ``M[i, j] = out_degree[j] >= in_degree[i]``; with `strict`, ``out_degree[j] > in_degree[i]``.

    Parameters
    ----------
    x : (m, k) float32, uint8 or bool
        Rows of inputs. Bytes must be 0 and 1.
    w : (k, n) float32
        Weights. What they hold where M is 0 is never read.
    bias : (n,) float32, optional
        Added to every row.
    in_degree, out_degree : (k,) and (n,) int64
        Any integers, in any order: of dimensions their places in the order, of hidden units the last place that they
        see.
    strict : bool
        Of layers whose units must not see their own degree: those that put out.
    activation : {"identity", "logistic", "tanh", "relu", "softplus"}
        As in `gencore.kernels.dense.matmul`.

    Returns
    -------
    (m, n) float32

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order, an unknown activation, bytes other than 0 and 1.

    Notes
    -----
    With inputs and units each by ascending degree M is a staircase, and products run up to it: of n units with degrees
    spread evenly, 1 / 2 of the dense work and 24 / n more on AVX-512 (12 / n below), where a step runs through a panel.
    There masked weights count as 0, so that a NaN or inf in x can reach units of nearly the degree that see it.

    Each element is one chain of fused multiply-adds from 0 over the inputs that it sees, by ascending degree (equal
    ones as they lie): the bits are the same for any number of threads, whatever else is in the batch, and, where
    degrees ascend and all is finite, those of `gencore.kernels.dense.linear` with ``w * M``. Bytes select and add rows
    of w, at a cost in proportion to their ones, with the same bits.

    Gradient: to x, w and bias, of any order; that of masked weights is exactly 0.

    Extra memory: panels on the stack of each thread. Degrees that do not ascend: copies of what they order, x or the
    result. Bytes: x as bits, and w packed. On a CUDA device 8 bytes for each degree; there, where nothing is waited
    for, bytes other than 0 count as 1.

    Source: Germain, Gregor, Murray & Larochelle (2015), "MADE: Masked autoencoder for distribution estimation".

    Examples
    --------
    >>> x, w = np.array([[1, 2, 4]], np.float32), np.ones((3, 3), np.float32)
    >>> order = np.arange(3)
    >>> masked_linear(x, w, in_degree=order, out_degree=order)
    array([[1., 3., 7.]], dtype=float32)
    >>> masked_linear(x, w, in_degree=order, out_degree=order, strict=True)
    array([[0., 1., 3.]], dtype=float32)
    """
    dense.activation_code(_NAME, activation)
    degrees = {"in_degree": in_degree, "out_degree": out_degree, "strict": strict}
    out: Float32Array = _forward(x, w, bias, activation=activation, **degrees)
    return out


# --- the three ops, each of which is linear in its two arrays ------------------------------------------------


@primitive
def _forward(x: Any, w: Any, bias: Any, *, activation: str, **degrees: Any) -> Any:
    out = empty(x, _shape(x, 0, w, 1), np.float32)
    _core.autoregressive_masked_linear(
        x=x, w=w, bias=bias, out=out, activation=dense.ACTIVATIONS[activation], **degrees
    )
    return out


@primitive
def _input(grad: Any, w: Any, **degrees: Any) -> Any:
    out = empty(grad, _shape(grad, 0, w, 0), np.float32)
    _core.autoregressive_masked_linear_input(grad=grad, w=w, out=out, **degrees)
    return out


@primitive
def _weight(x: Any, grad: Any, **degrees: Any) -> Any:
    out = empty(x, _shape(x, 1, grad, 1), np.float32)
    _core.autoregressive_masked_linear_weight(x=x, grad=grad, out=out, **degrees)
    return out


def _shape(a: Any, axis: int, b: Any, axis_b: int) -> tuple[int, int]:
    """An axis of each; what are no matrices is left for the kernel to name."""
    try:
        return a.shape[axis], b.shape[axis_b]
    except (AttributeError, IndexError, TypeError):
        return 0, 0


def _forward_rule(
    needs: tuple[bool, ...],
    g: Any,
    ans: Any,
    x: Any,
    w: Any,
    _bias: Any,
    *,
    activation: dense.Activation,
    **degrees: Any,
) -> tuple[Any, Any, Any]:
    dz, by_bias = dense.activation_vjp(contiguous(g), ans, activation=activation, bias=needs[2])
    by_x = _input(dz, w, **degrees) if needs[0] else None
    by_w = _weight(x, dz, **degrees) if needs[1] else None
    return by_x, by_w, by_bias


def _input_rule(
    needs: tuple[bool, ...], g: Any, _ans: Any, grad: Any, w: Any, **degrees: Any
) -> tuple[Any, Any]:
    g = contiguous(g)
    by_grad = _forward(g, w, None, activation="identity", **degrees) if needs[0] else None
    by_w = _weight(g, grad, **degrees) if needs[1] else None
    return by_grad, by_w


def _weight_rule(
    needs: tuple[bool, ...], g: Any, _ans: Any, x: Any, grad: Any, **degrees: Any
) -> tuple[Any, Any]:
    g = contiguous(g)
    by_x = _input(grad, g, **degrees) if needs[0] else None
    by_grad = _forward(x, g, None, activation="identity", **degrees) if needs[1] else None
    return by_x, by_grad


defvjp(_forward, joint=_forward_rule)
defvjp(_input, joint=_input_rule)
defvjp(_weight, joint=_weight_rule)
