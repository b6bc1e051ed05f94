"""evaluate.gradient_variance: against enumeration, and what is known of the estimators; its picture."""

import itertools

import numpy as np
import pytest
from matplotlib.image import imread
from test_plot import assert_nothing_cut_off
from vae_reference import Reference, gradient, parameters

import gencore as gc
from gencore import plot
from gencore.evaluate import GradientVariance, gradient_variance
from gencore.models import VAE

X = np.array([[0, 1, 1, 0]], np.uint8)


def model(**options):
    vae = VAE(4, **{"n_latent": 2, "latent": "bernoulli", "hidden": (3,), "seed": 5, **options})
    rng = np.random.default_rng(1)
    with gc.no_grad():
        for p in vae.parameters():
            p[...] = (2 * p.numpy() + 0.3 * rng.standard_normal(p.shape)).astype(np.float32)
    return vae


def exact(vae, x):
    """Of one example and one draw, without a baseline: the scores and worths of all states, by their probability."""
    reference, p = Reference(vae), parameters(vae)
    z, log_q, joint = reference.enumerated(p, x)
    q = np.exp(log_q[:, 0])
    worth = (joint - log_q)[:, 0]
    score = np.stack([gradient(lambda p, i=i: reference.log_posteriors(p, x, z)[i, 0], p, "encoders")
                      for i in range(len(z))])  # fmt: skip
    decoder = np.stack([gradient(lambda p, i=i: reference.log_likelihoods(p, x, z)[i, 0], p, "decoders")
                        for i in range(len(z))])  # fmt: skip
    return q, worth, score, decoder


def moments(q, values):
    """Norm of the mean, total variance, and the variance of a squared deviation, of vectors of probabilities q."""
    mean = q @ values
    off = np.square(values - mean).sum(1)
    return np.linalg.norm(mean), q @ off, q @ np.square(off - q @ off)


def test_reinforce_has_the_variance_that_enumeration_gives():
    vae = model()
    q, worth, score, decoder = exact(vae, X.astype(float))
    n = 4000
    found = gradient_variance(vae, X, ["reinforce"], n_draws=n, warm_up=0, seed=3)["reinforce"]
    norm, variance, spread = moments(q, decoder)
    # A sample variance of n draws errs by the spread of squared deviations / sqrt n; a norm by the noise of the mean.
    assert abs(found.decoder_variance - variance) < 5 * np.sqrt(spread / n) + 1e-3 * variance
    assert abs(found.decoder_norm - norm) < 5 * np.sqrt(variance / n)
    # The encoder's depends on what the baseline is: a constant (and a running mean of draws, which is noise of variance
    # 1/9 of theirs: (1 - 0.8) / (1 + 0.8)) about the mean worth.
    centred = worth - q @ worth
    norm, variance, spread = moments(q, score * centred[:, None])
    mean_score_square = q @ np.square(score).sum(1)
    expected = variance + (q @ centred**2) / 9 * mean_score_square
    assert abs(found.encoder_norm - norm) < 5 * np.sqrt(expected / n)
    bound = 5 * np.sqrt(3 * (spread + variance**2) / n)  # draws close together share the running mean
    assert abs(found.encoder_variance - expected) < bound
    assert expected > bound
    sizes = {part: sum(p.size for name, p in vae.named_parameters() if name.startswith(part))
             for part in ("encoders", "decoders")}  # fmt: skip
    assert (found.encoder_size, found.decoder_size) == (sizes["encoders"], sizes["decoders"])


def test_estimators_on_one_model():
    """On Gaussian latents both are unbiased for one gradient, and the score function's is far noisier."""
    data = gc.datasets.load("digits").train[:400]
    vae = VAE(64, 5, hidden=(20,), seed=2)
    vae.fit(data, epochs=10, batch_size=50, progress=False)
    batch = data[:50]
    found = gradient_variance(vae, batch, ["reparam", "reinforce", "wake-sleep"], n_draws=200)
    assert list(found) == ["reparam", "reinforce", "wake-sleep"]
    through, score = found["reparam"], found["reinforce"]
    assert score.encoder_variance > 10 * through.encoder_variance
    assert abs(score.encoder_norm - through.encoder_norm) < 5 * np.sqrt(score.encoder_variance / 200)
    # The decoder's gradient is the same function of the same kind of draw in all three.
    for other in ("reinforce", "wake-sleep"):
        assert found[other].decoder_variance == pytest.approx(through.decoder_variance, rel=0.2)
        assert found[other].decoder_norm == pytest.approx(through.decoder_norm, rel=0.1)
    bare = gradient_variance(vae, batch, ["reinforce"], n_draws=200, warm_up=0)["reinforce"]
    assert score.encoder_variance < bare.encoder_variance, "what baselines are for"


def test_the_model_is_left_as_it_is_and_the_seed_decides():
    vae = model().eval()
    state, generator = vae.state_dict(), vae.generator.state
    names = ["concrete", "reinforce", "wake-sleep"]
    first = gradient_variance(vae, X.tolist(), names, n_draws=5, warm_up=3)
    assert gradient_variance(vae, X, names, n_draws=5, warm_up=3) == first
    assert gradient_variance(vae, X, names, n_draws=5, warm_up=3, seed=1) != first
    assert vae.generator.state == generator
    assert not vae.training
    assert all(p.grad is None for p in vae.parameters())
    for name, value in vae.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_draws": 1}, "n_draws to be an integer of at least 2"),
        ({"warm_up": -1}, "warm_up to be an integer of at least 0"),
        ({"estimators": ["reparam"]}, "estimator for discrete latents"),
        ({"estimators": ["concrete", "guess"]}, "estimator to be"),
        ({"X": np.zeros((2, 5))}, r"gradient_variance: expected X of shape \(n, 4\)"),
        ({"X": np.zeros((0, 4))}, "at least 1 row"),
    ],
)
def test_wrong_arguments(changes, named):
    with pytest.raises(ValueError, match=named):
        gradient_variance(**{"model": model(), "X": X, "estimators": ["concrete"], **changes})


# --- the picture ------------------------------------------------------------------------------------------------

RESULTS = {
    "reparam": GradientVariance(1.2, 0.04, 90, 2.0, 1.5, 80),
    "reinforce": GradientVariance(1.1, 230.0, 90, 2.1, 1.6, 80),
    "wake-sleep": GradientVariance(0.0, 3.1, 90, 2.0, 0.0, 80),
}


def test_bars_are_as_high_as_the_variances(tmp_path):
    figure = plot.gradient_variance(RESULTS, tmp_path / "v.png", title="one model")
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    bars = [[bar.get_y() + bar.get_height() for bar in group] for group in axes.containers]
    np.testing.assert_allclose(bars[0], [0.04, 230.0, 3.1])
    np.testing.assert_allclose(bars[1][:2], [1.5, 1.6])
    assert axes.containers[1][2].get_height() == 0, "no bar for no variance"
    assert [text.get_text() for text in axes.texts] == ["0.04", "2.3e+02", "3.1", "1.5", "1.6", "0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(RESULTS)
    assert axes.get_title(loc="left") == "one model"
    assert_nothing_cut_off(figure)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    image = imread(tmp_path / "v.png")
    assert image.shape[0] > 300
    assert image[..., :3].std() > 0.1
    nothing = plot.gradient_variance({"one": GradientVariance(0, 0.0, 1, 0, 0.0, 1)})
    assert_nothing_cut_off(nothing)


def test_pictures_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one estimator"):
        plot.gradient_variance({})
    with pytest.raises(ValueError, match="finite numbers in results"):
        plot.gradient_variance({"a": GradientVariance(1, np.nan, 1, 1, 1.0, 1)})
