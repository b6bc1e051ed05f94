"""NADE in float64, with arrays (N, D, H), and how far float32 may stray from it.

Bounds. a is a chain of at most D sums; logistic has slope at most 1/4, and 2.5 + |a| / 20 ulp, twice
as many U, of its own; a logit is a chain of H + 1
sums of products. What a logit's error does to x - logistic(logit) and to log p is at most 1/4 and 1 of it. Sums of
gradients run over dimensions and rows, in any order.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from . import philox
from .rounding import U, chained
from .sampling import MARGIN, TieError

TINY = 2.0**-125  # e^-|x| below it may be 0, and logistic(a) may stay above half of it


class Forward(NamedTuple):
    """Values and bounds, dimensions in their order: `order` holds their numbers."""

    order: np.ndarray
    x: np.ndarray  # (N, D)
    hidden: np.ndarray  # (N, D, H)
    hidden_error: np.ndarray
    logits: np.ndarray  # (N, D)
    logits_error: np.ndarray


def before(terms):
    """Sums over the dimensions before each, axis 1."""
    return np.concatenate([np.zeros_like(terms[:, :1]), np.cumsum(terms, 1)[:, :-1]], 1)


def after(terms):
    return before(terms[:, ::-1])[:, ::-1]


def places(w, order):
    return np.arange(len(w)) if order is None else order


def forward(x, w, c, v, b, order=None):
    order = places(w, order)
    x, w, v, b = (np.asarray(a, np.float64) for a in (x, w, v, b))
    x, w, v, b, c = x[:, order], w[order], v[order], b[order], np.asarray(c, np.float64)
    on = x[:, :, None] * w
    hidden = expit(c + before(on))
    a_error = chained(x.shape[1]) * U * (np.abs(c) + before(np.abs(on)))
    hidden_error = a_error / 4 + (5 + np.abs(c + before(on)) / 10) * U * hidden + TINY
    logits = b + (v * hidden).sum(2)
    magnitude = np.abs(b) + (np.abs(v) * (hidden + hidden_error)).sum(2)
    logits_error = (np.abs(v) * hidden_error).sum(2) + chained(w.shape[1] + 1) * U * magnitude
    return Forward(order, x, hidden, hidden_error, logits, logits_error)


def in_place(values, order):
    """From the order of the dimensions back to their numbers, along axis 1."""
    found = np.empty(values.shape, values.dtype)
    found[:, order] = values
    return found


def log_prob(x, w, c, v, b, order=None):
    """Values and bounds; rounded to float32 at the end. The 7 U are those of dense.bernoulli_log_prob."""
    f = forward(x, w, c, v, b, order)
    value = np.sum(f.x * f.logits - np.logaddexp(0, f.logits), 1)
    bound = np.sum(f.logits_error, 1) + 7 * U * np.abs(value) + 2 * len(w) * TINY
    return value, bound


def gradients(grad, x, w, c, v, b, order=None, logits=None):
    """(value, bound) of each of the gradients of w, c, v, b. Given logits are exact."""
    f = forward(x, w, c, v, b, order)
    order = f.order
    logits, logits_error = (
        (f.logits, f.logits_error) if logits is None else (logits[:, order].astype(float), 0)
    )
    grad, w, v = (np.asarray(a, np.float64) for a in (grad, w, v))
    w, v = w[order], v[order]
    likelier = np.abs(np.where(logits > 0, 1 - f.x, f.x)) + expit(-np.abs(logits))
    g = grad[:, None] * (f.x - expit(logits))
    g_error = np.abs(grad[:, None]) * (logits_error / 4 + 8 * U * likelier + TINY)
    h, h_error = f.hidden, f.hidden_error
    g, g_error = g[:, :, None], g_error[:, :, None]
    g_most = np.abs(g) + g_error
    additions = chained(x.shape[0] + x.shape[1] + 4) * U
    on = f.x[:, :, None]

    def summed(terms, errors, axis):
        bound = errors.sum(axis) + additions * (np.abs(terms) + errors).sum(axis) + TINY
        return terms.sum(axis), bound

    # h (1 - h) moves by at most what h does; two roundings.
    slope, slope_error = h * (1 - h), h_error + 2 * U * h
    da = g * v * slope
    da_error = np.abs(v) * (g_error * slope + g_most * slope_error) + 3 * U * np.abs(da)
    found = {
        "grad_w": summed(on * after(da), on * (after(da_error) + additions * after(np.abs(da))), 0),
        "grad_c": summed(da, da_error, (0, 1)),
        "grad_v": summed(g * h, g_error * h + g_most * h_error, 0),
        "grad_b": summed(g[:, :, 0], g_error[:, :, 0], 0),
    }
    back = np.argsort(order)
    return {k: (a, e) if k == "grad_c" else (a[back], e[back]) for k, (a, e) in found.items()}


def sample(w, c, v, b, n, key, *, order=None, temperature=1.0, given=None, mask=None, step=0, first_row=0):
    """The bits that the kernel draws, from its uniforms; raises where one is within rounding of its mean."""
    u = philox.uniforms_of_32_bits(key, philox.NADE, step, first_row + np.arange(n), len(w))
    x = np.zeros((n, len(w)), np.uint8)
    temperature = float(np.float32(temperature))
    for i, d in enumerate(places(w, order)):
        # What is not yet drawn does not matter.
        f = forward(x, w, c, v, b, order)
        logit = f.logits[:, i] / temperature
        error = f.logits_error[:, i] / temperature / 4 + 2 * MARGIN
        mean = expit(logit)
        drawn = u[:, d] < mean
        kept = np.zeros(n, bool) if mask is None else np.broadcast_to(mask, x.shape)[:, d] == 1
        if np.any(~kept & (np.abs(u[:, d] - mean) < error)):
            raise TieError(f"unit {d} is within rounding of its mean: take another seed")
        x[:, d] = drawn if given is None else np.where(kept, np.broadcast_to(given, x.shape)[:, d], drawn)
    return x
