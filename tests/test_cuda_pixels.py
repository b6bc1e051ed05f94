"""Stacks of convolutions on a device beyond their rows of the grid: how images are laid out, and who draws them."""

import numpy as np
import pytest
import test_cuda
from cases import CASES, pixels
from cuda_emulation import DeviceArray
from device_array import DeviceArray as CupyArray

import gencore as gc
from gencore.kernels import conv
from gencore.kernels.conv import PixelLayer

device = test_cuda.device
SAMPLE = test_cuda.on_device(CASES["conv.pixel_sample"])
STACKS = {
    "one above and one beside": pixels.size(7, (4, 5, 1), pixels.STACKS, given="one"),
    "colours and classes": pixels.size(5, (3, 4, 2), pixels.gated(2, 1), groups=2, classes=3, given="each"),
    "levels": pixels.size(5, (3, 3, 2), pixels.small(2, 5), groups=2, levels=5),
    "mixtures": pixels.size(5, (2, 3, 1), pixels.small(1, 30), levels=40, mixtures=10),
}
every_stack = pytest.mark.parametrize("size", STACKS.values(), ids=STACKS)


@every_stack
@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("shared", [None, 4000])  # bytes: room for the layers alone
@pytest.mark.parametrize("multiprocessors", [1, 2, 40])  # all images in a block, half of them, one
def test_ways_give_the_same_bits(size, multiprocessors, shared, order, emulation, monkeypatch):
    """Whatever shares a block, wherever maps lie, whichever thread comes first."""
    cpu = CASES["conv.pixel_sample"].run_size(size)
    test_cuda.emulate(monkeypatch, multiprocessors, shared, order)
    test_cuda.test_cases.same_bits(SAMPLE.run_size(size), cpu, "a sample")


@every_stack
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_cached_samples_are_the_naive_ones_to_the_bit(size, temperature, emulation):
    """One forward pass for each pixel and colour, by the device's other kernels."""
    a = CASES["conv.pixel_sample"].good_inputs(size) | {"temperature": temperature}
    on_device = {k: test_cuda.wrapped(v) for k, v in a.items() if k not in ("layers", "params")}
    layers = pixels.layers_of({**a, "params": test_cuda.wrapped(a["params"])})
    n, image = size["n"], size["image"]
    cached = conv.pixel_sample(layers, (n, *image), **on_device).host

    colours = image[2]
    law = {k: a[k] for k in ("levels", "n_mixtures", "temperature", "key", "step", "first_row") if k in a}
    found = np.zeros((n, *image), np.uint8)
    for place in range(found[0].size):
        y, x, c = np.unravel_index(place, image)
        scaled = found.astype(np.float32) * np.float32(1 / (size["levels"] - 1))
        last = conv.pixel_stack(DeviceArray(scaled), layers, **pixels.settings({**a, **on_device})).host
        logits = np.ascontiguousarray(last[:, y, x].reshape(n, colours, -1)[:, c])
        found[:, y, x, c] = conv.pixel_draw(DeviceArray(logits), unit=place, **law).host
        if "given" in a:
            kept = np.broadcast_to(a["keep"], found.shape)[:, y, x, c] != 0
            found[kept, y, x, c] = a["given"][kept, y, x, c]
    assert np.array_equal(cached, found)


def test_a_stack_of_many_layers(emulation):
    """Beyond what the arguments of a launch hold: 2 + 3 x 20 layers, beside the CPU's."""
    rng = np.random.default_rng(5)

    def weight(*shape):
        return rng.normal(0, 0.7 / np.sqrt(np.prod(shape[:-1])), shape).astype(np.float32)

    layers = [PixelLayer("conv", 0, weight=weight(3, 3, 1, 4), mask="A")]
    for i in range(1, 61, 3):
        layers += [
            PixelLayer("relu", i),
            PixelLayer("conv", i + 1, weight=weight(1, 3, 4, 4), mask="B", activation="tanh"),
            PixelLayer("add", i, i + 2),
        ]
    layers.append(PixelLayer("conv", 61, weight=weight(1, 1, 4, 1), mask="B"))
    there = [layer._replace(weight=test_cuda.wrapped(layer.weight)) for layer in layers]
    drawn = conv.pixel_sample(there, (3, 4, 4, 1), 8).host
    assert np.array_equal(drawn, conv.pixel_sample(layers, (3, 4, 4, 1), 8))
    assert 0 < drawn.mean() < 1


@pytest.mark.gpu
def test_device_draws_the_images_of_the_cpu(device):
    """More images than multiprocessors, of a model of usual size; a tie would change the rest of its image."""
    layer = pixels.convolution_layer
    stack = (
        layer(0, (7, 7), (1, 32), "A"), layer(1, (1, 1), (32, 16), "B", "relu"),
        layer(2, (3, 3), (16, 16), "B", "relu"),
        layer(3, (1, 1), (16, 32), "B"), ("add", 1, 4), layer(5, (1, 1), (32, 1), "B"),
    )  # fmt: skip
    a = CASES["conv.pixel_sample"].good_inputs(pixels.size(2, (12, 12, 1), stack))
    _, put, get = device
    cpu = conv.pixel_sample(pixels.layers_of(a), (600, 12, 12, 1), 5)
    there = pixels.layers_of({**a, "params": [put(p) for p in a["params"]]})
    ties = (get(conv.pixel_sample(there, (600, 12, 12, 1), 5)) != cpu).any((1, 2, 3)).sum()
    assert ties <= 2, f"{ties} of 600 images differ"


def parameters_of(size, name="conv.stack_vjp"):
    a = CASES[name].good_inputs(size)
    return a, [np.asarray(p, np.float32) for p in a["params"]]


def with_weights(a, weights):
    """The stack with these Tensors."""
    return pixels.layers_of({**a, "params": weights})


def both_orders(loss, leaves):
    """A loss, its gradients, and those of the sum of their squares."""
    first = gc.grad([loss()], leaves)
    recorded = gc.grad([loss()], leaves, create_graph=True)
    second = gc.grad([sum((g * g).sum() for g in recorded)], leaves)
    return [loss(), *first, *recorded, *second]


def beside_the_cpu(compute):
    """What a function of where arrays are put gives on a device and on the CPU; nothing may leave the device."""
    for found, expected in zip(compute(CupyArray), compute(np.array), strict=True):
        assert found.device == "cuda"
        of_size = 1e-5 * (1 + np.abs(expected.numpy()).max())  # sums of terms that nearly cancel
        assert np.allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=of_size)


GRADED = (
    pixels.size(2, (3, 4, 1), pixels.small(1, 1)),
    pixels.size(3, (3, 3, 2), pixels.gated(2, 5), groups=2, classes=2, levels=5),
)


@pytest.mark.parametrize("size", GRADED)
@pytest.mark.parametrize("of_images", [False, True])
def test_gradients_of_stacks_stay_on_the_device(size, of_images, emulation):
    a, weights = parameters_of(size, "conv.stack_forward")

    def compute(put):
        x = gc.tensor(put(a["x"]), requires_grad=of_images)
        leaves = [gc.tensor(put(w), requires_grad=True) for w in weights]
        rest = {k: put(v) if k == "labels" else v for k, v in pixels.settings(a).items()}

        def loss():
            y = conv.pixel_stack(x, with_weights(a, leaves), **rest)
            return (y * y).sum()

        return both_orders(loss, [x, *leaves] if of_images else leaves)

    beside_the_cpu(compute)


@pytest.mark.parametrize("size", GRADED)
def test_gradients_of_log_probabilities_stay_on_the_device(size, emulation):
    """Each image with a weight of its own."""
    a, weights = parameters_of(size, "conv.stack_log_prob_vjp")
    each = np.linspace(0.5, 1.5, size["n"], dtype=np.float32)

    def compute(put):
        leaves = [gc.tensor(put(w), requires_grad=True) for w in weights]
        rest = {k: put(v) if k == "labels" else v for k, v in pixels.settings(a).items()}
        images = put(a["images"])

        def loss():
            log_prob = conv.pixel_log_prob(images, with_weights(a, leaves), levels=a["levels"], **rest)
            return (log_prob * put(each)).sum()

        return both_orders(loss, leaves)

    beside_the_cpu(compute)


def test_what_nobody_waits_to_look_at_makes_nan(emulation):
    """A class or a level that there is not, of one image: its numbers, and no others."""
    size = GRADED[1]
    a, weights = parameters_of(size, "conv.stack_log_prob_vjp")
    layers = with_weights(a, [CupyArray(w) for w in weights])

    def log_prob(images, labels):
        labels = CupyArray(np.asarray(labels, np.int64))
        return conv.pixel_log_prob(
            CupyArray(images), layers, levels=a["levels"], channel_groups=2, labels=labels, n_classes=2
        ).get()

    right = log_prob(a["images"], [0, 1, 1])
    assert np.isfinite(right).all()
    for labels in ([0, 2, 1], [0, -1, 1]):
        wrong = log_prob(a["images"], labels)
        assert np.isnan(wrong[1])
        assert wrong[[0, 2]].tobytes() == right[[0, 2]].tobytes()
    images = a["images"].copy()
    images[2, 1, 1, 1] = a["levels"]
    wrong = log_prob(images, [0, 1, 1])
    assert np.isnan(wrong[2])
    assert wrong[:2].tobytes() == right[:2].tobytes()


def test_what_is_no_bit_makes_nan(emulation):
    """In the forward pass alone as in the one that goes back too, and wherever in the image it is."""
    size = GRADED[0]
    a, weights = parameters_of(size, "conv.stack_log_prob_vjp")
    right = a["images"].copy()
    for pixel in ((0, 0), (2, 3)):  # seen by all others, by none
        wrong = right.copy()
        wrong[1][pixel] = 2
        found = [
            conv.pixel_log_prob(CupyArray(x), with_weights(a, [CupyArray(w) for w in weights])).get()
            for x in (right, wrong)
        ]
        assert np.isnan(found[1]).tolist() == [False, True]
        assert found[1][0].tobytes() == found[0][0].tobytes()


def test_the_table_of_layers_stays_on_the_host(emulation):
    from gencore import _core

    with pytest.raises(
        TypeError, match=r"expected layers to be on the CPU, whatever the device .* on a CUDA device"
    ):
        _core.conv_pixel_sample(
            layers=DeviceArray(np.zeros((1, 12), np.int64)),
            params=[],
            out=DeviceArray(np.zeros((1, 1, 1, 1), np.uint8)),
            key=1,
        )
