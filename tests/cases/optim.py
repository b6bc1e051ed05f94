"""Rows of the optim family."""

import numpy as np
from reference.rounding import U

from gencore.kernels import optim as kernels

from .case import Bad, Case, Expected


def sgd_inputs(rng, size):
    n = size["units"]
    arguments = {"param": rng.normal(0, 1, n), "grad": rng.normal(0, 30, n)}
    if size.get("momentum") is not None:
        arguments["velocity"] = rng.normal(0, 0.3, n)
    numbers = {
        "lr": 0.1,
        "momentum": size.get("momentum") or 0.0,
        "weight_decay": size.get("weight_decay", 0.01),
    }
    return {name: array.astype(np.float32) for name, array in arguments.items()} | numbers


def sgd_reference(a, size):
    """At most five roundings of a velocity (where a fused product takes two), and one of the parameter."""
    lr, momentum, decay = (float(np.float32(a[name])) for name in ("lr", "momentum", "weight_decay"))
    param, grad = a["param"].astype(np.float64), a["grad"].astype(np.float64)
    velocity = a["velocity"].astype(np.float64) if "velocity" in a else np.zeros_like(param)
    change = momentum * velocity + lr * (grad - decay * param)
    size_of_change = np.abs(momentum * velocity) + abs(lr) * (np.abs(grad) + np.abs(decay * param))
    bound = 5 * U * size_of_change
    expected = {"param": Expected(param + change, bound + U * (np.abs(param) + size_of_change))}
    return expected | ({"velocity": Expected(change, bound)} if "velocity" in a else {})


def sgd_public(a, s):
    changed = {name: a[name].copy() for name in ("param", "velocity") if a.get(name) is not None}
    kernels.sgd(**{**a, **changed})
    return changed


def number_bad(name):
    return (
        *(Bad(name, value, ValueError, ("finite", f"{value:g}")) for value in (np.nan, np.inf)),
        Bad(name, "fast", TypeError, ("number", "'fast'")),
    )


SGD = Case(
    name="optim.sgd",
    # Around 4, 8 and 16 lanes; several blocks of 16,384, whole and not; with and without velocity.
    sizes=(
        *({"units": n, "momentum": 0.9} for n in (7, 0, 1, 3, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65)),
        *({"units": n} for n in (1, 17, 100)),
        {"units": 16_384, "momentum": 0.5, "weight_decay": 0.0},
        {"units": 40_001, "momentum": 0.5},
        {"units": 49_152, "momentum": 0.0},
    ),
    bench={"units": 1_570_000, "momentum": 0.9},
    inputs=sgd_inputs,
    outputs=lambda size: {},
    reference=sgd_reference,
    public=sgd_public,
    in_place=("param", "velocity"),
    bad=(
        Bad("grad", lambda a: a["grad"][1:].copy(), ValueError, ("the shape of param",)),
        Bad("velocity", lambda a: a["velocity"][1:].copy(), ValueError, ("the shape of param",)),
        Bad("velocity", None, ValueError, ("momentum", "nothing")),
        *number_bad("lr"),
        *number_bad("momentum"),
        *number_bad("weight_decay"),
    ),
)

CASES = (SGD,)
