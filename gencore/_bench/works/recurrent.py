"""LSTMs: a layer along sequences, and a Diagonal BiLSTM along images, forward and back."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .. import reference
from ..measure import Candidate
from ..reference import Array
from .common import EPS, Cost, Work


class Lstm(NamedTuple):
    """A layer on sequences x (N, T, D), gates i, f, g, o side by side, and the gradient of its states (N, T, H)."""

    x: Array
    w_input: Array  # (D, 4H)
    w_hidden: Array  # (H, 4H)
    bias: Array  # (4H,)
    grad: Array


def cell(z: Array, c: Array) -> tuple[Array, Array]:
    """The state and the cell after, float64, from sums of gates and the cell before."""
    i, f, g, o = np.split(z, 4, axis=-1)
    after = reference.logistic(f) * c + reference.logistic(i) * np.tanh(g)
    return reference.logistic(o) * np.tanh(after), after


def states(p: Lstm) -> Array:
    """(N, T, H), step by step."""
    h = c = np.zeros((len(p.x), p.w_hidden.shape[0]))
    found = []
    for t in range(p.x.shape[1]):
        h, c = cell(p.x[:, t] @ p.w_input + h @ p.w_hidden + p.bias, c)
        found.append(h)
    return np.stack(found, 1)


def check(p: Lstm, candidate: Candidate) -> str:
    """`sample() -> (states, gradients of x, w_input, w_hidden, bias)`.

    The gradients are checked along random directions, against differences of float64.
    """
    found = candidate.sample()
    exact = Lstm(*(a.astype(float) for a in p))
    terms = sum(p.w_input.shape) + p.w_hidden.shape[0]
    said = reference.close("states", np.asarray(found[0]), states(exact), EPS * terms)
    rng, h = np.random.default_rng(26), 1e-5
    for _ in range(4):
        d = [rng.standard_normal(a.shape) for a in p[:4]]

        def along(t: float, d: list[Array] = d) -> float:
            moved = Lstm(*(a + t * step for a, step in zip(exact, [*d, 0 * exact.grad], strict=True)))
            return float((moved.grad * states(moved)).sum())

        parts = [np.asarray(g, float) * step for g, step in zip(found[1:], d, strict=True)]
        size = float(sum(np.abs(part).sum() for part in parts))
        slope = float(sum(part.sum() for part in parts))
        reference.close("gradients", slope, (along(h) - along(-h)) / (2 * h), 1e-5 * size)
    return said


@lru_cache
def problem(tiny: bool) -> Lstm:
    """28 rows of an image, say, of 64 features each."""
    rng = np.random.default_rng(25)
    n, steps, depth, hidden = (3, 4, 5, 6) if tiny else (64, 28, 64, 256)
    shapes = ((n, steps, depth), (depth, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (n, steps, hidden))
    scales = (1, depth**-0.5, hidden**-0.5, 1, 1)
    x, w_input, w_hidden, bias, grad = (
        (scale * rng.standard_normal(shape)).astype(np.float32)
        for scale, shape in zip(scales, shapes, strict=True)
    )
    return Lstm(x, w_input, w_hidden, bias, grad)


def cost(p: Lstm) -> Cost:
    """Forward once, back twice."""
    weights = p.w_input.size + p.w_hidden.size
    return Cost(3 * 2.0 * p.x[..., 0].size * weights, 0, "multiply-adds forward and back")


WORKS = (Work("lstm", "LSTM 28 steps, 64 x 64-256, grads", "lstm", problem, cost, check),)
