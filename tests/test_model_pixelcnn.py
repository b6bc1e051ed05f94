"""PixelCNN: exact probabilities, samples, learning, files."""

import itertools
import re

import numpy as np
import pytest
from model_checks import assert_resumes_to_the_same_bits
from reference.statistics import assert_distributed

import gencore as gc
from gencore.kernels.conv import PixelLayer
from gencore.models import GatedPixelCNN, PixelCNN
from gencore.models._pixel_model import PixelModel
from gencore.train import DivergenceError

MIXTURE = {"output": "discretised_logistic", "n_mixtures": 2}
COLOURS = {"channels": 3, "n_features": 3, "n_hidden": 3}
KINDS = {
    "binary": (PixelCNN, (3, 3), {}),
    "one row": (PixelCNN, (1, 8), {}),
    "colours": (PixelCNN, (2, 1), COLOURS),
    "levels": (PixelCNN, (2, 2), {"output": "categorical", "levels": 4}),
    "colours of levels": (PixelCNN, (1, 2), {"channels": 2, "output": "categorical", "levels": 3}),
    "logistics": (PixelCNN, (2, 2), {**MIXTURE, "levels": 5}),
    "wide kernels": (PixelCNN, (2, 2), {"kernel_size": 5, "output": "categorical", "levels": 4}),
    "wide kernels of colours": (PixelCNN, (2, 2), {**COLOURS, "kernel_size": 7}),
    "gated": (GatedPixelCNN, (3, 3), {}),
    "gated, wide kernels": (GatedPixelCNN, (2, 4), {"kernel_size": 5}),
    "gated colours": (GatedPixelCNN, (1, 3), COLOURS),
    "gated logistics of colours": (GatedPixelCNN, (1, 2), {"channels": 2, **MIXTURE, "levels": 4}),
    "classes": (PixelCNN, (3, 3), {"n_classes": 3}),
    "gated classes": (GatedPixelCNN, (2, 3), {"n_classes": 2}),
}


def make(name, **changes):
    """A model with weights large enough that pixels depend on each other."""
    kind, (height, width), options = KINDS[name]
    options = {"n_features": 4, "n_blocks": 2, "n_hidden": 6, "seed": 3, **options, **changes}
    model = kind(height, width, **options)
    rng = np.random.default_rng(0)
    with gc.no_grad():
        for p in model.parameters():
            p += rng.normal(0, 0.3, p.shape).astype(np.float32)
    return model


def all_images(model):
    units = int(np.prod(model.shape))
    levels = list(itertools.product(range(model.levels), repeat=units))
    return np.array(levels, np.uint8).reshape(-1, *model.shape)


@pytest.mark.parametrize("name", KINDS)
def test_probabilities_of_all_images_sum_to_one(name):
    """Each is off by 1e-6 of its logarithm at most: sums of a few dozen terms in float32."""
    model = make(name)
    found = []
    for label in range(model.n_classes) or [None]:
        log_p = model.log_prob(all_images(model), label)
        assert np.ptp(log_p) > 1, "not uniform"
        assert abs(np.exp(log_p).sum() - 1) < 2e-5
        found.append(log_p)
    assert all(np.abs(a - b).max() > 0.1 for a, b in itertools.combinations(found, 2)), "classes differ"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_cached_samples_are_the_naive_ones_to_the_bit(name, temperature):
    model = make(name)
    labels = np.arange(21) % model.n_classes if model.n_classes else None
    options = {"key": 5, "temperature": temperature, "labels": labels}
    cached, naive = (model.sample(21, method=method, **options) for method in ("cached", "naive"))
    assert np.array_equal(cached, naive)
    assert len(np.unique(cached.reshape(21, -1), axis=0)) > 5


def test_cached_samples_of_a_larger_model_are_the_naive_ones():
    for kind in (PixelCNN, GatedPixelCNN):
        model = kind(13, 11, n_features=16, n_blocks=3, seed=1)
        assert np.array_equal(model.sample(9, key=2), model.sample(9, key=2, method="naive"))


@pytest.mark.parametrize(
    "name", ["binary", "colours", "colours of levels", "logistics", "gated", "gated classes"]
)
def test_samples_follow_the_probabilities(name):
    model = make(name)
    images, label = all_images(model), 1 if model.n_classes else None
    drawn = model.sample(40_000, key=8, labels=label).reshape(40_000, -1).astype(np.int64)
    place = drawn @ model.levels ** np.arange(drawn.shape[1])[::-1]
    p = np.exp(model.log_prob(images, label))
    assert_distributed(place, p / p.sum(), name)


@pytest.mark.parametrize("name", ["binary", "colours of levels"])
@pytest.mark.parametrize("method", ["cached", "naive"])
def test_completions_follow_what_comes_after_given_pixels(name, method):
    """With the first half given, the rest has p(image) / p(first half)."""
    model = make(name)
    n = 20_000 if method == "cached" else 4000
    images = all_images(model)
    first = images[len(images) // 3]
    partial = first.astype(float)
    flat = partial.reshape(-1)
    half = flat.size // 2
    flat[half:] = np.nan
    drawn = model.sample(n, key=4, partial=partial, method=method)
    assert (drawn.reshape(n, -1)[:, :half] == first.reshape(-1)[:half]).all()
    matching = (images.reshape(len(images), -1)[:, :half] == first.reshape(-1)[:half]).all(1)
    p = np.where(matching, np.exp(model.log_prob(images)), 0)
    place = drawn.reshape(n, -1).astype(np.int64) @ model.levels ** np.arange(flat.size)[::-1]
    order = np.cumsum(matching) - 1
    assert_distributed(order[place], p[matching] / p.sum(), name)


def test_partial_images_in_every_form():
    model = make("binary")
    image = np.array([[1, 0, 1], [0, 0, 0], [0, 0, 0]], float)
    image[1:] = np.nan
    expected = model.sample(4, key=1, partial=image)
    assert (expected[:, 0, :, 0] == [1, 0, 1]).all()
    masked = np.ma.masked_array(np.nan_to_num(image), np.isnan(image))
    each = np.tile(image[..., None], (4, 1, 1, 1))
    for form in (image[..., None], each, masked):
        assert np.array_equal(model.sample(4, key=1, partial=form), expected)
    each[2] = np.nan
    free = model.sample(4, key=1, partial=each)
    assert np.array_equal(free[[0, 1, 3]], expected[[0, 1, 3]])
    assert np.array_equal(free[2], model.sample(4, key=1)[2])


def test_a_low_temperature_finds_the_likely_image():
    model = make("binary")
    cold = model.sample(50, temperature=1e-3, key=3)
    assert len(np.unique(cold.reshape(50, -1), axis=0)) == 1
    assert model.log_prob(cold[:1])[0] > np.quantile(model.log_prob(all_images(model)), 0.95)


def test_images_in_every_form_have_the_same_probability():
    model, images = make("colours"), all_images(make("colours"))[::7]
    expected = model.log_prob(images)
    for form in (images.reshape(len(images), -1), images.astype(bool), images.astype(float), images.tolist()):
        assert np.array_equal(model.log_prob(form), expected)
    assert model.log_prob(images[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["binary", "gated classes", "gated logistics of colours"])
def test_gradient_of_the_log_probability(name):
    """Of every parameter along a random direction, against differences of float32's own function."""
    model, rng = make(name), np.random.default_rng(2)
    images = all_images(model)
    images = images[rng.integers(0, len(images), 40)]
    labels = rng.integers(0, 2, 40) if model.n_classes else None
    model.log_prob_of((images, labels)).mean().backward()
    parameters = list(model.parameters())
    directions = [rng.normal(0, 1, p.shape).astype(np.float32) for p in parameters]
    slope = sum(
        float(np.sum(p.grad.numpy().astype(float) * d)) for p, d in zip(parameters, directions, strict=True)
    )
    values = []
    for h in (2e-3, -2e-3):
        with gc.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += np.float32(h) * d
        values.append(model.log_prob(images, labels).mean())
        with gc.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p -= np.float32(h) * d
    # Log-probabilities of 5 nats are known to 1e-6, their differences over 4e-3 to 5e-4; the curvature adds as much.
    assert slope == pytest.approx((values[0] - values[1]) / 4e-3, rel=2e-2, abs=2e-3)


def test_it_learns_digits():
    data = gc.datasets.load("digits")
    model = PixelCNN(8, 8, n_features=8, n_blocks=2, seed=0)
    history = model.fit(data.train, epochs=12, lr=3e-3, validation=data.valid, progress=False)
    rates = np.clip(data.train.mean(0), 1e-3, 1 - 1e-3)
    independent = (data.valid * np.log(rates) + (1 - data.valid) * np.log(1 - rates)).sum(1).mean()
    assert history["validation_log_prob"][-1] > independent + 4
    assert history["validation_log_prob"][-1] == pytest.approx(model.log_prob(data.valid).mean(), abs=1e-3)
    drawn = model.sample(200, key=1).reshape(200, -1)
    assert np.abs(drawn.mean(0) - data.train.mean(0)).mean() < 0.1


def test_it_learns_levels():
    """Levels that copy their left neighbour: log 4 for the first of a row, then near 0."""
    rng = np.random.default_rng(1)
    rows = np.repeat(rng.integers(0, 4, (600, 3, 1, 1)), 4, axis=2)
    model = PixelCNN(3, 4, output="categorical", levels=4, n_features=8, n_blocks=1, seed=0)
    model.fit(rows, epochs=20, lr=3e-3, optimizer="adam", progress=False)
    assert model.log_prob(rows[:100]).mean() > -3 * np.log(4) - 1


def test_resumed_training_goes_on_to_the_same_bits(tmp_path):
    data = gc.datasets.load("digits").train[:200]
    assert_resumes_to_the_same_bits(
        lambda: PixelCNN(8, 8, n_features=4, n_blocks=1, seed=2), data, tmp_path / "p.safetensors"
    )


def test_divergence_is_reported():
    model = make("binary")
    with pytest.raises(DivergenceError, match="became"):
        model.fit(all_images(model)[:50], epochs=3, lr=1e30, optimizer="sgd", progress=False)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: PixelCNN(0, 3), "PixelCNN: expected height to be an integer of at least 1, received 0"),
        (lambda m: PixelCNN(3, 3, output="gaussian"),
         "expected output to be 'bernoulli', 'categorical' or 'discretised_logistic', received 'gaussian'"),
        (lambda m: PixelCNN(3, 3, n_mixtures=257), "expected n_mixtures from 1 to 256, received 257"),
        (lambda m: PixelCNN(3, 3, n_classes=-1), "expected n_classes to be an integer of at least 0, received -1"),
        (lambda m: PixelCNN(3, 3, kernel_size=2), "PixelCNN: expected kernel_size to be odd, received 2"),
        (lambda m: GatedPixelCNN(3, 3, kernel_size=4), "GatedPixelCNN: expected kernel_size to be odd, received 4"),
        (lambda m: m.sample(1, labels=0), "expected no labels, as n_classes is 0, received 0"),
        (lambda m: make("classes").sample(2), "PixelCNN.sample: expected labels from 0 to 2, received none"),
        (lambda m: make("classes").sample(2, labels=3), "expected labels from 0 to 2, received 3"),
        (lambda m: make("classes").log_prob(np.zeros((2, 9)), [0, 1, 2]), "labels of shape () or (2,), received (3,)"),
        (lambda m: PixelCNN(3, 3, channels=3), "expected n_features to be a multiple of channels, 3, received 16"),
        (lambda m: PixelCNN(3, 3, output="categorical", levels=300), "expected levels from 2 to 256, received 300"),
        (lambda m: m.log_prob(np.zeros((2, 4))), "expected X of shape (n, 3, 3, 1) or (n, 9), received (2, 4)"),
        (lambda m: m.log_prob(np.full((2, 9), 2)), "hold integers from 0 to 1, received 2 at (0, 0, 0, 0)"),
        (lambda m: m.log_prob(np.full((2, 9), 0.5)), "received 0.5 at"),
        (lambda m: m.sample(0), "expected n to be an integer of at least 1, received 0"),
        (lambda m: m.sample(1, method="fast"), "expected method to be 'cached' or 'naive', received 'fast'"),
        (lambda m: m.sample(1, temperature=0.0), "temperature"),
        (lambda m: m.sample(2, partial=np.zeros((2, 2))),
         "expected partial of shape (3, 3, 1) or (2, 3, 3, 1), received (2, 2)"),
        (lambda m: m.sample(2, partial=np.full((3, 3), 7.0)), "expected partial to hold integers from 0 to 1"),
        (lambda m: m.fit(np.zeros((0, 9)), epochs=1), "at least 1 row"),
        (lambda m: m.fit(np.zeros((5, 9)), epochs=0), "epochs"),
        (lambda m: m.fit(np.zeros((5, 9)), epochs=1, optimizer="adamax"), "PixelCNN.fit: expected optimizer to be"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(make("binary"))


def test_masked_layers_start_with_a_scale_of_what_they_see():
    """He's limit for the 4 of 9 taps that count: outputs of unit inputs have variance 2."""
    layer = gc.nn.MaskedConv2d(32, 256, 3, "A", key=1)
    seen = layer.weight.numpy()[:1].ravel()
    assert np.var(seen) == pytest.approx(2 / (4 * 32), rel=0.05)


def test_layers_of_convolutions():
    x = np.random.default_rng(0).normal(0, 1, (2, 7, 6, 3)).astype(np.float32)
    assert gc.nn.Conv2d(3, 5, 3, "relu", stride=2, padding=1, key=1)(x).shape == (2, 4, 3, 5)
    assert gc.nn.Conv2d(3, 5, (1, 3), padding="same", bias=False, key=1)(x).shape == (2, 7, 6, 5)
    up = gc.nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1, key=1)
    assert up(x).shape == (2, 14, 12, 5)
    assert up.weight.shape == (4, 4, 5, 3)
    with pytest.raises(ValueError, match="activation to be 'identity'"):
        gc.nn.ConvTranspose2d(3, 5, 4, activation="relu")


@pytest.mark.parametrize("name", ["gated", "gated, wide kernels", "gated colours", "binary", "colours"])
def test_no_pixel_sees_itself_or_a_later_one(name):
    """Change one colour of one pixel: what is said of it and of all before it stays, bit for bit."""
    model, rng = make(name), np.random.default_rng(4)
    images = rng.integers(0, 2, (1, *model.shape)).astype(np.uint8)
    flat = int(np.prod(model.shape))
    with gc.no_grad():
        base = np.asarray(model.forward(images)).reshape(-1)
        for place in range(flat):
            changed = images.copy().reshape(-1)
            changed[place] ^= 1
            logits = np.asarray(model.forward(changed.reshape(images.shape))).reshape(-1)
            assert np.array_equal(logits[: place + 1], base[: place + 1])


@pytest.mark.parametrize(("kind", "blind"), [(PixelCNN, True), (GatedPixelCNN, False)])
def test_the_gated_model_has_no_blind_spot(kind, blind):
    """The last pixel of an image depends on every pixel before it, or on a triangle above it."""
    model, rng = kind(9, 9, n_features=8, n_blocks=6, seed=1), np.random.default_rng(0)
    with gc.no_grad():
        for p in model.parameters():
            p += rng.normal(0, 0.2, p.shape).astype(np.float32)
    x = gc.tensor(rng.normal(0, 1, (1, 9, 9, 1)).astype(np.float32), requires_grad=True)
    logits = gc.kernels.conv.pixel_stack(x, model.layers(), channel_groups=1)
    logits[0, 8, 4, 0].backward()
    seen = np.abs(x.grad.numpy()[0, :, :, 0]) > 0
    assert not seen[8, 4:].any()
    assert seen[8, :4].all()
    assert seen[:7].all() or blind
    assert seen[7].all() != blind, "what is right of a pixel in the row above"


def test_classes_are_learned():
    """Class 0 is dark, class 1 bright: the label is worth most of what there is to know."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 800)
    images = rng.random((800, 4, 4)) < np.where(labels == 1, 0.95, 0.05)[:, None, None]
    model = GatedPixelCNN(4, 4, n_features=4, n_blocks=1, n_classes=2, seed=0)
    held_out = (images[700:], labels[700:])
    history = model.fit(images[:700], labels[:700], epochs=20, lr=3e-3, optimizer="adam", validation=held_out,
                        progress=False)  # fmt: skip
    entropy = 16 * -(0.05 * np.log(0.05) + 0.95 * np.log(0.95))
    assert history["validation_log_prob"][-1] > -entropy - 0.4
    assert model.sample(50, labels=1, key=1).mean() > 0.85
    assert model.sample(50, labels=0, key=1).mean() < 0.15


def test_it_learns_a_mixture_of_logistics():
    """Greys that repeat their left neighbour, give or take one: a narrow logistic around it."""
    rng = np.random.default_rng(1)
    first = rng.integers(40, 216, (600, 4, 1))
    images = np.clip(first + np.cumsum(rng.integers(-1, 2, (600, 4, 5)), axis=2), 0, 255)
    model = PixelCNN(4, 5, n_features=8, n_blocks=1, n_mixtures=3, output="discretised_logistic", seed=0)
    model.fit(images, epochs=40, batch_size=20, lr=3e-3, optimizer="adam", progress=False)
    flat = 20 * np.log(256)
    assert -model.log_prob(images[:100]).mean() < 0.7 * flat
    drawn = model.sample(64, key=2).astype(int)
    assert np.abs(np.diff(drawn[..., 0], axis=2)).mean() < 15, "neighbours are alike"


def test_second_derivatives_of_gates_and_classes():
    """Of squared gradients along a direction, against differences of first-order ones; no relu, whose bends jump."""
    rng = np.random.default_rng(5)
    x, labels = rng.normal(0, 1, (4, 3, 3, 1)).astype(np.float32), np.array([0, 1, 1, 0])
    shapes = [(3, 3, 1, 6), (2, 6), (1, 3, 3, 4), (4,), (1, 1, 2, 2), (2, 2)]
    params = [gc.tensor(rng.normal(0, 0.7, s).astype(np.float32), requires_grad=True) for s in shapes]
    weight = rng.normal(0, 1, (4, 3, 3, 2)).astype(np.float32)

    def squares(create_graph):
        w, b, v, c, u, d = params
        c = c * w[0, 0, 0, :4]  # parameters may depend on each other: gradients are partial ones
        layers = [
            PixelLayer("conv", 0, 0, w, b, "rows-A"), PixelLayer("gate", 1), PixelLayer("conv", 2, 0, v, c, "B"),
            PixelLayer("gate", 3), PixelLayer("conv", 4, 0, u, d, None, "tanh"),
        ]  # fmt: skip
        y = gc.kernels.conv.pixel_stack(x, layers, labels=labels, n_classes=2)
        gradients = gc.grad((y * weight).sum(), params, create_graph=create_graph)
        return sum((g**2).sum() for g in gradients)

    second = gc.grad(squares(True), params)
    directions = [rng.normal(0, 1, s).astype(np.float32) for s in shapes]
    slope = sum(float((g.numpy() * d).sum()) for g, d in zip(second, directions, strict=True))
    values = []
    for h in (2e-3, -4e-3):
        with gc.no_grad():
            for p, d in zip(params, directions, strict=True):
                p += np.float32(h) * d
        values.append(float(squares(False)))
    # Squares are known to 1e-6 of themselves, their differences over 4e-3 to 5e-4; the curvature adds as much.
    assert slope == pytest.approx((values[0] - values[1]) / 4e-3, rel=2e-3, abs=1e-3 * values[0])


@pytest.mark.parametrize("name", ["levels", "logistics", "gated classes", "gated logistics of colours"])
def test_one_pass_gives_the_gradients_of_two(name):
    """Of a mean, and of a sum with weights, which takes a second pass: as through logits and losses."""
    model, rng = make(name), np.random.default_rng(6)
    images = all_images(model)
    images = images[rng.integers(0, len(images), 11)]
    labels = rng.integers(0, 2, 11) if model.n_classes else None
    weights = rng.normal(0, 1, 11).astype(np.float32)
    parameters = list(model.parameters())
    for of in (lambda v: v.mean(), lambda v: (v * weights).sum()):
        one, two = model.log_prob_of((images, labels)), PixelModel.log_prob_of(model, (images, labels))
        assert np.allclose(one.numpy(), two.numpy(), rtol=1e-6)
        for a, b in zip(gc.grad(of(one), parameters), gc.grad(of(two), parameters), strict=True):
            assert np.allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=2e-6 * np.abs(b.numpy()).max())


def test_wrong_images_of_a_log_probability_are_named():
    model = make("binary")
    with pytest.raises(
        TypeError, match=r"images to be \(N, H, W, C\) uint8, received float64 \(2, 3, 3, 1\)"
    ):
        gc.kernels.conv.pixel_log_prob(np.zeros((2, 3, 3, 1)), model.layers())
    with pytest.raises(ValueError, match="images to hold levels below 2, received 2"):
        gc.kernels.conv.pixel_log_prob(np.full((2, 3, 3, 1), 2, np.uint8), model.layers())
