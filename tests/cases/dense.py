"""Rows of the dense family."""

import numpy as np
from reference.rounding import U, product_error
from scipy.special import expit

from gencore.kernels import dense as kernels

from .case import Bad, Case, Expected

ACTIVATIONS = ("identity", "logistic", "tanh", "relu", "softplus")
TRUTH = {
    "identity": lambda x: x,
    "logistic": expit,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.logaddexp(0, x),
}


def size(m, columns, k, **variant):
    """The batch (`n` examples) may be split where examples are the rows of a."""
    return {"n": 1 if "transpose_a" in variant else m, "m": m, "columns": columns, "k": k, **variant}


def matmul_inputs(rng, size):
    m, n, k = size["m"], size["columns"], size["k"]
    ta, tb = size.get("transpose_a", False), size.get("transpose_b", False)
    arguments = {
        "a": rng.normal(0, 1, (k, m) if ta else (m, k)).astype(np.float32),
        "b": rng.normal(0, 1, (n, k) if tb else (k, n)).astype(np.float32),
        "transpose_a": ta,
        "transpose_b": tb,
        "activation": ACTIVATIONS.index(size.get("activation", "identity")),
    }
    if size.get("bias"):
        arguments["bias"] = rng.normal(0, 3, n).astype(np.float32)
    return arguments


def matmul_reference(a, size):
    """The product strays by `product_error`, the bias included; no activation is steeper than 1.

    An activation itself takes up to 4 roundings of its value, or of 1 where it is a difference from 1.
    """
    left, right = a["a"].T if a["transpose_a"] else a["a"], a["b"].T if a["transpose_b"] else a["b"]
    bias = a.get("bias")
    x = left.astype(np.float64) @ right.astype(np.float64) + (0 if bias is None else bias)
    error = product_error(left, right, bias)
    activation = ACTIVATIONS[a["activation"]]
    value = TRUTH[activation](x)
    if activation not in ("identity", "relu"):
        error = error + 4 * U * (1 + np.abs(value))
    return {"out": Expected(value, error)}


def matmul_public(a, s):
    return {"out": kernels.matmul(**{**a, "activation": ACTIVATIONS[a["activation"]]})}


BOTH = (False, True)
ROWS = ((5, 7), (20, 33), (70, 40), (1100, 259))  # n, k


def part_of_out(a, name):
    """An input in the memory of the output."""
    return a["out"].reshape(-1)[-a[name].size :].reshape(a[name].shape)


MATMUL = Case(
    name="dense.matmul",
    sizes=(
        *(size(13, 21, 9, bias=bias, activation=name) for name in ACTIVATIONS for bias in (True, False)),
        # Around 4, 8 and 16 lanes, the tiles of rows, and three vectors of columns.
        *(size(m, n, 5) for m, n in ((3, 1), (1, 3), (2, 15), (5, 16), (7, 17), (8, 31), (9, 33), (4, 48), (33, 49))),
        size(0, 3, 2), size(3, 0, 2), size(2, 3, 0), size(2, 3, 0, bias=True, activation="logistic"),
        # One row: b by rows, b by columns, narrow and in several tasks; one column.
        *(size(1, n, k, transpose_b=tb, bias=True) for n, k in ROWS for tb in BOTH),
        *(size(m, 1, 37, transpose_a=ta, bias=True, activation="softplus") for m in (3, 50, 600) for ta in BOTH),
        # More rows than b is read in place for, several blocks of k, rows cut because panels are few.
        *(size(50, 70, 300, transpose_a=ta, transpose_b=tb, bias=True) for ta in BOTH for tb in BOTH),
        size(300, 20, 600, bias=True, activation="tanh"),
        size(256, 400, 70, transpose_a=True),  # columns of a that compete for places in the cache
        *(size(1, 21, 9, bias=True, activation=name) for name in ACTIVATIONS),
    ),
    bench=size(128, 500, 784, bias=True, activation="logistic"),
    inputs=matmul_inputs,
    outputs=lambda s: {"out": ((s["m"], s["columns"]), np.float32)},
    reference=matmul_reference,
    public=matmul_public,
    optional=frozenset({"bias"}),
    batch=("a", "out"),
    bad=(
        Bad("b", lambda a: a["b"][1:], ValueError, ("rows", "op(a)")),
        Bad("bias", lambda a: a["bias"][1:], ValueError, ("columns of op(b)",)),
        Bad("out", lambda a: a["out"][1:].copy(), ValueError, ("rows of op(a)",)),
        Bad("a", lambda a: part_of_out(a, "a"), ValueError, ("out to share no memory with a", "overlap")),
        Bad("b", lambda a: part_of_out(a, "b"), ValueError, ("out to share no memory with b", "overlap")),
        Bad("bias", lambda a: part_of_out(a, "bias"), ValueError, ("out to share no memory with bias", "overlap")),
        Bad("activation", 5, ValueError, ("0 .. 4", "5")),
        Bad("activation", -1, ValueError, ("0 .. 4", "-1")),
        Bad("activation", "tanh", TypeError, ("integer", "'tanh'")),
        Bad("transpose_a", "no", TypeError, ("True or False", "'no'")),
    ),
)  # fmt: skip

CASES = (MATMUL,)
