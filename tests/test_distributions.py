"""gencore.distributions: values against SciPy and PyTorch, divergences against integrals, both ends.

Draws and gradients are in test_distributions_draws.py, shapes and errors in test_distributions_arguments.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from reference.rounding import U
from scipy import integrate, special, stats

import gencore as gc
from gencore import distributions as gd
from gencore.distributions import _functions, kl

f32 = np.float32

# The distribution in scipy.stats, and in `magnitudes` the sizes of what `log_prob`, `cdf`, `icdf` and `entropy` add up,
# each with the slope of what it is put through. z = (x - loc) / scale; y = log x.
SCIPY = {
    "Normal": lambda loc, scale: stats.norm(loc, scale),
    "LogNormal": lambda loc, scale: stats.lognorm(scale, scale=np.exp(loc)),
    "Laplace": lambda loc, scale: stats.laplace(loc, scale),
    "Logistic": lambda loc, scale: stats.logistic(loc, scale),
    "Gumbel": lambda loc, scale: stats.gumbel_r(loc, scale),
    "Exponential": lambda rate: stats.expon(scale=1 / rate),
    "Uniform": lambda low, high: stats.uniform(low, high - low),
}
every_continuous = pytest.mark.parametrize("name", SCIPY)

# A term is a number of float32 roundings away from its value: of a difference, a quotient, a square (which doubles the
# error of what it squares), a function (NumPy's exp and log err by 4 units in the last place, of 2 U), the sum.
ROUNDINGS = 16


def parameters(name, dtype=np.float64, n=40):
    rng = np.random.default_rng(sum(map(ord, name)))
    loc, scale = rng.uniform(-3, 3, n), np.exp(rng.uniform(-3, 2, n))
    if name == "LogNormal":
        scale = np.minimum(scale, 2)
    if name == "Exponential":
        given = (scale,)
    elif name == "Uniform":
        given = (loc, loc + scale)
    else:
        given = (loc, scale)
    return [p.astype(f32).astype(dtype) for p in given]


def values(name, dtype=np.float64, n=40):
    """Numbers up to where tails are thin: at probabilities 1e-6 to 1 - 1e-6."""
    rng = np.random.default_rng(7)
    p = special.expit(rng.uniform(-14, 14, (6, n)))
    return SCIPY[name](*parameters(name, n=n)).ppf(p).astype(f32).astype(dtype)


def magnitude(name, what, x, truth, given):
    one = 1.0
    if name == "Exponential":
        (rate,) = given
        logs, z, slope = np.abs(np.log(rate)), rate * x, rate * x
    elif name == "Uniform":
        low, high = given
        logs, z, slope = np.abs(np.log(high - low)), 0 * x, 0 * x
    else:
        loc, scale = given
        logs = np.abs(np.log(scale))
        if name == "LogNormal":
            y = np.log(x)
            z, logs = (y - loc) / scale, logs + np.abs(y) + np.abs(loc)
            slope = np.abs(z) + np.abs(y) / scale  # of the logarithm's error
        else:
            z = (x - loc) / scale
            slope = np.abs(z)
    if what == "log_prob":
        steep = {
            "Normal": np.abs(z) * slope,
            "LogNormal": np.abs(z) * slope,
            "Gumbel": np.exp(-z) * (1 + np.abs(z)),
        }
        return one + logs + slope + steep.get(name, 0)
    # What an error in z does to the cdf: the density of z, times it.
    steep = {
        "Normal": stats.norm.pdf(z), "LogNormal": stats.norm.pdf(z), "Laplace": stats.laplace.pdf(z),
        "Logistic": stats.logistic.pdf(z), "Gumbel": stats.gumbel_r.pdf(z), "Exponential": np.exp(-z), "Uniform": 0,
    }  # fmt: skip
    extra = np.exp(-z - np.exp(-z)) if name == "Gumbel" else 0
    return truth + steep[name] * slope + extra


# --- against SciPy ------------------------------------------------------------------------------------------


@every_continuous
@pytest.mark.parametrize("what", ["log_prob", "cdf"])
def test_densities_and_probabilities_are_scipys(name, what):
    truth = SCIPY[name](*parameters(name))
    x = values(name)
    want = {"log_prob": truth.logpdf, "cdf": truth.cdf}[what](x)
    bound = magnitude(name, what, x, want, parameters(name))
    exact = getattr(getattr(gd, name)(*parameters(name), validate_args=False), what)(x)
    assert exact.dtype == np.float64
    # SciPy computes in float64 as well: both err.
    assert np.all(np.abs(exact - want) <= 64 * ROUNDINGS * 2.0**-53 * bound)
    got = getattr(getattr(gd, name)(*parameters(name, f32), validate_args=False), what)(values(name, f32))
    assert got.dtype == f32
    assert np.all(np.abs(got - want) <= ROUNDINGS * U * bound)


@every_continuous
def test_quantiles_are_scipys(name):
    p = special.expit(np.linspace(-15, 15, 31)).astype(f32)[:, None]
    given = parameters(name)
    want = SCIPY[name](*given).ppf(p.astype(np.float64))
    if name == "LogNormal":
        size = want * (
            1 + np.abs(given[0]) + np.abs(np.log(want))
        )  # the exponential's argument errs in proportion
    elif name == "Uniform":
        size = np.abs(given[0]) + np.abs(given[1])
    elif name == "Exponential":
        size = np.abs(want)
    else:
        loc, scale = given
        size = np.abs(loc) + scale * (1 + np.abs(np.log(p)) + np.abs(np.log1p(-p)))
    got = getattr(gd, name)(*parameters(name, f32)).icdf(p)
    assert got.dtype == f32
    assert np.all(np.abs(got - want) <= ROUNDINGS * U * size)
    ends = getattr(gd, name)(*parameters(name, f32)).icdf(np.array([[0], [1]], f32))
    np.testing.assert_allclose(ends, SCIPY[name](*given).ppf([[0], [1]]), rtol=4 * U)


@every_continuous
def test_entropy_and_moments_are_scipys(name):
    given = parameters(name)
    truth, d = SCIPY[name](*given), getattr(gd, name)(*parameters(name, f32))
    loc, scale = given if len(given) == 2 else (0 * given[0], 1 / given[0])
    size = 4 + np.abs(loc) + np.abs(np.log(scale)) if name != "Uniform" else 4 + np.abs(np.log(scale - loc))
    assert np.all(np.abs(d.entropy() - truth.entropy()) <= ROUNDINGS * U * size)
    # exp and expm1 pass on the errors of their arguments; all else is products.
    relative = 1 + 2 * (np.abs(loc) + scale**2) if name == "LogNormal" else 1
    for what, want in (("variance", truth.var()), ("stddev", truth.std())):
        assert np.all(np.abs(getattr(d, what) - want) <= ROUNDINGS * U * relative * want), what
    size = truth.mean() * relative if name == "LogNormal" else np.abs(loc) + np.abs(scale)
    assert np.all(np.abs(d.mean - truth.mean()) <= ROUNDINGS * U * size)
    for what in ("mean", "mode", "variance", "stddev", "entropy"):
        found = getattr(d, what)
        assert (found() if callable(found) else found).dtype == f32


@every_continuous
def test_mode_is_the_top_of_the_density(name):
    d = getattr(gd, name)(*parameters(name))
    if name == "Uniform":
        assert np.isnan(d.mode).all()
        return
    top = d.log_prob(d.mode)
    for factor in (-1e-3, 1e-3):
        beside = d.mode + factor * d.stddev
        inside = d.support.check(beside)
        assert np.all((d.log_prob(np.where(inside, beside, d.mode)) < top) | ~inside)


def test_discrete_values_are_scipys():
    rng = np.random.default_rng(3)
    logits = rng.uniform(-12, 12, (50, 4)).astype(f32)
    p = special.expit(logits.astype(np.float64))
    for b, exact in (
        (gd.Bernoulli(logits=logits), p),
        (gd.Bernoulli(probs=p.astype(f32)), p.astype(f32).astype(np.float64)),
    ):
        truth = stats.bernoulli(exact)
        for x in (0, 1):
            want = truth.logpmf(x)
            # Relative also where the logarithm is near 0: 1 - p is exact, and no term cancels another.
            other = np.log1p(-exact) if x else np.log(exact)
            near = np.where(b._by("probs") is None, np.abs(want) * (1 + np.abs(other)), np.abs(want))
            assert np.all(np.abs(b.log_prob(x) - want) <= ROUNDINGS * U * near)
        np.testing.assert_allclose(b.entropy(), truth.entropy(), rtol=ROUNDINGS * U * 12)
        np.testing.assert_allclose(b.variance, truth.var(), rtol=ROUNDINGS * U)
        np.testing.assert_allclose(b.mean, exact, rtol=ROUNDINGS * U)
    rows = special.softmax(logits.astype(np.float64), axis=-1)
    for c in (
        gd.Categorical(logits=logits),
        gd.Categorical(probs=rows.astype(f32)),
        gd.Categorical(probs=3 * rows.astype(f32)),
    ):
        k = rng.integers(0, 4, (7, 50))
        want = np.log(np.take_along_axis(np.broadcast_to(rows, (7, 50, 4)), k[..., None], -1)[..., 0])
        assert np.all(np.abs(c.log_prob(k) - want) <= ROUNDINGS * U * (1 + np.abs(want) + 12))
        assert np.all(np.abs(c.entropy() - stats.entropy(rows, axis=-1)) <= ROUNDINGS * U * 24)
        assert np.array_equal(c.mode, rows.argmax(-1))


# --- against PyTorch ----------------------------------------------------------------------------------------

NEAR = {"rtol": 1e-11, "atol": 1e-12}  # both in float64; PyTorch's tails are exact to 1e-16 absolutely


def torch_pair(torch, name, *given, **named):
    """The same distribution here and there, in float64."""
    there = [torch.tensor(x) for x in given], {k: torch.tensor(v) for k, v in named.items()}
    ours = getattr(gd, name)(*given, **named)
    return ours, getattr(torch.distributions, name)(*there[0], **there[1], validate_args=False)


def torch_cases():
    rng = np.random.default_rng(5)
    probs, logits = rng.uniform(0.02, 0.98, (3, 4)), rng.uniform(-4, 4, (3, 4))
    rows = special.softmax(logits, axis=-1)
    cases = {name: (tuple(parameters(name)), {}) for name in SCIPY if name != "Logistic"}
    cases |= {
        f"{n} by {k}": ((), {k: v})
        for n in ("Bernoulli", "Categorical")
        for k, v in (("probs", rows), ("logits", logits))
    }
    for name, p in (("RelaxedBernoulli", probs), ("RelaxedOneHotCategorical", rows)):
        cases |= {
            f"{name} by {k} at {t}": ((np.float64(t),), {k: v})
            for t in (0.4, 2.0)
            for k, v in (("probs", p), ("logits", logits))
        }
    return cases


TORCH = torch_cases()


@pytest.mark.parametrize("case", TORCH)
def test_names_and_values_are_torchs(case, torch):
    given, named = TORCH[case]
    name = case.split()[0]
    ours, theirs = torch_pair(torch, name, *given, **named)
    assert (ours.batch_shape, ours.event_shape) == (tuple(theirs.batch_shape), tuple(theirs.event_shape))
    assert ours.has_rsample == theirs.has_rsample
    assert set(theirs.arg_constraints) == set(ours.arg_constraints) - {"temperature"}
    for parameter in theirs.arg_constraints:
        np.testing.assert_allclose(getattr(ours, parameter), getattr(theirs, parameter).numpy(), **NEAR)
    if not name.startswith("Relaxed"):
        for what in ("mean", "variance", "stddev", "mode"):
            np.testing.assert_allclose(getattr(ours, what), getattr(theirs, what).numpy(), **NEAR)
        np.testing.assert_allclose(ours.entropy(), theirs.entropy().numpy(), **NEAR)
    x = values(name) if name in SCIPY else ours.sample((6,), key=2).astype(np.float64)
    np.testing.assert_allclose(
        ours.log_prob(x), theirs.log_prob(torch.tensor(x)).numpy(), rtol=1e-10, atol=1e-9
    )
    if name in SCIPY:
        np.testing.assert_allclose(ours.cdf(x), theirs.cdf(torch.tensor(x)).numpy(), **NEAR)
        p = np.random.default_rng(1).uniform(0.01, 0.99, x.shape)
        np.testing.assert_allclose(ours.icdf(p), theirs.icdf(torch.tensor(p)).numpy(), **NEAR)


def test_soft_values_of_bernoulli_are_the_cross_entropy(torch):
    logits, x = np.linspace(-9, 9, 19), np.linspace(0, 1, 19)
    for named in ({"logits": logits}, {"probs": special.expit(logits)}):
        ours = gd.Bernoulli(**named, validate_args=False).log_prob(x)
        theirs = torch.distributions.Bernoulli(logits=torch.tensor(logits), validate_args=False)
        np.testing.assert_allclose(ours, theirs.log_prob(torch.tensor(x)).numpy(), **NEAR)


# --- divergences --------------------------------------------------------------------------------------------

POINTS = {
    gd.Normal: gd.Normal(0.3, np.float64(1.2)), gd.LogNormal: gd.LogNormal(0.2, np.float64(0.6)),
    gd.Exponential: gd.Exponential(np.float64(1.3)), gd.Laplace: gd.Laplace(-0.4, np.float64(0.7)),
    gd.Logistic: gd.Logistic(0.1, np.float64(0.4)), gd.Gumbel: gd.Gumbel(0.5, np.float64(0.8)),
    gd.Uniform: gd.Uniform(np.float64(0.25), np.float64(1.75)),
}  # fmt: skip
OTHERS = {
    gd.Normal: gd.Normal(-0.5, np.float64(0.9)), gd.LogNormal: gd.LogNormal(-0.3, np.float64(0.8)),
    gd.Exponential: gd.Exponential(np.float64(0.6)), gd.Laplace: gd.Laplace(0.3, np.float64(1.4)),
    gd.Gumbel: gd.Gumbel(-0.2, np.float64(1.5)), gd.Uniform: gd.Uniform(np.float64(-1), np.float64(2.5)),
}  # fmt: skip
DISCRETE = {(gd.Bernoulli, gd.Bernoulli), (gd.Categorical, gd.Categorical), (gd.Independent, gd.Independent)}
PAIRS = sorted(set(kl._RULES) - DISCRETE, key=lambda pair: (pair[0].__name__, pair[1].__name__))


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=[f"{a.__name__}-{b.__name__}" for a, b in PAIRS])
def test_divergence_is_the_integral(a, b):
    p, q = POINTS[a], OTHERS[b]
    got = gd.kl_divergence(p, q)
    low, high = (float(v) for v in p.icdf(np.array([1e-15, 1 - 1e-15])))
    inside = np.all(q.support.check(np.array([low, high])))
    if not inside:
        assert got == np.inf
        return
    centre = float(q.mean)

    def integrand(x):
        return float(np.exp(p.log_prob(x)) * (p.log_prob(x) - q.log_prob(x)))

    kinks = sorted({float(np.clip(v, low, high)) for v in (centre, float(p.mean))})
    want = integrate.quad(integrand, low, high, points=kinks, limit=400, epsabs=1e-11, epsrel=1e-11)[0]
    # What is left out has probability 2e-15, and log-ratios there are below 1e4.
    assert abs(float(got) - want) < 1e-9 * (1 + abs(want))


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=[f"{a.__name__}-{b.__name__}" for a, b in PAIRS])
def test_divergence_is_torchs(a, b, torch):
    there = [getattr(torch.distributions, type(d).__name__, None) for d in (POINTS[a], OTHERS[b])]
    if None in there:
        pytest.skip("PyTorch has no Logistic")
    p, q = (
        t(*(torch.tensor(np.float64(x)) for x in d._given.values()))
        for t, d in zip(there, (POINTS[a], OTHERS[b]), strict=True)
    )
    try:
        want = torch.distributions.kl_divergence(p, q).item()
    except NotImplementedError:
        pytest.skip("PyTorch has no divergence of this pair")
    np.testing.assert_allclose(gd.kl_divergence(POINTS[a], OTHERS[b]), want, **NEAR)


def test_divergence_of_discrete_ones_is_the_sum():
    rng = np.random.default_rng(11)
    a, b = (special.softmax(rng.uniform(-5, 5, (20, 4)), axis=-1) for _ in range(2))
    want = np.sum(a * np.log(a / b), axis=-1)
    makers = (lambda p: gd.Categorical(probs=p), lambda p: gd.Categorical(logits=np.log(p)))
    for one in makers:
        for other in makers:
            np.testing.assert_allclose(gd.kl_divergence(one(a), other(b)), want, rtol=1e-12)
    want = a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
    makers = (lambda p: gd.Bernoulli(probs=p), lambda p: gd.Bernoulli(logits=special.logit(p)))
    for one in makers:
        for other in makers:
            np.testing.assert_allclose(gd.kl_divergence(one(a), other(b)), want, rtol=1e-10)
            rows = gd.kl_divergence(gd.Independent(one(a), 1), gd.Independent(other(b), 1))
            np.testing.assert_allclose(rows, want.sum(-1), rtol=1e-10)


def test_divergence_from_itself_is_nothing():
    for name in SCIPY:
        if name != "Logistic":
            d = getattr(gd, name)(*parameters(name, f32))
            # r = 1 and d = 0 exactly, and log_gamma(2) is below an ulp of float64's sums.
            assert np.all(np.abs(gd.kl_divergence(d, d)) <= (1e-14 if name == "Gumbel" else 0))


def test_divergences_by_float32_stay_near():
    """As a sum of terms: 1/2 (r^2 - 1 - 2 log r + d^2) of the normal, the others alike."""
    rng = np.random.default_rng(12)
    for name in ("Normal", "LogNormal", "Laplace", "Gumbel", "Exponential"):
        loc, scale = rng.uniform(-2, 2, (2, 30)).astype(f32), np.exp(rng.uniform(-1, 1, (2, 30))).astype(f32)
        given = [(s,) if name == "Exponential" else (m, s) for m, s in zip(loc, scale, strict=True)]
        p, q = (getattr(gd, name)(*g) for g in given)
        exact = gd.kl_divergence(*(getattr(gd, name)(*(x.astype(np.float64) for x in g)) for g in given))
        got = gd.kl_divergence(p, q)
        assert got.dtype == f32
        r, d = np.maximum(scale[0] / scale[1], scale[1] / scale[0]), np.abs(loc[0] - loc[1]) / scale[1]
        # exp(log Gamma(1 + r) - d) is the Gumbel's largest: its argument errs by its own size.
        size = 3 + r**2 + d**2 + d
        if name == "Gumbel":
            top = special.gammaln(1 + scale[0] / scale[1]) - (loc[0] - loc[1]) / scale[1]
            size = size + np.exp(top) * (1 + np.abs(top) + d)
        assert np.all(np.abs(got - exact) <= ROUNDINGS * U * size), name


# --- special functions --------------------------------------------------------------------------------------


def test_special_functions_are_scipys():
    x = np.concatenate([np.linspace(0.05, 12, 200), np.geomspace(12, 1e6, 50)])
    with np.errstate(divide="ignore"):
        # The recurrence takes logarithms (quotients) of up to ten numbers off a sum of about 20 (of 3).
        near = np.abs(_functions.log_gamma(x) - special.gammaln(x))
        assert np.all(near <= 64 * 2.0**-53 * (20 + np.abs(special.gammaln(x))))
        assert np.all(
            np.abs(_functions.digamma(x) - special.digamma(x)) <= 64 * 2.0**-53 * (3 + 1 / x + np.log1p(x))
        )
        assert np.all(
            np.abs(_functions._trigamma(x) - special.polygamma(1, x)) <= 64 * 2.0**-53 * (3 + x**-2.0)
        )
    z = np.linspace(-37, 9, 300)
    np.testing.assert_allclose(_functions.ndtr(z), special.ndtr(z), rtol=1e-12)
    p = np.concatenate([[0, 1], np.geomspace(1e-300, 0.5, 50), np.linspace(0.5, 1 - 1e-12, 50)])
    np.testing.assert_allclose(_functions.ndtri(p), special.ndtri(p), rtol=1e-12, atol=1e-15)
    assert np.isnan(_functions.ndtri(np.array([-0.1, np.nan]))).all()


# --- both ends ----------------------------------------------------------------------------------------------


def test_bernoulli_is_exact_at_both_ends():
    certain = gd.Bernoulli(probs=[0.0, 1.0])
    np.testing.assert_array_equal(certain.log_prob([0, 1]), [0, 0])
    np.testing.assert_array_equal(certain.log_prob([1, 0]), [-np.inf, -np.inf])
    np.testing.assert_array_equal(certain.entropy(), [0, 0])
    np.testing.assert_array_equal(certain.logits, [-np.inf, np.inf])
    for seed in range(20):
        np.testing.assert_array_equal(certain.sample((50,), key=seed), np.tile([0, 1], (50, 1)))
    far = gd.Bernoulli(logits=[-1e4, 1e4])
    np.testing.assert_array_equal(far.log_prob([0, 1]), [0, 0])
    np.testing.assert_array_equal(far.log_prob([1, 0]), [-1e4, -1e4])
    np.testing.assert_array_equal(far.entropy(), [0, 0])
    assert gd.kl_divergence(certain, certain).tolist() == [0, 0]
    assert gd.kl_divergence(far, gd.Bernoulli(logits=[1e4, -1e4])).tolist() == [1e4, 1e4]
    assert gd.kl_divergence(gd.Bernoulli(probs=0.5), certain).tolist() == [np.inf, np.inf]
    # Near certainty, where 1 - p would be 1 (or 0) in float32.
    near = gd.Bernoulli(logits=f32(-20))
    np.testing.assert_allclose(near.log_prob(0), -np.log1p(np.exp(-20.0)), rtol=8 * U)
    np.testing.assert_allclose(near.entropy(), 21 * np.exp(-20.0), rtol=21 * U + 2 * np.exp(-20.0))


def test_gradients_at_both_ends_are_finite_where_the_slope_is():
    for by, slopes in (({"logits": [-1e4, 1e4]}, [0, 0]), ({"probs": [0.0, 1.0]}, [-1, 1])):
        name, start = next(iter(by.items()))
        x = gc.tensor(start, requires_grad=True)
        gd.Bernoulli(**{name: x}).log_prob(np.array([0, 1])).sum().backward()
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad.numpy(), slopes)
    x = gc.tensor([[0.0, -np.inf, 1e4], [-1e4, 0.0, 3.0]], requires_grad=True)
    d = gd.Categorical(logits=x)
    (
        d.entropy() + d.log_prob([2, 1]) + gd.kl_divergence(d, gd.Categorical(logits=[0.0, 1.0, 2.0]))
    ).sum().backward()
    assert x.grad is not None
    assert np.isfinite(x.grad.numpy()).all()


def test_categorical_is_exact_at_both_ends():
    for d in (
        gd.Categorical(probs=[0.0, 1.0, 0.0]),
        gd.Categorical(logits=[-np.inf, 3.0, -np.inf]),
        gd.Categorical(logits=[-1e4, 1e4, 0]),
    ):
        assert d.log_prob(1) == 0
        assert d.entropy() == 0
        assert d.log_prob(0) <= -2e4
        assert np.all(d.sample((200,), key=3) == 1)
        assert gd.kl_divergence(d, d) == 0
    assert gd.Categorical(probs=[0.0, 1.0]).log_prob(0) == -np.inf
    assert gd.kl_divergence(gd.Categorical(probs=[0.5, 0.5]), gd.Categorical(probs=[0.0, 1.0])) == np.inf
    wide = gd.Categorical(logits=np.zeros(2**24 + 2, f32))
    with pytest.raises(ValueError, match="16777217"):
        wide.log_prob(2**24 + 2)  # float32 would round it to 2^24


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_scales_at_both_ends(scale):
    """The density of a scaled variable is that of the unscaled one, less log scale: no square under- or overflows."""
    s = float(f32(scale))
    for name in ("Normal", "Laplace", "Logistic", "Gumbel"):
        unit = getattr(gd, name)(0.0, 1.0)
        d = getattr(gd, name)(0.0, f32(s))
        for z in (-2.5, 0.0, 0.5):
            want = float(unit.log_prob(z)) - np.log(s)
            # Both err: by the terms of z, which are below 16 of exp(2.5), and of log s.
            assert abs(float(d.log_prob(f32(z * s))) - want) <= ROUNDINGS * U * (16 + 2 * abs(np.log(s)))
        np.testing.assert_allclose(d.stddev, unit.stddev * s, rtol=4 * U)
        assert np.isfinite(d.entropy())
        assert gd.kl_divergence(d, d) <= 1e-14 if name != "Logistic" else True
    rate = gd.Exponential(f32(s))
    np.testing.assert_allclose(rate.log_prob(f32(1 / s)), np.log(s) - 1, rtol=ROUNDINGS * U)


def test_far_values_have_no_nan():
    x = np.array([-np.inf, -3e38, -1e4, 0, 1e4, 3e38, np.inf], f32)
    for name in ("Normal", "Laplace", "Logistic", "Gumbel"):
        d = getattr(gd, name)(0.5, 0.25)
        assert not np.isnan(d.log_prob(x)).any()
        assert d.log_prob(x)[0] == d.log_prob(x)[-1] == -np.inf
        p = d.cdf(x)
        assert (p[0], p[-1]) == (0, 1)
        assert np.all(np.diff(p) >= 0)
    for d in (gd.LogNormal(0.0, 1.0), gd.Exponential(2.0), gd.Uniform(0.0, 1.0)):
        assert d.cdf(x)[0] == 0
        assert d.cdf(x)[-1] == 1
        off = type(d)(*d._given.values(), validate_args=False)
        assert off.log_prob(-1.0) == -np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("family", [gd.Normal, gd.LogNormal, gd.Laplace, gd.Logistic, gd.Gumbel, gd.Uniform])
def test_nan_gives_nan(family, dtype):
    d = family(0.0, 1.0, validate_args=False)
    for method in (d.log_prob, d.cdf):
        found = method(dtype([np.nan, 0.5]))
        assert found.dtype == dtype
        np.testing.assert_array_equal(np.isnan(found), [True, False])
    assert np.isnan(family(np.nan, 1.0, validate_args=False).log_prob(0.5))


def test_divergence_of_rates_too_far_apart_is_infinite():
    assert gd.kl_divergence(gd.Exponential(1e-30), gd.Exponential(1e30)) == np.inf
    assert gd.kl_divergence(gd.Normal(0.0, 1e30), gd.Normal(0.0, 1e-30)) == np.inf


def test_draws_that_round_to_an_end_have_a_density():
    """log_prob takes what sample gives: underflow and overflow of a log-normal, a uniform that rounds to its end."""
    wide = gd.LogNormal(0.0, 60.0)
    x = wide.sample((2000,), key=1)
    assert (x == 0).any()
    assert np.isinf(x).any()
    assert np.array_equal(wide.log_prob(x) == -np.inf, (x == 0) | np.isinf(x))
    scale = gc.tensor(f32(60), requires_grad=True)
    z = gd.LogNormal(0.0, scale).rsample((2000,), key=1).detach()
    gd.LogNormal(0.0, scale).log_prob(z)[np.isfinite(z.numpy()) & (z.numpy() > 0)].sum().backward()
    assert np.isfinite(scale.grad.item())
    narrow = gd.Uniform(1000.0, f32(1000) + f32(2**-13))
    x = narrow.sample((2000,), key=1)
    assert (x == narrow.high).any()
    assert np.isfinite(narrow.log_prob(x)).all()


def test_density_is_that_of_scipy_at_the_ends_of_a_uniform():
    d = gd.Uniform(1.0, 3.0)
    np.testing.assert_allclose(d.log_prob([1, 3]), -np.log(2.0), rtol=2 * U)


def test_relaxed_densities_integrate_to_one():
    for tau in (0.5, 1.0, 1.7):
        for probs in (0.2, 0.9):
            d = gd.RelaxedBernoulli(np.float64(tau), probs=np.float64(probs))
            # Over t with y = logistic(t): smooth, whatever the poles at 0 and 1.
            total = integrate.quad(
                lambda t, d=d: (
                    float(np.exp(d.log_prob(special.expit(t)))) * special.expit(t) * special.expit(-t)
                ),
                -36,
                36,
            )[0]
            # At |t| = 36 the density of t has fallen to e^(-36 tau) / tau of its size, and 1 - y to 2^-52.
            assert abs(total - 1) < 40 * np.exp(-36 * tau) / tau + 1e-7


def test_relaxed_densities_at_the_ends_are_finite():
    for y in (0.0, 1.0):
        assert np.isfinite(gd.RelaxedBernoulli(0.1, logits=0.3).log_prob(y))
    hot = gd.RelaxedOneHotCategorical(0.05, logits=np.array([0.0, 1.0, 2.0], f32))
    assert np.isfinite(hot.log_prob(np.eye(3, dtype=f32))).all()
    assert np.isfinite(hot.log_prob(hot.sample((1000,), key=1))).all()
