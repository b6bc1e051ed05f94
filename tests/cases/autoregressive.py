"""Rows of the autoregressive family. Draws have bound 0: they are predicted from the uniforms."""

import numpy as np
from reference import nade

from gencore.kernels import _nade
from gencore.kernels import autoregressive as kernels

from .case import Bad, Case, Expected, nan_at

KEY = 0x13198A2E03707344

# n: around the eight rows of a block. h: around 4, 8 and 16 lanes, and stretches of 16, 32 and 64 hidden units. No row,
# no dimension, no hidden unit. Rows are of every density, from no ones to nothing else.
SHAPES = (
    (5, 6, 20), (0, 3, 2), (3, 0, 4), (4, 3, 0), (1, 1, 1), (1, 2, 3), (2, 5, 4), (7, 3, 5), (8, 9, 7), (9, 16, 8),
    (3, 4, 9), (2, 7, 15), (17, 12, 16), (3, 20, 17), (2, 6, 31), (5, 8, 33), (3, 5, 63), (25, 11, 64), (4, 9, 65),
    (10, 33, 130), (3, 130, 5), (2, 260, 3),
)  # fmt: skip


def size(n, d, h, **options):
    return {"n": n, "d": d, "h": h, "dtype": "uint8", "order": False, **options}


def float32(rng, *shape, scale=1.0, mean=0.0):
    return rng.normal(mean, scale, shape).astype(np.float32)


def parameters(rng, size):
    d, h = size["d"], size["h"]
    found = {
        "w": float32(rng, d, h, scale=4 / max(d, 1) ** 0.5),
        "c": float32(rng, h),
        "v": float32(rng, d, h, scale=4 / max(h, 1) ** 0.5),
        "b": float32(rng, d, mean=-0.5),
    }
    if size["order"]:
        found["order"] = rng.permutation(d)
    return found


def states(rng, n, d, dtype):
    return (rng.random((n, d)) < np.linspace(0, 1, n)[:, None]).astype(dtype)


# --- log-probabilities --------------------------------------------------------------------------------------


def log_prob_inputs(rng, size):
    return {"x": states(rng, size["n"], size["d"], size["dtype"]), **parameters(rng, size)}


def log_prob_outputs(size):
    found = {"out": ((size["n"],), np.float32)}
    if size.get("logits"):
        found["logits"] = ((size["n"], size["d"]), np.float32)
    return found


def log_prob_reference(a, size):
    """See reference/nade.py."""
    expected = {"out": Expected(*nade.log_prob(**a))}
    if size.get("logits"):
        f = nade.forward(**a)
        expected["logits"] = Expected(*(nade.in_place(x, f.order) for x in (f.logits, f.logits_error)))
    return expected


def log_prob_public(a, size):
    found = {"out": kernels.nade_log_prob(**a)}
    if size.get("logits"):
        found["logits"] = _nade._log_prob_and_logits(**{"order": None, **a})[1]
    return found


def order_bad(value, *words):
    def changed(good):
        order = good["order"].copy()
        order[1] = order[0] if value is None else value
        return order

    return Bad("order", changed, ValueError, ("each of 0 to 5 once", "element 1", *words))


def not_binary(argument, value, dtype):
    def changed(good):
        x = good[argument].astype(dtype)
        x[1, 2] = value
        return x

    return Bad(argument, changed, ValueError, ("0 and 1 only", "(1, 2)"))


def fewer(argument):
    return lambda a: a[argument][1:].copy()


PARAMETERS_BAD = (
    Bad("c", fewer("c"), ValueError, ("the columns of w",)),
    Bad("v", fewer("v"), ValueError, ("the shape of w",)),
    Bad("b", fewer("b"), ValueError, ("the rows of w",)),
    Bad("order", fewer("order"), ValueError, ("the rows of w",)),
    order_bad(None, "again"),
    order_bad(6, "6 at"),
    order_bad(-1, "-1 at"),
    order_bad(2**40, "1099511627776 at"),
)
STATES_BAD = (
    Bad("x", lambda a: a["x"][:, 1:].copy(), ValueError, ("the rows of w",)),
    *(not_binary("x", value, np.uint8) for value in (2, 3, 255)),
    *(not_binary("x", value, np.float32) for value in (0.5, -1, np.nan, np.inf)),
)

LOG_PROB = Case(
    name="autoregressive.nade_log_prob",
    sizes=(
        size(5, 6, 20, order=True, logits=True),
        *(size(*shape, order=i % 2 == 1, logits=i % 3 == 1) for i, shape in enumerate(SHAPES)),
        size(9, 10, 12, dtype="bool"),
        size(9, 10, 12, dtype="float32", order=True),
    ),
    bench=size(100, 784, 500),
    inputs=log_prob_inputs,
    outputs=log_prob_outputs,
    reference=log_prob_reference,
    public=log_prob_public,
    optional=frozenset({"order", "logits"}),
    batch=("x", "out", "logits"),
    bad=(
        *PARAMETERS_BAD,
        *STATES_BAD,
        Bad("out", fewer("out"), ValueError, ("the rows of x",)),
        Bad("out", lambda a: a["w"].reshape(-1)[:5], ValueError, ("out to share no memory with w",)),
        Bad("logits", fewer("logits"), ValueError, ("the shape of x",)),
        Bad("logits", lambda a: a["v"].reshape(-1)[:30].reshape(5, 6), ValueError, ("no memory with v",)),
    ),
)


# --- gradients ----------------------------------------------------------------------------------------------


def vjp_inputs(rng, size):
    found = {"grad": float32(rng, size["n"]), **log_prob_inputs(rng, size)}
    if size.get("logits"):
        f = nade.forward(**{k: a for k, a in found.items() if k != "grad"})
        found["logits"] = nade.in_place(f.logits, f.order).astype(np.float32)
    return found


def vjp_outputs(size):
    d, h = size["d"], size["h"]
    shapes = {"grad_w": (d, h), "grad_c": (h,), "grad_v": (d, h), "grad_b": (d,)}
    return {name: (shape, np.float32) for name, shape in shapes.items()}


def vjp_reference(a, size):
    """See reference/nade.py."""
    return {name: Expected(*found) for name, found in nade.gradients(**a).items()}


VJP = Case(
    name="autoregressive.nade_log_prob_vjp",
    sizes=(
        size(5, 6, 20, order=True, logits=True),
        *(size(*shape, order=i % 2 == 0, logits=i % 3 == 0) for i, shape in enumerate(SHAPES)),
        size(9, 10, 12, dtype="bool"),
        size(9, 10, 12, dtype="float32", order=True),
    ),
    bench=size(100, 784, 500),
    inputs=vjp_inputs,
    outputs=vjp_outputs,
    reference=vjp_reference,
    public=lambda a, s: dict(zip(vjp_outputs(s), kernels.nade_log_prob_vjp(**a), strict=True)),
    optional=frozenset({"order", "logits"}),
    bad=(
        *PARAMETERS_BAD,
        *STATES_BAD,
        Bad("grad", fewer("grad"), ValueError, ("the rows of x",)),
        Bad("logits", fewer("logits"), ValueError, ("the shape of x",)),
        *(
            Bad(name, fewer(name), ValueError, (f"the shape of {name[-1]}",))
            for name in ("grad_w", "grad_c", "grad_v", "grad_b")
        ),
        Bad("grad_b", lambda a: a["b"], ValueError, ("grad_b to share no memory with b",)),
    ),
)


# --- samples ------------------------------------------------------------------------------------------------


def sample_inputs(rng, size):
    found = {**parameters(rng, size), "key": KEY, "first_row": 3, "step": size.get("step", 0)}
    if "temperature" in size:
        found["temperature"] = size["temperature"]
    if "known" in size:
        rows = size["n"] if size["known"] == "each" else 1
        found["given"] = (rng.random((rows, size["d"])) < 0.5).astype(size["dtype"])
        found["mask"] = (rng.random((rows, size["d"])) < 0.5).astype(np.uint8)
    return found


def sample_reference(a, size):
    """From the kernel's uniforms."""
    return {"out": Expected(nade.sample(n=size["n"], **a))}


def sample_public(a, size):
    arguments = {**a}
    if size.get("known") == "all":  # rows as people have them
        arguments |= {"given": a["given"][0], "mask": a["mask"][0].astype(bool)}
    return {"out": kernels.nade_sample(n=size["n"], **arguments)}


SAMPLE = Case(
    name="autoregressive.nade_sample",
    sizes=(
        size(5, 6, 20, order=True, known="each", temperature=0.7),
        *(size(*shape, order=i % 2 == 1) for i, shape in enumerate(SHAPES)),
        size(11, 9, 6, known="all"),
        size(11, 9, 6, known="all", order=True, dtype="float32", step=5),
        size(9, 140, 6, known="each", dtype="bool", order=True, step=2**40),
        size(9, 8, 6, temperature=2.5),
    ),
    bench=size(100, 784, 500),
    inputs=sample_inputs,
    outputs=lambda s: {"out": ((s["n"], s["d"]), np.uint8)},
    reference=sample_reference,
    public=sample_public,
    optional=frozenset({"order", "given", "mask"}),
    batch=("given", "mask", "out"),
    bad=(
        *PARAMETERS_BAD,
        Bad("out", lambda a: a["out"][:, 1:].copy(), ValueError, ("the rows of w",)),
        Bad("mask", fewer("mask"), ValueError, ("one row, or one for each row of out",)),
        Bad("given", fewer("given"), ValueError, ("one row, or one for each row of out",)),
        Bad("mask", lambda a: None, ValueError, ("mask to be given",)),
        Bad("given", lambda a: None, ValueError, ("given to be given",)),
        not_binary("mask", 2, np.uint8),
        not_binary("given", 2, np.uint8),
        not_binary("given", np.nan, np.float32),
        *(Bad("temperature", t, ValueError, ("positive and finite",)) for t in (0, -1, np.nan, np.inf)),
        Bad("temperature", "hot", TypeError, ("number",)),
        *(Bad(p, nan_at(p), ValueError, ("finite", "nan at element")) for p in ("w", "c", "v", "b")),
        Bad("first_row", -1, ValueError, ("from 0",)),
        Bad("first_row", 2**32 - 4, ValueError, ("4294967291",)),
        Bad("step", 2**56, ValueError, ("from 0",)),
        Bad("out", lambda a: a["mask"], ValueError, ("out to share no memory with mask",)),
    ),
)

CASES = (LOG_PROB, VJP, SAMPLE)
