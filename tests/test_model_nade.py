"""NADE: exact probabilities, samples, learning, files."""

import itertools
import pickle
import re

import numpy as np
import pytest
from reference.statistics import assert_distributed

import gencore as gc
from gencore.models import NADE
from gencore.train import DivergenceError

STATES = np.array(list(itertools.product([0, 1], repeat=6)), np.uint8)
ORDERS = [None, (3, 1, 5, 0, 2, 4)]


def make(order=None, **options):
    model = NADE(6, 5, order=order, seed=1, **options)
    rng = np.random.default_rng(2)
    with gc.no_grad():
        for p in model.parameters():
            p += rng.normal(0, 1, p.shape).astype(np.float32)
    return model


@pytest.mark.parametrize("order", ORDERS)
def test_probabilities_are_those_of_the_definition(order):
    model = make(order)
    w, v, c, b = (p.numpy().astype(float) for p in
                  (model.weight, model.output_weight, model.hidden_bias, model.visible_bias))  # fmt: skip
    log_p = np.zeros(len(STATES))
    a = np.tile(c, (len(STATES), 1))
    for d in range(6) if order is None else order:
        logit = b[d] + (1 / (1 + np.exp(-a))) @ v[d]
        log_p += STATES[:, d] * logit - np.logaddexp(0, logit)
        a += STATES[:, d : d + 1] * w[d]
    found = model.log_prob(STATES)
    np.testing.assert_allclose(found, log_p, rtol=2e-6)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_samples_follow_the_probabilities_and_are_the_naive_ones(order):
    model = make(order)
    drawn = model.sample(40_000, key=3)
    place = drawn.astype(int) @ 2 ** np.arange(6)[::-1]
    p = np.exp(model.log_prob(STATES))
    assert_distributed(place, p / p.sum(), "states")
    for temperature in (1.0, 0.5):
        cached = model.sample(50, key=4, temperature=temperature)
        assert np.array_equal(cached, model.sample(50, key=4, temperature=temperature, method="naive"))


@pytest.mark.parametrize("method", ["cached", "naive"])
def test_completions_follow_what_comes_after_given_dimensions(method):
    model = make(ORDERS[1])
    partial = np.full(6, np.nan)
    first = list(ORDERS[1][:3])
    partial[first] = [1, 0, 1]
    drawn = model.sample(20_000, key=5, partial=partial, method=method)
    assert (drawn[:, first] == [1, 0, 1]).all()
    p = np.where((STATES[:, first] == [1, 0, 1]).all(1), np.exp(model.log_prob(STATES)), 0)
    place = drawn.astype(int) @ 2 ** np.arange(6)[::-1]
    kept = np.flatnonzero(p)
    assert_distributed(np.searchsorted(kept, place), p[kept] / p.sum(), method)
    masked = np.ma.masked_array(np.nan_to_num(partial), np.isnan(partial))
    assert np.array_equal(model.sample(9, key=5, partial=np.tile(partial, (9, 1))), drawn[:9])
    assert np.array_equal(model.sample(9, key=5, partial=masked), drawn[:9])


def test_it_learns_digits_and_goes_on_from_files(tmp_path):
    data = gc.datasets.load("digits")
    path = tmp_path / "n.safetensors"
    model = NADE(64, 100, seed=0)
    history = model.fit(
        data.train, epochs=30, lr=2e-3, validation=data.valid, progress=False, checkpoint=path
    )
    assert history["validation_log_prob"][-1] > -21  # independent pixels have -25
    assert history["validation_log_prob"][-1] == pytest.approx(model.log_prob(data.valid).mean(), abs=1e-3)
    for other in (NADE.load(path), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.sample(4, key=1), model.sample(4, key=1))
        assert np.array_equal(other.log_prob(data.test), model.log_prob(data.test))
    drawn = model.sample(500, key=2)
    assert np.abs(drawn.mean(0) - data.train.mean(0)).mean() < 0.05


def test_an_order_survives_a_file(tmp_path):
    model = make(ORDERS[1])
    model.save(tmp_path / "n")
    assert np.array_equal(NADE.load(tmp_path / "n").log_prob(STATES), model.log_prob(STATES))


def test_weight_decay_shrinks_both_weights():
    data = gc.datasets.load("digits").train[:300]
    plain, decayed = NADE(64, 20, seed=0), NADE(64, 20, seed=0)
    plain.fit(data, epochs=30, lr=3e-3, progress=False)
    decayed.fit(data, epochs=30, lr=3e-3, weight_decay=1.0, progress=False)
    for name in ("weight", "output_weight"):
        assert (
            np.square(getattr(decayed, name).numpy()).sum()
            < 0.5 * np.square(getattr(plain, name).numpy()).sum()
        )


def test_divergence_is_reported():
    with pytest.raises(DivergenceError, match="became"):
        make().fit(STATES, epochs=3, batch_size=8, lr=1e38, optimizer="sgd", progress=False)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: NADE(0, 3), "NADE: expected n_visible to be an integer of at least 1, received 0"),
        (lambda m: NADE(3, 3, order=(0, 1, 1)), "expected order to be a permutation of 0 to 2"),
        (lambda m: NADE(3, 3, order=[[1], [2, 3]]), "NADE: expected order to be a permutation of 0 to 2, received"),
        (lambda m: m.log_prob(np.zeros((2, 5))), "NADE.log_prob: expected X of shape (n, 6), received (2, 5)"),
        (lambda m: m.log_prob(np.full((2, 6), 0.5)), "0 and 1 only, received 0.5 at (0, 0)"),
        (lambda m: m.sample(0), "expected n to be an integer of at least 1"),
        (lambda m: m.sample(2, method="fast"), "expected method to be 'cached' or 'naive'"),
        (lambda m: m.sample(2, temperature=-1.0), "temperature"),
        (lambda m: m.sample(2, partial=np.zeros((3, 6))), "expected partial of shape (6,) or (2, 6), received (3, 6)"),
        (lambda m: m.sample(2, partial=np.full(6, 3.0)), "0 and 1 only, received 3.0"),
        (lambda m: m.fit(STATES, epochs=1, weight_decay=-1), "expected weight_decay to be at least 0"),
        (lambda m: m.fit(STATES, epochs=1, optimizer="adamax"), "NADE.fit: expected optimizer to be one of"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(make())
