"""Convolutions of images (N, H, W, C), plain, transposed and masked.

Kernels are (kh, kw, C_in, C_out). As everywhere in this field, "convolution" does not turn the kernel around: a pixel
of the result is ``out[n, y, x] = sum over taps (i, j) of in[n, y stride + i - pad, x stride + j - pad] w[i, j]``,
with 0 beyond the image. Products run straight along the rows of pixels; no window is copied, and a masked tap costs
nothing.

Arrays may also be CuPy's, or others with ``__cuda_array_interface__``: results are made on their device, kernels are
queued on CuPy's (or PyTorch's) current stream, and nothing waits for them. Stacks run there layer by layer over the
batch, with all maps in memory; what nobody waits to look at, a label or a level that there is not, makes its image NaN.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore._checks import entry
from gencore.autograd import defvjp, primitive
from gencore.autograd.tensors import plain
from gencore.kernels import dense
from gencore.kernels._arrays import empty
from gencore.kernels._contiguous import contiguous
from gencore.kernels._errors import renamed, shaped
from gencore.kernels._pixels import (
    MASKS,
    PixelLayer,
    pixel_draw,
    pixel_log_prob,
    pixel_sample,
    pixel_stack,
)

__all__ = [
    "PixelLayer",
    "conv2d",
    "conv_transpose2d",
    "masked_conv2d",
    "pixel_draw",
    "pixel_log_prob",
    "pixel_sample",
    "pixel_stack",
]

Float32Array = NDArray[np.float32]
Mask = Literal["A", "B", "rows-A", "rows-B"]
Pair = int | tuple[int, int]

_FLOAT32: Final = np.dtype(np.float32)


def conv2d(
    x: Float32Array,
    weight: Float32Array,
    bias: Float32Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair | Literal["same"] = 0,
    activation: dense.Activation = "identity",
) -> Float32Array:
    """Two-dimensional convolution: ``activation(x * weight + bias)``.

    Parameters
    ----------
    x : (N, H, W, C_in) float32
        Images.
    weight : (kh, kw, C_in, C_out) float32
        Kernel.
    bias : (C_out,) float32, optional
        Added to every pixel.
    stride : int or pair
        Pixels from one window to the next, along rows and columns.
    padding : int, pair or "same"
        Rows above and below, and columns on both sides, of zeros; less than the kernel's. "same", with stride 1, keeps
        the size; an even kernel then reaches one pixel further up and to the left.
    activation : {"identity", "logistic", "tanh", "relu", "softplus"}
        Applied while the result is in the cache.

    Returns
    -------
    (N, H', W', C_out) float32
        ``H' = (H + 2 padding - kh) // stride + 1``.

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; a window larger than the padded image.

    Notes
    -----
    Each element is one chain of fused multiply-adds from 0, over rows of taps, columns of taps and channels: the same
    bits for any number of threads and whatever else is in the batch. Gradient: to x, weight and bias, to any order.
    Extra memory: the weights packed once, and for each thread a padded copy of the rows it works on. On a CUDA device
    none; for the weights' gradient up to 512 kernels, the fewer the larger they are, and one for each image at most.

    Examples
    --------
    >>> x = np.ones((1, 3, 3, 1), np.float32)
    >>> conv2d(x, np.ones((3, 3, 1, 1), np.float32), padding="same")[0, :, :, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    op = "conv.conv2d"
    kernel = _kernel(op, "weight", weight)
    if padding == "same":
        if _pair(op, "stride", stride) != (1, 1):
            raise ValueError(
                f"{op}: expected padding to be numbers with a stride, received 'same' and {stride}"
            )
        return _convolve(
            op, x, weight, bias, (1, 1), tuple(k // 2 for k in kernel), None, activation, mask=0, groups=1
        )
    pads = _pair(op, "padding", padding, least=0)
    return _convolve(
        op, x, weight, bias, _pair(op, "stride", stride), pads, pads, activation, mask=0, groups=1
    )


def masked_conv2d(
    x: Float32Array,
    weight: Float32Array,
    bias: Float32Array | None = None,
    mask: Mask = "B",
    channel_groups: int = 1,
    *,
    activation: dense.Activation = "identity",
) -> Float32Array:
    """Convolution that sees only what comes before: the layer of a PixelCNN.

    Parameters
    ----------
    x : (N, H, W, C_in) float32
        Images.
    weight : (kh, kw, C_in, C_out) float32
        Kernel; its centre is (kh // 2, kw // 2). What masked taps hold is never read.
    bias : (C_out,) float32, optional
        Added to every pixel.
    mask : {"A", "B", "rows-A", "rows-B"}
        In raster order, a pixel sees those before it ("A"), or itself, too ("B"); or the rows above it, whole
        ("rows-A"), or its own row, too ("rows-B"): the vertical stack of a gated PixelCNN. Its horizontal stack has a
        kernel of one row and a mask of type A or B.
    channel_groups : int
        Colours. Channels come colour by colour, as many of each; of its own pixel a colour sees the colours before it
        (A), or itself, too (B).
    activation : str
        As in `conv2d`.

    Returns
    -------
    (N, H, W, C_out) float32

    Raises
    ------
    ValueError, TypeError
        Wrong shape, dtype or memory order; an unknown mask; channels that are no multiple of `channel_groups`.

    Notes
    -----
    Masked taps are skipped, not multiplied by 0: half the work, and NaN in what a pixel must not see does not reach it.
    The gradient of masked taps is 0. Chains, gradients and memory as in `conv2d`.

    Sources: van den Oord, Kalchbrenner & Kavukcuoglu (2016), "Pixel recurrent neural networks"; van den Oord et al.
    (2016), "Conditional image generation with PixelCNN decoders".

    Examples
    --------
    >>> x = np.ones((1, 3, 3, 1), np.float32)
    >>> masked_conv2d(x, np.ones((3, 3, 1, 1), np.float32), mask="A")[0, :, :, 0]
    array([[0., 1., 1.],
           [2., 4., 3.],
           [2., 4., 3.]], dtype=float32)
    """
    op = "conv.masked_conv2d"
    number = None if mask is None else entry(MASKS, mask)
    if number is None:
        raise ValueError(f"{op}: expected mask to be 'A', 'B', 'rows-A' or 'rows-B', received {mask!r}")
    pads = tuple(k // 2 for k in _kernel(op, "weight", weight))
    return _convolve(op, x, weight, bias, (1, 1), pads, None, activation, mask=number, groups=channel_groups)


def conv_transpose2d(
    x: Float32Array,
    weight: Float32Array,
    bias: Float32Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
) -> Float32Array:
    """Transposed convolution: the gradient of `conv2d` for its input, as a layer.

    Parameters
    ----------
    x : (N, H, W, C_in) float32
        Images.
    weight : (kh, kw, C_out, C_in) float32
        Kernel of the convolution that this one transposes, from the result's channels to those of `x`.
    bias : (C_out,) float32, optional
        Added to every pixel.
    stride, padding : int or pair
        Of that convolution.
    output_padding : int or pair
        Rows and columns more, below and on the right; less than the stride.

    Returns
    -------
    (N, H', W', C_out) float32
        ``H' = (H - 1) stride - 2 padding + kh + output_padding``.

    Notes
    -----
    No zeros are put between pixels: pixels of the result that lie a stride apart see the same taps, and are computed
    together. Gradients, to any order, memory and errors as in `conv2d`.

    Examples
    --------
    >>> conv_transpose2d(np.ones((1, 2, 2, 1), np.float32), np.ones((2, 2, 1, 1), np.float32), stride=2).shape
    (1, 4, 4, 1)
    """
    op = "conv.conv_transpose2d"
    kernel = _kernel(op, "weight", weight)
    strides, pads = _pair(op, "stride", stride), _pair(op, "padding", padding, least=0)
    _check_padding(op, pads, kernel)
    extra = _pair(op, "output_padding", output_padding, least=0)
    if any(e >= s for e, s in zip(extra, strides, strict=True)):
        raise ValueError(f"{op}: expected output_padding below stride {strides}, received {extra}")
    height, width = _image_size(op, "x", x)
    size = tuple(
        (n - 1) * s - 2 * p + k + e
        for n, s, p, k, e in zip((height, width), strides, pads, kernel, extra, strict=True)
    )
    if min(size) < 0:
        raise ValueError(f"{op}: expected padding that leaves a result, received {pads}")
    options = _options(strides, pads, 0, 1)
    try:
        out: Float32Array = _conv2d_input(x, weight, size=size, **options)
    except (TypeError, ValueError) as error:
        raise renamed(error, op, grad="x", w="weight") from None
    if bias is None:
        return out
    shaped(op, "bias", bias, out.shape[3])
    if plain(bias).dtype != plain(out).dtype:
        raise TypeError(f"{op}: expected bias of dtype float32, received {bias.dtype}")
    return out + bias


# --- the three ops, each of which is linear in its two arrays ------------------------------------------------


@primitive
def _conv2d(x: Any, w: Any, bias: Any, *, size: tuple[int, ...], activation: str, **options: int) -> Any:
    out = empty(x, _shape(x, 0, 1, size, w, 3), _FLOAT32)
    _core.conv_conv2d(
        x=x, w=w, bias=bias, out=out, activation=dense.activation_code("conv.conv2d", activation), **options
    )
    return out


@primitive
def _conv2d_input(grad: Any, w: Any, *, size: tuple[int, ...], **options: int) -> Any:
    out = empty(grad, _shape(grad, 0, 1, size, w, 2), _FLOAT32)
    _core.conv_conv2d_input(grad=grad, w=w, out=out, **options)
    return out


@primitive
def _conv2d_weight(x: Any, grad: Any, *, kernel: tuple[int, ...], **options: int) -> Any:
    out = empty(x, (*kernel, *_shape(x, 3, 4, (), grad, 3)), _FLOAT32)
    _core.conv_conv2d_weight(x=x, grad=grad, out=out, **options)
    return out


def _shape(a: Any, begin: int, end: int, size: tuple[int, ...], b: Any, axis: int) -> tuple[int, ...]:
    """Axes of a, the size of images, one axis of b; what are no images is left for the kernel to name."""
    try:
        return (*a.shape[begin:end], *size, b.shape[axis])
    except (AttributeError, IndexError, TypeError):
        return (0,) * (end - begin + len(size) + 1)


def _conv2d_rule(
    needs: tuple[bool, ...],
    g: Any,
    ans: Any,
    x: Any,
    w: Any,
    _bias: Any,
    *,
    size: tuple[int, int],
    activation: dense.Activation,
    **options: int,
) -> tuple[Any, Any, Any]:
    dz, by_bias = dense.activation_vjp(contiguous(g), ans, activation=activation, bias=needs[2])
    by_x = _conv2d_input(dz, w, size=tuple(x.shape[1:3]), **options) if needs[0] else None
    by_w = _conv2d_weight(x, dz, kernel=tuple(w.shape[:2]), **options) if needs[1] else None
    return by_x, by_w, by_bias


def _conv2d_input_rule(
    needs: tuple[bool, ...], g: Any, _ans: Any, grad: Any, w: Any, *, size: tuple[int, int], **options: int
) -> tuple[Any, Any]:
    g = contiguous(g)
    by_grad = by_w = None
    if needs[0]:
        by_grad = _conv2d(g, w, None, size=tuple(grad.shape[1:3]), activation="identity", **options)
    if needs[1]:
        by_w = _conv2d_weight(g, grad, kernel=tuple(w.shape[:2]), **options)
    return by_grad, by_w


def _conv2d_weight_rule(
    needs: tuple[bool, ...], g: Any, _ans: Any, x: Any, grad: Any, *, kernel: tuple[int, int], **options: int
) -> tuple[Any, Any]:
    g = contiguous(g)
    by_x = by_grad = None
    if needs[0]:
        by_x = _conv2d_input(grad, g, size=tuple(x.shape[1:3]), **options)
    if needs[1]:
        by_grad = _conv2d(x, g, None, size=tuple(grad.shape[1:3]), activation="identity", **options)
    return by_x, by_grad


defvjp(_conv2d, joint=_conv2d_rule)
defvjp(_conv2d_input, joint=_conv2d_input_rule)
defvjp(_conv2d_weight, joint=_conv2d_weight_rule)


# --- arguments ------------------------------------------------------------------------------------------------


def _convolve(
    op: str,
    x: Any,
    weight: Any,
    bias: Any,
    stride: tuple[int, ...],
    before: tuple[int, ...],
    behind: tuple[int, ...] | None,
    activation: dense.Activation,
    *,
    mask: int,
    groups: int,
) -> Float32Array:
    """A convolution with so much padding before and behind the image; None keeps the size."""
    dense.activation_code(op, activation)
    height_width, kernel = _image_size(op, "x", x), _kernel(op, "weight", weight)
    _check_padding(op, before, kernel)
    size: tuple[int, ...] = height_width
    if behind is not None:
        spans = [n + a + b - k for n, a, b, k in zip(height_width, before, behind, kernel, strict=True)]
        if min(spans) < 0:
            raise ValueError(
                f"{op}: expected x of at least the kernel's size {kernel} with its padding, received {height_width}"
            )
        size = (spans[0] // stride[0] + 1, spans[1] // stride[1] + 1)
    of_pixels = kernel == (1, 1) == stride and groups == 1 and mask in (0, 2)
    options = _options(stride, before, mask, groups)
    try:
        if (
            of_pixels and weight.shape[2:3] == x.shape[3:] and x.dtype.itemsize == 4
        ):  # linear takes bytes, too
            return dense.linear(x, np.reshape(weight, weight.shape[2:]), bias, activation=activation)
        result: Float32Array = _conv2d(x, weight, bias, size=size, activation=activation, **options)
    except (TypeError, ValueError) as error:
        raise renamed(error, op, w="weight") from None
    return result


def _check_padding(op: str, padding: tuple[int, ...], kernel: tuple[int, int]) -> None:
    if any(p >= k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"{op}: expected padding below the kernel's size {kernel}, received {padding}")


def _options(stride: tuple[int, ...], pad: tuple[int, ...], mask: int, groups: int) -> dict[str, int]:
    return {
        "stride_h": stride[0], "stride_w": stride[1], "pad_top": pad[0], "pad_left": pad[1],
        "mask": mask, "channel_groups": groups,
    }  # fmt: skip


def _pair(op: str, name: str, value: Any, least: int = 1) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or any(
        isinstance(v, bool) or not isinstance(v, int | np.integer) or v < least for v in pair
    ):
        raise ValueError(
            f"{op}: expected {name} to be an integer of at least {least}, or two, received {value!r}"
        )
    return int(pair[0]), int(pair[1])


def _image_size(op: str, name: str, x: Any) -> tuple[int, int]:
    shape = shaped(op, name, x, "N", "H", "W", "C")
    return int(shape[1]), int(shape[2])


def _kernel(op: str, name: str, w: Any) -> tuple[int, int]:
    shape = shaped(op, name, w, "kh", "kw", "C_in", "C_out")
    return int(shape[0]), int(shape[1])
