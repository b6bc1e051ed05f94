"""Kullback-Leibler divergences in closed form, found by the types of both distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gencore.autograd.functions import where
from gencore.autograd.tensors import plain
from gencore.distributions._functions import log_gamma, ndtr, spread
from gencore.distributions.base import Distribution
from gencore.distributions.continuous import (
    Exponential,
    Gumbel,
    Laplace,
    Logistic,
    LogNormal,
    Normal,
    Uniform,
)
from gencore.distributions.discrete import Bernoulli, Categorical
from gencore.distributions.independent import Independent

__all__ = ["kl_divergence", "register_kl"]

Rule = Callable[[Any, Any], Any]
R = TypeVar("R", bound=Rule)

_RULES: dict[tuple[type, type], Rule] = {}
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_EULER_GAMMA = float(np.euler_gamma)


def register_kl(type_p: type, type_q: type) -> Callable[[R], R]:
    """Decorate a function of (p, q) as what `kl_divergence` computes for these types and those derived from them.

    Parameters
    ----------
    type_p, type_q : type
        Classes derived from Distribution.

    Examples
    --------
    >>> class Standard(Normal):
    ...     def __init__(self):
    ...         super().__init__(0.0, 1.0)
    >>> @register_kl(Normal, Standard)
    ... def _to_standard(p, q):
    ...     return 0.5 * (np.square(p.scale) + np.square(p.loc) - 1) - np.log(p.scale)
    >>> kl_divergence(Normal(2.0, 1.0), Standard())
    np.float32(2.0)
    """

    def register(rule: R) -> R:
        _RULES[type_p, type_q] = rule
        return rule

    return register


def kl_divergence(p: Distribution, q: Distribution) -> Any:
    """``KL(p || q) = E_p[log p(x) - log q(x)]``, in closed form.

    Known for two of a kind of Normal, LogNormal, Exponential, Laplace, Gumbel, Uniform, Bernoulli, Categorical and
    Independent; from any continuous one with a variance to Normal; from Uniform and LogNormal to Exponential; from
    Normal, Exponential and Uniform to Gumbel; from Normal to Laplace. It is inf for all that reach beyond the support
    of a Uniform or an Exponential.

    Parameters
    ----------
    p, q : Distribution
        Of batch shapes that broadcast.

    Returns
    -------
    Tensor or array
        In nats, of the broadcast batch shape. Absolute error: a few roundings of the largest term of the formula.

    Notes
    -----
    Gradient: to the parameters of both, to any order (second order where a Gumbel is to a Gumbel).

    Raises
    ------
    TypeError
        No rule for this pair; it is named. `register_kl` adds one.
    ValueError
        Batch shapes that do not broadcast.
    """
    for name, d in (("p", p), ("q", q)):
        if not isinstance(d, Distribution):
            raise TypeError(f"kl_divergence: expected {name} to be a Distribution, received {d!r:.60}")
    rule = next((_RULES[a, b] for a in type(p).__mro__ for b in type(q).__mro__ if (a, b) in _RULES), None)
    if rule is None:
        raise TypeError(
            f"kl_divergence: expected a pair with a known divergence, received {type(p).__name__} and "
            f"{type(q).__name__}; register_kl adds one"
        )
    try:
        shape = np.broadcast_shapes(p.batch_shape, q.batch_shape)
    except ValueError:
        raise ValueError(
            f"kl_divergence: expected batch shapes that broadcast, received {p.batch_shape} and {q.batch_shape}"
        ) from None
    with np.errstate(over="ignore", divide="ignore"):
        found = rule(p, q)
    return found if np.shape(found) == shape else spread(found, shape)


# --- two of a kind ------------------------------------------------------------------------------------------


def _apart(ratio: Any) -> Any:
    """``r - 1 - log r``: 0 for equal scales; inf for an infinite ratio."""
    beyond = np.isinf(plain(ratio))
    within = where(beyond, 1, ratio)
    return where(beyond, ratio, within - 1 - np.log(within))


@register_kl(Normal, Normal)
@register_kl(LogNormal, LogNormal)
def _normal(p: Any, q: Any) -> Any:
    (p_loc, p_scale), (q_loc, q_scale) = p._given.values(), q._given.values()
    return 0.5 * (_apart(np.square(p_scale / q_scale)) + np.square((p_loc - q_loc) / q_scale))


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Any:
    return _apart(q._given["rate"] / p._given["rate"])


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Any:
    (p_loc, p_scale), (q_loc, q_scale) = p._given.values(), q._given.values()
    ratio, distance = p_scale / q_scale, np.abs(p_loc - q_loc)
    return _apart(ratio) + distance / q_scale + ratio * np.expm1(-distance / p_scale)


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Gumbel, q: Gumbel) -> Any:
    (p_loc, p_scale), (q_loc, q_scale) = p._given.values(), q._given.values()
    ratio, d = p_scale / q_scale, (p_loc - q_loc) / q_scale
    return d - np.log(ratio) + _EULER_GAMMA * (ratio - 1) + np.expm1(log_gamma(1 + ratio) - d)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Any:
    (p_low, p_high), (q_low, q_high) = p._given.values(), q._given.values()
    inside = (plain(p_low) >= plain(q_low)) & (plain(p_high) <= plain(q_high))
    return where(inside, np.log(q._width()) - np.log(p._width()), np.inf)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Any:
    weights = p.both_probs()
    return p.expected_log(*weights) - q.expected_log(*weights)


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Any:
    if p._n() != q._n():
        raise ValueError(
            f"kl_divergence: expected as many categories in both, received {p._n()} and {q._n()}"
        )
    weights = p._probs()
    return p.expected_log(weights) - q.expected_log(weights)


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Any:
    if p.event_shape != q.event_shape or p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise ValueError(
            f"kl_divergence: expected Independent of equal event shapes, received {p.event_shape} and {q.event_shape}"
        )
    return p.sum_events(kl_divergence(p.base_dist, q.base_dist))


# --- different kinds ----------------------------------------------------------------------------------------


def _beyond(p: Distribution, q: Distribution) -> Any:
    """P reaches where q has no density."""
    shape = np.broadcast_shapes(p.batch_shape, q.batch_shape)
    found = np.full(shape, np.inf, np.result_type(p.dtype, q.dtype))
    return p._as_given(q._as_given(found))


_CONTINUOUS: tuple[type, ...] = (Normal, LogNormal, Exponential, Laplace, Logistic, Gumbel, Uniform)
for _p in _CONTINUOUS[:-1]:
    register_kl(_p, Uniform)(_beyond)
for _p in (Normal, Laplace, Logistic, Gumbel):
    register_kl(_p, Exponential)(_beyond)


def _to_normal(p: Distribution, q: Normal) -> Any:
    loc, scale = q._given.values()
    square = np.square(p.stddev / scale) + np.square((p.mean - loc) / scale)
    return 0.5 * square + np.log(scale) + _HALF_LOG_2PI - p.entropy()


for _p in _CONTINUOUS[1:]:
    register_kl(_p, Normal)(_to_normal)


@register_kl(LogNormal, Exponential)
def _to_exponential(p: Distribution, q: Exponential) -> Any:
    rate = q._given["rate"]
    return rate * p.mean - np.log(rate) - p.entropy()


@register_kl(Uniform, Exponential)
def _uniform_exponential(p: Uniform, q: Exponential) -> Any:
    return where(plain(p._given["low"]) < 0, np.inf, _to_exponential(p, q))


def _to_gumbel(p: Distribution, q: Gumbel, log_tail: Any) -> Any:
    """`log_tail` is ``log E_p[exp(-(x - loc) / scale)]``."""
    loc, scale = q._given.values()
    return (p.mean - loc) / scale + np.exp(log_tail) + np.log(scale) - p.entropy()


@register_kl(Normal, Gumbel)
def _normal_gumbel(p: Normal, q: Gumbel) -> Any:
    (p_loc, p_scale), (q_loc, q_scale) = p._given.values(), q._given.values()
    return _to_gumbel(p, q, 0.5 * np.square(p_scale / q_scale) - (p_loc - q_loc) / q_scale)


@register_kl(Exponential, Gumbel)
def _exponential_gumbel(p: Exponential, q: Gumbel) -> Any:
    loc, scale = q._given.values()
    return _to_gumbel(p, q, loc / scale - np.log1p(1 / (p._given["rate"] * scale)))


@register_kl(Uniform, Gumbel)
def _uniform_gumbel(p: Uniform, q: Gumbel) -> Any:
    loc, scale = q._given.values()
    low, width = p._given["low"], p._width() / scale
    return _to_gumbel(p, q, (loc - low) / scale + np.log(-np.expm1(-width) / width))


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Any:
    (p_loc, p_scale), (q_loc, q_scale) = p._given.values(), q._given.values()
    # E|x - q_loc| of a normal x (the folded normal's mean), by d / p_scale.
    z = (p_loc - q_loc) / p_scale
    distance = p_scale * (math.sqrt(2 / math.pi) * np.exp(-0.5 * np.square(z)) + z * (2 * ndtr(z) - 1))
    return distance / q_scale + np.log(q_scale) + math.log(2) - p.entropy()
