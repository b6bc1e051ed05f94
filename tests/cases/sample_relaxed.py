"""Rows of the sample family: draws at a temperature.

Bounds follow the arithmetic of csrc/cpu/sample_relaxed.cpp: exp errs by 2.2 U, logistic by 5 U.
"""

import numpy as np
from reference import noise, philox
from reference.rounding import U
from reference.sampling import TieError

from gencore.kernels import _relaxed
from gencore.kernels import sample as kernels

from .case import Bad, Case, Expected
from .sample import uniforms_of
from .sample_reparam import COUNTERS_BAD, ROWS_BAD, coordinates, normals

TINY = 2.0**-120  # quotients of what exp rounds to a subnormal or to 0

# units: around 4, 8, 16 lanes (rows in one vector, or more), superblocks of the flat layout, tiles of 1024.
SIZES = (
    {"n": 3, "units": 5},
    {"n": 0, "units": 5},
    {"n": 4, "units": 0},
    *({"n": 7, "units": u} for u in (1, 2, 3, 4, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65)),
    *({"n": 3, "units": u} for u in (100, 128, 1023, 1024, 1025, 5000)),
    {"n": 3000, "units": 10, "tau": 0.5},
    {"n": 500, "units": 64, "tau": 2.0},
    {"n": 20_000, "units": 1},
    {"n": 7, "units": 10, "tau": 0.01},
    {"n": 7, "units": 20, "tau": 1e-30},
    {"n": 7, "units": 10, "tau": 1e-40},
    {"n": 7, "units": 20, "tau": 1e30},
    {"n": 5, "units": 70, "step": 2**32 + 7, "first_row": 2**32 - 5},
    *({"n": 3, "units": u, "first_row": 2**30 // u - 1} for u in (30, 300)),  # between rows of Philox
)
HARD = (
    *({"n": 7, "units": u, "hard": True} for u in (1, 2, 10, 16, 17, 40)),
    {"n": 3000, "units": 10, "hard": True, "tau": 0.3},
)


def tau_of(size):
    return float(np.float32(size.get("tau", 0.7)))


def logits_inputs(rng, size):
    logits = normals(rng, size["n"], size["units"], scale=3)
    inputs = {"logits": logits, "tau": tau_of(size), **coordinates(size)}
    return inputs | ({"hard": True} if "hard" in size else {})


def softmax_reference(a, size):
    """Soft draws and their bound.

    x = logits + G errs by G's bound and a rounding, the exponent w by that of x and of the largest x over tau, and 3 U
    of itself. A share's relative error is that of its own exponent and the mean of all, 2.2 U of exp each, and 6 U of
    sum (a tree over 16 lanes, or float64), reciprocal and product.
    """
    tau = tau_of(size)
    g, g_bound = noise.gumbel_of(uniforms_of(a, philox.GUMBEL_SOFTMAX, size))
    x = a["logits"].astype(np.float64) + g
    if x.size == 0:
        return x, x, x, x
    x_bound = g_bound + U * np.abs(x)
    w = (x - x.max(1, keepdims=True)) / tau
    w_bound = (x_bound + x_bound.max(1, keepdims=True)) / tau + 3 * U * np.abs(w)
    y = np.exp(w) / np.exp(w).sum(1, keepdims=True)
    # Where an exponent is known to no better than w_bound, a share is between those of both ends.
    mean = (y * np.minimum(w_bound, 700)).sum(1, keepdims=True)
    relative = np.expm1(np.minimum(w_bound + mean, 700)) + 12 * U
    return x, x_bound, y, np.minimum(y * relative, 1) + TINY


def gumbel_reference(a, size):
    x, x_bound, y, bound = softmax_reference(a, size)
    if "hard" not in size or y.size == 0:
        return {"y": Expected(y, bound)}
    best = x.argmax(1)
    rivals = np.where(np.arange(size["units"]) == best[:, None], -np.inf, x + x_bound)
    if np.any(rivals.max(1) >= np.take_along_axis(x - x_bound, best[:, None], 1)[:, 0]):
        raise TieError("two categories are within rounding of each other: take another seed")
    return {"y": Expected((np.arange(size["units"]) == best[:, None]).astype(np.float32))}


TAU_BAD = tuple(
    Bad("tau", tau, ValueError, ("tau", "positive and finite"))
    for tau in (0.0, -1.0, np.nan, np.inf, -np.inf)
)
DRAW_BAD = (
    *COUNTERS_BAD,
    ROWS_BAD,
    *TAU_BAD,
    Bad("tau", "warm", TypeError, ("number", "warm")),
    Bad("hard", "yes", TypeError, ("True or False",)),
    Bad("y", lambda a: a["y"][1:].copy(), ValueError, ("the shape of logits",)),
)


def draw(name, sizes, reference, public):
    return Case(
        name=f"sample.{name}",
        sizes=sizes,
        bench={"n": 104_857, "units": 10},
        inputs=logits_inputs,
        outputs=lambda s: {"y": ((s["n"], s["units"]), np.float32)},
        reference=reference,
        public=lambda a, s: {"y": public(**a)},
        batch=("logits", "y"),
        bad=DRAW_BAD,
    )


def vjp_inputs(soft):
    """From the soft draw, or with `again` in the size from the logits that it is drawn from again."""

    def inputs(rng, size):
        from_logits = logits_inputs(rng, size)
        grad = normals(rng, size["n"], size["units"])
        if "again" in size:
            return {"grad": grad, **from_logits}
        rest = {name: value for name, value in from_logits.items() if name != "logits"}
        return {"grad": grad, "y": soft(from_logits, size).astype(np.float32), **rest}

    return inputs


def soft_shares(a, size):
    return softmax_reference(a, size)[2]


def gumbel_vjp_reference(a, size):
    """The mean errs by 8 U of its terms (a product each, a tree or float64), the rest by 5 U; y by its own bound."""
    y, bound = (a["y"].astype(np.float64), 0.0) if "y" in a else softmax_reference(a, size)[2:]
    g, tau = a["grad"].astype(np.float64), tau_of(size)
    mean = (g * y).sum(1, keepdims=True)
    mean_bound = 8 * U * np.abs(g * y).sum(1, keepdims=True) + (np.abs(g) * bound).sum(1, keepdims=True)
    value = y * (g - mean) / tau
    error = (y + bound) * (mean_bound + 5 * U * (np.abs(g) + np.abs(mean))) + bound * np.abs(g - mean)
    return {"grad_logits": Expected(value, error / tau + TINY)}


def vjp_public(op, hard_op):
    def public(a, size):
        if "y" in a:
            return {"grad_logits": op(a["grad"], a["y"], tau=a["tau"])}
        rest = {name: a[name] for name in ("tau", "key", "step", "first_row")}
        return {"grad_logits": hard_op(a["grad"], a["logits"], **rest)}

    return public


VJP_SIZES = tuple(s for s in SIZES if s.get("tau", 1) > 1e-20)
VJP_BAD = (
    *COUNTERS_BAD,
    ROWS_BAD,
    *TAU_BAD,
    Bad("grad", lambda a: a["grad"][1:].copy(), ValueError, ("the shape of grad",)),
    Bad("grad_logits", lambda a: a["grad_logits"][1:].copy(), ValueError, ("the shape of grad",)),
    Bad("y", None, ValueError, ("y or logits", "nothing")),
)


def draw_vjp(name, sizes, soft, reference, public):
    return Case(
        name=f"sample.{name}_vjp",
        sizes=(*sizes, *({**s, "again": True} for s in sizes)),
        bench={"n": 104_857, "units": 10},
        inputs=vjp_inputs(soft),
        outputs=lambda s: {"grad_logits": ((s["n"], s["units"]), np.float32)},
        reference=reference,
        public=public,
        optional=frozenset({"y", "logits"}),
        batch=("grad", "y", "logits", "grad_logits"),
        bad=VJP_BAD,
    )


# --- relaxed Bernoulli -------------------------------------------------------------------------------------


def logistic(w):
    return np.exp(np.minimum(w, 0) - np.log1p(np.exp(-np.abs(w))))


def bit_reference(a, size):
    """x = logits + L as above; y between its values at both ends of the exponent, and 5 U of logistic."""
    value, bound = noise.logistic_of(uniforms_of(a, philox.RELAXED_BERNOULLI, size))
    x = a["logits"].astype(np.float64) + value
    x_bound = bound + U * np.abs(x)
    w = x / tau_of(size)
    w_bound = x_bound / tau_of(size) + 2.1 * U * np.abs(w)
    y = logistic(w)
    spread = np.maximum(logistic(w + w_bound) - y, y - logistic(w - w_bound))
    return x, x_bound, y, spread + 5 * U * y + TINY


def relaxed_reference(a, size):
    x, x_bound, y, bound = bit_reference(a, size)
    if "hard" not in size:
        return {"y": Expected(y, bound)}
    if np.any(np.abs(x) <= x_bound):
        raise TieError("a bit is within rounding of its threshold: take another seed")
    return {"y": Expected((x > 0).astype(np.float32))}


def relaxed_vjp_reference(a, size):
    """1 - y rounds to U at most; four more roundings."""
    y, bound = (a["y"].astype(np.float64), 0.0) if "y" in a else bit_reference(a, size)[2:]
    g = np.abs(a["grad"].astype(np.float64)) / tau_of(size)
    error = bound * (np.abs(1 - 2 * y) + bound) + U * (y + bound) + 5 * U * y * (1 - y)
    return {"grad_logits": Expected(np.sign(a["grad"]) * g * y * (1 - y), g * error + TINY)}


CASES = (
    draw("gumbel_softmax", (*SIZES, *HARD), gumbel_reference, kernels.gumbel_softmax),
    draw_vjp(
        "gumbel_softmax",
        VJP_SIZES,
        soft_shares,
        gumbel_vjp_reference,
        vjp_public(kernels.gumbel_softmax_vjp, _relaxed._hard_gumbel_softmax_vjp),
    ),
    draw("relaxed_bernoulli", (*SIZES, *HARD), relaxed_reference, kernels.relaxed_bernoulli),
    draw_vjp(
        "relaxed_bernoulli",
        VJP_SIZES,
        lambda a, s: bit_reference(a, s)[2],
        relaxed_vjp_reference,
        vjp_public(kernels.relaxed_bernoulli_vjp, _relaxed._hard_relaxed_bernoulli_vjp),
    ),
)
