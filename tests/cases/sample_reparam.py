"""Rows of the sample family: reparameterised Gaussians, their densities, and location-scale families.

Bounds follow the arithmetic of csrc/cpu/sample_reparam.cpp. exp errs by 2.2 U; a multiply-add rounds once or, on
processors without it, twice.
"""

import numpy as np
from reference import noise
from reference.rounding import U, chained

from gencore.kernels import sample as kernels

from .case import Bad, Case, Expected
from .rbm import KEY, KEY_BAD, counters_bad

# units: around 4, 8, 16 lanes, 64 (superblocks), 128 (short rows on a device), 1024 (tiles); n: one and more tasks.
# `rows` with n = 1 where there are several draws of each row: their batch cannot be cut.
SIZES = (
    {"n": 3, "units": 5},
    {"n": 0, "units": 5},
    {"n": 4, "units": 0},
    *({"n": 5, "units": u} for u in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 48, 63, 64, 65)),
    *({"n": 4, "units": u} for u in (100, 127, 128, 129, 192, 1023, 1024, 1025)),
    {"n": 2, "units": 40_000},
    {"n": 2000, "units": 20},
    {"n": 5000, "units": 1},
    {"n": 400, "units": 100},
    {"n": 5, "units": 70, "step": 2**32 + 7, "first_row": 2**32 - 5},
    *({"n": 3, "units": u, "first_row": 2**30 // u - 1} for u in (30, 300)),  # between rows of Philox
)
DRAWS = (
    {"n": 1, "rows": 5, "units": 17, "samples": 3},
    {"n": 1, "rows": 1, "units": 20, "samples": 2000},
    {"n": 1, "rows": 70, "units": 40, "samples": 13},
    {"n": 1, "rows": 48, "units": 20, "samples": 5},  # whole superblocks from one draw to the next
    {"n": 1, "rows": 3, "units": 1100, "samples": 2},
    {"n": 1, "rows": 900, "units": 20, "samples": 2},
)


def rows_of(size):
    return size.get("rows", size["n"])


def coordinates(size):
    return {"key": KEY, "step": size.get("step", 3), "first_row": size.get("first_row", 11)}


def normals(rng, *shape, scale=1.0):
    return (scale * rng.normal(size=shape)).astype(np.float32)


def parameters(rng, size):
    shape = rows_of(size), size["units"]
    return {"mu": normals(rng, *shape, scale=2), "logvar": normals(rng, *shape, scale=2)}


def gaussian_inputs(rng, size):
    return {**parameters(rng, size), "samples": size.get("samples", 1), **coordinates(size)}


class Draws:
    """z, its parts and their bounds, as (S, N, D)."""

    def __init__(self, a):
        n, units = a["mu"].shape
        shape = a["samples"], n, units
        self.mu, self.logvar = a["mu"].astype(np.float64), a["logvar"].astype(np.float64)
        eps, bound = noise.normal(a["key"], a["step"], a["first_row"], a["samples"] * n, units)
        self.eps, self.eps_bound = eps.reshape(shape), bound.reshape(shape)
        self.sd = np.exp(self.logvar / 2)
        self.z = self.mu + self.sd * self.eps
        self.z_bound = 12 * U * self.sd * np.abs(self.eps) + 2 * U * np.abs(self.z)


def gaussian_reference(a, size):
    """Bounds of the sums of terms, which are of 2 kl and 2 log_ratio.

    2 kl: the square of sd errs by 5.4 U of itself, and two sums by 2 U of all magnitudes each. 2 log_ratio: the errors
    of z and eps in their squares, and 3 U of each term.
    """
    d = Draws(a)
    square = d.mu**2 + d.sd**2 + 1 + np.abs(d.logvar)
    kl = 0.5 * (d.mu**2 + d.sd**2 - 1 - d.logvar).sum(-1)
    ratio = 0.5 * (d.z**2 - d.eps**2 - d.logvar).sum(-1).reshape(-1)
    terms = 2 * np.abs(d.z) * d.z_bound + 2 * np.abs(d.eps) * d.eps_bound
    terms = (terms + 3 * U * (d.z**2 + d.eps**2 + np.abs(d.logvar))).sum(-1).reshape(-1)
    flat = len(ratio), size["units"]
    return {
        "z": Expected(d.z.reshape(flat), d.z_bound.reshape(flat)),
        "kl": Expected(kl, 0.5 * U * (5.4 * d.sd**2 + 4 * square).sum(-1) + U * np.abs(kl)),
        "log_ratio": Expected(ratio, 0.5 * terms + U * np.abs(ratio)),
    }


def gaussian_public(a, size):
    (z, kl), (same, log_ratio) = kernels.gaussian_reparam(**a), kernels.gaussian_sample(**a)
    assert z.tobytes() == same.tobytes()
    return {"z": z, "kl": kl, "log_ratio": log_ratio}


PARAMETERS_BAD = (
    Bad("logvar", lambda a: a["logvar"][:, 1:].copy(), ValueError, ("the shape of mu",)),
    Bad("mu", lambda a: a["mu"][1:].copy(), ValueError, ()),
    Bad("samples", 0, ValueError, ("samples", "0")),
    Bad("samples", 1.5, TypeError, ("integer", "1.5")),
    Bad("samples", 2**40, ValueError, ("samples", str(2**40))),
)
COUNTERS_BAD = (*counters_bad("step", "first_row"), *KEY_BAD)
ROWS_BAD = Bad("first_row", 2**32 - 1, ValueError, ("first_row", "4294967"))

GAUSSIAN_REPARAM = Case(
    name="sample.gaussian_reparam",
    sizes=(*SIZES, *DRAWS),
    bench={"n": 10_000, "units": 100},
    inputs=gaussian_inputs,
    outputs=lambda s: {
        "z": ((s.get("samples", 1) * rows_of(s), s["units"]), np.float32),
        "kl": ((rows_of(s),), np.float32),
        "log_ratio": ((s.get("samples", 1) * rows_of(s),), np.float32),
    },
    reference=gaussian_reference,
    public=gaussian_public,
    optional=frozenset({"kl", "log_ratio"}),
    batch=("mu", "logvar", "z", "kl", "log_ratio"),
    bad=(
        *PARAMETERS_BAD[:1],
        *PARAMETERS_BAD[2:],
        *COUNTERS_BAD,
        ROWS_BAD,
        Bad("z", lambda a: a["z"][1:].copy(), ValueError, ("the rows of mu",)),
        Bad("kl", lambda a: a["kl"][1:].copy(), ValueError, ("the rows of mu",)),
        Bad("log_ratio", lambda a: a["log_ratio"][1:].copy(), ValueError, ("the rows of z",)),
    ),
)


def gaussian_vjp_inputs(rng, size):
    inputs, draws = gaussian_inputs(rng, size), size.get("samples", 1) * rows_of(size)
    given = size.get("given", "zkr")
    grads = {
        "grad_z": normals(rng, draws, size["units"]),
        "grad_kl": normals(rng, rows_of(size)),
        "grad_log_ratio": normals(rng, draws),
    }
    wanted = {"z": "grad_z", "k": "grad_kl", "r": "grad_log_ratio"}
    return inputs | {wanted[c]: grads[wanted[c]] for c in given}


def gaussian_vjp_reference(a, size):
    """t errs by that of z and two roundings; sums over draws are chains; each further step adds a rounding or two."""
    d = Draws(a)
    n, samples = len(a["mu"]), a["samples"]
    draws, links = (samples, n, 1), chained(samples) * U
    grad_z = a.get("grad_z", np.zeros(1, np.float32)).astype(np.float64)
    grad_z = grad_z.reshape(d.z.shape) if "grad_z" in a else np.zeros(d.z.shape)
    kl = a["grad_kl"].astype(np.float64)[:, None] if "grad_kl" in a else np.zeros((n, 1))
    ratio = (
        a["grad_log_ratio"].astype(np.float64).reshape(draws) if "grad_log_ratio" in a else np.zeros(draws)
    )
    t = grad_z + ratio * d.z
    t_bound = np.abs(ratio) * d.z_bound + 2 * U * (np.abs(grad_z) + np.abs(ratio * d.z))
    t_eps = t * d.eps
    t_eps_bound = t_bound * np.abs(d.eps) + np.abs(t) * d.eps_bound + 2 * U * np.abs(t_eps)
    variance = d.sd**2 - 1
    by_mu = t.sum(0) + kl * d.mu
    mu_bound = t_bound.sum(0) + links * np.abs(t).sum(0) + 3 * U * (np.abs(t).sum(0) + np.abs(kl * d.mu))
    by_logvar = 0.5 * (d.sd * t_eps.sum(0) - ratio.sum(0) + kl * variance)
    magnitude = d.sd * np.abs(t_eps).sum(0) + np.abs(ratio).sum(0) + np.abs(kl) * (d.sd**2 + 1)
    logvar_bound = d.sd * t_eps_bound.sum(0) + np.abs(kl) * 5.4 * U * d.sd**2 + (links + 6 * U) * magnitude
    return {"grad_mu": Expected(by_mu, mu_bound), "grad_logvar": Expected(by_logvar, logvar_bound)}


def gaussian_vjp_public(a, size):
    grads = [a.get(name) for name in ("grad_z", "grad_kl", "grad_log_ratio")]
    rest = {name: a[name] for name in ("mu", "logvar", "samples", "key", "step", "first_row")}
    by_mu, by_logvar = kernels.gaussian_reparam_vjp(*grads, **rest)
    return {"grad_mu": by_mu, "grad_logvar": by_logvar}


GAUSSIAN_REPARAM_VJP = Case(
    name="sample.gaussian_reparam_vjp",
    sizes=(
        *SIZES,
        *DRAWS,
        *({"n": 5, "units": 70, "given": given} for given in ("", "z", "k", "r", "zk", "zr", "kr")),
        *(
            {"n": 1, "rows": 6, "units": 19, "samples": 4, "given": given}
            for given in ("", "z", "k", "r", "kr")
        ),
    ),
    bench={"n": 10_000, "units": 100},
    inputs=gaussian_vjp_inputs,
    outputs=lambda s: dict.fromkeys(("grad_mu", "grad_logvar"), ((rows_of(s), s["units"]), np.float32)),
    reference=gaussian_vjp_reference,
    public=gaussian_vjp_public,
    optional=frozenset({"grad_z", "grad_kl", "grad_log_ratio"}),
    batch=("mu", "logvar", "grad_z", "grad_kl", "grad_log_ratio", "grad_mu", "grad_logvar"),
    bad=(
        *PARAMETERS_BAD[:1],
        *PARAMETERS_BAD[2:],
        *COUNTERS_BAD,
        ROWS_BAD,
        Bad("grad_z", lambda a: a["grad_z"][1:].copy(), ValueError, ("the rows of mu",)),
        Bad("grad_kl", lambda a: a["grad_kl"][1:].copy(), ValueError, ("the rows of mu",)),
        Bad("grad_log_ratio", lambda a: a["grad_log_ratio"][1:].copy(), ValueError, ("the rows of mu",)),
        Bad("grad_mu", lambda a: a["grad_mu"][1:].copy(), ValueError, ("the shape of mu",)),
        Bad("grad_logvar", lambda a: a["grad_logvar"][1:].copy(), ValueError, ("the shape of mu",)),
    ),
)

# --- Gaussian densities ------------------------------------------------------------------------------------


def log_prob_inputs(rng, size):
    samples = size.get("samples", 1)
    x = normals(rng, samples * rows_of(size), size["units"], scale=3)
    return {"x": x, **parameters(rng, size), "samples": samples}


class Densities:
    """The parts of a log-density, as (S, N, D): scaled = (x - mu) e^(-logvar / 2) errs by 4.4 U of itself."""

    def __init__(self, a):
        shape = a["samples"], *a["mu"].shape
        self.logvar = a["logvar"].astype(np.float64)
        self.precision = np.exp(-self.logvar / 2)
        self.scaled = (a["x"].astype(np.float64).reshape(shape) - a["mu"]) * self.precision


def log_prob_reference(a, size):
    """A term's square errs by 9 U, its sum with logvar by 2."""
    d = Densities(a)
    value = -0.5 * (d.scaled**2 + d.logvar + np.log(2 * np.pi)).sum(-1).reshape(-1)
    terms = (11 * d.scaled**2 + 2 * np.abs(d.logvar)).sum(-1).reshape(-1)
    return {"out": Expected(value, 0.5 * U * terms + U * np.abs(value))}


LOG_PROB_BAD = (
    *PARAMETERS_BAD[:1],
    *PARAMETERS_BAD[2:],
    Bad("x", lambda a: a["x"][1:].copy(), ValueError, ("the rows of mu",)),
)
GAUSSIAN_LOG_PROB = Case(
    name="sample.gaussian_log_prob",
    sizes=(*SIZES, *DRAWS),
    bench={"n": 10_000, "units": 100},
    inputs=log_prob_inputs,
    outputs=lambda s: {"out": ((s.get("samples", 1) * rows_of(s),), np.float32)},
    reference=log_prob_reference,
    public=lambda a, s: {"out": kernels.gaussian_log_prob(a["x"], a["mu"], a["logvar"])},
    batch=("x", "mu", "logvar", "out"),
    bad=(*LOG_PROB_BAD, Bad("out", lambda a: a["out"][1:].copy(), ValueError, ("the rows of x",))),
)


def log_prob_vjp_inputs(rng, size):
    inputs = log_prob_inputs(rng, size)
    return {"grad": normals(rng, len(inputs["x"])), **inputs}


def log_prob_vjp_reference(a, size):
    """scaled precision errs by 7.6 U, times grad 8.6; the square less one by 9 U of the square and 2 of the sum."""
    d, n, samples = Densities(a), len(a["mu"]), a["samples"]
    g, links = a["grad"].astype(np.float64).reshape(samples, n, 1), chained(samples) * U
    by_x = -g * d.scaled * d.precision
    terms = g * (d.scaled**2 - 1)
    size_of_terms = np.abs(g) * (d.scaled**2 + 1)
    by_logvar_bound = (11 * U + links) * size_of_terms.sum(0) + U * np.abs(terms.sum(0))
    flat = (samples * n, size["units"])
    return {
        "grad_x": Expected(by_x.reshape(flat), 9 * U * np.abs(by_x).reshape(flat)),
        "grad_mu": Expected(-by_x.sum(0), (9 * U + links) * np.abs(by_x).sum(0)),
        "grad_logvar": Expected(0.5 * terms.sum(0), 0.5 * by_logvar_bound),
    }


def log_prob_vjp_public(a, size):
    names = ("grad_x", "grad_mu", "grad_logvar")
    arrays = kernels.gaussian_log_prob_vjp(a["grad"], a["x"], a["mu"], a["logvar"])
    return dict(zip(names, arrays, strict=True))


GAUSSIAN_LOG_PROB_VJP = Case(
    name="sample.gaussian_log_prob_vjp",
    sizes=(*SIZES, *DRAWS),
    bench={"n": 10_000, "units": 100},
    inputs=log_prob_vjp_inputs,
    outputs=lambda s: {
        "grad_x": ((s.get("samples", 1) * rows_of(s), s["units"]), np.float32),
        **dict.fromkeys(("grad_mu", "grad_logvar"), ((rows_of(s), s["units"]), np.float32)),
    },
    reference=log_prob_vjp_reference,
    public=log_prob_vjp_public,
    optional=frozenset({"grad_x"}),
    batch=("grad", "x", "mu", "logvar", "grad_x", "grad_mu", "grad_logvar"),
    bad=(
        *LOG_PROB_BAD,
        Bad("grad", lambda a: a["grad"][1:].copy(), ValueError, ("the rows of x",)),
        Bad("grad_x", lambda a: a["grad_x"][1:].copy(), ValueError, ("the shape of x",)),
        Bad("grad_mu", lambda a: a["grad_mu"][1:].copy(), ValueError, ("the shape of mu",)),
    ),
)

# --- location and scale ------------------------------------------------------------------------------------

KIND_SIZES = (
    *SIZES,
    *({"n": 6, "units": units, "kind": kind} for kind in noise.KINDS for units in (3, 30, 70, 150)),
)


def kind_of(size):
    return size.get("kind", "normal")


def kind_noise(a, size):
    return noise.noise(kind_of(size), a["key"], a["step"], a["first_row"], size["n"], size["units"])


def location_scale_inputs(rng, size):
    shape = size["n"], size["units"]
    inputs = {"loc": normals(rng, *shape), "scale": np.exp(normals(rng, *shape))}
    if kind_of(size) == "exponential":
        del inputs["loc"]
    return {**inputs, "kind": noise.KINDS.index(kind_of(size)), **coordinates(size)}


def location_scale_reference(a, size):
    """The noise's error, scaled, and a multiply-add; a log-normal turns that and 2.2 U into relative error."""
    value, bound = kind_noise(a, size)
    scale = a["scale"].astype(np.float64)
    x = a.get("loc", np.float32(0)) + scale * value
    bound = scale * bound + U * (np.abs(scale * value) + np.abs(x))
    if kind_of(size) == "log_normal":
        x, bound = np.exp(x), np.exp(x) * (np.expm1(bound) + 2.4 * U)
    return {"out": Expected(x, bound)}


def location_scale_public(a, size):
    arguments = {name: a[name] for name in ("scale", "key", "step", "first_row")}
    return {"out": kernels.location_scale(a.get("loc"), kind=kind_of(size), **arguments)}


KIND_BAD = (
    *COUNTERS_BAD,
    ROWS_BAD,
    Bad("kind", 7, ValueError, ("kind", "7")),
    Bad("kind", -1, ValueError, ("kind", "-1")),
)
LOCATION_SCALE = Case(
    name="sample.location_scale",
    sizes=KIND_SIZES,
    bench={"n": 10_000, "units": 100},
    inputs=location_scale_inputs,
    outputs=lambda s: {"out": ((s["n"], s["units"]), np.float32)},
    reference=location_scale_reference,
    public=location_scale_public,
    batch=("loc", "scale", "out"),
    bad=(
        *KIND_BAD,
        Bad("kind", 5, ValueError, ("loc", "exponential")),
        Bad("loc", lambda a: a["loc"][1:].copy(), ValueError, ("the shape of scale",)),
        Bad("out", lambda a: a["out"][1:].copy(), ValueError, ("the shape of scale",)),
    ),
)


def location_scale_vjp_inputs(rng, size):
    shape = size["n"], size["units"]
    inputs = {"grad": normals(rng, *shape), "kind": noise.KINDS.index(kind_of(size)), **coordinates(size)}
    return inputs | ({"y": np.exp(normals(rng, *shape))} if kind_of(size) == "log_normal" else {})


def location_scale_vjp_reference(a, size):
    value, bound = kind_noise(a, size)
    g = a["grad"].astype(np.float64) * a.get("y", np.float32(1))
    by_scale = Expected(g * value, np.abs(g) * bound + 2.1 * U * np.abs(g * value))
    return {"grad_loc": Expected(g, U * np.abs(g)), "grad_scale": by_scale}


def location_scale_vjp_public(a, size):
    by_loc, by_scale = kernels.location_scale_vjp(**{"y": None, **a})
    return {"grad_loc": by_loc, "grad_scale": by_scale}


LOCATION_SCALE_VJP = Case(
    name="sample.location_scale_vjp",
    sizes=KIND_SIZES,
    bench={"n": 10_000, "units": 100},
    inputs=location_scale_vjp_inputs,
    outputs=lambda s: dict.fromkeys(("grad_loc", "grad_scale"), ((s["n"], s["units"]), np.float32)),
    reference=location_scale_vjp_reference,
    public=location_scale_vjp_public,
    optional=frozenset({"grad_loc"}),
    batch=("grad", "y", "grad_loc", "grad_scale"),
    bad=(
        *KIND_BAD,
        Bad("y", lambda a: a["y"][1:].copy(), ValueError, ("the shape of grad",)),
        Bad("grad_loc", lambda a: a["grad_loc"][1:].copy(), ValueError, ("the shape of grad",)),
        Bad("grad_scale", lambda a: a["grad_scale"][1:].copy(), ValueError, ("the shape of grad",)),
    ),
)

CASES = (
    GAUSSIAN_REPARAM,
    GAUSSIAN_REPARAM_VJP,
    GAUSSIAN_LOG_PROB,
    GAUSSIAN_LOG_PROB_VJP,
    LOCATION_SCALE,
    LOCATION_SCALE_VJP,
)
