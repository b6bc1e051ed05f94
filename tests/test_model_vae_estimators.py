"""Each estimator of models.VAE: its mean over many draws is the exact gradient of the objective that it states.

A batch holds each example some hundred times, so that one call averages that many draws; calls with different keys give
the standard error. Exact gradients are differences of float64 sums over all latents, or of quadratures.
"""

import numpy as np
import pytest
from vae_reference import Reference, TwoLayers, gradient, parameters

import gencore as gc
from gencore.models import VAE
from gencore.models import _vae_objectives as objectives
from gencore.random import Key

X = np.array([[0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]], np.uint8)
CALLS = 40
LATENTS = {
    "bernoulli": {"n_latent": 3, "latent": "bernoulli"},
    "categorical": {"n_latent": 2, "latent": "categorical", "n_classes": 3},
    "gaussian": {"n_latent": 1},
}


def model(latent, **options):
    """Far from where learning starts: weights twice as large, biases that are not 0."""
    vae = VAE(4, hidden=(3,), seed=5, **{**LATENTS[latent], **options})
    rng = np.random.default_rng(1)
    with gc.no_grad():
        for p in vae.parameters():
            p[...] = (2 * p.numpy() + 0.3 * rng.standard_normal(p.shape)).astype(np.float32)
    return vae


def draws(vae, estimator, *, x=X, copies=300, calls=CALLS, done=0.5, **settings):
    """Ascent directions for each key (calls, parameters), encoder's first; which of them are the encoder's."""
    objective = objectives.make(vae, objectives.Settings(estimator=estimator, **settings).checked(vae))
    batch = np.tile(x, (copies, 1))
    vae.train()
    objective(batch, Key(10_000), done)  # the baseline's running mean and variance begin
    of_encoder = np.concatenate(
        [np.full(p.size, n.startswith("encoders")) for n, p in vae.named_parameters()]
    )
    found = []
    for key in range(calls):
        vae.zero_grad()
        scale = objective.scale()
        loss, _ = objective(batch, Key(key), done)
        loss.backward()
        flat = np.concatenate([
            (np.zeros(p.size) if p.grad is None else p.grad.numpy().astype(np.float64)).ravel()
            for p in vae.parameters()
        ])  # fmt: skip
        found.append(-flat * np.where(of_encoder, scale, 1.0))
    return np.array(found), of_encoder


def standard_error(found):
    return found.std(axis=0, ddof=1) / np.sqrt(len(found))


def assert_unbiased(found, exact, *, resolved=20):
    """Within 5 standard errors (and rounding); and these are small, else the test would say nothing.

    5 standard errors of 40 calls are exceeded once in 80,000 numbers.
    """
    error = standard_error(found)
    rounding = 1e-5 * np.abs(exact).max()  # of float32 sums over a batch, in both passes
    assert (np.abs(found.mean(axis=0) - exact) <= 5 * error + rounding).all()
    assert np.linalg.norm(exact) > resolved * np.linalg.norm(error), "too noisy to say anything"


@pytest.mark.parametrize(
    ("latent", "estimator"),
    [("gaussian", "reparam"), ("gaussian", "reinforce"), ("bernoulli", "reinforce"), ("categorical", "reinforce")],
)  # fmt: skip
def test_the_gradient_of_the_bound(latent, estimator):
    vae = model(latent)
    reference = Reference(vae)
    exact = gradient(lambda p: reference.bound(p, X.astype(float)).mean(), parameters(vae))
    found, of_encoder = draws(vae, estimator, copies=3000 if estimator == "reinforce" else 300)
    assert_unbiased(found[:, of_encoder], exact[of_encoder], resolved=10)
    assert_unbiased(found[:, ~of_encoder], exact[~of_encoder])


def test_the_gradient_of_the_bound_with_real_data():
    vae = model("gaussian", likelihood="gaussian")
    reference = Reference(vae)
    x = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    exact = gradient(lambda p: reference.bound(p, x.astype(float)).mean(), parameters(vae))
    for estimator, copies in (("reparam", 300), ("reinforce", 3000)):
        found, of_encoder = draws(vae, estimator, x=x, copies=copies)
        assert_unbiased(found[:, of_encoder], exact[of_encoder], resolved=5)
        assert_unbiased(found[:, ~of_encoder], exact[~of_encoder])


def test_the_gradient_of_the_importance_weighted_bound():
    vae = model("gaussian")
    reference = Reference(vae)
    exact = gradient(lambda p: reference.bound_of_two(p, X.astype(float)).mean(), parameters(vae))
    found, of_encoder = draws(vae, "reparam", n_importance=2)
    assert_unbiased(found[:, of_encoder], exact[of_encoder])
    assert_unbiased(found[:, ~of_encoder], exact[~of_encoder])


def test_the_gradient_under_annealing():
    vae = model("gaussian")
    reference = Reference(vae)
    # A fifth of the way from 0.2 to 0.7.
    exact = gradient(lambda p: reference.bound(p, X.astype(float), kl_weight=0.3).mean(), parameters(vae))
    found, of_encoder = draws(vae, "reparam", kl_weight=gc.train.linear(0.2, 0.7), done=0.2)
    assert_unbiased(found[:, of_encoder], exact[of_encoder])
    assert_unbiased(found[:, ~of_encoder], exact[~of_encoder])


def test_reinforce_and_reparam_agree_on_two_layers():
    vae = model("gaussian", n_latent=(2, 1))
    through, of_encoder = draws(vae, "reparam", calls=60, copies=2000)
    score, _ = draws(vae, "reinforce", calls=60, copies=4000)
    error = np.hypot(standard_error(through), standard_error(score))
    assert (np.abs(through.mean(0) - score.mean(0)) <= 5 * error + 1e-5 * np.abs(through).max()).all()
    for part in (of_encoder, ~of_encoder):
        assert np.linalg.norm(through.mean(0)[part]) > 5 * np.linalg.norm(error[part]), "too noisy"


@pytest.mark.parametrize("latent", ["bernoulli", "categorical"])
def test_wake_sleep(latent):
    """The decoder ascends E_q log p(x, z), the bound; the encoder E_p(x, z) log q(z | x), whatever the data."""
    vae = model(latent)
    reference, p = Reference(vae), parameters(model(latent))
    wake = gradient(lambda q: reference.bound(q, X.astype(float)).mean(), p, "decoders")
    sleep = gradient(reference.dreams(p), p, "encoders")
    found, of_encoder = draws(vae, "wake-sleep", copies=1000)
    assert_unbiased(found[:, ~of_encoder], wake)
    assert_unbiased(found[:, of_encoder], sleep)


def test_wake_sleep_of_two_layers():
    vae = model("gaussian", n_latent=(1, 1))
    reference, p = TwoLayers(vae), parameters(vae)
    found, of_encoder = draws(vae, "wake-sleep", copies=2000)
    assert_unbiased(found[:, ~of_encoder], gradient(reference.wake(p, X.astype(float)), p, "decoders"))
    assert_unbiased(found[:, of_encoder], gradient(reference.dreams(p), p, "encoders"))


@pytest.mark.parametrize("latent", ["bernoulli", "categorical"])
def test_concrete_approaches_the_bound_as_the_temperature_falls(latent):
    vae = model(latent)
    reference = Reference(vae)
    exact = gradient(lambda p: reference.bound(p, X.astype(float)).mean(), parameters(vae))
    size, biases = np.linalg.norm(exact), []
    for temperature, copies in ((2.0, 300), (0.5, 600), (0.1, 4000)):
        found, _ = draws(vae, "concrete", temperature=temperature, copies=copies)
        bias, error = found.mean(axis=0) - exact, np.linalg.norm(standard_error(found))
        biases.append(np.linalg.norm(bias))
        assert error < 0.02 * size
    assert biases[0] > 2 * biases[1] > 4 * biases[2]
    assert biases[2] < 0.1 * size, "of the order of the temperature"
    assert biases[0] > 0.1 * size, "at a high temperature it is another objective"


@pytest.mark.parametrize("latent", ["bernoulli", "categorical"])
def test_straight_through_draws_are_hard(latent):
    """What the decoder sees are states: its gradient is unbiased, whatever the temperature."""
    vae = model(latent)
    reference = Reference(vae)
    exact = gradient(lambda p: reference.bound(p, X.astype(float)).mean(), parameters(vae), "decoders")
    found, of_encoder = draws(vae, "concrete", temperature=1.0, straight_through=True, copies=1000)
    assert_unbiased(found[:, ~of_encoder], exact)
    assert (found[:, of_encoder] != 0).any(axis=0).all(), "and the encoder learns"


def test_free_bits_count_each_units_divergence_from_there_on():
    vae = model("gaussian", n_latent=3)
    reference, p = Reference(vae), parameters(model("gaussian", n_latent=3))
    mean, logvar = reference.heads(p, "encoders.0", X.astype(float))
    of_units = (0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)).mean(0)
    limit = float(np.sort(of_units)[1:].mean())  # between the second and the third
    vae.train()
    settings = objectives.Settings(estimator="reparam", free_bits=limit).checked(vae)
    loss, figures = objectives.make(vae, settings)(X, Key(3), 0.5)
    counted = np.maximum(of_units, limit).sum()
    assert counted > of_units.sum() + 0.1
    assert figures["kl"] == pytest.approx(of_units.sum(), rel=1e-5), (
        "what is recorded is the divergence itself"
    )
    assert loss.item() == pytest.approx(counted - figures["reconstruction"], rel=1e-5)

    def encoder_gradient(**settings):
        found, of_encoder = draws(vae, "reparam", calls=1, copies=1, **settings)
        return found[0, of_encoder]

    # Units below the limit cost nothing, so with a limit above all of them none does; and with 0 all do.
    free = encoder_gradient(kl_weight=1e-30)
    np.testing.assert_array_equal(encoder_gradient(free_bits=float(of_units.max()) + 1), free)
    full = encoder_gradient()
    np.testing.assert_allclose(encoder_gradient(free_bits=1e-6), full, atol=1e-5 * np.abs(full).max())
    assert np.abs(full - free).max() > 0.1


def test_baselines_reduce_the_variance():
    """NVIL's point. Examples of very different likelihood, so that what x alone tells is worth knowing."""
    vae = model("bernoulli")
    with gc.no_grad():
        vae.decoders[0].heads[0].bias[...] = np.array([4, -4, 0, 0], np.float32)
    settings = objectives.Settings(estimator="reinforce").checked(vae)
    x = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], np.uint8)  # one likely, one not
    objective = objectives.make(vae, settings)
    learned = list(objective.baseline.parameters())

    def variance():
        found = []
        for key in range(200):
            vae.zero_grad()
            loss, _ = objective(np.tile(x, (5, 1)), Key(key), 0.5)
            loss.backward()
            grads = [p.grad.numpy().ravel() for p in vae.encoders[0].parameters()]
            found.append(np.concatenate(grads) * objective.scale())
        return np.var(found, axis=0).sum()

    vae.eval()  # the running mean and variance stay 0: no baseline at all
    for p in learned:
        with gc.no_grad():
            p[...] = 0
    bare = variance()
    objective = objectives.make(vae, settings)
    learned = list(objective.baseline.parameters())
    optimizer = gc.optim.Adam(learned, lr=0.01)
    vae.train()
    for key in range(300):
        optimizer.zero_grad()
        objective(np.tile(x, (20, 1)), Key(key), 0.5)[0].backward()
        optimizer.step()
    vae.eval()
    assert variance() < 0.2 * bare
