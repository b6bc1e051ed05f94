"""Rows of the conv family."""

import numpy as np
from reference import convolution
from reference.rounding import U

from gencore.kernels import conv as kernels

from .case import Bad, Case, Expected
from .dense import ACTIVATIONS, TRUTH, part_of

MASKS = (None, "A", "B", "rows-A", "rows-B")


def size(n, image, channels, kernel, *, stride=(1, 1), pad=None, out=None, mask=None, groups=1, **variant):
    """`pad` before the image, by default half the kernel; `out` by default the image's size over the stride."""
    pad = tuple(k // 2 for k in kernel) if pad is None else pad
    out = tuple(-(-i // s) for i, s in zip(image, stride, strict=True)) if out is None else out
    return {
        "n": n, "image": image, "channels": channels, "kernel": kernel, "stride": stride, "pad": pad, "out": out,
        "mask": mask, "groups": groups, **variant,
    }  # fmt: skip


def options(s):
    return {
        "stride_h": s["stride"][0], "stride_w": s["stride"][1], "pad_top": s["pad"][0], "pad_left": s["pad"][1],
        "mask": MASKS.index(s["mask"]), "channel_groups": s["groups"],
    }  # fmt: skip


def normals(rng, *shape):
    return rng.normal(0, 1, shape).astype(np.float32)


def images(rng, s):
    return normals(rng, s["n"], *s["image"], s["channels"][0])


def weights(rng, s):
    """NaN where the mask is: kernels must not read it."""
    w = normals(rng, *s["kernel"], *s["channels"])
    w[seen(s) == 0] = np.nan
    return w


def grads(rng, s):
    return normals(rng, s["n"], *s["out"], s["channels"][1])


def seen(s):
    return convolution.visible(s["mask"], *s["kernel"], *s["channels"], s["groups"])


def masked(w, s):
    return np.where(seen(s) > 0, w.astype(np.float64), 0)


def geometry(s):
    return {"stride": s["stride"], "pad": s["pad"]}


def chain(s, axis):
    """Terms of a sum, at most."""
    kh, kw = s["kernel"]
    return kh * kw * s["channels"][axis] + 2


def forward_inputs(rng, s):
    arguments = {"x": images(rng, s), "w": weights(rng, s), **options(s)}
    if s.get("bias"):
        arguments["bias"] = normals(rng, s["channels"][1])
    return arguments | {"activation": ACTIVATIONS.index(s.get("activation", "identity"))}


def forward_reference(a, s):
    """As many roundings as a sum has terms, of the sum of magnitudes; no activation is steeper than 1."""
    x, w, bias = a["x"].astype(np.float64), masked(a["w"], s), a.get("bias", np.zeros(1))
    z = convolution.forward(x, w, s["out"], **geometry(s)) + bias
    magnitude = convolution.forward(np.abs(x), np.abs(w), s["out"], **geometry(s)) + np.abs(bias)
    error, activation = chain(s, 0) * U * magnitude, ACTIVATIONS[a["activation"]]
    value = TRUTH[activation](z)
    if activation not in ("identity", "relu"):
        error = error + 4 * U * (1 + np.abs(value))
    return {"out": Expected(value, error)}


def forward_public(a, s):
    arrays = (a["x"], a["w"], a.get("bias"))
    activation = ACTIVATIONS[a["activation"]]
    if s["mask"] is not None:
        return {"out": kernels.masked_conv2d(*arrays, s["mask"], s["groups"], activation=activation)}
    if s.get("same"):
        return {"out": kernels.conv2d(*arrays, padding="same", activation=activation)}
    if s.get("valid"):
        return {"out": kernels.conv2d(*arrays, stride=s["stride"], padding=s["pad"], activation=activation)}
    return {"out": kernels._conv2d(*arrays, size=s["out"], activation=activation, **options(s))}


def valid(n, image, channels, kernel, *, stride=(1, 1), pad=(0, 0), **variant):
    """The size that conv2d gives with these paddings on both sides."""
    out = tuple((i + 2 * p - k) // s + 1 for i, p, k, s in zip(image, pad, kernel, stride, strict=True))
    return size(n, image, channels, kernel, stride=stride, pad=pad, out=out, valid=True, **variant)


# Channels around 4, 8 and 16 lanes and three vectors of them; images of one pixel and around tiles of 4 and 8; odd and
# even kernels, larger than the image; strides beyond the kernel; paddings that reach the end; colours.
GEOMETRIES = (
    *(size(2, (5, 7), (3, c), (3, 3), same=True) for c in (1, 4, 8, 15, 17, 33, 49)),
    *(size(1, image, (9, 5), (3, 3), same=True) for image in ((1, 1), (1, 9), (9, 1), (4, 8), (3, 17))),
    *(size(2, (6, 5), (8, 6), kernel, same=True) for kernel in ((1, 1), (2, 2), (1, 4), (4, 3), (7, 7), (13, 2))),
    *(valid(2, (9, 11), (2, 7), (3, 4), stride=stride, pad=pad)
      for stride in ((1, 1), (2, 1), (2, 3), (4, 5)) for pad in ((0, 0), (1, 2), (2, 3))),
    *(valid(3, (10, 7), (10, 4), (4, 2), stride=stride, pad=(1, 1)) for stride in ((2, 2), (3, 1))),
    size(2, (6, 6), (4, 9), (3, 3), pad=(0, 2), out=(6, 3)),  # windows that end behind the image, columns in none
    *(size(2, (5, 6), channels, kernel, mask=mask)
      for mask in MASKS[1:] for channels in ((1, 16), (9, 5)) for kernel in ((3, 3), (7, 7), (2, 4), (1, 5), (1, 1))),
    *(size(2, (4, 5), channels, kernel, mask=mask, groups=groups)
      for mask in ("A", "B") for groups, channels in ((3, (3, 6)), (3, (9, 60)), (2, (10, 4)))
      for kernel in ((3, 3), (1, 1), (2, 3))),
    size(20, (6, 5), (9, 12), (3, 3), same=True),  # more images than groups of them
    size(1, (40, 40), (16, 16), (3, 3), same=True), size(3, (28, 28), (1, 32), (7, 7), mask="A"),  # several tasks
    size(0, (3, 3), (2, 2), (3, 3), same=True), size(1, (0, 3), (2, 2), (3, 3), same=True),
    size(1, (3, 3), (0, 2), (3, 3), same=True), size(1, (3, 3), (2, 0), (3, 3), same=True),
)  # fmt: skip

GEOMETRY_BAD = (
    Bad("stride_h", 0, ValueError, ("at least 1",)),
    Bad("stride_w", -1, ValueError, ("at least 1",)),
    Bad("pad_top", 3, ValueError, ("0", "2")),
    Bad("pad_left", -1, ValueError, ("0", "2")),
    Bad("mask", 5, ValueError, ("0 .. 4", "5")),
    Bad("channel_groups", 0, ValueError, ("at least 1",)),
    Bad("channel_groups", 2, ValueError, ("type A or B",)),
)

CONV2D = Case(
    name="conv.conv2d",
    sizes=(
        size(2, (5, 7), (3, 4), (3, 3), same=True, bias=True, activation="tanh"),
        *GEOMETRIES,
        *(size(2, (5, 9), (3, 18), (3, 3), mask="B", bias=bias, activation=name)
          for name in ACTIVATIONS for bias in (True, False)),
    ),
    bench=size(16, (28, 28), (32, 32), (3, 3), mask="B", bias=True, activation="relu"),
    inputs=forward_inputs,
    outputs=lambda s: {"out": ((s["n"], *s["out"], s["channels"][1]), np.float32)},
    reference=forward_reference,
    public=forward_public,
    optional=frozenset({"bias"}),
    batch=("x", "out"),
    bad=(
        Bad("x", lambda a: a["x"][..., :-1].copy(), ValueError, ("the channels of x",)),
        Bad("w", lambda a: a["w"][..., :-1].copy(), ValueError, ("output channels of w",)),
        Bad("x", lambda a: a["x"].astype(np.float64), TypeError, ("float32", "float64")),
        Bad("x", lambda a: a["x"][0], ValueError, ("4 dimensions", "(5, 7, 3)")),
        Bad("bias", lambda a: a["bias"][1:], ValueError, ("the output channels of w",)),
        Bad("out", lambda a: a["out"][:1].copy(), ValueError, ("the images of x",)),
        Bad("out", lambda a: np.empty((2, 7, 7, 4), np.float32), ValueError, ("windows meet x (5 rows)", "7 rows")),
        Bad("x", lambda a: part_of(a, "out", "x"), ValueError, ("out to share no memory with x", "overlap")),
        Bad("activation", 5, ValueError, ("0 .. 4", "5")),
        *GEOMETRY_BAD,
    ),
)  # fmt: skip


def input_inputs(rng, s):
    return {"grad": grads(rng, s), "w": weights(rng, s), **options(s)}


def input_reference(a, s):
    """As many roundings as a sum has terms; sums of few channels have a chain for each tap."""
    grad, w = a["grad"].astype(np.float64), masked(a["w"], s)
    value = convolution.for_input(grad, w, s["image"], **geometry(s))
    magnitude = convolution.for_input(np.abs(grad), np.abs(w), s["image"], **geometry(s))
    return {"out": Expected(value, chain(s, 1) * U * magnitude)}


INPUT = Case(
    name="conv.conv2d_input",
    sizes=GEOMETRIES,
    bench=size(16, (28, 28), (32, 32), (3, 3), mask="B"),
    inputs=input_inputs,
    outputs=lambda s: {"out": ((s["n"], *s["image"], s["channels"][0]), np.float32)},
    reference=input_reference,
    batch=("grad", "out"),
    bad=(
        Bad("grad", lambda a: a["grad"][:1].copy(), ValueError, ("the images of grad",)),
        Bad("w", lambda a: a["w"][:, :, :-1].copy(), ValueError, ("the input channels of w",)),
        Bad("w", lambda a: np.zeros((3, 3, 3, 2), np.float32), ValueError, ("the channels of grad",)),
        Bad("grad", lambda a: np.empty((2, 7, 7, 1), np.float32), ValueError, ("windows meet out (5 rows)", "7 rows")),
        *GEOMETRY_BAD,
    ),
)  # fmt: skip


def weight_inputs(rng, s):
    return {"x": images(rng, s), "grad": grads(rng, s), **options(s)}


def weight_reference(a, s):
    """A chain over the pixels of an image, sums of images and of groups of them; 0 where the mask is."""
    x, grad = a["x"].astype(np.float64), a["grad"].astype(np.float64)
    value = convolution.for_weight(x, grad, s["kernel"], **geometry(s)) * seen(s)
    magnitude = convolution.for_weight(np.abs(x), np.abs(grad), s["kernel"], **geometry(s)) * seen(s)
    roundings = s["out"][0] * s["out"][1] + s["n"] + 2
    return {"out": Expected(value, roundings * U * magnitude)}


WEIGHT = Case(
    name="conv.conv2d_weight",
    sizes=GEOMETRIES,
    bench=size(16, (28, 28), (32, 32), (3, 3), mask="B"),
    inputs=weight_inputs,
    outputs=lambda s: {"out": ((*s["kernel"], *s["channels"]), np.float32)},
    reference=weight_reference,
    bad=(
        Bad("x", lambda a: a["x"][:1].copy(), ValueError, ("the images of x",)),
        Bad(
            "out",
            lambda a: np.empty((3, 3, 2, 1), np.float32),
            ValueError,
            ("the channels of x and of grad",),
        ),
        *GEOMETRY_BAD,
    ),
)

CASES = (CONV2D, INPUT, WEIGHT)
