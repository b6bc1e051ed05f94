"""Reductions, shapes, indexing and contractions, with NumPy's names and arguments, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gencore.autograd.functions import UFUNCS, positive, weights, where
from gencore.autograd.record import defvjp, primitive, takes_lists
from gencore.autograd.tensors import Tensor, array_index, plain

__all__ = ["FUNCTIONS", "log_softmax", "log_sum_exp", "softmax"]

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""What `Tensor.__array_function__` calls for each of NumPy's functions."""


def _numpy(function: Any, *others: Any) -> Callable[[Any], Any]:
    """Register what stands for NumPy's function (and its other names) on Tensors."""

    def register(op: Any) -> Any:
        for f in (function, *others):
            FUNCTIONS[f] = op
        return op

    return register


# --- reductions -----------------------------------------------------------------------------------------------


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple | list) else (axis,)))


def _kept(x: Any, axis: Any, shape: tuple[int, ...], keepdims: bool) -> Any:
    """A reduced array with the reduced axes back, of length 1."""
    if keepdims or not shape:
        return x
    axes = _axes(axis, len(shape))
    return np.reshape(x, tuple(1 if i in axes else n for i, n in enumerate(shape)))


def _count(axis: Any, shape: tuple[int, ...]) -> int:
    return math.prod(shape[a] for a in _axes(axis, len(shape)))


@_numpy(np.sum)
@primitive
def sum(x: Any, axis: Any = None, *, keepdims: bool = False, dtype: Any = None) -> Any:
    """As ``numpy.sum``."""
    return np.sum(x, axis=axis, keepdims=keepdims, dtype=dtype)


defvjp(
    sum,
    lambda g, _ans, _x, axis=None, keepdims=False, **_: np.broadcast_to(
        _kept(g, axis, _x.shape, keepdims), _x.shape
    ),
)


@_numpy(np.mean)
@primitive
def mean(x: Any, axis: Any = None, *, keepdims: bool = False, dtype: Any = None) -> Any:
    """As ``numpy.mean``."""
    return np.mean(x, axis=axis, keepdims=keepdims, dtype=dtype)


defvjp(
    mean,
    lambda g, _ans, _x, axis=None, keepdims=False, **_: np.broadcast_to(
        _kept(g, axis, _x.shape, keepdims) / (_count(axis, _x.shape) or 1), _x.shape
    ),
)


@_numpy(np.var)
def var(x: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    """As ``numpy.var``."""
    centred = x - mean(x, axis, keepdims=True)
    n = _count(axis, x.shape)
    return sum(centred * centred, axis, keepdims=keepdims) / (n - ddof if n > ddof else 0)


@_numpy(np.std)
def std(x: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    """As ``numpy.std``."""
    return np.sqrt(var(x, axis, ddof=ddof, keepdims=keepdims))


def _extreme_rule(g: Any, ans: Any, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Equal extremes share the gradient."""
    values = plain(x)
    hit = values == _kept(plain(ans), axis, values.shape, keepdims)
    count = hit.sum(axis=_axes(axis, values.ndim), keepdims=True)
    return np.reshape(_kept(g, axis, values.shape, keepdims), count.shape) * (hit / count).astype(
        values.dtype
    )


@_numpy(np.max, np.amax)
@primitive
def max(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """As ``numpy.max``; equal maxima share the gradient."""
    return np.max(x, axis=axis, keepdims=keepdims)


defvjp(max, _extreme_rule)


@_numpy(np.min, np.amin)
@primitive
def min(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """As ``numpy.min``; equal minima share the gradient."""
    return np.min(x, axis=axis, keepdims=keepdims)


defvjp(min, _extreme_rule)


@_numpy(np.prod)
@primitive
def prod(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """As ``numpy.prod``. The gradient divides by the elements: they may not be 0."""
    return np.prod(x, axis=axis, keepdims=keepdims)


defvjp(prod, lambda g, ans, x, axis=None, keepdims=False: _kept(g * ans, axis, x.shape, keepdims) / x)


@_numpy(np.cumsum)
@primitive
def cumsum(x: Any, axis: int | None = None) -> Any:
    """As ``numpy.cumsum``."""
    return np.cumsum(x, axis=axis)


def _cumsum_rule(g: Any, _ans: Any, _x: Any, axis: int | None = None) -> Any:
    back = np.flip(
        np.cumsum(np.flip(g, 0 if axis is None else axis), 0 if axis is None else axis),
        0 if axis is None else axis,
    )
    return np.reshape(back, _x.shape)


defvjp(cumsum, _cumsum_rule)


@primitive
def log_sum_exp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``log(sum(exp(x)))`` along axes, exact at both ends: rows of -inf give -inf, an inf gives inf."""
    top = np.max(x, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, np.zeros_like(top))
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(x - shift), axis=axis, keepdims=True)) + shift
    return total if keepdims else np.squeeze(total, axis=_axes(axis, x.ndim))


defvjp(
    log_sum_exp,
    lambda g, ans, x, axis=None, keepdims=False: (
        _kept(g, axis, x.shape, keepdims) * weights(x, _kept(ans, axis, x.shape, keepdims))
    ),
)


@primitive
def log_softmax(x: Any, axis: int = -1) -> Any:
    """``x - log_sum_exp(x)`` along an axis."""
    return x - log_sum_exp(x, axis, True)


defvjp(log_softmax, lambda g, ans, _x, axis=-1: g - np.exp(ans) * np.sum(g, axis=axis, keepdims=True))


@primitive
def softmax(x: Any, axis: int = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along an axis."""
    return np.exp(log_softmax(x, axis))


defvjp(softmax, lambda g, ans, _x, axis=-1: ans * (g - np.sum(g * ans, axis=axis, keepdims=True)))


# --- shapes ---------------------------------------------------------------------------------------------------


@_numpy(np.reshape)
def reshape(x: Any, *shape: Any, order: str = "C") -> Any:
    """As ``numpy.reshape``, or with the lengths as arguments; in the order "C" or "F"."""
    lengths = shape[0] if len(shape) == 1 else shape
    if order == "F":  # the axes from the last to the first
        backwards = lengths[::-1] if isinstance(lengths, tuple | list) else lengths
        return _transpose(_reshape(_transpose(x), backwards))
    if order != "C":
        raise ValueError(f"reshape: expected order to be 'C' or 'F', received {order!r}")
    return _reshape(x, lengths)


@_numpy(np.ravel)
def ravel(x: Any) -> Any:
    """As ``numpy.ravel``."""
    return _reshape(x, -1)


def _reshape_array(x: Any, shape: Any) -> Any:
    return np.reshape(x, shape)


_reshape = primitive(_reshape_array, view=True)
defvjp(_reshape, lambda g, _ans, _x, _shape: np.reshape(g, _x.shape))


def _transpose_array(x: Any, axes: Any = None) -> Any:
    return np.transpose(x, axes)


_transpose = primitive(_transpose_array, view=True)
defvjp(
    _transpose,
    lambda g, _ans, _x, axes=None: np.transpose(
        g, None if axes is None else tuple(np.argsort([a % len(axes) for a in axes]))
    ),
)


@_numpy(np.transpose)
def transpose(x: Any, *given: Any, axes: Any = None) -> Any:
    """As ``numpy.transpose``, or with the axes as arguments."""
    order = axes if not given else given[0] if len(given) == 1 else given
    return _transpose(x) if order is None or order == () else _transpose(x, tuple(order))


@_numpy(np.swapaxes)
def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """As ``numpy.swapaxes``."""
    axes = list(range(x.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return _transpose(x, tuple(axes))


@_numpy(np.moveaxis)
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """As ``numpy.moveaxis``."""
    order = np.moveaxis(
        np.empty(tuple(range(x.ndim))), source, destination
    ).shape  # lengths that number the axes
    return _transpose(x, order)


@_numpy(np.squeeze)
def squeeze(x: Any, axis: Any = None) -> Any:
    """As ``numpy.squeeze``."""
    return _reshape(x, np.squeeze(plain(x), axis=axis).shape)


@_numpy(np.expand_dims)
def expand_dims(x: Any, axis: Any) -> Any:
    """As ``numpy.expand_dims``."""
    return _reshape(x, np.expand_dims(plain(x), axis).shape)


def _broadcast_array(x: Any, shape: Any) -> Any:
    return np.broadcast_to(x, shape)


_broadcast = primitive(_broadcast_array, view=True)
defvjp(_broadcast, lambda g, _ans, _x, _shape: g)


@_numpy(np.broadcast_to)
def broadcast_to(x: Any, shape: Any) -> Any:
    """As ``numpy.broadcast_to``."""
    return _broadcast(x, shape)


def _flip_array(x: Any, axis: Any = None) -> Any:
    return np.flip(x, axis)


flip = _numpy(np.flip)(primitive(_flip_array, view=True))
defvjp(flip, lambda g, _ans, _x, axis=None: np.flip(g, axis))


@_numpy(np.roll)
@primitive
def roll(x: Any, shift: Any, axis: Any = None) -> Any:
    """As ``numpy.roll``."""
    return np.roll(x, shift, axis)


defvjp(
    roll,
    lambda g, _ans, _x, shift, axis=None: np.roll(
        g, tuple(-s for s in shift) if isinstance(shift, tuple | list) else -shift, axis
    ),
)


@takes_lists
@primitive
def _concatenate(*arrays: Any, axis: int = 0) -> Any:
    return np.concatenate(arrays, axis=axis)


def _concatenate_rule(needs: Any, g: Any, _ans: Any, *_arrays: Any, axis: int = 0) -> list[Any]:
    found: list[Any] = []
    begin, before = 0, (slice(None),) * (axis % g.ndim)
    for needed, array in zip(needs, _arrays, strict=True):
        end = begin + array.shape[axis]
        found.append(g[(*before, slice(begin, end))] if needed else None)
        begin = end
    return found


defvjp(_concatenate, joint=_concatenate_rule)


@_numpy(np.concatenate)
def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """As ``numpy.concatenate``."""
    if axis is None:
        return _concatenate(*map(ravel, arrays))
    return _concatenate(*arrays, axis=axis)


@_numpy(np.stack)
def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """As ``numpy.stack``."""
    return _concatenate(*(np.expand_dims(a, axis) for a in arrays), axis=axis)


@_numpy(np.split)
def split(x: Any, sections: Any, axis: int = 0) -> list[Any]:
    """As ``numpy.split``."""
    n = x.shape[axis]
    if isinstance(sections, int | np.integer):
        if n % sections:
            raise ValueError(f"split: expected an axis that {sections} divides, received length {n}")
        sections = [n // sections * i for i in range(1, sections)]
    cuts = [0, *sections, n]
    before = (slice(None),) * (axis % x.ndim)
    return [x[(*before, slice(a, b))] for a, b in pairwise(cuts)]


@_numpy(np.repeat)
def repeat(x: Any, repeats: int, axis: int | None = None) -> Any:
    """As ``numpy.repeat``, for one number of repeats."""
    if axis is None:
        return repeat(ravel(x), repeats, 0)
    axis %= x.ndim
    wide = np.broadcast_to(np.expand_dims(x, axis + 1), (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :]))
    return reshape(wide, (*x.shape[:axis], x.shape[axis] * repeats, *x.shape[axis + 1 :]))


@_numpy(np.tile)
def tile(x: Any, reps: Any) -> Any:
    """As ``numpy.tile``."""
    counts = (int(reps),) if isinstance(reps, int | np.integer) else tuple(reps)
    shape = (1,) * (len(counts) - x.ndim) + x.shape
    counts = (1,) * (len(shape) - len(counts)) + counts
    paired = tuple(n for pair in zip((1,) * len(shape), shape, strict=True) for n in pair)
    wide = tuple(n for pair in zip(counts, shape, strict=True) for n in pair)
    return reshape(
        np.broadcast_to(reshape(x, paired), wide), tuple(c * n for c, n in zip(counts, shape, strict=True))
    )


# --- indexing -------------------------------------------------------------------------------------------------


def _getitem_array(x: Any, index: Any) -> Any:
    return x[index]


_getitem = primitive(_getitem_array, view=True)


@primitive
def _scatter(g: Any, shape: Any, index: Any) -> Any:
    """Zeros of a shape, with g added at an index; what an index names twice is added twice."""
    out = np.zeros_like(g, shape=shape, order="C")
    if _is_basic(index):
        out[index] = g
    elif isinstance(out, np.ndarray):
        np.add.at(out, index, g)
    else:  # CuPy takes np.add.at over where the index is one array
        places = np.arange(out.size, like=g).reshape(shape)[index]
        np.add.at(out.reshape(-1), places, g)
    return out


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(isinstance(p, int | np.integer | slice | type(None) | type(Ellipsis)) for p in parts)


defvjp(_getitem, lambda g, _ans, _x, index: _scatter(g, _x.shape, index))
defvjp(_scatter, lambda g, _ans, _g, _shape, index: g[index])


def _tensor_getitem(self: Tensor, index: Any) -> Any:
    return _getitem(self, array_index(index, self._data))


@_numpy(np.take)
def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """As ``numpy.take``."""
    if axis is None:
        return ravel(x)[indices]
    return x[(*(slice(None),) * (axis % x.ndim), indices)]


@_numpy(np.take_along_axis)
def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Any:
    """As ``numpy.take_along_axis``."""
    indices, axis = array_index(indices, plain(x)), axis % x.ndim
    along = (
        np.arange(n, like=indices).reshape((-1,) + (1,) * (x.ndim - 1 - i)) for i, n in enumerate(x.shape)
    )
    return x[tuple(indices if i == axis else place for i, place in enumerate(along))]


def _triangle_rule(function: Any) -> Callable[..., Any]:
    return lambda g, _ans, _x, k=0: function(g, k)


for _triangle in (np.tril, np.triu):
    _op = _numpy(_triangle)(primitive(_triangle))
    defvjp(_op, _triangle_rule(_triangle))

# --- contractions ---------------------------------------------------------------------------------------------


def _matmul_array(a: Any, b: Any) -> Any:
    return np.matmul(a, b)


_matmul = takes_lists(primitive(_matmul_array))


def _swapped(x: Any) -> Any:
    return np.swapaxes(x, -1, -2)


def _matmul_left(g: Any, _ans: Any, _a: Any, b: Any) -> Any:
    if b.ndim == 1:
        return np.expand_dims(g, -1) * b
    if len(_a.shape) == 1:
        return np.matmul(b, np.expand_dims(g, -1))[..., 0]
    return np.matmul(g, _swapped(b))


def _matmul_right(g: Any, _ans: Any, a: Any, _b: Any) -> Any:
    if a.ndim == 1:
        return np.expand_dims(a, -1) * np.expand_dims(g, -2) if len(_b.shape) > 1 else g * a
    if len(_b.shape) == 1:
        return np.matmul(_swapped(a), np.expand_dims(g, -1))[..., 0]
    return np.matmul(_swapped(a), g)


defvjp(_matmul, _matmul_left, _matmul_right)
UFUNCS[np.matmul] = _matmul


@_numpy(np.dot)
def dot(a: Any, b: Any) -> Any:
    """As ``numpy.dot`` for at most two axes."""
    a, b = (v if hasattr(v, "ndim") else np.array(v) for v in (a, b))
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if a.ndim > 2 or b.ndim > 2:
        raise ValueError(
            f"dot: expected at most 2 axes, received shapes {a.shape} and {b.shape}; use matmul or einsum"
        )
    return _matmul(a, b)


@_numpy(np.outer)
def outer(a: Any, b: Any) -> Any:
    """As ``numpy.outer``."""
    return reshape(a, (-1, 1)) * reshape(b, (1, -1))


@takes_lists
@primitive
def _einsum(*operands: Any, subscripts: str) -> Any:
    return np.einsum(subscripts, *operands, optimize=True)


def _einsum_rule(needs: Any, g: Any, _ans: Any, *operands: Any, subscripts: str) -> list[Any]:
    inputs, output = subscripts.split("->")
    terms = inputs.split(",")
    found: list[Any] = []
    for i, needed in enumerate(needs):
        if not needed:
            found.append(None)
            continue
        rest = [(t, o) for j, (t, o) in enumerate(zip(terms, operands, strict=True)) if j != i]
        there = set(output).union(*(t for t, _ in rest))
        shape = operands[i].shape
        kept = "".join(c for c in terms[i] if c in there)
        part = np.einsum(
            ",".join([output, *(t for t, _ in rest)]) + "->" + kept, g, *(o for _, o in rest), optimize=True
        )
        part = part[tuple(slice(None) if c in there else None for c in terms[i])]
        found.append(
            np.broadcast_to(part, np.broadcast_shapes(part.shape, shape))
        )  # an axis of 1 may meet longer ones
    return found


defvjp(_einsum, joint=_einsum_rule)


@_numpy(np.einsum)
def einsum(subscripts: str, *operands: Any, optimize: Any = True) -> Any:
    """As ``numpy.einsum`` with an explicit ``->``, without ellipses or an index twice in one operand."""
    spec = subscripts.replace(" ", "")
    terms = spec.split("->")[0].split(",")
    if "->" not in spec or "." in spec or any(len(set(t)) < len(t) for t in terms):
        raise ValueError(f"einsum: expected subscripts such as 'ij,jk->ik', received {subscripts!r}")
    return _einsum(*operands, subscripts=spec)


# --- the rest of NumPy's functions on Tensors -----------------------------------------------------------------


@_numpy(np.clip)
def clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """As ``numpy.clip``; no gradient beyond the limits, all of it on them, and none to the limits."""
    return _clip(x, a_min if min is None else min, a_max if max is None else max)


@takes_lists
@primitive
def _clip(x: Any, low: Any, high: Any) -> Any:
    return np.clip(x, low, high)


def _clip_rule(g: Any, _ans: Any, x: Any, low: Any, high: Any) -> Any:
    values = plain(x)
    if low is not None:
        g = where(np.greater_equal(values, plain(low)), g, 0)
    if high is not None:
        g = where(np.less_equal(values, plain(high)), g, 0)
    return g


defvjp(_clip, _clip_rule)


@_numpy(np.where)
def _where(condition: Any, *choices: Any) -> Any:
    return where(condition, *choices) if choices else np.nonzero(plain(condition))


@primitive
def _as_float(x: Any, dtype: Any) -> Any:
    return x.astype(dtype)


defvjp(_as_float, lambda g, _ans, _x, _dtype: g)  # the core brings it back to the argument's dtype


def _astype(x: Tensor, dtype: Any) -> Any:
    return _as_float(x if np.dtype(dtype).kind == "f" else x.detach(), dtype)


FUNCTIONS[np.copy] = positive


def _forward(function: Any) -> Any:
    """For functions whose results have no gradient: called on the arrays."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*map(plain, args), **{k: plain(v) for k, v in kwargs.items()})

    return call


for _function in (
    np.argmax, np.argmin, np.argsort, np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.shape, np.ndim,
    np.size, np.array_equal, np.allclose, np.isclose, np.all, np.any, np.nonzero, np.count_nonzero,
    np.isneginf, np.isposinf, np.result_type, np.array_repr, np.array_str,
):  # fmt: skip
    FUNCTIONS[_function] = _forward(_function)


def _array_function(self: Tensor, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    op = FUNCTIONS.get(function)
    if op is None:
        raise TypeError(
            f"numpy.{function.__name__}: is not defined on Tensors; give arrays (x.detach().numpy()), "
            "or declare it with gc.primitive"
        )
    return op(*args, **kwargs)


def _install() -> None:
    for op in (
        sum, mean, var, std, max, min, prod, cumsum, reshape, ravel, transpose, swapaxes, squeeze, repeat, take, clip,
        dot, softmax, log_softmax, log_sum_exp,
    ):  # fmt: skip
        setattr(Tensor, op.__name__, op)
    more = {
        "flatten": ravel, "astype": _astype, "argmax": FUNCTIONS[np.argmax], "T": property(_transpose),
        "__getitem__": _tensor_getitem, "__matmul__": _matmul, "__rmatmul__": lambda self, other: _matmul(other, self),
        "__array_function__": _array_function,
    }  # fmt: skip
    for name, value in more.items():
        setattr(Tensor, name, value)


_install()
