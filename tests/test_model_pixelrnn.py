"""Row LSTM and Diagonal BiLSTM: exact probabilities, what pixels see, samples, learning, files."""

import itertools
import re

import numpy as np
import pytest
from model_checks import assert_resumes_to_the_same_bits
from reference.statistics import assert_distributed

import gencore as gc
from gencore.models import DiagonalBiLSTM, RowLSTM

MODELS = (RowLSTM, DiagonalBiLSTM)
MIXTURE = {"output": "discretised_logistic", "n_mixtures": 2}
COLOURS = {"channels": 3, "n_features": 3, "n_hidden": 3}
SIZES = {
    "binary": ((3, 3), {}),
    "wide": ((2, 4), {"n_features": 5, "n_blocks": 1}),
    "high": ((4, 2), {}),
    "one row": ((1, 8), {}),
    "one column": ((8, 1), {"n_blocks": 1}),
    "colours": ((2, 1), COLOURS),
    "colours of levels": ((1, 2), {"channels": 2, "output": "categorical", "levels": 3}),
    "logistics": ((2, 2), {**MIXTURE, "levels": 5}),
    "classes": ((3, 2), {"n_classes": 3}),
}
KINDS = {f"{kind.__name__} {name}": (kind, *size) for kind in MODELS for name, size in SIZES.items()}
every_kind = pytest.mark.parametrize("name", KINDS)
every_model = pytest.mark.parametrize("kind", MODELS)


def disturbed(model, scale=0.3):
    """Weights large enough that pixels depend on each other."""
    rng = np.random.default_rng(0)
    with gc.no_grad():
        for p in model.parameters():
            p += rng.normal(0, scale, p.shape).astype(np.float32)
    return model


def make(name, **changes):
    kind, (height, width), options = KINDS[name]
    options = {"n_features": 4, "n_blocks": 2, "n_hidden": 6, "seed": 3, **options, **changes}
    return disturbed(kind(height, width, **options))


def all_images(model):
    units = int(np.prod(model.shape))
    levels = list(itertools.product(range(model.levels), repeat=units))
    return np.array(levels, np.uint8).reshape(-1, *model.shape)


# --- probabilities --------------------------------------------------------------------------------------------


@every_kind
def test_probabilities_of_all_images_sum_to_one(name):
    """Each is off by 1e-6 of its logarithm at most: sums of a few dozen terms in float32."""
    model = make(name)
    found = []
    for label in range(model.n_classes) or [None]:
        log_p = model.log_prob(all_images(model), label)
        assert np.ptp(log_p) > 0.5, "not uniform"
        assert abs(np.exp(log_p).sum() - 1) < 2e-5
        found.append(log_p)
    assert all(np.abs(a - b).max() > 0.1 for a, b in itertools.combinations(found, 2)), "classes differ"


def sees(model, y, x, colour):
    """Where the gradient of a colour's logits by the image is not 0, in any of eight images."""
    height, width, channels = model.shape
    values = np.random.default_rng(1).random((8, height, width, channels)).astype(np.float32)
    images = gc.tensor(values, requires_grad=True)
    model.scaled = lambda _: images
    logits = model.forward(np.zeros(values.shape, np.uint8))
    picked = np.sum(logits.reshape(8, height, width, channels, -1)[:, y, x, colour])
    (grad,) = gc.grad(picked, [images])
    del model.scaled
    return (grad.numpy() != 0).any(0)


@every_model
@pytest.mark.parametrize("channels", [1, 3])
def test_no_pixel_sees_itself_or_what_comes_later(kind, channels):
    """The Diagonal BiLSTM sees all that comes before but one pixel; the Row LSTM all that its triangles reach."""
    height, width, k = 5, 13, 4 * channels
    model = disturbed(
        kind(height, width, channels=channels, n_features=k, n_hidden=k, n_blocks=1, seed=5), 0.5
    )
    ys, xs, cs = np.indices(model.shape)
    for y, x, c in (
        (0, 0, 0),
        (0, 7, channels - 1),
        (2, 0, 0),
        (4, 12, channels - 1),
        (4, 6, 0),
        (3, 11, channels // 2),
    ):
        seen = sees(model, y, x, c)
        before = (ys < y) | ((ys == y) & ((xs < x) | ((xs == x) & (cs < c))))
        assert not (seen & ~before).any()
        if kind is DiagonalBiLSTM:
            # The map at the end of the row above does not see the last colour of its own pixel, and no map of this row
            # further to the left than its window reaches does.
            blind = (ys == y - 1) & (xs == width - 1) & (cs == channels - 1) & (x + 3 < width - 1)
            expected = before & ~blind
        else:
            # The state `up` rows above meets the map from `up + 1` columns to the left to `up` to the right; and a
            # pixel of the map the image three rows up, three columns to either side, and three to the left of itself.
            expected = np.zeros(before.shape, bool)
            for up in range(y + 1):
                row, wide = y - up, (xs >= x - up - 4) & (xs <= x + up + 3)
                expected |= wide & (ys < row) & (ys >= row - 3)
                expected |= wide & (ys == row) & ((xs < x + up) | ((xs == x + up) & (cs < c)))
        np.testing.assert_array_equal(seen, expected)


# --- samples --------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_cached_samples_are_the_naive_ones_to_the_bit(name, temperature):
    model = make(name)
    labels = np.arange(21) % model.n_classes if model.n_classes else None
    options = {"key": 5, "temperature": temperature, "labels": labels}
    cached, naive = (model.sample(21, method=method, **options) for method in ("cached", "naive"))
    assert np.array_equal(cached, naive)
    assert len(np.unique(cached.reshape(21, -1), axis=0)) > 5


@every_model
def test_cached_samples_of_a_larger_model_are_the_naive_ones(kind):
    model = kind(9, 11, n_features=17, n_blocks=2, seed=1)
    image = np.full((9, 11), np.nan)
    image[3:6, 4:] = 1
    for partial in (None, image):
        cached, naive = (model.sample(5, key=2, method=m, partial=partial) for m in ("cached", "naive"))
        assert np.array_equal(cached, naive)


@pytest.mark.parametrize("name", ["RowLSTM binary", "DiagonalBiLSTM binary", "DiagonalBiLSTM colours"])
def test_samples_follow_the_probabilities(name):
    model = make(name)
    images = all_images(model)
    drawn = model.sample(20_000, key=8).reshape(20_000, -1).astype(np.int64)
    place = drawn @ model.levels ** np.arange(drawn.shape[1])[::-1]
    p = np.exp(model.log_prob(images))
    assert_distributed(place, p / p.sum(), name)


@every_model
def test_completions_follow_what_comes_after_given_pixels(kind):
    """With the first half given, the rest has p(image) / p(first half)."""
    model = make(f"{kind.__name__} binary")
    images = all_images(model)
    first = images[len(images) // 3]
    partial = first.astype(float)
    flat = partial.reshape(-1)
    half = flat.size // 2
    flat[half:] = np.nan
    drawn = model.sample(20_000, key=4, partial=partial).reshape(20_000, -1)
    assert (drawn[:, :half] == first.reshape(-1)[:half]).all()
    matching = (images.reshape(len(images), -1)[:, :half] == first.reshape(-1)[:half]).all(1)
    p = np.where(matching, np.exp(model.log_prob(images)), 0)
    place = drawn.astype(np.int64) @ 2 ** np.arange(flat.size)[::-1]
    assert_distributed((np.cumsum(matching) - 1)[place], p[matching] / p.sum(), kind.__name__)


# --- learning, files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RowLSTM binary", "DiagonalBiLSTM colours", "DiagonalBiLSTM classes"])
def test_gradient_of_the_log_probability(name):
    """Of every parameter along a random direction, against differences of float32's own function."""
    model, rng = make(name), np.random.default_rng(2)
    images = all_images(model)
    images = images[rng.integers(0, len(images), 40)]
    labels = rng.integers(0, model.n_classes, 40) if model.n_classes else None
    model.log_prob_of((images, labels)).mean().backward()
    parameters = list(model.parameters())
    assert all(p.grad is not None for p in parameters)
    directions = [rng.normal(0, 1, p.shape).astype(np.float32) for p in parameters]
    slope = sum(
        float(np.sum(p.grad.numpy().astype(float) * d)) for p, d in zip(parameters, directions, strict=True)
    )
    values = []
    for h in (3e-4, -6e-4):
        with gc.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += np.float32(h) * d
        values.append(model.log_prob(images, labels).mean())
    # Log-probabilities of 5 nats are known to 1e-6, their differences over 6e-4 to 3e-3; kinks of relu add as much.
    assert slope == pytest.approx((values[0] - values[1]) / 6e-4, rel=1e-2, abs=1e-2)


@every_model
def test_it_learns_digits(kind):
    data = gc.datasets.load("digits")
    model = kind(8, 8, n_features=8, n_blocks=1, seed=0)
    history = model.fit(data.train, epochs=10, lr=3e-3, validation=data.valid, progress=False)
    rates = np.clip(data.train.mean(0), 1e-3, 1 - 1e-3)
    independent = (data.valid * np.log(rates) + (1 - data.valid) * np.log(1 - rates)).sum(1).mean()
    assert history["validation_log_prob"][-1] > independent + 4
    assert history["validation_log_prob"][-1] == pytest.approx(model.log_prob(data.valid).mean(), abs=1e-3)


@every_model
def test_what_only_a_state_can_know_is_learned(kind):
    """A column whose pixels repeat the first of them 8 rows above, further than the 7x7 window sees."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 2, (400, 9, 1, 1))
    images[:, 8] = images[:, 0]
    model = kind(9, 1, n_features=8, n_blocks=1, seed=0)
    model.fit(images, epochs=60, lr=1e-2, optimizer="adam", batch_size=50, progress=False)
    assert model.log_prob(images[:100]).mean() > -8 * np.log(2) - 0.2


@every_model
def test_resumed_training_goes_on_to_the_same_bits(kind, tmp_path):
    data = gc.datasets.load("digits").train[:200]
    assert_resumes_to_the_same_bits(
        lambda: kind(8, 8, n_features=4, n_blocks=1, seed=2), data, tmp_path / "p.safetensors"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RowLSTM(0, 3), "RowLSTM: expected height to be an integer of at least 1, received 0"),
        (lambda: RowLSTM(3, 3, n_blocks=0), "RowLSTM: expected n_blocks to be an integer of at least 1, received 0"),
        (lambda: DiagonalBiLSTM(3, 3, channels=3, n_features=4),
         "DiagonalBiLSTM: expected n_features to be a multiple of channels, 3, received 4"),
        (lambda: DiagonalBiLSTM(3, 3, output="real"), "DiagonalBiLSTM: expected output to be"),
        (lambda: RowLSTM(3, 3).log_prob(np.zeros((2, 4))), "RowLSTM.log_prob: expected X of shape"),
        (lambda: RowLSTM(3, 3).sample(1, method="fast"), "RowLSTM.sample: expected method to be 'cached' or 'naive'"),
        (lambda: DiagonalBiLSTM(3, 3).sample(1, temperature=0.0), "temperature"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()
