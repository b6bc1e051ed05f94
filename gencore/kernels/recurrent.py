"""Long short-term memory along sequences, and along the rows and diagonals of images.

A cell with H units goes from its sums z (4H,), of the gates i, f, g and o one after the other (PyTorch's order), and
its state before to the next: ``i = logistic(z_i)``, ``f = logistic(z_f)``, ``g = tanh(z_g)``, ``o = logistic(z_o)``,
``c = f c_before + i g``, ``h = o tanh(c)``.

Weights are (inputs, 4H), as everywhere here: PyTorch's are the transposes, and its two biases are one.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore.autograd import Tensor, defvjp, enable_grad, grad, logistic, primitive, tensor
from gencore.autograd.tensors import plain
from gencore.kernels import conv
from gencore.kernels._contiguous import contiguous

__all__ = [
    "both_sweeps",
    "diagonal_bilstm",
    "diagonal_lstm",
    "input_to_state",
    "lstm",
    "lstm_cell",
    "map_lstm",
    "row_lstm",
]

Float32Array = NDArray[np.float32]
Path = Literal["rows", "diagonals"]

_PATHS: Final = {"rows": 0, "diagonals": 1}


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
    >>> h[0, :, 0]
    array([0.36960673, 0.55012745, 0.63263154], dtype=float32)
    """
    arguments = (x, w_input, w_hidden, bias, h0, c0)
    if any(isinstance(a, Tensor) for a in arguments):
        h, c, _, _ = _lstm_kept(*arguments)
        return h, c
    n, steps, hidden = _sequence_shape(x, w_hidden)
    h, c = np.empty((n, steps, hidden), np.float32), np.empty((n, hidden), np.float32)
    _core.recurrent_lstm(x=x, w_input=w_input, w_hidden=w_hidden, bias=bias, h0=h0, c0=c0, h=h, c=c)
    return h, c


def map_lstm(z: Float32Array, weight: Float32Array, path: Path) -> Float32Array:
    """Run LSTM cells along the pixels of images, given the part z of their sums that does not depend on states.

    To z at pixel (y, x) is added the sum over taps j of ``h_j weight[j]``. Along rows, ``h_j`` is h at (y - 1,
    x + j - taps // 2), and the cell before is that of (y - 1, x). Along diagonals there are two taps, h at (y - 1, x)
    and at (y, x - 1), and the cell before is that of (y, x - 1). States beyond the image are 0.

    Parameters
    ----------
    z : (N, Y, X, S 4F) float32
        Sums of gates, sweep by sweep.
    weight : (S, taps, F, 4F) float32
        From states to gates. S is 1; or 2 along diagonals, where the second sweep goes from right to left: its second
        tap and its cell before are those of (y, x + 1).
    path : {"rows", "diagonals"}
        Which pixels are computed side by side: those of a row, or those whose ``y + x`` is the same.

    Returns
    -------
    (N, Y, X, S F) float32
        The states h, sweep by sweep.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; another path.

    Notes
    -----
    The skewed map of the paper is never made: the diagonals are read where they lie, and only pixels of the image are
    computed. Each sum is one chain of fused multiply-adds over taps and units, to which z is added. An image's bits do
    not depend on the others, nor on the number of threads.

    Gradient: to z and weight, of any order, beyond the first step by step on Tensors. Work: ``4 S taps N Y X F^2``
    multiply-adds, and twice that for the gradient. Extra memory: 12 F bytes for each pixel of a step of an image under
    way; with Tensors, gates and cells are kept for the gradient, ``20 S N Y X F`` bytes.

    Source: van den Oord, Kalchbrenner & Kavukcuoglu (2016), "Pixel recurrent neural networks".
    """
    if path not in _PATHS:
        raise ValueError(f"recurrent.map_lstm: expected path to be 'rows' or 'diagonals', received {path!r}")
    if isinstance(z, Tensor) or isinstance(weight, Tensor):
        kept: Float32Array = _map_kept(z, weight, path=path)[0]
        return kept
    h = np.empty(_map_shape(z), np.float32)
    _core.recurrent_map_lstm(z=z, w=weight, path=_PATHS[path], h=h)
    return h


def row_lstm(
    x: Float32Array,
    w_input: Float32Array,
    w_state: Float32Array,
    bias: Float32Array,
    *,
    channel_groups: int = 1,
) -> Float32Array:
    """Row LSTM: from the top down, all pixels of a row side by side, each seeing a triangle above it.

    The sums of the gates are a convolution of type B of the row, and a convolution of the states of the row above.

    Parameters
    ----------
    x : (N, Y, X, C) float32
        Feature maps.
    w_input : (1, k, C, 4F) float32
        Kernel along the row, masked as in `gencore.kernels.conv.masked_conv2d` with type B; 3 wide in the paper.
    w_state : (taps, F, 4F) float32
        Kernel over the states of the row above, around the same column; 3 wide in the paper.
    bias : (4F,) float32
        Added to the sums.
    channel_groups : int
        Groups, one for each colour, of the channels of x and of the F units.

    Returns
    -------
    (N, Y, X, F) float32
        The states h.

    Notes
    -----
    Errors, gradients, memory and source as `map_lstm` and `masked_conv2d`, which it consists of.
    """
    z = input_to_state(x, w_input, bias, channel_groups=channel_groups)
    return map_lstm(z, w_state[None], "rows")


def diagonal_lstm(
    x: Float32Array,
    w_input: Float32Array,
    w_state: Float32Array,
    bias: Float32Array,
    *,
    channel_groups: int = 1,
) -> Float32Array:
    """One direction of the Diagonal BiLSTM, from left to right: each pixel sees what is above it and to its left.

    Parameters
    ----------
    x : (N, Y, X, C) float32
        Feature maps.
    w_input : (C, 4F) float32
        From the channels of a pixel to the gates of its cell.
    w_state : (2, F, 4F) float32
        From the states of the pixel above, and of the pixel to the left.
    bias : (4F,) float32
        Added to the sums.
    channel_groups : int
        Groups, one for each colour, of the channels of x and of the F units: units of a colour see earlier colours of
        the pixel and itself.

    Returns
    -------
    (N, Y, X, F) float32
        The states h.

    Notes
    -----
    Errors, gradients, memory and source as `map_lstm`.
    """
    z = input_to_state(x, w_input[None, None], bias, channel_groups=channel_groups)
    return map_lstm(z, w_state[None], "diagonals")


def diagonal_bilstm(
    x: Float32Array,
    w_input: Float32Array,
    w_state: Float32Array,
    bias: Float32Array,
    *,
    channel_groups: int = 1,
) -> Float32Array:
    """Diagonal BiLSTM: the sum of a sweep from left to right, and of one from right to left shifted one row down.

    So each pixel sees all pixels before it: what is above and to the left by the first sweep, and whole rows above by
    the second.

    Parameters
    ----------
    x : (N, Y, X, C) float32
        Feature maps.
    w_input : (C, 8F) float32
        From the channels of a pixel to the gates of its two cells, in one product.
    w_state : (2, 2, F, 4F) float32
        Of each sweep: from the states of the pixel above, and of the pixel before in the row.
    bias : (8F,) float32
        Added to the sums.
    channel_groups : int
        As in `diagonal_lstm`.

    Returns
    -------
    (N, Y, X, F) float32
        The sum of the states.

    Notes
    -----
    Errors, gradients, memory and source as `map_lstm`.
    """
    z = input_to_state(x, w_input[None, None], bias, sweeps=2, channel_groups=channel_groups)
    return both_sweeps(map_lstm(z, w_state, "diagonals"))


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

    Notes
    -----
    Gradient: to all inputs, of any order, in Tensor operations.
    """
    if any(isinstance(a, Tensor) for a in (input_sums, state_sums, c)):
        return _cell(input_sums + state_sums, c)
    h, after = np.empty_like(c), np.empty_like(c)
    _core.recurrent_lstm_cell(input=input_sums, state=state_sums, before=c, h=h, c=after)
    return h, after


def input_to_state(
    x: Float32Array,
    weight: Float32Array,
    bias: Float32Array,
    *,
    sweeps: int = 1,
    channel_groups: int = 1,
) -> Float32Array:
    """Compute the part of the gates' sums that comes from a map, of all sweeps: a convolution of type B.

    Parameters
    ----------
    x : (N, Y, X, C) float32
        Feature maps.
    weight : (1, k, C, 4 sweeps F) float32
        Kernel along the row.
    bias : (4 sweeps F,) float32
        Added to the sums.
    sweeps : int
        LSTMs side by side.
    channel_groups : int
        Groups, one for each colour, of the channels of x and of the F units.

    Returns
    -------
    (N, Y, X, 4 sweeps F) float32

    Raises
    ------
    ValueError
        Units that are no multiple of `channel_groups`.

    Notes
    -----
    Otherwise as `gencore.kernels.conv.masked_conv2d`, whose groups are of neighbouring channels: columns are brought
    into that order and back.
    """
    if channel_groups == 1:
        if weight.shape[:2] == (1, 1):
            return conv.conv2d(x, weight, bias)
        return conv.masked_conv2d(x, weight, bias, "B")
    columns = weight.shape[-1]
    if columns % (4 * sweeps * channel_groups) != 0:
        raise ValueError(
            f"recurrent.input_to_state: expected the units to be a multiple of channel_groups, {channel_groups}, "
            f"received {columns // 4 // sweeps}"
        )
    each = columns // (4 * sweeps * channel_groups)
    w: Any = weight.reshape(*weight.shape[:3], 4 * sweeps, channel_groups, each)
    w = np.transpose(w, (0, 1, 2, 4, 3, 5)).reshape(weight.shape)
    b: Any = np.transpose(bias.reshape(4 * sweeps, channel_groups, each), (1, 0, 2)).reshape(columns)
    z = conv.masked_conv2d(x, contiguous(w), contiguous(b), "B", channel_groups)
    by_colour = z.reshape(*z.shape[:3], channel_groups, 4 * sweeps, each)
    by_gate: Float32Array = contiguous(np.transpose(by_colour, (0, 1, 2, 4, 3, 5)).reshape(z.shape))
    return by_gate


def both_sweeps(h: Float32Array) -> Float32Array:
    """Add the states of the second sweep of `map_lstm`, one row further down, to those of the first.

    (N, Y, X, 2F) -> (N, Y, X, F). In the first row there is nothing to add.
    """
    units = h.shape[-1] // 2
    first: Any = h[..., :units]
    above: Any = np.concatenate(
        [np.zeros((*h.shape[:1], 1, h.shape[2], units), h.dtype), h[:, :-1, :, units:]], axis=1
    )
    both: Float32Array = first + above
    return both


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
    h, c = np.empty((n, steps, hidden), np.float32), np.empty((n, hidden), np.float32)
    gates, cells = np.empty((n, steps, 4 * hidden), np.float32), np.empty((n, steps, hidden), np.float32)
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
        return _through_tape(needs, _by_steps, (grad_h, grad_c), arguments)
    h, gates, cells = (plain(ans[i]) for i in (0, 2, 3))
    found = [np.empty(a.shape, np.float32) if a is not None and need else None
             for a, need in zip(arguments, needs, strict=True)]  # fmt: skip
    for i in (1, 2, 3):
        found[i] = np.empty(arguments[i].shape, np.float32)
    _core.recurrent_lstm_vjp(
        grad_h=np.zeros_like(h) if grad_h is None else contiguous(grad_h),
        grad_c=None if grad_c is None else contiguous(grad_c),
        x=x, w_input=w_input, w_hidden=w_hidden, h0=h0, c0=c0, h=h, gates=gates, cells=cells,
        grad_x=found[0], grad_w_input=found[1], grad_w_hidden=found[2], grad_bias=found[3], grad_h0=found[4],
        grad_c0=found[5],
    )  # fmt: skip
    return tuple(found)


defvjp(_lstm_kept, joint=_lstm_rule)


def _through_tape(
    needs: tuple[bool, ...], function: Any, grads: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The gradients of a function of Tensors, themselves recorded.

    They are partial: arguments may depend on each other, so each goes in by an identity at which its own begins.
    """
    with enable_grad():
        leaves = [
            None if a is None else contiguous(a) if isinstance(a, Tensor) else tensor(a, requires_grad=True)
            for a in arguments
        ]
        results = function(*leaves)
        given = [(y, g) for y, g in zip(results, grads, strict=True) if g is not None]
        wanted = [a for a, need in zip(leaves, needs, strict=True) if need and a is not None]
        found = iter(
            grad([y for y, _ in given], wanted, [g for _, g in given], create_graph=True, allow_unused=True)
        )
    return tuple(
        next(found) if need and a is not None else None for a, need in zip(leaves, needs, strict=True)
    )


def _cell(z: Any, c: Any) -> tuple[Any, Any]:
    """One step, in Tensor operations."""
    hidden = c.shape[-1]
    i, f, g, o = (z[..., k * hidden : (k + 1) * hidden] for k in range(4))
    after = logistic(f) * c + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(after), after


def _by_steps(x: Any, w_input: Any, w_hidden: Any, bias: Any, h0: Any, c0: Any) -> tuple[Any, Any]:
    """The same recurrence, step by step."""
    hidden = w_hidden.shape[0]
    zeros = np.zeros((x.shape[0], hidden), np.float32)
    h, c = zeros if h0 is None else h0, zeros if c0 is None else c0
    states = []
    for t in range(x.shape[1]):
        h, c = _cell(np.matmul(x[:, t], w_input) + np.matmul(h, w_hidden) + bias, c)
        states.append(h)
    if not states:
        return x[:, :, :1] @ w_hidden[:1, :hidden], c
    return np.stack(states, axis=1), c


# --- images ---------------------------------------------------------------------------------------------------


def _map_shape(z: Any) -> tuple[int, ...]:
    """Of the states whose gates' sums are z; what is no map is left for the kernel to name."""
    shape = np.shape(z)
    return (*shape[:3], shape[3] // 4) if len(shape) == 4 else (0, 0, 0, 0)


@primitive
def _map_kept(z: Any, w: Any, *, path: str) -> tuple[Any, Any, Any]:
    """The states; gates and cells are for the backward pass, and of no gradient to anybody else."""
    shape = _map_shape(z)
    h, gates, cells = (np.empty((*shape[:3], k * shape[3]), np.float32) for k in (1, 4, 1))
    _core.recurrent_map_lstm(z=z, w=w, path=_PATHS[path], h=h, gates=gates, cells=cells)
    return h, gates, cells


def _map_rule(needs: tuple[bool, ...], g: Any, ans: Any, z: Any, w: Any, *, path: str) -> tuple[Any, ...]:
    if g[0] is None:
        return None, None
    if any(isinstance(a, Tensor) for a in (g[0], z, w)):
        return _through_tape(needs, lambda z, w: (_by_pixels(z, w, path),), g[:1], (z, w))
    h, gates, cells = (plain(a) for a in ans)
    grad_z, grad_w = np.empty(gates.shape, np.float32), np.empty(w.shape, np.float32)
    _core.recurrent_map_lstm_vjp(
        grad_h=contiguous(g[0]),
        w=w,
        path=_PATHS[path],
        h=h,
        gates=gates,
        cells=cells,
        grad_z=grad_z,
        grad_w=grad_w,
    )
    return grad_z, grad_w


defvjp(_map_kept, joint=_map_rule)


def _pixels_in_order(
    path: str, reverse: bool, height: int, width: int, taps: int
) -> Iterator[tuple[list[int], list[list[int]], list[int]]]:
    """Each step's pixels; for each tap and for the cell, where in the step before what they meet lies, or behind it."""
    before: dict[tuple[int, int], int] = {}
    for d in range(height if path == "rows" else height + width - 1):
        if path == "rows":
            pixels = [(d, x) for x in range(width)]
            met = [[(y - 1, x + j - taps // 2) for y, x in pixels] for j in range(taps)]
            cells = [(y - 1, x) for y, x in pixels]
        else:
            pixels = [(y, d - y) for y in range(height) if 0 <= d - y < width]
            cells = [(y, x - 1) for y, x in pixels]
            met = [[(y - 1, x) for y, x in pixels], cells]
        none = len(before)
        yield (
            [y * width + (width - 1 - x if reverse else x) for y, x in pixels],
            [[before.get(pixel, none) for pixel in tap] for tap in met],
            [before.get(pixel, none) for pixel in cells],
        )
        before = {pixel: k for k, pixel in enumerate(pixels)}


def _by_pixels(z: Any, w: Any, path: str) -> Any:
    """The same recurrence, step by step."""
    n, height, width = z.shape[:3]
    units, sweeps = w.shape[2], []
    zeros = np.zeros((n, 1, units), np.float32)
    for s in range(w.shape[0]):
        sums = z[..., 4 * s * units : 4 * (s + 1) * units].reshape(n, height * width, 4 * units)
        h, c, states, order = zeros[:, :0], zeros[:, :0], [], []
        for pixels, taps, cells in _pixels_in_order(path, s == 1, height, width, w.shape[1]):
            h, c = np.concatenate([h, zeros], axis=1), np.concatenate([c, zeros], axis=1)
            met = sum((np.matmul(h[:, tap], w[s, j]) for j, tap in enumerate(taps)), start=sums[:, pixels])
            h, c = _cell(met, c[:, cells])
            states.append(h)
            order += pixels
        sweeps.append(np.concatenate(states, axis=1)[:, np.argsort(order)].reshape(n, height, width, units))
    return np.concatenate(sweeps, axis=3)
