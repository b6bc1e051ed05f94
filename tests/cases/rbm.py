"""Rows of the rbm family: sampling and learning.

Bounds. A field x = beta (c + v w) strays by `field_error`; logistic has slope at most 1/4, softplus at
most 1. Sums of softplus keep the positive parts (float32 sums down at most 120 vectors) apart from a
product of the factors 1 + e^-|x|, whose relative error is 4 roundings a factor. Draws have bound 0: they
are predicted from the uniforms and the exact float32 fields.
"""

from typing import NamedTuple

import numpy as np
from reference import philox, rbm, sampling
from reference.rounding import U, chained, product_error

from gencore.kernels import rbm as kernels

from .case import Bad, Case, Expected, nan_at

KEY = 0x243F6A8885A308D3

# n: no row, one, around the 16-row block of the pseudo-likelihood, over 256 (two tasks even on one thread).
# n_visible and n_hidden: one unit, around 16 lanes, 64-bit words and 128-unit groups; wide, tall and square.
SHAPES = (
    {"n": 0, "n_visible": 3, "n_hidden": 2},
    {"n": 1, "n_visible": 1, "n_hidden": 1},
    {"n": 2, "n_visible": 5, "n_hidden": 4},
    {"n": 3, "n_visible": 7, "n_hidden": 130},
    {"n": 5, "n_visible": 129, "n_hidden": 3},
    {"n": 17, "n_visible": 64, "n_hidden": 64},
    {"n": 33, "n_visible": 63, "n_hidden": 65},
    {"n": 300, "n_visible": 17, "n_hidden": 31},
    {"n": 9, "n_visible": 200, "n_hidden": 150},
)
BENCH = {"n": 1000, "n_visible": 784, "n_hidden": 500}


def machine(rng, size):
    n_visible, n_hidden = size["n_visible"], size["n_hidden"]
    return {
        "w": rng.normal(0, 1 / np.sqrt(max(n_visible, n_hidden, 1)), (n_visible, n_hidden)).astype(
            np.float32
        ),
        "b": rng.normal(-0.5, 1, n_visible).astype(np.float32),
        "c": rng.normal(0, 1, n_hidden).astype(np.float32),
    }


def states(rng, n, units, dtype="uint8"):
    """Rows of different density, from none on to all on."""
    if dtype == "real":
        return rng.random((n, units)).astype(np.float32)
    return (rng.random((n, units)) < np.linspace(0, 1, n)[:, None]).astype(dtype)


def field_error(v, w, bias, beta=1.0):
    return product_error(v, w, bias) * beta + 3 * U * np.abs(
        beta * (np.abs(v).astype(np.float64) @ np.abs(w) + np.abs(bias))
    )


def logistic_error(x_error):
    return x_error / 4 + 4 * U


def softplus_sum_error(x, x_error):
    """Bound on sum_j softplus(x_j) along the last axis."""
    n = np.shape(x)[-1]
    return (
        x_error.sum(-1)
        + chained(min(n, 120)) * U * np.maximum(x, 0).sum(-1)
        + 4 * chained(n) * U
        + 2 * U * np.log(2) * n
    )


def free_energy_error(w, c, v, beta=1.0):
    x = beta * (c + v.astype(np.float64) @ w)
    return softplus_sum_error(x, field_error(v, w, c, beta))


# --- gibbs_chain -------------------------------------------------------------------------------------------


def gibbs_inputs(rng, size):
    n = size["n"]
    arguments = {
        **machine(rng, size),
        "v": states(rng, n, size["n_visible"], size.get("dtype", "uint8")),
        "steps": size.get("steps", 2),
        "key": KEY,
        "beta": np.ones(1, np.float32),
        "first_step": size.get("first_step", 3),
        "first_row": size.get("first_row", 11),
    }
    if size.get("beta") == "rows":
        arguments["beta"] = np.linspace(0, 2, n).astype(np.float32)
    if "clamp" in size:
        arguments["clamp"] = (
            rng.random((1 if size["clamp"] == "one" else n, size["n_visible"])) < 0.4
        ).astype(np.uint8)
        arguments["precision"] = (
            0  # float32, the one that all devices have: test_cuda_rounded.py has the others
        )
    return arguments


def gibbs_reference(a, size):
    return {"v_out": Expected(sampling.gibbs_chain(**{k: v for k, v in a.items() if k != "precision"}))}


def gibbs_public(a, size):
    return {"v_out": kernels.gibbs_chain(**{**a, "precision": "float32"})}


PARAMETERS_BAD = (
    Bad("w", nan_at("w"), ValueError, ("finite", "nan")),
    Bad("b", nan_at("b"), ValueError, ("finite", "nan", "element")),
    Bad("c", nan_at("c", np.inf), ValueError, ("finite", "inf")),
    Bad("b", lambda a: a["b"][1:], ValueError, ("the rows of w",)),
    Bad("c", lambda a: a["c"][1:], ValueError, ("the columns of w",)),
)


def states_bad(argument, because="the rows of w", real=False):
    """Wrong states: their width, and values that are neither 0 nor 1."""

    def holding(value, dtype):
        def change(a):
            array = a[argument].astype(dtype)
            array[-1, -1] = value
            return array

        return change

    numbers = (np.nan,) if real else (0.5, -1.0, np.nan)
    return (
        Bad(argument, lambda a: np.ascontiguousarray(a[argument][:, 1:]), ValueError, (because,)),
        Bad(argument, holding(2, np.uint8), ValueError, ("0 and 1", "2")),
        Bad(argument, holding(255, np.uint8), ValueError, ("0 and 1", "255")),
        *(
            Bad(argument, holding(x, np.float32), ValueError, ("finite" if real else "0 and 1", f"{x:g}"))
            for x in numbers
        ),
    )


def counters_bad(*arguments):
    bad = []
    for argument in arguments:
        most = 2**32 - 1 if argument == "first_row" else 2**56 - 1
        bad += [Bad(argument, -1, ValueError, ("-1",)), Bad(argument, most + 1, ValueError, (str(most + 1),))]
        bad += [
            Bad(argument, 1.5, TypeError, ("integer", "1.5")),
            Bad(argument, "3", TypeError, ("integer", "'3'")),
        ]
    return tuple(bad)


KEY_BAD = (
    Bad("key", -1, TypeError, ("integer", "-1")),
    Bad("key", 2**64, TypeError, ("2^64 - 1", str(2**64))),
    Bad("key", 0.5, TypeError, ("integer", "0.5")),
    Bad("key", "seed", TypeError, ("integer", "'seed'")),
)

GIBBS = Case(
    name="rbm.gibbs_chain",
    sizes=(
        *SHAPES,
        {"n": 4, "n_visible": 20, "n_hidden": 30, "steps": 0},
        {
            "n": 4,
            "n_visible": 20,
            "n_hidden": 30,
            "steps": 25,
            "first_step": 2**32 - 5,
            "first_row": 2**32 - 5,
        },
        {"n": 19, "n_visible": 70, "n_hidden": 30, "beta": "rows", "clamp": "rows"},
        {"n": 19, "n_visible": 70, "n_hidden": 30, "beta": "rows", "clamp": "one", "dtype": "bool"},
        {"n": 260, "n_visible": 66, "n_hidden": 5, "clamp": "rows", "dtype": "float32"},
    ),
    bench={**BENCH, "steps": 1},
    inputs=gibbs_inputs,
    outputs=lambda s: {"v_out": ((s["n"], s["n_visible"]), s.get("dtype", "uint8"))},
    reference=gibbs_reference,
    public=gibbs_public,
    optional=frozenset({"clamp"}),
    batch=("v", "v_out", "beta", "clamp"),
    bad=(
        *PARAMETERS_BAD,
        *states_bad("v"),
        *counters_bad("first_step", "first_row"),
        *KEY_BAD,
        Bad("steps", -1, ValueError, ("at least 0", "-1")),
        Bad("steps", 2.0, TypeError, ("integer", "2.0")),
        Bad("precision", 3, ValueError, ("0 to 2", "3")),
        Bad("precision", -1, ValueError, ("0 to 2", "-1")),
        Bad("beta", nan_at("beta"), ValueError, ("finite",)),
        Bad("beta", lambda a: np.ones(a["v"].shape[0] + 1, np.float32), ValueError, ("each row of v",)),
        Bad("beta", np.ones(1), TypeError, ("float32", "float64")),
        Bad("clamp", lambda a: np.zeros((1, a["v"].shape[1] + 1), np.uint8), ValueError, ("the rows of w",)),
        Bad("clamp", lambda a: np.zeros((3, a["v"].shape[1]), np.uint8), ValueError, ("each row of v",)),
        Bad("clamp", lambda a: np.full((1, a["v"].shape[1]), 2, np.uint8), ValueError, ("0 and 1", "2")),
        Bad("v_out", lambda a: a["v"][1:].copy(), ValueError, ("the shape of v",)),
    ),
)

# --- one layer ---------------------------------------------------------------------------------------------


class Side(NamedTuple):
    """A side that is computed, and what its op calls its arguments."""

    name: str
    bias: str
    states: str
    given_units: str
    given: str
    computed: str
    domain: int

    def toward(self, a):
        """The weights as seen from the given side."""
        return a["w"] if self.name == "hidden" else a["w"].T

    def inputs(self, rng, size):
        m = machine(rng, size)
        given = states(rng, size["n"], size[self.given_units], size.get("dtype", "uint8"))
        return {"w": m["w"], self.bias: m[self.bias], self.states: given, "beta": size.get("beta", 1.0)}

    def outputs(self, dtype):
        units = "n_visible" if self.given_units == "n_hidden" else "n_hidden"
        return lambda size: {"out": ((size["n"], size[units]), dtype)}

    def bad(self):
        return (
            Bad("w", nan_at("w"), ValueError, ("finite", "nan")),
            Bad(self.bias, nan_at(self.bias, -np.inf), ValueError, ("finite", "inf")),
            Bad(self.bias, lambda a: a[self.bias][1:], ValueError, (self.computed,)),
            Bad("beta", np.inf, ValueError, ("finite", "inf")),
            Bad("beta", "hot", TypeError, ("number", "'hot'")),
            *states_bad(self.states, real=True, because=self.given),
        )


HIDDEN = Side("hidden", "c", "v", "n_visible", "the rows of w", "the columns of w", philox.HIDDEN)
VISIBLE = Side("visible", "b", "h", "n_hidden", "the columns of w", "the rows of w", philox.VISIBLE)
REAL = {"n": 13, "n_visible": 33, "n_hidden": 70, "dtype": "real", "beta": 0.7}


def layer_mean(side):
    def reference(a, size):
        bias, given = a[side.bias], a[side.states]
        error = field_error(given, side.toward(a), bias, abs(a["beta"]))
        return {
            "out": Expected(rbm.hidden_mean(side.toward(a), bias, given, a["beta"]), logistic_error(error))
        }

    return Case(
        name=f"rbm.{side.name}_mean",
        sizes=(
            *SHAPES,
            REAL,
            {"n": 1030, "n_visible": 9, "n_hidden": 4, "dtype": "real"},
            {"n": 13, "n_visible": 33, "n_hidden": 70, "dtype": "float32", "beta": -1.5},
        ),
        bench=BENCH,
        inputs=side.inputs,
        outputs=side.outputs(np.float32),
        reference=reference,
        public=lambda a, s: {"out": getattr(kernels, f"{side.name}_mean")(**a)},
        batch=(side.states, "out"),
        bad=side.bad(),
    )


def layer_sample(side):
    def inputs(rng, size):
        coordinates = {"step": size.get("step", 5), "first_row": size.get("first_row", 2)}
        return {**side.inputs(rng, size), "key": KEY, **coordinates}

    def reference(a, size):
        field = (sampling.sums(a[side.states], side.toward(a)) + a[side.bias]) * np.float32(a["beta"])
        return {"out": Expected(sampling.bernoulli(field, a["key"], side.domain, a["step"], a["first_row"]))}

    last = {"n": 13, "n_visible": 33, "n_hidden": 70, "step": 2**56 - 2, "first_row": 2**32 - 14}
    return Case(
        name=f"rbm.{side.name}_sample",
        sizes=(*SHAPES, REAL, {**last, "dtype": "bool"}),
        bench=BENCH,
        inputs=inputs,
        outputs=side.outputs(np.uint8),
        reference=reference,
        public=lambda a, s: {"out": getattr(kernels, f"{side.name}_sample")(**a)},
        batch=(side.states, "out"),
        bad=(*side.bad(), *counters_bad("step", "first_row"), *KEY_BAD),
    )


LAYERS = tuple(case(side) for case in (layer_mean, layer_sample) for side in (HIDDEN, VISIBLE))

# --- free energy -------------------------------------------------------------------------------------------


def free_energy_inputs(rng, size):
    return {
        **machine(rng, size),
        "v": states(rng, size["n"], size["n_visible"], size.get("dtype", "uint8")),
        "beta": size.get("beta", 1.0),
    }


def free_energy_reference(a, size):
    bound = free_energy_error(a["w"], a["c"], a["v"], a["beta"])
    return {"out": Expected(rbm.free_energy(**{**a, "beta": np.float32(a["beta"])}), bound)}


FREE_ENERGY = Case(
    name="rbm.free_energy",
    sizes=(
        *SHAPES,
        {"n": 13, "n_visible": 33, "n_hidden": 170, "dtype": "real", "beta": 0.7},
        {"n": 13, "n_visible": 33, "n_hidden": 70, "dtype": "bool", "beta": 0.0},
        {"n": 3, "n_visible": 4, "n_hidden": 2000},
    ),
    bench={**BENCH, "n": 10000},
    inputs=free_energy_inputs,
    outputs=lambda s: {"out": ((s["n"],), np.float64)},
    reference=free_energy_reference,
    public=lambda a, s: {"out": kernels.free_energy(**a)},
    batch=("v", "out"),
    bad=(*PARAMETERS_BAD, *states_bad("v", real=True), Bad("beta", np.nan, ValueError, ("finite", "nan"))),
)

# --- contrastive divergence --------------------------------------------------------------------------------


def cd_inputs(rng, size):
    n_visible, n_hidden = size["n_visible"], size["n_hidden"]
    arguments = {
        **machine(rng, size),
        "v": states(rng, size["n"], n_visible, size.get("dtype", "uint8")),
        "k": size.get("k", 1),
        "key": KEY,
        "first_step": size.get("first_step", 0),
    }
    if "chains" in size:
        arguments["chains"] = states(rng, size["chains"], n_visible)
    if size.get("centred"):
        arguments["offset_v"] = rng.random(n_visible).astype(np.float32)
        arguments["offset_h"] = rng.random(n_hidden).astype(np.float32)
    return arguments


def cd_outputs(size):
    n_visible, n_hidden, m = size["n_visible"], size["n_hidden"], size.get("chains", size["n"])
    return {
        "chains_out": ((m, n_visible), np.uint8),
        "grad_w": ((n_visible, n_hidden), np.float32),
        "grad_b": ((n_visible,), np.float32),
        "grad_c": ((n_hidden,), np.float32),
        "mean_v": ((n_visible,), np.float32),
        "mean_h": ((n_hidden,), np.float32),
    }


def cd_chains(a):
    """The chains after k steps, from the chains or from the (perhaps real-valued) data."""
    v = a.get("chains", a["v"])
    for step in range(a["first_step"], a["first_step"] + a["k"]):
        h = sampling.draw_hidden(a["w"], a["c"], v, a["key"], step)
        v = sampling.draw_visible(a["w"], a["b"], h, a["key"], step)
    return v


def cd_reference(a, size):
    """The gradient over the predicted chains; the bound follows each rounding from H to the offsets."""
    w, c, chains = a["w"], a["c"], cd_chains(a)
    mu = a.get("offset_v", np.zeros(w.shape[0], np.float32)).astype(np.float64)
    lam = a.get("offset_h", np.zeros(w.shape[1], np.float32)).astype(np.float64)
    phases, products, hidden = [], 0, 0
    for v in (a["v"], chains):
        equal = np.full(len(v), 1 / len(v))
        phases.append(rbm.gradient_statistics(w, c, v, equal, mu, lam))
        h, v = rbm.hidden_mean(w, c, v), v.astype(np.float64)
        h_error = logistic_error(field_error(v, w, c)) + 2 * U * h
        products = products + v.T @ h_error / len(v) + (chained(2 * len(v)) + 2) * U * (v.T @ h) / len(v)
        hidden = hidden + h_error.mean(0) + (chained(len(v)) + 2) * U * h.mean(0)
    mean_v, mean_h = phases[0][1:]
    weight, visible, bias = rbm.centred_gradient(*phases, mu, lam)
    dv, dh = np.abs(phases[0][1] - phases[1][1]), np.abs(phases[0][2] - phases[1][2])
    w_error = (
        products
        + np.outer(mu, hidden + 5 * U * dh)
        + np.outer(5 * U * (dv + 1), lam)
        + 5 * U * np.abs(weight)
    )
    return {
        "chains_out": Expected(chains),
        "grad_w": Expected(weight, w_error),
        "grad_b": Expected(
            visible, 4 * U + w_error @ lam + (chained(w.shape[1]) + 3) * U * (np.abs(weight) @ lam + 1)
        ),
        "grad_c": Expected(
            bias, hidden + mu @ w_error + (chained(w.shape[0]) + 3) * U * (mu @ np.abs(weight) + 1)
        ),
        "mean_v": Expected(mean_v, U),
        "mean_h": Expected(mean_h, hidden),
    }


def cd_public(a, size):
    names = ("grad_w", "grad_b", "grad_c", "chains_out", "mean_v", "mean_h")
    return dict(zip(names, kernels.cd_gradient(**a), strict=True))


CD_GRADIENT = Case(
    name="rbm.cd_gradient",
    sizes=(
        *SHAPES[1:],
        {"n": 65, "n_visible": 66, "n_hidden": 129, "k": 3, "centred": True, "first_step": 7},
        {"n": 10, "n_visible": 20, "n_hidden": 30, "chains": 70, "k": 2},
        {"n": 300, "n_visible": 300, "n_hidden": 20, "chains": 3, "centred": True},
        {"n": 40, "n_visible": 33, "n_hidden": 17, "dtype": "real", "centred": True},
        {"n": 40, "n_visible": 33, "n_hidden": 140, "dtype": "real", "chains": 64},
    ),
    bench={**BENCH, "n": 128, "centred": True},
    inputs=cd_inputs,
    outputs=cd_outputs,
    reference=cd_reference,
    public=cd_public,
    optional=frozenset({"chains", "offset_v", "offset_h", "mean_v", "mean_h"}),
    bad=(
        *PARAMETERS_BAD,
        *states_bad("v", real=True),
        *counters_bad("first_step"),
        *KEY_BAD,
        Bad("k", 0, ValueError, ("at least 1", "0")),
        Bad("v", lambda a: a["v"][:0], ValueError, ("at least 1", "0")),
        Bad("chains", lambda a: np.zeros((0, a["w"].shape[0]), np.uint8), ValueError, ("at least 1",)),
        Bad("chains", lambda a: np.full_like(a["chains"], 3), ValueError, ("0 and 1", "3")),
        Bad("chains", lambda a: a["v"].astype(np.float32), TypeError, ("uint8", "float32")),
        Bad("offset_v", None, ValueError, ("beside the other offset",)),
        Bad("offset_h", None, ValueError, ("beside the other offset",)),
        Bad("mean_v", lambda a: a["b"][1:].copy(), ValueError, ("the rows of w",)),
    ),
)

CASES = (GIBBS, *LAYERS, FREE_ENERGY, CD_GRADIENT)
