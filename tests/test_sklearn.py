"""gencore.sklearn.BernoulliRBM beside scikit-learn's own: the same contract, the same learning, the same numbers."""

import contextlib
import io
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from reference import rbm as reference
from scipy import sparse
from scipy.special import expit
from sklearn import neural_network
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

import gencore
from gencore.sklearn import BernoulliRBM

DIGITS = gencore.datasets.load("digits")

# scikit-learn makes the same two exceptions for its own: `score_samples` draws a unit for each row by its place.
RANDOM_SCORES = "score_samples is random, row by row"
EXCEPTIONS = dict.fromkeys(
    ("check_methods_subset_invariance", "check_methods_sample_order_invariance"), RANDOM_SCORES
)


@parametrize_with_checks([BernoulliRBM(n_components=5)], expected_failed_checks=lambda estimator: EXCEPTIONS)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def fitted(**changes):
    settings = {"n_components": 20, "n_iter": 2, "random_state": 0} | changes
    return BernoulliRBM(**settings).fit(DIGITS.train[:200])


def machine(estimator):
    """``w, b, c`` in the layout of the references."""
    return estimator.components_.T, estimator.intercept_visible_, estimator.intercept_hidden_


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool])
def test_same_names_shapes_and_dtypes_as_scikit_learn(dtype):
    X = DIGITS.train[:55].astype(dtype)
    settings = {"n_components": 7, "batch_size": 10, "n_iter": 1, "random_state": 0}
    ours, theirs = BernoulliRBM(**settings).fit(X), neural_network.BernoulliRBM(**settings).fit(X)
    assert ours.get_params() == theirs.get_params()
    public = {name for name in vars(theirs) if not name.startswith("_")}
    assert {name for name in vars(ours) if not name.startswith("_")} == public
    for name in ("components_", "intercept_hidden_", "intercept_visible_", "h_samples_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
    for method in ("transform", "gibbs", "score_samples"):
        a, b = getattr(ours, method)(X), getattr(theirs, method)(X)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), method
    assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
    assert set(np.unique(ours.h_samples_)) <= {0.0, 1.0}


def test_one_parameter_update_is_the_stated_gradient():
    """From zero biases and tiny weights: all terms of the update but the chains' are known."""
    X = DIGITS.train[:30].astype(np.float64)
    model = BernoulliRBM(n_components=6, batch_size=2000, learning_rate=0.5, n_iter=1, random_state=3).fit(X)
    w0 = np.random.RandomState(3).normal(0, 0.01, (6, 64)).T  # scikit-learn's initial weights for this seed
    # The chains of 2,000 rows start at fair coins; with such weights they stay there to about 0.01 * sqrt(64) / 4.
    data = reference.gradient_statistics(w0, np.zeros(6), X, np.full(30, 1 / 30))
    expected_b = 0.5 * (data[1] - 0.5)
    noise = 0.5 * 0.5 / np.sqrt(2000)
    assert np.abs(model.intercept_visible_ - expected_b).max() < 5 * noise + 0.5 * 0.02
    model_part = (data[0] - (model.components_.T - w0) / 0.5).mean()
    assert abs(model_part - 0.25) < 0.01  # E[v] E[h] of independent fair coins


def test_transform_is_the_conditional_mean():
    model = fitted()
    w, _, c = machine(model)
    for X in (DIGITS.test, DIGITS.test * 0.37, sparse.csr_matrix(DIGITS.test), DIGITS.test.tolist()):
        dense = X.toarray() if sparse.issparse(X) else np.asarray(X)
        # float32 fields of 64 terms: relative error below 64 roundings of the largest partial sum, here under 32.
        np.testing.assert_allclose(model.transform(X), expit(dense @ w + c), atol=64 * 32 * 2.0**-24 / 4)


def test_gibbs_draws_from_the_conditionals():
    model = fitted()
    w, b, c = machine(model)
    start = np.tile(DIGITS.test[:1], (20_000, 1))
    drawn = model.gibbs(start)
    assert drawn.dtype == bool
    # Given v, h are independent; E[v'] by draws of h from float64 means.
    h = np.random.default_rng(0).random((20_000, 20)) < expit(start[:1] @ w + c)
    expected = expit(h @ w.T + b).mean(axis=0)
    error = np.sqrt(2 * 0.25 / 20_000)  # at most, of the difference of two means of 20,000
    assert np.abs(drawn.mean(axis=0) - expected).max() < 5 * error
    assert (model.gibbs(start) != drawn).any(), "each call draws anew"


def test_score_samples_estimates_the_pseudo_likelihood():
    model = fitted()
    X = DIGITS.test[:50]
    conditionals = reference.log_conditionals(*machine(model), X)
    scores = np.array([model.set_params(random_state=seed).score_samples(X) for seed in range(300)])
    # Each score is 64 times one of the row's conditionals.
    gaps = np.abs(scores[:, :, None] / 64 - conditionals[None]).min(axis=2)
    assert gaps.max() < 1e-4
    error = (64 * conditionals).std(axis=1) / np.sqrt(300)
    assert (np.abs(scores.mean(axis=0) - conditionals.sum(axis=1)) < 5 * error).all()


def test_partial_fit_by_batches_is_fit():
    X = DIGITS.train[:95]
    whole = BernoulliRBM(n_components=9, batch_size=10, n_iter=1, random_state=4).fit(X.astype(np.float64))
    parts = BernoulliRBM(n_components=9, batch_size=10, random_state=4)
    for first in range(0, 95, 10):
        parts.partial_fit(X[first : first + 10])
    for name in ("components_", "intercept_hidden_", "intercept_visible_", "h_samples_"):
        assert np.array_equal(getattr(parts, name), getattr(whole, name)), name


def test_sparse_and_every_dtype_give_the_same_bits():
    X = DIGITS.train[:100]
    expected = BernoulliRBM(n_components=9, n_iter=2, random_state=1).fit(X.astype(np.float32))
    for same in (X, X.astype(bool), X.astype(float), sparse.csr_matrix(X), sparse.csr_array(X.astype(float))):
        model = BernoulliRBM(n_components=9, n_iter=2, random_state=1).fit(same)
        assert np.array_equal(model.components_, expected.components_)
        assert np.array_equal(model.score_samples(same), expected.score_samples(X.astype(float)))


def test_threads_do_not_change_the_result():
    before, weights = gencore.num_threads(), []
    try:
        for threads in (1, 2):
            gencore.set_num_threads(threads)
            weights.append(fitted(batch_size=100).components_)
    finally:
        gencore.set_num_threads(before)
    assert np.array_equal(*weights)


def test_assigned_parameters_are_used():
    model = fitted()
    model.components_ = np.zeros((20, 64))
    model.intercept_hidden_ = np.linspace(-3, 3, 20)
    np.testing.assert_allclose(
        model.transform(DIGITS.test[:2]), expit([np.linspace(-3, 3, 20)] * 2), atol=1e-6
    )


def test_clone_pickle_and_a_grid_search_over_a_pipeline():
    model = fitted()
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.transform(DIGITS.test), model.transform(DIGITS.test))
    assert np.array_equal(
        again.partial_fit(DIGITS.train[:20]).components_, model.partial_fit(DIGITS.train[:20]).components_
    )
    assert not hasattr(clone(model), "components_")
    steps = [("rbm", BernoulliRBM(n_iter=3, random_state=0)), ("classify", LogisticRegression(max_iter=500))]
    search = GridSearchCV(Pipeline(steps), {"rbm__n_components": [2, 40]}, cv=2)
    search.fit(DIGITS.train[:400], DIGITS.train_labels[:400])
    assert search.best_params_ == {"rbm__n_components": 40}


def test_verbose_prints_what_scikit_learn_prints():
    def said(kind):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            kind(n_components=3, n_iter=2, verbose=1, random_state=0).fit(DIGITS.train[:40])
        return re.sub(r"-?\d+\.\d+", "#", out.getvalue())

    assert said(BernoulliRBM) == said(neural_network.BernoulliRBM)


def test_wrong_parameters_and_data_are_named():
    for name, wrong in (("n_components", 0), ("learning_rate", -1.0), ("batch_size", 2.5), ("n_iter", -1)):
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            BernoulliRBM(**{name: wrong}).fit(DIGITS.train[:20])
    with pytest.raises(ValueError, match="NaN"):
        BernoulliRBM().fit([[0.0, np.nan]])
    with pytest.raises(ValueError, match="64"):
        fitted().transform(np.zeros((2, 63)))
    with pytest.raises(ValueError, match=r"\(n, 64\)|2, 64"):
        fitted().gibbs(np.zeros((2, 63)))


def test_a_missing_scikit_learn_is_named_with_the_cure():
    code = """
        import sys
        sys.modules["sklearn"] = None
        import gencore
        try:
            gencore.sklearn
        except ImportError as error:
            print(error)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(gencore.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert "pip install 'gencore[sklearn]'" in run.stdout


def quality(estimator):
    """Exact pseudo-log-likelihood a test image, and test accuracy of a logistic regression on the features."""
    estimator.fit(DIGITS.train.astype(np.float32))
    pseudo = reference.log_conditionals(*machine(estimator), DIGITS.test).sum(axis=1).mean()
    classifier = LogisticRegression(max_iter=300).fit(estimator.transform(DIGITS.train), DIGITS.train_labels)
    return pseudo, classifier.score(estimator.transform(DIGITS.test), DIGITS.test_labels)


def test_learns_as_well_as_scikit_learn():
    """Means over 5 seeds differ by less than 4 standard errors of their difference, from the seeds' own spread."""
    settings = {"n_components": 50, "n_iter": 10, "learning_rate": 0.05}
    with threadpool_limits(
        1, user_api="blas"
    ):  # on a busy machine its threads wait for each other at every product
        ours, theirs = (
            np.array([quality(kind(random_state=seed, **settings)) for seed in range(5)])
            for kind in (BernoulliRBM, neural_network.BernoulliRBM)
        )
    error = np.sqrt((ours.var(axis=0, ddof=1) + theirs.var(axis=0, ddof=1)) / 5)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * error).all(), (ours, theirs)
    rates = (DIGITS.train.sum(axis=0) + 1) / (len(DIGITS.train) + 2)
    independent = np.where(DIGITS.test, np.log(rates), np.log1p(-rates)).sum(axis=1).mean()
    assert ours[:, 0].min() > independent + 5  # nats: it has learned
