"""Rows of the rbm family: what the normalisation takes. Bounds are derived as in rbm.py."""

import numpy as np
from reference import rbm, sampling
from reference.rounding import U, chained

from gencore.kernels import rbm as kernels

from .case import Bad, Case, Expected, nan_at
from .rbm import (
    BENCH,
    KEY,
    KEY_BAD,
    PARAMETERS_BAD,
    SHAPES,
    counters_bad,
    field_error,
    free_energy_error,
    machine,
    softplus_sum_error,
    states,
    states_bad,
)


def log_partition_reference(a, size):
    """log Z strays no more than the worst state's free energy; fields there are rounded twice."""
    w, b, c = a["w"], a["b"], a["c"]
    if w.shape[1] > w.shape[0]:
        w, b, c = w.T, c, b  # enumerated over the columns
    magnitude = np.abs(b) + np.abs(w).astype(np.float64).sum(1)
    bound = softplus_sum_error(magnitude, 4 * U * magnitude) + 1e-12
    return {"out": Expected([rbm.log_partition(**a)], bound)}


LOG_PARTITION = Case(
    name="rbm.log_partition_exact",
    sizes=(
        *({"n_visible": n, "n_hidden": m} for n in (1, 2, 5, 6, 7) for m in (1, 3, 6, 16, 33)),
        {"n_visible": 15, "n_hidden": 15},
        {"n_visible": 12, "n_hidden": 2100},
        {"n_visible": 784, "n_hidden": 10},
    ),
    bench={"n_visible": 784, "n_hidden": 20},
    inputs=machine,
    outputs=lambda s: {"out": ((1,), np.float64)},
    reference=log_partition_reference,
    public=lambda a, s: {"out": np.reshape(kernels.log_partition_exact(**a), (1,))},
    bad=(
        *PARAMETERS_BAD,
        Bad("out", np.empty(2), ValueError, ("a single number", "(2,)")),
    ),
)


def ais_inputs(rng, size):
    betas = np.linspace(0, 1, size.get("temperatures", 6)) ** 1.5
    arguments = {
        **machine(rng, size),
        "betas": np.ascontiguousarray(betas[::-1]) if size.get("falling") else betas,
        "base_bias": rng.normal(-0.5, 1, size["n_visible"]).astype(np.float32),
        "key": KEY,
        "first_row": size.get("first_row", 4),
    }
    if size.get("start"):
        arguments["start"] = states(rng, size["n"], size["n_visible"])
    return arguments


def ais_reference(a, size):
    """Log-weights along the predicted states.

    softplus(beta' x) - softplus(beta x) has slope at most |beta' - beta| (1 + |x| / 4) in a field x; a
    float32 sum of positive parts goes over 32 vectors at most; the two products have n_hidden factors,
    each off by 4 roundings, and by one on the exponent beta x (which takes in beta's own).
    """
    trajectory = sampling.ais_trajectory(n_runs=size["n"], **a)
    model = {name: a[name] for name in ("w", "b", "c", "base_bias", "betas")}
    bound = np.zeros(size["n"])
    for step, v in zip(np.abs(np.diff(a["betas"])), trajectory[:-1], strict=True):
        x, x_error = a["c"] + v.astype(np.float64) @ a["w"], field_error(v, a["w"], a["c"])
        bound += step * ((1 + np.abs(x) / 4) * x_error + chained(32) * U * np.abs(x)).sum(1)
        bound += 2 * chained(x.shape[1]) * U * (5 + np.abs(x).max(1))
    return {
        "log_weights": Expected(rbm.annealed_log_weights(trajectory=trajectory[:-1], **model), bound),
        "v_out": Expected(trajectory[-1]),
    }


AIS = Case(
    name="rbm.ais",
    sizes=(
        *SHAPES[1:],
        {"n": 20, "n_visible": 40, "n_hidden": 33, "temperatures": 40},
        {"n": 20, "n_visible": 40, "n_hidden": 33, "start": True, "temperatures": 2},
        {"n": 70, "n_visible": 65, "n_hidden": 140, "start": True, "falling": True},
    ),
    bench={**BENCH, "n": 100, "temperatures": 1000},
    inputs=ais_inputs,
    outputs=lambda s: {"log_weights": ((s["n"],), np.float64), "v_out": ((s["n"], s["n_visible"]), np.uint8)},
    reference=ais_reference,
    public=lambda a, s: dict(zip(("log_weights", "v_out"), kernels.ais(**a, n_runs=s["n"]), strict=True)),
    optional=frozenset({"start"}),
    batch=("start", "log_weights", "v_out"),
    bad=(
        *PARAMETERS_BAD,
        *KEY_BAD,
        *counters_bad("first_row"),
        Bad("betas", np.array([0.0]), ValueError, ("at least 2",)),
        Bad("betas", np.array([0.0, 0.6, 0.5, 1.0]), ValueError, ("rise or to fall", "element 2")),
        Bad("betas", np.array([0.0, np.nan, 1.0]), ValueError, ("rise or to fall", "element 1")),
        Bad("betas", np.array([0.1, 1.0]), ValueError, ("from 0 to 1", "0.1")),
        Bad("betas", np.array([0.0, 0.9]), ValueError, ("from 0 to 1", "0.9")),
        Bad("betas", np.array([0.0, 1.0], np.float32), TypeError, ("float64", "float32")),
        Bad("base_bias", lambda a: a["base_bias"][1:], ValueError, ("the rows of w",)),
        Bad("base_bias", nan_at("base_bias"), ValueError, ("finite", "nan")),
        Bad("start", lambda a: np.full((2, a["w"].shape[0]), 2, np.uint8), ValueError, ("start",)),
    ),
)

# --- pseudo-likelihood -------------------------------------------------------------------------------------


def pseudo_inputs(rng, size):
    return {**machine(rng, size), "v": states(rng, size["n"], size["n_visible"], size.get("dtype", "uint8"))}


def pseudo_error(a):
    """Bound on log p(v_i | rest) for every i: two softplus sums, one with w_i added to or taken from x."""
    w, c, v = a["w"], a["c"], a["v"]
    base = free_energy_error(w, c, v)
    flipped = np.stack(
        [free_energy_error(w, c, np.where(np.arange(v.shape[1]) == i, 1 - v, v)) for i in range(v.shape[1])],
        1,
    )
    return base[:, None] + flipped + 2 * U * np.abs(w).astype(np.float64).sum(1)


def pseudo_reference(a, size):
    return {"out": Expected(rbm.log_conditionals(**a).sum(1), pseudo_error(a).sum(1))}


PSEUDO = Case(
    name="rbm.pseudo_log_likelihood",
    sizes=(*SHAPES, {"n": 18, "n_visible": 40, "n_hidden": 20, "dtype": "float32"}),
    bench={**BENCH, "n": 100},
    inputs=pseudo_inputs,
    outputs=lambda s: {"out": ((s["n"],), np.float64)},
    reference=pseudo_reference,
    public=lambda a, s: {"out": kernels.pseudo_log_likelihood(**a)},
    batch=("v", "out"),
    bad=(*PARAMETERS_BAD, *states_bad("v")),
)


def stochastic_inputs(rng, size):
    return {
        **pseudo_inputs(rng, size),
        "key": KEY,
        "step": size.get("step", 1),
        "first_row": size.get("first_row", 6),
    }


def stochastic_reference(a, size):
    model = {name: a[name] for name in ("w", "b", "c", "v")}
    n, n_visible = a["v"].shape
    at = np.arange(n), sampling.pseudo_likelihood_units(n, n_visible, a["key"], a["step"], a["first_row"])
    return {
        "out": Expected(n_visible * rbm.log_conditionals(**model)[at], n_visible * pseudo_error(model)[at])
    }


STOCHASTIC_PSEUDO = Case(
    name="rbm.stochastic_pseudo_log_likelihood",
    sizes=(
        *SHAPES,
        {"n": 18, "n_visible": 40, "n_hidden": 20, "dtype": "bool", "step": 2**40, "first_row": 2**31},
    ),
    bench=BENCH,
    inputs=stochastic_inputs,
    outputs=lambda s: {"out": ((s["n"],), np.float64)},
    reference=stochastic_reference,
    public=lambda a, s: {"out": kernels.stochastic_pseudo_log_likelihood(**a)},
    batch=("v", "out"),
    bad=(*PARAMETERS_BAD, *states_bad("v"), *counters_bad("step", "first_row"), *KEY_BAD),
)

CASES = (LOG_PARTITION, AIS, PSEUDO, STOCHASTIC_PSEUDO)
