"""models.VAE: bounds against enumeration and quadrature, draws against exact marginals, what it takes and refuses."""

import itertools
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats
from vae_reference import GRID, Reference, log_normal, log_sum_exp, parameters

import gencore as gc
from gencore.models import VAE

X = np.array([[0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]], np.uint8)
REAL = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
MODELS = {
    "one unit": {"n_latent": 1},
    "two units": {"n_latent": 2, "hidden": ()},
    "real data": {"n_latent": 1, "likelihood": "gaussian"},
    "bernoulli": {"n_latent": 3, "latent": "bernoulli"},
    "categorical": {"n_latent": 2, "latent": "categorical", "n_classes": 3},
}


def make(scale=2.0, **options):
    """Far from where learning starts: larger weights, biases that are not 0.

    Posteriors are kept wider than the prior and near it: weights p(x, z) / q(z | x) then have a variance.
    """
    vae = VAE(4, **{"hidden": (3,), "seed": 5, **options})
    rng = np.random.default_rng(1)
    with gc.no_grad():
        for p in vae.parameters():
            p[...] = (scale * p.numpy() + 0.3 * rng.standard_normal(p.shape)).astype(np.float32)
        for i, encoder in enumerate(vae.encoders):
            nets = [(encoder, 0.5)] + ([(vae.decoders[i], -0.7)] if i else [])
            for net, logvar in nets if vae.latents[i].kind == "gaussian" else ():
                net.heads[1].weight *= np.float32(0.1)
                net.heads[1].bias[...] = np.full(net.heads[1].bias.shape, logvar, np.float32)
                net.heads[0].weight *= np.float32(0.4)
    return vae


def data_of(vae):
    return REAL if vae.likelihood.kind == "gaussian" else X


# --- bounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_log_likelihood_approaches_the_integral(options):
    vae = make(**options)
    x, n = data_of(vae), 5000
    exact, variance = Reference(vae).log_evidence(parameters(vae), x.astype(float))
    found = vae.log_likelihood(x, n, key=1)
    assert found.dtype == np.float64
    # The delta method: log of a mean of n weights of relative variance v errs by sqrt(v / n), and is v / 2n too low. Of
    # float32 log-weights below 30 some roundings are left.
    assert (variance < n / 25).all(), "too heavy a tail for 5 standard errors to mean much"
    bound = 5 * np.sqrt(variance / n) + variance / n + 1e-5
    assert (np.abs(found - exact) <= bound).all(), (found, exact, bound)
    np.testing.assert_array_equal(vae.log_likelihood(x, n, key=1), found)
    assert (vae.log_likelihood(x, n) != vae.log_likelihood(x, n)).any(), "the model's next key"


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_elbo_and_its_parts(options):
    vae = make(**options)
    x, p, n = data_of(vae), parameters(vae), 40_000
    reference = Reference(vae)
    draws = np.stack([vae.elbo(x, key=k, n_samples=n // 20).reconstruction.numpy() for k in range(20)])
    error = draws.std(0, ddof=1) / np.sqrt(20)
    exact = reference.expected_log_likelihood(p, x.astype(float)), reference.divergence(p, x.astype(float))
    # 6 standard errors of 20 draws are exceeded once in 100,000.
    assert (np.abs(draws.mean(0, dtype=float) - exact[0]) <= 6 * error + 1e-5 * np.abs(exact[0])).all()
    bound = vae.elbo(x, key=3)
    np.testing.assert_allclose(bound.kl.numpy(), exact[1], rtol=1e-5)
    np.testing.assert_allclose(
        bound.value.numpy(), bound.reconstruction.numpy() - bound.kl.numpy(), rtol=1e-6, atol=1e-6
    )
    assert (exact[0] - exact[1] < reference.log_evidence(p, x.astype(float))[0]).all()


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_relaxed_bound_of_one_unit_by_quadrature(temperature):
    """E over logistic noise L of log p(x | z = logistic((logit q + L) / temperature))."""
    vae = make(n_latent=1, latent="bernoulli")
    reference, p, x = Reference(vae), parameters(vae), X.astype(float)
    u = (np.arange(20_000) + 0.5) / 20_000
    logits = reference.heads(p, "encoders.0", x)[0]
    exact, spread = [], []
    for row, logit in zip(x, logits[:, 0], strict=True):
        z = 1 / (1 + np.exp(-(logit + np.log(u) - np.log1p(-u)) / temperature))
        fit = reference.log_likelihoods(p, row[None], z[:, None])[:, 0]
        exact.append(fit.mean())
        spread.append(fit.std())
    n = 50_000
    bound = vae.elbo(X, n_samples=n, key=2, temperature=temperature)
    # 5 standard errors, and the midpoint rule's at the ends of u.
    assert (np.abs(bound.reconstruction.numpy() - exact) <= 5 * np.array(spread) / np.sqrt(n) + 1e-4).all()
    # A difference from log 2, in float32.
    np.testing.assert_allclose(bound.kl.numpy(), reference.divergence(p, x), rtol=1e-6, atol=4 * 2.0**-24)
    with pytest.raises(ValueError, match=r"temperature to be None for Gaussian latents, received 0\.5"):
        make(n_latent=1).elbo(X, temperature=0.5)
    with pytest.raises(ValueError, match="tau"):
        vae.elbo(X, temperature=-1.0)


def test_importance_weighted_bounds_rise_to_the_evidence():
    vae = make(n_latent=1)
    exact, variance = Reference(vae).log_evidence(parameters(vae), X.astype(float))
    copies = np.tile(X, (8000, 1))
    means, errors = [], []
    for k in (1, 3, 10, 100):
        bounds = vae.log_likelihood(copies, k, key=k).reshape(8000, 3)
        means.append(bounds.mean(0))
        errors.append(bounds.std(0, ddof=1) / np.sqrt(8000))
    for i in range(3):
        assert (means[i + 1] - means[i] > 5 * np.hypot(errors[i], errors[i + 1])).all()
    assert (means[-1] < exact + 5 * errors[-1]).all()
    # of the order of v / 2k below it
    np.testing.assert_allclose(
        exact - means[-1], variance / 200, atol=(5 * errors[-1] + variance / 200).max()
    )
    # and elbo is the first of them
    np.testing.assert_allclose(
        vae.elbo(copies, key=9).value.numpy().reshape(8000, 3).mean(0), means[0], atol=10 * errors[0].max()
    )


def test_two_stochastic_layers():
    """p(x) = integral of p(x | z1) p(z1 | z2) p(z2), q(z1 | x) q(z2 | z1): weights and bound by quadrature."""
    vae = make(n_latent=(1, 1), hidden=((3,), (2,)), scale=1.5)
    reference, p, x = Reference(vae), parameters(vae), X.astype(float)
    z = GRID[::4, None]
    volume = 2 * np.log(z[1, 0] - z[0, 0])
    likelihood = reference.log_likelihoods(p, x, z)  # (z1, x)
    mean, logvar = reference.heads(p, "decoders.1", z)
    below = log_normal(z, mean.T, logvar.T)  # (z1, z2)
    joint = likelihood[:, None, :] + (below + log_normal(z.T, 0, 0))[..., None]
    mean, logvar = reference.heads(p, "encoders.0", x)
    first = log_normal(z, mean.T, logvar.T)  # (z1, x)
    mean, logvar = reference.heads(p, "encoders.1", z)
    second = log_normal(z.T, mean, logvar)  # (z1, z2)
    log_q = first[:, None, :] + second[..., None]
    flat = (joint.reshape(-1, 3), log_q.reshape(-1, 3))
    exact = log_sum_exp(flat[0], axis=0) + volume
    variance = np.exp(log_sum_exp(2 * flat[0] - flat[1], axis=0) + volume - 2 * exact) - 1
    np.testing.assert_allclose(log_sum_exp(flat[1], axis=0) + volume, 0, atol=1e-6)  # q sums to 1

    n = 5000
    assert (variance < n / 25).all()
    with gc.no_grad():
        weights = np.exp(vae.log_weights(X, 1, n).numpy().astype(float) - exact)
    assert weights.shape == (n, 3)
    assert (np.abs(weights.mean(0) - 1) <= 5 * np.sqrt(variance / n) + 1e-5).all()
    found = vae.log_likelihood(X, n, key=2)
    assert (np.abs(found - exact) <= 5 * np.sqrt(variance / n) + variance / n + 1e-5).all()

    q = np.exp(flat[1] + volume)
    parts = {
        "reconstruction": (np.exp(first) * likelihood).sum(0) * np.exp(volume / 2),
        "value": (q * (flat[0] - flat[1])).sum(0),
    }
    draws = [vae.elbo(X, key=k, n_samples=2000) for k in range(20)]
    for name, expected in parts.items():
        values = np.stack([getattr(d, name).numpy() for d in draws]).astype(float)
        error = values.std(0, ddof=1) / np.sqrt(20)
        assert (np.abs(values.mean(0) - expected) <= 6 * error + 1e-5 * np.abs(expected)).all(), name


def test_gaussian_likelihood_against_scipy():
    vae = make(n_latent=2, likelihood="gaussian")
    z = np.random.default_rng(3).standard_normal((6, 2)).astype(np.float32)
    with gc.no_grad():
        mean, logvar = vae.decoders[0](z)
        found = vae.likelihood.log_prob((mean, logvar), REAL).numpy()  # rows 0 1 2 0 1 2
    std = np.exp(logvar.numpy().astype(float) / 2)
    x = np.tile(REAL.astype(float), (2, 1))
    expected = stats.norm.logpdf(x, mean.numpy().astype(float), std).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_values_too_large_for_the_density_and_for_float32():
    vae = make(n_latent=2, likelihood="gaussian")
    x = np.zeros((2, 4))
    x[0, 1] = 1e25
    found = vae.log_likelihood(x, 10)
    assert found[0] == -np.inf
    assert np.isfinite(found[1])
    with pytest.raises(ValueError, match="expected x to be finite in float32, received 1e"):
        vae.elbo(np.full((1, 4), 1e300))


def test_log_variances_are_kept_in_bounds():
    vae = make(n_latent=1, likelihood="gaussian")
    with gc.no_grad():
        vae.decoders[0].heads[1].bias[...] = np.array([-100, 100, -12, 8], np.float32)
        vae.decoders[0].heads[1].weight[...] = np.zeros_like(vae.decoders[0].heads[1].weight.numpy())
        _, logvar = vae.decoders[0](np.zeros((1, 1), np.float32))
    np.testing.assert_array_equal(logvar.numpy(), [[-12, 8, -12, 8]])


# --- draws ------------------------------------------------------------------------------------------------------


def exact_joint(vae):
    """P(x) of all 16 states."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
    return states, np.exp(Reference(vae).log_evidence(parameters(vae), states)[0])


@pytest.mark.parametrize("name", ["one unit", "two units", "bernoulli", "categorical"])
def test_sample_has_the_models_distribution(name):
    vae, n = make(**MODELS[name]), 50_000
    states, p = exact_joint(vae)
    assert p.sum() == pytest.approx(1, abs=1e-8)
    x = vae.sample(n, key=4, means=False)
    assert x.dtype == np.uint8
    counts = np.bincount(x @ np.array([8, 4, 2, 1]), minlength=16)
    assert stats.chisquare(counts, n * p / p.sum()).pvalue > 1e-4
    means = vae.sample(n, key=4)
    assert means.dtype == np.float32
    exact = p @ states
    # A mean of values from 0 to 1 has a standard error of at most 1 / (2 sqrt n).
    np.testing.assert_allclose(means.mean(0, dtype=float), exact, atol=2.5 / np.sqrt(n))
    assert means.std(0).min() > 0.01, "means given different z, not the mean of all"


def test_sample_of_real_data_has_its_moments():
    vae, n = make(n_latent=1, likelihood="gaussian"), 100_000
    reference, p = Reference(vae), parameters(vae)
    mean, logvar = reference.heads(p, "decoders.0", GRID[:, None])
    weight = np.exp(log_normal(GRID, 0, 0))[:, None] * (GRID[1] - GRID[0])
    first = (weight * mean).sum(0)
    second = (weight * (mean**2 + np.exp(logvar))).sum(0)
    fourth = (weight * (mean**4 + 6 * mean**2 * np.exp(logvar) + 3 * np.exp(2 * logvar))).sum(0)
    x = vae.sample(n, key=4, means=False).astype(float)
    assert (np.abs(x.mean(0) - first) <= 4.5 * np.sqrt((second - first**2) / n)).all()
    assert (np.abs(np.square(x).mean(0) - second) <= 4.5 * np.sqrt((fourth - second**2) / n)).all()


def test_sample_of_two_layers_has_its_distribution():
    vae, n = make(n_latent=(1, 1), scale=1.5), 50_000
    reference, p = Reference(vae), parameters(vae)
    z = GRID[::4, None]
    step = z[1, 0] - z[0, 0]
    mean, logvar = reference.heads(p, "decoders.1", z)
    of_first = np.exp(log_normal(z, mean.T, logvar.T) + log_normal(z.T, 0, 0)).sum(1) * step**2
    states = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
    exact = of_first @ np.exp(reference.log_likelihoods(p, states, z))
    assert exact.sum() == pytest.approx(1, abs=1e-6)
    counts = np.bincount(vae.sample(n, key=4, means=False) @ np.array([8, 4, 2, 1]), minlength=16)
    assert stats.chisquare(counts, n * exact / exact.sum()).pvalue > 1e-4


# --- encode, decode, pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_encode_and_decode(options):
    vae = make(**options)
    x, p, reference = data_of(vae), parameters(vae), Reference(vae)
    q = reference.heads(p, "encoders.0", x.astype(float))[0]
    if reference.kind == "bernoulli":
        q = 1 / (1 + np.exp(-q))
    elif reference.kind == "categorical":
        q = np.exp(q).reshape(3, 2, 3)
        q = (q / q.sum(-1, keepdims=True)).reshape(3, 6)
    found = vae.encode(x)
    # A few tens of operations on numbers below 10.
    np.testing.assert_allclose(found, q, rtol=1e-5, atol=1e-5)
    mean = reference.heads(p, "decoders.0", found.astype(float))[0]
    if reference.likelihood == "bernoulli":
        mean = 1 / (1 + np.exp(-mean))
    np.testing.assert_allclose(vae.decode(found), mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(vae.reconstruct(x), vae.decode(found))
    np.testing.assert_array_equal(vae.decode(found.tolist()), vae.decode(found))
    assert vae.encode(x[:0]).shape == (0, found.shape[1])


def test_encode_and_decode_in_pieces(monkeypatch):
    vae = make(n_latent=2)
    x = np.random.default_rng(0).integers(0, 2, (23, 4))
    whole = vae.encode(x), vae.decode(vae.encode(x)), vae.log_likelihood(x, 700, key=3)
    monkeypatch.setattr("gencore.models.vae._ROWS", 5)
    np.testing.assert_allclose(vae.encode(x), whole[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vae.decode(vae.encode(x)), whole[1], rtol=1e-5)
    assert vae.sample(13, key=1).shape == (13, 4)
    # Other draws, of the same bound: 700 weights of a relative spread of at most some units.
    np.testing.assert_allclose(vae.log_likelihood(x, 700, key=3), whole[2], atol=0.7)


def test_manifold_is_even_in_probability():
    vae = make(n_latent=3)
    pictures = vae.manifold(5, dimensions=(2, 0))
    assert pictures.shape == (25, 4)
    line = [NormalDist().inv_cdf(p) for p in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for row, column in itertools.product(range(5), repeat=2):
        z = [line[4 - row], 0, line[column]]  # the second dimension grows upwards, as in a plot
        np.testing.assert_allclose(pictures[5 * row + column], vae.decode([z])[0], rtol=1e-5)
    one = make(n_latent=1).manifold(4)
    np.testing.assert_array_equal(one[:4], one[4:8])
    for discrete in ("bernoulli", "categorical"):
        with pytest.raises(ValueError, match="manifold: expected a Gaussian latent"):
            make(n_latent=2, latent=discrete).manifold()


@pytest.mark.parametrize("n_latent", [2, (3, 2)])
def test_interpolation_has_its_ends(n_latent):
    vae = make(n_latent=n_latent)
    path = vae.interpolate([0, 1, 1, 0], X[1], 7)
    assert path.shape == (7, 4)
    if n_latent == 2:
        np.testing.assert_allclose(path[[0, -1]], vae.reconstruct(X[:2]), rtol=1e-5)
        middle = vae.encode(X[:2]).mean(0, keepdims=True)
        np.testing.assert_allclose(path[3], vae.decode(middle)[0], rtol=1e-5)


def test_active_units_leave_out_the_dead():
    vae = make(n_latent=(3, 2))
    with gc.no_grad():
        for encoder, dead in zip(vae.encoders, (1, 0), strict=True):
            weight = encoder.heads[0].weight.numpy().copy()
            weight[:, dead] = 0  # its mean is its bias, whatever the input
            encoder.heads[0].weight[...] = weight
    x = np.random.default_rng(0).integers(0, 2, (200, 4))
    first, second = vae.active_units(x)
    assert first.tolist() == [True, False, True]
    assert second.tolist() == [False, True]
    assert not any(units.any() for units in vae.active_units(x, threshold=100))


# --- learning ---------------------------------------------------------------------------------------------------

DIGITS = gc.datasets.load("digits")


def fit(vae, X=DIGITS.train[:300], **options):
    return vae.fit(X, **{"epochs": 2, "batch_size": 100, "progress": False, **options})


@pytest.mark.parametrize(
    ("options", "estimator", "least"),
    [({"n_latent": 8}, "reparam", 2.0), ({"n_latent": 10, "latent": "bernoulli"}, "concrete", 1.0),
     ({"n_latent": 10, "latent": "bernoulli"}, "reinforce", 0.5),
     ({"n_latent": 10, "latent": "bernoulli"}, "wake-sleep", 0.5)],
    ids=["reparam", "concrete", "reinforce", "wake-sleep"],
)  # fmt: skip
def test_learning_beats_independent_units(options, estimator, least):
    """Which is where it starts: a decoder of biases alone. By nats an example on data not learned from."""
    vae = VAE(64, hidden=(50,), seed=1, **options)
    history = fit(vae, DIGITS.train, epochs=30, lr=3e-3, estimator=estimator, validation=DIGITS.valid)
    train, valid = (d.astype(float) for d in (DIGITS.train, DIGITS.valid))
    rate = (train.sum(0) + 1) / (len(train) + 2)
    independent = (valid @ np.log(rate) + (1 - valid) @ np.log1p(-rate)).mean()
    assert history["elbo"][0] > independent - 10
    assert vae.log_likelihood(DIGITS.valid[:200], 200).mean() > independent + least
    assert history["elbo"][-1] > history["elbo"][0]


def test_the_first_fit_starts_at_the_datas_rates():
    x = np.random.default_rng(0).random((50, 4)) < [0.1, 0.5, 0.9, 0.0]
    vae = VAE(4, 2, hidden=(3,))
    fit(vae, x, lr=1e-30, epochs=1)
    bias = vae.decoders[0].heads[0].bias.numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-bias.astype(float))), (x.sum(0) + 1) / 52, rtol=1e-5)
    with gc.no_grad():
        vae.decoders[0].heads[0].bias[...] = np.ones(4, np.float32)
    fit(vae, x, lr=1e-30, epochs=1)
    np.testing.assert_array_equal(vae.decoders[0].heads[0].bias.numpy(), 1)
    loaded = VAE(4, 2, hidden=(3,))
    loaded.load_state_dict(vae.state_dict())
    fit(loaded, x, lr=1e-30, epochs=1)
    np.testing.assert_array_equal(loaded.decoders[0].heads[0].bias.numpy(), 1)
    x = np.random.default_rng(0).standard_normal((500, 4)) * [1, 2, 3, 0] + [0, 5, 0, 7]
    vae = VAE(4, 2, hidden=(3,), likelihood="gaussian")
    fit(vae, x, lr=1e-30, epochs=1)
    mean, logvar = (head.bias.numpy() for head in vae.decoders[0].heads)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.exp(logvar[:3]), x.var(0)[:3], rtol=1e-2)  # and what keeps the log finite
    assert np.isfinite(logvar).all()


def test_annealing_and_the_record():
    history = fit(VAE(64, 2, hidden=(10,)), epochs=4, kl_weight=gc.train.linear(0, 1), lr=1e-30)
    for i, record in enumerate(history.records):
        assert record["elbo"] == pytest.approx(record["reconstruction"] - record["kl"], rel=1e-6)
        # Of three updates a mean weight of (3 i + 1) / 12; the divergence hardly changes between batches.
        expected = (3 * i + 1) / 12 * record["kl"] - record["reconstruction"]
        assert record["loss"] == pytest.approx(expected, abs=0.05 * record["kl"])


def test_validation_of_concrete_is_the_bound_of_the_discrete_units():
    vae = make(n_latent=3, latent="bernoulli")
    history = fit(vae, X, validation=np.tile(X, (3000, 1)), lr=1e-30, epochs=1, temperature=5.0)
    p = parameters(vae)  # with the biases that the fit started at
    exact = Reference(vae).bound(p, X.astype(float)).mean()
    # 9,000 draws of a log-likelihood that varies by a nat or so.
    assert history["validation_elbo"][-1] == pytest.approx(exact, abs=5 / np.sqrt(9000))


def test_patience_watches_the_validation_bound():
    vae = VAE(64, 4, hidden=(30,), seed=2)
    history = fit(vae, DIGITS.train[:60], epochs=400, lr=0.02, validation=DIGITS.valid[:100], patience=3)
    bounds = history["validation_elbo"]
    assert len(bounds) < 400
    assert int(np.argmax(bounds)) == len(bounds) - 4
    vae_bound = vae.elbo(DIGITS.valid[:100], n_samples=50, key=1).value.numpy().mean()
    # Back at the best: its record is of one draw, which errs by less than a nat for 100 rows.
    assert vae_bound == pytest.approx(max(bounds), abs=1.0)


# --- what it takes and refuses ----------------------------------------------------------------------------------


def test_data_as_people_have_them():
    x = np.random.default_rng(0).integers(0, 2, (30, 4))
    states = []
    for given in (x, x.astype(bool), x.astype(np.uint8), x.astype(float), x.astype(np.float32), x.tolist()):
        vae = VAE(4, 2, hidden=(3,), seed=1)
        fit(vae, given)
        states.append(vae.state_dict())
        for method in (vae.encode, vae.elbo, vae.log_likelihood, vae.active_units, vae.reconstruct):
            options = {"n_samples": 2} if method in (vae.elbo, vae.log_likelihood) else {}
            method(given, **options)
    for state in states[1:]:
        for name, value in state.items():
            np.testing.assert_array_equal(value, states[0][name])
    grey = VAE(4, 2, hidden=(3,), seed=1)
    fit(grey, x * 0.5)
    real = VAE(4, 2, hidden=(3,), likelihood="gaussian", seed=1)
    fit(real, (x * 2.5 - 3).tolist())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_visible": 0}, "n_visible to be integers of at least 1"),
        ({"n_latent": 1.5}, "n_latent"),
        ({"n_latent": (2, 2, 2)}, "n_latent to be one integer or two"),
        ({"hidden": (3, -1)}, "hidden"),
        ({"hidden": ((3,), (3,))}, "hidden for each of 1 stochastic layers"),
        ({"n_latent": (2, 2), "hidden": ()}, "hidden for each of 2 stochastic layers"),
        ({"activation": "gelu"}, "activation"),
        ({"hidden": (), "activation": "gelu"}, "activation"),
        ({"n_classes": 0}, "n_classes"),
        ({"likelihood": "poisson"}, "likelihood to be 'bernoulli' or 'gaussian'"),
        ({"latent": "cauchy"}, "latent to be 'gaussian', 'bernoulli' or 'categorical'"),
        ({"latent": "categorical", "n_classes": 1}, "n_classes"),
        ({"n_latent": (2, 2), "latent": "bernoulli"}, "latent to be 'gaussian' for two stochastic layers"),
        ({"n_latent": (2, 2), "decoder_hidden": (3,)}, "decoder_hidden to be None"),
    ],
)  # fmt: skip
def test_wrong_models(changes, named):
    with pytest.raises(ValueError, match=named):
        VAE(**{"n_visible": 4, "n_latent": 2, "hidden": (3,), **changes})


@pytest.mark.parametrize(
    ("latent", "changes", "named"),
    [
        ("gaussian", {"estimator": "vimco"}, "estimator to be auto, reparam"),
        ("gaussian", {"estimator": "concrete"}, "estimator for Gaussian latents"),
        ("bernoulli", {"estimator": "reparam"}, "estimator for discrete latents"),
        ("gaussian", {"n_importance": 0}, "n_importance to be an integer of at least 1"),
        ("bernoulli", {"n_importance": 5}, "n_importance to be 1 with estimator 'concrete'"),
        ("gaussian", {"n_importance": 5, "free_bits": 0.1}, "free_bits 0 with n_importance above 1"),
        ("gaussian", {"estimator": "reinforce", "kl_weight": 0.5}, "kl_weight 1"),
        ("bernoulli", {"free_bits": 0.1}, "free_bits 0 unless"),
        ("gaussian", {"free_bits": -1}, "free_bits to be at least 0"),
        ("bernoulli", {"temperature": 0.0}, "temperature|tau"),
        ("gaussian", {"temperature": -1.0}, "temperature to be above 0"),
        ("gaussian", {"temperature": np.nan}, "temperature to be above 0"),
        ("bernoulli", {"temperature": gc.train.linear(1.0, -1.0)}, "temperature to be above 0"),
        ("gaussian", {"kl_weight": -1}, "kl_weight to be at least 0"),
        ("gaussian", {"straight_through": True}, "straight_through only with estimator 'concrete'"),
        ("gaussian", {"optimizer": "adamax"}, "optimizer to be one of adam"),
        ("gaussian", {"epochs": 0}, "epochs"),
        ("gaussian", {"patience": 2}, "expected validation, since patience watches validation_elbo"),
        ("gaussian", {"X": np.zeros((3, 5))}, r"VAE.fit: expected X of shape \(n, 4\), received \(3, 5\)"),
        ("gaussian", {"X": np.full((3, 4), 2.0)}, "values from 0 to 1"),
        ("gaussian", {"X": np.zeros((0, 4))}, "at least 1 row"),
        ("gaussian", {"validation": np.full((3, 4), -1.0)}, "VAE.fit: expected validation to hold"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_fit_leave_the_model_as_it_was(latent, changes, named):
    vae = VAE(4, 2, hidden=(3,), latent=latent)
    before = vae.state_dict()
    with pytest.raises(ValueError, match=named):
        fit(vae, **{"X": X, **changes})
    if "temperature" not in changes:
        for name, value in vae.state_dict().items():
            np.testing.assert_array_equal(value, before[name])
    assert vae.steps == 0


def test_masked_rows_are_refused():
    x = np.ma.masked_array(np.zeros((3, 4)), mask=np.eye(3, 4))
    with pytest.raises(ValueError, match="expected x without masked elements, received 3 of them"):
        VAE(4, 2, hidden=(3,)).elbo(x)
    with pytest.raises(TypeError, match="hidden to be a sequence of integers, received 5"):
        VAE(4, 2, hidden=5)


def test_other_wrong_arguments():
    vae = VAE(4, 2, hidden=(3,))
    with pytest.raises(
        ValueError, match=r"VAE.elbo: expected x of shape \(n, 4\) \(a single row: x\[None\]\)"
    ):
        vae.elbo(X[0])
    with pytest.raises(ValueError, match="n_samples"):
        vae.elbo(X, n_samples=0)
    with pytest.raises(ValueError, match=r"VAE.decode: expected z of shape \(n, 2\)"):
        vae.decode(np.zeros((1, 3)))
    for n in (0, -1, 1.5, (2, 3)):
        with pytest.raises(ValueError, match="expected n to be"):
            vae.sample(n)
        with pytest.raises(ValueError, match="expected n to be"):
            vae.manifold(n)
    with pytest.raises(ValueError, match="expected dimensions to be two of the 2 latent units"):
        vae.manifold(3, dimensions=(0, 2))
    with pytest.raises(TypeError, match="hold numbers"):
        vae.encode([["a", "b", "c", "d"]])
