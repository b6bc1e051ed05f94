"""Rows of the losses of the dense family."""

import numpy as np
from reference.rounding import U
from scipy.special import expit, log1p, softmax

from gencore.kernels import dense as kernels

from .case import Bad, Case, Expected

TINY = 2.0**-126  # e^-|x| below it may be 0

# Around 4, 8 and 16 lanes, the 960 factors of a product, the rows of a task; no row, no column; several samples a row.
WIDTHS = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)


def extreme(rng, shape):
    """Logits of every size, 0, and one in eight far out."""
    x = rng.normal(0, 4, shape) * 10.0 ** rng.integers(-2, 2, shape)
    return np.where(rng.random(shape) < 0.125, rng.choice([0, -80, 80, 1e4, -1e4], shape), x).astype(
        np.float32
    )


# --- Bernoulli ----------------------------------------------------------------------------------------------


def size(n, units, dtype="uint8", samples=1):
    """The batch may be split where each row of targets has one row of logits."""
    return {"n": n if samples == 1 else 1, "rows": n, "units": units, "dtype": dtype, "samples": samples}


def targets(rng, size):
    t = rng.random((size["rows"], size["units"]))
    if size["dtype"] == "real":
        return np.where(rng.random(t.shape) < 0.2, rng.choice([0, 1], t.shape), t).astype(np.float32)
    return (t < 0.4).astype(size["dtype"])


def bernoulli_inputs(rng, size):
    logits = extreme(rng, (size["samples"] * size["rows"], size["units"]))
    return {"logits": logits, "targets": targets(rng, size)}


def bernoulli_vjp_inputs(rng, size):
    arguments = bernoulli_inputs(rng, size)
    return {"grad": rng.normal(0, 1, len(arguments["logits"])).astype(np.float32), **arguments}


def parts(a):
    """|x|, the tail log(1 + e^-|x|) and what weighs |x|, in float64; targets repeated for each sample."""
    x, t = a["logits"].astype(np.float64), a["targets"].astype(np.float64)
    t = np.tile(t, (len(x) // len(t), 1)) if len(t) else t
    return np.abs(x), log1p(np.exp(-np.abs(x))), np.where(x > 0, 1 - t, t), x, t


def bernoulli_reference(a, size):
    """Every term is negative, so relative errors stay: 1 - t, its product and the sum take 3 roundings.

    The tail has 1.1 ulp, 2.2 U of itself, and as much of its logarithm; squares below 2^-52 are left out. Two terms
    meet in one more rounding, two tails in two. The sum is rounded to float32: 7 U in all.
    """
    x, tail, weight, *_ = parts(a)
    value = -(weight * x + tail).sum(1)
    return {"out": Expected(value, 7 * U * np.abs(value) + 2 * size["units"] * TINY)}


def bernoulli_vjp_reference(a, size):
    """The less likely state's probability q has 1.1 ulp of e^-|x| and two roundings, 4.2 U; the weight one.

    Their difference and its product with grad take one rounding each: at most 7 U (q + weight).
    """
    _, _, weight, x, t = parts(a)
    grad, less_likely = a["grad"].astype(np.float64)[:, None], expit(-np.abs(x))
    slope = np.where(x > 0, less_likely - weight, weight - less_likely)  # t - logistic(x)
    assert np.allclose(slope, t - expit(x), rtol=0, atol=1e-15)
    bound = np.abs(grad) * (7 * U * (less_likely + weight) + 2 * TINY) + TINY
    return {"grad_logits": Expected(grad * slope, bound)}


BERNOULLI_SIZES = (
    size(5, 37), size(5, 37, "bool"), size(5, 37, "real"), size(5, 37, "float32"),
    *(size(3, units, dtype) for units in WIDTHS for dtype in ("uint8", "real")),
    size(0, 7), size(3, 0), size(2, 1000), size(1, 2048, "real"), size(40, 784),
    size(4, 9, "uint8", 3), size(3, 17, "real", 2), size(1, 5, "bool", 7), size(3, 5, "uint8", 0),
)  # fmt: skip


def target_bad():
    def change(value, dtype):
        def changed(good):
            t = good["targets"].astype(dtype)
            t[1, 2] = value
            return t

        return changed

    values = ((2, np.uint8), (255, np.uint8), (-0.1, np.float32), (1.5, np.float32), (np.nan, np.float32))
    return tuple(
        Bad("targets", change(value, dtype), ValueError, ("values from 0 to 1", "(1, 2)"))
        for value, dtype in values
    )


BERNOULLI_BAD = (
    Bad("targets", lambda a: a["targets"][:, 1:].copy(), ValueError, ("the columns of logits",)),
    Bad("logits", lambda a: a["logits"][1:], ValueError, ("multiple of the 5 rows of targets", "4 rows")),
    Bad("targets", lambda a: a["targets"][:0], ValueError, ("logits", "multiple of the 0 rows of targets")),
    *target_bad(),
)

BERNOULLI = Case(
    name="dense.bernoulli_log_prob",
    sizes=BERNOULLI_SIZES,
    bench=size(128, 784),
    inputs=bernoulli_inputs,
    outputs=lambda s: {"out": ((s["samples"] * s["rows"],), np.float32)},
    reference=bernoulli_reference,
    public=lambda a, s: {"out": kernels.bernoulli_log_prob(**a)},
    batch=("logits", "targets", "out"),
    bad=(*BERNOULLI_BAD, Bad("out", lambda a: a["out"][1:].copy(), ValueError, ("the rows of logits",)),
         Bad("out", lambda a: a["logits"].reshape(-1)[:5], ValueError, ("out to share no memory with logits",))),
)  # fmt: skip

BERNOULLI_VJP = Case(
    name="dense.bernoulli_log_prob_vjp",
    sizes=BERNOULLI_SIZES,
    bench=size(128, 784),
    inputs=bernoulli_vjp_inputs,
    outputs=lambda s: {"grad_logits": ((s["samples"] * s["rows"], s["units"]), np.float32)},
    reference=bernoulli_vjp_reference,
    public=lambda a, s: {"grad_logits": kernels.bernoulli_log_prob_vjp(**a)},
    batch=("grad", "logits", "targets", "grad_logits"),
    bad=(
        *BERNOULLI_BAD[:1], *BERNOULLI_BAD[2:],
        Bad("grad", lambda a: a["grad"][1:].copy(), ValueError, ("the rows of logits",)),
        Bad("grad_logits", lambda a: a["grad_logits"][1:].copy(), ValueError, ("the shape of logits",)),
        Bad("grad", lambda a: a["grad_logits"].reshape(-1)[:5], ValueError, ("share no memory with grad",)),
    ),
)  # fmt: skip


# --- softmax ------------------------------------------------------------------------------------------------


def classes(n, units):
    return {"n": n, "units": units}


def softmax_parts(x):
    """The softmax and two bounds: of its relative errors, and of the absolute error of log sum exp.

    x - top is rounded, which exp turns into a relative error of (top - x) U; exp itself has 1.1 ulp, 2.2 U, and
    below 2^-126 the spacing is fixed. The greatest element's 1 is exact. float64 sums add nothing that shows.
    """
    x = x.astype(np.float64)
    if x.size == 0:
        return x, x, np.zeros(len(x))
    below = x.max(1, keepdims=True) - x
    p = softmax(x, 1)
    relative = np.where(below == 0, 0, (2.2 + np.minimum(below, 104)) * U)
    total = (p * relative).sum(1) + x.shape[1] * TINY
    return p, relative, total


def log_sum_exp_reference(a, size):
    x = a["x"].astype(np.float64)
    value = np.logaddexp.reduce(x, 1)
    return {"out": Expected(value, softmax_parts(x)[2] + U * np.abs(value))}


def cross_entropy_reference(a, size):
    """The two parts are positive, so their rounded sum has their errors and one of its own."""
    x, rows = a["logits"].astype(np.float64), np.arange(size["n"])
    below = x.max(1, keepdims=True, initial=-np.inf) - x
    top = np.argmin(below, 1) if x.size else rows[:0]
    rest = np.exp(-below)
    rest[rows, top] = 0
    value = below[rows, a["labels"]] + log1p(rest.sum(1))
    return {"out": Expected(value, softmax_parts(x)[2] + U * value)}


def softmax_vjp_bound(grad, p, relative, total):
    """The shares' errors, the total's, and three roundings: of the scale, its product, and the result."""
    return np.abs(grad)[:, None] * (p * (relative + total[:, None] + 3 * U) + TINY) + TINY


def log_sum_exp_vjp_reference(a, size):
    p, relative, total = softmax_parts(a["x"])
    grad = a["grad"].astype(np.float64)
    return {"grad_x": Expected(grad[:, None] * p, softmax_vjp_bound(grad, p, relative, total))}


def cross_entropy_vjp_reference(a, size):
    """At the label, softmax - 1 is minus the others' share, whose relative error is no greater than theirs."""
    p, relative, total = softmax_parts(a["logits"])
    rows, labels = np.arange(size["n"]), a["labels"]
    grad = a["grad"].astype(np.float64)
    others = p.copy()
    others[rows, labels] = 0
    value, share = p.copy(), others.sum(1)
    value[rows, labels] = -share
    bound = softmax_vjp_bound(grad, p, relative, total)
    error_of_others = (others * relative).sum(1) + share * (total + 3 * U) + p.shape[1] * TINY
    bound[rows, labels] = np.abs(grad) * error_of_others + TINY
    return {"grad_logits": Expected(grad[:, None] * value, bound)}


def softmax_inputs(name):
    return lambda rng, size: {name: extreme(rng, (size["n"], size["units"]))}


def with_labels(rng, size):
    labels = rng.integers(0, max(size["units"], 1), size["n"])
    return {"logits": extreme(rng, (size["n"], size["units"])), "labels": labels}


def with_grad(inputs):
    return lambda rng, size: {"grad": rng.normal(0, 1, size["n"]).astype(np.float32), **inputs(rng, size)}


CLASSES = (
    classes(5, 10), *(classes(3, units) for units in WIDTHS), classes(0, 4), classes(1, 3000), classes(900, 10),
    classes(200, 100),
)  # fmt: skip


def label_bad():
    def change(value):
        def changed(good):
            labels = good["labels"].copy()
            labels[1] = value
            return labels

        return changed

    return tuple(
        Bad("labels", change(value), ValueError, ("from 0 to 9", f"{value} at row 1")) for value in (-1, 10)
    )


LABELS_BAD = (
    *label_bad(),
    Bad("labels", lambda a: a["labels"][1:].copy(), ValueError, ("the rows of logits",)),
    Bad("logits", lambda a: a["logits"][:, :0].copy(), ValueError, ("labels", "columns of logits")),
)

LOG_SUM_EXP = Case(
    name="dense.log_sum_exp",
    sizes=CLASSES,
    bench=classes(128, 1000),
    inputs=softmax_inputs("x"),
    outputs=lambda s: {"out": ((s["n"],), np.float32)},
    reference=log_sum_exp_reference,
    public=lambda a, s: {"out": kernels.log_sum_exp(**a)},
    batch=("x", "out"),
    bad=(Bad("out", lambda a: a["out"][1:].copy(), ValueError, ("the rows of x",)),
         Bad("out", lambda a: a["x"].reshape(-1)[:5], ValueError, ("out to share no memory with x",))),
)  # fmt: skip

LOG_SUM_EXP_VJP = Case(
    name="dense.log_sum_exp_vjp",
    sizes=(*CLASSES, classes(3, 0)),
    bench=classes(128, 1000),
    inputs=with_grad(softmax_inputs("x")),
    outputs=lambda s: {"grad_x": ((s["n"], s["units"]), np.float32)},
    reference=log_sum_exp_vjp_reference,
    public=lambda a, s: {"grad_x": kernels.log_sum_exp_vjp(**a)},
    batch=("grad", "x", "grad_x"),
    bad=(
        Bad("grad", lambda a: a["grad"][1:].copy(), ValueError, ("the rows of x",)),
        Bad("grad_x", lambda a: a["grad_x"][1:].copy(), ValueError, ("the shape of x",)),
        Bad("grad", lambda a: a["grad_x"].reshape(-1)[:5], ValueError, ("share no memory with grad",)),
    ),
)

CROSS_ENTROPY = Case(
    name="dense.softmax_cross_entropy",
    sizes=CLASSES,
    bench=classes(128, 1000),
    inputs=with_labels,
    outputs=lambda s: {"out": ((s["n"],), np.float32)},
    reference=cross_entropy_reference,
    public=lambda a, s: {"out": kernels.softmax_cross_entropy(**a)},
    batch=("logits", "labels", "out"),
    bad=(*LABELS_BAD, Bad("out", lambda a: a["out"][1:].copy(), ValueError, ("the rows of logits",)),
         Bad("out", lambda a: a["logits"].reshape(-1)[:5], ValueError, ("out to share no memory with logits",))),
)  # fmt: skip

CROSS_ENTROPY_VJP = Case(
    name="dense.softmax_cross_entropy_vjp",
    sizes=CLASSES,
    bench=classes(128, 1000),
    inputs=with_grad(with_labels),
    outputs=lambda s: {"grad_logits": ((s["n"], s["units"]), np.float32)},
    reference=cross_entropy_vjp_reference,
    public=lambda a, s: {"grad_logits": kernels.softmax_cross_entropy_vjp(**a)},
    batch=("grad", "logits", "labels", "grad_logits"),
    bad=(
        *LABELS_BAD,
        Bad("grad", lambda a: a["grad"][1:].copy(), ValueError, ("the rows of logits",)),
        Bad("grad_logits", lambda a: a["grad_logits"][1:].copy(), ValueError, ("the shape of logits",)),
        Bad("grad", lambda a: a["grad_logits"].reshape(-1)[:5], ValueError, ("share no memory with grad",)),
    ),
)  # fmt: skip

CASES = (BERNOULLI, BERNOULLI_VJP, LOG_SUM_EXP, LOG_SUM_EXP_VJP, CROSS_ENTROPY, CROSS_ENTROPY_VJP)
