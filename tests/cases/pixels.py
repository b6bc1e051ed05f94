"""Rows of the pixel sampler: stacks of masked convolutions, drawn pixel by pixel."""

import numpy as np
from reference import convolution, mixture, philox
from reference.rounding import U
from reference.sampling import TieError
from scipy.special import logsumexp

from gencore.kernels import conv as kernels

from .case import Bad, Case, Expected
from .dense import ACTIVATIONS, SLOPE, TRUTH
from .sample import COUNTERS_BAD

MASKS = (None, "A", "B", "rows-A", "rows-B")
KINDS = ("conv", "add", "relu", "gate")
FIELDS = ("kind", "src", "src2", "dst", "kh", "kw", "c_in", "c_out", "mask", "activation", "weight", "bias")
TABLE = frozenset({"layers"})
PIXEL_HEAD = 23
MARGIN = 1e-5  # of a uniform to the border of what it draws; activations of a few dozen terms stray by 1e-6


def size(n, image, stack, *, levels=2, groups=1, given=None, **variant):
    return {
        "n": n, "image": image, "stack": stack, "levels": levels, "groups": groups, "given": given,
        "temperature": 1.0, **variant,
    }  # fmt: skip


def convolution_layer(src, kernel, channels, mask, activation="identity", bias=True):
    return ("conv", src, 0, kernel, channels, mask, activation, bias)


def small(colours, logits):
    """First layer, a residual block, logits."""
    h = 2 * colours
    return (
        convolution_layer(0, (3, 3), (colours, 2 * h), "A"),
        ("relu", 1, 0),
        convolution_layer(2, (1, 1), (2 * h, h), "B", "relu"),
        convolution_layer(3, (3, 3), (h, h), "B", "tanh"),
        convolution_layer(4, (1, 1), (h, 2 * h), "B", bias=False),
        ("add", 1, 5),
        convolution_layer(6, (1, 1), (2 * h, colours * logits), "B"),
    )


# Rows above by a vertical stack, the row's left by a horizontal one; kernels that reach far beyond small images.
STACKS = (
    convolution_layer(0, (3, 3), (1, 5), "rows-A", "tanh"),
    convolution_layer(1, (5, 3), (5, 5), "rows-B", "tanh"),
    convolution_layer(2, (1, 1), (5, 4), None),
    convolution_layer(0, (1, 5), (1, 4), "A"),
    ("add", 3, 4),
    convolution_layer(5, (1, 3), (4, 17), "B", "logistic"),
    convolution_layer(6, (7, 2), (17, 1), "B"),
)


def gated(colours, logits):
    """Vertical and horizontal stacks with gates, every second bias of classes."""
    h = 3 * colours
    return (
        convolution_layer(0, (5, 5), (colours, 2 * h), "rows-A", bias="classes"),
        ("gate", 1, 0),
        convolution_layer(0, (1, 5), (colours, 2 * h), "A"),
        convolution_layer(1, (1, 1), (2 * h, 2 * h), "rows-B", bias=False),
        ("add", 3, 4),
        ("gate", 5, 0),
        convolution_layer(2, (3, 3), (h, 2 * h), "rows-B", bias="classes"),
        convolution_layer(6, (1, 3), (h, 2 * h), "B"),
        ("add", 7, 8),
        ("gate", 9, 0),
        convolution_layer(10, (1, 1), (h, colours * logits), "B", "identity", bias="classes"),
    )


def channels_of(s, i):
    """Channels that layer i puts out."""
    layer = s["stack"][i]
    if layer[0] == "conv":
        return layer[4][1]
    source = s["image"][2] if layer[1] == 0 else channels_of(s, layer[1] - 1)
    return source // 2 if layer[0] == "gate" else source


def halves(x, groups):
    """The two halves of each colour's features."""
    x = x.reshape(*x.shape[:-1], groups, 2, -1)
    return tuple(x[..., i, :].reshape(*x.shape[:-3], -1) for i in (0, 1))


def joined(a, b, groups):
    """Their inverse."""
    parts = [x.reshape(*x.shape[:-1], groups, 1, -1) for x in (a, b)]
    return np.concatenate(parts, axis=-2).reshape(*a.shape[:-1], -1)


def gate(x, groups):
    a, b = halves(x, groups)
    return np.tanh(a) / (1 + np.exp(-b))


def bias_of(a, f):
    """Of a layer, as it is added to images: of one pixel, or of one image and pixel."""
    if f["bias"] < 0:
        return 0.0
    bias = a["params"][f["bias"]].astype(np.float64)
    return bias if bias.ndim == 1 else bias[a["labels"]][:, None, None, :]


def inputs(rng, s):
    rows, params = [], []
    for i, layer in enumerate(s["stack"]):
        kind, src, src2 = layer[:3]
        c_in = s["image"][2] if src == 0 else channels_of(s, src - 1)
        row = [
            KINDS.index(kind),
            src,
            src2,
            i + 1,
            1,
            1,
            c_in,
            channels_of(s, i),
            0,
            0,
            -1,
            -1,
        ]
        if kind == "conv":
            kernel, channels, mask, activation, bias = layer[3:]
            w = rng.normal(0, 2 / np.sqrt(kernel[0] * channels[0]), (*kernel, *channels)).astype(np.float32)
            row[4:6], row[8], row[9], row[10] = (
                kernel,
                MASKS.index(mask),
                ACTIVATIONS.index(activation),
                len(params),
            )
            params.append(w)
            if bias:
                row[11] = len(params)
                shape = (s["classes"], channels[1]) if bias == "classes" else channels[1]
                params.append(rng.normal(0, 0.5, shape).astype(np.float32))
        rows.append(row)
    arguments = {
        "layers": np.array(rows, np.int64), "params": params, "channel_groups": s["groups"], "levels": s["levels"],
        "temperature": s["temperature"], "key": 11, "step": s.get("step", 0), "first_row": s.get("first_row", 3),
    }  # fmt: skip
    if "classes" in s:
        arguments |= {"n_classes": s["classes"], "labels": rng.integers(0, s["classes"], s["n"])}
    if "mixtures" in s:
        arguments["n_mixtures"] = s["mixtures"]
    if s["given"]:
        shape = (s["n"], *s["image"])
        arguments["given"] = rng.integers(0, s["levels"], shape).astype(np.uint8)
        arguments["keep"] = (rng.random(shape if s["given"] == "each" else (1, *s["image"])) < 0.5).astype(
            np.uint8
        )
    return arguments


def uniforms(a, unit):
    """Of a unit of every row."""
    rows = a["first_row"] + np.arange(a["n"])
    head, tail = (philox.halves(a["key"], PIXEL_HEAD + i, a["step"], rows, unit + 1)[:, unit] for i in (0, 1))
    return (head * 65536.0 + tail + 0.5) * 2.0**-32


def drawn(logits, u):
    """Levels by inversion in float64."""
    if logits.shape[1] == 1:
        p = 1 / (1 + np.exp(-logits[:, 0]))
        if np.any(np.abs(u - p) < MARGIN):
            raise TieError("a uniform is within rounding of its threshold: take another seed")
        return u < p
    mass = np.exp(logits - logits.max(1, keepdims=True))
    running = np.cumsum(mass, 1) / mass.sum(1, keepdims=True)
    if np.any((np.abs(u[:, None] - running) < MARGIN) & (running < 1 - 1e-9)):
        raise TieError("a uniform is within rounding of the border of a level: take another seed")
    return np.sum(running <= u[:, None], 1)


def logits_of(a, s, images):
    """The whole stack on whole images, in float64."""
    maps = [images / (s["levels"] - 1)]
    for row in a["layers"]:
        f = dict(zip(FIELDS, map(int, row), strict=True))
        x = maps[f["src"]]
        if f["kind"] == 0:
            w, mask = a["params"][f["weight"]].astype(np.float64), MASKS[f["mask"]]
            w = np.where(convolution.visible(mask, *w.shape, s["groups"]) > 0, w, 0)
            pad = (f["kh"] // 2, f["kw"] // 2)
            y = convolution.forward(x, w, x.shape[1:3], (1, 1), pad)
            y = TRUTH[ACTIVATIONS[f["activation"]]](y + bias_of(a, f))
        elif f["kind"] == 3:
            y = gate(x, s["groups"])
        else:
            y = x + maps[f["src2"]] if f["kind"] == 1 else np.maximum(x, 0)
        maps.append(y)
    return maps[-1]


def as_logits(last, s, temperature):
    """(n, 1 or levels) of what the last map holds for a colour."""
    if "mixtures" in s:
        levels = np.tile(np.arange(s["levels"]), (len(last), 1))
        last = mixture.log_probs(last, levels, s["levels"], s["mixtures"])
    return last / float(temperature)


def reference(a, s):
    """One pass over the whole image for each pixel and colour, as the definition says."""
    height, width, colours = s["image"]
    each = 3 * s["mixtures"] if "mixtures" in s else 1 if s["levels"] == 2 else s["levels"]
    images = np.zeros((s["n"], height, width, colours))
    for place in range(height * width * colours):
        y, x, c = place // (width * colours), place // colours % width, place % colours
        logits = logits_of(a, s, images)[:, y, x].reshape(s["n"], colours, each)[:, c]
        value = drawn(as_logits(logits, s, a["temperature"]), uniforms({**a, "n": s["n"]}, place))
        if "given" in a:
            value = np.where(
                np.broadcast_to(a["keep"], images.shape)[:, y, x, c], a["given"][:, y, x, c], value
            )
        images[:, y, x, c] = value
    return {"out": Expected(images.astype(np.uint8))}


def public(a, s):
    rest = {k: v for k, v in a.items() if k not in ("layers", "params")}
    return {"out": kernels.pixel_sample(layers_of(a), (s["n"], *s["image"]), **rest)}


def changed(layer, field, value):
    """The table with one number changed."""

    def make(a):
        layers = a["layers"].copy()
        layers[layer, FIELDS.index(field)] = value
        return layers

    return make


def not_finite(k):
    """The parameters, one of them NaN."""
    return lambda a: [p * np.float32(np.nan if i == k else 1) for i, p in enumerate(a["params"])]


SAMPLE = Case(
    name="conv.pixel_sample",
    sizes=(
        size(3, (4, 5, 1), small(1, 1), given="each"),
        *(size(n, (3, 4, 1), small(1, 1)) for n in (1, 4, 7, 8, 9, 17)),
        *(size(2, image, small(1, 1)) for image in ((1, 1, 1), (1, 6, 1), (6, 1, 1), (2, 2, 1))),
        size(5, (4, 4, 1), STACKS, given="one"), size(9, (3, 6, 1), STACKS, temperature=0.7),
        *(size(3, (3, 3, colours), small(colours, 1), groups=colours, given="each") for colours in (2, 3)),
        size(3, (3, 3, 3), small(3, 5), groups=3, levels=5),
        size(2, (3, 3, 1), small(1, 256), levels=256, temperature=1.5),
        size(9, (3, 4, 1), gated(1, 1), classes=3, given="each"),
        size(5, (3, 3, 2), gated(2, 6), groups=2, classes=2, levels=12, mixtures=2),
        size(3, (2, 3, 1), small(1, 30), levels=7, mixtures=10, temperature=0.8),
        size(4, (3, 3, 2), small(2, 1)),  # colours that do not see each other
        size(3, (3, 4, 1), small(1, 1), step=2**32 + 7, first_row=2**32 - 5),
        size(0, (3, 3, 1), small(1, 1)), size(2, (0, 3, 1), small(1, 1)),
    ),
    bench=size(16, (28, 28, 1), small(1, 1)),
    inputs=inputs,
    outputs=lambda s: {"out": ((s["n"], *s["image"]), np.uint8)},
    reference=reference,
    public=public,
    optional=frozenset({"given", "keep", "labels"}),
    host=TABLE,
    batch=("given", "keep", "labels", "out"),
    bad=(
        Bad("layers", lambda a: a["layers"][:, :-1].copy(), ValueError, ("the fields of a layer",)),
        Bad("layers", lambda a: a["layers"][:0].copy(), ValueError, ("the rows of layers",)),
        Bad("layers", changed(0, "mask", 2), ValueError, ("layers[0]'s mask", "not drawn yet")),
        Bad("layers", changed(7, "mask", 4), ValueError, ("layers[7]'s mask", "not drawn yet")),  # rows of a left
        Bad("layers", changed(1, "kind", 7), ValueError, ("layers[1]'s kind",)),
        Bad("layers", changed(1, "src", 5), ValueError, ("layers[1]'s src",)),
        Bad("layers", changed(1, "dst", 1), ValueError, ("layers[1]'s dst",)),
        Bad("layers", changed(2, "c_in", 9), ValueError, ("layers[2]'s c_in",)),
        Bad("layers", changed(3, "kh", 5), ValueError, ("layers[3]'s size of the weight",)),
        Bad("layers", changed(3, "weight", 50), ValueError, ("layers[3]'s weight",)),
        Bad("layers", changed(4, "src2", 2), ValueError, ("layers[4]'s channels of src2",)),
        Bad("params", lambda a: [np.zeros(9), *a["params"][1:]], TypeError, ("params[0]", "float64")),
        Bad("levels", 1, ValueError, ("2", "256")),
        Bad("levels", 3, ValueError, ("the last of layers", "3 channels")),
        Bad("channel_groups", 2, ValueError, ("1 or the colours",)),
        Bad("given", lambda a: np.maximum(a["given"], 7 * a["keep"]), ValueError, ("levels from 0 to 1", "7")),
        Bad("params", not_finite(1), ValueError, ("params[1]", "finite", "nan")),
        Bad("temperature", 0.0, ValueError, ("temperature",)),
        Bad("keep", None, ValueError, ("keep, which goes with given",)),
        Bad("given", None, ValueError, ("given, which keep refers to",)),
        Bad("keep", lambda a: a["keep"][:2].copy(), ValueError, ("the shape of out, or of one of its images",)),
        *COUNTERS_BAD,
    ),
)  # fmt: skip


def draw_inputs(rng, s):
    columns = 3 * s["mixtures"] if "mixtures" in s else s["levels"]
    mixed = {"n_mixtures": s["mixtures"], "levels": s["levels"]} if "mixtures" in s else {}
    logits = rng.normal(0, 1 if mixed else 2, (s["n"], columns)).astype(np.float32)
    return {
        "logits": logits, "unit": s["unit"], **mixed, "temperature": s.get("temperature", 1.0), "key": 5,
        "step": s.get("step", 1), "first_row": s.get("first_row", 2),
    }  # fmt: skip


def draw_reference(a, s):
    logits = as_logits(a["logits"].astype(np.float64), s, a["temperature"])
    return {"out": Expected(drawn(logits, uniforms({**a, "n": s["n"]}, s["unit"])).astype(np.uint8))}


DRAW = Case(
    name="conv.pixel_draw",
    sizes=(
        *({"n": 12, "levels": levels, "unit": unit} for levels in (1, 2, 15, 17, 256) for unit in (0, 127, 300)),
        {"n": 20, "levels": 1, "unit": 5, "temperature": 0.5}, {"n": 0, "levels": 1, "unit": 0},
        {"n": 3, "levels": 7, "unit": 1, "step": 2**40, "first_row": 2**32 - 5},
        *({"n": 11, "levels": levels, "mixtures": k, "unit": 9} for levels, k in ((2, 1), (5, 3), (63, 10), (256, 17))),
        {"n": 30, "levels": 16, "mixtures": 4, "unit": 9, "temperature": 1.7},
    ),
    bench={"n": 1000, "levels": 256, "unit": 3},
    inputs=draw_inputs,
    outputs=lambda s: {"out": ((s["n"],), np.uint8)},
    reference=draw_reference,
    public=lambda a, s: {"out": kernels.pixel_draw(**a)},
    batch=("logits", "out"),
    bad=(
        Bad("logits", lambda a: np.zeros((12, 257), np.float32), ValueError, ("the columns of logits", "257")),
        Bad("unit", -1, ValueError, ("unit", "-1")),
        Bad("n_mixtures", 2, ValueError, ("the columns of logits", "6")),
        Bad("logits", lambda a: a["logits"] * np.float32(np.nan), ValueError, ("finite", "nan")),
        Bad("levels", 257, ValueError, ("levels", "257")),
        Bad("temperature", -1.0, ValueError, ("temperature",)),
        *COUNTERS_BAD,
    ),
)  # fmt: skip

# --- whole images, forward and back ---------------------------------------------------------------------------


def fields(row):
    return dict(zip(FIELDS, map(int, row), strict=True))


class Maps:
    """All maps in float64, and their magnitudes: what they would be if nothing cancelled."""

    def __init__(self, a, s):
        self.a, self.s = a, s
        x = a["x"].astype(np.float64)
        self.value, self.size, self.roundings = [x], [np.abs(x)], 0
        for row in a["layers"]:
            f = fields(row)
            x, size = self.value[f["src"]], self.size[f["src"]]
            if f["kind"] == 0:
                w, pad, bias = self.weight(f), (f["kh"] // 2, f["kw"] // 2), bias_of(a, f)
                z = convolution.forward(x, w, x.shape[1:3], (1, 1), pad) + bias
                y = TRUTH[ACTIVATIONS[f["activation"]]](z)
                # No activation is steeper than 1; errs by 4 roundings of its value, or of 1.
                size = convolution.forward(size, np.abs(w), x.shape[1:3], (1, 1), pad) + np.abs(bias) + 1
                self.roundings += f["kh"] * f["kw"] * f["c_in"] + 6
            elif f["kind"] == 1:
                y, size = x + self.value[f["src2"]], size + self.size[f["src2"]]
                self.roundings += 1
            elif f["kind"] == 3:
                y, size = gate(x, s["groups"]), sum(halves(size, s["groups"])) + 1
                self.roundings += 8
            else:
                y = np.maximum(x, 0)
            self.value.append(y)
            self.size.append(size)

    def weight(self, f):
        w = self.a["params"][f["weight"]].astype(np.float64)
        return np.where(convolution.visible(MASKS[f["mask"]], *w.shape, self.s["groups"]) > 0, w, 0)

    def gradients(self, grad, magnitudes):
        """Of the parameters; of magnitudes where that is asked for, with slopes of 1."""
        maps = self.size if magnitudes else self.value
        of_maps, found = {len(maps) - 1: np.abs(grad) if magnitudes else grad}, {}
        for i in reversed(range(len(maps) - 1)):
            if i + 1 not in of_maps:
                continue
            f, g = fields(self.a["layers"][i]), of_maps[i + 1]
            parts = {f["src"]: g}
            if f["kind"] == 0:
                w, pad = self.weight(f), (f["kh"] // 2, f["kw"] // 2)
                dz = g if magnitudes else g * SLOPE[ACTIVATIONS[f["activation"]]](maps[i + 1])
                seen = convolution.visible(MASKS[f["mask"]], *w.shape, self.s["groups"])
                found[f["weight"]] = (
                    convolution.for_weight(maps[f["src"]], dz, w.shape[:2], (1, 1), pad) * seen
                )
                found[f["bias"]] = self.of_bias(f, dz)
                w = np.abs(w) if magnitudes else w
                parts = {f["src"]: convolution.for_input(dz, w, dz.shape[1:3], (1, 1), pad)}
            elif f["kind"] == 1:
                parts[f["src2"]] = g + (g if f["src"] == f["src2"] else 0)
            elif f["kind"] == 3:
                parts = {f["src"]: self.through_gate(maps[f["src"]], g, magnitudes)}
            else:
                parts = {f["src"]: g if magnitudes else g * (maps[i + 1] > 0)}
            for m, part in parts.items():
                of_maps[m] = of_maps.get(m, 0) + part
        return found

    def of_bias(self, f, dz):
        sums = dz.sum((1, 2))
        if f["bias"] < 0 or self.a["params"][f["bias"]].ndim == 1:
            return sums.sum(0)
        return np.array([sums[self.a["labels"] == c].sum(0) for c in range(self.s["classes"])])

    def through_gate(self, x, g, magnitudes):
        groups = self.s["groups"]
        if magnitudes:
            return joined(g, g, groups)
        a, b = halves(x, groups)
        s = 1 / (1 + np.exp(-b))
        return joined(g * s / np.cosh(a) ** 2, g * np.tanh(a) * s * (1 - s), groups)


def whole_inputs(rng, s):
    a = inputs(rng, {**s, "given": None})
    return {
        **{k: a[k] for k in ("layers", "params", "channel_groups", "labels", "n_classes") if k in a},
        "x": rng.normal(0, 1, (s["n"], *s["image"])).astype(np.float32),
    }  # fmt: skip


def whole_shape(s):
    return (s["n"], *s["image"][:2], channels_of(s, len(s["stack"]) - 1))


def forward_reference(a, s):
    """A map's error reaches the next by the magnitudes of the weights; each layer adds the roundings of its sums."""
    maps = Maps(a, s)
    return {"out": Expected(maps.value[-1], maps.roundings * U * maps.size[-1])}


def layers_of(a):
    layers = []
    for f in map(fields, a["layers"]):
        w = a["params"][f["weight"]] if f["kind"] == 0 else None
        bias = a["params"][f["bias"]] if f["bias"] >= 0 else None
        kind, activation = KINDS[f["kind"]], ACTIVATIONS[f["activation"]]
        layers.append(kernels.PixelLayer(kind, f["src"], f["src2"], w, bias, MASKS[f["mask"]], activation))
    return layers


UNMASKED = (
    convolution_layer(0, (1, 1), (3, 5), None, "softplus"),
    convolution_layer(0, (3, 3), (3, 5), "B", "logistic", bias=False),
    ("add", 1, 2),
    ("add", 3, 3),  # twice itself
    ("relu", 0, 0),  # which nothing reads
    convolution_layer(4, (2, 4), (5, 18), "rows-B", "tanh"),
    convolution_layer(6, (1, 1), (18, 3), None),
)
WHOLE = (
    *(size(n, (5, 4, 1), small(1, 1)) for n in (1, 3, 17, 40)),
    *(size(3, (4, 6, colours), small(colours, 2), groups=colours) for colours in (1, 3)),
    size(7, (4, 5, 1), gated(1, 2), classes=3), size(3, (3, 4, 3), gated(3, 1), groups=3, classes=1),
    size(2, (4, 5, 1), STACKS), size(3, (5, 3, 3), UNMASKED), size(2, (1, 1, 1), small(1, 1)),
    size(0, (3, 3, 1), small(1, 1)), size(2, (0, 3, 1), small(1, 1)),
)  # fmt: skip


def settings(a):
    return {k: a[k] for k in ("channel_groups", "labels", "n_classes") if k in a}


def forward_inputs(rng, s):
    return {**whole_inputs(rng, s), "causal": s["stack"] != UNMASKED}


FORWARD = Case(
    name="conv.stack_forward",
    sizes=WHOLE,
    bench=size(16, (28, 28, 1), small(1, 1)),
    inputs=forward_inputs,
    outputs=lambda s: {"out": (whole_shape(s), np.float32)},
    reference=forward_reference,
    public=lambda a, s: {"out": kernels.pixel_stack(a["x"], layers_of(a), **settings(a))},
    batch=("x", "labels", "out"),
    optional=frozenset({"labels"}),
    host=TABLE,
    bad=(
        Bad("layers", changed(0, "mask", 2), ValueError, ("layers[0]'s mask", "not drawn yet")),
        Bad("channel_groups", 0, ValueError, ("at least 1", "0")),
        Bad("channel_groups", -1, ValueError, ("at least 1", "-1")),
        Bad("n_classes", -1, ValueError, ("-1",)),
        Bad("n_classes", 0, ValueError, ("at least 1 with labels",)),
        Bad("labels", lambda a: a["labels"][1:].copy(), ValueError, ("the images",)),
        Bad("labels", lambda a: a["labels"] + 3, ValueError, ("labels[0]", "from 0 to 2")),
        Bad("layers", changed(1, "kind", 7), ValueError, ("layers[1]'s kind",)),
        Bad("layers", changed(1, "src", 5), ValueError, ("layers[1]'s src",)),
        Bad("x", lambda a: a["x"][..., :0].copy(), ValueError, ("0",)),
        Bad("out", lambda a: a["out"][:0].copy(), ValueError, ("the images of x",)),
    ),
)


def vjp_reference(a, s):
    """As forward, there and back: an error of a map is one of a slope, twice as large at most, and of a product."""
    maps = Maps(a, s)
    grad = a["grad"].astype(np.float64)
    exact, magnitude = maps.gradients(grad, False), maps.gradients(grad, True)
    pixels = s["image"][0] * s["image"][1] + s["n"]
    largest = max(float(m.max(initial=0)) for m in maps.size)
    roundings = (4 * maps.roundings + pixels) * U * (1 + largest)
    return {
        f"grads[{k}]": Expected(
            exact.get(k, np.zeros(p.shape)), roundings * magnitude.get(k, np.zeros(p.shape))
        )
        for k, p in enumerate(a["params"])
    }


def vjp_inputs(rng, s):
    a = whole_inputs(rng, s)
    a["grad"] = rng.normal(0, 1, whole_shape(s)).astype(np.float32)
    a["grads"] = [np.full(p.shape, 7, np.float32) for p in a["params"]]
    return a


VJP = Case(
    name="conv.stack_vjp",
    sizes=WHOLE,
    bench=size(16, (28, 28, 1), small(1, 1)),
    inputs=vjp_inputs,
    outputs=lambda s: {},
    reference=vjp_reference,
    in_place=("grads",),
    host=TABLE,
    bad=(
        Bad("channel_groups", 0, ValueError, ("at least 1", "0")),
        Bad("grad", lambda a: a["grad"][:0].copy(), ValueError, ("the images of x",)),
        Bad("grads", lambda a: a["grads"][1:], ValueError, ("params",)),
        Bad("layers", changed(1, "dst", 1), ValueError, ("layers[1]'s dst",)),
    ),
)


def log_prob_inputs(rng, s):
    a = whole_inputs(rng, s)
    del a["x"]
    return {
        **a, "images": rng.integers(0, s["levels"], (s["n"], *s["image"])).astype(np.uint8), "levels": s["levels"],
        "grad": rng.normal(0, 1, s["n"]).astype(np.float32), "n_mixtures": s.get("mixtures", 0),
        "grads": [np.full(p.shape, 7, np.float32) for p in a["params"]],
    }  # fmt: skip


def log_prob_reference(a, s):
    """Logits err as forward's; a log-probability's slope for them is at most 1, and so is the slope's own for a logit.

    Gradients as `vjp_reference` has them, of slopes whose errors are those of the logits.
    """
    maps = Maps({**a, "x": a["images"] / (s["levels"] - 1)}, s)
    each = 1 if s["levels"] == 2 else s["levels"]
    units = int(np.prod(s["image"]))
    logits, x = maps.value[-1].reshape(s["n"], units, each), a["images"].reshape(s["n"], units)
    if each == 1:
        log_p = -np.logaddexp(0, np.where(x == 1, -1, 1) * logits[..., 0])
        slope = (x - 1 / (1 + np.exp(-logits[..., 0])))[..., None]
    else:
        log_all = logits - logsumexp(logits, axis=-1, keepdims=True)
        log_p = np.take_along_axis(log_all, x[..., None].astype(int), -1)[..., 0]
        slope = (x[..., None] == np.arange(each)) - np.exp(log_all)
    grad = (slope * a["grad"].astype(np.float64)[:, None, None]).reshape(maps.value[-1].shape)
    size = np.broadcast_to(np.abs(a["grad"])[:, None, None, None], grad.shape).astype(np.float64)
    exact, magnitude = maps.gradients(grad, False), maps.gradients(size, True)
    pixels = s["image"][0] * s["image"][1] + s["n"]
    largest = max(float(m.max(initial=0)) for m in maps.size)
    roundings = (4 * maps.roundings + pixels + 8) * U * (1 + largest)
    error = 2 * maps.roundings * U * maps.size[-1].sum((1, 2, 3)) + 8 * U * np.abs(log_p).sum(1)
    return {"out": Expected(log_p.sum(1), error + 4 * U * np.abs(log_p.sum(1)))} | {
        f"grads[{k}]": Expected(
            exact.get(k, np.zeros(p.shape)), roundings * magnitude.get(k, np.zeros(p.shape))
        )
        for k, p in enumerate(a["params"])
    }


LOG_PROB_VJP = Case(
    name="conv.stack_log_prob_vjp",
    sizes=(
        *(size(n, (5, 4, 1), small(1, 1)) for n in (1, 3, 17, 40)),
        size(3, (4, 6, 3), small(3, 1), groups=3), size(5, (4, 5, 1), STACKS),
        size(4, (5, 3, 1), small(1, 5), levels=5),
        size(7, (4, 5, 1), gated(1, 1), classes=3), size(3, (3, 4, 3), gated(3, 4), groups=3, classes=1, levels=4),
        size(2, (1, 1, 1), small(1, 1)), size(0, (3, 3, 1), small(1, 1)), size(2, (0, 3, 1), small(1, 1)),
    ),
    bench=size(16, (28, 28, 1), small(1, 1)),
    inputs=log_prob_inputs,
    outputs=lambda s: {"out": ((s["n"],), np.float32)},
    reference=log_prob_reference,
    in_place=("grads",),
    optional=frozenset({"labels"}),
    host=TABLE,
    bad=(
        Bad("channel_groups", 0, ValueError, ("at least 1", "0")),
        Bad("layers", changed(0, "mask", 2), ValueError, ("layers[0]'s mask", "not drawn yet")),
        Bad("grad", lambda a: a["grad"][:0].copy(), ValueError, ("the images",)),
        Bad("grads", lambda a: a["grads"][1:], ValueError, ("params",)),
        Bad("levels", 1, ValueError, ("2", "256")),
        Bad("levels", 3, ValueError, ("the last of layers",)),
        Bad("n_mixtures", 2, ValueError, ("the last of layers",)),
        Bad("images", lambda a: a["images"] + np.uint8(9), ValueError, ("levels from 0 to",)),
        Bad("labels", lambda a: a["labels"] + 3, ValueError, ("labels[0]",)),
    ),
)  # fmt: skip

CASES = (SAMPLE, DRAW, FORWARD, VJP, LOG_PROB_VJP)
