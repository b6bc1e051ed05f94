"""models.RBM: learning, sampling, likelihood, files and errors, against enumeration and an independent loop."""

import copy

import numpy as np
import pytest
from model_checks import assert_same
from reference import rbm as reference
from reference.statistics import assert_distributed
from scipy import sparse

import gencore as gc
from gencore.kernels import rbm as kernels
from gencore.models import RBM
from gencore.train import batches, constant, cosine, exponential, linear

DIGITS = gc.datasets.load("digits")


def random_machine(n_visible=7, n_hidden=5, seed=0):
    rng = np.random.default_rng(seed)
    model = RBM(n_visible, n_hidden, seed=seed)
    model.weight = rng.normal(0, 1, (n_visible, n_hidden))
    model.visible_bias, model.hidden_bias = rng.normal(0, 0.5, n_visible), rng.normal(0, 0.5, n_hidden)
    return model


def negative_log_likelihood(model, rows):
    """Exact, float64."""
    return float(
        reference.free_energy(*model.parameters, rows).mean() + reference.log_partition(*model.parameters)
    )


# --- learning -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "pcd"},
        {"algorithm": "pcd", "centered": False},
        {"algorithm": "pcd", "momentum": 0.9, "lr": 0.02},
        {"algorithm": "pcd", "weight_decay": 5e-4},
        {"algorithm": "cd"},
        {"algorithm": "cd", "double_blank": True},
    ],
    ids=str,
)
def test_learns_bars_and_stripes_to_near_the_optimum(options):
    """Best mean NLL of 3 x 3: ln 14 over the distinct patterns; 4 ln 2 - ln 2 / 4 with the two blank images twice.

    No model can be below it, fair coins are at 9 ln 2 = 6.24; within 0.15 nats is what steps of this number give.
    """
    options = {"k": 5, "lr": 0.2, "double_blank": False} | options
    double, lr = options.pop("double_blank"), options.pop("lr")
    rows = gc.datasets.bars_and_stripes(3, double_blank=double).train
    optimum = 2.5993019270 if double else np.log(14)
    model = RBM(9, 16, seed=0)
    model.weight = 20 * model.weight  # off the plateau that small weights begin on
    model.fit(rows, epochs=3000, batch_size=len(rows), lr=linear(lr, hold=0.5), n_chains=200, **options)
    assert optimum <= negative_log_likelihood(model, rows) < optimum + 0.15


@pytest.mark.parametrize("algorithm", ["pcd", "cd"])
@pytest.mark.parametrize("centered", [True, False])
def test_fit_is_the_loop_that_its_documentation_states(algorithm, centered):
    """Written out with NumPy around the kernel's gradient: order, short batches, offsets, momentum, decay, schedule."""
    rows, n, batch_size, epochs = DIGITS.train[:70], 70, 32, 3
    model = RBM(64, 11, seed=5)
    parameters = [p.copy() for p in model.parameters]
    before = copy.deepcopy(model)
    model.fit(
        rows, epochs=epochs, batch_size=batch_size, lr=linear(0.3, 0.1), algorithm=algorithm, k=2, centered=centered,
        momentum=0.7, weight_decay=0.01, n_chains=9,
    )  # fmt: skip

    mean = rows.mean(axis=0)
    smoothed = (rows.sum(axis=0) + 1.0) / (n + 2.0)
    parameters[1] = np.log(smoothed / (1 - smoothed)).astype(np.float32)
    velocity = [np.zeros_like(p, np.float64) for p in parameters]
    chains = gc.kernels.sample.bernoulli(np.tile(mean.astype(np.float32), (9, 1)), before.generator.key())
    offset_h, step, total = np.full(11, 0.5, np.float32), 0, epochs * 3
    for epoch in range(epochs):
        order = batches(n, batch_size, seed=5, epoch=3 * epoch)
        assert [len(part) for part in order] == [32, 32, 6]
        assert np.array_equal(np.sort(np.concatenate(order)), np.arange(n))
        for part in order:
            g = kernels.cd_gradient(
                *parameters, rows[part], k=2, key=before.chain_key, first_step=2 * step,
                chains=chains if algorithm == "pcd" else None,
                offset_v=mean.astype(np.float32) if centered else None, offset_h=offset_h if centered else None,
            )  # fmt: skip
            chains = g.chains
            offset_h = np.float32(0.99) * offset_h + np.float32(0.01) * g.mean_h
            lr = 0.3 + (0.1 - 0.3) * step / total
            for i, gradient in enumerate((g.weight, g.visible_bias, g.hidden_bias)):
                decay = 0.01 * parameters[i] if i == 0 else 0.0
                velocity[i] = 0.7 * velocity[i] + lr * (gradient.astype(np.float64) - decay)
                parameters[i] = (parameters[i] + velocity[i]).astype(np.float32)
            step += 1
    # Same draws, unless a rounding flips one of the 9 x 2 x 2 x 75 chain bits: with this seed none does.
    for ours, theirs in zip(model.parameters, parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    if algorithm == "pcd":
        assert np.array_equal(model.chains, chains)


def test_schedules():
    done = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    expected = {
        constant(0.3): [0.3] * 5,
        linear(0.4, 0.2): [0.4, 0.35, 0.3, 0.25, 0.2],
        linear(0.4, hold=0.5): [0.4, 0.4, 0.4, 0.2, 0.0],
        exponential(1.0, 1e-4): [1, 1e-1, 1e-2, 1e-3, 1e-4],
        exponential(1.0, 1e-2, hold=0.5): [1, 1, 1, 1e-1, 1e-2],
        cosine(1.0): [1, 0.5 + np.sqrt(0.125), 0.5, 0.5 - np.sqrt(0.125), 0],
    }
    for schedule, values in expected.items():
        np.testing.assert_allclose([schedule(x) for x in done], values, atol=1e-12)
    with pytest.raises(ValueError, match="above 0"):
        exponential(0.1, 0.0)
    history = RBM(64, 2).fit(DIGITS.train[:40], epochs=4, batch_size=10, lr=linear(0.16), n_chains=3)
    # The rate of an epoch's last update: 3, 7, 11 and 15 of 16 updates done before it.
    np.testing.assert_allclose(history["lr"], [0.13, 0.09, 0.05, 0.01])


def test_history():
    model = RBM(64, 8, seed=1)
    history = model.fit(DIGITS.train, epochs=3, batch_size=100, lr=0.3, validation=DIGITS.valid)
    assert history["epoch"] == [1, 2, 3]
    assert history["step"] == [13, 26, 39]
    assert np.all(np.diff(history["seconds"]) >= 0)
    last = history.records[-1]
    for name, rows in (
        ("pseudo_log_likelihood", DIGITS.train),
        ("validation_pseudo_log_likelihood", DIGITS.valid),
    ):
        exact = reference.log_conditionals(*model.parameters, rows).sum(axis=1).mean()
        assert last[name] == pytest.approx(exact, abs=1e-4)
    again = reference.visible_mean(
        model.weight, model.visible_bias, reference.hidden_mean(model.weight, model.hidden_bias, DIGITS.train)
    )
    assert last["reconstruction_error"] == pytest.approx(np.square(DIGITS.train - again).mean(), rel=1e-5)
    with pytest.raises(KeyError, match="pseudo_log_likelihood"):
        history["loss"]
    assert "3 epochs" in repr(history)


def test_real_values_are_means():
    X = DIGITS.train * 0.75 + 0.1
    model = RBM(64, 5, seed=0)
    history = model.fit(X, epochs=2, lr=0.1)
    np.testing.assert_allclose(model.data_mean, X.mean(axis=0), rtol=1e-6)
    assert "pseudo_log_likelihood" not in history.names()
    assert np.isfinite(history["reconstruction_error"]).all()


def test_units_that_never_change_do_no_harm():
    X = DIGITS.train[:200].copy()
    X[:, 0], X[:, 1] = 0, 1
    model = RBM(64, 10, seed=0)
    model.fit(X, epochs=20, lr=0.5, centered=True)
    assert all(np.isfinite(p).all() for p in model.parameters)
    mean = model.sample(2000, steps=50).mean(axis=0)
    assert mean[0] < 0.03
    assert mean[1] > 0.97


def test_the_result_does_not_depend_on_threads():
    before, models = gc.num_threads(), []
    try:
        for threads in (1, 2):
            gc.set_num_threads(threads)
            models.append(RBM(64, 70, seed=2))
            models[-1].fit(DIGITS.train, epochs=2, batch_size=300, n_chains=400)
    finally:
        gc.set_num_threads(before)
    assert_same(*models)


def test_all_follows_from_the_seed():
    def trained(seed):
        model = RBM(64, 6, seed=seed)
        model.fit(DIGITS.train[:100], epochs=1)
        return model

    assert_same(trained(3), trained(3))
    assert not np.array_equal(trained(3).weight, trained(4).weight)
    weight = RBM(300, 200, seed=0).weight
    assert weight.std() == pytest.approx(0.01, rel=5 / np.sqrt(2 * weight.size))
    assert abs(weight.mean()) < 5 * 0.01 / np.sqrt(weight.size)


def test_callbacks():
    seen = []
    model = RBM(64, 4)
    stop = [lambda m, record: seen.append((m, dict(record))), lambda m, record: record["epoch"] == 3]
    history = model.fit(DIGITS.train[:50], epochs=10, callbacks=[stop[1], stop[0]])
    assert len(history) == 3
    assert [record["epoch"] for _, record in seen] == [1, 2, 3], (
        "every callback is called, whatever the others say"
    )
    assert all(m is model for m, _ in seen)
    assert seen[-1][1] == history.records[-1]


def test_a_second_fit_goes_on_from_the_first():
    model = RBM(64, 20, seed=0)
    first = model.fit(DIGITS.train, epochs=5, batch_size=32, lr=0.3)
    bias = model.visible_bias.copy()
    second = model.fit(DIGITS.train, epochs=5, batch_size=32, lr=0.001)
    assert model.steps == 10 * 41
    assert np.abs(model.visible_bias - bias).max() < 5 * 41 * 0.001
    assert min(second["pseudo_log_likelihood"]) > first["pseudo_log_likelihood"][-1] - 0.5


# --- sampling -----------------------------------------------------------------------------------------------


def test_samples_follow_the_model():
    model = random_machine()
    drawn = model.sample(40_000, steps=100, key=1)  # mixes within a few steps at such weights
    assert drawn.dtype == np.uint8
    assert_distributed(reference.state_number(drawn), reference.visible_distribution(*model.parameters))


@pytest.mark.parametrize("steps", [100, 101])
def test_conditional_samples_follow_the_conditional_distribution(steps):
    model = random_machine(seed=3)
    clamp, start = np.array([1, 0, 0, 1, 0, 1, 0]), np.array([1, 0, 0, 0, 1, 1, 1])
    expected = reference.conditional_distribution(*model.parameters, clamp, start)
    drawn = model.sample(40_000, steps=steps, start=start, clamp=clamp, key=2)
    assert_distributed(reference.state_number(drawn), expected)
    per_row = model.sample(
        40_000, steps=steps, start=np.tile(start, (40_000, 1)), clamp=np.tile(clamp, (40_000, 1)), key=3
    )
    assert_distributed(reference.state_number(per_row), expected)


def test_a_temperature_scales_the_energy():
    model = random_machine(seed=5)
    start = np.zeros((40_000, 7), np.uint8)
    for beta in (0.5, np.full(40_000, 0.5)):
        drawn = model.gibbs(start, 100, beta=beta, key=4)
        assert_distributed(
            reference.state_number(drawn), reference.visible_distribution(*model.parameters, beta=0.5)
        )
    assert not start.any(), "inputs are not written"


def test_where_samples_start():
    model = RBM(64, 5, seed=0)
    assert model.sample(1000, steps=0, key=1).mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(64_000))
    model.fit(DIGITS.train, epochs=1, algorithm="cd")
    rates = model.sample(4000, steps=0, key=1).mean(axis=0)
    assert np.abs(rates - DIGITS.train.mean(axis=0)).max() < 5 * 0.5 / np.sqrt(4000)
    model.fit(DIGITS.train, epochs=1, n_chains=3)
    assert np.array_equal(model.sample(7, steps=0), model.chains[[0, 1, 2, 0, 1, 2, 0]])
    assert np.array_equal(model.sample(2, steps=0, start=DIGITS.test[0]), DIGITS.test[[0, 0]])


def test_keys_repeat_and_the_generator_goes_on():
    model = random_machine()
    assert np.array_equal(model.sample(9, steps=5, key=3), model.sample(9, steps=5, key=gc.Key(3)))
    assert not np.array_equal(model.sample(9, steps=5), model.sample(9, steps=5))


# --- likelihood ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 5), (3, 9), (10, 2)])
def test_probabilities_sum_to_one(shape):
    model = random_machine(*shape)
    states = reference.all_states(shape[0])
    assert np.exp(model.log_likelihood(states)).sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        np.exp(model.log_likelihood(states)), reference.visible_distribution(*model.parameters), atol=1e-6
    )


def test_log_likelihood_follows_the_parameters():
    model, states = random_machine(), reference.all_states(7)
    model.log_likelihood(states)
    model.weight[2, 3] += 1.5  # in place: nothing tells the model
    assert np.exp(model.log_likelihood(states)).sum() == pytest.approx(1, abs=1e-5)
    model.hidden_bias = [0, 1, 2, 3, 4]
    assert np.exp(model.log_likelihood(states)).sum() == pytest.approx(1, abs=1e-5)


def test_log_partition_exact_and_by_ais():
    model = RBM(64, 16, seed=0)
    model.fit(DIGITS.train, epochs=20, batch_size=32, lr=0.3)
    exact = reference.log_partition(*model.parameters)
    for method in ("auto", "exact"):
        found = model.log_partition(method)
        assert found.method == "exact"
        assert found.value == found.lower == found.upper == pytest.approx(exact, abs=1e-4)
        assert found.ess == np.inf
        assert "exact" in str(found)
    found = model.log_partition("ais", betas=3000, n_runs=100, key=1)
    assert found.lower <= exact <= found.upper
    assert found.upper - found.lower < 0.5
    assert abs(found.value - exact) < 5 * found.std_error
    assert 50 < found.ess <= 100
    assert found.log_weights.shape == found.reverse_log_weights.shape == (100,)
    assert "bracket" in str(found)
    likelihood = model.log_likelihood(DIGITS.test)
    assert likelihood.mean() == pytest.approx(
        -reference.free_energy(*model.parameters, DIGITS.test).mean() - found.value
    )
    one_way = model.log_partition("ais", betas=[0, 0.3, 0.6, 1.0], n_runs=20, reverse=False)
    assert np.isnan(one_way.reverse)
    assert one_way.lower < one_way.value < one_way.upper


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "guess"}, "guess"),
        ({"method": "ais", "betas": 2}, "at least 3"),
        ({"method": "ais", "betas": [0, 0.5]}, "0 to 1"),
        ({"method": "ais", "betas": [0, 0.7, 0.5, 1]}, "rise"),
        ({"method": "ais", "n_runs": 0}, "n_runs"),
        ({"method": "ais", "base_rates": [0.5] * 6}, r"\(7,\)"),
        ({"method": "ais", "base_rates": [1.5] * 7}, "0 to 1"),
    ],
)
def test_wrong_ways_to_log_z_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        random_machine().log_partition(**options)


def test_means_and_energies_are_their_formulas():
    model = random_machine(seed=9)
    w, b, c = model.parameters
    rng = np.random.default_rng(0)
    for v in (rng.integers(0, 2, (20, 7)), rng.random((20, 7))):
        np.testing.assert_allclose(model.free_energy(v), reference.free_energy(w, b, c, v), atol=1e-5)
        np.testing.assert_allclose(model.hidden_mean(v), reference.hidden_mean(w, c, v), atol=1e-6)
        h = reference.hidden_mean(w, c, v)
        np.testing.assert_allclose(model.visible_mean(h), reference.visible_mean(w, b, h), atol=1e-6)
        np.testing.assert_allclose(model.reconstruct(v), reference.visible_mean(w, b, h), atol=1e-6)
    v = rng.integers(0, 2, (20, 7))
    conditionals = reference.log_conditionals(w, b, c, v)
    np.testing.assert_allclose(model.pseudo_log_likelihood(v), conditionals.sum(axis=1), atol=1e-5)
    one = model.pseudo_log_likelihood(v, key=5)
    assert np.abs(one[:, None] / 7 - conditionals).min(axis=1).max() < 1e-6


# --- what people have, and what is wrong --------------------------------------------------------------------


def test_every_form_of_the_data_gives_the_same_bits():
    rows = DIGITS.train[:60]
    forms = [
        rows, rows.tolist(), rows.astype(bool), rows.astype(np.float64), rows.astype(np.float32), rows.astype(np.int64),
        sparse.csr_matrix(rows), sparse.csc_array(rows), np.asfortranarray(rows), np.repeat(rows, 2, axis=1)[:, ::2],
    ]  # fmt: skip
    models = []
    for X in forms:
        models.append(RBM(64, 4, seed=0))
        models[-1].fit(X, epochs=1)
        assert_same(models[-1], models[0])
        assert np.array_equal(models[-1].free_energy(X), models[0].free_energy(rows))
        assert np.array_equal(models[-1].gibbs(X, 2, key=0), models[0].gibbs(rows, 2, key=0))


WRONG_DATA = [
    (np.zeros((3, 6)), ValueError, r"\(n, 7\).*received \(3, 6\)"),
    (np.zeros(7), ValueError, r"a single row: X\[None\]"),
    (np.full((2, 7), 2), ValueError, r"received 2 at \(0, 0\)"),
    (np.array([[0] * 7, [0, 0, 0, -1, 0, 0, 0]]), ValueError, r"received -1 at \(1, 3\)"),
    (np.full((2, 7), np.nan), ValueError, "received nan"),
    ([["a"] * 7], TypeError, "numbers"),
    ([[0] * 7, [0] * 6], ValueError, "equal length"),
    (np.zeros((2, 7), complex), TypeError, "complex"),
    (np.zeros((0, 7)), ValueError, "at least 1 row"),
]


@pytest.mark.parametrize(("X", "error", "words"), WRONG_DATA, ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_data_is_named_and_changes_nothing(X, error, words):
    model = random_machine()
    before = [p.copy() for p in model.parameters], model.generator.state
    with pytest.raises(error, match=words):
        model.fit(X, epochs=1)
    assert all(map(np.array_equal, before[0], model.parameters))
    assert (before[1], model.steps, model.chains) == (model.generator.state, 0, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"k": 0}, "k to be"),
        ({"n_chains": 0}, "n_chains"),
        ({"lr": 0.0}, "lr"),
        ({"lr": np.nan}, "lr"),
        ({"algorithm": "sml"}, "'sml'"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"checkpoint_every": 3}, "checkpoint"),
        ({"checkpoint": "x", "checkpoint_every": 0}, "checkpoint_every"),
        ({"validation": np.zeros((2, 6))}, "validation"),
        ({"validation": np.full((2, 7), 0.5)}, "validation"),
    ],
    ids=str,
)
def test_wrong_options_of_fit_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        random_machine().fit(np.zeros((4, 7)), **{"epochs": 1} | options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.sample(0), "at least 1"),
        (lambda m: m.sample(2, start=np.zeros((3, 7))), "n = 2 rows, received 3"),
        (lambda m: m.sample(2, start=np.full(7, 0.5)), "0 and 1 only"),
        (lambda m: m.sample(2, clamp=np.zeros(7)), "start beside clamp"),
        (lambda m: m.sample(2, start=np.zeros(7), clamp=np.zeros(6)), "clamp"),
        (lambda m: m.gibbs(np.zeros((2, 7)), -1), "steps"),
        (lambda m: m.gibbs(np.zeros((2, 6)), 1), r"\(n, 7\)"),
        (lambda m: m.gibbs(np.zeros((2, 7)), 1, beta=np.ones(3)), "beta"),
        (lambda m: m.advance_chains(1), "pcd"),
        (lambda m: m.log_likelihood(np.full((1, 7), 0.5)), "0 and 1 only"),
        (lambda m: m.visible_mean(np.zeros((2, 7))), r"\(n, 5\)"),
        (lambda m: RBM(0, 3), "n_visible"),
        (lambda m: RBM(3, 2.0), "n_hidden"),
        (lambda m: RBM(3, True), "n_hidden"),
        (lambda m: RBM(3, 2, seed=-1), "seed"),
        (lambda m: setattr(m, "weight", np.zeros((5, 7))), r"weight of shape \(7, 5\)"),
        (lambda m: setattr(m, "visible_bias", np.zeros(5)), r"visible_bias of shape \(7,\)"),
        (lambda m: setattr(m, "hidden_bias", [0, 0, 0, 0, np.inf]), "hidden_bias to be finite"),
    ],
)
def test_wrong_calls_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(random_machine())


def test_assigned_parameters_are_float32_copies():
    model, weight = RBM(3, 2), np.arange(6.0).reshape(2, 3).T
    model.weight = weight
    weight[:] = 9
    assert model.weight.dtype == np.float32
    assert model.weight.flags.c_contiguous
    assert model.weight.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert repr(model) == "RBM(3, 2, seed=0) after 0 updates"
