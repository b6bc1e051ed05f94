"""gencore.distributions: draws follow their distributions, gradients are those of differences.

Keys are fixed, so a test passes always or never; each had a chance of about 1e-6 of a false alarm when its key was
chosen.
"""

from __future__ import annotations

import numpy as np
import pytest
from reference.rounding import U
from reference.statistics import FALSE_ALARM, assert_distributed, assert_mean
from scipy import special, stats

import gencore as gc
from gencore import distributions as gd
from gencore.distributions import kl

f32 = np.float32
KEY = 61
SCIPY = {
    "Normal": (stats.norm, (-1.5, 0.5)),
    "LogNormal": (lambda loc, scale: stats.lognorm(scale, scale=np.exp(loc)), (0.25, 0.75)),
    "Laplace": (stats.laplace, (2.0, 3.0)),
    "Logistic": (stats.logistic, (-0.5, 0.25)),
    "Gumbel": (stats.gumbel_r, (1.0, 2.0)),
    "Exponential": (lambda rate: stats.expon(scale=1 / rate), (1.5,)),
    "Uniform": (lambda low, high: stats.uniform(low, high - low), (-2.0, 3.0)),
}
every_continuous = pytest.mark.parametrize("name", SCIPY)


def tensors(*arrays):
    return [gc.tensor(np.asarray(x), requires_grad=True) for x in arrays]


# --- variates -----------------------------------------------------------------------------------------------


@every_continuous
def test_draws_follow_the_distribution(name):
    make, given = SCIPY[name]
    x = getattr(gd, name)(*given).sample((200, 1001), key=KEY).ravel().astype(np.float64)
    truth = make(*given)
    assert stats.kstest(x, truth.cdf).pvalue > FALSE_ALARM
    bins = np.minimum((truth.cdf(x) * 500).astype(int), 499)
    assert_distributed(bins, np.full(500, 1 / 500), name)


@every_continuous
def test_draws_of_a_batch_are_independent_and_each_its_own(name):
    make, given = SCIPY[name]
    other = tuple(2 * np.abs(g) + 0.5 for g in given) if name != "Uniform" else (0.0, 4.0)
    both = [np.array(pair, f32) for pair in zip(given, other, strict=True)]
    x = getattr(gd, name)(*both).sample((40_000,), key=KEY + 1).astype(np.float64)
    u = np.stack([make(*g).cdf(x[:, i]) for i, g in enumerate((given, other))])
    for row in u:
        assert stats.kstest(row, "uniform").pvalue > FALSE_ALARM
    cells = np.minimum((u * 8).astype(int), 7)
    assert_distributed(cells[0] * 8 + cells[1], np.full(64, 1 / 64), name)


def test_draws_of_bits_and_categories_follow_their_probabilities():
    p = np.array([0.01, 0.3, 0.5, 0.97], f32)
    for d in (gd.Bernoulli(probs=p), gd.Bernoulli(logits=special.logit(p))):
        x = d.sample((50_000,), key=KEY)
        assert set(np.unique(x)) == {0, 1}
        for i, q in enumerate(p.astype(np.float64)):
            assert_distributed(x[:, i].astype(int), np.array([1 - q, q]), f"{d}, {q}")
    rows = np.array([[0.1, 0.0, 0.6, 0.3], [0.25, 0.25, 0.25, 0.25]], f32)
    for d in (
        gd.Categorical(probs=rows),
        gd.Categorical(probs=5 * rows),
        gd.Categorical(logits=d_logs(rows)),
    ):
        k = d.sample((50_000,), key=KEY)
        for i, q in enumerate(rows.astype(np.float64)):
            assert_distributed(k[:, i], q / q.sum(), f"{d}, row {i}")


def d_logs(rows):
    with np.errstate(divide="ignore"):
        return (np.log(rows) + 3).astype(f32)


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("fused", [True, False])
def test_relaxed_bits_follow_their_distribution(tau, fused):
    """``P(y <= t) = logistic(tau logit t - logits)``; an array of temperatures draws in other steps."""
    logits = f32(0.7)
    d = gd.RelaxedBernoulli(tau if fused else np.array([tau], f32), logits=logits)
    y = d.sample((100_000,), key=KEY).ravel().astype(np.float64)
    assert y.min() > 0

    def cdf(y):
        return special.expit(f32(tau) * special.logit(y) - logits)

    # Near 1 y is known to U / 2 only, and its logit to U / (2 (1 - y)): there draws are counted, below compared.
    near = 1 - 1e-4
    assert stats.binomtest(int(np.sum(y > near)), y.size, 1 - cdf(near)).pvalue > FALSE_ALARM
    assert stats.kstest(cdf(y[y <= near]) / cdf(near), "uniform").pvalue > FALSE_ALARM


@pytest.mark.parametrize("fused", [True, False])
def test_relaxed_rows_follow_their_distribution(fused):
    """The largest element is a draw of the categories; ratios of two elements are relaxed bits.

    Apart from the fused kernel elements are exponentials of float32 differences, of numbers of up to (17 + 0.8) / 0.8.
    """
    logits = np.array([0.3, -1.0, 0.8, 0.0], f32)
    tau = 0.8
    d = gd.RelaxedOneHotCategorical(tau if fused else np.array([tau], f32), logits=logits)
    y = d.sample((60_000,), key=KEY).reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(y.sum(-1), 1, atol=(8 if fused else 8 + 2 * 22) * U)
    assert_distributed(y.argmax(-1), special.softmax(logits.astype(np.float64)), "largest")
    apart = tau * np.log(y[:, 0] / y[:, 2]) - (float(logits[0]) - float(logits[2]))
    assert stats.kstest(apart, stats.logistic.cdf).pvalue > FALSE_ALARM


def test_density_of_relaxed_rows_averages_to_one_against_another():
    """``E_p[q(y) / p(y)] = 1``, with p and q of one temperature and nearby logits."""
    p = gd.RelaxedOneHotCategorical(1.5, logits=np.array([0.2, -0.3, 0.1], f32))
    q = gd.RelaxedOneHotCategorical(1.5, logits=np.array([0.0, 0.1, 0.0], f32))
    y = p.sample((100_000,), key=KEY)
    assert_mean(np.exp(q.log_prob(y) - p.log_prob(y))[:, None], 1.0, "ratio")


# --- keys ---------------------------------------------------------------------------------------------------

DRAWN = {
    **{
        name: (lambda n=name, g=given: getattr(gd, n)(*(np.full(3, x, f32) for x in g)))
        for name, (_, given) in SCIPY.items()
    },
    "Bernoulli": lambda: gd.Bernoulli(np.full(3, 0.5, f32)),
    "Categorical": lambda: gd.Categorical(np.ones((3, 40), f32)),
    "RelaxedBernoulli": lambda: gd.RelaxedBernoulli(0.5, np.full(3, 0.5, f32)),
    "RelaxedOneHotCategorical": lambda: gd.RelaxedOneHotCategorical(0.5, np.ones((3, 5), f32)),
    "Independent": lambda: gd.Independent(gd.Normal(np.zeros(3, f32), 1.0), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_keys_repeat_and_generators_go_on(name):
    d = DRAWN[name]()
    first = d.sample((7,), key=5)
    np.testing.assert_array_equal(first, d.sample((7,), key=gc.Key(5)))
    assert not np.array_equal(first, d.sample((7,), key=6))
    generator = gc.Generator(1)
    a, b = (d.sample((7,), key=generator) for _ in range(2))
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a, d.sample((7,), key=gc.Generator(1)))
    np.testing.assert_array_equal(first[:4], d.sample((4,), key=5))  # fewer rows are the first ones
    if d.has_rsample:
        np.testing.assert_array_equal(first, d.rsample((7,), key=5))


@pytest.mark.parametrize("name", DRAWN)
def test_draws_are_tensors_where_parameters_are(name):
    d = DRAWN[name]()
    if name == "Independent":
        d = gd.Independent(gd.Normal(gc.tensor(np.zeros(3, f32), True), 1.0), 1)
    else:
        d = type(d)(**{n: gc.tensor(x, requires_grad=True) for n, x in d._given.items()})
    x = d.sample((4,), key=3)
    assert isinstance(x, gc.Tensor)
    assert not x.requires_grad
    if d.has_rsample:
        y = d.rsample((4,), key=3)
        assert y.requires_grad
        np.testing.assert_array_equal(y.numpy(), x.numpy())


# --- gradients of values ------------------------------------------------------------------------------------

STEP = 1e-3
EPS = 2.0**-53


def slope(f):
    """Derivative at 0 by central differences at three steps, extrapolated twice over, and a bound on its error.

    The second value is better than the first, so that their difference bounds its error; values of f are off by some
    tens of roundings, and their weights in the result add up to 13.
    """
    d = [(f(h) - f(-h)) / (2 * h) for h in (STEP, STEP / 2, STEP / 4)]
    first, second = (4 * d[1] - d[0]) / 3, (4 * d[2] - d[1]) / 3
    return second, abs(second - first) + 13 * 64 * EPS * (1 + abs(f(0.0))) / STEP


def check_gradients(call, arrays, seed=0):
    """First and second derivatives of the weighted sum of `call`, in random directions, in float64."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 1.5, np.shape(call(*arrays)))
    d, v = ([rng.uniform(-1, 1, np.shape(x)) for x in arrays] for _ in range(2))

    def moved(t):
        return [x + t * e for x, e in zip(arrays, d, strict=True)]

    def gradients(at, create_graph=False):
        xs = tensors(*at)
        found = gc.grad((call(*xs) * weights).sum(), xs, create_graph=create_graph, allow_unused=True)
        return xs, [gc.tensor(np.zeros(x.shape)) if g is None else g for g, x in zip(found, xs, strict=True)]

    def inner(grads, directions):
        return sum(float(np.sum(g.detach().numpy() * e)) for g, e in zip(grads, directions, strict=True))

    _, grads = gradients(arrays)
    want, error = slope(lambda t: float(np.sum(call(*moved(t)) * weights)))
    assert abs(inner(grads, d) - want) <= error
    xs, grads = gradients(arrays, create_graph=True)
    along = sum((np.sum(g * e) for g, e in zip(grads, v, strict=True)), start=gc.tensor(np.float64(0)))
    want, error = slope(lambda t: inner(gradients(moved(t))[1], v))
    if not along.requires_grad:  # linear
        assert abs(want) <= error
        return
    second = gc.grad(along, xs, allow_unused=True)
    got = sum(float(np.sum(g.numpy() * e)) for g, e in zip(second, d, strict=True) if g is not None)
    assert abs(got - want) <= error


@every_continuous
@pytest.mark.parametrize("what", ["log_prob", "cdf", "icdf", "entropy", "mean", "variance", "stddev"])
def test_gradients_are_those_of_differences(name, what):
    rng = np.random.default_rng(4)
    a = [rng.uniform(0.5, 1, (2, 3)), rng.uniform(1.2, 2, (3,))][: len(SCIPY[name][1])]
    x = rng.uniform(0.2, 0.8, (4, 2, 3)) if what == "icdf" else rng.uniform(1.03, 1.17, (4, 2, 3))
    make = getattr(gd, name)
    if what in ("log_prob", "cdf", "icdf"):
        check_gradients(lambda x, *p: getattr(make(*p, validate_args=False), what)(x), [x, *a])
    elif what == "entropy":
        check_gradients(lambda *p: make(*p).entropy(), a)
    else:
        check_gradients(lambda *p: getattr(make(*p), what), a)


@pytest.mark.parametrize("by", ["probs", "logits"])
def test_gradients_of_discrete_ones(by):
    rng = np.random.default_rng(5)
    for name in ("Bernoulli", "Categorical"):
        p = rng.uniform(0.1, 0.9, (2, 3)) if by == "probs" else rng.uniform(-2, 2, (2, 3))
        q = rng.uniform(0.1, 0.9, (3,)) if by == "probs" else rng.uniform(-2, 2, (3,))
        make = lambda v, n=name: getattr(gd, n)(**{by: v}, validate_args=False)  # noqa: E731
        x = rng.integers(0, 2, (4, 2, 3)) if name == "Bernoulli" else rng.integers(0, 3, (4, 2))
        check_gradients(lambda p, m=make, x=x: m(p).log_prob(x), [p])
        check_gradients(lambda p, m=make: m(p).entropy(), [p])
        check_gradients(lambda p, q, m=make: gd.kl_divergence(m(p), m(q)), [p, q])
        check_gradients(lambda p, m=make: m(p).probs + m(p).logits, [p])
        check_gradients(lambda p, m=make, x=x: gd.Independent(m(p), 1).log_prob(x), [p])
        if name == "Bernoulli":
            check_gradients(lambda x, p, m=make: m(p).log_prob(x), [rng.uniform(0.1, 0.9, (4, 2, 3)), p])
            check_gradients(lambda p, m=make: m(p).variance, [p])


@pytest.mark.parametrize("by", ["probs", "logits"])
def test_gradients_of_relaxed_densities(by):
    rng = np.random.default_rng(6)
    p, tau = (rng.uniform(0.1, 0.9, (2, 3)), rng.uniform(0.4, 2, (2, 1)))
    y = rng.uniform(0.1, 0.9, (4, 2, 3))
    check_gradients(lambda y, t, p: gd.RelaxedBernoulli(t, **{by: p}).log_prob(y), [y, tau, p])
    row = lambda y, t, p: gd.RelaxedOneHotCategorical(t, **{by: p}, validate_args=False).log_prob(y)  # noqa: E731
    check_gradients(row, [y, tau[:, 0], p])


CONTINUOUS_PAIRS = [pair for pair in kl._RULES if pair[0].__name__ in SCIPY]


@pytest.mark.parametrize(
    ("a", "b"), CONTINUOUS_PAIRS, ids=[f"{a.__name__}-{b.__name__}" for a, b in CONTINUOUS_PAIRS]
)
def test_gradients_of_divergences(a, b):
    rng = np.random.default_rng(7)
    shapes = [(2, 3)] * len(SCIPY[a.__name__][1]), [(3,)] * len(SCIPY[b.__name__][1])
    # A Uniform in another: p from about 1 to 2, q from 0.3 to 3.
    p = [rng.uniform(1 + i, 1.2 + i, s) for i, s in enumerate(shapes[0])]
    q = [rng.uniform(0.2 + 2.5 * i, 0.4 + 2.5 * i, s) for i, s in enumerate(shapes[1])]
    if np.isinf(gd.kl_divergence(a(*p), b(*q))).all():
        assert not gd.kl_divergence(a(*tensors(*p)), b(*q)).requires_grad
        return
    check_gradients(lambda *x: gd.kl_divergence(a(*x[: len(p)]), b(*x[len(p) :])), [*p, *q])


# --- gradients of draws -------------------------------------------------------------------------------------


@every_continuous
def test_gradient_of_a_draw_is_that_of_its_quantile(name):
    """The noise held fixed, a draw is SciPy's quantile of a fixed probability, and moves as that does."""
    make, start = SCIPY[name]
    given = [np.full((3, 5), s, f32) for s in start]
    for i in range(len(given)):
        xs = tensors(*given)
        z = getattr(gd, name)(*xs).rsample((4,), key=KEY)
        weights = np.random.default_rng(8).uniform(-1, 1, z.shape).astype(f32)
        (got,) = gc.grad((z * weights).sum(), [xs[i]])
        exact = [np.float64(s) for s in start]
        at = z.detach().numpy().astype(np.float64)
        upper = at > make(*exact).median()  # by the smaller tail, whose probability is known better
        tail = np.where(upper, make(*exact).sf(at), make(*exact).cdf(at))

        def quantile(t, i=i, exact=exact, upper=upper, tail=tail):
            moved = make(*(s + t * (j == i) for j, s in enumerate(exact)))
            return np.where(upper, moved.isf(tail), moved.ppf(tail))

        h = 1e-4
        change = (quantile(h) - quantile(-h)) / (2 * h)
        want = np.sum(change * weights, axis=0)
        # Draws are float32, so their probabilities are those of a number within 8 U of (1 + |z|) of them; that and the
        # rounding of four terms of the sum. Differences err by h^2 and by 2^-53 / h, both below 1e-7.
        size = np.sum(np.abs(weights) * (1 + np.abs(change) + np.abs(at)), axis=0)
        assert np.all(np.abs(got.numpy() - want) <= (32 * U + 1e-7) * size)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("by", ["probs", "logits"])
def test_gradient_of_a_relaxed_draw_is_that_of_differences(fused, by):
    """In float64 with the noise that the draw shows: ``logits + noise = tau logit y``, and alike for rows."""
    rng = np.random.default_rng(9)
    p = rng.uniform(0.2, 0.8, (3, 4)).astype(f32)
    tau = f32(0.75) if fused else np.full((3, 1), 0.75, f32)
    for name in ("RelaxedBernoulli", "RelaxedOneHotCategorical"):
        bits = name == "RelaxedBernoulli"
        t = tau if bits or fused else tau[:, 0]
        (x,) = tensors(p)
        leaf = gc.tensor(t, requires_grad=not fused)
        y = getattr(gd, name)(leaf, **{by: x}).rsample((2,), key=KEY)
        weights = rng.uniform(-1, 1, y.shape).astype(f32)
        wanted = [x] if fused else [x, leaf]
        got = gc.grad((y * weights).sum(), wanted)
        values = y.detach().numpy().astype(np.float64)

        def logits(q, bits=bits):
            if by == "logits":
                return q
            return special.logit(q) if bits else np.log(q)

        noise = 0.75 * (special.logit(values) if bits else np.log(values)) - logits(p.astype(np.float64))

        def redraw(q, s, noise=noise, bits=bits, weights=weights):
            scaled = (logits(q) + noise) / s
            return np.sum(
                (special.expit(scaled) if bits else special.softmax(scaled, axis=-1)) * weights, axis=0
            )

        h = 1e-5
        for where, grad in zip(("p", "tau"), got, strict=False):
            e = rng.uniform(-1, 1, p.shape) if where == "p" else np.ones((3, 1))
            q, s = p.astype(np.float64), np.full((3, 1), 0.75)
            up, down = ((q + a * h * e, s) if where == "p" else (q, s + a * h * e) for a in (1, -1))
            want = np.sum(redraw(*up) - redraw(*down)) / (2 * h)
            found = float(np.sum(grad.numpy().reshape(-1, e.shape[-1]) * e))
            # Slopes y (1 - y) / tau of up to 24 draws: y is known to 2e-6 (its kernel's), the noise to as much over y.
            assert abs(found - want) <= 24 * 1e-5, (name, where)


def test_a_fit_by_reparameterisation_finds_the_distribution():
    """KL(q || p) by draws of q alone: its gradient leads loc and scale to those of p."""
    p = gd.Normal(1.5, 0.5)
    loc, log_scale = tensors(f32(0), f32(0))
    generator, optimizer = gc.Generator(3), gc.optim.Adam([loc, log_scale], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        z = gd.Normal(loc, np.exp(log_scale)).rsample((64,), key=generator)
        q = gd.Normal(
            loc.detach(), np.exp(log_scale.detach())
        )  # the gradient through q itself is 0 on average
        (q.log_prob(z) - p.log_prob(z)).mean().backward()
        optimizer.step()
    # At the optimum q = p, and the gradient through z is 0 for every draw: no noise is left.
    assert abs(loc.item() - 1.5) < 1e-3
    assert abs(np.exp(log_scale.item()) - 0.5) < 1e-3


def test_two_losses_of_one_distribution_are_two_graphs():
    loc, scale = tensors(np.zeros(3, f32), f32(1))
    d = gd.Normal(loc, scale)
    d.log_prob(1.0).sum().backward()
    d.entropy().sum().backward()
    assert scale.grad is not None
    np.testing.assert_allclose(scale.grad.numpy(), 3 * (1 - 1) + 3)
