"""Images drawn pixel by pixel from stacks of masked convolutions."""

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gencore import _core
from gencore._checks import entry, is_count
from gencore.autograd import (
    Tensor,
    defvjp,
    is_grad_enabled,
    logistic,
    primitive,
    relu,
    softplus,
)
from gencore.autograd.tensors import plain
from gencore.kernels import dense
from gencore.kernels._arrays import cast, empty, is_cuda_array, levels_or_nan, sums_of_rows
from gencore.kernels._contiguous import contiguous
from gencore.kernels._errors import renamed, strided
from gencore.kernels._through_tape import through_tape
from gencore.random import KeyLike, as_key

__all__ = ["PixelLayer", "pixel_draw", "pixel_log_prob", "pixel_sample", "pixel_stack"]

Float32Array = NDArray[np.float32]
ImageArray = NDArray[np.uint8]
LabelArray = NDArray[np.int64]

_KINDS: Final = {"conv": 0, "add": 1, "relu": 2, "gate": 3}
_FIELDS: Final = 12  # columns of the table of layers
_C_OUT: Final = 7  # one of them
MASKS: Final = {None: 0, "A": 1, "B": 2, "rows-A": 3, "rows-B": 4}


class PixelLayer(NamedTuple):
    """One layer of a stack, which makes feature map i + 1 if it is the i-th; map 0 is the image.

    Attributes
    ----------
    kind : {"conv", "add", "relu", "gate"}
        ``activation(src * weight + bias)``, masked; ``src + src2``; ``max(src, 0)``; ``tanh(a) logistic(b)`` of the two
        halves a and b of a pixel's features, those of each colour halved by themselves.
    src, src2 : int
        Maps that it reads; earlier ones.
    weight : (kh, kw, C_in, C_out) float32, optional
        Kernel of a convolution.
    bias : (C_out,) or (n_classes, C_out) float32, optional
        Of a convolution; a row for each class.
    mask : {None, "A", "B", "rows-A", "rows-B"}
        As in `masked_conv2d`; None for kernels of one pixel. In a stack that is drawn from, or whose log-probability is
        asked for, what reads the image must not see its own pixel.
    activation : str
        As in `conv2d`.
    """

    kind: Literal["conv", "add", "relu", "gate"]
    src: int
    src2: int = 0
    weight: Any = None
    bias: Any = None
    mask: str | None = None
    activation: dense.Activation = "identity"


def pixel_sample(
    layers: Sequence[PixelLayer],
    shape: tuple[int, int, int, int],
    key: KeyLike,
    *,
    channel_groups: int = 1,
    levels: int = 2,
    n_mixtures: int = 0,
    labels: LabelArray | None = None,
    n_classes: int = 0,
    temperature: float = 1.0,
    given: ImageArray | None = None,
    keep: NDArray[Any] | None = None,
    step: int = 0,
    first_row: int = 0,
) -> ImageArray:
    """Draw images in raster order, colour after colour, from a stack of masked convolutions, in one call.

    Parameters
    ----------
    layers : sequence of PixelLayer
        The stack. The last layer's map holds the logits: one for each colour (of 1, for 2 levels), or `levels` for
        each, colour by colour; or the parameters of `n_mixtures` logistics for each.
    shape : (N, H, W, C)
        Of the result.
    key : Key, int or Generator
        Random numbers.
    channel_groups : int
        Of every layer: C where colours depend on each other, else 1.
    levels : int
        Values of a pixel, 2 to 256. The image that layers read is ``level / (levels - 1)``.
    n_mixtures : int
        Where not 0: each colour of a pixel has ``3 n_mixtures`` numbers, those of `dense.logistic_mixture_log_prob`.
    labels : (N,) int64, optional
        Class of each image, below `n_classes`, where biases have a row for each.
    n_classes : int
        That number of rows; 0 without labels.
    temperature : float
        Logits, or log-probabilities of levels, are divided by it.
    given : (N, H, W, C) uint8, optional
        Images to complete.
    keep : (N, H, W, C) or (1, H, W, C) bool or uint8, optional
        Where `given` stays as it is.
    step, first_row : int
        Coordinates of the random numbers: pixel p = y W + x, colour c of image n has those of row ``first_row + n``,
        unit ``p C + c``.

    Returns
    -------
    (N, H, W, C) uint8
        Levels.

    Raises
    ------
    ValueError, TypeError
        A stack whose layers do not fit each other, or see what is not drawn yet: their own pixel, or pixels to its
        right by a mask of whole rows over maps that are not known as far; wrong shapes and dtypes; a level out of range
        where `keep` is 1; parameters whose logits are no distribution (NaN).

    Notes
    -----
    Each activation is computed once: a layer keeps the rows of its result that later pixels read. Activations are the
    bits of `masked_conv2d` on the whole image, and draws depend on their coordinates alone: images are those of one
    forward pass a pixel and `pixel_draw`, bit for bit, for any number of threads and any split of the images.

    Not differentiable. Extra memory: the weights packed once; for every 8 images under way, of each map as many rows
    as a kernel reaches up, and one.

    The images are where the weights are. On a CUDA device one launch draws them all, and looks at no values: labels
    beyond the classes make NaN there, and what is drawn by NaN means nothing. Extra memory: such rows for every image,
    unless the multiprocessors have room for those of the images that they draw.

    Sources: van den Oord, Kalchbrenner & Kavukcuoglu (2016), "Pixel recurrent neural networks"; Ramachandran et al.
    (2017), "Fast generation for convolutional autoregressive models"; van den Oord et al. (2016), "Conditional image
    generation with PixelCNN decoders"; Salimans et al. (2017), "PixelCNN++".
    """
    rows, params = compiled_layers("conv.pixel_sample", layers, shape[-1])
    arrays = [plain(p) for p in params]
    out: ImageArray = empty(next(iter(arrays), given), shape, np.uint8)
    _core.conv_pixel_sample(
        layers=rows, params=arrays, channel_groups=channel_groups, n_classes=n_classes, labels=labels, levels=levels,
        n_mixtures=n_mixtures, temperature=temperature, given=given, keep=keep, out=out,
        key=as_key(key), step=step, first_row=first_row,
    )  # fmt: skip
    return out


def pixel_stack(
    x: Float32Array,
    layers: Sequence[PixelLayer],
    *,
    channel_groups: int = 1,
    labels: LabelArray | None = None,
    n_classes: int = 0,
) -> Float32Array:
    """Run a stack of convolutions on whole images: what the last layer makes of them.

    Parameters
    ----------
    x : (N, H, W, C) float32
        Images; map 0 of the stack.
    layers : sequence of PixelLayer
        The stack. Kernels that are not masked are of one pixel.
    channel_groups : int
        Of every masked layer.
    labels, n_classes
        As in `pixel_sample`.

    Returns
    -------
    (N, H, W, K) float32
        The last layer's map.

    Raises
    ------
    ValueError, TypeError
        Layers that do not fit each other; wrong shapes, dtypes or memory order.

    Notes
    -----
    Image by image: maps stay in a core's caches, and none of the size of a batch's is ever in memory. The bits are
    those of `masked_conv2d`, relu and sums one after the other. Gradient: to the weights and biases, by a second pass
    over each image that computes its maps again; to `x`, and to second order, through the layers one by one. Extra
    memory: 16 copies of the weights' gradients, and for each thread twice the maps of an image.

    On a CUDA device a layer runs on the whole batch before the next one, and all maps are in memory at once: twice for
    the gradient. Labels beyond the classes make NaN there.
    """
    rows, params = compiled_layers("conv.pixel_stack", layers, x.shape[-1] if getattr(x, "ndim", 0) else 0)
    try:
        result: Float32Array = _stack(x, *params, run=_Run(rows, channel_groups, labels, n_classes))
    except (TypeError, ValueError) as error:
        raise renamed(error, "conv.pixel_stack") from None
    return result


class _Run(NamedTuple):
    """How a stack is run: the table of its layers, and what goes with it."""

    rows: NDArray[np.int64]
    channel_groups: int
    labels: LabelArray | None
    n_classes: int
    causal: bool = False  # whether a pixel must not see itself

    def arguments(self) -> dict[str, Any]:
        """Of the compiled functions."""
        return {"layers": self.rows, "channel_groups": self.channel_groups, "labels": self.labels,
                "n_classes": self.n_classes}  # fmt: skip


@primitive
def _stack(x: Any, *params: Any, run: _Run) -> Any:
    try:
        out = empty(x, (*x.shape[:3], int(run.rows[-1, _C_OUT])), np.float32)
    except (AttributeError, IndexError, TypeError):
        out = np.empty((0, 0, 0, 0), np.float32)  # no images: the compiled function says which and why
    _core.conv_stack_forward(params=list(params), x=x, causal=run.causal, out=out, **run.arguments())
    return out


def _stack_rule(
    needs: tuple[bool, ...],
    g: Any,
    _ans: Any,
    x: Any,
    *params: Any,
    run: _Run,
) -> tuple[Any, ...]:
    recorded = any(isinstance(a, Tensor) for a in (g, x, *params))
    if not recorded and not needs[0]:
        grads = [empty(x, p.shape, np.float32) for p in params]
        _core.conv_stack_vjp(params=list(params), x=x, grad=contiguous(g), grads=grads, **run.arguments())
        return (None, *grads)
    results = through_tape(
        needs, lambda x, *params: (_one_by_one(x, params, run),), (g,), (x, *params), create_graph=recorded
    )
    return results if recorded else tuple(map(plain, results))


def _one_by_one(x: Any, params: Sequence[Any], run: _Run) -> Any:
    """The same stack, layer by layer, on Tensors."""
    from gencore.kernels import conv  # which imports this module

    masks, activations = list(MASKS), list(dense.ACTIVATIONS)
    maps = [x]
    for kind, src, src2, _, _, _, _, _, mask, activation, weight, bias in run.rows.tolist():
        if kind == _KINDS["add"]:
            maps.append(maps[src] + maps[src2])
        elif kind == _KINDS["relu"]:
            maps.append(relu(maps[src]))
        elif kind == _KINDS["gate"]:
            maps.append(_gate(maps[src], run.channel_groups))
        else:
            w, b = params[weight], None if bias < 0 else params[bias]
            name: Any = activations[activation]
            seen: Any = masks[mask]

            def sums(b: Any, name: Any, source: Any = maps[src], w: Any = w, seen: Any = seen) -> Any:
                if seen is None:
                    return conv.conv2d(source, w, b, activation=name)
                groups = run.channel_groups if seen in ("A", "B") else 1
                return conv.masked_conv2d(source, w, b, seen, groups, activation=name)

            if b is None or b.ndim == 1:
                maps.append(sums(b, name))
            else:
                z = sums(None, "identity") + b[run.labels][:, None, None, :]
                maps.append(_ACTIVATE[name](z))
    return maps[-1]


_ACTIVATE: Final[dict[str, Any]] = {
    "identity": lambda z: z, "logistic": logistic, "tanh": np.tanh, "relu": relu, "softplus": softplus,
}  # fmt: skip


def _gate(x: Any, groups: int) -> Any:
    """Tanh of the first half of each colour's features times the logistic of the second."""
    features = x.shape[3] // 2
    halves = x.reshape(*x.shape[:3], groups, 2, features // groups)
    gated = np.tanh(halves[..., 0, :]) * logistic(halves[..., 1, :])
    return gated.reshape(*x.shape[:3], features)


defvjp(_stack, joint=_stack_rule)


class _Likelihood(NamedTuple):
    """What a log-probability is computed of besides the parameters."""

    images: ImageArray
    run: _Run
    levels: int
    n_mixtures: int
    found: list[Any]  # gradients of the sum over images, if the pass that made the log-probabilities has them

    def vjp(self, grad: Any, params: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Log-probabilities, and gradients of ``<grad, them>``, in one pass."""
        out = empty(self.images, self.images.shape[:1], np.float32)
        grads = [empty(self.images, p.shape, np.float32) for p in params]
        _core.conv_stack_log_prob_vjp(
            params=list(params), images=self.images, levels=self.levels, n_mixtures=self.n_mixtures, grad=grad,
            out=out, grads=grads, **self.run.arguments(),
        )  # fmt: skip
        return out, grads

    def through_map(self, params: Sequence[Any]) -> Any:
        """The log-probabilities through the last map."""
        x = scaled_levels(self.images, self.levels)
        return log_prob_of_map(_stack(x, *params, run=self.run), self.images, self.levels, self.n_mixtures)


def scaled_levels(images: ImageArray, levels: int) -> Float32Array:
    """Levels as layers read them: floats from 0 to 1."""
    x: Float32Array = cast(images, np.float32)
    return x if levels == 2 else x * np.float32(1 / (levels - 1))


def log_prob_of_map(last: Any, images: ImageArray, levels: int, n_mixtures: int) -> Any:
    """Log-probability of each image by what the last map holds, (N,), differentiable."""
    n, units = images.shape[0], math.prod(images.shape[1:])
    last = last.reshape(n, math.prod(last.shape[1:]))  # sizes in full: of no images, -1 could be anything
    if n_mixtures:
        return dense.logistic_mixture_log_prob(
            last, images.reshape(n, units), levels=levels, n_mixtures=n_mixtures
        )
    if levels == 2:
        bits: Any = images
        if is_cuda_array(images):  # nothing has looked at them: what is no bit makes NaN, as other levels do
            bits = levels_or_nan(images, 2)
        return dense.bernoulli_log_prob(last, bits.reshape(n, units))
    loss = dense.softmax_cross_entropy(last.reshape(n * units, levels), cast(images.reshape(-1), np.int64))
    each = loss.reshape(n, units)
    return -np.sum(each, axis=1) if isinstance(each, Tensor) else -sums_of_rows(each)


def pixel_log_prob(
    images: ImageArray,
    layers: Sequence[PixelLayer],
    *,
    channel_groups: int = 1,
    levels: int = 2,
    n_mixtures: int = 0,
    labels: LabelArray | None = None,
    n_classes: int = 0,
) -> Float32Array:
    """Log-probability of each image under the distribution that `pixel_sample` draws from.

    Parameters
    ----------
    images : (N, H, W, C) uint8
        Levels.
    layers, channel_groups, levels, n_mixtures, labels, n_classes
        As in `pixel_sample`.

    Returns
    -------
    (N,) float32
        Sums over pixels and colours; those of each image in float64 before they are rounded.

    Raises
    ------
    ValueError, TypeError
        Layers that do not fit each other, or by which a pixel sees itself or a later one, so that what they put out is
        no probability; wrong shapes, dtypes or memory order; a level out of range.

    Notes
    -----
    The bits of `pixel_stack` and of the losses of `gencore.kernels.dense` after it.

    Gradient: to weights and biases. Where one of them requires a gradient, the pass that computes the log-probabilities
    goes back through each image at once, while its maps are in the caches, as if the sum over all images were
    differentiated; a gradient that is the same for all images, as that of a mean, then scales what was found. Any other
    takes a second such pass. To second order through the layers one by one. On a device, where to compare gradients
    would be to wait, one pass goes forward, and one forward and back when the gradient is known.

    Extra memory: that of `pixel_stack` and its gradient.
    """
    op = "conv.pixel_log_prob"
    _check_images(op, images, levels)
    rows, params = compiled_layers(op, layers, images.shape[-1])
    _check_logits(op, rows, images.shape[-1], levels, n_mixtures)
    learned = (
        is_grad_enabled()
        and not is_cuda_array(images)
        and any(isinstance(p, Tensor) and p.requires_grad for p in params)
    )
    run = _Run(rows, channel_groups, labels, n_classes, causal=True)
    what = _Likelihood(images, run, levels, n_mixtures, [])
    try:
        result: Float32Array = _log_prob(*params, what=what, learned=learned)
    except (TypeError, ValueError) as error:
        raise renamed(error, op) from None
    return result


def _check_images(op: str, images: Any, levels: int) -> None:
    if not (is_count(levels, 2) and levels <= 256):
        raise ValueError(f"{op}: expected levels from 2 to 256, received {levels!r}")
    if is_cuda_array(images) and len(images.shape) == 4:
        return  # the kernels look at the dtype; what levels there are is not waited for
    if not (isinstance(images, np.ndarray) and images.ndim == 4 and images.dtype == np.uint8):
        kind = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"{op}: expected images to be (N, H, W, C) uint8, received {kind}")
    if not images.flags.c_contiguous:
        raise strided(op, "images")
    if images.size and images.max() >= levels:
        raise ValueError(f"{op}: expected images to hold levels below {levels}, received {images.max()}")


def _check_logits(op: str, rows: NDArray[np.int64], colours: int, levels: int, n_mixtures: int) -> None:
    if not (is_count(n_mixtures, 0) and n_mixtures <= 256):
        raise ValueError(f"{op}: expected n_mixtures from 0 to 256, received {n_mixtures!r}")
    wanted = colours * (3 * n_mixtures or (1 if levels == 2 else levels))
    found = int(rows[-1, _C_OUT]) if len(rows) else 0
    if found != wanted:
        raise ValueError(
            f"{op}: expected the last of layers, with these levels, to put out {wanted} channels, received {found}"
        )


@primitive
def _log_prob(*params: Any, what: _Likelihood, learned: bool) -> Any:
    if learned:
        out, what.found[:] = what.vjp(np.ones(len(what.images), np.float32), params)
        return out
    return cast(what.through_map(params), np.float32)


def _log_prob_rule(
    needs: tuple[bool, ...], g: Any, _ans: Any, *params: Any, what: _Likelihood, learned: bool
) -> tuple[Any, ...]:
    if not (isinstance(g, Tensor) or any(isinstance(p, Tensor) for p in params)):
        g = contiguous(g)
        if what.found and len(g) and (g == g[0]).all():
            return tuple(part * g[0] for part in what.found)
        return tuple(what.vjp(g, params)[1])
    return through_tape(needs, lambda *params: (what.through_map(params),), (g,), params)


defvjp(_log_prob, joint=_log_prob_rule)


def pixel_draw(
    logits: Float32Array,
    key: KeyLike,
    unit: int,
    *,
    n_mixtures: int = 0,
    levels: int = 256,
    temperature: float = 1.0,
    step: int = 0,
    first_row: int = 0,
) -> ImageArray:
    """Draw one unit of each row, as `pixel_sample` does.

    Parameters
    ----------
    logits : (N, 1), (N, levels) or (N, 3 n_mixtures) float32
        Logit of a bit, those of levels, or the parameters of a mixture of logistics.
    key : Key, int or Generator
        Random numbers.
    unit : int
        Coordinate: ``(y W + x) C + colour``.
    n_mixtures : int
        0, or that of the parameters.
    levels : int
        Of a mixture; without one they are the columns.
    temperature, step, first_row
        As in `pixel_sample`.

    Returns
    -------
    (N,) uint8

    Raises
    ------
    ValueError, TypeError
        Wrong shape or dtype; logits that are no distribution: NaN, or +inf among those of levels. On a CUDA device,
        where no values are looked at, what is drawn by them means nothing.
    """
    out: ImageArray = empty(logits, np.shape(logits)[:1], np.uint8)
    _core.conv_pixel_draw(
        logits=logits,
        levels=levels,
        n_mixtures=n_mixtures,
        unit=unit,
        temperature=temperature,
        out=out,
        key=as_key(key),
        step=step,
        first_row=first_row,
    )
    return out


def compiled_layers(
    op: str, layers: Sequence[PixelLayer], colours: int
) -> tuple[NDArray[np.int64], list[Any]]:
    """The table of numbers that the kernels read, and the arrays that it refers to."""
    rows: list[tuple[int, ...]] = []
    params: list[Any] = []
    channels = {0: colours}
    for i, layer in enumerate(layers):
        kind, mask = entry(_KINDS, layer.kind), entry(MASKS, layer.mask)
        if kind is None:
            raise ValueError(
                f"{op}: expected the kind of layer {i} to be conv, add, relu or gate, received {layer.kind!r}"
            )
        if mask is None:
            raise ValueError(f"{op}: expected the mask of layer {i} to be None, 'A', 'B', 'rows-A' or 'rows-B', "
                             f"received {layer.mask!r}")  # fmt: skip
        kh = kw = 1
        weight = bias = -1
        if layer.kind == "conv":
            if getattr(layer.weight, "ndim", None) != 4:
                raise ValueError(f"{op}: expected the weight of layer {i} to be (kh, kw, C_in, C_out)")
            kh, kw, c_in, c_out = layer.weight.shape
            weight = len(params)
            params.append(layer.weight)
            if layer.bias is not None:
                bias = len(params)
                params.append(layer.bias)
        else:
            c_in = c_out = channels.get(layer.src, 0)
            if layer.kind == "gate":
                c_out = c_in // 2
        channels[i + 1] = c_out
        code = dense.activation_code(op, layer.activation)
        rows.append((kind, layer.src, layer.src2, i + 1, kh, kw, c_in, c_out, mask, code, weight, bias))
    return np.asarray(rows, np.int64).reshape(len(rows), _FIELDS), params
