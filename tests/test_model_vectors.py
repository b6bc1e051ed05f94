"""MADE, FVBN and EoNADE: exact probabilities, nothing seen ahead, samples, learning, files."""

import itertools
import math
import pickle
import re

import numpy as np
import pytest
from reference.statistics import assert_distributed
from scipy.special import expit, logsumexp

import gencore as gc
from gencore.models import FVBN, MADE, EoNADE
from gencore.train import DivergenceError

D = 6
STATES = np.array(list(itertools.product([0, 1], repeat=D)), np.uint8)
ORDER = (3, 1, 5, 0, 2, 4)

MASKED = {
    "made": lambda: MADE(D, (7,), seed=1),
    "made, two layers, order": lambda: MADE(D, (9, 5), order=ORDER, activation="tanh", seed=2),
    "made, direct": lambda: MADE(D, (5,), direct=True, order=ORDER, activation="softplus", seed=3),
    "made, masks": lambda: MADE(D, (8, 7), n_masks=3, seed=4),
    "made, masks and orders": lambda: MADE(D, (8,), n_masks=4, order="random", direct=True, seed=5),
    "fvbn": lambda: FVBN(D, seed=6),
    "fvbn, order": lambda: FVBN(D, order=ORDER, seed=7),
    "fvbn, hidden": lambda: FVBN(D, hidden=(3,), order=ORDER, seed=8),
    "fvbn, linear": lambda: FVBN(D, hidden=(2, 3), activation="identity", seed=12),
    "fvbn, two layers": lambda: FVBN(D, hidden=(3, 2), activation="logistic", seed=9),
}
MODELS = MASKED | {
    "eonade": lambda: EoNADE(D, (8, 5), n_orderings=3, seed=10),
    "eonade, one layer": lambda: EoNADE(D, (9,), n_orderings=1, activation="tanh", seed=11),
}


def made(name):
    """With parameters that make conditionals matter."""
    model = MODELS[name]()
    with gc.no_grad():
        for k, p in enumerate(model.parameters()):
            # Masked weights are moved, too: nothing may come of it.
            p += np.random.default_rng([2, k]).normal(0, 1, p.shape).astype(np.float32)
    return model


def place(states):
    return states.astype(int) @ 2 ** np.arange(D)[::-1]


# --- probabilities ------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "logistic": expit,
    "softplus": lambda x: np.logaddexp(0, x),
}


def log_prob_of_masked(model, x):
    """In float64, with masks as the papers write them: inputs from 1 on, the mean of probabilities over masks."""
    each = []
    for i in range(model.n_masks):
        degrees = [d + 1 for d in model._degrees[i]]
        h, f = x.astype(float), ACTIVATIONS[model.activation]
        for l, layer in enumerate(model.layers):
            w, b = layer.weight.numpy().astype(float), layer.bias.numpy().astype(float)
            if l + 1 < len(model.layers):
                h = f(h @ (w * (degrees[l + 1] >= degrees[l][:, None])) + b)
            else:
                z = h @ (w * (degrees[0] > degrees[l][:, None])) + b
        if model.direct is not None:
            z = z + x @ (model.direct.numpy() * (degrees[0] > degrees[0][:, None]))
        each.append(np.sum(x * z - np.logaddexp(0, z), axis=1))
    return logsumexp(each, axis=0) - math.log(len(each))


@pytest.mark.parametrize("name", MASKED)
def test_probabilities_are_those_of_masked_weights(name):
    model = made(name)
    np.testing.assert_allclose(
        model.log_prob(STATES), log_prob_of_masked(model, STATES), rtol=1e-5, atol=1e-5
    )


def log_prob_in_order(model, x, order):
    """EoNADE by its definition: one pass for each dimension, with a mark for each that comes before."""
    total, f = np.zeros(len(x)), ACTIVATIONS[model.activation]
    for t, d in enumerate(order):
        known = np.isin(np.arange(D), order[:t])
        h = np.concatenate([x * known, np.tile(known, (len(x), 1))], axis=1).astype(float)
        for i, layer in enumerate(model.layers):
            h = h @ layer.weight.numpy() + layer.bias.numpy()
            h = f(h) if i + 1 < len(model.layers) else h
        total += x[:, d] * h[:, d] - np.logaddexp(0, h[:, d])
    return total


@pytest.mark.parametrize("name", ["eonade", "eonade, one layer"])
def test_probabilities_of_orders_and_their_mean(name):
    model = made(name)
    each = [log_prob_in_order(model, STATES, order) for order in model.orders]
    expected = logsumexp(each, axis=0) - math.log(len(each))
    np.testing.assert_allclose(model.log_prob(STATES), expected, rtol=1e-5, atol=1e-5)
    found = model.log_prob(STATES, orders=[ORDER])
    np.testing.assert_allclose(found, log_prob_in_order(model, STATES, ORDER), rtol=1e-5, atol=1e-5)
    assert np.abs(found - each[0]).max() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_sum_to_one(name):
    assert np.exp(made(name).log_prob(STATES)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_few_dimensions(d):
    states = np.array(list(itertools.product([0, 1], repeat=d)), np.uint8)
    for model in (
        MADE(d, (4, 3)),
        MADE(d, n_masks=2, order="random"),
        FVBN(d),
        FVBN(d, hidden=(2,)),
        EoNADE(d, (4,)),
    ):
        assert np.exp(model.log_prob(states)).sum() == pytest.approx(1, abs=1e-5)
        assert np.array_equal(model.sample(20, key=1), model.sample(20, key=1, method="naive"))


@pytest.mark.parametrize("name", MASKED)
def test_no_logit_sees_its_own_dimension_or_a_later_one(name):
    model = made(name)
    rng = np.random.default_rng(3)
    for mask in range(model.n_masks):
        order = model.order(mask)
        x = gc.tensor(rng.normal(0, 1, (4, D)).astype(np.float32), requires_grad=True)
        reached = np.zeros((D, D), bool)  # by t, what it has come from
        for t, d in enumerate(order):
            (g,) = gc.grad(np.sum(model.logits(x, mask)[:, int(d)]), [x])
            reached[t] = np.any(g.numpy() != 0, axis=0)[order]
        assert not np.triu(reached).any()
        assert model.n_masks > 1 or "made" in name or np.array_equal(reached, np.tri(D, k=-1, dtype=bool))


# --- samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_samples_follow_the_probabilities_and_are_the_naive_ones(name):
    model = made(name)
    drawn = model.sample(40_000, key=3)
    p = np.exp(model.log_prob(STATES))
    assert_distributed(place(drawn), p / p.sum(), name)
    for temperature in (1.0, 0.5):
        cached = model.sample(50, key=4, temperature=temperature)
        assert np.array_equal(cached, model.sample(50, key=4, temperature=temperature, method="naive"))
    assert np.array_equal(model.sample(50, key=3), drawn[:50])
    assert np.any(model.sample(50, key=4) != model.sample(50, key=5))


@pytest.mark.parametrize("method", ["cached", "naive"])
@pytest.mark.parametrize("name", [n for n in MASKED if "order" in n and "masks" not in n])
def test_completions_follow_what_comes_after_given_dimensions(name, method):
    model = made(name)
    first = list(ORDER[:3])
    partial = np.full(D, np.nan)
    partial[first] = [1, 0, 1]
    drawn = model.sample(20_000, key=5, partial=partial, method=method)
    assert_conditional(model, drawn, first, [1, 0, 1])
    masked = np.ma.masked_array(np.nan_to_num(partial), np.isnan(partial))
    assert np.array_equal(model.sample(9, key=5, partial=np.tile(partial, (9, 1))), drawn[:9])
    assert np.array_equal(model.sample(9, key=5, partial=masked), drawn[:9])


def assert_conditional(model, drawn, known, values, **options):
    assert (drawn[:, known] == values).all()
    p = np.where((STATES[:, known] == values).all(1), np.exp(model.log_prob(STATES, **options)), 0)
    kept = np.flatnonzero(p)
    assert_distributed(np.searchsorted(kept, place(drawn)), p[kept] / p.sum())


@pytest.mark.parametrize("known", [[0], [4, 2], [5, 1, 3]])
def test_an_orderless_model_conditions_on_any_set(known):
    model = made("eonade")
    values = [1, 0, 1][: len(known)]
    partial = np.full(D, np.nan)
    partial[known] = values
    drawn = model.sample(20_000, key=6, partial=partial, order=ORDER)
    then = [*(d for d in ORDER if d in known), *(d for d in ORDER if d not in known)]
    assert_conditional(model, drawn, known, values, orders=[then])
    assert np.array_equal(drawn[:7], model.sample(7, key=6, partial=partial, order=ORDER, method="naive"))


def test_rows_may_know_different_things():
    model = made("eonade")
    partial = np.where(np.random.default_rng(7).random((30, D)) < 0.5, np.nan, 1.0)
    both = [model.sample(30, key=8, partial=partial, method=m) for m in ("cached", "naive")]
    assert np.array_equal(*both)
    assert (both[0][~np.isnan(partial)] == 1).all()
    for r in (0, 17):  # a row is what it is whatever the others know
        alone = partial.copy()
        alone[np.arange(30) != r] = np.nan
        assert np.array_equal(model.sample(30, key=8, partial=alone)[r], both[0][r])


def test_rows_that_fill_vectors_and_those_beside_them():
    model = MADE(70, (150, 90), direct=True, order=np.random.default_rng(9).permutation(70), seed=12)
    naive = model.sample(131, key=1, method="naive")
    for n in (1, 4, 5, 8, 9, 16, 17, 33, 64, 65, 131):
        assert np.array_equal(model.sample(n, key=1), naive[:n])


# --- learning -----------------------------------------------------------------------------------------------

LEARNERS = {
    "made": (lambda: MADE(64, (100,), seed=0), 30, -21),
    "made, masks": (lambda: MADE(64, (100,), n_masks=3, order="random", seed=0), 30, -23),
    "fvbn": (lambda: FVBN(64, seed=0), 30, -22.5),
    "fvbn, hidden": (lambda: FVBN(64, hidden=(3,), seed=0), 20, -22),
    "eonade": (lambda: EoNADE(64, (100, 100), n_orderings=3, seed=0), 60, -23),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_digits_and_goes_on_from_files(name, tmp_path):
    make, epochs, least = LEARNERS[name]
    data = gc.datasets.load("digits")
    path = tmp_path / "m.safetensors"
    model = make()
    model.fit(data.train, epochs=epochs, lr=2e-3, validation=data.valid, progress=False, checkpoint=path)
    assert model.log_prob(data.valid).mean() > least  # independent pixels have -25
    for other in (type(model).load(path), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.sample(4, key=1), model.sample(4, key=1))
        assert np.array_equal(other.log_prob(data.test), model.log_prob(data.test))
    drawn = model.sample(500, key=2)
    assert np.abs(drawn.mean(0) - data.train.mean(0)).mean() < 0.05


def test_the_linear_net_is_a_logistic_one():
    """Its logits are sums over what comes before, to the rounding of the products."""
    linear, logistic = made("fvbn, linear"), FVBN(D, seed=0)
    with gc.no_grad():
        biases = linear.logits(np.zeros((1, D), np.uint8)).numpy()
        weights = linear.logits(np.eye(D, dtype=np.uint8)).numpy() - biases
        logistic.layers[0].weight[...], logistic.layers[0].bias[...] = weights, biases[0]
    assert not np.tril(weights).any()
    np.testing.assert_allclose(linear.log_prob(STATES), logistic.log_prob(STATES), rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_masks_and_orders_survive_a_file(name, tmp_path):
    model = made(name)
    model.save(tmp_path / "m")
    assert np.array_equal(type(model).load(tmp_path / "m").log_prob(STATES), model.log_prob(STATES))


@pytest.mark.parametrize("name", ["made, masks and orders", "fvbn, hidden", "eonade"])
def test_an_interrupted_training_has_the_bits_of_an_unbroken_one(name, tmp_path):
    options = {"batch_size": 10, "lr": 1e-2, "progress": False, "weight_decay": 1e-3}
    whole, path = MODELS[name](), tmp_path / "m.safetensors"
    whole.fit(STATES, epochs=4, **options)
    assert whole.steps == 28

    def stop(_model, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MODELS[name]().fit(STATES, epochs=4, checkpoint=path, callbacks=[stop], **options)
    resumed = MODELS[name]()
    resumed.fit(STATES, epochs=4, checkpoint=path, resume=True, **options)
    for (a, p), (b, q) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert a == b
        assert np.array_equal(p.numpy(), q.numpy()), a


def test_masks_take_turns_and_the_ensemble_is_what_is_measured():
    model = MADE(D, (8,), n_masks=3, order="random", seed=4)
    history = model.fit(
        STATES[:20], epochs=1, batch_size=20, optimizer="sgd", lr=1e-9, validation=STATES, progress=False
    )
    assert history["log_prob"][0] == pytest.approx(
        float(np.mean(model.log_prob_under(STATES[:20], 0))), abs=1e-4
    )
    assert history["validation_log_prob"][0] == pytest.approx(model.log_prob(STATES).mean(), abs=1e-4)
    history = model.fit(STATES[:20], epochs=1, batch_size=20, optimizer="sgd", lr=1e-9, progress=False)
    assert history["log_prob"][0] == pytest.approx(
        float(np.mean(model.log_prob_under(STATES[:20], 1))), abs=1e-4
    )


def test_what_an_orderless_model_learns_from_is_the_mean_over_all_orders():
    """The estimate's expectation is the mean of log p over the 720 orders, not the ensemble's."""
    model = made("eonade")
    rows = STATES[[5, 33, 62]]
    each = [log_prob_in_order(model, rows, order) for order in itertools.permutations(range(D))]
    with gc.no_grad():
        found = np.asarray(model._fitted_log_prob(np.repeat(rows, 40_000, axis=0), gc.random.Key(1)))
    found = found.reshape(3, -1)
    error = found.std(axis=1) / found.shape[1] ** 0.5
    assert np.all(np.abs(found.mean(axis=1) - np.mean(each, axis=0)) < 5 * error)


def test_weights_that_no_mask_lets_through_stay_zero():
    for model in (MADE(D, (8, 7), direct=True, seed=1), FVBN(D, hidden=(3,), seed=1)):
        before = [w.numpy() == 0 for w in model._weights()]
        assert all(b.any() for b in before)
        model.fit(STATES, epochs=2, batch_size=16, weight_decay=0.1, progress=False)
        after = [w.numpy() == 0 for w in model._weights()]
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["made, direct", "fvbn, hidden", "eonade"])
def test_weight_decay_shrinks_all_weights(name):
    plain, decayed = MODELS[name](), MODELS[name]()
    plain.fit(STATES, epochs=30, lr=3e-3, batch_size=16, progress=False)
    decayed.fit(STATES, epochs=30, lr=3e-3, batch_size=16, weight_decay=1.0, progress=False)
    for a, b in zip(decayed._weights(), plain._weights(), strict=True):
        assert np.square(a.numpy()).sum() < 0.8 * np.square(b.numpy()).sum()


@pytest.mark.parametrize("name", MODELS)
def test_fit_keeps_biases_that_were_loaded(name):
    trained = made(name)
    state = trained.state_dict()
    trained.fit(STATES, epochs=1, lr=1e-30, progress=False)
    for key, value in trained.state_dict().items():
        if key.endswith("bias"):
            np.testing.assert_array_equal(value, state[key], err_msg=key)


def test_divergence_is_reported():
    with pytest.raises(DivergenceError, match="became"):
        made("made").fit(STATES, epochs=3, batch_size=8, lr=1e38, optimizer="sgd", progress=False)


BAD = (
    (lambda: MADE(0), "MADE: expected n_visible to be an integer of at least 1, received 0"),
    (lambda: MADE(3, ()), "MADE: expected hidden to have at least 1 layer, received ()"),
    (lambda: MADE(3, (4, 0)), "MADE: expected a layer of hidden to be an integer of at least 1, received 0"),
    (lambda: MADE(3, n_masks=0), "MADE: expected n_masks to be an integer of at least 1"),
    (lambda: MADE(3, order="any"), "MADE: expected order to be 'random' or a permutation, received 'any'"),
    (lambda: MADE(3, order=(0, 1, 1)), "MADE: expected order to be a permutation of 0 to 2, received (0, 1, 1)"),
    (lambda: MADE(3, activation="step"), "MADE: expected activation to be one of identity, logistic"),
    (lambda: MADE(3, activation=["relu"]), "MADE: expected activation to be one of identity, logistic"),
    (lambda: MADE(3, direct="no"), "MADE: expected direct to be True or False, received 'no'"),
    (lambda: FVBN(3, order=[[1], [2, 3]]), "FVBN: expected order to be a permutation of 0 to 2, received [[1], [2"),
    (lambda: FVBN(3, order=(0.0, 1.0, 2.0)), "FVBN: expected order to be a permutation of 0 to 2"),
    (lambda: FVBN(3, hidden=(0,)), "FVBN: expected a layer of hidden to be an integer of at least 1"),
    (lambda: EoNADE(3, ()), "EoNADE: expected hidden to have at least 1 layer"),
    (lambda: EoNADE(3, n_orderings=True), "EoNADE: expected n_orderings to be an integer of at least 1"),
    (lambda: EoNADE(3, activation="identity"), "EoNADE: expected activation to be one of relu, softplus"),
    (lambda: EoNADE(3).log_prob(np.zeros((1, 3)), orders=[(0, 1)]), "EoNADE.log_prob: expected each of orders to be"),
    (lambda: EoNADE(3, activation=["relu"]), "EoNADE: expected activation to be one of relu, softplus"),
    (lambda: EoNADE(3).log_prob(np.zeros((1, 3)), orders=3), "EoNADE.log_prob: expected each of orders to be"),
    (lambda: EoNADE(3).log_prob(np.zeros((1, 3)), orders=[]), "expected orders to have at least one row"),
    (lambda: EoNADE(3).sample(2, order=(1, 2, 3)), "EoNADE.sample: expected each of orders to be a permutation"),
)  # fmt: skip
BAD_CALLS = (
    (lambda m: m.log_prob(np.zeros((2, 5))), "log_prob: expected X of shape (n, 6), received (2, 5)"),
    (lambda m: m.log_prob(np.full((2, 6), 0.5)), "0 and 1 only, received 0.5 at (0, 0)"),
    (lambda m: m.sample(0), "expected n to be an integer of at least 1"),
    (lambda m: m.sample(2, method="fast"), "sample: expected method to be 'cached' or 'naive'"),
    (lambda m: m.sample(2, temperature=-1.0), "expected temperature to be a number from 1e-30 to 1e30"),
    (lambda m: m.sample(2, partial=np.zeros((3, 6))), "expected partial of shape (6,) or (2, 6), received (3, 6)"),
    (lambda m: m.sample(2, partial=np.full(6, 3.0)), "0 and 1 only, received 3.0"),
    (lambda m: m.fit(STATES, epochs=1, weight_decay=-1), "fit: expected weight_decay to be at least 0"),
    (lambda m: m.fit(STATES, epochs=1, optimizer="adamax"), "fit: expected optimizer to be one of"),
)  # fmt: skip


@pytest.mark.parametrize(("call", "words"), BAD)
def test_wrong_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


@pytest.mark.parametrize("name", ["made, masks", "fvbn", "eonade"])
@pytest.mark.parametrize(("call", "words"), BAD_CALLS)
def test_wrong_calls_are_named(name, call, words):
    model = MODELS[name]()
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        call(model)
    assert str(raised.value).startswith(type(model).__name__)
