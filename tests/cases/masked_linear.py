"""Rows of the masked layers of the autoregressive family."""

import numpy as np
from reference.rounding import U, product_error

from gencore.kernels import _masked
from gencore.kernels import autoregressive as kernels

from .case import Bad, Case, Expected
from .dense import ACTIVATIONS, TRUTH, part_of

# Rows, units, inputs: around 4, 8 and 16 lanes, panels of 8, 24 and 48 columns, words of 64, tiles of 128, blocks of
# 256; nothing of each. 300 rows of few units are cut by rows.
SHAPES = (
    (5, 9, 7), (0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (2, 1, 5), (3, 5, 1), (1, 17, 6), (7, 15, 16), (8, 16, 15),
    (9, 31, 33), (4, 48, 20), (33, 49, 50), (3, 24, 65), (13, 129, 64), (65, 130, 200), (300, 20, 30), (20, 70, 600),
)  # fmt: skip
DEGREES = ("sorted", "inputs", "units", "any")


def size(m, n, k, degrees="any", strict=False, **variant):
    return {"n": m, "m": m, "units": n, "k": k, "degrees": degrees, "strict": strict, **variant}


SIZES = tuple(
    size(*shape, DEGREES[i % 4], i % 3 == 1, dtype=dtype)
    for dtype in ("float32", "uint8")
    for i, shape in enumerate(SHAPES)
)
VARIANTS = (
    *(size(13, 70, 90, degrees, strict) for degrees in DEGREES for strict in (False, True)),
    *(size(70, 140, 150, degrees, strict, dtype="uint8") for degrees in DEGREES for strict in (False, True)),
    size(9, 60, 50, "none"), size(9, 60, 50, "all"), size(9, 60, 50, "none", dtype="bool"),
    size(9, 60, 50, "all", dtype="bool"),
)  # fmt: skip


def degrees(rng, size):
    """Repeated, apart, negative: of inputs and of units. Some units see nothing, some inputs are seen by none."""
    k, n, kind = size["k"], size["units"], size["degrees"]
    if kind in ("none", "all"):
        return {"in_degree": np.zeros(k, np.int64), "out_degree": np.full(n, 1 if kind == "all" else -1)}
    top = max(k, n) * 2 // 3 + 1
    found = {
        "in_degree": np.sort(rng.integers(-1, top, k)) * 3,
        "out_degree": np.sort(rng.integers(-2, top, n)) * 3,
    }
    for name, shuffled in (("in_degree", ("inputs", "any")), ("out_degree", ("units", "any"))):
        if kind in shuffled:
            rng.shuffle(found[name])
    return found


def mask_of(a):
    i, j = a["in_degree"][:, None], a["out_degree"]
    return j > i if a["strict"] else j >= i


def inputs(rng, size, *names):
    m, n, k = size["m"], size["units"], size["k"]
    shapes = {"x": (m, k), "w": (k, n), "grad": (m, n)}
    found = {name: rng.normal(0, 1, shapes[name]).astype(np.float32) for name in names}
    dtype = size.get("dtype", "float32")
    if "x" in names and dtype != "float32":
        found["x"] = (rng.random((m, k)) < 0.3).astype(dtype)
    found |= {**degrees(rng, size), "strict": size["strict"]}
    if "w" in names and not size.get("finite"):  # never read where masked
        found["w"][~mask_of(found)] = np.nan
    return found


# --- forward ------------------------------------------------------------------------------------------------


def forward_inputs(rng, size):
    found = inputs(rng, size, "x", "w")
    found["activation"] = ACTIVATIONS.index(size.get("activation", "identity"))
    if size.get("bias"):
        found["bias"] = rng.normal(0, 3, size["units"]).astype(np.float32)
    return found


def forward_reference(a, size):
    """As `cases.dense.matmul_reference`, of the masked product."""
    x, w, bias = a["x"].astype(np.float64), np.where(mask_of(a), a["w"], 0).astype(np.float64), a.get("bias")
    z = x @ w + (0 if bias is None else bias)
    error, activation = product_error(x, w, bias), ACTIVATIONS[a["activation"]]
    value = TRUTH[activation](z)
    if activation not in ("identity", "relu"):
        error = error + 4 * U * (1 + np.abs(value))
    return {"out": Expected(value, error)}


def forward_public(a, size):
    return {"out": kernels.masked_linear(**{**a, "activation": ACTIVATIONS[a["activation"]]})}


def fewer(name):
    return lambda a: a[name][1:].copy()


DEGREES_BAD = (
    Bad("in_degree", fewer("in_degree"), ValueError, ("in_degree of shape (7,)",)),
    Bad("out_degree", fewer("out_degree"), ValueError, ("out_degree of shape (9,)",)),
    Bad("in_degree", lambda a: a["in_degree"].astype(np.float32), TypeError, ("int64",)),
    Bad("strict", "no", TypeError, ("True or False",)),
)

FORWARD = Case(
    name="autoregressive.masked_linear",
    sizes=(
        size(5, 9, 7, bias=True, finite=True),
        *SIZES,
        *VARIANTS,
        *(size(9, 50, 40, bias=bias, activation=name, dtype=dtype)
          for name in ACTIVATIONS for bias, dtype in ((True, "float32"), (False, "float32"), (True, "uint8"))),
    ),
    bench=size(100, 500, 784, "sorted", bias=True, activation="relu"),
    inputs=forward_inputs,
    outputs=lambda s: {"out": ((s["m"], s["units"]), np.float32)},
    reference=forward_reference,
    public=forward_public,
    optional=frozenset({"bias"}),
    batch=("x", "out"),
    bad=(
        *DEGREES_BAD,
        Bad("x", lambda a: a["x"].astype(np.float64), TypeError, ("bool, uint8 or float32", "float64")),
        Bad("x", lambda a: np.full(a["x"].shape, 2, np.uint8), ValueError, ("0 and 1 only", "2")),
        Bad("w", fewer("w"), ValueError, ("as many rows as x has columns",)),
        Bad("bias", fewer("bias"), ValueError, ("the columns of w",)),
        Bad("out", fewer("out"), ValueError, ("the rows of x",)),
        Bad("x", lambda a: part_of(a, "out", "x"), ValueError, ("out to share no memory with x",)),
        Bad("bias", lambda a: part_of(a, "out", "bias"), ValueError, ("out to share no memory with bias",)),
        Bad("activation", 5, ValueError, ("0 .. 4", "5")),
    ),
)  # fmt: skip


# --- gradients ----------------------------------------------------------------------------------------------


def input_reference(a, size):
    """A product, of weights that are 0 where masked."""
    w = np.where(mask_of(a), a["w"], 0).astype(np.float64).T
    return {"out": Expected(a["grad"].astype(np.float64) @ w, product_error(a["grad"], w))}


def weight_reference(a, size):
    """A product; exactly 0 where masked."""
    x, grad, mask = a["x"].astype(np.float64).T, a["grad"].astype(np.float64), mask_of(a)
    return {"out": Expected(np.where(mask, x @ grad, 0), np.where(mask, product_error(x, grad), 0))}


REAL = tuple(s for s in (*SIZES, *VARIANTS) if s.get("dtype", "float32") == "float32")

INPUT = Case(
    name="autoregressive.masked_linear_input",
    sizes=(size(5, 9, 7, finite=True), *REAL),
    bench=size(100, 784, 500, "sorted", strict=True),
    inputs=lambda rng, s: inputs(rng, s, "grad", "w"),
    outputs=lambda s: {"out": ((s["m"], s["k"]), np.float32)},
    reference=input_reference,
    public=lambda a, s: {"out": _masked._input(**a)},
    batch=("grad", "out"),
    bad=(
        *DEGREES_BAD,
        Bad("w", lambda a: a["w"][:, 1:].copy(), ValueError, ("the columns of grad",)),
        Bad("out", fewer("out"), ValueError, ("the rows of grad and of w",)),
        Bad(
            "out",
            lambda a: a["grad"].reshape(-1)[:35].reshape(5, 7),
            ValueError,
            ("share no memory with grad",),
        ),
    ),
)

WEIGHT = Case(
    name="autoregressive.masked_linear_weight",
    sizes=tuple({**s, "n": 1} for s in (size(5, 9, 7), *SIZES, *VARIANTS)),
    bench={**size(100, 500, 784, "sorted"), "n": 1},
    inputs=lambda rng, s: inputs(rng, s, "x", "grad"),
    outputs=lambda s: {"out": ((s["k"], s["units"]), np.float32)},
    reference=weight_reference,
    public=lambda a, s: {"out": _masked._weight(**a)},
    bad=(
        *DEGREES_BAD,
        Bad("x", lambda a: np.full(a["x"].shape, 3, np.uint8), ValueError, ("0 and 1 only", "3")),
        Bad("grad", fewer("grad"), ValueError, ("the rows of x",)),
        Bad("out", fewer("out"), ValueError, ("the columns of x and of grad",)),
        Bad("grad", lambda a: part_of(a, "out", "grad"), ValueError, ("out to share no memory with grad",)),
    ),
)

CASES = (FORWARD, INPUT, WEIGHT)
