"""gencore.distributions: shapes of results, errors of wrong calls."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import gencore as gc
from gencore import distributions as gd
from gencore.distributions import kl

f32 = np.float32
CONTINUOUS = ("Normal", "LogNormal", "Laplace", "Logistic", "Gumbel", "Exponential", "Uniform")


# --- shapes -------------------------------------------------------------------------------------------------


@given(
    shapes=mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3, min_side=0),
    front=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    name=st.sampled_from([*CONTINUOUS, "Bernoulli"]),
)
def test_shapes_broadcast(shapes, front, name):
    a, b, at = shapes.input_shapes
    make = {
        "Exponential": lambda: gd.Exponential(np.full(a, 2, f32)),
        "Bernoulli": lambda: gd.Bernoulli(np.full(a, 0.5, f32)),
    }.get(name, lambda: getattr(gd, name)(np.full(a, -1, f32), np.full(b, 2, f32)))  # fmt: skip
    d = make()
    batch = np.broadcast_shapes(a, b) if name not in ("Exponential", "Bernoulli") else a
    assert d.batch_shape == batch
    for what in ("mean", "mode", "variance", "stddev"):
        assert getattr(d, what).shape == batch
    for p in d.arg_constraints if name != "Bernoulli" else ("probs", "logits"):
        assert getattr(d, p).shape == batch
    assert d.entropy().shape == batch
    draws = d.sample(front, key=1)
    assert (draws.shape, draws.dtype) == (front + batch, f32)
    assert d.log_prob(draws).shape == front + batch
    assert d.log_prob(np.ones(at, f32)).shape == np.broadcast_shapes(at, batch)
    assert gd.kl_divergence(d, d).shape == batch if name != "Logistic" else True
    wide = d.expand(front + batch)
    assert wide.batch_shape == front + batch == wide.mean.shape
    n = len(batch)
    rows = gd.Independent(d, n)
    assert (rows.batch_shape, rows.event_shape) == ((), batch)
    assert rows.log_prob(draws).shape == front
    assert rows.entropy().shape == ()


@given(
    shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3),
    front=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    k=st.integers(1, 5),
)
def test_shapes_of_rows_broadcast(shapes, front, k):
    a, b = shapes.input_shapes
    logits = np.zeros((*a, k), f32)
    d = gd.Categorical(logits=logits)
    assert (d.batch_shape, d.event_shape) == (a, ())
    draws = d.sample(front, key=2)
    assert (draws.shape, draws.dtype) == (front + a, np.int64)
    assert d.log_prob(draws).shape == front + a
    assert d.log_prob(np.zeros(b, int)).shape == np.broadcast_shapes(a, b)
    assert d.probs.shape == d.logits.shape == (*a, k)
    assert d.entropy().shape == d.mean.shape == a
    hot = gd.RelaxedOneHotCategorical(np.full(b, 0.7, f32), logits=logits)
    batch = np.broadcast_shapes(a, b)
    assert (hot.batch_shape, hot.event_shape) == (batch, (k,))
    soft = hot.rsample(front, key=2)
    assert soft.shape == front + batch + (k,)
    assert hot.log_prob(soft).shape == front + batch


def test_broadcasting_changes_no_value():
    loc, scale, x = (
        np.arange(3, dtype=f32),
        np.array([[0.5], [2.0]], f32),
        np.linspace(-1, 1, 6, dtype=f32).reshape(2, 3),
    )
    d = gd.Normal(loc, scale)
    one = [[gd.Normal(loc[j], scale[i, 0]).log_prob(x[i, j]) for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(d.log_prob(x), np.array(one))
    # Terms are float32, their sum over a row is float64, rounded once.
    np.testing.assert_array_equal(
        gd.Independent(d, 1).log_prob(x), np.sum(one, axis=-1, dtype=np.float64).astype(f32)
    )
    np.testing.assert_array_equal(d.expand((4, 2, 3)).log_prob(x)[3], np.array(one))
    assert gd.Normal(gc.tensor(loc), 1.0).mode.numpy().tolist() == loc.tolist()
    assert isinstance(gd.Uniform(gc.tensor([0.0]), 1.0).mode, gc.Tensor)
    for shape in (2, (2,), np.int64(2)):
        assert isinstance(d.log_prob(d.sample(shape, key=0)), np.ndarray)


def test_numbers_take_the_type_of_arrays_beside_them():
    assert gd.Normal(0, 1).dtype == f32
    exact = gd.Normal(np.zeros(2), 0.1)
    assert exact.dtype == np.float64
    assert exact.scale.tolist() == [0.1, 0.1]  # not 0.1 by way of float32
    assert exact.log_prob(0.1).dtype == np.float64
    assert gd.Bernoulli(np.array([0, 1])).dtype == f32


# --- errors -------------------------------------------------------------------------------------------------

ERRORS = [
    (lambda: gd.Normal(0, [1, -1]),
     r"Normal: expected scale to be positive and finite, received -1.0 at \(1,\)"),
    (lambda: gd.LogNormal(np.nan, 1),
     "LogNormal: expected loc to be finite, received nan"),
    (lambda: gd.Gumbel(np.zeros(2), np.ones(3)),
     r"Gumbel: expected loc and scale of shapes that broadcast, received \(2,\) and \(3,\)"),
    (lambda: gd.Exponential(0),
     "Exponential: expected rate to be positive and finite, received 0.0"),
    (lambda: gd.Uniform([1, 0], 1.0),
     r"Uniform: expected high to be above low, received 1.0 at \(0,\)"),
    (lambda: gd.Bernoulli(),
     "Bernoulli: expected one of probs and logits, received neither"),
    (lambda: gd.Categorical([1.0], [1.0]),
     "Categorical: expected one of probs and logits, received both"),
    (lambda: gd.Bernoulli(1.5),
     "Bernoulli: expected probs to be from 0 to 1, received 1.5"),
    (lambda: gd.Bernoulli(logits=np.inf),
     "Bernoulli: expected logits to be finite, received inf"),
    (lambda: gd.Categorical([[0, 1], [0, 0]]),
     r"Categorical: expected probs to be rows of finite numbers from 0 up, not all 0, received \[0. 0.\] at \(1,\)"),
    (lambda: gd.Categorical(logits=[-np.inf, -np.inf]),
     "Categorical: expected logits to be rows of numbers below inf"),
    (lambda: gd.Categorical(0.5),
     r"Categorical: expected probs of shape \(..., K\) with K of at least 1, received \(\)"),
    (lambda: gd.RelaxedBernoulli(0, 0.5),
     "RelaxedBernoulli: expected temperature to be positive and finite, received 0.0"),
    (lambda: gd.Normal(0, 1).log_prob(np.nan),
     "Normal.log_prob: expected value to be a number, not NaN, received nan"),
    (lambda: gd.LogNormal(0, 1).log_prob(-1),
     "LogNormal.log_prob: expected value to be at least 0, received -1.0"),
    (lambda: gd.Exponential(1).log_prob(-1),
     "Exponential.log_prob: expected value to be at least 0, received -1.0"),
    (lambda: gd.Uniform(0, [3, 1]).log_prob(2),
     r"Uniform.log_prob: expected value to be from low to high, received 2.0 at \(1,\)"),
    (lambda: gd.Bernoulli(0.5).log_prob(0.5),
     "Bernoulli.log_prob: expected value to be 0 or 1, received 0.5"),
    (lambda: gd.Categorical([1, 1]).log_prob(2),
     "Categorical.log_prob: expected value to be a whole number from 0 to 1, received 2.0"),
    (lambda: gd.RelaxedOneHotCategorical(1.0, [1, 1]).log_prob([0.4, 0.4]),
     "RelaxedOneHotCategorical.log_prob: expected value to be rows from 0 up that sum to 1"),
    (lambda: gd.RelaxedOneHotCategorical(1.0, [1, 1]).log_prob(np.ones(3) / 3),
     r"RelaxedOneHotCategorical.log_prob: expected value of event shape \(2,\)"),
    (lambda: gd.Normal([0, 0], 1).cdf(np.ones(3)),
     r"Normal.cdf: expected value of a shape that broadcasts with batch shape \(2,\), received \(3,\)"),
    (lambda: gd.Laplace(0, 1).icdf(1.5),
     "Laplace.icdf: expected value to be from 0 to 1, received 1.5"),
    (lambda: gd.Normal([0, 0], 1).expand((3,)),
     r"Normal.expand: expected a shape that \(2,\) broadcasts to, received \(3,\)"),
    (lambda: gd.Independent(gd.Normal([0, 0], 1), 2),
     "Independent: expected reinterpreted_batch_ndims from 0 to 1, .* received 2"),
    (lambda: gd.kl_divergence(gd.Normal([0, 0], 1), gd.Normal([0, 0, 0], 1)),
     r"kl_divergence: expected batch shapes that broadcast, received \(2,\) and \(3,\)"),
    (lambda: gd.kl_divergence(gd.Categorical([1, 1]), gd.Categorical([1, 1, 1])),
     "kl_divergence: expected as many categories in both, received 2 and 3"),
    (lambda: gd.kl_divergence(gd.Independent(gd.Normal([0, 0], 1), 1), gd.Independent(gd.Normal([0, 0], 1), 0)),
     "kl_divergence: expected Independent of equal event shapes"),
]  # fmt: skip
TYPE_ERRORS = [
    (lambda: gd.Normal("a", 1),
     "Normal: expected loc to be numbers, received 'a'"),
    (lambda: gd.Normal(0, 1).log_prob(None),
     "Normal.log_prob: expected value to be numbers, received None"),
    (lambda: gd.kl_divergence(gd.Logistic(0, 1), gd.Bernoulli(0.5)),
     "kl_divergence: expected a pair with a known divergence, received Logistic and Bernoulli"),
    (lambda: gd.kl_divergence(gd.Normal(0, 1), 3),
     "kl_divergence: expected q to be a Distribution, received 3"),
    (lambda: gd.Independent(3, 0),
     "Independent: expected base_distribution to be a Distribution, received int"),
    (lambda: gd.Normal(0, 1).sample(),
     "missing 1 required keyword-only argument: 'key'"),
    (lambda: gd.Normal(0, 1).sample(key="a"),
     "expected key to be a Key, an integer or a Generator, received 'a'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_wrong_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("call", "message"), TYPE_ERRORS)
def test_wrong_types_are_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_what_is_not_known_says_so():
    relaxed = gd.RelaxedBernoulli(0.5, 0.5)
    for what in ("mean", "variance", "stddev", "mode"):
        with pytest.raises(NotImplementedError, match=r"RelaxedBernoulli: .* not known in closed form"):
            getattr(relaxed, what)
    with pytest.raises(NotImplementedError, match="RelaxedBernoulli: entropy is not known"):
        relaxed.entropy()
    with pytest.raises(NotImplementedError, match="Bernoulli: cdf is not known"):
        gd.Bernoulli(0.5).cdf(1)
    for d in (gd.Bernoulli(0.5), gd.Categorical([1, 1])):
        assert not d.has_rsample
        with pytest.raises(NotImplementedError, match="no pathwise gradient; use sample"):
            d.rsample(key=1)


def test_a_rule_can_be_registered_and_covers_derived_classes(monkeypatch):
    monkeypatch.setattr(kl, "_RULES", dict(kl._RULES))

    class Mine(gd.Logistic):
        pass

    gd.register_kl(gd.Logistic, gd.Logistic)(lambda p, q: np.full((), 7.0))
    assert gd.kl_divergence(Mine(0, 1), gd.Logistic(0, 1)) == 7


@pytest.mark.parametrize("module", ["continuous", "discrete", "independent", "kl"])
def test_examples_of_the_docstrings(module, monkeypatch):
    monkeypatch.setattr(kl, "_RULES", dict(kl._RULES))
    found = doctest.testmod(importlib.import_module(f"gencore.distributions.{module}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_without_validation_nothing_is_refused():
    assert np.isnan(gd.Normal(0, -1, validate_args=False).scale - np.nan)
    assert gd.Normal(np.nan, 1.0, validate_args=False).batch_shape == ()
    assert gd.Uniform(1.0, 0.0, validate_args=False).low == 1
