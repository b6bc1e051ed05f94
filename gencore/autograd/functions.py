"""Elementwise functions and their gradients: NumPy's ufuncs, operators, and the few that NumPy lacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gencore.autograd.record import defvjp, method, nondiff, primitive, takes_lists
from gencore.autograd.tensors import Tensor, plain

__all__ = ["UFUNCS", "logistic", "relu", "softplus", "where"]

UFUNCS: dict[Any, Callable[..., Any]] = {}
"""What `Tensor.__array_ufunc__` calls for each of NumPy's ufuncs."""


def _ufunc(ufunc: Any, *rules: Callable[..., Any]) -> Any:
    op = takes_lists(primitive(ufunc))
    if rules:
        defvjp(op, *rules)
    else:
        nondiff(op)
    UFUNCS[ufunc] = op
    return op


add = _ufunc(np.add, lambda g, _ans, _a, _b: g, lambda g, _ans, _a, _b: g)
subtract = _ufunc(np.subtract, lambda g, _ans, _a, _b: g, lambda g, _ans, _a, _b: -g)
multiply = _ufunc(np.multiply, lambda g, _ans, _a, b: g * b, lambda g, _ans, a, _b: g * a)
divide = _ufunc(np.true_divide, lambda g, _ans, _a, b: g / b, lambda g, ans, _a, b: -g * ans / b)
negative = _ufunc(np.negative, lambda g, _ans, _x: -g)
positive = _ufunc(np.positive, lambda g, _ans, _x: g)


def _power(x: Any, y: Any) -> Any:
    return x**y  # NumPy's operator has fast ways for whole exponents that its ufunc lacks


power = takes_lists(primitive(_power))
defvjp(power, lambda g, _ans, x, y: _power_base(g, x, y), lambda g, ans, x, _y: _power_exponent(g, ans, x))
UFUNCS[np.power] = power
exp = _ufunc(np.exp, lambda g, ans, _x: g * ans)
exp2 = _ufunc(np.exp2, lambda g, ans, _x: g * ans * float(np.log(2.0)))
expm1 = _ufunc(np.expm1, lambda g, ans, _x: g * (ans + 1))
log = _ufunc(np.log, lambda g, _ans, x: g / x)
log2 = _ufunc(np.log2, lambda g, _ans, x: g / (x * float(np.log(2.0))))
log10 = _ufunc(np.log10, lambda g, _ans, x: g / (x * float(np.log(10.0))))
log1p = _ufunc(np.log1p, lambda g, _ans, x: g / (1 + x))
sqrt = _ufunc(np.sqrt, lambda g, ans, _x: g * 0.5 / ans)
cbrt = _ufunc(np.cbrt, lambda g, ans, _x: g / (3 * ans * ans))
square = _ufunc(np.square, lambda g, _ans, x: g * (2 * x))
reciprocal = _ufunc(np.reciprocal, lambda g, ans, _x: -g * ans * ans)
sin = _ufunc(np.sin, lambda g, _ans, x: g * np.cos(x))
cos = _ufunc(np.cos, lambda g, _ans, x: -g * np.sin(x))
tan = _ufunc(np.tan, lambda g, ans, _x: g * (1 + ans * ans))
arcsin = _ufunc(np.arcsin, lambda g, _ans, x: g / np.sqrt(1 - x * x))
arccos = _ufunc(np.arccos, lambda g, _ans, x: -g / np.sqrt(1 - x * x))
arctan = _ufunc(np.arctan, lambda g, _ans, x: g / (1 + x * x))
arctan2 = _ufunc(
    np.arctan2,
    lambda g, _ans, y, x: g * x / (x * x + y * y),
    lambda g, _ans, y, x: -g * y / (x * x + y * y),
)
sinh = _ufunc(np.sinh, lambda g, _ans, x: g * np.cosh(x))
cosh = _ufunc(np.cosh, lambda g, _ans, x: g * np.sinh(x))
tanh = _ufunc(np.tanh, lambda g, ans, _x: g - g * ans * ans)
arcsinh = _ufunc(np.arcsinh, lambda g, _ans, x: g / np.sqrt(x * x + 1))
arccosh = _ufunc(np.arccosh, lambda g, _ans, x: g / np.sqrt(x * x - 1))
arctanh = _ufunc(np.arctanh, lambda g, _ans, x: g / (1 - x * x))
absolute = _ufunc(np.absolute, lambda g, _ans, x: g * np.sign(x))
fabs = _ufunc(np.fabs, lambda g, _ans, x: g * np.sign(x))
hypot = _ufunc(np.hypot, lambda g, ans, x, _y: g * x / ans, lambda g, ans, _x, y: g * y / ans)
logaddexp = _ufunc(
    np.logaddexp, lambda g, ans, x, _y: g * weights(x, ans), lambda g, ans, _x, y: g * weights(y, ans)
)
# Of x - y floor(x / y): the quotient, rounded, has slope 0.
remainder = _ufunc(np.remainder, lambda g, _ans, _x, _y: g, lambda g, _ans, x, y: -g * np.floor_divide(x, y))
fmod = _ufunc(np.fmod, lambda g, _ans, _x, _y: g, lambda g, _ans, x, y: -g * np.trunc(x / y))
# Where both are equal, each takes half.
maximum = _ufunc(np.maximum, lambda g, _ans, x, y: g * _share(x, y), lambda g, _ans, x, y: g * _share(y, x))
minimum = _ufunc(np.minimum, lambda g, _ans, x, y: g * _share(y, x), lambda g, _ans, x, y: g * _share(x, y))
fmax = _ufunc(np.fmax, lambda g, _ans, x, y: g * _share(x, y), lambda g, _ans, x, y: g * _share(y, x))
fmin = _ufunc(np.fmin, lambda g, _ans, x, y: g * _share(y, x), lambda g, _ans, x, y: g * _share(x, y))
for _flat in (
    np.sign, np.floor, np.ceil, np.rint, np.trunc, np.floor_divide, np.equal, np.not_equal, np.less,
    np.less_equal, np.greater, np.greater_equal, np.isfinite, np.isnan, np.isinf, np.signbit, np.logical_and,
    np.logical_or, np.logical_not, np.logical_xor, np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert,
):  # fmt: skip
    _ufunc(_flat)


def _power_base(g: Any, x: Any, y: Any) -> Any:
    """Y x^(y-1), which is 0 for y = 0, also at x = 0."""
    if isinstance(y, int | float):
        return g * (y * x ** (y - 1)) if y != 0 else np.zeros_like(g)
    nothing = np.logical_and(np.equal(plain(x), 0), np.equal(plain(y), 0))
    return g * (y * x ** where(nothing, 0, y - 1))


def _power_exponent(g: Any, ans: Any, x: Any) -> Any:
    """x^y log x, taken as 0 where x is not above 0."""
    if isinstance(x, int | float):
        return g * (ans * (math.log(x) if x > 0 else 0.0))
    return g * (ans * np.log(where(np.greater(plain(x), 0), x, 1)))


def _share(x: Any, y: Any) -> Any:
    """1 where x > y, 1/2 where they are equal, else 0; where only y is NaN, 1. In the common dtype."""
    a, b = plain(x), plain(y)
    larger = np.logical_or(np.greater(a, b), np.greater(np.isnan(b), np.isnan(a)))
    kind = np.result_type(a, b)
    return np.where(larger, kind.type(1), np.where(np.equal(a, b), kind.type(0.5), kind.type(0)))


def weights(x: Any, total: Any) -> Any:
    """exp(x - total), the share of a term in a log-sum-exp; 0 where all terms are -inf."""
    return np.exp(x - where(np.isfinite(plain(total)), total, 0))


@takes_lists
@primitive
def _select(condition: Any, x: Any, y: Any) -> Any:
    return np.where(condition, x, y)


defvjp(
    _select,
    None,
    lambda g, _ans, condition, _x, _y: where(condition, g, 0),
    lambda g, _ans, condition, _x, _y: where(condition, 0, g),
)


def where(condition: Any, x: Any, y: Any) -> Any:
    """``x`` where the condition holds, else ``y``; no gradient of what is not taken gets through, NaN included."""
    return _select(plain(condition), x, y)


@primitive
def logistic(x: Any) -> Any:
    """``1 / (1 + exp(-x))``, without overflow at either end."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


defvjp(logistic, lambda g, ans, _x: (h := g * ans) - h * ans)


@primitive
def softplus(x: Any) -> Any:
    """``log(1 + exp(x))``, exact at both ends."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


defvjp(softplus, lambda g, _ans, x: g * logistic(x))


@primitive
def relu(x: Any) -> Any:
    """``max(x, 0)``; its slope at 0 is 0."""
    return np.maximum(x, 0)


defvjp(relu, lambda g, ans, _x: g * (plain(ans) > 0))


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    op = UFUNCS.get(ufunc)
    if op is None or method != "__call__" or kwargs:
        given = "".join(f", {name}=" for name in kwargs)
        what = ufunc.__name__ + ("" if method == "__call__" else f".{method}")
        raise TypeError(
            f"numpy.{what}{given}: is not defined on Tensors; give arrays (x.detach().numpy()), "
            "or declare it with gc.primitive"
        )
    return op(*inputs)


def _right(function: Any) -> Callable[[Tensor, Any], Any]:
    call = method(function, 2)
    return lambda self, other: call(other, self)


def _install() -> None:
    operators = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power,
        "floordiv": np.floor_divide, "mod": np.remainder,
        "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    }  # fmt: skip
    comparisons = {
        "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
        "ne": np.not_equal,
    }  # fmt: skip
    for name, ufunc in (operators | comparisons).items():
        setattr(Tensor, f"__{name}__", method(UFUNCS[ufunc], 2))
    for name, ufunc in operators.items():
        setattr(Tensor, f"__r{name}__", _right(UFUNCS[ufunc]))
    unary = {"neg": negative, "pos": positive, "abs": absolute, "invert": UFUNCS[np.invert]}
    for name, op in unary.items():
        setattr(Tensor, f"__{name}__", method(op, 1))
    for function in (exp, expm1, log, log1p, sqrt, square, sin, cos, tanh, logistic, softplus, relu):
        setattr(Tensor, function.__name__, method(function, 1))
    setattr(Tensor, "abs", method(absolute, 1))  # noqa: B010 (a type checker knows another type)
    setattr(Tensor, "__array_ufunc__", _array_ufunc)  # noqa: B010


_install()
