"""NADE, MADE, FVBN and EoNADE of classes: for each class an exact model, which shares all but what the label adds."""

import itertools
import re

import numpy as np
import pytest
from reference.statistics import assert_distributed

import gencore as gc
from gencore.models import FVBN, MADE, NADE, EoNADE

D, CLASSES = 5, 3
STATES = np.array(list(itertools.product([0, 1], repeat=D)), np.uint8)
ORDER = (3, 1, 0, 4, 2)
MODELS = {
    "nade": lambda n: NADE(D, 4, n_classes=n, seed=1),
    "nade, order": lambda n: NADE(D, 4, order=ORDER, n_classes=n, seed=2),
    "made": lambda n: MADE(D, (6, 5), n_classes=n, seed=3),
    "made, direct, masks": lambda n: MADE(
        D, (6,), direct=True, order="random", n_masks=3, activation="tanh", n_classes=n, seed=4
    ),
    "fvbn": lambda n: FVBN(D, order=ORDER, n_classes=n, seed=5),
    "fvbn, hidden": lambda n: FVBN(D, hidden=(2, 3), n_classes=n, seed=6),
    "eonade": lambda n: EoNADE(D, (6, 5), n_orderings=3, n_classes=n, seed=7),
}
every_model = pytest.mark.parametrize("name", MODELS)


def made(name):
    """With parameters that make conditionals and labels matter."""
    model = MODELS[name](CLASSES)
    with gc.no_grad():
        for k, p in enumerate(model.parameters()):
            p += np.random.default_rng([3, k]).normal(0, 0.8, p.shape).astype(np.float32)
    return model


def of_class(model, name, label):
    """A model without classes whose biases have what the label adds."""
    parameters = {k: p.numpy().copy() for k, p in model.named_parameters()}
    first = "hidden_bias" if isinstance(model, NADE) else "layers.0.bias"
    last = next((k for k in reversed(parameters) if re.fullmatch(r"layers\.\d+\.bias", k)), None)
    for what, bias in (("label_weight", first), ("label_bias", last)):
        added = parameters.pop(what, None)
        if added is not None:
            parameters[bias] = parameters[bias] + added[label]
    plain = MODELS[name](0)
    plain.load_state_dict(plain.state_dict() | parameters)
    return plain


@every_model
def test_each_class_is_a_model_of_its_own(name):
    """Logits of size 10 at most, sums of 10 terms: 100 roundings, and those of the label's bits."""
    model = made(name)
    for label in range(CLASSES):
        found = model.log_prob(STATES, label)
        np.testing.assert_allclose(found, of_class(model, name, label).log_prob(STATES), rtol=1e-5, atol=2e-5)
        assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(model.log_prob(STATES, 0) - model.log_prob(STATES, 1)).max() > 0.1
    labels = np.arange(len(STATES)) % CLASSES
    each = np.stack([model.log_prob(STATES, label) for label in range(CLASSES)])
    np.testing.assert_allclose(
        model.log_prob(STATES, labels), each[labels, np.arange(len(STATES))], rtol=1e-6
    )


@every_model
def test_samples_follow_their_class_and_are_the_naive_ones(name):
    model = made(name)
    for label in range(CLASSES):
        p = np.exp(model.log_prob(STATES, label))
        drawn = model.sample(20_000, labels=label, key=3)
        assert_distributed(drawn.astype(int) @ 2 ** np.arange(D)[::-1], p / p.sum(), f"{name}, {label}")
    labels = np.arange(60) % CLASSES
    partial = np.where(np.arange(D) % 2, np.random.default_rng(1).integers(0, 2, (60, D)), np.nan)
    for given in ({}, {"partial": partial}, {"partial": partial[0], "temperature": 0.5}):
        cached, naive = (
            model.sample(60, labels=labels, key=4, method=m, **given) for m in ("cached", "naive")
        )
        assert np.array_equal(cached, naive)
        if "partial" in given:
            known = ~np.isnan(np.broadcast_to(given["partial"], cached.shape))
            assert np.array_equal(cached[known], np.broadcast_to(given["partial"], cached.shape)[known])


@every_model
def test_gradients_are_differences_of_the_log_probability(name):
    """By parameters of order 1, whose third derivatives are too: 1e-4 of truncation, and 2e-6 / 0.01 of rounding."""
    model, labels = made(name), np.arange(len(STATES)) % CLASSES
    np.sum(model.log_prob_of((STATES, labels))).backward()
    for k, p in model.named_parameters():
        if not k.startswith("label"):
            continue
        direction = np.random.default_rng(2).normal(0, 0.2, p.shape).astype(np.float32)
        sums = []
        for sign in (1, -1):
            with gc.no_grad():
                p += np.float32(sign * 0.01) * direction
            sums.append(model.log_prob(STATES, labels).sum())
            with gc.no_grad():
                p -= np.float32(sign * 0.01) * direction
        slope = (sums[0] - sums[1]) / 0.02
        assert np.sum(p.grad.numpy() * direction) == pytest.approx(slope, rel=0.01, abs=0.05)


@every_model
def test_it_learns_what_a_label_means_and_goes_on_from_files(name, tmp_path):
    """Each class a row of its own, with one bit in ten turned."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 600)
    rows = (STATES[[5, 19, 30]][labels] ^ (rng.random((600, D)) < 0.1)).astype(np.uint8)
    model = MODELS[name](CLASSES)
    path = tmp_path / "model.safetensors"
    options = {"lr": 0.02, "batch_size": 50, "progress": False, "weight_decay": 1e-5}
    held_out = rows[500:], labels[500:]
    history = model.fit(rows[:500], labels[:500], epochs=30, validation=held_out, checkpoint=path, **options)
    entropy = -D * (0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    assert -history["validation_log_prob"][-1] == pytest.approx(entropy, abs=0.4)
    assert model.log_prob(rows, labels).mean() > model.log_prob(rows, (labels + 1) % CLASSES).mean() + 1
    back = type(model).load(path)
    assert np.array_equal(back.log_prob(rows, labels), model.log_prob(rows, labels))
    assert back.n_classes == CLASSES


X = STATES[:6]
BAD = {
    "none": (lambda m: m.log_prob(X), ".log_prob: expected labels from 0 to 2, received none"),
    "beyond": (lambda m: m.log_prob(X, 3), ".log_prob: expected labels from 0 to 2, received 3"),
    "too few": (
        lambda m: m.log_prob(X, [0, 1]),
        ".log_prob: expected labels of shape () or (6,), received (2,)",
    ),
    "floats": (
        lambda m: m.sample(2, labels=1.0),
        ".sample: expected labels to be integers, received dtype float64",
    ),
    "fit": (lambda m: m.fit(X, epochs=1), ".fit: expected labels from 0 to 2, received none"),
    "held out": (
        lambda m: m.fit(X, 0, epochs=1, validation=X),
        ".fit: expected labels from 0 to 2, received none",
    ),
    "three": (
        lambda m: m.fit(X, 0, epochs=1, validation=(X, 0, 0)),
        ".fit: expected validation to be rows and their labels, received a tuple of 3",
    ),
}


@pytest.mark.parametrize("name", ["nade", "made", "fvbn", "eonade"])
@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_wrong_labels_are_named(name, call, words):
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        call(MODELS[name](CLASSES))


@pytest.mark.parametrize("name", ["nade", "made", "fvbn", "eonade"])
def test_models_without_classes_take_no_labels(name):
    with pytest.raises(ValueError, match="expected no labels, as n_classes is 0"):
        MODELS[name](0).log_prob(X, 1)
    with pytest.raises(ValueError, match=r"expected n_classes to be .* received -1"):
        MODELS[name](-1)
