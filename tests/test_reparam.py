"""Reparameterised draws: distributions, gradients of both orders, what they share with each other, and their ends."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import noise, philox
from reference.statistics import FALSE_ALARM, SIGMAS, assert_distributed
from scipy import stats

import gencore as gc
from gencore.kernels import sample
from gencore.random import Generator

KEY = 20_251_125
KINDS = {
    "normal": stats.norm(),
    "logistic": stats.logistic(),
    "laplace": stats.laplace(),
    "gumbel": stats.gumbel_r(),
    "uniform": stats.uniform(),
    "exponential": stats.expon(),
    "log_normal": stats.lognorm(s=1),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def normals(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def standard(kind, *shape, **coordinates):
    loc = None if kind == "exponential" else np.zeros(shape, np.float32)
    return sample.location_scale(loc, np.ones(shape, np.float32), kind=kind, **{"key": KEY, **coordinates})


# --- distributions ------------------------------------------------------------------------------------------


@every_kind
def test_distribution_of_a_kind(kind):
    x = standard(kind, 1000, 1001).ravel().astype(np.float64)
    truth = KINDS[kind]
    assert stats.kstest(x, truth.cdf).pvalue > FALSE_ALARM
    bins = np.minimum((truth.cdf(x) * 1000).astype(int), 999)
    assert_distributed(bins, np.full(1000, 1e-3), kind)


@every_kind
def test_location_and_scale_move_and_stretch(kind):
    """The same noise under other parameters, to the rounding of one multiply-add."""
    unit, scale = standard(kind, 50, 33).astype(np.float64), np.exp(normals(50, 33))
    loc = None if kind == "exponential" else normals(50, 33, seed=1)
    x = sample.location_scale(loc, scale, KEY, kind).astype(np.float64)
    unit, x = (np.log(unit), np.log(x)) if kind == "log_normal" else (unit, x)
    assert np.allclose(x, (0 if loc is None else loc) + scale * unit, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["normal", "uniform", "exponential"])
def test_noise_is_that_of_the_function_of_its_name(kind):
    out = standard(kind, 20, 130, step=5, first_row=7)
    assert np.array_equal(out, getattr(sample, kind)((20, 130), KEY, step=5, first_row=7))


def test_kinds_do_not_share_uniforms():
    """Each kind's noise as uniforms; those of different domains are independent."""
    independent = ["uniform", "exponential", "logistic", "laplace", "gumbel"]
    u = {kind: KINDS[kind].cdf(standard(kind, 400, 640).astype(np.float64)) for kind in independent}
    for i, a in enumerate(independent):
        for b in independent[i + 1 :]:
            cells = np.minimum((u[a] * 16).astype(int), 15) * 16 + np.minimum((u[b] * 16).astype(int), 15)
            assert_distributed(cells, np.full(256, 1 / 256), f"{a} and {b}")


def test_gaussian_is_its_parameters_and_the_noise_of_normal():
    mu, logvar = normals(40, 50), normals(40, 50, seed=1)
    z, _ = sample.gaussian_reparam(mu, logvar, KEY, samples=3, step=2, first_row=9)
    eps = sample.normal((120, 50), KEY, step=2, first_row=9).reshape(3, 40, 50)
    error = np.abs(z.reshape(3, 40, 50) - (mu + np.exp(logvar.astype(np.float64) / 2) * eps))
    assert error.max() < 8 * 2.0**-24 * np.abs(z).max()


def test_moments_of_gaussian_draws():
    """Mean and variance over draws; the mean log-ratio is the divergence, which kl gives in closed form."""
    mu, logvar = normals(2, 5), normals(2, 5, seed=1)
    draws = 100_000
    z, kl = sample.gaussian_reparam(mu, logvar, KEY, samples=draws)
    same, ratio = sample.gaussian_sample(mu, logvar, KEY, samples=draws)
    assert np.array_equal(z, same)
    z, variance = z.reshape(draws, 2, 5).astype(np.float64), np.exp(logvar.astype(np.float64))
    assert np.all(np.abs(z.mean(0) - mu) < SIGMAS * np.sqrt(variance / draws))
    spread = ((z - mu) ** 2).mean(0)
    assert np.all(np.abs(spread - variance) < SIGMAS * variance * np.sqrt(2 / draws))
    ratio = ratio.reshape(draws, 2).astype(np.float64)
    assert np.all(np.abs(ratio.mean(0) - kl) < SIGMAS * ratio.std(0) / np.sqrt(draws))


def test_kl_of_the_standard_normal_is_0_and_by_scipy_elsewhere():
    zeros = np.zeros((3, 7), np.float32)
    assert np.array_equal(sample.gaussian_reparam(zeros, zeros, KEY)[1], np.zeros(3))
    mu, logvar = normals(4, 6), normals(4, 6, seed=1)
    q = stats.norm(mu, np.exp(logvar / 2.0))
    cross = 0.5 * (mu.astype(np.float64) ** 2 + q.var() + np.log(2 * np.pi)).sum(1)
    assert np.allclose(sample.gaussian_reparam(mu, logvar, KEY)[1], cross - q.entropy().sum(1), rtol=1e-5)


def test_log_prob_by_scipy_and_log_ratio_by_log_prob():
    mu, logvar = normals(5, 9), normals(5, 9, seed=1)
    z, ratio = sample.gaussian_sample(mu, logvar, KEY, samples=4)
    by_scipy = stats.norm(mu, np.exp(logvar / 2.0)).logpdf(z.reshape(4, 5, 9)).sum(-1).reshape(-1)
    log_q = sample.gaussian_log_prob(z, mu, logvar)
    assert np.allclose(log_q, by_scipy, rtol=1e-5, atol=1e-5)
    zeros = np.zeros_like(z)
    assert np.allclose(ratio, log_q - sample.gaussian_log_prob(z, zeros, zeros), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_categories", [2, 3, 10, 17, 40])
def test_gumbel_max_has_the_frequencies_of_softmax(n_categories):
    logits = np.tile(normals(n_categories, scale=1.5), (200_000, 1))
    p = np.exp(logits[0].astype(np.float64))
    hard = sample.gumbel_softmax(logits, 0.5, KEY, hard=True)
    assert np.array_equal(hard.sum(1), np.ones(len(logits)))
    assert_distributed(hard.argmax(1), p / p.sum(), f"{n_categories} categories")
    soft = sample.gumbel_softmax(logits, 0.5, KEY)
    assert np.array_equal(soft.argmax(1), hard.argmax(1))


def test_relaxed_bits_have_their_probabilities():
    logits = np.tile(np.array([-3, -0.5, 0, 1, 4], np.float32), (200_000, 1))
    p = 1 / (1 + np.exp(-logits[0].astype(np.float64)))
    bits = sample.relaxed_bernoulli(logits, 0.5, KEY, hard=True)
    assert set(np.unique(bits)) == {0, 1}
    assert np.all(np.abs(bits.mean(0) - p) < SIGMAS * np.sqrt(p * (1 - p) / len(bits)))
    soft = sample.relaxed_bernoulli(logits, 0.5, KEY)
    assert np.array_equal(soft > 0.5, bits == 1)


# --- gradients ----------------------------------------------------------------------------------------------
# Reference functions of float64 arrays with the noise held fixed; central differences along a random direction.


def gaussian_terms(mu, logvar, eps):
    z = mu + np.exp(logvar / 2) * eps
    kl = 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(-1)
    return z, kl, 0.5 * (z**2 - eps**2 - logvar).sum(-1)


def uniforms_of(domain, n, units):
    return philox.flat_uniforms(KEY, domain, 0, philox.flat_elements(0, n, units))


def eps_of(n, units):
    return noise.normal(KEY, 0, 0, n, units)[0]


W = np.random.default_rng(99).normal(size=(24, 7))  # weights of the scalar that is differentiated


def w(shape):
    return W.ravel()[: int(np.prod(shape))].reshape(shape)


def both_outputs(a, b):
    """A scalar of two results in which second derivatives of everything meet."""
    weights = w(a.shape), w(b.shape)
    if isinstance(a, gc.Tensor):
        weights = tuple(x.astype(np.float32) for x in weights)
    return np.sum(weights[0] * np.tanh(a)) + np.sum(weights[1] * b * b)


def one_output(y):
    weight = w(y.shape)
    return np.sum((weight.astype(np.float32) if isinstance(y, gc.Tensor) else weight) * np.exp(y * 0.5))


def reference_kl(mu, logvar):
    z, kl, _ = gaussian_terms(mu, logvar, eps_of(*mu.shape))
    return both_outputs(z, kl)


def reference_ratio(mu, logvar):
    eps = eps_of(3 * len(mu), mu.shape[1]).reshape(3, *mu.shape)
    z, _, ratio = gaussian_terms(mu, logvar, eps)
    return both_outputs(z.reshape(-1, mu.shape[1]), 0.2 * ratio.reshape(-1))


def reference_log_prob(x, mu, logvar):
    d = x.reshape(3, *mu.shape) - mu
    value = -0.5 * (d**2 * np.exp(-logvar) + logvar + np.log(2 * np.pi)).sum(-1)
    return one_output(0.1 * value.reshape(-1))


def reference_kind(kind):
    def function(*parameters):
        loc, scale = (0.0, *parameters)[-2:]
        value, _ = noise.noise(kind, KEY, 0, 0, *scale.shape)
        x = loc + scale * value
        return one_output(np.exp(x) if kind == "log_normal" else x)

    return function


def reference_gumbel(logits):
    g, _ = noise.gumbel_of(uniforms_of(philox.GUMBEL_SOFTMAX, *logits.shape))
    x = (logits + g) / 0.7
    e = np.exp(x - x.max(-1, keepdims=True))
    return one_output(e / e.sum(-1, keepdims=True))


def reference_bits(logits):
    u = uniforms_of(philox.RELAXED_BERNOULLI, *logits.shape)
    return one_output(1 / (1 + np.exp(-(logits + noise.logistic_of(u)[0]) / 0.7)))


GRADIENTS = {
    "gaussian_reparam": (lambda m, v: both_outputs(*sample.gaussian_reparam(m, v, KEY)), reference_kl, "rr"),
    "gaussian_sample": (
        lambda m, v: (lambda z, r: both_outputs(z, 0.2 * r))(*sample.gaussian_sample(m, v, KEY, samples=3)),
        reference_ratio,
        "rr",
    ),
    "gaussian_log_prob": (
        lambda x, m, v: one_output(0.1 * sample.gaussian_log_prob(x, m, v)),
        reference_log_prob,
        "xrr",
    ),
    **{
        kind: (
            lambda loc, scale, kind=kind: one_output(sample.location_scale(loc, scale, KEY, kind)),
            reference_kind(kind),
            "rs",
        )
        for kind in KINDS
        if kind != "exponential"
    },
    "exponential": (
        lambda scale: one_output(sample.location_scale(None, scale, KEY, "exponential")),
        reference_kind("exponential"),
        "s",
    ),
    "gumbel_softmax": (lambda x: one_output(sample.gumbel_softmax(x, 0.7, KEY)), reference_gumbel, "r"),
    "relaxed_bernoulli": (lambda x: one_output(sample.relaxed_bernoulli(x, 0.7, KEY)), reference_bits, "r"),
}
every_gradient = pytest.mark.parametrize("name", GRADIENTS)


def arguments_of(kinds):
    """r: (4, 7) of about 1/2; s: positive; x: three rows for each."""
    made = {
        "r": lambda i: normals(4, 7, seed=i, scale=0.5),
        "s": lambda i: np.exp(normals(4, 7, seed=i, scale=0.3)),
        "x": lambda i: normals(12, 7, seed=i),
    }
    return [made[kind](i) for i, kind in enumerate(kinds)]


def directional(function, points, direction, h):
    ahead = function(*(p + h * d for p, d in zip(points, direction, strict=True)))
    back = function(*(p - h * d for p, d in zip(points, direction, strict=True)))
    return (ahead - back) / (2 * h)


def second_directional(function, points, a, b, h):
    """Mixed second derivative along a and b."""

    def along_b(*at):
        return directional(function, at, b, h)

    return directional(along_b, points, a, h)


@every_gradient
def test_gradient_by_central_differences_of_the_reference(name):
    function, reference, kinds = GRADIENTS[name]
    arrays = arguments_of(kinds)
    tensors = [gc.tensor(a, requires_grad=True) for a in arrays]
    points = [a.astype(np.float64) for a in arrays]
    value = function(*tensors)
    assert float(value.numpy()) == pytest.approx(float(reference(*points)), rel=1e-5, abs=1e-5)
    gradients = gc.grad(value, tensors)
    for i in range(len(arrays)):  # one argument at a time, so that none hides behind another
        direction = [
            normals(*p.shape, seed=50 + i).astype(np.float64) * (i == j) for j, p in enumerate(points)
        ]
        got = sum(float((g.numpy() * d).sum()) for g, d in zip(gradients, direction, strict=True))
        # float32 gradients of a few dozen terms of size 1 to 10; the differences err by h^2 and 1e-16 / h.
        assert got == pytest.approx(directional(reference, points, direction, 1e-5), rel=2e-5, abs=2e-5)


@every_gradient
def test_second_derivatives_by_central_differences_of_the_reference(name):
    function, reference, kinds = GRADIENTS[name]
    arrays = arguments_of(kinds)
    tensors = [gc.tensor(a, requires_grad=True) for a in arrays]
    points = [a.astype(np.float64) for a in arrays]
    b = [normals(*p.shape, seed=70 + i) for i, p in enumerate(points)]
    gradients = gc.grad(function(*tensors), tensors, create_graph=True)
    seconds = gc.grad(
        sum(np.sum(g * d) for g, d in zip(gradients, b, strict=True)), tensors, allow_unused=True
    )
    for i, second in enumerate(seconds):
        a = [normals(*p.shape, seed=90 + i).astype(np.float64) * (i == j) for j, p in enumerate(points)]
        got = 0.0 if second is None else float((second.numpy() * a[i]).sum())
        # h = 1e-4 leaves 1e-16 / h^2 and h^2: 1e-8 of the value.
        assert got == pytest.approx(second_directional(reference, points, a, b, 1e-4), rel=5e-5, abs=5e-5)


@pytest.mark.parametrize("op", [sample.gumbel_softmax, sample.relaxed_bernoulli])
def test_hard_draws_have_the_gradients_of_soft_ones(op):
    """Of both orders: the rules differ only in where the soft draw comes from."""
    logits, g = normals(30, 11), normals(30, 11, seed=1)

    def both(hard):
        x = gc.tensor(logits, requires_grad=True)
        (first,) = gc.grad(np.sum(op(x, 0.6, KEY, hard) * g), [x], create_graph=True)
        return first.numpy(), gc.grad(np.sum(first * g), x).numpy()

    (soft, soft_second), (hard, hard_second) = both(False), both(True)
    assert np.abs(soft).max() > 0.01
    assert np.array_equal(soft, hard)
    assert np.allclose(soft_second, hard_second, rtol=1e-5, atol=1e-6)


def test_a_generators_key_is_drawn_once_for_both_passes():
    logits, generator = normals(6, 9), Generator(4)
    x = gc.tensor(logits, requires_grad=True)
    mu = gc.tensor(logits, requires_grad=True)
    y = sample.gumbel_softmax(x, 0.5, generator, hard=True)
    z, _ = sample.gaussian_reparam(mu, logits, generator)
    (np.sum(y * logits) + np.sum(z * z)).backward()
    twin = Generator(4)
    soft = gc.tensor(logits, requires_grad=True)
    np.sum(sample.gumbel_softmax(soft, 0.5, twin.key()) * logits).backward()
    assert np.array_equal(x.grad.numpy(), soft.grad.numpy())
    again, _ = sample.gaussian_reparam(logits, logits, twin.key())
    assert np.array_equal(mu.grad.numpy(), 2 * again)
    assert generator.state["count"] == 2


def test_unused_results_and_arguments_cost_nothing_and_break_nothing():
    mu, logvar = normals(5, 6), gc.tensor(normals(5, 6, seed=1), requires_grad=True)
    _, kl = sample.gaussian_reparam(mu, logvar, KEY)
    np.sum(kl).backward()
    assert np.allclose(logvar.grad.numpy(), 0.5 * np.expm1(logvar.numpy().astype(np.float64)), atol=1e-6)


# --- ends ---------------------------------------------------------------------------------------------------


def test_every_uniform_gives_finite_noise():
    """Of all 2^23 uniforms in float64; and as drawn, whose ends are those of the extreme uniforms.

    2^25 draws miss a given uniform with probability e^-4: this step's do not miss the ends.
    """
    u = (np.arange(2**23) + 0.5) * 2.0**-23
    for kind, (_, of) in noise.OF_UNIFORM.items():
        value, bound = of(u)
        assert np.isfinite(value).all(), kind
        drawn = standard(kind, 512, 65_536, step=1)
        assert np.isfinite(drawn).all(), kind
        for end, truth in ((drawn.min(), value.min()), (drawn.max(), value.max())):
            assert abs(end - truth) <= bound.max() + 1e-7, kind


def test_relaxed_draws_are_finite():
    """Logits that outdo any noise, 2^25 draws of it for each temperature, and one that magnifies all differences."""
    logits = np.tile(np.array([-1e4, 0, 1e4, 1e4], np.float32), (2**21, 1))
    for tau in (0.01, 1.0, 100.0):
        for step in range(4):
            y = sample.gumbel_softmax(logits, tau, KEY, step=step)
            assert np.isfinite(y).all()
            assert np.abs(y.sum(1) - 1).max() < 6 * 2.0**-23
    bits = sample.relaxed_bernoulli(logits, 0.01, KEY)
    assert np.isfinite(bits).all()
    assert np.array_equal(bits[:, 0], np.zeros(len(bits)))


@pytest.mark.parametrize("n", [3, 16, 40])
@pytest.mark.parametrize("hard", [False, True])
def test_nan_and_infinities_stay_in_their_row(n, hard):
    logits = normals(9, n)
    clean = sample.gumbel_softmax(logits, 0.5, KEY, hard)
    for bad in (np.nan, np.inf):
        logits[4, 1] = bad
        y = sample.gumbel_softmax(logits, 0.5, KEY, hard)
        assert np.isnan(y[4]).all()
        assert np.array_equal(np.delete(y, 4, 0), np.delete(clean, 4, 0))
    logits[4] = -np.inf
    assert np.isnan(sample.gumbel_softmax(logits, 0.5, KEY, hard)[4]).all()
    logits[4, 2] = -1e30
    assert np.array_equal(sample.gumbel_softmax(logits, 0.5, KEY, hard)[4], np.eye(n)[2])


def test_nan_of_a_gaussian_stays_in_its_row():
    mu, logvar = normals(9, 40), normals(9, 40, seed=1)
    clean = (*sample.gaussian_reparam(mu, logvar, KEY), sample.gaussian_sample(mu, logvar, KEY)[1])
    logvar[4, 3], mu[5, 6] = np.nan, np.inf
    dirty = (*sample.gaussian_reparam(mu, logvar, KEY), sample.gaussian_sample(mu, logvar, KEY)[1])
    for a, b in zip(clean, dirty, strict=True):
        assert np.array_equal(np.delete(a, [4, 5], 0), np.delete(b, [4, 5], 0))
    assert np.isnan(dirty[0]).sum() == 1
    assert np.isnan(dirty[1][4])
    assert dirty[1][5] == np.inf


def test_gaussians_of_extreme_variance():
    """The deviation overflows at a logvar of 177 and vanishes at -208; in between all is finite."""
    logvar = np.array([[-np.inf, -300, -180, 0, 80, 170]], np.float32)
    z, kl = sample.gaussian_reparam(np.full_like(logvar, 2), logvar, KEY)
    assert np.isfinite(z).all()
    assert np.array_equal(z[0, :2], [2, 2])
    assert kl[0] == np.inf


# --- one contract: coordinates, shapes, memory, errors -----------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 40), units=st.integers(1, 140), samples=st.integers(1, 4), cut=st.integers(0, 40))
def test_any_shape_may_be_cut_by_rows(n, units, samples, cut):
    cut = min(cut, n)
    mu, logvar = normals(n, units), normals(n, units, seed=1)
    z, kl = sample.gaussian_reparam(mu, logvar, KEY, samples=samples)
    assert z.shape == (samples * n, units)
    for s in range(samples):
        part, part_kl = sample.gaussian_reparam(mu[cut:], logvar[cut:], KEY, first_row=s * n + cut)
        assert np.array_equal(z[s * n + cut : (s + 1) * n], part)
        assert np.array_equal(kl[cut:], part_kl)
    y = sample.gumbel_softmax(mu, 0.5, KEY)
    assert np.array_equal(y[cut:], sample.gumbel_softmax(mu[cut:], 0.5, KEY, first_row=cut))
    bits = sample.relaxed_bernoulli(mu, 0.5, KEY)
    assert np.array_equal(bits[cut:], sample.relaxed_bernoulli(mu[cut:], 0.5, KEY, first_row=cut))


def test_numbers_of_samples_may_be_numpys():
    mu, logvar = normals(3, 2), normals(3, 2, seed=1)
    for function in (sample.gaussian_reparam, sample.gaussian_sample):
        expected = function(mu, logvar, KEY, samples=4)
        for found, same in zip(function(mu, logvar, KEY, samples=np.int64(4)), expected, strict=True):
            np.testing.assert_array_equal(found, same)


def test_flat_layout_beyond_its_first_row():
    """Row 2^32 - 1 of 10 columns is element 10 (2^32 - 1), unit (that mod 2^30) of row 39 of the stream."""
    x = sample.gumbel_softmax(np.zeros((1, 10), np.float32), 1.0, KEY, first_row=2**32 - 1)
    u = philox.uniforms(KEY, philox.GUMBEL_SOFTMAX, 0, [39], 1)  # where the row begins
    assert 0 < u[0, 0] < 1
    flat = philox.flat_uniforms(KEY, philox.GUMBEL_SOFTMAX, 0, philox.flat_elements(2**32 - 1, 1, 10))
    share = 1 / -np.log(flat)
    assert np.allclose(x, share / share.sum(), rtol=1e-5)


def test_axes():
    mu, logvar = normals(2, 3, 7), normals(2, 3, 7, seed=1)
    z, kl = sample.gaussian_reparam(mu, logvar, KEY)
    flat, flat_kl = sample.gaussian_reparam(mu.reshape(6, 7), logvar.reshape(6, 7), KEY)
    assert np.array_equal(z, flat.reshape(2, 3, 7))
    assert np.array_equal(kl, flat_kl.reshape(2, 3))
    several, ratio = sample.gaussian_sample(mu, logvar, KEY, samples=4)
    assert several.shape == (8, 3, 7)
    assert ratio.shape == (8, 3)
    one, one_kl = sample.gaussian_reparam(mu[0, 0], logvar[0, 0], KEY)
    assert np.array_equal(one, flat[0])
    assert one_kl == flat_kl[0]
    assert sample.gaussian_sample(mu[0, 0], logvar[0, 0], KEY, samples=4)[0].shape == (4, 7)
    assert sample.gaussian_log_prob(several, mu, logvar).shape == (8, 3)
    for op in (sample.gumbel_softmax, sample.relaxed_bernoulli):
        assert np.array_equal(op(mu, 0.5, KEY), op(mu.reshape(6, 7), 0.5, KEY).reshape(2, 3, 7))


def test_nothing_of_the_size_of_the_noise_is_kept():
    """Between the passes there are the results alone; after the backward pass, the gradients."""
    n, units = 2000, 200
    mu = gc.tensor(normals(n, units), requires_grad=True)
    logvar = gc.tensor(normals(n, units, seed=1), requires_grad=True)
    one = 4 * n * units
    tracemalloc.start()
    try:
        z, kl = sample.gaussian_reparam(mu, logvar, KEY)
        held, peak = tracemalloc.get_traced_memory()
        assert held < one + 4 * n + 50_000
        assert peak < one + 4 * n + 50_000
        y = sample.gumbel_softmax(mu, 0.5, KEY, hard=True)
        assert tracemalloc.get_traced_memory()[0] < 2 * one + 4 * n + 50_000
    finally:
        tracemalloc.stop()
    assert z.shape == y.shape
    assert kl.shape == (n,)


@pytest.mark.parametrize("op", [sample.gumbel_softmax, sample.relaxed_bernoulli])
@pytest.mark.parametrize("tau", [0.0, -1.0, np.nan, np.inf])
def test_temperatures_that_are_refused(op, tau):
    with pytest.raises(
        ValueError, match=rf"sample.{op.__name__}: expected tau to be positive and finite, received"
    ):
        op(normals(2, 3), tau, KEY)


def test_arguments_that_are_refused():
    mu = normals(4, 3)
    with pytest.raises(
        ValueError, match=r"expected kind to be one of normal, logistic, .*, received 'cauchy'"
    ):
        sample.location_scale(mu, mu, KEY, "cauchy")
    with pytest.raises(ValueError, match="loc to be left out where kind is exponential"):
        sample.location_scale(mu, mu, KEY, "exponential")
    with pytest.raises(
        ValueError, match=r"sample.gaussian_reparam: expected logvar of shape \(4, 3\), the shape of mu"
    ):
        sample.gaussian_reparam(mu, mu[:2], KEY)
    with pytest.raises(TypeError, match=r"sample.gaussian_reparam: expected mu of dtype float32"):
        sample.gaussian_reparam(mu.astype(float), mu, KEY)
    with pytest.raises(ValueError, match="expected samples from 1 to"):
        sample.gaussian_reparam(mu, mu, KEY, samples=0)
    with pytest.raises(ValueError, match=r"expected x of shape \(4, 3\), samples times the rows of mu"):
        sample.gaussian_log_prob(normals(7, 3), mu, mu)
    with pytest.raises(TypeError, match="tau"):
        sample.gumbel_softmax(gc.tensor(mu), gc.tensor(np.float32(1)), KEY)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda a, b: sample.gaussian_reparam(a, b, KEY), "gaussian_reparam: expected logvar"),
        (lambda a, b: sample.gaussian_sample(a, b, KEY), "gaussian_reparam: expected logvar"),
        (lambda a, b: sample.location_scale(b, a, KEY), "location_scale: expected loc"),
        (lambda a, b: sample.gaussian_log_prob(a, a, b), "gaussian_log_prob: expected logvar"),
        (lambda a, b: sample.gaussian_log_prob(b, a, a), "gaussian_log_prob: expected x"),
        (lambda a, b: sample.bernoulli(a, KEY, out=b.astype(np.uint8)), "bernoulli: expected out"),
    ],
)
@pytest.mark.parametrize("shapes", [((5, 7, 1), (35, 1)), ((2, 3, 4), (3, 2, 4)), ((3,), (3, 1))], ids=str)
def test_shapes_agree_before_they_become_rows(call, named, shapes):
    with pytest.raises(ValueError, match=rf"sample.{named} of shape"):
        call(*(np.zeros(shape, np.float32) for shape in shapes))


def test_rows_of_no_elements():
    nothing = np.zeros(0, np.float32)
    z, kl = sample.gaussian_reparam(nothing, nothing, KEY)
    assert z.shape == (0,)
    assert kl == 0
    assert sample.gaussian_log_prob(nothing, nothing, nothing) == 0
    assert sample.location_scale(nothing, nothing, KEY).shape == (0,)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: sample.gaussian_reparam(a, b, KEY)[0],
        lambda a, b: sample.gaussian_sample(a, b, KEY)[1],
        lambda a, b: sample.gaussian_log_prob(a, b, b),
        lambda a, b: sample.location_scale(a, b, KEY),
        lambda a, b: sample.gumbel_softmax(a, 1.0, KEY) * b,
        lambda a, b: sample.relaxed_bernoulli(a, 1.0, KEY) * b,
    ],
)
def test_strided_tensors_are_copied_and_keep_their_history(call):
    """The two halves of an encoder's columns."""
    whole = gc.tensor(normals(4, 6), requires_grad=True)
    halves = [
        gc.tensor(whole.detach().numpy()[:, half], requires_grad=True) for half in (slice(3), slice(3, 6))
    ]
    y, want = call(whole[:, :3], whole[:, 3:]), call(*halves)
    assert np.array_equal(y.detach(), want.detach())
    y.sum().backward()
    want.sum().backward()
    assert np.array_equal(whole.grad, np.concatenate([half.grad for half in halves], 1))
