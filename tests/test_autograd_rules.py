"""Every gradient rule of gencore.autograd against differences, in first and second order, in float32, on a device.

The registries are iterated: a rule without a point here fails.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from device_array import DeviceArray

import gencore as gc
from gencore.autograd import backward, log_softmax, log_sum_exp, logistic, relu, softmax, softplus
from gencore.autograd.functions import UFUNCS
from gencore.autograd.shapes import FUNCTIONS

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Point:
    """A call of which to check the gradients, at elements from `low` to `high`, or from both signs of that.

    No two elements are closer than half of their mean distance, so that no maximum changes hands within a step.
    """

    call: Callable[..., Any]
    shapes: tuple[Shape, ...]
    low: float = -2.0
    high: float = 2.0
    signs: bool = False

    def draw(self, seed: int, dtype: Any = np.float64) -> list[Any]:
        rng = np.random.default_rng(seed)
        sizes = [math.prod(shape) for shape in self.shapes]
        places = (rng.permutation(sum(sizes)) + rng.uniform(0.25, 0.75, sum(sizes))) / max(1, sum(sizes))
        parts = np.split(self.low + (self.high - self.low) * places, np.cumsum(sizes)[:-1])
        arrays = [x.reshape(shape) for x, shape in zip(parts, self.shapes, strict=True)]
        if self.signs:
            arrays = [x * rng.choice([-1.0, 1.0], x.shape) for x in arrays]
        return [np.asarray(x, dtype) for x in arrays]


# --- the points -----------------------------------------------------------------------------------------------

# Domains keep `STEP` away from kinks and poles.
UNARY = {
    np.negative: (-2, 2), np.positive: (-2, 2), np.exp: (-2, 2), np.exp2: (-2, 2), np.expm1: (-2, 2), np.log: (0.3, 3),
    np.log2: (0.3, 3), np.log10: (0.3, 3), np.log1p: (-0.6, 2), np.sqrt: (0.3, 3), np.cbrt: (0.3, 3),
    np.square: (-2, 2),
    np.reciprocal: (0.4, 2), np.sin: (-3, 3), np.cos: (-3, 3), np.tan: (-1.2, 1.2), np.arcsin: (-0.8, 0.8),
    np.arccos: (-0.8, 0.8), np.arctan: (-2, 2), np.sinh: (-2, 2), np.cosh: (-2, 2), np.tanh: (-2, 2),
    np.arcsinh: (-2, 2), np.arccosh: (1.3, 3), np.arctanh: (-0.8, 0.8), np.absolute: (0.1, 2), np.fabs: (0.1, 2),
}  # fmt: skip
BOTH_SIGNS = {np.cbrt, np.reciprocal, np.absolute, np.fabs}
BINARY = {
    np.add: (-2, 2), np.subtract: (-2, 2), np.multiply: (-2, 2), np.true_divide: (0.4, 2), np.power: (0.4, 2),
    np.arctan2: (0.4, 2), np.hypot: (0.4, 2), np.logaddexp: (-2, 2), np.maximum: (-2, 2), np.minimum: (-2, 2),
    np.fmax: (-2, 2), np.fmin: (-2, 2), np.remainder: (0.4, 2), np.fmod: (0.4, 2),
}  # fmt: skip
UNARY_SHAPES: tuple[Shape, ...] = ((3, 5), (), (0,), (2, 0, 3))
BINARY_SHAPES: tuple[tuple[Shape, Shape], ...] = (
    ((3, 5), (3, 5)), ((3, 5), (5,)), ((5,), (3, 5)), ((3, 1), (1, 5)), ((), (3,)), ((3,), ()), ((), ()),
    ((0, 3), (3,)), ((1,), (0,)), ((2, 1, 3), (4, 1)),
)  # fmt: skip
MATMUL_SHAPES: tuple[tuple[Shape, Shape], ...] = (
    ((3, 5), (5, 2)), ((5,), (5, 2)), ((3, 5), (5,)), ((5,), (5,)), ((4, 3, 5), (5, 2)), ((3, 5), (4, 5, 2)),
    ((2, 1, 3, 5), (4, 5, 2)), ((5,), (4, 5, 2)), ((4, 3, 5), (5,)), ((0, 5), (5, 2)), ((3, 0), (0, 2)),
)  # fmt: skip
FLAT = {u for u, op in UFUNCS.items() if op.__gencore_op__.differentiable is False}  # type: ignore[attr-defined]


def ufunc_points() -> Iterator[tuple[Any, list[Point]]]:
    for ufunc, domain in UNARY.items():
        yield ufunc, [Point(ufunc, (shape,), *domain, ufunc in BOTH_SIGNS) for shape in UNARY_SHAPES]
    for ufunc, domain in BINARY.items():
        scalars = [
            Point(lambda x, u=ufunc: u(x, 1.5), ((3, 2),), *domain),
            Point(lambda x, u=ufunc: u(1.5, x), ((3, 2),), *domain),
            Point(lambda x, u=ufunc: u(x, x), ((3, 2),), *domain),  # one argument twice
        ]
        if ufunc is np.power:
            scalars += [
                Point(lambda x, y=y: x**y, ((3, 2),), 0.4, 2, y == int(y)) for y in (0, 1, 2, 3, -1, -2, 0.5)
            ]
        if ufunc in (np.maximum, np.minimum, np.fmax, np.fmin, np.remainder, np.fmod):
            scalars.pop()  # a kink, or a jump
        yield ufunc, [Point(ufunc, shapes, *domain) for shapes in BINARY_SHAPES] + scalars
    yield np.matmul, [Point(np.matmul, shapes) for shapes in MATMUL_SHAPES]


def reductions(f: Any, *domain: float) -> list[Point]:
    ways: list[tuple[Shape, dict[str, Any]]] = [
        ((3, 5), {}), ((3, 5), {"axis": 0}), ((3, 5), {"axis": -1, "keepdims": True}), ((2, 3, 4), {"axis": (0, 2)}),
        ((2, 3, 4), {"axis": (-1, 0), "keepdims": True}), ((3, 2), {"keepdims": True}), ((), {}), ((7,), {"axis": 0}),
        ((0, 3), {"axis": 1}),
    ]  # fmt: skip
    return [Point(lambda x, k=k: f(x, **k), (shape,), *domain) for shape, k in ways]


def calls(shape: Shape, *functions: Callable[[Any], Any]) -> list[Point]:
    return [Point(f, (shape,)) for f in functions]


INDEX = [2, 0, 0, 1, 2]


def like(x: Any, values: Any) -> Any:
    """An index where x is."""
    data = x._data if isinstance(x, gc.Tensor) else x
    return DeviceArray(values) if isinstance(data, DeviceArray) else np.asarray(values)


GATHER = np.array([[0, 3], [1, 1], [4, 2]])
FUNCTION_POINTS: dict[Any, list[Point]] = {
    np.sum: [*reductions(np.sum), *calls((0, 3), lambda x: np.sum(x, axis=0))],
    np.mean: reductions(np.mean),
    np.var: [*reductions(np.var), *calls((4, 3), lambda x: np.var(x, axis=0, ddof=1))],
    np.std: [
        Point(lambda x, k=k: np.std(x, **k), ((4, 3),)) for k in ({}, {"axis": 0}, {"axis": 1, "ddof": 1})
    ],
    np.max: reductions(np.max),
    np.min: reductions(np.min),
    np.prod: reductions(np.prod, 0.5, 2),
    np.cumsum: calls((3, 4), np.cumsum, lambda x: np.cumsum(x, axis=0), lambda x: np.cumsum(x, axis=-1)),
    np.reshape: calls(
        (3, 4), lambda x: np.reshape(x, (2, 6)), lambda x: np.reshape(x, -1), lambda x: x[:, :2].reshape(6),
        lambda x: np.reshape(x, (2, 6), order="F"), lambda x: x.reshape(-1, order="F"),
    ),
    np.ravel: calls((3, 4), np.ravel),
    np.transpose: calls(
        (2, 3, 4), np.transpose, lambda x: np.transpose(x, (2, 0, 1)), lambda x: np.transpose(x, (-1, 0, -2)),
        lambda x: np.transpose(x, axes=(1, 0, 2)),
    ),
    np.swapaxes: calls((2, 3, 4), lambda x: np.swapaxes(x, 0, -1)),
    np.moveaxis: calls((2, 3, 4), lambda x: np.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, -1, 1),
                       lambda x: np.moveaxis(x, (0, 1), (-1, 0)), lambda x: np.moveaxis(x, [2, 0], [0, 1])),
    np.squeeze: calls((1, 3, 1), np.squeeze, lambda x: np.squeeze(x, axis=0)),
    np.expand_dims: calls((2, 3), lambda x: np.expand_dims(x, 1), lambda x: np.expand_dims(x, (0, -1))),
    np.broadcast_to: calls((3, 1), lambda x: np.broadcast_to(x, (2, 3, 4)), lambda x: np.broadcast_to(x, shape=(3, 4))),
    np.flip: calls((3, 4), np.flip, lambda x: np.flip(x, 0), lambda x: np.flip(x, (0, 1))),
    np.roll: calls((3, 4), lambda x: np.roll(x, 2), lambda x: np.roll(x, -1, 1), lambda x: np.roll(x, (1, 2), (0, 1)),
                   lambda x: np.roll(x, [1, 2], [0, 1])),
    np.concatenate: [
        Point(lambda x, y: np.concatenate([x, y, x]), ((2, 3), (4, 3))),
        Point(lambda x, y: np.concatenate([y, x], axis=-1), ((2, 3), (2, 0))),
        Point(lambda x, y: np.concatenate([y, x], axis=None), ((2, 3), (4,))),
        Point(lambda x: np.concatenate([x, like(x, np.ones((2, 3), np.float32))]), ((2, 3),)),
    ],
    np.stack: [Point(lambda x, y, a=a: np.stack([x, y], axis=a), ((2, 3), (2, 3))) for a in (0, 1, -1)],
    np.split: calls(
        (4, 6), lambda x: np.split(x, 2)[1], lambda x: np.split(x, [1, 4], axis=1)[1] * np.split(x, 2, -1)[0],
        lambda x: np.split(x, np.int64(2))[1],
    ),
    np.repeat: calls((2, 3), lambda x: np.repeat(x, 3), lambda x: np.repeat(x, 2, axis=-1)),
    np.tile: calls((2, 3), lambda x: np.tile(x, 2), lambda x: np.tile(x, (2, 1, 3)), lambda x: np.tile(x, np.int64(2))),
    np.take: calls(
        (3, 4), lambda x: np.take(x, like(x, INDEX), axis=0), lambda x: np.take(x, like(x, INDEX)),
        lambda x: np.take(x, 1, 1),
    ),
    np.take_along_axis: calls(
        (3, 5), lambda x: np.take_along_axis(x, like(x, GATHER), axis=1),
        lambda x: np.take_along_axis(x, like(x, GATHER[:1]), axis=-1),
    ),
    np.tril: calls((3, 5), np.tril, lambda x: np.tril(x, 1)),
    np.triu: calls((2, 3, 3), np.triu, lambda x: np.triu(x, -1)),
    np.dot: [Point(np.dot, shapes) for shapes in (*MATMUL_SHAPES[:4], ((), (3,)), ((2, 3), ()))],
    np.outer: [Point(np.outer, ((3,), (2, 2)))],
    np.einsum: [
        Point(lambda a, b: np.einsum("ij,jk->ik", a, b, optimize=True), ((2, 3), (3, 4))),
        Point(lambda a, b: np.einsum("bij,bkj->bik", a, b, optimize=True), ((2, 3, 4), (2, 5, 4))),
        Point(lambda a, b: np.einsum("i,j->", a, b, optimize=True), ((3,), (2,))),
        Point(lambda a, b: np.einsum("ij,ij->ij", a, b, optimize=True), ((3, 1), (3, 4))),
        Point(lambda a, b: np.einsum("ij,ij->i", a, b, optimize=True), ((3, 4), (3, 1))),
        Point(lambda a: np.einsum("ijk->ki", a, optimize=True), ((2, 3, 4),)),
        Point(lambda a, b, c: np.einsum("ij,jk,k->i", a, b, c, optimize=True), ((2, 3), (3, 4), (4,))),
        Point(lambda a: np.einsum("ij,ij->j", a, a, optimize=True), ((2, 3),)),
    ],
    np.clip: calls(
        (5, 5), lambda x: np.clip(x, -1, 1.5), lambda x: np.clip(x, None, 1.0),
        lambda x: np.clip(x, a_min=0.5, a_max=None), lambda x: np.clip(x, min=-1, max=0.5),
    ),
    np.where: [
        Point(lambda x, y: np.where(like(x, GATHER.T > 1), x, y), ((2, 3), (3,))),
        Point(lambda x: np.where(like(x, GATHER.T > 1), x * x, 0.5), ((2, 3),)),
    ],
    np.copy: calls((2, 3), np.copy),
}  # fmt: skip
FUNCTION_POINTS[np.amax], FUNCTION_POINTS[np.amin] = FUNCTION_POINTS[np.max], FUNCTION_POINTS[np.min]
# What is called on arrays, has no gradient, and is compared with NumPy below.
WITHOUT_GRADIENT: dict[Any, Callable[[Any], Any]] = {
    np.argmax: np.argmax, np.argmin: np.argmin, np.argsort: np.argsort, np.zeros_like: np.zeros_like,
    np.ones_like: np.ones_like, np.empty_like: lambda x: np.empty_like(x).shape,
    np.full_like: lambda x: np.full_like(x, 3), np.shape: np.shape, np.ndim: np.ndim, np.size: np.size,
    np.array_equal: lambda x: np.array_equal(x, x), np.allclose: lambda x: np.allclose(x, x + 1),
    np.isclose: lambda x: np.isclose(x, x + 1), np.all: lambda x: np.all(x > -3), np.any: lambda x: np.any(x > 3),
    np.nonzero: lambda x: np.nonzero(x), np.count_nonzero: lambda x: np.count_nonzero(x > 0),
    np.isneginf: np.isneginf, np.isposinf: np.isposinf, np.result_type: lambda x: np.result_type(x, np.float32),
    np.array_repr: np.array_repr, np.array_str: np.array_str,
}  # fmt: skip
OURS: dict[str, list[Point]] = {
    "logistic": calls((3, 4), logistic),
    "softplus": calls((3, 4), softplus),
    "relu": calls((3, 4), relu),
    "log_sum_exp": reductions(log_sum_exp),
    "log_softmax": calls((3, 4), log_softmax, lambda x: log_softmax(x, 0)),
    "softmax": calls((3, 4), softmax, lambda x: softmax(x, 0)),
    "astype": calls(
        (3,), lambda x: x * (x.astype(np.float64) if hasattr(x, "astype") else x),
        lambda x: np.mean(x, dtype=np.float64),
    ),
    "getitem": calls(
        (3, 4, 5), lambda x: x[1], lambda x: x[..., ::-2], lambda x: x[None, :, 1:3, 4], lambda x: x[like(x, INDEX)],
        lambda x: x[like(x, INDEX), like(x, [0, 1, 1, 3, 3])], lambda x: x[:, like(x, INDEX), None, 1:],
        lambda x: x[like(x, np.arange(60).reshape(3, 4, 5) % 7 == 0)], lambda x: x[:0],
    ),
}  # fmt: skip

POINTS: dict[str, list[Point]] = {
    **{f"ufunc {u.__name__}": points for u, points in ufunc_points()},
    **{f.__name__: points for f, points in FUNCTION_POINTS.items()},
    **OURS,
}
ALL = [pytest.param(p, id=f"{name}-{i}") for name, points in POINTS.items() for i, p in enumerate(points)]


def test_every_registered_rule_has_a_point() -> None:
    assert set(UFUNCS) == {*UNARY, *BINARY, np.matmul, *FLAT}
    assert set(FUNCTIONS) == {*FUNCTION_POINTS, *WITHOUT_GRADIENT}


# --- differences ----------------------------------------------------------------------------------------------

STEP = 1e-3
EPS = float(np.finfo(np.float64).eps)


def slope(f: Callable[[float], float], scale: float) -> tuple[float, float]:
    """Derivative at 0, and a bound on its error.

    Central differences at three steps, extrapolated twice over: the second value is better than the first, so that
    their difference bounds its error. A value of f is off by the rounding of a sum of size `scale`, through some tens
    of operations; the weights of the values in the result add up to 13.
    """
    d = [(f(h) - f(-h)) / (2 * h) for h in (STEP, STEP / 2, STEP / 4)]
    first, second = (4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3
    return second, abs(second - first) + 13 * 64 * EPS * scale / STEP


def weights_of(point: Point, arrays: list[Any], rng: np.random.Generator) -> Any:
    return np.asarray(rng.standard_normal(np.shape(point.call(*arrays))))


def leaves(arrays: list[Any]) -> list[gc.Tensor]:
    return [gc.tensor(x, requires_grad=True) for x in arrays]


def gradients(
    point: Point, arrays: list[Any], u: Any, create_graph: bool = False
) -> tuple[list[gc.Tensor], list[Any]]:
    xs = leaves(arrays)
    found = gc.grad(point.call(*xs), xs, u, create_graph=create_graph, allow_unused=True)
    return xs, [gc.tensor(np.zeros(x.shape)) if g is None else g for x, g in zip(xs, found, strict=True)]


def seed_of(request: pytest.FixtureRequest) -> int:
    return zlib.crc32(request.node.callspec.id.encode())


def moved(arrays: list[Any], directions: list[Any], t: float) -> list[Any]:
    return [x + t * d for x, d in zip(arrays, directions, strict=True)]


def inner(left: list[Any], right: list[Any]) -> float:
    return float(sum(np.sum(np.asarray(a) * np.asarray(b)) for a, b in zip(left, right, strict=True)))


def size_of(left: list[Any], right: list[Any]) -> float:
    return 1 + inner([np.abs(x) for x in left], [np.abs(x) for x in right])


@pytest.mark.parametrize("point", ALL)
def test_first_derivative_is_that_of_differences(point: Point, request: pytest.FixtureRequest) -> None:
    seed = seed_of(request)
    arrays, rng = point.draw(seed), np.random.default_rng(seed + 1)
    u = weights_of(point, arrays, rng)
    d = [rng.uniform(-1, 1, x.shape) for x in arrays]
    xs, found = gradients(point, arrays, u)
    assert [g.shape for g in found] == [x.shape for x in xs]
    value = point.call(*arrays)
    want, error = slope(lambda t: inner([point.call(*moved(arrays, d, t))], [u]), size_of([value], [u]))
    assert abs(inner([g.numpy() for g in found], d) - want) <= error
    np.testing.assert_array_equal(point.call(*xs).detach().numpy(), value)


@pytest.mark.parametrize("point", ALL)
def test_second_derivative_is_that_of_differences(point: Point, request: pytest.FixtureRequest) -> None:
    seed = seed_of(request)
    arrays, rng = point.draw(seed), np.random.default_rng(seed + 1)
    u = weights_of(point, arrays, rng)
    d, v = ([rng.uniform(-1, 1, x.shape) for x in arrays] for _ in range(2))
    xs, found = gradients(point, arrays, u, create_graph=True)
    flat = gradients(point, arrays, u)[1]
    for g, h in zip(found, flat, strict=True):
        np.testing.assert_array_equal(g.detach().numpy(), h.numpy())  # the same arithmetic in both modes
    along = sum(
        (np.sum(g * w) for g, w in zip(found, v, strict=True)), start=gc.tensor(0.0, dtype=np.float64)
    )
    want, error = slope(
        lambda t: inner([g.numpy() for g in gradients(point, moved(arrays, d, t), u)[1]], v),
        size_of([g.numpy() for g in flat], v),
    )
    if not along.requires_grad:  # linear
        assert abs(want) <= error
        return
    second = gc.grad(along, xs, allow_unused=True)
    assert all(g is None or g.shape == x.shape for g, x in zip(second, xs, strict=True))
    got = inner([0.0 if g is None else g.numpy() for g in second], d)
    assert abs(got - want) <= error


# --- dtype ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [p for p in ALL if not p.id.startswith("astype")])
def test_float32_stays_float32_in_every_rule(
    point: Point, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = backward._fit

    def strict(op: Any, argument: int, value: Any, like: Any) -> Any:
        assert value.dtype == like.dtype, (op.name, argument, value.dtype)
        return fit(op, argument, value, like)

    monkeypatch.setattr(backward, "_fit", strict)
    xs = leaves(point.draw(seed_of(request), np.float32))
    y = point.call(*xs)
    assert y.dtype == np.float32
    found = gc.grad(y, xs, np.ones(y.shape, np.float32), create_graph=True, allow_unused=True)
    along = sum((np.sum(g * g) for g in found if g is not None), start=gc.tensor(0.0))
    assert along.dtype == np.float32
    if along.requires_grad:
        assert {g.dtype for g in gc.grad(along, xs, allow_unused=True) if g is not None} <= {
            np.dtype(np.float32)
        }


# --- on a device --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ALL)
def test_every_rule_runs_on_a_device_array(point: Point, request: pytest.FixtureRequest) -> None:
    """Forward, backward and second order never meet a NumPy array, and give NumPy's bits."""
    arrays = point.draw(seed_of(request))

    def run(arrays: list[Any]) -> list[Any]:
        xs = leaves(arrays)
        y = point.call(*xs)
        first = gc.grad(y, xs, y.detach() * 0 + 1.5, create_graph=True, allow_unused=True)
        along = sum((np.sum(g * g) for g in first if g is not None), start=xs[0].detach().sum() * 0)
        second = gc.grad(along, xs, allow_unused=True) if along.requires_grad else ()
        point.call(*xs).sum().backward()
        return [y.detach(), *(g for g in (*first, *second) if g is not None), *(x.grad for x in xs)]

    want, got = run(arrays), run([DeviceArray(x) for x in arrays])
    for w, g in zip(want, got, strict=True):
        assert isinstance(g.detach().data, DeviceArray)
        assert g.device == "cuda"
        np.testing.assert_array_equal(g.numpy(), w.numpy())


# --- without gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ufunc", FLAT, ids=lambda u: u.__name__)
def test_flat_ufuncs_give_numpys_values_without_history(ufunc: Any) -> None:
    bits = ufunc.__name__.startswith("bitwise") or ufunc is np.invert
    rng = np.random.default_rng(5)
    arrays = [rng.uniform(-2, 2, (3, 4)) for _ in range(ufunc.nin)]
    arrays = [x > 0 for x in arrays] if bits else arrays
    result = ufunc(*(gc.tensor(x, requires_grad=not bits) for x in arrays))
    assert not result.requires_grad
    np.testing.assert_array_equal(result.numpy(), ufunc(*arrays))


@pytest.mark.parametrize("function", WITHOUT_GRADIENT, ids=lambda f: f.__name__)
def test_functions_without_gradient_give_numpys_values(function: Any) -> None:
    x = np.random.default_rng(6).uniform(-2, 2, (3, 4))
    got, want = (WITHOUT_GRADIENT[function](a) for a in (gc.tensor(x, requires_grad=True), x))
    if isinstance(want, np.ndarray | tuple):
        np.testing.assert_array_equal(got, want)
    else:
        assert got == want


def test_integers_made_of_floats_have_no_history() -> None:
    assert not gc.tensor([1.5], requires_grad=True).astype(np.int64).requires_grad
