"""What all models with an exact log-probability refuse, by name and before anything has changed."""

import re

import numpy as np
import pytest

import gencore as gc
from gencore.models import (
    FVBN,
    MADE,
    NADE,
    RBM,
    VAE,
    DiagonalBiLSTM,
    EoNADE,
    GatedPixelCNN,
    PixelCNN,
    RowLSTM,
)

SMALL = {"n_features": 2, "n_blocks": 1, "n_hidden": 2, "seed": 1}
VECTORS = {
    "NADE": lambda: NADE(6, 3, seed=1),
    "MADE": lambda: MADE(6, (5,), n_masks=2, direct=True, seed=1),
    "FVBN": lambda: FVBN(6, hidden=(2,), seed=1),
    "EoNADE": lambda: EoNADE(6, (5,), n_orderings=2, seed=1),
}
IMAGES = {
    kind.__name__: lambda kind=kind: kind(2, 3, **SMALL)
    for kind in (PixelCNN, GatedPixelCNN, RowLSTM, DiagonalBiLSTM)
}
EXACT = VECTORS | IMAGES
X = np.random.default_rng(0).integers(0, 2, (10, 6))
every_exact_model = pytest.mark.parametrize("name", EXACT)

NOT_A_TEMPERATURE = (0, -1.0, np.nan, np.inf, 1e-40, 1e300, 10**400, "1", None, True, [1.0, 1.0])


@every_exact_model
@pytest.mark.parametrize("method", ["cached", "naive"])
def test_samples_of_temperatures_at_the_ends_are_drawn_without_a_warning(name, method):
    model = EXACT[name]()
    with np.errstate(all="raise"):
        for temperature in (1e-30, 1e30, 1, np.float32(0.5)):
            assert model.sample(3, temperature=temperature, method=method, key=1).max() <= 1


@every_exact_model
@pytest.mark.parametrize("temperature", NOT_A_TEMPERATURE, ids=str)
def test_what_is_no_temperature_is_named(name, temperature):
    words = f"{name}.sample: expected temperature to be a number from 1e-30 to 1e30, received {temperature!r}"
    with pytest.raises(ValueError, match=re.escape(words)):
        EXACT[name]().sample(2, temperature=temperature)


@every_exact_model
@pytest.mark.parametrize("method", ["cached", "naive"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_is_named_by_samples(name, method, value):
    model = EXACT[name]()
    path, parameter = list(model.named_parameters())[-1]
    with gc.no_grad():
        parameter[..., 0] = value
    with pytest.raises(
        ValueError, match=rf"{name}\.sample: expected {re.escape(path)} to be finite, received {value}"
    ):
        model.sample(2, method=method)


@every_exact_model
def test_rows_that_a_mask_hides_are_refused(name):
    model = EXACT[name]()
    assert np.array_equal(model.log_prob(np.ma.array(X, mask=False)), model.log_prob(X))
    hidden = np.ma.array(X, mask=X == 1)
    words = f"{name}.log_prob: expected X without masked elements, received {X.sum()} of them"
    with pytest.raises(ValueError, match=words):
        model.log_prob(hidden)


@every_exact_model
def test_rows_of_different_lengths_and_what_is_no_number_are_named(name):
    model = EXACT[name]()
    with pytest.raises(ValueError, match=rf"{name}\.log_prob: expected X to be rows of equal length"):
        model.log_prob([[0, 1], [0]])
    with pytest.raises(TypeError, match=rf"{name}\.sample: expected partial to hold numbers, received 'abc'"):
        model.sample(2, partial="abc")


@every_exact_model
def test_no_rows_have_no_log_probabilities(name):
    assert EXACT[name]().log_prob(X[:0]).shape == (0,)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("output", ["bernoulli", "categorical", "discretised_logistic"])
def test_no_images_have_gradients_of_0(name, output):
    """By `log_prob_of`, of first order and second."""
    model = globals()[name](2, 3, **SMALL, output=output, levels=5, n_mixtures=2)
    out = model.log_prob_of(np.zeros((0, 2, 3, 1), np.uint8))
    assert out.shape == (0,)
    learned = list(model.parameters())
    first = gc.grad(np.sum(out), learned, create_graph=True)
    second = gc.grad(sum(np.sum(g * g) for g in first), learned, allow_unused=True)
    assert not any(g.numpy().any() for g in (*first, *second) if g is not None)


# --- arguments of a training --------------------------------------------------------------------------------


def not_an_optimizer(parameters):
    return parameters


WRONG = (
    ({"lr": None}, "lr to be above 0, received None"),
    ({"lr": "0.1"}, "lr to be above 0, received '0.1'"),
    ({"lr": True}, "lr to be above 0, received True"),
    ({"clip_norm": "a"}, "clip_norm to be above 0, received 'a'"),
    ({"optimizer": None}, "optimizer to be one of adam, adamw, rmsprop, sgd, adagrad, adadelta, or a function"),
    ({"optimizer": ["adam"]}, "received ['adam']"),
    ({"optimizer": not_an_optimizer}, "optimizer to make an optimizer of the parameters, received list"),
    ({"checkpoint": "no/such/folder/a"}, "checkpoint in a folder that exists, received no/such/folder/a"),
    ({"checkpoint": "."}, "checkpoint to name a file, received a folder, ."),
    ({"checkpoint": 3}, "checkpoint to be a path, received 3"),
    ({"checkpoint": "a", "checkpoint_every": 2.5}, "checkpoint_every to be an integer of at least 1, received 2.5"),
    ({"callbacks": print}, "callbacks to be a sequence of functions, received <built-in function print>"),
    ({"callbacks": [3]}, "callbacks to be a sequence of functions, received 3"),
    ({"callbacks": None}, "callbacks to be a sequence of functions, received None"),
    ({"validation": X[:0]}, "validation to have at least 1 row, received 0"),
)  # fmt: skip
LEARNERS = EXACT | {"RBM": lambda: RBM(6, 3, seed=1), "VAE": lambda: VAE(6, 2, hidden=(4,), seed=1)}
NOT_OF_AN_RBM = {"optimizer", "clip_norm"}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (name, *wrong)
        for name in LEARNERS
        for wrong in WRONG
        if name != "RBM" or not NOT_OF_AN_RBM & wrong[0].keys()
    ],
)
def test_wrong_arguments_of_a_training_are_named_before_it_begins(
    name, options, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = LEARNERS[name]()
    model.save("before")
    with pytest.raises((ValueError, TypeError)) as raised:
        model.fit(X, **{"epochs": 1, "progress": False, **options})
    assert str(raised.value).startswith(f"{name}.fit: expected ")
    assert words in str(raised.value)
    model.save("after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("decay", [None, "a", np.nan, -1, True])
def test_what_is_no_weight_decay_is_named(name, decay):
    words = f"{name}.fit: expected weight_decay to be at least 0, received {decay!r}"
    with pytest.raises(ValueError, match=re.escape(words)):
        VECTORS[name]().fit(X, epochs=1, weight_decay=decay)


@pytest.mark.parametrize(
    ("n_classes", "validation", "words"),
    [
        (0, (X, X[:, 0]), "validation to be images alone, as n_classes is 0, received a tuple of 2"),
        (2, (X, X[:, 0], X), "validation to be images and their labels, received a tuple of 3"),
    ],
)
def test_held_out_images_come_with_labels_where_there_are_classes(n_classes, validation, words):
    model = PixelCNN(2, 3, **SMALL, n_classes=n_classes)
    with pytest.raises(ValueError, match=words):
        model.fit(X, X[:, 0] if n_classes else None, epochs=1, validation=validation)
