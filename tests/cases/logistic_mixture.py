"""Rows of the log-probability of levels under mixtures of logistics."""

import numpy as np
from reference import mixture
from reference.rounding import U
from scipy.special import expit, logsumexp

from gencore.kernels import dense as kernels

from .case import Bad, Case, Expected

TINY = 2.0**-126


def size(n, units, mixtures, levels=256, spread=1.0):
    return {"n": n, "units": units, "mixtures": mixtures, "levels": levels, "spread": spread}


def inputs(rng, s):
    """Scales from far under a bin to far over the line, means on it and off it; every level at the ends in turn."""
    shape = (s["n"], s["units"], s["mixtures"])
    logits, mean = rng.normal(0, 2 * s["spread"], shape), rng.normal(0, s["spread"], shape)
    log_scale = rng.uniform(-9, 3, shape)
    x = rng.integers(0, s["levels"], shape[:2])
    x[rng.random(shape[:2]) < 0.2] = 0
    x[rng.random(shape[:2]) < 0.2] = s["levels"] - 1
    params = np.stack([logits, mean, log_scale], 2).reshape(s["n"], 3 * s["units"] * s["mixtures"])
    return {
        "params": params.astype(np.float32),
        "x": x.astype(np.uint8), "levels": s["levels"], "n_mixtures": s["mixtures"],
    }  # fmt: skip


def vjp_inputs(rng, s):
    a = inputs(rng, s)
    return {"grad": rng.normal(0, 1, s["n"]).astype(np.float32), **a}


class Parts:
    """What both directions are made of, in float64, and how far float32 may be off."""

    def __init__(self, a, s):
        k = s["mixtures"]
        logits, self.mean, log_scale = np.moveaxis(
            a["params"].reshape(*a["x"].shape, 3, k).astype(np.float64), 2, 0
        )
        self.free = log_scale >= mixture.LEAST_LOG_SCALE
        self.inverse = np.exp(-np.maximum(log_scale, mixture.LEAST_LOG_SCALE))
        x, half = a["x"].astype(np.int64)[..., None], 1 / (s["levels"] - 1)
        y = 2 * x * half - 1.0
        self.first, self.last = x == 0, x == s["levels"] - 1
        self.upper, self.lower = ((y + sign * half - self.mean) * self.inverse for sign in (1, -1))
        self.width = 2 * half * self.inverse
        mass = mixture.log_masses(a["params"], a["x"], s["levels"], k)
        self.prior = np.exp(logits - logsumexp(logits, axis=-1, keepdims=True))
        log_p = logsumexp(np.log(self.prior) + mass, axis=-1, keepdims=True)
        self.share, self.log_p = np.exp(np.log(self.prior) + mass - log_p), log_p[..., 0]
        # An edge: three roundings of y and the mean, and those of scale, difference and product.
        edge = 3 * U * (2 + np.abs(self.mean)) * self.inverse
        self.edge = edge + 6 * U * np.maximum(np.abs(self.upper), np.abs(self.lower))
        # The log-mass: no steeper than 1 in either edge and in the logarithm of the width; its parts' own roundings.
        size = np.abs(mass) + np.maximum(np.abs(self.upper), np.abs(self.lower)) + np.abs(np.log(self.width))
        self.error = 2 * self.edge + 8 * U * (2 + size) + 4 * U * np.abs(logits)
        # The logarithm of the sum: the components' errors by their shares, and those of exponents and sums.
        self.total = (self.share * self.error).sum(-1) + U * (
            16 + k + 4 * np.abs(self.log_p) + 4 * np.abs(logits).max(-1)
        )


def reference(a, s):
    """Each unit's logarithm as `Parts` bounds it; one rounding of the float64 sum."""
    p = Parts(a, s)
    value = p.log_p.sum(1)
    return {"out": Expected(value, p.total.sum(1) + U * np.abs(value))}


def vjp_reference(a, s):
    """A share errs by its exponent's error; slopes of the edges are no steeper than 1.3 of an edge's error."""
    p = Parts(a, s)
    g = a["grad"].astype(np.float64)[:, None, None]
    up = np.where(p.last, 0, expit(-p.upper))
    low = np.where(p.first, 0, expit(p.lower))
    with np.errstate(over="ignore"):
        inside = np.where(p.first | p.last, 0, p.width / np.expm1(p.width))
    by_scale = np.where(p.last, 0, p.upper * up) - np.where(p.first, 0, p.lower * low) + inside
    grads = (g * (p.share - p.prior), -g * p.share * p.inverse * (up - low), -g * p.share * p.free * by_scale)
    relative = p.error + p.total[..., None] + 16 * U
    sizes = np.abs(p.upper) * up + np.abs(p.lower) * low + 1
    bounds = (
        np.abs(g) * (p.share * relative + p.prior * (16 + s["mixtures"]) * U + 4 * U),
        np.abs(g) * p.share * p.inverse * (relative * (up + low) + p.edge + 8 * U * (up + low)),
        np.abs(g) * p.share * (relative * sizes + 3 * p.edge + 16 * U * sizes),
    )
    stack = [np.stack(parts, 2).reshape(a["params"].shape) for parts in (grads, bounds)]
    return {"grad_params": Expected(stack[0], stack[1] + TINY)}


SIZES = (
    size(5, 7, 10),
    *(size(3, 2, k) for k in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 256)),
    *(size(6, 5, 2, levels) for levels in (2, 3, 16, 255)),
    size(4, 9, 5, spread=6.0), size(0, 3, 2), size(3, 0, 2), size(40, 64, 3),
)  # fmt: skip
BAD = (
    Bad(
        "params",
        lambda a: a["params"][:, 1:].copy(),
        ValueError,
        ("three numbers for each unit and component",),
    ),
    Bad("x", lambda a: a["x"][1:], ValueError, ("the rows of x",)),
    Bad("x", lambda a: a["x"].astype(np.int64), TypeError, ("int64",)),
    Bad("levels", 1, ValueError, ("2", "256")),
    Bad("levels", lambda a: int(a["x"].max()), ValueError, ("x", "levels from 0 to")),
    Bad("n_mixtures", 0, ValueError, ("1", "256")),
)

LOG_PROB = Case(
    name="dense.logistic_mixture_log_prob",
    sizes=SIZES,
    bench=size(16, 784, 10),
    inputs=inputs,
    outputs=lambda s: {"out": ((s["n"],), np.float32)},
    reference=reference,
    public=lambda a, s: {"out": kernels.logistic_mixture_log_prob(**a)},
    batch=("params", "x", "out"),
    bad=BAD,
)
VJP = Case(
    name="dense.logistic_mixture_log_prob_vjp",
    sizes=SIZES,
    bench=size(16, 784, 10),
    inputs=vjp_inputs,
    outputs=lambda s: {"grad_params": ((s["n"], s["units"] * 3 * s["mixtures"]), np.float32)},
    reference=vjp_reference,
    batch=("grad", "params", "x", "grad_params"),
    bad=(*BAD, Bad("grad", lambda a: a["grad"][1:], ValueError, ("the rows of x",))),
)

CASES = (LOG_PROB, VJP)
