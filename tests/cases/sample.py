"""Rows of the sample family.

Uniforms and Bernoulli draws have bound 0: they follow from Philox words by exact arithmetic. Bounds of the others
are made of those of the elementary functions (tests/test_math.py, in units in the last place; one is at most 2 U).
"""

import numpy as np
from reference import noise, philox
from reference.rounding import U
from reference.sampling import TieError

from gencore.kernels import sample as kernels

from .case import Bad, Case, Expected, nan_at
from .rbm import KEY, KEY_BAD, counters_bad

# units: around 4, 8, 16 lanes, the 64 units of a word's superblock, twice and thrice that; more than one task along
# the units; many rows. Coordinates beyond 32 bits, and the last rows that there are.
SIZES = (
    *({"n": 3, "units": units} for units in (7, 0, 1, 3, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)),
    *({"n": 2, "units": units} for units in (127, 128, 129, 191, 192, 193, 255, 256, 257, 385)),
    {"n": 0, "units": 5},
    {"n": 1, "units": 40_000},
    {"n": 700, "units": 100},
    {"n": 5, "units": 140, "step": 2**32 + 7, "first_row": 2**32 - 5},
    {"n": 3, "units": 100, "first_row": 2**30 // 100 - 1},  # from one row of Philox to the next
    {"n": 2, "units": 140, "step": 2**56 - 1},
)
BENCH = {"n": 1000, "units": 1024}
COUNTERS_BAD = (
    *counters_bad("step", "first_row"),
    *KEY_BAD,
    Bad("first_row", lambda a: 2**32 - len(a["out"]) + 1, ValueError, ("first_row", "4294967")),
)


def coordinates(size):
    return {"key": KEY, "step": size.get("step", 3), "first_row": size.get("first_row", 11)}


def uniforms_of(a, domain, size):
    element = philox.flat_elements(a["first_row"], size["n"], size["units"])
    return philox.flat_uniforms(a["key"], domain, a["step"], element)


def uniform_reference(a, size):
    return {"out": Expected(uniforms_of(a, philox.UNIFORM, size))}


def exponential_reference(a, size):
    """One logarithm, of 0.9 units in the last place."""
    value = -np.log(uniforms_of(a, philox.EXPONENTIAL, size))
    return {"out": Expected(value, 2 * U * value)}


def normal_reference(a, size):
    value, bound = noise.normal(a["key"], a["step"], a["first_row"], size["n"], size["units"])
    return {"out": Expected(value, bound)}


def variates(name, reference, public):
    return Case(
        name=f"sample.{name}",
        sizes=SIZES,
        bench=BENCH,
        inputs=lambda rng, size: coordinates(size),
        outputs=lambda size: {"out": ((size["n"], size["units"]), np.float32)},
        reference=reference,
        public=lambda a, s: {"out": public((s["n"], s["units"]), **a)},
        batch=("out",),
        bad=COUNTERS_BAD,
    )


# --- bernoulli ---------------------------------------------------------------------------------------------


def bernoulli_inputs(rng, size):
    """Probabilities of every magnitude, both ends, and multiples of 2^-16, where heads end."""
    shape = (size["n"], size["units"])
    kinds = [
        rng.random(shape),
        10.0 ** rng.uniform(-12, 0, shape),
        np.rint(rng.random(shape) * 65536) / 65536,
        *(np.full(shape, p) for p in (0.0, -0.0, 1.0)),
    ]
    p = np.choose(rng.integers(0, len(kinds), shape), kinds)
    return {"p": p.astype(np.float32), **coordinates(size)}


def bernoulli_reference(a, size):
    rows = a["first_row"] + np.arange(size["n"])
    u = philox.uniforms_of_32_bits(a["key"], philox.BERNOULLI, a["step"], rows, size["units"])
    return {"out": Expected((u < a["p"]).astype(np.uint8))}


def with_last(argument, value):
    return nan_at(argument, np.float32(value))


BERNOULLI = Case(
    name="sample.bernoulli",
    sizes=SIZES,
    bench=BENCH,
    inputs=bernoulli_inputs,
    outputs=lambda size: {"out": ((size["n"], size["units"]), np.uint8)},
    reference=bernoulli_reference,
    public=lambda a, s: {"out": kernels.bernoulli(**a)},
    batch=("p", "out"),
    bad=(
        *COUNTERS_BAD,
        Bad("p", nan_at("p"), ValueError, ("from 0 to 1", "nan at (")),
        Bad(
            "p", with_last("p", np.nextafter(np.float32(1), np.float32(2))), ValueError, ("1.00000012 at (",)
        ),
        Bad("p", with_last("p", -(2.0**-40)), ValueError, ("-9.09494702e-13 at (",)),
        Bad("p", with_last("p", -np.inf), ValueError, ("-inf at (",)),
        Bad("p", with_last("p", np.inf), ValueError, ("inf at (",)),
        Bad("out", lambda a: np.zeros((1, 1), np.uint8), ValueError, ("the shape of p",)),
    ),
)

# --- bernoulli_bits ----------------------------------------------------------------------------------------

BITS_SIZES = (*SIZES, *({**size, "p": "one row"} for size in SIZES[7::4]))


def bits_inputs(rng, size):
    return bernoulli_inputs(rng, {**size, "n": 1 if size.get("p") == "one row" else size["n"]})


def bits_reference(a, size):
    """Bit u % 64 of word u // 64, from the bytes that `bernoulli` draws."""
    drawn = bernoulli_reference({**a, "p": np.broadcast_to(a["p"], (size["n"], size["units"]))}, size)
    words = np.zeros((size["n"], -(-size["units"] // 64)), np.uint64)
    for u in range(size["units"]):
        words[:, u // 64] |= drawn["out"].value[:, u].astype(np.uint64) << np.uint64(u % 64)
    return {"out": Expected(words)}


def bits_public(a, size):
    one_row = size.get("p") == "one row"
    return {
        "out": kernels.bernoulli_bits(
            **{**a, "p": a["p"].reshape(-1) if one_row else a["p"]}, rows=size["n"] if one_row else None
        )
    }


BERNOULLI_BITS = Case(
    name="sample.bernoulli_bits",
    sizes=BITS_SIZES,
    bench=BENCH,
    inputs=bits_inputs,
    outputs=lambda size: {"out": ((size["n"], -(-size["units"] // 64)), np.uint64)},
    reference=bits_reference,
    public=bits_public,
    batch=("p", "out"),
    bad=(
        *COUNTERS_BAD,
        Bad("p", nan_at("p"), ValueError, ("from 0 to 1", "nan at (")),
        Bad("p", with_last("p", -(2.0**-40)), ValueError, ("-9.09494702e-13 at (",)),
        Bad("p", lambda a: a["p"][:2].copy(), ValueError, ("the rows of p",)),
        Bad(
            "out",
            lambda a: np.zeros((len(a["out"]), 2), np.uint64),
            ValueError,
            ("a word for each 64 units",),
        ),
        Bad("out", lambda a: a["out"].astype(np.int64), TypeError, ("uint64", "int64")),
    ),
)

# --- categorical -------------------------------------------------------------------------------------------


def categorical_inputs(rng, size):
    logits = rng.normal(0, 3, (size["n"], size["categories"])).astype(np.float32)
    logits += rng.normal(0, 20, (size["n"], 1)).astype(np.float32)
    if size["categories"] > 1:
        impossible = rng.random(logits.shape) < 0.3
        impossible[np.arange(size["n"]), rng.integers(0, size["categories"], size["n"])] = False
        logits[impossible] = -np.inf
    return {"logits": logits, **coordinates(size)}


def categorical_reference(a, size):
    """Inversion in float64. Masses stray by 2.2 U and |logit - top| U, sums of at most 16 by 16 U: 60 U in all."""
    logits = a["logits"].astype(np.float64)
    if size["n"] == 0:
        return {"out": Expected(np.zeros(0, np.int64))}
    mass = np.exp(logits - logits.max(axis=1, keepdims=True))
    running = np.cumsum(mass, axis=1) / mass.sum(axis=1, keepdims=True)
    u = philox.uniforms(a["key"], philox.CATEGORICAL, a["step"], a["first_row"] + np.arange(size["n"]), 1)
    if np.any((np.abs(u - running) < 60 * U) & (running < 1 - 1e-9)):
        raise TieError("a uniform is within rounding of the border of a category: take another seed")
    return {"out": Expected(np.sum(running <= u, axis=1))}


CATEGORICAL = Case(
    name="sample.categorical",
    sizes=(
        *({"n": 3, "categories": k} for k in (1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129)),
        {"n": 0, "categories": 4},
        {"n": 0, "categories": 0},
        {"n": 5, "categories": 1000, "step": 2**32 + 7, "first_row": 2**32 - 5},
        {"n": 2, "categories": 20_000},
        {"n": 2000, "categories": 10},
    ),
    bench={"n": 100_000, "categories": 10},
    inputs=categorical_inputs,
    outputs=lambda size: {"out": ((size["n"],), np.int64)},
    reference=categorical_reference,
    public=lambda a, s: {"out": kernels.categorical(**a)},
    batch=("logits", "out"),
    bad=(
        *COUNTERS_BAD,
        Bad("logits", nan_at("logits"), ValueError, ("finite or -inf", "nan at (")),
        Bad("logits", nan_at("logits", np.inf), ValueError, ("finite or -inf", "inf at (")),
        Bad(
            "logits",
            lambda a: np.full_like(a["logits"], -np.inf),
            ValueError,
            ("each row", "throughout row 0"),
        ),
        Bad("logits", lambda a: a["logits"][:, :0].copy(), ValueError, ("categories", "at least 1", "0")),
        Bad("out", lambda a: np.zeros(1, np.int64), ValueError, ("the rows of logits",)),
    ),
)

CASES = (
    variates("uniform", uniform_reference, kernels.uniform),
    variates("normal", normal_reference, kernels.normal),
    variates("exponential", exponential_reference, kernels.exponential),
    BERNOULLI,
    BERNOULLI_BITS,
    CATEGORICAL,
)
