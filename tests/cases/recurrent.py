"""Rows of the recurrent family."""

import numpy as np
from reference import recurrent

from gencore.kernels import _lstm, _map_lstm
from gencore.kernels import recurrent as kernels

from .case import Bad, Case, Expected
from .dense import part_of


def normals(rng, *shape, scale=1.0):
    return rng.normal(0, scale, shape).astype(np.float32)


def expected(found):
    return Expected(found.value, found.error)


def fewer(argument, axis=-1):
    def changed(a):
        return np.ascontiguousarray(np.delete(a[argument], 0, axis))

    return changed


# --- sequences ------------------------------------------------------------------------------------------------


def size(n, steps, depth, hidden, **options):
    return {
        "n": n,
        "steps": steps,
        "depth": depth,
        "hidden": hidden,
        "states": False,
        "kept": False,
        **options,
    }


# Around 4, 8 and 16 lanes, and tiles of 2, 3, 6 and 8 rows and of 8, 24 and 48 columns; around the 32 sequences of a
# task. No sequence, step, input or unit.
SHAPES = (
    (0, 3, 2, 3), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0), (1, 1, 1, 1), (2, 3, 2, 3), (3, 4, 5, 4), (4, 2, 1, 5),
    (5, 3, 3, 7), (6, 2, 4, 8), (7, 3, 9, 9), (8, 2, 3, 15), (9, 3, 2, 16), (3, 2, 17, 17), (2, 3, 8, 24), (3, 2, 3,
    31), (13, 2, 5, 33), (2, 2, 3, 47), (3, 2, 2, 49), (31, 2, 3, 5), (32, 2, 3, 4), (33, 3, 2, 5), (67, 2, 3, 6), (2,
    30, 3, 5),
)  # fmt: skip


def weights(rng, s):
    depth, hidden = s["depth"], s["hidden"]
    return {
        "w_input": normals(rng, depth, 4 * hidden, scale=max(depth, 1) ** -0.5),
        "w_hidden": normals(rng, hidden, 4 * hidden, scale=max(hidden, 1) ** -0.5),
    }


def initial(rng, s):
    shape = (s["n"], s["hidden"])
    return {"h0": normals(rng, *shape, scale=0.5), "c0": normals(rng, *shape)} if s["states"] else {}


def lstm_inputs(rng, s):
    x = normals(rng, s["n"], s["steps"], s["depth"])
    return {"x": x, **weights(rng, s), "bias": normals(rng, 4 * s["hidden"]), **initial(rng, s)}


def lstm_outputs(s):
    n, steps, hidden = s["n"], s["steps"], s["hidden"]
    shapes = {"h": (n, steps, hidden), "c": (n, hidden)}
    if s["kept"]:
        shapes |= {"gates": (n, steps, 4 * hidden), "cells": (n, steps, hidden)}
    return {name: (shape, np.float32) for name, shape in shapes.items()}


def lstm_reference(a, s):
    """See reference/recurrent.py."""
    found = dict(zip(("h", "c", "gates", "cells"), recurrent.lstm(**a), strict=True))
    return {name: expected(found[name]) for name in lstm_outputs(s)}


def lstm_public(a, s):
    names = ("x", "w_input", "w_hidden", "bias", "h0", "c0")
    if s["kept"]:
        return dict(zip(("h", "c", "gates", "cells"), _lstm._lstm_kept(*map(a.get, names)), strict=True))
    return dict(zip(("h", "c"), kernels.lstm(**a), strict=True))


SEQUENCES_BAD = (
    Bad("w_hidden", fewer("w_hidden"), ValueError, ("four gates of the rows of w_hidden",)),
    Bad("w_input", fewer("w_input", 0), ValueError, ("the last axis of x and the columns of w_hidden",)),
    Bad("h0", fewer("h0"), ValueError, ("the sequences of x",)),
    Bad("c0", fewer("c0", 0), ValueError, ("the sequences of x",)),
    Bad("h", fewer("h", 1), ValueError, ("the steps of x",)),
    Bad("x", lambda a: a["x"][0], ValueError, ("3 dimensions",)),
)

LSTM = Case(
    name="recurrent.lstm",
    sizes=(
        size(5, 3, 4, 6, states=True, kept=True),
        *(size(*shape, states=i % 2 == 0, kept=i % 3 == 0) for i, shape in enumerate(SHAPES)),
    ),
    bench=size(64, 28, 64, 256),
    inputs=lstm_inputs,
    outputs=lstm_outputs,
    reference=lstm_reference,
    public=lstm_public,
    optional=frozenset({"h0", "c0", "gates", "cells"}),
    batch=("x", "h0", "c0", "h", "c", "gates", "cells"),
    bad=(
        *SEQUENCES_BAD,
        Bad("bias", fewer("bias"), ValueError, ("the columns of w_hidden",)),
        Bad("c", fewer("c"), ValueError, ("the rows of w_hidden",)),
        Bad("gates", fewer("gates"), ValueError, ("the columns of w_hidden",)),
        Bad("cells", fewer("cells", 0), ValueError, ("the steps of x",)),
        Bad("cells", None, ValueError, ("cells to be given",)),
        Bad("gates", None, ValueError, ("gates to be given",)),
        Bad("c", lambda a: a["c0"], ValueError, ("c to share no memory with c0",)),
        Bad("x", lambda a: part_of(a, "h", "x"), ValueError, ("h to share no memory with x",)),
    ),
)  # fmt: skip


def vjp_inputs(rng, s):
    a = lstm_inputs(rng, s)
    h, _, gates, cells = (x.value.astype(np.float32) for x in recurrent.lstm(**a))
    del a["bias"]
    found = {**a, "h": h, "gates": gates, "cells": cells, "grad_h": normals(rng, *h.shape)}
    if s["states"]:
        found["grad_c"] = normals(rng, s["n"], s["hidden"])
    return found


def vjp_outputs(s):
    n, steps, depth, hidden = s["n"], s["steps"], s["depth"], s["hidden"]
    shapes = {
        "grad_w_input": (depth, 4 * hidden),
        "grad_w_hidden": (hidden, 4 * hidden),
        "grad_bias": (4 * hidden,),
    }
    if s["states"]:
        shapes |= {"grad_h0": (n, hidden), "grad_c0": (n, hidden)}
    if s["kept"]:
        shapes["grad_x"] = (n, steps, depth)
    return {name: (shape, np.float32) for name, shape in shapes.items()}


def vjp_reference(a, s):
    """See reference/recurrent.py."""
    found = recurrent.lstm_gradients(a)
    return {name: expected(found[name]) for name in vjp_outputs(s)}


VJP = Case(
    name="recurrent.lstm_vjp",
    sizes=LSTM.sizes,
    bench=size(64, 28, 64, 256, kept=True),
    inputs=vjp_inputs,
    outputs=vjp_outputs,
    reference=vjp_reference,
    optional=frozenset({"h0", "c0", "grad_c", "grad_x", "grad_h0", "grad_c0"}),
    bad=(
        *SEQUENCES_BAD,
        Bad("gates", fewer("gates"), ValueError, ("the columns of w_hidden",)),
        Bad("cells", fewer("cells", 1), ValueError, ("the steps of x",)),
        Bad("grad_h", fewer("grad_h"), ValueError, ("the shape of h",)),
        Bad("grad_c", fewer("grad_c"), ValueError, ("the sequences and units of h",)),
        Bad("grad_x", fewer("grad_x"), ValueError, ("the shape of x",)),
        Bad("grad_w_input", fewer("grad_w_input"), ValueError, ("the shape of w_input",)),
        Bad("grad_w_hidden", fewer("grad_w_hidden"), ValueError, ("the shape of w_hidden",)),
        Bad("grad_bias", fewer("grad_bias"), ValueError, ("the columns of w_hidden",)),
        Bad("grad_h0", fewer("grad_h0"), ValueError, ("the sequences and units of h",)),
        Bad("grad_c0", fewer("grad_c0"), ValueError, ("the sequences and units of h",)),
        Bad("grad_w_hidden", lambda a: a["w_hidden"], ValueError, ("to share no memory with w_hidden",)),
        Bad("grad_x", lambda a: a["x"], ValueError, ("to share no memory with x",)),
    ),
)  # fmt: skip


# --- images ---------------------------------------------------------------------------------------------------


def map_size(n, height, width, units, path, sweeps=1, taps=2, kept=False):
    return {
        "n": n,
        "image": (height, width),
        "units": units,
        "path": path,
        "sweeps": sweeps,
        "taps": taps,
        "kept": kept,
    }


# Images of one row, column and pixel, wider and higher than they are high and wide; more than the 16 groups of images.
IMAGES = (
    (0, 3, 2, 3), (2, 0, 3, 2), (2, 3, 0, 2), (2, 2, 3, 0), (1, 1, 1, 1), (2, 1, 5, 4), (2, 5, 1, 5), (2, 3, 7, 3), (1,
    7, 3, 8), (2, 4, 4, 9), (1, 2, 9, 15), (2, 3, 3, 16), (1, 3, 2, 17), (1, 2, 3, 33), (2, 2, 2, 49), (18, 2, 3, 2),
)  # fmt: skip
MAP_SIZES = (
    map_size(2, 3, 4, 5, "diagonals", 2, kept=True),
    *(map_size(*image, "rows", taps=(3, 1, 2, 5)[i % 4], kept=i % 2 == 0) for i, image in enumerate(IMAGES)),
    *(map_size(*image, "diagonals", 1 + i % 2, kept=i % 3 == 0) for i, image in enumerate(IMAGES)),
    map_size(1, 6, 19, 3, "rows", taps=3), map_size(1, 18, 20, 3, "diagonals", 2),
)  # fmt: skip


def map_inputs(rng, s):
    units, taps = s["units"], s["taps"]
    w = normals(rng, s["sweeps"], taps, units, 4 * units, scale=max(taps * units, 1) ** -0.5)
    z = normals(rng, s["n"], *s["image"], 4 * s["sweeps"] * units)
    return {"z": z, "w": w, "path": _map_lstm._PATHS[s["path"]]}


def map_outputs(s):
    shape, columns = (s["n"], *s["image"]), s["sweeps"] * s["units"]
    found = {"h": columns} | ({"gates": 4 * columns, "cells": columns} if s["kept"] else {})
    return {name: ((*shape, c), np.float32) for name, c in found.items()}


def map_reference(a, s):
    """See reference/recurrent.py."""
    found = dict(zip(("h", "gates", "cells"), recurrent.map_lstm(a["z"], a["w"], s["path"]), strict=True))
    return {name: expected(found[name]) for name in map_outputs(s)}


def map_public(a, s):
    if s["kept"]:
        found = _map_lstm._map_kept(a["z"], a["w"], path=s["path"])
        return dict(zip(("h", "gates", "cells"), found, strict=True))
    return {"h": kernels.map_lstm(a["z"], a["w"], s["path"])}


MAP_BAD = (
    Bad("w", fewer("w"), ValueError, ("four gates of the units of w",)),
    Bad("w", lambda a: np.zeros((2, 3, 5, 20), np.float32), ValueError, ("two taps",)),
    Bad("w", lambda a: np.zeros((3, 2, 5, 20), np.float32), ValueError, ("the sweeps of w",)),
    Bad("w", lambda a: np.zeros((1, 2, 5, 20), np.float32), ValueError, ("the sweeps and units of w",)),
    Bad("path", 2, ValueError, ("from 0 to 1", "2")),
    Bad("w", lambda a: np.zeros((2, 0, 5, 20), np.float32), ValueError, ("two taps",)),
    Bad("h", fewer("h"), ValueError, ("the sweeps and units of w",)),
    Bad("gates", fewer("gates"), ValueError, ("gates",)),
    Bad("cells", fewer("cells", 1), ValueError, ("the shape of h",)),
)

MAP = Case(
    name="recurrent.map_lstm",
    sizes=MAP_SIZES,
    bench=map_size(16, 28, 28, 32, "diagonals", 2),
    inputs=map_inputs,
    outputs=map_outputs,
    reference=map_reference,
    public=map_public,
    optional=frozenset({"gates", "cells"}),
    batch=("z", "h", "gates", "cells"),
    bad=(
        *MAP_BAD,
        Bad("z", fewer("z"), ValueError, ("the gates of w",)),
        Bad("cells", None, ValueError, ("cells to be given",)),
        Bad("gates", None, ValueError, ("gates to be given",)),
        Bad(
            "h",
            lambda a: a["z"].reshape(-1)[: a["h"].size].reshape(a["h"].shape),
            ValueError,
            ("no memory with z",),
        ),
    ),
)


def map_vjp_inputs(rng, s):
    a = map_inputs(rng, s)
    h, gates, cells = (x.value.astype(np.float32) for x in recurrent.map_lstm(a["z"], a["w"], s["path"]))
    return {
        "grad_h": normals(rng, *h.shape),
        "w": a["w"],
        "path": a["path"],
        "h": h,
        "gates": gates,
        "cells": cells,
    }


def map_vjp_outputs(s):
    columns, units = 4 * s["sweeps"] * s["units"], s["units"]
    shapes = {"grad_z": (s["n"], *s["image"], columns), "grad_w": (s["sweeps"], s["taps"], units, 4 * units)}
    return {name: (shape, np.float32) for name, shape in shapes.items()}


def map_vjp_reference(a, s):
    """See reference/recurrent.py."""
    found = recurrent.map_gradients(**{**a, "path": s["path"]})
    return {name: expected(x) for name, x in zip(("grad_z", "grad_w"), found, strict=True)}


MAP_VJP = Case(
    name="recurrent.map_lstm_vjp",
    sizes=MAP_SIZES,
    bench=map_size(16, 28, 28, 32, "diagonals", 2),
    inputs=map_vjp_inputs,
    outputs=map_vjp_outputs,
    reference=map_vjp_reference,
    bad=(
        *MAP_BAD,
        Bad("grad_h", fewer("grad_h"), ValueError, ("the shape of h",)),
        Bad("grad_z", fewer("grad_z"), ValueError, ("the shape of gates",)),
        Bad("grad_w", fewer("grad_w"), ValueError, ("the shape of w",)),
        Bad("grad_w", lambda a: a["w"], ValueError, ("to share no memory with w",)),
    ),
)


# --- one step -------------------------------------------------------------------------------------------------


def cell_inputs(rng, s):
    n, hidden = s["n"], s["hidden"]
    sums = {name: normals(rng, n, 4 * hidden, scale=2) for name in ("input", "state")}
    return {**sums, "before": normals(rng, n, hidden)}


def cell_reference(a, s):
    """The sums are rounded once; see reference/recurrent.py."""
    z = recurrent.exact(a["input"]) + recurrent.exact(a["state"])
    weights = np.zeros((1, s["hidden"], 4 * s["hidden"]))
    found = recurrent.forward({0: z}, weights, *recurrent.sequence(1), None, recurrent.exact(a["before"]))
    return {"h": expected(found.h[0]), "c": expected(found.c[0])}


CELL = Case(
    name="recurrent.lstm_cell",
    sizes=tuple(
        {"n": n, "hidden": h}
        for n, h in ((3, 5), (0, 4), (2, 0), (1, 1), (5, 16), (2, 17), (40, 33), (300, 70))
    ),
    bench={"n": 64, "hidden": 256},
    inputs=cell_inputs,
    outputs=lambda s: dict.fromkeys(("h", "c"), ((s["n"], s["hidden"]), np.float32)),
    reference=cell_reference,
    public=lambda a, s: dict(
        zip(("h", "c"), kernels.lstm_cell(a["input"], a["state"], a["before"]), strict=True)
    ),
    batch=("input", "state", "before", "h", "c"),
    bad=(
        Bad("input", fewer("input"), ValueError, ("four gates of before",)),
        Bad("state", fewer("state", 0), ValueError, ("four gates of before",)),
        Bad("h", fewer("h"), ValueError, ("the shape of before",)),
        Bad("c", fewer("c"), ValueError, ("the shape of before",)),
    ),
)

CASES = (LSTM, VJP, MAP, MAP_VJP, CELL)
