"""LSTMs along sequences; `gencore.kernels.recurrent` offers its functions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.autograd import Tensor, defvjp, logistic, primitive
from gencore.autograd.tensors import plain
from gencore.kernels._arrays import empty, full
from gencore.kernels._contiguous import contiguous
from gencore.kernels._errors import renamed
from gencore.kernels._through_tape import through_tape

Float32Array = NDArray[np.float32]


def lstm(
    x: Float32Array,
    w_input: Float32Array,
    w_hidden: Float32Array,
    bias: Float32Array,
    h0: Float32Array | None = None,
    c0: Float32Array | None = None,
) -> tuple[Float32Array, Float32Array]:
    """Run an LSTM along sequences: ``z[n, t] = x[n, t] w_input + h[n, t - 1] w_hidden + bias``.

    Parameters
    ----------
    x : (N, T, D) float32
        Sequences, side by side.
    w_input, w_hidden : (D, 4H) and (H, 4H) float32
        Weights, gates i, f, g, o one after the other.
    bias : (4H,) float32
        Added to the sums.
    h0, c0 : (N, H) float32, optional
        States before the first step; 0 by default.

    Returns
    -------
    h : (N, T, H) float32
        The hidden states; the last is ``h[:, -1]``.
    c : (N, H) float32
        The cells after the last step.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order.

    Notes
    -----
    Each sum is one chain of fused multiply-adds over the inputs and then the units; the gates are computed while it is
    in the first-level cache. A sequence's bits do not depend on the others, nor on the number of threads.

    Gradient: to all inputs, by a kernel that goes back through the steps and makes the gradients of the weights in one
    product over all of them; of any order, beyond the first step by step on Tensors.

    Work: ``4 N T H (D + H)`` multiply-adds, forward, and twice that for the gradient. Extra memory: the weights packed
    once. With Tensors among the inputs, gates and cells of all steps are kept for the gradient, ``20 N T H`` bytes, and
    it takes as much again.

    Sources: Hochreiter & Schmidhuber (1997), "Long short-term memory"; Gers, Schmidhuber & Cummins (2000), "Learning to
    forget".

    Examples
    --------
    >>> x, w, u = np.ones((1, 3, 1), np.float32), np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32)
    >>> h, c = lstm(x, w, u, np.zeros(4, np.float32))
    >>> h[0, :, 0].round(4)
    array([0.3696, 0.5453, 0.6225], dtype=float32)
    """
    arguments = (x, w_input, w_hidden, bias, h0, c0)
    if any(isinstance(a, Tensor) for a in arguments):
        h, c, _, _ = _lstm_kept(*arguments)
        return h, c
    n, steps, hidden = _sequence_shape(x, w_hidden)
    h, c = empty(x, (n, steps, hidden), np.float32), empty(x, (n, hidden), np.float32)
    _core.recurrent_lstm(x=x, w_input=w_input, w_hidden=w_hidden, bias=bias, h0=h0, c0=c0, h=h, c=c)
    return h, c


def lstm_cell(
    input_sums: Float32Array, state_sums: Float32Array, c: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """One step of LSTM cells, from the two parts of their sums; the bits of `lstm` and `map_lstm`.

    Parameters
    ----------
    input_sums, state_sums : (N, 4H) float32
        Whose sum is z: of inputs and bias, and of states.
    c : (N, H) float32
        The cells before.

    Returns
    -------
    h, c : (N, H) float32
        The states, and the cells after.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order (of arrays; Tensors are brought into it).

    Notes
    -----
    Gradient: to all inputs, of any order, in Tensor operations.
    """
    arguments = (contiguous(a) if isinstance(a, Tensor) else a for a in (input_sums, state_sums, c))
    try:
        h, after = _cell(*arguments)
    except (TypeError, ValueError) as error:
        names = {"input": "input_sums", "state": "state_sums", "before": "c"}
        raise renamed(error, "recurrent.lstm_cell", **names) from None
    return h, after


@primitive
def _cell(input_sums: Any, state_sums: Any, c: Any) -> tuple[Any, Any]:
    shape = np.shape(c)
    h, after = (empty(c, shape if len(shape) == 2 else (0, 0), np.float32) for _ in "hc")
    _core.recurrent_lstm_cell(input=input_sums, state=state_sums, before=c, h=h, c=after)
    return h, after


def _cell_rule(
    needs: tuple[bool, ...], g: Any, _ans: Any, input_sums: Any, state_sums: Any, c: Any
) -> tuple[Any, ...]:
    arguments = (input_sums, state_sums, c)
    recorded = any(isinstance(a, Tensor) for a in (*g, *arguments))
    results = through_tape(needs, lambda a, b, c: cell(a + b, c), g, arguments, create_graph=recorded)
    return results if recorded else tuple(None if r is None else plain(r) for r in results)


defvjp(_cell, joint=_cell_rule)


# --- what both kinds of LSTM use ------------------------------------------------------------------------------


def cell(z: Any, c: Any) -> tuple[Any, Any]:
    """One step, in Tensor operations."""
    hidden = c.shape[-1]
    i, f, g, o = (z[..., k * hidden : (k + 1) * hidden] for k in range(4))
    after = logistic(f) * c + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(after), after


# --- sequences ------------------------------------------------------------------------------------------------


def _sequence_shape(x: Any, w_hidden: Any) -> tuple[int, int, int]:
    """N, T and H; what has none is left for the kernel to name."""
    try:
        return x.shape[0], x.shape[1], w_hidden.shape[0]
    except (AttributeError, IndexError, TypeError):
        return 0, 0, 0


@primitive
def _lstm_kept(x: Any, w_input: Any, w_hidden: Any, bias: Any, h0: Any, c0: Any) -> tuple[Any, Any, Any, Any]:
    """H and c; gates and cells are for the backward pass, and of no gradient to anybody else."""
    n, steps, hidden = _sequence_shape(x, w_hidden)
    h, c = empty(x, (n, steps, hidden), np.float32), empty(x, (n, hidden), np.float32)
    gates, cells = (empty(x, (n, steps, k * hidden), np.float32) for k in (4, 1))
    _core.recurrent_lstm(
        x=x, w_input=w_input, w_hidden=w_hidden, bias=bias, h0=h0, c0=c0, h=h, c=c, gates=gates, cells=cells
    )
    return h, c, gates, cells


def _lstm_rule(
    needs: tuple[bool, ...],
    g: Any,
    ans: Any,
    x: Any,
    w_input: Any,
    w_hidden: Any,
    bias: Any,
    h0: Any,
    c0: Any,
) -> tuple[Any, ...]:
    arguments = (x, w_input, w_hidden, bias, h0, c0)
    grad_h, grad_c = g[:2]
    if grad_h is None and grad_c is None:
        return (None,) * len(arguments)
    if any(isinstance(a, Tensor) for a in (grad_h, grad_c, *arguments)):
        return through_tape(needs, _by_steps, (grad_h, grad_c), arguments)
    h, gates, cells = (plain(ans[i]) for i in (0, 2, 3))
    found = [empty(h, a.shape, np.float32) if a is not None and need else None
             for a, need in zip(arguments, needs, strict=True)]  # fmt: skip
    for i in (1, 2, 3):
        found[i] = empty(h, arguments[i].shape, np.float32)
    _core.recurrent_lstm_vjp(
        grad_h=full(h, h.shape, 0, np.float32) if grad_h is None else contiguous(grad_h),
        grad_c=None if grad_c is None else contiguous(grad_c),
        x=x, w_input=w_input, w_hidden=w_hidden, h0=h0, c0=c0, h=h, gates=gates, cells=cells,
        grad_x=found[0], grad_w_input=found[1], grad_w_hidden=found[2], grad_bias=found[3], grad_h0=found[4],
        grad_c0=found[5],
    )  # fmt: skip
    return tuple(found)


defvjp(_lstm_kept, joint=_lstm_rule)


def _by_steps(x: Any, w_input: Any, w_hidden: Any, bias: Any, h0: Any, c0: Any) -> tuple[Any, Any]:
    """The same recurrence, step by step."""
    hidden = w_hidden.shape[0]
    zeros = full(plain(x), (x.shape[0], hidden), 0, np.float32)
    h, c = zeros if h0 is None else h0, zeros if c0 is None else c0
    states = []
    for t in range(x.shape[1]):
        h, c = cell(np.matmul(x[:, t], w_input) + np.matmul(h, w_hidden) + bias, c)
        states.append(h)
    if not states:
        return x[:, :, :1] @ w_hidden[:1, :hidden], c
    return np.stack(states, axis=1), c
