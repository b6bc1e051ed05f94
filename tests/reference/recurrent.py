"""LSTMs in float64, cell by cell in raster order, with bounds on the errors of float32.

A position is a step of the sequences (n side by side), or a pixel of the images. `order` lists positions; each has the
positions that its taps meet, and the one whose cell was before it. Whoever computes them otherwise gets the same.
"""

import numpy as np

from .rounding import Rounded, U, chained

SLOPES = 5  # units in the last place that logistic and tanh may err by, in halves


def exact(x):
    """Numbers as they are."""
    return Rounded(x, np.zeros(np.shape(x)))


def logistic(x):
    return 1 / (1 + np.exp(-x))


def through(function, steepest, z):
    """A function of a rounded number, no steeper than `steepest`."""
    value = function(z.value)
    return Rounded(value, steepest * z.error + SLOPES * U * np.abs(value))


def summed(parts, extra):
    """Sum of products a @ w, as one chain of float32 operations in any order, and what is added at the end."""
    value = sum((a.value @ w for a, w in parts), extra.value)
    carried = sum((a.error @ np.abs(w) for a, w in parts), extra.error)
    magnitude = sum(((np.abs(a.value) + a.error) @ np.abs(w) for a, w in parts), np.abs(extra.value))
    terms = sum(w.shape[0] for _, w in parts) + 2
    return Rounded(value, carried + chained(terms) * U * magnitude)


class Cells:
    """What `forward` finds: by position, h, the gates and c, each (n, units)."""

    def __init__(self):
        self.h, self.gates, self.c = {}, {}, {}


def forward(z, weights, order, met, before, h0=None, c0=None):
    """z maps positions to Rounded (n, 4 units), weights are (taps, units, 4 units)."""
    found, units = Cells(), weights.shape[1]
    for p in order:
        n = z[p].value.shape[0]
        zeros = exact(np.zeros((n, units)))
        parts = [(found.h.get(q, h0 or zeros), weights[j]) for j, q in enumerate(met(p))]
        sums = summed(parts, z[p])
        i, f, g, o = (
            through(np.tanh if k == 2 else logistic, 1 if k == 2 else 0.25,
                    Rounded(sums.value[:, k * units : (k + 1) * units], sums.error[:, k * units : (k + 1) * units]))
            for k in range(4)
        )  # fmt: skip
        found.gates[p] = (i, f, g, o)
        found.c[p] = f * found.c.get(before(p), c0 or zeros) + i * g
        found.h[p] = o * through(np.tanh, 1, found.c[p])
    return found


def backward(grads, gates, cells, states, weights, order, met, before, c0=None, h0=None, grad_c=None):
    """From gates, cells and states as float32 has them: gradients of z by position, of the weights, of h0 and c0.

    `grads` are those of h by position; `grad_c`, if there is one, that of the last cells.
    """
    units = weights.shape[1]
    n = next(iter(grads.values())).shape[0] if grads else 0
    of_c, pushed, of_z = {}, {}, {}
    of_weights = np.zeros(weights.shape), np.zeros(weights.shape)
    if grad_c is not None:
        of_c[order[-1]] = exact(grad_c)
    zeros = np.zeros((n, units))
    for p in reversed(order):
        i, f, g, o = (exact(gates[p][:, k * units : (k + 1) * units]) for k in range(4))
        t = through(np.tanh, 1, exact(cells[p]))
        dh = summed(pushed.get(p, []), exact(grads[p]))
        dc = of_c.get(p, exact(zeros)) + dh * o * ((1 + -t) * (1 + t))
        c_before = cells.get(before(p), zeros if c0 is None else c0)
        parts = (dc * g * (i * (1 + -i)), dc * exact(c_before) * (f * (1 + -f)),
                 dc * i * ((1 + -g) * (1 + g)), dh * t * (o * (1 + -o)))  # fmt: skip
        of_c[before(p)] = dc * f
        dz = Rounded(np.hstack([x.value for x in parts]), np.hstack([x.error for x in parts]))
        of_z[p] = dz
        for j, q in enumerate(met(p)):
            pushed.setdefault(q, []).append((dz, weights[j].T))
            h = states.get(q, zeros if h0 is None else h0)
            of_weights[0][j] += h.T @ dz.value
            of_weights[1][j] += np.abs(h).T @ (
                np.abs(dz.value) + dz.error
            )  # magnitudes; errors are added below
    terms = n * len(order) + 2
    error = sum_of_errors(of_z, states, weights, order, met, n, h0) + chained(terms) * U * of_weights[1]
    return of_z, Rounded(of_weights[0], error), pushed, of_c


def sum_of_errors(of_z, states, weights, order, met, n, h0):
    """What the errors of z's gradients do to those of the weights."""
    total, zeros = np.zeros(weights.shape), np.zeros((n, weights.shape[1]))
    for p in order:
        for j, q in enumerate(met(p)):
            total[j] += np.abs(states.get(q, zeros if h0 is None else h0)).T @ of_z[p].error
    return total


# --- sequences ------------------------------------------------------------------------------------------------


def sequence(steps):
    return list(range(steps)), lambda t: [t - 1], lambda t: t - 1


def lstm(x, w_input, w_hidden, bias, h0=None, c0=None):
    """h, c, gates and cells, as Rounded."""
    n, steps, _ = x.shape
    hidden = w_hidden.shape[0]
    x, w_input, bias = x.astype(np.float64), w_input.astype(np.float64), bias.astype(np.float64)
    z = {
        t: summed([(exact(x[:, t]), w_input)], exact(np.broadcast_to(bias, (n, 4 * hidden))))
        for t in range(steps)
    }
    h0, c0 = (None if a is None else exact(a) for a in (h0, c0))
    found = forward(z, w_hidden.astype(np.float64)[None], *sequence(steps), h0, c0)
    last = found.c[steps - 1] if steps > 0 else c0 or exact(np.zeros((n, hidden)))
    return (
        stacked([found.h[t] for t in range(steps)], 1, (n, 0, hidden)),
        last,
        stacked([joined(found.gates[t]) for t in range(steps)], 1, (n, 0, 4 * hidden)),
        stacked([found.c[t] for t in range(steps)], 1, (n, 0, hidden)),
    )


def joined(parts):
    return Rounded(np.hstack([x.value for x in parts]), np.hstack([x.error for x in parts]))


def stacked(parts, axis, empty):
    if not parts:
        return exact(np.zeros(empty))
    return Rounded(np.stack([x.value for x in parts], axis), np.stack([x.error for x in parts], axis))


def lstm_gradients(a):
    """By the names of the outputs, from the arguments of recurrent.lstm_vjp."""
    a = {k: np.asarray(v, np.float64) for k, v in a.items() if v is not None}
    n, steps, depth = a["x"].shape
    hidden = a["w_hidden"].shape[0]
    gates, cells, states, grads = (
        {t: a[name][:, t] for t in range(steps)} for name in ("gates", "cells", "h", "grad_h")
    )
    order, met, before = sequence(steps)
    weights = a["w_hidden"][None]
    zeros = exact(np.zeros((n, hidden)))
    if steps == 0:
        found = {"grad_x": exact(np.zeros((n, 0, depth))), "grad_w_input": exact(np.zeros((depth, 4 * hidden))),
                 "grad_w_hidden": exact(np.zeros((hidden, 4 * hidden))), "grad_bias": exact(np.zeros(4 * hidden)),
                 "grad_h0": zeros, "grad_c0": exact(a["grad_c"]) if "grad_c" in a else zeros}  # fmt: skip
        return found
    of_z, of_weights, pushed, of_c = backward(
        grads, gates, cells, states, weights, order, met, before, a.get("c0"), a.get("h0"), a.get("grad_c")
    )
    dz = stacked([of_z[t] for t in range(steps)], 1, ())
    flat = Rounded(dz.value.reshape(n * steps, 4 * hidden), dz.error.reshape(n * steps, 4 * hidden))
    x, terms = np.abs(a["x"].reshape(n * steps, depth)), chained(n * steps + 1) * U
    reach = np.abs(flat.value) + flat.error
    return {
        "grad_x": summed([(dz, a["w_input"].T)], exact(np.zeros((n, steps, depth)))),
        "grad_w_input": Rounded(
            a["x"].reshape(n * steps, depth).T @ flat.value, x.T @ flat.error + terms * x.T @ reach
        ),
        "grad_w_hidden": Rounded(of_weights.value[0], of_weights.error[0]),
        "grad_bias": Rounded(flat.value.sum(0), flat.error.sum(0) + terms * reach.sum(0)),
        "grad_h0": summed(pushed.get(-1, []), zeros),
        "grad_c0": of_c[-1],
    }


# --- images ---------------------------------------------------------------------------------------------------


def image(path, sweep, height, width, taps):
    """Pixels in an order in which each comes after what it meets; beyond the image there is nothing."""
    side = -1 if sweep == 1 else 1
    columns = range(width)[::side]
    order = [(y, x) for y in range(height) for x in columns]
    inside = set(order)

    def kept(q):
        return q if q in inside else None

    if path == "rows":
        return (
            order,
            lambda p: [kept((p[0] - 1, p[1] + j - taps // 2)) for j in range(taps)],
            lambda p: (p[0] - 1, p[1]),
        )
    return order, lambda p: [kept((p[0] - 1, p[1])), kept((p[0], p[1] - side))], lambda p: (p[0], p[1] - side)


def columns(array, s, units, gates):
    """By pixel, the columns of a sweep."""
    _, height, width, _ = array.shape
    part = array[..., s * gates * units : (s + 1) * gates * units].astype(np.float64)
    return {(y, x): part[:, y, x] for y in range(height) for x in range(width)}


def as_map(found, shape, units):
    """Rounded arrays by pixel of each sweep, as one map."""
    value, error = np.zeros(shape), np.zeros(shape)
    for s, by_pixel in enumerate(found):
        for (y, x), part in by_pixel.items():
            value[:, y, x, s * units : (s + 1) * units] = part.value
            error[:, y, x, s * units : (s + 1) * units] = part.error
    return Rounded(value, error)


def map_lstm(z, w, path):
    """h, gates and cells."""
    n, height, width, _ = z.shape
    sweeps, taps, units, _ = w.shape
    found = []
    for s in range(sweeps):
        sums = {p: exact(a) for p, a in columns(z, s, units, 4).items()}
        found.append(forward(sums, w[s].astype(np.float64), *image(path, s, height, width, taps)))
    shape = (n, height, width, sweeps * units)
    gates = [{p: joined(parts) for p, parts in f.gates.items()} for f in found]
    return (
        as_map([f.h for f in found], shape, units),
        as_map(gates, (*shape[:3], 4 * shape[3]), 4 * units),
        as_map([f.c for f in found], shape, units),
    )


def map_gradients(grad_h, w, path, h, gates, cells):
    """Of z and of the weights."""
    n, height, width, _ = h.shape
    sweeps, taps, units, _ = w.shape
    of_z, of_weights = [], []
    for s in range(sweeps):
        arrays = [columns(a, s, units, k) for a, k in ((grad_h, 1), (gates, 4), (cells, 1), (h, 1))]
        found = backward(*arrays, w[s].astype(np.float64), *image(path, s, height, width, taps))
        of_z.append(found[0])
        of_weights.append(found[1])
    return as_map(of_z, (n, height, width, 4 * sweeps * units), 4 * units), stacked(of_weights, 0, w.shape)
