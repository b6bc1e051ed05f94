"""The row of samples of masked nets. Their draws have bound 0: noise keeps a distance from the logits."""

import numpy as np

from gencore.kernels import autoregressive as kernels

from .case import Bad, Case, Expected
from .dense import ACTIVATIONS, TRUTH

# Rows around 4, 8 and 16 lanes, two vectors of them, four, and more than one task; no row, no dimension, no unit.
SHAPES = (
    (5, 6, (7,)), (0, 3, (2,)), (3, 0, (2,)), (3, 4, (0,)), (1, 1, (1,)), (4, 5, (3, 2)), (9, 8, ()), (16, 7, (20,)),
    (17, 9, (5, 6, 7)), (33, 20, (30,)), (65, 40, (50, 33)), (130, 33, (70,)),
)  # fmt: skip


def size(n, d, hidden, order=False, direct=False, known=None, activation="relu"):
    return {
        "n": n,
        "d": d,
        "hidden": hidden,
        "order": order,
        "direct": direct,
        "known": known,
        "activation": activation,
    }


def logits_of(a, x):
    """In float64."""
    h, last = x.astype(np.float64), len(a["weights"]) - 1
    for i, (w, b) in enumerate(zip(a["weights"], a["biases"], strict=True)):
        k, j = a["degrees"][i][:, None], a["degrees"][(i + 1) % (last + 1)]
        z = h @ np.where(j > k if i == last else j >= k, w, 0) + b
        h = TRUTH[ACTIVATIONS[a["activation"]]](z)
    if a.get("direct") is None:
        return z
    return z + x @ np.where(a["degrees"][0] > a["degrees"][0][:, None], a["direct"], 0)


def inputs(rng, size):
    """Noise for random states: half a unit or more under the logits of ones, over those of zeros."""
    n, d, widths = size["n"], size["d"], (size["d"], *size["hidden"])
    found = {
        "degrees": [
            3 * (rng.permutation(d) if size["order"] else np.arange(d)),
            *(rng.integers(-1, 3 * d, h) for h in size["hidden"]),
        ],
        "weights": [
            rng.normal(0, 2 / max(k, 1) ** 0.5, (k, j)).astype(np.float32)
            for k, j in zip(widths, (*widths[1:], d), strict=True)
        ],
        "biases": [rng.normal(0, 1, j).astype(np.float32) for j in (*widths[1:], d)],
        "activation": ACTIVATIONS.index(size["activation"]),
    }
    if size["direct"]:
        found["direct"] = rng.normal(0, 1, (d, d)).astype(np.float32)
    x = (rng.random((n, d)) < 0.5).astype(np.uint8)
    if size["known"]:
        rows = n if size["known"] == "each" else 1
        found["given"], found["mask"] = ((rng.random((rows, d)) < 0.5).astype(np.uint8) for _ in "gm")
        x = np.where(found["mask"] != 0, found["given"], x).astype(np.uint8)
    away = 0.5 + rng.exponential(1, (n, d))
    found["noise"] = (logits_of(found, x) + np.where(x != 0, -away, away)).astype(np.float32)
    if size["known"]:  # where nobody looks
        found["noise"][np.broadcast_to(found["mask"] != 0, (n, d))] = np.nan if size["known"] == "each" else 0
    return found


def reference(a, size):
    """The states that the noise was made for, drawn one after another."""
    x = np.zeros((size["n"], size["d"]), np.uint8)
    for d in np.argsort(a["degrees"][0]):
        x[:, d] = a["noise"][:, d] < logits_of(a, x)[:, d]
        if a.get("mask") is not None:
            x[:, d] = np.where(a["mask"][:, d] != 0, a["given"][:, d], x[:, d])
    return {"out": Expected(x)}


def public(a, size):
    return {"out": kernels.masked_sample(**{**a, "activation": ACTIVATIONS[a["activation"]]})}


def changed(name, index, change):
    def value(a):
        arrays = list(a[name])
        arrays[index] = change(arrays[index])
        return arrays

    return value


SAMPLE = Case(
    name="autoregressive.masked_sample",
    sizes=(
        size(5, 6, (7,), order=True, direct=True, known="all"),
        *(
            size(*shape, i % 2 == 1, i % 3 == 1, (None, "all", "each")[i % 3], ACTIVATIONS[i % 5])
            for i, shape in enumerate(SHAPES)
        ),
        *(size(20, 11, (13, 9), True, direct, known) for direct in (False, True) for known in (None, "each")),
    ),
    bench=size(100, 784, (500,)),
    inputs=inputs,
    outputs=lambda s: {"out": ((s["n"], s["d"]), np.uint8)},
    reference=reference,
    public=public,
    optional=frozenset({"direct", "given", "mask"}),
    batch=("noise", "given", "mask", "out"),
    bad=(
        Bad(
            "degrees",
            changed("degrees", 1, lambda a: a[1:]),
            ValueError,
            ("weights[0] to hold 36 numbers", "42"),
        ),
        Bad(
            "degrees",
            lambda a: a["degrees"][:1],
            ValueError,
            ("weights to hold 1 arrays, as many as degrees", "2"),
        ),
        Bad(
            "weights",
            changed("weights", 1, lambda a: a[1:].copy()),
            ValueError,
            ("weights[1] to hold 42 numbers", "36"),
        ),
        Bad(
            "biases",
            changed("biases", 0, lambda a: a[1:].copy()),
            ValueError,
            ("biases[0] to hold 7 numbers", "6"),
        ),
        Bad("biases", changed("biases", 1, lambda a: a + np.float32(np.nan)), ValueError, ("finite", "nan")),
        Bad("direct", lambda a: a["direct"][1:].copy(), ValueError, ("the first of degrees",)),
        Bad("direct", lambda a: np.full_like(a["direct"], np.nan), ValueError, ("finite", "nan")),
        Bad("noise", lambda a: a["noise"][1:].copy(), ValueError, ("the shape of out",)),
        Bad("noise", lambda a: a["noise"] * np.float32(np.nan), ValueError, ("finite", "nan")),
        Bad("mask", lambda a: np.zeros((3, 6), np.uint8), ValueError, ("or of one row",)),
        Bad("mask", lambda a: None, ValueError, ("mask to be given",)),
        Bad("given", lambda a: None, ValueError, ("given to be given",)),
        Bad("activation", 7, ValueError, ("0 .. 4", "7")),
    ),
)

CASES = (SAMPLE,)
