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
    if size.get("binary"):
        arguments["a"] = (rng.random(arguments["a"].shape) < size["binary"]).astype(np.uint8)
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


def part_of(a, output, name):
    """An input in the memory of an output."""
    return a[output].reshape(-1)[-a[name].size :].reshape(a[name].shape)


def part_of_out(a, name):
    return part_of(a, "out", name)


def bytes_of_out(a):
    """States in the memory of the result, at its end."""
    return a["out"].reshape(-1).view(np.uint8)[-a["a"].size :].reshape(a["a"].shape)


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
        # Bytes of 0 and 1, in every orientation: around words of 64, tiles and groups of columns, blocks of 256 rows.
        *(size(m, n, k, transpose_a=ta, transpose_b=tb, binary=0.3)
          for m, n, k in ((1, 1, 1), (3, 17, 5), (63, 1, 64), (64, 127, 65), (65, 129, 63), (300, 150, 130))
          for ta in BOTH for tb in BOTH),
        *(size(13, 21, 9, bias=bias, activation=name, binary=0.5) for name in ACTIVATIONS for bias in BOTH),
        size(70, 40, 33, transpose_a=True, binary=0.0001, bias=True), size(70, 40, 33, binary=1.0),
        size(0, 3, 2, binary=0.5), size(3, 0, 2, binary=0.5), size(3, 70, 0, binary=0.5, bias=True),
        size(3, 7, 0, binary=0.5, transpose_a=True),
    ),
    bench=size(128, 500, 784, bias=True, activation="logistic"),
    inputs=matmul_inputs,
    outputs=lambda s: {"out": ((s["m"], s["columns"]), np.float32)},
    reference=matmul_reference,
    public=matmul_public,
    optional=frozenset({"bias"}),
    batch=("a", "out"),
    bad=(
        Bad("a", lambda a: a["a"].astype(np.float64), TypeError, ("bool, uint8 or float32", "float64")),
        Bad("a", lambda a: np.full(a["a"].shape, 2, np.uint8), ValueError, ("0 and 1 only", "2")),
        Bad("a", lambda a: bytes_of_out(a), ValueError, ("out to share no memory with a", "overlap")),
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


# --- gradients of a layer -----------------------------------------------------------------------------------

SLOPE = {  # of the activation, in terms of its value y
    "identity": lambda y: np.ones_like(y),
    "logistic": lambda y: y * (1 - y),
    "tanh": lambda y: (1 - y) * (1 + y),
    "relu": lambda y: (y > 0).astype(float),
    "softplus": lambda y: -np.expm1(-y),
}


def layer(m, columns, k, activation="identity", without=(), n=1, binary=None, with_grad_z=False):
    """`n` is 1: the batch is summed over."""
    return {
        "n": n,
        "m": m,
        "columns": columns,
        "k": k,
        "activation": activation,
        "without": without,
        "binary": binary,
        "with_grad_z": with_grad_z,
    }


def linear_vjp_inputs(rng, size):
    m, n, k = size["m"], size["columns"], size["k"]
    field = rng.normal(0, 3, (m, n))
    arrays = {
        "grad": rng.normal(0, 1, (m, n)),
        "x": rng.normal(0, 1, (m, k)),
        "w": rng.normal(0, 1, (k, n)),
        "y": TRUTH[size["activation"]](field),
    }
    arrays = {name: a.astype(np.float32) for name, a in arrays.items() if name not in size["without"]}
    if size["binary"]:
        arrays["x"] = (rng.random((m, k)) < size["binary"]).astype(np.uint8)
    return arrays | {"activation": ACTIVATIONS.index(size["activation"])}


def linear_vjp_outputs(size):
    m, n, k = size["m"], size["columns"], size["k"]
    shapes = {"grad_x": ((m, k), np.float32), "grad_w": ((k, n), np.float32), "grad_bias": ((n,), np.float32)}
    if size["with_grad_z"]:
        shapes["grad_z"] = ((m, n), np.float32)
    return {name: shape for name, shape in shapes.items() if name not in size["without"]}


def linear_vjp_reference(a, size):
    """dz = grad slope(y) in 4 roundings at most: 3 of the slope (1.4 ulp where it is softplus's), 1 of the product.

    Its relative error reaches the products whole; they stray by `product_error` besides. A sum of n rows has
    min(n, 32) roundings, and one at the end.
    """
    grad = a["grad"].astype(np.float64)
    dz = grad * SLOPE[size["activation"]](a["y"].astype(np.float64)) if "y" in a else grad
    error = (0 if size["activation"] in ("identity", "relu") else 4 * U) * np.abs(dz)
    expected = {}
    if "grad_x" not in size["without"]:
        w = a["w"].astype(np.float64)
        expected["grad_x"] = Expected(dz @ w.T, product_error(dz, w.T) + error @ np.abs(w.T))
    if "grad_w" not in size["without"]:
        x = a["x"].astype(np.float64)
        expected["grad_w"] = Expected(x.T @ dz, product_error(x.T, dz) + np.abs(x.T) @ error)
    if "grad_bias" not in size["without"]:
        magnitude = (np.abs(dz) + error).sum(0)
        bound = error.sum(0) + (min(len(dz), 32) + 1) * U * magnitude
        expected["grad_bias"] = Expected(dz.sum(0), bound)
    if size["with_grad_z"]:
        expected["grad_z"] = Expected(dz, error)
    return expected


def linear_vjp_public(a, s):
    if s["with_grad_z"]:
        wanted = {"activation": s["activation"], "bias": "grad_bias" not in s["without"]}
        found = dict(
            zip(("grad_z", "grad_bias"), kernels.activation_vjp(a["grad"], a["y"], **wanted), strict=True)
        )
        return {name: found[name] for name in linear_vjp_outputs(s)}
    needs = tuple(name not in s["without"] for name in ("grad_x", "grad_w", "grad_bias"))
    arrays = [a.get(name) for name in ("grad", "x", "w", "y")]
    grads = kernels.linear_vjp(*arrays, activation=s["activation"], needs=needs)
    assert tuple(g is not None for g in grads) == needs
    return {n: g for n, g in zip(("grad_x", "grad_w", "grad_bias"), grads, strict=True) if g is not None}


LINEAR_VJP = Case(
    name="dense.linear_vjp",
    sizes=(
        *(layer(13, 21, 9, name) for name in reversed(ACTIVATIONS)),
        *(layer(m, n, k, "tanh") for m, n, k in ((1, 1, 1), (1, 5, 3), (5, 1, 3), (5, 3, 1), (4, 16, 8), (7, 17, 15))),
        layer(0, 3, 2, "tanh"), layer(3, 0, 2, "tanh"), layer(3, 2, 0, "tanh"),
        # What is left out, and the inputs that nothing then needs.
        layer(6, 5, 4, "logistic", ("grad_x", "w")), layer(6, 5, 4, "logistic", ("grad_w", "x")),
        layer(6, 5, 4, "relu", ("grad_bias",)), layer(6, 5, 4, "identity", ("y",)),
        layer(6, 5, 4, "tanh", ("grad_x", "w", "grad_w", "x")),
        layer(6, 5, 4, "identity", ("y", "grad_x", "w", "grad_w", "x")),
        # Several stretches of rows, on threads and not; blocks of k.
        layer(32, 7, 5, "softplus"), layer(65, 70, 40, "softplus"), layer(33, 8, 31, "softplus"),
        layer(300, 130, 70, "logistic"), layer(600, 64, 300, "relu"),
        # dz itself.
        *(layer(m, n, 3, name, ("grad_x", "w", "grad_w", "x"), with_grad_z=True)
          for m, n, name in ((1, 1, "tanh"), (65, 17, "relu"), (700, 70, "logistic"), (9, 5, "softplus"))),
        layer(9, 5, 3, "tanh", ("grad_x", "w", "grad_w", "x", "grad_bias"), with_grad_z=True),
        # Bytes of 0 and 1.
        *(layer(m, n, k, "tanh", binary=0.3) for m, n, k in ((1, 1, 1), (63, 17, 65), (65, 129, 64), (300, 20, 130))),
        layer(0, 3, 2, "tanh", binary=0.5), layer(64, 130, 63, "identity", ("y", "grad_x", "w"), binary=0.5),
    ),
    bench=layer(128, 500, 784, "tanh"),
    inputs=linear_vjp_inputs,
    outputs=linear_vjp_outputs,
    reference=linear_vjp_reference,
    public=linear_vjp_public,
    optional=frozenset({"x", "w", "y", "grad_x", "grad_w", "grad_bias", "grad_z"}),
    bad=(
        *(Bad(name, None, ValueError, ("given", "nothing")) for name in ("x", "w", "y")),
        Bad("x", lambda a: a["x"][1:], ValueError, ("the rows of grad",)),
        Bad("x", lambda a: np.full(a["x"].shape, 3, np.uint8), ValueError, ("0 and 1 only", "3")),
        Bad("w", lambda a: a["w"][1:], ValueError, ("the columns of x and of grad",)),
        Bad("y", lambda a: a["y"][1:], ValueError, ("the shape of grad",)),
        Bad("grad_x", lambda a: a["grad_x"][1:].copy(), ValueError, ("the rows of grad and of w",)),
        Bad("grad_w", lambda a: a["grad_w"][1:].copy(), ValueError, ("the columns of x and of grad",)),
        Bad("grad_z", lambda a: np.empty((1, 2), np.float32), ValueError, ("the shape of grad",)),
        Bad("grad_bias", lambda a: a["grad_bias"][1:].copy(), ValueError, ("the columns of grad",)),
        Bad("x", lambda a: part_of(a, "grad_w", "x"), ValueError, ("grad_w to share no memory with x",)),
        Bad("grad_bias", lambda a: part_of(a, "grad_w", "grad_bias"), ValueError, ("share no memory with grad_bias",)),
        Bad("activation", 5, ValueError, ("0 .. 4", "5")),
        Bad("activation", -1, ValueError, ("0 .. 4", "-1")),
    ),
)  # fmt: skip

CASES = (MATMUL, LINEAR_VJP)
