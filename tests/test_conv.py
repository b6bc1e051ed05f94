"""Convolutions beyond their rows of the grid: gradients through the tape, receptive fields, wrong calls."""

import re

import numpy as np
import pytest
from cases.dense import ACTIVATIONS, TRUTH
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import convolution
from reference.differences import curvature, slope
from reference.rounding import U

import gencore as gc
from gencore.kernels import conv


def float32(rng, *shape):
    return rng.normal(0, 1, shape).astype(np.float32)


# --- gradients ----------------------------------------------------------------------------------------------


LAYERS = {
    "plain": lambda x, w, b: lambda m: m.conv2d(x, w, b, padding="same", activation="tanh"),
    "strided": lambda x, w, b: (
        lambda m: m.conv2d(x, w, b, stride=(2, 3), padding=(1, 2), activation="softplus")
    ),
    "A": lambda x, w, b: lambda m: m.masked_conv2d(x, w, b, "A", activation="logistic"),
    "B": lambda x, w, b: lambda m: m.masked_conv2d(x, w, b, "B", activation="tanh"),
    "B, colours": lambda x, w, b: lambda m: m.masked_conv2d(x, w, b, "B", 2, activation="tanh"),
    "rows": lambda x, w, b: lambda m: m.masked_conv2d(x, w, b, "rows-A", activation="tanh"),
    "transposed": lambda x, w, b: (
        lambda m: m.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1)
    ),
}


class Reference:
    """The functions of `gencore.kernels.conv` in float64."""

    @staticmethod
    def conv2d(x, w, b, stride=(1, 1), padding="same", activation="identity"):
        if padding == "same":
            size, padding = x.shape[1:3], tuple(k // 2 for k in w.shape[:2])
        else:
            pads = zip(x.shape[1:3], padding, w.shape[:2], stride, strict=True)
            size = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in pads)
        return TRUTH[activation](convolution.forward(x, w, size, stride, padding) + b)

    @staticmethod
    def masked_conv2d(x, w, b, mask, groups=1, activation="identity"):
        return Reference.conv2d(x, w * convolution.visible(mask, *w.shape, groups), b, activation=activation)

    @staticmethod
    def conv_transpose2d(x, w, b, stride, padding, output_padding):
        size = tuple(
            (n - 1) * stride - 2 * padding + k + output_padding
            for n, k in zip(x.shape[1:3], w.shape[:2], strict=True)
        )
        return convolution.for_input(x, w, size, (stride, stride), (padding, padding)) + b


@pytest.mark.parametrize("name", LAYERS)
def test_first_and_second_derivatives(name):
    """Along random directions; as many roundings as sums have terms, and 50 of element by element."""
    rng = np.random.default_rng(len(name))
    channels = (4, 6)
    x, w, b = float32(rng, 2, 4, 5, 4), float32(rng, 3, 3, *channels) / 3, float32(rng, 6)
    if name == "transposed":
        w, b = float32(rng, 3, 3, 6, 4) / 3, float32(rng, 6)
    layer = LAYERS[name]
    out = layer(x, w, b)(conv)
    c = float32(rng, *out.shape)

    def loss(y):
        return np.sum(c * y + 0.5 * y * y)

    def f(x, w, b):
        return float(loss(layer(x, w, b)(Reference)))

    arrays = [a.astype(np.float64) for a in (x, w, b)]
    d, e = ([float32(rng, *a.shape) for a in arrays] for _ in "de")
    leaves = [gc.tensor(a, requires_grad=True) for a in (x, w, b)]
    first = gc.grad(loss(layer(*leaves)(conv)), leaves, create_graph=True)
    along = sum(np.sum(g * v) for g, v in zip(first, d, strict=True))
    second = gc.grad(along, leaves)
    magnitude = sum(float(np.sum(np.abs(g.numpy() * v))) for g, v in zip(first, d, strict=True))
    terms = 9 * 6 + out[0, :, :, 0].size + 50
    assert abs(float(along.numpy()) - slope(f, arrays, d)) <= terms * U * magnitude
    found = sum(float(np.sum(h.numpy().astype(np.float64) * v)) for h, v in zip(second, e, strict=True))
    scale = sum(float(np.sum(np.abs(h.numpy() * v))) for h, v in zip(second, e, strict=True))
    expected = curvature(f, arrays, d, e)
    assert abs(expected) > 1e-3 * scale
    assert abs(found - expected) <= 4 * terms * U * scale + 1e-7 * abs(expected)


def test_masked_taps_have_gradient_0_and_nan_in_them_reaches_nothing():
    rng = np.random.default_rng(3)
    w = float32(rng, 3, 3, 2, 4)
    hidden = convolution.visible("A", 3, 3, 2, 4, 2) == 0
    w[hidden] = np.nan
    x, w = gc.tensor(float32(rng, 2, 5, 5, 2), requires_grad=True), gc.tensor(w, requires_grad=True)
    y = conv.masked_conv2d(x, w, None, "A", 2)
    y.sum().backward()
    assert np.isfinite(y.numpy()).all()
    assert np.isfinite(x.grad.numpy()).all()
    assert np.array_equal(w.grad.numpy() == 0, hidden)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_of_the_bias_alone(activation):
    rng = np.random.default_rng(4)
    x, w = float32(rng, 2, 4, 4, 3), float32(rng, 3, 3, 3, 5)
    b = gc.tensor(float32(rng, 5), requires_grad=True)
    y = conv.conv2d(x, w, b, padding=1, activation=activation)
    y.sum().backward()
    z = convolution.forward(x.astype(float), w.astype(float), (4, 4), (1, 1), (1, 1)) + b.numpy()
    h = 1e-6
    exact = ((TRUTH[activation](z + h) - TRUTH[activation](z - h)) / (2 * h)).sum((0, 1, 2))
    np.testing.assert_allclose(b.grad.numpy(), exact, rtol=1e-4, atol=1e-4)


# --- receptive fields ---------------------------------------------------------------------------------------


def field(layers, shape, pixel, channel):
    """Where an output's gradient does not vanish: (h, w, c) bool."""
    x = gc.tensor(np.zeros((1, *shape), np.float32), requires_grad=True)
    y = x
    for layer in layers:
        y = layer(y)
    y[0, pixel[0], pixel[1], channel].backward()
    return x.grad.numpy()[0] != 0


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 2), (4, 3), (3, 4)])
@pytest.mark.parametrize("groups", [1, 3])
def test_no_later_pixel_or_colour_is_seen_and_all_near_earlier_ones_are(kernel, groups):
    """A then B: raster order of pixels, order of colours; positive weights, so that nothing cancels."""
    rng = np.random.default_rng(5)
    h, w, colours = 6, 7, groups
    first = (0.1 + rng.random((*kernel, colours, 2 * groups))).astype(np.float32)
    second = (0.1 + rng.random((*kernel, 2 * groups, colours))).astype(np.float32)
    layers = [
        lambda x: conv.masked_conv2d(x, first, None, "A", groups),
        lambda x: conv.masked_conv2d(x, second, None, "B", groups),
    ]
    place = np.arange(h * w * colours).reshape(h, w, colours)  # in the order of generation
    for pixel in ((0, 0), (2, 3), (5, 6), (3, 0)):
        for colour in range(colours):
            seen = field(layers, (h, w, colours), pixel, colour)
            now = place[(*pixel, colour)]
            assert not seen[place >= now].any(), "a later pixel or colour leaks"
            left = pixel[1] > 0
            if left:
                assert seen[pixel[0], pixel[1] - 1].all()
            if pixel[0] > 0:
                assert seen[pixel[0] - 1, pixel[1]].all()
            assert seen[pixel][:colour].all()


def test_vertical_and_horizontal_stacks_see_all_rows_above_and_all_that_is_left():
    rng = np.random.default_rng(6)
    down = [(0.1 + rng.random((3, 3, 1, 1))).astype(np.float32) for _ in range(6)]
    across = (0.1 + rng.random((1, 3, 1, 1))).astype(np.float32)

    def both(x):
        v = conv.masked_conv2d(x, down[0], None, "rows-A")
        h = conv.masked_conv2d(x, across, None, "A") + v
        for w in down[1:]:
            v = conv.masked_conv2d(v, w, None, "rows-B")
            h = conv.masked_conv2d(h, across, None, "B") + v
        return h

    seen = field([both], (6, 6, 1), (3, 2), 0)[:, :, 0]
    assert seen[:3].all(), "no blind spot"
    assert seen[3].tolist() == [True, True, False, False, False, False]
    assert not seen[4:].any()


# --- shapes -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_geometry(data):
    """Forward and both gradients against float64."""
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    pad = tuple(data.draw(st.integers(0, k - 1)) for k in kernel)
    stride = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    image = tuple(data.draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, pad, strict=True))
    channels = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, w = (
        gc.tensor(float32(rng, *shape), requires_grad=True)
        for shape in ((2, *image, channels[0]), (*kernel, *channels))
    )
    y = conv.conv2d(x, w, stride=stride, padding=pad)
    g = float32(rng, *y.shape)
    y.backward(g)
    x64, w64, g64 = (a.astype(np.float64) for a in (x.numpy(), w.numpy(), g))
    for found, function, args in (
        (y, convolution.forward, (x64, w64, y.shape[1:3])),
        (x.grad, convolution.for_input, (g64, w64, image)),
        (w.grad, convolution.for_weight, (x64, g64, kernel)),
    ):
        exact = function(*args, stride, pad)
        magnitude = function(*(np.abs(a) for a in args[:2]), args[2], stride, pad)
        terms = kernel[0] * kernel[1] * max(channels) + 2 * y.shape[1] * y.shape[2] + 4
        assert np.all(np.abs(found.numpy() - exact) <= terms * U * magnitude)


def test_transposed_convolution_undoes_the_shape_of_a_convolution():
    for size in range(6, 10):
        for stride, padding, kernel in ((1, 0, 3), (2, 1, 3), (3, 2, 4), (2, 0, 2)):
            x, w = np.zeros((1, size, size, 2), np.float32), np.zeros((kernel, kernel, 2, 3), np.float32)
            y = conv.conv2d(x, w, stride=stride, padding=padding)
            rest = (size + 2 * padding - kernel) % stride
            back = conv.conv_transpose2d(y, w, stride=stride, padding=padding, output_padding=rest)
            assert back.shape == x.shape


X, W = np.zeros((2, 5, 6, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32)
BACK, ONES = (
    np.zeros((3, 3, 4, 3), np.float32),
    np.ones(4, np.float32),
)  # a transposed kernel, a bias of the result


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: conv.conv2d(X[0], W), "conv.conv2d: expected x of shape (N, H, W, C), received shape (5, 6, 3)"),
        (lambda: conv.conv2d(X, W[0]), "expected weight of shape (kh, kw, C_in, C_out), received shape (3, 3, 4)"),
        (lambda: conv.conv2d([1], W), "received list"),
        (lambda: conv.conv2d(X, W, stride=0), "expected stride to be an integer of at least 1, or two, received 0"),
        (lambda: conv.conv2d(X, W, stride=(1, 2, 3)), "received (1, 2, 3)"),
        (lambda: conv.conv2d(X, W, stride=2, padding="same"), "expected padding to be numbers with a stride"),
        (lambda: conv.conv2d(X, W, padding=3), "expected padding below the kernel's size (3, 3), received (3, 3)"),
        (lambda: conv.conv2d(X[:, :2], W), "expected x of at least the kernel's size (3, 3)"),
        (lambda: conv.conv2d(X, W, activation="swish"), "expected activation to be one of identity, logistic"),
        (lambda: conv.masked_conv2d(X, W, None, "C"), "masked_conv2d: expected mask to be 'A', 'B', 'rows-A'"),
        (lambda: conv.masked_conv2d(X, W, None, "B", 3), "the output channels of w"),
        (lambda: conv.masked_conv2d(X, W[:, :, :2].copy()), "masked_conv2d: expected weight of shape (3, 3, 3, 4)"),
        (lambda: conv.masked_conv2d(X, W, None, ["A"]), "masked_conv2d: expected mask to be 'A', 'B', 'rows-A'"),
        (lambda: conv.conv2d(X, W, activation=["relu"]), "conv.conv2d: expected activation to be one of identity"),
        (lambda: conv.conv2d(X, W[:1, :1].copy(), ONES[:3]),
         "conv.conv2d: expected bias of shape (4,), the columns of weight, received (3,)"),
        (lambda: conv.conv_transpose2d(X, BACK, stride=2, output_padding=2),
         "conv_transpose2d: expected output_padding below stride (2, 2), received (2, 2)"),
        (lambda: conv.conv_transpose2d(X, BACK, padding=3),
         "conv.conv_transpose2d: expected padding below the kernel's size (3, 3), received (3, 3)"),
        (lambda: conv.conv_transpose2d(X, W),
         "conv.conv_transpose2d: expected weight of shape (3, 3, 3, 3), the channels of x, received (3, 3, 3, 4)"),
        *((lambda bias=bias: conv.conv_transpose2d(X, BACK, bias),
           f"conv.conv_transpose2d: expected bias of shape (4,), received {received}")
          for bias, received in ((1.0, "float"), (ONES.tolist(), "list"), (ONES[:1], "shape (1,)"),
                                 (np.ones((2, 1, 1, 1, 4), np.float32), "shape (2, 1, 1, 1, 4)"))),
    ],
)  # fmt: skip
def test_wrong_calls_name_the_argument(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_float64_images_are_refused():
    with pytest.raises(TypeError, match=r"masked_conv2d: expected x of dtype float32 .*received float64"):
        conv.masked_conv2d(X.astype(float), W)
    with pytest.raises(TypeError, match=r"conv2d: expected weight to be contiguous in C order"):
        conv.conv2d(X, np.asfortranarray(W))


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float64])
def test_kernels_of_one_pixel_take_what_others_take(dtype):
    for weight in (W, W[:1, :1].copy()):
        with pytest.raises(TypeError, match=r"conv\.conv2d: expected x of dtype .*float32"):
            conv.conv2d(X.astype(dtype), weight)


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_arrays_of_a_transposed_convolution_are_float32(dtype):
    good = {"x": X, "weight": BACK, "bias": ONES}
    for name, array in good.items():
        with pytest.raises(TypeError, match=rf"conv\.conv_transpose2d: expected {name} of dtype float32"):
            conv.conv_transpose2d(**{**good, name: array.astype(dtype)})


@pytest.mark.parametrize("mask", ["A", "B"])
def test_torch_agrees(mask, torch):
    """Up to the rounding of 80 terms, 6 sqrt(80) U of their magnitudes."""
    rng = np.random.default_rng(8)
    x, w, b = float32(rng, 3, 9, 8, 5), float32(rng, 5, 5, 5, 7), float32(rng, 7)
    seen = convolution.visible(mask, *w.shape)
    y = conv.masked_conv2d(x, w, b, mask)
    theirs = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor((w * seen).transpose(3, 2, 0, 1).astype(np.float32)),
        torch.tensor(b),
        padding=2,
    )
    magnitude = convolution.forward(np.abs(x), np.abs(w * seen), (9, 8), (1, 1), (2, 2)) + np.abs(b)
    assert np.all(np.abs(y - theirs.numpy().transpose(0, 2, 3, 1)) <= 110 * U * magnitude)


# --- stacks -------------------------------------------------------------------------------------------------


def small_stack(rng):
    layers = conv.PixelLayer
    w = [float32(rng, *shape) / 2 for shape in ((3, 3, 1, 4), (1, 1, 4, 3), (3, 3, 3, 4), (1, 1, 4, 2))]
    b = [float32(rng, n) for n in (4, 3, 2)]

    def stack(*params):
        w1, b1, w2, b2, w3, w4, b4 = params
        return [
            layers("conv", 0, weight=w1, bias=b1, mask="A", activation="tanh"),
            layers("conv", 1, weight=w2, bias=b2, mask="B", activation="softplus"),
            layers("conv", 2, weight=w3, mask="B"),
            layers("add", 1, 3),
            layers("conv", 4, weight=w4, bias=b4, activation="logistic"),
        ]

    return stack, [w[0], b[0], w[1], b[1], w[2], w[3], b[2]]


def test_a_stack_is_its_layers_one_after_the_other():
    """To the bit; and so are cached activations (test_model_pixelcnn.py). Gradients to the rounding of their sums."""
    rng = np.random.default_rng(9)
    stack, params = small_stack(rng)
    x = float32(rng, 5, 6, 7, 1)

    def one_by_one(x, w1, b1, w2, b2, w3, w4, b4):
        first = conv.masked_conv2d(x, w1, b1, "A", activation="tanh")
        second = conv.masked_conv2d(first, w2, b2, activation="softplus")
        return conv.conv2d(first + conv.masked_conv2d(second, w3), w4, b4, activation="logistic")

    assert np.array_equal(conv.pixel_stack(x, stack(*params)), one_by_one(x, *params))
    leaves = [[gc.tensor(p, requires_grad=True) for p in (x, *params)] for _ in "ab"]
    values = [conv.pixel_stack(leaves[0][0], stack(*leaves[0][1:])), one_by_one(*leaves[1])]
    for y in values:
        np.sum(y * y).backward()
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-5)
    fused = [gc.tensor(p, requires_grad=True) for p in params]  # no gradient for x: the fused pass
    y = conv.pixel_stack(x, stack(*fused))
    np.sum(y * y).backward()
    for a, b in zip(fused, leaves[1][1:], strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_second_derivatives_of_a_stack():
    rng = np.random.default_rng(10)
    stack, params = small_stack(rng)
    x = float32(rng, 2, 4, 4, 1)

    def f(*params):
        return conv.pixel_stack(x, stack(*params))

    directions = [float32(rng, *p.shape) for p in params]
    leaves = [gc.tensor(p, requires_grad=True) for p in params]
    first = gc.grad(np.sum(f(*leaves)), leaves, create_graph=True)
    along = sum(np.sum(g * d) for g, d in zip(first, directions, strict=True))
    second = gc.grad(along, leaves)
    found = sum(float(np.sum(h.numpy().astype(float) * d)) for h, d in zip(second, directions, strict=True))
    h = 0.02
    values = [np.sum(f(*(p + np.float32(s * h) * d for p, d in zip(params, directions, strict=True))), dtype=float)
              for s in (-1, 0, 1)]  # fmt: skip
    # 64 numbers known to 1e-7 over 4e-4, and the fourth derivative.
    assert found == pytest.approx((values[0] - 2 * values[1] + values[2]) / h**2, rel=0.03, abs=0.05)


def layer(src, w, mask="B", **options):
    """A convolution of a stack, of one pixel unless w says otherwise."""
    return conv.PixelLayer("conv", src, 0, np.full(w, 0.5, np.float32), None, mask, **options)


HIDDEN, IMAGES = layer(0, (3, 3, 1, 2), "A"), np.zeros((2, 3, 4, 1), np.uint8)
# Stacks by which a pixel sees itself, and the layer that is to blame.
OPEN = {
    "type B": ([layer(0, (1, 1, 1, 1))], "layers[0]'s mask"),
    "relu of the image": ([conv.PixelLayer("relu", 0), layer(1, (1, 1, 1, 1))], "layers[0]'s src"),
    "relu, then type A": ([conv.PixelLayer("relu", 0), layer(1, (3, 3, 1, 1), "A")], "layers[0]'s src"),
    "image added": ([HIDDEN, layer(1, (1, 1, 2, 1)), conv.PixelLayer("add", 2, 0)], "layers[2]'s src"),
    "whole rows of type A": ([HIDDEN, layer(1, (1, 3, 2, 1), "rows-B")], "layers[1]'s mask"),
    "whole rows of a row's left": (
        [layer(0, (3, 3, 1, 2), "rows-A"), layer(1, (1, 3, 2, 2)), layer(2, (1, 3, 2, 1), "rows-B")],
        "layers[2]'s mask",
    ),
}


@pytest.mark.parametrize("name", OPEN)
def test_a_stack_by_which_a_pixel_sees_itself_is_neither_drawn_from_nor_a_probability(name):
    stack, blamed = OPEN[name]
    learned = [
        a._replace(weight=None if a.weight is None else gc.tensor(a.weight, requires_grad=True))
        for a in stack
    ]
    for op, call in (
        ("pixel_sample", lambda: conv.pixel_sample(stack, (1, 2, 2, 1), 1)),
        ("pixel_log_prob", lambda: conv.pixel_log_prob(IMAGES, stack)),
        ("pixel_log_prob", lambda: conv.pixel_log_prob(IMAGES, learned)),
    ):
        with pytest.raises(ValueError, match=rf"conv\.{op}: expected {re.escape(blamed)} to .*not drawn yet"):
            call()
    assert conv.pixel_stack(IMAGES.astype(np.float32), stack).shape == (2, 3, 4, 1)


def test_whole_rows_may_be_seen_of_what_is_complete_and_of_what_is_above_or_to_the_left():
    """Cached activations are those of whole images: rows-B of rows-A, or of type A where kernels end at the pixel."""
    for rows in (
        [layer(0, (3, 3, 1, 2), "rows-A"), layer(1, (3, 3, 2, 1), "rows-B")],
        [HIDDEN, layer(1, (3, 2, 2, 1), "rows-B")],
    ):
        images = conv.pixel_sample(rows, (5, 4, 4, 1), 1)
        logits = conv.pixel_stack(images.astype(np.float32), rows)
        drawn = [
            conv.pixel_draw(np.ascontiguousarray(logits[:, y, x]), 1, 4 * y + x)
            for y in range(4)
            for x in range(4)
        ]
        assert np.array_equal(np.stack(drawn, 1), images.reshape(5, 16))


STACK = [HIDDEN, layer(1, (1, 1, 2, 1))]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        *((lambda groups=groups: conv.pixel_stack(IMAGES.astype(np.float32), STACK, channel_groups=groups),
           f"conv.pixel_stack: expected channel_groups to be at least 1, received {groups}") for groups in (0, -1)),
        (lambda: conv.pixel_log_prob(IMAGES, STACK, channel_groups=0),
         "conv.pixel_log_prob: expected channel_groups to be at least 1, received 0"),
        (lambda: conv.pixel_log_prob(IMAGES, STACK, levels=1), "expected levels from 2 to 256, received 1"),
        (lambda: conv.pixel_log_prob(IMAGES, STACK, n_mixtures=300), "expected n_mixtures from 0 to 256, received 300"),
        (lambda: conv.pixel_log_prob(IMAGES, STACK, levels=5),
         "expected the last of layers, with these levels, to put out 5 channels, received 1"),
        (lambda: conv.pixel_log_prob(IMAGES, []), "to put out 1 channels, received 0"),
        (lambda: conv.pixel_log_prob(IMAGES, STACK, labels=np.zeros(2, np.int64)),
         "conv.pixel_log_prob: expected n_classes to be at least 1 with labels, received 0"),
        (lambda: conv.pixel_stack(IMAGES, [conv.PixelLayer(["conv"], 0)]), "expected the kind of layer 0 to be conv"),
        (lambda: conv.pixel_stack(IMAGES, [layer(0, (1, 1, 1, 1), ["A"])]), "expected the mask of layer 0 to be None"),
    ],
)  # fmt: skip
def test_wrong_stacks_are_named(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_images_that_do_not_lie_in_order_are_named():
    with pytest.raises(TypeError, match=r"conv\.pixel_log_prob: expected images to be contiguous in C order"):
        conv.pixel_log_prob(np.asfortranarray(IMAGES), STACK)


@pytest.mark.parametrize(("levels", "n_mixtures", "logits"), [(2, 0, 1), (5, 0, 5), (5, 2, 6)])
def test_no_images_have_no_log_probabilities_and_gradients_of_0(levels, n_mixtures, logits):
    first, last = (
        gc.tensor(a.weight, requires_grad=True) for a in (layer(0, (3, 3, 1, 4)), layer(0, (1, 1, 2, logits)))
    )
    stack = [
        HIDDEN._replace(weight=first),
        conv.PixelLayer("gate", 1),
        layer(2, (1, 1, 2, 1))._replace(weight=last),
    ]
    out = conv.pixel_log_prob(IMAGES[:0], stack, levels=levels, n_mixtures=n_mixtures)
    assert out.shape == (0,)
    gradients = gc.grad(out.sum(), [first, last], create_graph=True)
    second = gc.grad(sum(np.sum(g * g) for g in gradients), [first, last])
    assert not any(g.numpy().any() for g in (*gradients, *second))
    with gc.no_grad():
        assert conv.pixel_log_prob(IMAGES[:0], stack, levels=levels, n_mixtures=n_mixtures).shape == (0,)
