"""NADE: a normalised distribution, gradients of first and second order, and samples of that distribution."""

import numpy as np
import pytest
from reference import nade, philox
from reference.differences import curvature, derivatives, dot, slope
from reference.rounding import U
from reference.sampling import MARGIN
from scipy.stats import chi2

import gencore as gc
from gencore import _core
from gencore.kernels import autoregressive

NAMES = ("w", "c", "v", "b")


def float32(rng, *shape, scale=1.0):
    return rng.normal(0, scale, shape).astype(np.float32)


def parameters(rng, d, h, scale=1.0):
    return [float32(rng, *shape, scale=scale) for shape in ((d, h), (h,), (d, h), (d,))]


def all_states(d):
    return (np.arange(2**d)[:, None] >> np.arange(d) & 1).astype(np.uint8)


@pytest.fixture
def threads():
    """Sets the number of threads, and puts it back."""
    before = _core.num_threads()
    yield _core.set_num_threads
    _core.set_num_threads(before)


# --- log-probabilities --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(("d", "h"), [(1, 1), (4, 17), (10, 6)])
def test_probabilities_sum_to_one(d, h, ordered):
    rng = np.random.default_rng([d, h])
    args, order = parameters(rng, d, h, scale=2), rng.permutation(d) if ordered else None
    x = all_states(d)
    p = np.exp(autoregressive.nade_log_prob(x, *args, order=order).astype(np.float64))
    _, bound = nade.log_prob(x, *args, order)
    assert abs(p.sum() - 1) <= np.sum(p * np.expm1(bound))


def test_an_order_renames_the_dimensions():
    """Row for row what the parameters give when they lie in that order."""
    rng = np.random.default_rng(1)
    w, c, v, b = parameters(rng, 9, 20)
    x, order = (rng.random((12, 9)) < 0.5).astype(np.uint8), rng.permutation(9)
    given = autoregressive.nade_log_prob(x, w, c, v, b, order=order)
    _, bound = nade.log_prob(x, w, c, v, b, order)
    moved = autoregressive.nade_log_prob(np.ascontiguousarray(x[:, order]), w[order], c, v[order], b[order])
    assert np.all(np.abs(given - moved) <= 2 * bound)  # sums over dimensions in another order
    assert np.any(np.abs(given - autoregressive.nade_log_prob(x, w, c, v, b)) > 0.1)


def test_exact_near_certainty():
    """A probability of nearly 1 costs e^-x, and one of nearly 0 costs x."""
    zeros = np.zeros((2, 3), np.float32)
    b = np.array([60, -60], np.float32)
    x = np.array([[1, 0], [0, 0], [1, 1]], np.uint8)
    found = autoregressive.nade_log_prob(x, zeros, zeros[0], zeros, b)
    np.testing.assert_allclose(found, [-2 * np.exp(-60.0), -60, -60], rtol=4e-7)


@pytest.mark.parametrize("argument", range(4))
def test_nan_gives_nan(argument):
    args = parameters(np.random.default_rng(2), 5, 7)
    args[argument].flat[0] = np.nan
    assert np.isnan(autoregressive.nade_log_prob(np.ones((9, 5), np.uint8), *args)).all()


# --- gradients ----------------------------------------------------------------------------------------------


def problem(seed, n=6, d=5, h=4):
    rng = np.random.default_rng(seed)
    x = (rng.random((n, d)) < np.linspace(0, 1, n)[:, None]).astype(np.uint8)
    args = parameters(rng, d, h)
    directions = [[float32(rng, *a.shape) for a in args] for _ in range(2)]
    return x, args, float32(rng, n), rng.permutation(d), directions


@pytest.mark.parametrize("ordered", [False, True])
def test_first_derivatives(ordered):
    x, args, weights, order, (d, _) = problem(3)
    order = order if ordered else None

    def f(*args):
        return weights @ nade.log_prob(x, *args, order)[0]

    first, _ = derivatives(
        lambda *a: np.sum(weights * autoregressive.nade_log_prob(x, *a, order=order)), args, d
    )
    bounds = [found[1] for found in nade.gradients(weights, x, *args, order).values()]
    allowed = sum(np.sum(bound * np.abs(step)) for bound, step in zip(bounds, d, strict=True))
    expected = slope(f, args, d)
    assert abs(expected) > 1e3 * allowed
    assert abs(dot(first, d) - expected) <= allowed + 1e-10 * np.abs(weights).sum()  # the differences' own


def magnitude_of_curvature(x, args, weights, order, d, e):
    """The sum of the magnitudes of all terms of the second derivative along d and e, with the steps' own factors.

    Slopes of the logistic function are at most 1/4, those of them at most 1/8; a moves by a step of w and c.
    """
    f = nade.forward(x, *args, order)
    c, v = np.abs(args[1]), np.abs(args[2])[f.order]

    def moves(step):
        dw, dc, dv, db = (np.abs(a).astype(np.float64) for a in step)
        da = dc + nade.before(f.x[:, :, None] * dw[f.order])
        return da, dv[f.order], db[f.order] + (dv[f.order] * f.hidden + v * da / 4).sum(2)

    (da, dv, dl), (ea, ev, el) = moves(d), moves(e)
    of_logits = (dv * ea / 4 + ev * da / 4 + v * da * ea / 8).sum(2)
    size_of_a = 1 + np.max(c + nade.before(f.x[:, :, None] * np.abs(args[0])[f.order]))
    return float(np.sum(np.abs(weights[:, None]) * (of_logits + dl * el / 4)) * size_of_a)


@pytest.mark.parametrize("ordered", [False, True])
def test_second_derivatives(ordered):
    x, args, weights, order, (d, e) = problem(4)
    order = order if ordered else None

    def f(*args):
        return weights @ nade.log_prob(x, *args, order)[0]

    _, second = derivatives(
        lambda *a: np.sum(weights * autoregressive.nade_log_prob(x, *a, order=order)), args, d
    )
    expected = curvature(f, args, d, e)
    # Sums over rows, dimensions and hidden units, and less than 30 roundings element by element.
    allowed = (
        (sum(x.shape) + args[0].shape[1] + 30) * U * magnitude_of_curvature(x, args, weights, order, d, e)
    )
    assert abs(expected) > 100 * allowed
    assert abs(dot(second, e) - expected) <= allowed


def test_second_derivatives_by_the_weights_of_rows():
    """The gradient is linear in them: its part is the derivative of the row's log-probability."""
    x, args, weights, order, (d, _) = problem(5)
    leaf = gc.tensor(weights, requires_grad=True)
    found = autoregressive.nade_log_prob_vjp(leaf, x, *args, order=order)
    along = sum(np.sum(g * step) for g, step in zip(found, d, strict=True))
    (by_weight,) = gc.grad(along, [leaf])
    for n in range(len(x)):
        row = x[n : n + 1]
        expected = slope(lambda *a, row=row: nade.log_prob(row, *a, order)[0][0], args, d)
        bounds = [found[1] for found in nade.gradients(np.ones(1), row, *args, order).values()]
        allowed = sum(np.sum(bound * np.abs(step)) for bound, step in zip(bounds, d, strict=True))
        assert abs(by_weight.numpy()[n] - expected) <= 4 * allowed  # in float32 all the way


def test_tensors_and_arrays_mix():
    """x may be a Tensor, and has no gradient; the parameters that are arrays need none."""
    x, args, weights, order, _ = problem(6)
    w = gc.tensor(args[0], requires_grad=True)
    states = gc.tensor(x.astype(np.float32), requires_grad=True)
    found = autoregressive.nade_log_prob(states, w, *args[1:], order=order)
    assert isinstance(found, gc.Tensor)
    np.sum(weights * found).backward()
    assert states.grad is None
    expected = autoregressive.nade_log_prob_vjp(weights, x, *args, order=order)[0]
    assert w.grad.numpy().tobytes() == expected.tobytes()
    np.testing.assert_array_equal(found.numpy(), autoregressive.nade_log_prob(x, *args, order=order))


def test_kept_logits_are_those_that_the_gradient_computes():
    """The tape's gradient starts from the forward logits; without them it has the same bits."""
    x, args, weights, order, _ = problem(7, n=21, d=40, h=70)
    leaves = [gc.tensor(a, requires_grad=True) for a in args]
    by_tape = gc.grad(np.sum(weights * autoregressive.nade_log_prob(x, *leaves, order=order)), leaves)
    alone = autoregressive.nade_log_prob_vjp(weights, x, *args, order=order)
    for name, a, b in zip(NAMES, by_tape, alone, strict=True):
        assert a.numpy().tobytes() == b.tobytes(), name


def test_dimensions_that_come_last_have_no_gradient_of_w():
    x, args, weights, order, _ = problem(8)
    found = autoregressive.nade_log_prob_vjp(weights, np.ones_like(x), *args, order=order)[0]
    assert not found[order[-1]].any()
    assert found[order[:-1]].any(1).all()


def test_gradient_of_no_rows_is_zero():
    _, args, _, _, _ = problem(9)
    found = autoregressive.nade_log_prob_vjp(np.zeros(0, np.float32), np.zeros((0, 5), np.uint8), *args)
    assert all(not g.any() for g in found)


# --- samples ------------------------------------------------------------------------------------------------


def tempered(args, order, temperature, keep=None):
    """Probability of each state if conditionals are tempered and the kept dimensions cost nothing."""
    d = len(args[0])
    f = nade.forward(all_states(d), *args, order)
    logits, x = f.logits / temperature, f.x
    terms = x * logits - np.logaddexp(0, logits)
    return np.exp(np.sum(terms if keep is None else terms * ~keep[f.order], 1))


def counts(x):
    return np.bincount(x.astype(np.int64) @ (1 << np.arange(x.shape[1])), minlength=2 ** x.shape[1])


def assert_distributed(x, p):
    """Pearson's chi-square over states; the rare ones together. It fails by chance once in 10^6."""
    n, expected = counts(x), p * len(x)
    assert np.all(n[p == 0] == 0)
    rare = expected < 10
    n = np.append(n[~rare], n[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    n, expected = n[expected > 0], expected[expected > 0]
    assert np.sum((n - expected) ** 2 / expected) < chi2.isf(1e-6, len(n) - 1)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize(("d", "ordered"), [(4, False), (6, True)])
def test_samples_have_the_probabilities_of_their_states(d, ordered, temperature):
    rng = np.random.default_rng([d, 10])
    args, order = parameters(rng, d, 9), rng.permutation(d) if ordered else None
    x = autoregressive.nade_sample(*args, 200_000, key=d, order=order, temperature=temperature)
    p = tempered(args, order, temperature)
    if temperature == 1:
        log_prob = autoregressive.nade_log_prob(all_states(d), *args, order=order)
        np.testing.assert_allclose(log_prob, np.log(p), rtol=1e-5)
    assert_distributed(x, p)


@pytest.mark.parametrize("each", [False, True])
def test_known_dimensions_stay_and_the_others_follow(each):
    d, n = 5, 100_000
    rng = np.random.default_rng(11)
    args, order = parameters(rng, d, 9), rng.permutation(d)
    keep, given = np.array([1, 0, 0, 1, 0], bool), np.array([1, 1, 0, 0, 1], np.uint8)
    known = {"given": given, "mask": keep}
    if each:
        known = {k: np.tile(a, (n, 1)) for k, a in known.items()}
    x = autoregressive.nade_sample(*args, n, key=12, order=order, **known)
    possible = np.all(all_states(d)[:, keep] == given[keep], axis=1)
    assert_distributed(x, np.where(possible, tempered(args, order, 1.0, keep), 0))


def test_a_mask_of_nothing_and_of_everything():
    rng = np.random.default_rng(13)
    args = parameters(rng, 7, 9)
    given = (rng.random((20, 7)) < 0.5).astype(np.uint8)
    free = autoregressive.nade_sample(*args, 20, key=1)
    same = autoregressive.nade_sample(*args, 20, key=1, given=given, mask=np.zeros(7, bool))
    np.testing.assert_array_equal(same, free)
    fixed = autoregressive.nade_sample(*args, 20, key=1, given=given, mask=np.ones(7, bool))
    np.testing.assert_array_equal(fixed, given)


def test_bits_follow_from_the_coordinates(threads):
    """Any split into rows and any number of threads; other keys, steps and rows give other bits."""
    args = parameters(np.random.default_rng(14), 40, 70)
    threads(1)
    whole = autoregressive.nade_sample(*args, 50, key=3, step=2)
    threads(3)
    parts = [
        autoregressive.nade_sample(*args, end - begin, key=3, step=2, first_row=begin)
        for begin, end in ((0, 1), (1, 13), (13, 50))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for other in ({"key": 4, "step": 2}, {"key": 3, "step": 1}, {"key": 3, "step": 2, "first_row": 50}):
        assert np.mean(autoregressive.nade_sample(*args, 50, **other) != whole) > 0.1


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_every_bit_of_a_uniform_counts(temperature):
    """Two million draws, of which the first 16 bits leave some thirty open; dimensions without hidden units."""
    n, d = 20_000, 100
    b = np.linspace(-6, 6, d).astype(np.float32)
    nothing = np.zeros((d, 0), np.float32)
    x = autoregressive.nade_sample(nothing, nothing[0], nothing, b, n, key=5, temperature=temperature)
    u = philox.uniforms_of_32_bits(5, philox.NADE, 0, np.arange(n), d)
    e = np.exp(-np.abs(b.astype(np.float64)) / float(np.float32(temperature)))
    threshold = np.where(b > 0, 1.0, e)
    distance = u * (1 + e) - threshold
    clear = np.abs(distance) > (MARGIN + U * np.abs(b)) * threshold  # the quotient's rounding, too
    open_by_head = np.floor(u * 2**16) == np.floor(threshold / (1 + e) * 2**16)
    assert np.sum(clear & open_by_head) > 10
    np.testing.assert_array_equal(x[clear], (distance < 0)[clear])
    assert np.mean(clear) > 0.9999


def test_a_generator_hands_out_keys():
    args = parameters(np.random.default_rng(15), 20, 5)
    first, second = gc.Generator(1), gc.Generator(1)
    a, b = (autoregressive.nade_sample(*args, 10, first) for _ in "ab")
    assert np.any(a != b)
    np.testing.assert_array_equal(autoregressive.nade_sample(*args, 10, second), a)


def test_certain_units_are_certain():
    b = np.array([200, -200, np.inf, -np.inf], np.float32)
    zeros = np.zeros((4, 3), np.float32)
    x = autoregressive.nade_sample(zeros, zeros[0], zeros, b, 1000, key=1)
    assert np.all(x == [1, 0, 1, 0])


def test_weights_whose_sums_overflow_are_refused():
    w, v = np.zeros((2, 2, 64), np.float32)
    v[:, ::16], v[:, 1::16] = 3e38, -3e38  # inf - inf, in vectors of any width
    c, b = np.full(64, 100, np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=r"autoregressive\.nade_sample: expected v to give finite logits"):
        autoregressive.nade_sample(w, c, v, b, 2, key=1)
