"""LSTMs along the rows and diagonals of images; `gencore.kernels.recurrent` offers its functions."""

from collections.abc import Iterator
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore._checks import count, entry
from gencore.autograd import Tensor, defvjp, primitive
from gencore.autograd.tensors import plain
from gencore.kernels import conv, dense
from gencore.kernels._arrays import empty, full
from gencore.kernels._contiguous import contiguous
from gencore.kernels._errors import renamed, shaped
from gencore.kernels._lstm import cell
from gencore.kernels._pixels import MASKS
from gencore.kernels._through_tape import through_tape

Float32Array = NDArray[np.float32]
Path = Literal["rows", "diagonals"]

_PATHS: Final = {"rows": 0, "diagonals": 1}


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
    op = "recurrent.map_lstm"
    number = _path(op, path)
    try:
        if isinstance(z, Tensor) or isinstance(weight, Tensor):
            kept: Float32Array = _map_kept(z, weight, path=path)[0]
            return kept
        h: Float32Array = empty(z, _map_shape(z, weight), np.float32)
        _core.recurrent_map_lstm(z=z, w=weight, path=number, h=h)
    except (TypeError, ValueError) as error:
        raise renamed(error, op, w="weight", h="the states") from None
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
    op = "recurrent.row_lstm"
    shaped(op, "w_state", w_state, "taps", "F", "4F")
    return _of_map(op, x, w_input, w_state[None], bias, "rows", channel_groups)


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
    op = "recurrent.diagonal_lstm"
    shaped(op, "w_input", w_input, "C", "4F")
    shaped(op, "w_state", w_state, 2, "F", "4F")
    return _of_map(op, x, w_input[None, None], w_state[None], bias, "diagonals", channel_groups)


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
    op = "recurrent.diagonal_bilstm"
    shaped(op, "w_input", w_input, "C", "8F")
    shaped(op, "w_state", w_state, 2, 2, "F", "4F")
    return both_sweeps(_of_map(op, x, w_input[None, None], w_state, bias, "diagonals", channel_groups))


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
    ValueError, TypeError
        Wrong shape, dtype or memory order; channels or units that are no multiple of `channel_groups`.

    Notes
    -----
    Otherwise as `gencore.kernels.conv.masked_conv2d`, whose groups are of neighbouring channels: columns are brought
    into that order and back.
    """
    op = "recurrent.input_to_state"
    gates = 4 * count(op, "sweeps", sweeps)
    _check_input(op, x, weight, bias, gates, channel_groups, name="weight")
    try:
        return _input_to_state(x, weight, bias, gates, channel_groups)
    except (TypeError, ValueError) as error:
        raise renamed(error, op) from None


def _check_input(
    op: str, x: Any, weight: Any, bias: Any, gates: int, groups: int, *, name: str = "w_input"
) -> None:
    """What convolutions would not say of the arguments of `input_to_state`, by whatever name."""
    count(op, "channel_groups", groups)
    channels = shaped(op, "x", x, "N", "Y", "X", "C")[3]
    _, _, _, columns = shaped(op, name, weight, 1, "k", channels, f"{gates} F")
    shaped(op, "bias", bias, columns)
    if columns % gates != 0:
        raise ValueError(f"{op}: expected {name} of {gates} F columns, received {columns}")
    for what, number in (("the channels of x", channels), ("the units", columns // gates)):
        if number % groups != 0:
            raise ValueError(
                f"{op}: expected {what} to be a multiple of channel_groups, {groups}, received {number}"
            )


def _input_to_state(x: Any, weight: Any, bias: Any, gates: int, channel_groups: int) -> Float32Array:
    if channel_groups == 1:
        if weight.shape[:2] == (1, 1):
            return conv.conv2d(x, weight, bias)
        return conv.masked_conv2d(x, weight, bias, "B")
    order = gates, channel_groups
    w, b = (_regrouped(a, *order) for a in (weight, bias))
    z = conv.masked_conv2d(x, w, b, "B", channel_groups)
    by_gate: Float32Array = _regrouped(z, *order[::-1])
    return by_gate


def _regrouped(array: Any, a: int, b: int) -> Any:
    """The columns, which are (a, b, rest), as (b, a, rest)."""
    parts = array.reshape(*array.shape[:-1], a, b, array.shape[-1] // (a * b))
    return contiguous(np.swapaxes(parts, -3, -2).reshape(array.shape))


def lstm_of_map(
    x: Float32Array,
    w_input: Float32Array,
    w_state: Float32Array,
    bias: Float32Array,
    path: Path,
    *,
    channel_groups: int = 1,
) -> Float32Array:
    """`map_lstm` of what `input_to_state` makes of a map, as one op.

    Parameters
    ----------
    x : (N, Y, X, C) float32
        Feature maps.
    w_input, bias
        As in `input_to_state`.
    w_state : (S, taps, F, 4F) float32
        As in `map_lstm`.
    path : {"rows", "diagonals"}
        As in `map_lstm`.
    channel_groups : int
        As in `input_to_state`.

    Returns
    -------
    (N, Y, X, S F) float32
        The states h, sweep by sweep.

    Notes
    -----
    The sums of the gates, the largest of all arrays here, become the gates in place. The bits and everything else are
    those of the two functions; with Tensors, ``20 S N Y X F`` bytes are kept for the gradient, which takes ``16 S N Y X
    F`` more.
    """
    op = "recurrent.lstm_of_map"
    shaped(op, "w_state", w_state, "S", "taps", "F", "4F")
    return _of_map(op, x, w_input, w_state, bias, path, channel_groups)


def _of_map(op: str, x: Any, w_input: Any, w_state: Any, bias: Any, path: Path, groups: int) -> Float32Array:
    """`lstm_of_map` in the name of `op`."""
    number = _path(op, path)
    sweeps, _, units, columns = w_state.shape
    if columns != 4 * units:
        raise ValueError(
            f"{op}: expected w_state of {4 * units} columns, four gates of its units, received {columns}"
        )
    gates = 4 * sweeps
    _check_input(op, x, w_input, bias, gates, groups)
    if w_input.shape[3] != gates * units:
        raise ValueError(
            f"{op}: expected w_input of {gates * units} columns, the gates of w_state, received {w_input.shape[3]}"
        )
    arguments = (x, w_input, bias, w_state)
    try:
        if any(isinstance(a, Tensor) for a in arguments):
            kept: Float32Array = _lstm_of_map(*arguments, path=path, groups=groups)[0]
            return kept
        z = _input_to_state(x, w_input, bias, gates, groups)
        h: Float32Array = empty(z, _map_shape(z, w_state), np.float32)
        _core.recurrent_map_lstm(z=z, w=w_state, path=number, h=h)
    except (TypeError, ValueError) as error:
        raise renamed(error, op, weight="w_input", w="w_state") from None
    return h


def both_sweeps(h: Float32Array) -> Float32Array:
    """Add the states of the second sweep of `map_lstm`, one row further down, to those of the first.

    (N, Y, X, 2F) -> (N, Y, X, F). In the first row there is nothing to add.
    """
    units = h.shape[-1] // 2
    first: Any = h[..., :units]
    above: Any = np.concatenate(
        [full(plain(h), (h.shape[0], 1, h.shape[2], units), 0, h.dtype), h[:, :-1, :, units:]], axis=1
    )
    both: Float32Array = first + above
    return both


# --- gradients------------------------------------------------------------------------------------------------


def _path(op: str, path: str) -> int:
    number = entry(_PATHS, path)
    if number is None:
        raise ValueError(f"{op}: expected path to be 'rows' or 'diagonals', received {path!r}")
    return number


def _map_shape(z: Any, w: Any) -> tuple[int, ...]:
    """Of the states whose gates' sums are z, by weights w; what is no map is left for the kernel to name."""
    shape, weights = np.shape(z), np.shape(w)
    return (*shape[:3], weights[0] * weights[2]) if len(shape) == len(weights) == 4 else (0, 0, 0, 0)


@primitive
def _map_kept(z: Any, w: Any, *, path: str) -> tuple[Any, Any, Any]:
    """The states; gates and cells are for the backward pass, and of no gradient to anybody else."""
    shape = _map_shape(z, w)
    h, gates, cells = (empty(z, (*shape[:3], k * shape[3]), np.float32) for k in (1, 4, 1))
    _core.recurrent_map_lstm(z=z, w=w, path=_PATHS[path], h=h, gates=gates, cells=cells)
    return h, gates, cells


def _map_rule(needs: tuple[bool, ...], g: Any, ans: Any, z: Any, w: Any, *, path: str) -> tuple[Any, ...]:
    if g[0] is None:
        return None, None
    if any(isinstance(a, Tensor) for a in (g[0], z, w)):
        return through_tape(needs, lambda z, w: (_by_pixels(z, w, path),), g[:1], (z, w))
    h, gates, cells = (plain(a) for a in ans)
    grad_z, grad_w = (empty(h, a.shape, np.float32) for a in (gates, w))
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


@primitive
def _lstm_of_map(
    x: Any, w_input: Any, bias: Any, w_state: Any, *, path: str, groups: int
) -> tuple[Any, Any, Any]:
    """As `_map_kept`."""
    z = _input_to_state(x, w_input, bias, 4 * w_state.shape[0], groups)
    h, cells = (empty(z, _map_shape(z, w_state), np.float32) for _ in range(2))
    _core.recurrent_map_lstm(z=z, w=w_state, path=_PATHS[path], h=h, gates=z, cells=cells)
    return h, z, cells


def _lstm_of_map_rule(
    needs: tuple[bool, ...],
    g: Any,
    ans: Any,
    x: Any,
    w_input: Any,
    bias: Any,
    w_state: Any,
    *,
    path: str,
    groups: int,
) -> tuple[Any, ...]:
    if g[0] is None:
        return (None,) * 4
    sweeps = w_state.shape[0]
    if any(isinstance(a, Tensor) for a in (g[0], x, w_input, bias, w_state)):

        def again(x: Any, w_input: Any, bias: Any, w_state: Any) -> tuple[Any]:
            z = _input_to_state(x, w_input, bias, 4 * sweeps, groups)
            return (_by_pixels(z, w_state, path),)

        return through_tape(needs, again, g[:1], (x, w_input, bias, w_state))
    grad_z, by_state = _map_rule((True, True), g, ans, None, w_state, path=path)
    return *_input_rule(needs[:3], grad_z, x, w_input, groups, 4 * sweeps), by_state


def _input_rule(
    needs: tuple[bool, ...], grad_z: Any, x: Any, weight: Any, groups: int, gates: int
) -> tuple[Any, ...]:
    """The gradients of `input_to_state`, whose kernels have one row."""
    by_bias = dense.activation_vjp(grad_z, grad_z, activation="identity", bias=True)[1]
    if groups > 1:
        weight, grad_z = (_regrouped(a, gates, groups) for a in (weight, grad_z))
    options = {"stride_h": 1, "stride_w": 1, "pad_top": 0, "pad_left": weight.shape[1] // 2,
               "mask": MASKS["B"], "channel_groups": groups}  # fmt: skip
    by_x = conv._conv2d_input(grad_z, weight, size=x.shape[1:3], **options) if needs[0] else None
    by_weight = conv._conv2d_weight(x, grad_z, kernel=weight.shape[:2], **options)
    return by_x, by_weight if groups == 1 else _regrouped(by_weight, groups, gates), by_bias


defvjp(_lstm_of_map, joint=_lstm_of_map_rule)


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
    zeros = full(plain(z), (n, 1, units), 0, np.float32)
    for s in range(w.shape[0]):
        sums = z[..., 4 * s * units : 4 * (s + 1) * units].reshape(n, height * width, 4 * units)
        h, c, states, order = zeros[:, :0], zeros[:, :0], [], []
        for pixels, taps, cells in _pixels_in_order(path, s == 1, height, width, w.shape[1]):
            h, c = np.concatenate([h, zeros], axis=1), np.concatenate([c, zeros], axis=1)
            met = sum((np.matmul(h[:, tap], w[s, j]) for j, tap in enumerate(taps)), start=sums[:, pixels])
            h, c = cell(met, c[:, cells])
            states.append(h)
            order += pixels
        sweeps.append(
            np.concatenate(states, axis=1)[:, np.argsort(order).tolist()].reshape(n, height, width, units)
        )
    return np.concatenate(sweeps, axis=3)
