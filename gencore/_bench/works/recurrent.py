"""LSTMs, forward and back: a layer along sequences, a Diagonal BiLSTM along images."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

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


class Diagonal(NamedTuple):
    """A Diagonal BiLSTM on maps x (N, Y, X, C), as `gencore.kernels.recurrent.diagonal_bilstm` has it."""

    x: Array
    w_input: Array  # (C, 8F)
    w_state: Array  # (2, 2, F, 4F): from the left and from the right; of the state above, of that before in the row
    bias: Array  # (8F,)
    grad: Array  # (N, Y, X, F)


def swept(p: Diagonal) -> Array:
    """(N, Y, X, F), pixel by pixel."""
    n, height, width, _ = p.x.shape
    units = p.w_state.shape[2]
    sums, out = p.x @ p.w_input + p.bias, np.zeros((n, height + 1, width, units))
    for side, w in enumerate(p.w_state):
        # Of a row, the states above with a column of zeros on either side.
        above = np.zeros((n, width + 2, units))
        for y in range(height):
            here, c = np.zeros_like(above), np.zeros((n, units))
            for x in range(width) if side == 0 else reversed(range(width)):
                before = here[:, x] if side == 0 else here[:, x + 2]
                z = sums[:, y, x, 4 * side * units :][:, : 4 * units] + above[:, x + 1] @ w[0] + before @ w[1]
                here[:, x + 1], c = cell(z, c)
            out[:, y + side] += here[:, 1:-1]
            above = here
    return out[:, :-1]


def check_layer(p: Any, exactly: Callable[[Any], Array], terms: int, candidate: Candidate) -> str:
    """`sample() -> (states, gradients of the arrays of p but the last)`.

    The gradients are checked along random directions, against differences of float64.
    """
    found = candidate.sample()
    exact = type(p)(*(a.astype(float) for a in p))
    said = reference.close("states", np.asarray(found[0]), exactly(exact), EPS * terms)
    rng, h = np.random.default_rng(26), 1e-5
    for _ in range(4):
        d = [rng.standard_normal(a.shape) for a in p[:-1]]

        def along(t: float, d: list[Array] = d) -> float:
            moved = type(p)(*(a + t * step for a, step in zip(exact, [*d, 0 * exact.grad], strict=True)))
            return float((moved.grad * exactly(moved)).sum())

        parts = [np.asarray(g, float) * step for g, step in zip(found[1:], d, strict=True)]
        size = float(sum(np.abs(part).sum() for part in parts))
        slope = float(sum(part.sum() for part in parts))
        reference.close("gradients", slope, (along(h) - along(-h)) / (2 * h), 1e-5 * size)
    return said


def check(p: Lstm, candidate: Candidate) -> str:
    """See `check_layer`."""
    return check_layer(p, states, sum(p.w_input.shape) + p.w_hidden.shape[0], candidate)


def check_diagonal(p: Diagonal, candidate: Candidate) -> str:
    """See `check_layer`."""
    return check_layer(p, swept, sum(p.w_input.shape) + p.w_state.shape[2], candidate)


@lru_cache
def problem(tiny: bool) -> Lstm:
    """28 rows of an image, say, of 64 features each."""
    rng = np.random.default_rng(25)
    n, steps, depth, hidden = (3, 4, 5, 6) if tiny else (64, 28, 64, 256)
    shapes = ((n, steps, depth), (depth, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (n, steps, hidden))
    return Lstm(*_normals(rng, shapes, (1, depth**-0.5, hidden**-0.5, 1, 1)))


def _normals(rng: np.random.Generator, shapes: Any, scales: Any) -> Any:
    return (
        (s * rng.standard_normal(shape)).astype(np.float32) for shape, s in zip(shapes, scales, strict=True)
    )


@lru_cache
def diagonal_problem(tiny: bool) -> Diagonal:
    """A layer of the published model, on a batch of it."""
    rng = np.random.default_rng(27)
    n, side, channels, units = (2, 4, 3, 5) if tiny else (16, 28, 64, 32)
    shapes = ((n, side, side, channels), (channels, 8 * units), (2, 2, units, 4 * units), (8 * units,),
              (n, side, side, units))  # fmt: skip
    return Diagonal(*_normals(rng, shapes, (1, channels**-0.5, (2 * units) ** -0.5, 1, 1)))


def cost(p: Lstm) -> Cost:
    """Forward once, back twice."""
    weights = p.w_input.size + p.w_hidden.size
    return Cost(3 * 2.0 * p.x[..., 0].size * weights, 0, "multiply-adds forward and back")


def diagonal_cost(p: Diagonal) -> Cost:
    """Forward once, back twice."""
    return Cost(
        3 * 2.0 * p.x[..., 0].size * (p.w_input.size + p.w_state.size), 0, "multiply-adds forward and back"
    )


WORKS = (
    Work("lstm", "LSTM 28 steps, 64 x 64-256, grads", "lstm", problem, cost, check),
    Work(
        "bilstm",
        "Diagonal BiLSTM 64-32, grads",
        "diagonal_bilstm",
        diagonal_problem,
        diagonal_cost,
        check_diagonal,
    ),
)
