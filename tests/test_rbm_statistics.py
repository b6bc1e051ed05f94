"""Distributions of small machines against enumeration, and exact values at full size."""

import numpy as np
import pytest
from reference import philox, sampling
from reference import rbm as exact
from reference.statistics import SIGMAS, assert_distributed, assert_mean

from gencore import _core
from gencore.kernels import rbm

SHAPES = [(5, 4), (7, 3), (3, 9)]
N = 100_000  # independent chains, and so rows of a batch
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def machine(n_visible, n_hidden, scale=1.0, seed=0):
    rng = np.random.default_rng([n_visible, n_hidden, seed])
    return (
        rng.normal(0, scale, (n_visible, n_hidden)).astype(np.float32),
        rng.normal(0, scale, n_visible).astype(np.float32),
        rng.normal(0, scale, n_hidden).astype(np.float32),
    )


def draw_states(p, n, n_units, seed=1):
    """n independent states of distribution p."""
    return exact.all_states(n_units)[np.random.default_rng(seed).choice(p.size, n, p=p)].astype(np.uint8)


def gibbs_kernel(w, b, c, beta=1.0):
    """Transition matrix T[v, v'] of one step."""
    visible, hidden = exact.all_states(w.shape[0]), exact.all_states(w.shape[1])

    def table(mean, states):  # p(state | row) for independent units
        return np.prod(np.where(states[None] == 1, mean[:, None], 1 - mean[:, None]), axis=2)

    to_hidden = table(exact.hidden_mean(w, c, visible, beta), hidden)
    return to_hidden @ table(exact.visible_mean(w, b, hidden, beta), visible)


# --- random numbers --------------------------------------------------------------------------------------------

KNOWN_ANSWERS = [  # Random123's kat_vectors: key, counter, words
    (0, [0] * 4, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (2**64 - 1, [2**32 - 1] * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        0x299F31D0A4093822,
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("key", "counter", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(key, counter, words):
    expected = [int(word, 16) for word in words.split()]
    assert list(_core.philox(key, counter)) == expected
    assert philox.block(key, *counter).tolist() == expected


def test_small_probabilities_use_all_32_bits():
    """Means from 2^-10 to 2^-21, where the head of 16 bits says almost nothing: each bit as the formula has it."""
    bias = -np.linspace(7, 14.5, 1024).astype(np.float32)
    v = np.zeros((1500, 1), np.uint8)
    drawn = rbm.hidden_sample(np.zeros((1, 1024), np.float32), bias, v, key=3)
    field = np.broadcast_to(bias, drawn.shape)
    assert 0 < drawn[:, 800:].sum() < 40  # 336,000 draws of mean below 2^-17
    np.testing.assert_array_equal(drawn, sampling.bernoulli(field, 3, philox.HIDDEN, 0, 0))


# --- conditionals ----------------------------------------------------------------------------------------------


@every_shape
def test_conditional_samples(shape):
    """Jointly: the units of a row are independent draws of their means."""
    w, b, c = machine(*shape)
    v = np.random.default_rng(0).integers(0, 2, (1, shape[0])).astype(np.uint8)
    h = rbm.hidden_sample(w, c, np.repeat(v, N, axis=0), key=5, beta=0.8)
    mean, states = exact.hidden_mean(w, c, v, np.float32(0.8)), exact.all_states(shape[1])
    assert_distributed(
        exact.state_number(h), np.prod(np.where(states == 1, mean, 1 - mean), axis=1), "hidden"
    )
    v = rbm.visible_sample(w, b, np.repeat(h[:1], N, axis=0), key=6)
    mean, states = exact.visible_mean(w, b, h[:1]), exact.all_states(shape[0])
    assert_distributed(
        exact.state_number(v), np.prod(np.where(states == 1, mean, 1 - mean), axis=1), "visible"
    )


def test_no_two_draws_share_a_uniform():
    """Units at distances of the layout (1, 16, 64, 128), neighbouring rows, steps and sides are independent."""
    w, bias = np.zeros((256, 256), np.float32), np.zeros(256, np.float32)
    v = np.zeros((1000, 256), np.uint8)
    h = rbm.hidden_sample(w, bias, v, key=9)
    pairs = {f"units {d} apart": (h[:, :-d], h[:, d:]) for d in (1, 4, 8, 16, 32, 64, 128)}
    pairs["rows"] = h[:-1], h[1:]
    pairs["steps"] = h, rbm.hidden_sample(w, bias, v, key=9, step=1)
    pairs["distant steps"] = h, rbm.hidden_sample(w, bias, v, key=9, step=2**32)
    pairs["sides"] = h, rbm.visible_sample(w, bias, v, key=9)
    pairs["keys"] = h, rbm.hidden_sample(w, bias, v, key=10)
    pairs["high words of keys"] = h, rbm.hidden_sample(w, bias, v, key=9 + 2**32)
    for what, (x, y) in pairs.items():
        assert_distributed(2 * x.astype(int) + y, np.full(4, 0.25), what)


@every_shape
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_transitions(shape, steps):
    """From one state, the distribution after k steps is the k-th power of the enumerated transition matrix."""
    w, b, c = machine(*shape)
    start = 2 ** shape[0] - 2
    v = np.repeat(exact.all_states(shape[0])[[start]].astype(np.uint8), N, axis=0)
    out = rbm.gibbs_chain(w, b, c, v, steps=steps, key=11)
    assert_distributed(exact.state_number(out), np.linalg.matrix_power(gibbs_kernel(w, b, c), steps)[start])


# --- stationarity ----------------------------------------------------------------------------------------------


@every_shape
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("beta", [1.0, 0.3, 2.5])
def test_stationarity(shape, steps, beta):
    """Chains that start exactly at p_beta stay there."""
    w, b, c = machine(*shape)
    p = exact.visible_distribution(w, b, c, beta)
    out = rbm.gibbs_chain(w, b, c, draw_states(p, N, shape[0]), steps=steps, key=13, beta=beta)
    assert_distributed(exact.state_number(out), p)


@every_shape
def test_joint_stationarity(shape):
    """Of (v, h): v from p, h from p(h | v)."""
    w, b, c = machine(*shape)
    v = draw_states(exact.visible_distribution(w, b, c), N, shape[0])
    v = rbm.gibbs_chain(w, b, c, v, steps=2, key=17)
    h = rbm.hidden_sample(w, c, v, key=17, step=2)
    numbers = exact.state_number(v) * 2 ** shape[1] + exact.state_number(h)
    assert_distributed(numbers, exact.joint(w, b, c).ravel())


def test_a_temperature_for_each_row():
    w, b, c = machine(5, 4)
    betas = np.array([0.0, 0.5, 1.0, 2.0], np.float32)
    p = [exact.visible_distribution(w, b, c, beta) for beta in betas]
    v = np.stack([draw_states(q, N // 2, 5, seed) for seed, q in enumerate(p)], axis=1)
    out = rbm.gibbs_chain(w, b, c, v.reshape(-1, 5), steps=3, key=19, beta=np.tile(betas, N // 2)).reshape(
        v.shape
    )
    for i, beta in enumerate(betas):
        assert_distributed(exact.state_number(out[:, i]), p[i], f"beta {beta}")


@every_shape
def test_clamped_units(shape):
    """Given some units, the others follow their conditional distribution: reached from afar, and kept."""
    w, b, c = machine(*shape)
    clamp = np.arange(shape[0]) % 2
    given = np.ones(shape[0], np.uint8)
    p = exact.conditional_distribution(w, b, c, clamp, given)
    far = rbm.gibbs_chain(
        w, b, c, np.repeat(given[None], N // 2, 0), steps=60, key=23, clamp=clamp.astype(bool)
    )
    assert np.all(far[:, clamp == 1] == 1)
    assert_distributed(exact.state_number(far), p, "after 60 steps")
    near = rbm.gibbs_chain(
        w, b, c, draw_states(p, N, shape[0]), steps=2, key=29, clamp=clamp.astype(np.uint8)
    )
    assert_distributed(exact.state_number(near), p, "from p")


def test_a_clamp_for_each_row():
    """Rows with masks and values of their own, the rest after one step as if nobody else were there."""
    w, b, c = machine(5, 4)
    rng = np.random.default_rng(4)
    masks, values = rng.integers(0, 2, (3, 5)).astype(np.uint8), rng.integers(0, 2, (3, 5)).astype(np.uint8)
    v = np.concatenate(
        [
            draw_states(exact.conditional_distribution(w, b, c, mask, value), N // 2, 5, seed)
            for seed, (mask, value) in enumerate(zip(masks, values, strict=True))
        ]
    )
    out = rbm.gibbs_chain(w, b, c, v, steps=2, key=31, clamp=np.repeat(masks, N // 2, axis=0))
    for part, mask, value in zip(np.split(out, 3), masks, values, strict=True):
        assert np.all(part[:, mask == 1] == value[mask == 1])
        assert_distributed(exact.state_number(part), exact.conditional_distribution(w, b, c, mask, value))


# --- gradients -------------------------------------------------------------------------------------------------


def phase_variance(w, c, p, offset_v, offset_h):
    """Variance of one state's contribution to the model phase of (weight, visible bias, hidden bias), v ~ p."""
    states = exact.all_states(w.shape[0])
    hidden = exact.hidden_mean(w, c, states)
    products = (states - offset_v)[:, :, None] * (hidden - offset_h)[:, None, :]
    terms = products, states - products @ offset_h, hidden - np.einsum("nij,i->nj", products, offset_v)
    return [np.tensordot(p, t**2, 1) - np.tensordot(p, t, 1) ** 2 for t in terms]


def assert_gradient(actual, expected, variance, n):
    for name, a, e, var in zip(
        ("weight", "visible_bias", "hidden_bias"), actual, expected, variance, strict=False
    ):
        worst = np.max(np.abs(a - e) / np.sqrt(var / n + 1e-14))
        assert worst < SIGMAS, f"{name}: {worst:.2f} standard errors from the exact gradient"


def offsets_of(centred, shape, seed=7):
    rng = np.random.default_rng(seed)
    return [(rng.random(n) if centred else np.zeros(n)).astype(np.float32) for n in shape]


@every_shape
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_persistent_gradient_is_unbiased_at_equilibrium(shape, centred, k):
    """Chains at p: the gradient is the exact one of the log-likelihood, to the sampling error of the chains."""
    w, b, c = machine(*shape)
    p = exact.visible_distribution(w, b, c)
    data = np.random.default_rng(5).integers(0, 2, (12, shape[0])).astype(np.uint8)
    mu, lam = offsets_of(centred, shape)
    given = {"offset_v": mu, "offset_h": lam} if centred else {}
    gradient = rbm.cd_gradient(w, b, c, data, k=k, key=37, chains=draw_states(p, N, shape[0]), **given)
    assert_gradient(
        gradient,
        exact.log_likelihood_gradient(w, b, c, data, mu, lam),
        phase_variance(w, c, p, mu, lam),
        N,
    )


@every_shape
@pytest.mark.parametrize("centred", [False, True])
def test_contrastive_divergence_in_expectation(shape, centred):
    """CD-k from the data: the model phase is the enumerated distribution after k steps.

    One huge batch of equal rows: sums over it must not drift.
    """
    w, b, c = machine(*shape)
    row = 2 ** shape[0] - 3
    data = np.repeat(exact.all_states(shape[0])[[row]].astype(np.uint8), N, axis=0)
    mu, lam = offsets_of(centred, shape)
    given = {"offset_v": mu, "offset_h": lam} if centred else {}
    p = np.linalg.matrix_power(gibbs_kernel(w, b, c), 2)[row]
    expected = exact.centred_gradient(
        exact.gradient_statistics(w, c, data[:1], np.ones(1), mu, lam),
        exact.gradient_statistics(w, c, exact.all_states(shape[0]), p, mu, lam),
        mu,
        lam,
    )
    found = rbm.cd_gradient(w, b, c, data, k=2, key=41, **given)
    assert_gradient(found, expected, phase_variance(w, c, p, mu, lam), N)


def test_exact_gradient_is_the_derivative_of_the_log_likelihood():
    """The reference itself, by central differences; and the centred gradient, by its reparametrisation.

    With offsets the energy is -(v - mu)' w (h - lambda) - (v - mu)' b - (h - lambda)' c; its gradient, taken back to
    the plain parameters (b' = b - w lambda, c' = c - w' mu), is the centred one.
    """
    w, b, c = exact.double(*machine(5, 4))
    data = np.random.default_rng(8).integers(0, 2, (6, 5)).astype(float)
    mu, lam = exact.double(*offsets_of(True, (5, 4)))

    def log_likelihood(w, b, c):
        return -exact.free_energy(w, b, c, data).mean() - exact.log_partition(w, b, c)

    def slopes(f, *parameters):
        step = 1e-6
        for i, parameter in enumerate(parameters):
            slope = np.empty(parameter.shape)
            for at in np.ndindex(parameter.shape):
                moved = [[q.copy() for q in parameters] for _ in range(2)]
                moved[0][i][at] += step
                moved[1][i][at] -= step
                slope[at] = (f(*moved[0]) - f(*moved[1])) / (2 * step)
            yield slope

    for found, expected in zip(
        slopes(log_likelihood, w, b, c), exact.log_likelihood_gradient(w, b, c, data), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-8)

    def centred_log_likelihood(w, b, c):
        return log_likelihood(w, b - w @ lam, c - w.T @ mu)

    dw, db, dc = slopes(centred_log_likelihood, w, b + w @ lam, c + w.T @ mu)
    expected = exact.log_likelihood_gradient(w, b, c, data, mu, lam)
    for found, e in zip((dw, db - dw @ lam, dc - dw.T @ mu), expected, strict=True):
        np.testing.assert_allclose(found, e, atol=1e-8)


@pytest.mark.parametrize("k", [1, 4])
def test_chains_of_the_gradient_are_gibbs_chains(k):
    """cd_gradient moves its chains as gibbs_chain does, so that one can go on where the other stopped."""
    w, b, c = machine(70, 140, 0.2)
    rng = np.random.default_rng(9)
    data, chains = (rng.integers(0, 2, (n, 70)).astype(np.uint8) for n in (33, 129))
    moved = rbm.gibbs_chain(w, b, c, chains, steps=k, key=43, first_step=1000)
    persistent = rbm.cd_gradient(w, b, c, data, k=k, key=43, first_step=1000, chains=chains)
    np.testing.assert_array_equal(persistent.chains, moved)
    from_data = rbm.cd_gradient(w, b, c, data, k=k, key=43)
    np.testing.assert_array_equal(from_data.chains, rbm.gibbs_chain(w, b, c, data, steps=k, key=43))


# --- partition function ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (2, 11), (11, 2), (6, 6), (7, 13), (13, 13), (16, 3)], ids=str)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_log_partition_by_enumeration(shape, scale):
    model = machine(*shape, scale)
    assert rbm.log_partition_exact(*model) == pytest.approx(exact.log_partition(*model), rel=1e-6)


UNIFORM = [(0.0, 0.0, 0.0), (0.01, -2.5, -3.92), (0.02, -5.0, -7.84), (-1.5, 2.0, 3.0), (0.7, -300.0, 40.0)]


@pytest.mark.parametrize(
    ("small", "large", "weights"),
    [(n, m, u) for n in range(1, 15) for m in (1, 33, 784) for u in UNIFORM]
    + [(22, 33, UNIFORM[1]), (19, 784, UNIFORM[2])],
)
def test_log_partition_of_uniform_weights(small, large, weights):
    """A closed form at sizes that the reference cannot enumerate, wide and tall.

    Fields are float32: each of the larger side's units may be off by three roundings of its largest field.
    """
    w, b, c = weights
    for shape in {(small, large), (large, small)}:
        model = (
            np.full(shape, w, np.float32),
            np.full(shape[0], b, np.float32),
            np.full(shape[1], c, np.float32),
        )
        expected = exact.uniform_log_partition(*shape, w, b, c)
        field = max(abs(b), abs(c)) + abs(w) * min(shape)
        assert rbm.log_partition_exact(*model) == pytest.approx(
            expected, rel=1e-6, abs=3 * 2**-24 * field * max(shape)
        )


def test_uniform_log_partition_of_the_reference():
    """The reference's formula, at the values that are known and against enumeration."""
    for weights, value in zip(UNIFORM, (890.0009798390, 81.2457204926, 6.1768268825), strict=False):
        terms = exact.uniform_log_terms(784, 500, *weights)
        assert np.logaddexp.reduce(terms) == pytest.approx(value, abs=1e-9)
    model = (np.full((6, 9), 0.3), np.full(6, -0.2), np.full(9, 0.4))
    rounded = [m.astype(np.float32) for m in model]
    assert exact.uniform_log_partition(6, 9, 0.3, -0.2, 0.4) == pytest.approx(
        exact.log_partition(*rounded), abs=1e-12
    )


def test_independent_blocks_add_up():
    """Two machines side by side: log Z and free energies are sums."""
    first, second = machine(9, 5), machine(4, 8)
    w = np.zeros((13, 13), np.float32)
    w[:9, :5], w[9:, 5:] = first[0], second[0]
    b, c = np.concatenate([first[1], second[1]]), np.concatenate([first[2], second[2]])
    expected = rbm.log_partition_exact(*first) + rbm.log_partition_exact(*second)
    assert rbm.log_partition_exact(w, b, c) == pytest.approx(expected, abs=1e-5)
    v = np.random.default_rng(3).integers(0, 2, (50, 13)).astype(np.uint8)
    left, right = np.ascontiguousarray(v[:, :9]), np.ascontiguousarray(v[:, 9:])
    parts = rbm.free_energy(*first, left) + rbm.free_energy(*second, right)
    np.testing.assert_allclose(rbm.free_energy(w, b, c, v), parts, atol=1e-5)


@every_shape
def test_annealed_importance_sampling_is_unbiased(shape):
    """E[exp(log_weights)] is the ratio of partition functions from below, its inverse from above; also for 2 steps."""
    w, b, c = machine(*shape)
    base = np.linspace(-1, 1, shape[0]).astype(np.float32)
    log_ratio = exact.log_partition(w, b, c) - exact.log_base_partition(base, shape[1])
    samples = draw_states(exact.visible_distribution(w, b, c), N, shape[0])
    for temperatures in (3, 12):
        betas = np.linspace(0, 1, temperatures)
        forward, v = rbm.ais(w, b, c, betas=betas, base_bias=base, n_runs=N, key=47)
        weights = np.exp(forward - log_ratio)
        assert_mean(weights, 1.0, f"{temperatures} temperatures, forward")
        falling = np.ascontiguousarray(betas[::-1])
        reverse, _ = rbm.ais(w, b, c, betas=falling, base_bias=base, start=samples, key=53)
        assert_mean(np.exp(reverse + log_ratio), 1.0, f"{temperatures} temperatures, reverse")
        assert forward.mean() < log_ratio < -reverse.mean()
        # The weighted last states are samples of the machine.
        assert_mean(
            weights[:, None] * v, exact.visible_distribution(w, b, c) @ exact.all_states(shape[0]), "states"
        )


def test_more_temperatures_close_the_bracket():
    w, b, c = machine(7, 3)
    base = np.zeros(7, np.float32)
    samples = draw_states(exact.visible_distribution(w, b, c), 20_000, 7)
    gaps = []
    for temperatures in (2, 10, 100):
        betas = np.linspace(0, 1, temperatures)
        forward, _ = rbm.ais(w, b, c, betas=betas, base_bias=base, n_runs=20_000, key=59)
        reverse, _ = rbm.ais(w, b, c, betas=betas[::-1].copy(), base_bias=base, start=samples, key=61)
        gaps.append(-reverse.mean() - forward.mean())
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2] > 0


# --- likelihoods -----------------------------------------------------------------------------------------------


@every_shape
def test_free_energy_and_log_partition_make_a_distribution(shape):
    w, b, c = machine(*shape)
    states = exact.all_states(shape[0]).astype(np.uint8)
    p = np.exp(-rbm.free_energy(w, b, c, states) - rbm.log_partition_exact(w, b, c))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(p, exact.joint(w, b, c).sum(axis=1), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_free_energy_at_extreme_fields(dtype):
    """Fields of +1000, -1000 and 0: softplus is 1000, 0 and log 2; nothing overflows or is cut off."""
    w = np.array([[1000, -1000, 0], [1000, 1000, 0]], np.float32)
    b, c = np.array([500, -250], np.float32), np.zeros(3, np.float32)
    v = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype)
    log2 = np.log(2)
    expected = [-3 * log2, -500 - 1000 - log2, 250 - 2000 - log2, -250 - 2000 - 2 * log2]
    np.testing.assert_allclose(rbm.free_energy(w, b, c, v), expected, rtol=1e-7)
    assert rbm.log_partition_exact(w, b, c) == pytest.approx(np.log(4) + 2250, abs=1e-3)
    # [1, 1] is certain, given either unit; at [0, 0] each unit would rather be on.
    found = rbm.pseudo_log_likelihood(w, b, c, v)
    np.testing.assert_allclose(found[[3, 0]], [0, 4 * log2 - 1500 - 1750], rtol=1e-7, atol=1e-12)


@every_shape
def test_pseudo_likelihood_from_the_joint_distribution(shape):
    """log p(v_i | rest) by summing the enumerated p(v) over v_i."""
    w, b, c = machine(*shape)
    p = exact.visible_distribution(w, b, c)
    numbers = np.arange(p.size)
    expected = sum(np.log(p / (p + p[numbers ^ (1 << i)])) for i in range(shape[0]))
    states = exact.all_states(shape[0])
    for dtype in (np.uint8, np.bool_, np.float32):
        found = rbm.pseudo_log_likelihood(w, b, c, states.astype(dtype))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@every_shape
def test_stochastic_pseudo_likelihood_is_unbiased(shape):
    w, b, c = machine(*shape)
    v = np.random.default_rng(6).integers(0, 2, (1, shape[0])).astype(np.uint8)
    estimates = rbm.stochastic_pseudo_log_likelihood(w, b, c, np.repeat(v, N, axis=0), key=67)
    terms = shape[0] * exact.log_conditionals(w, b, c, v)[0]
    assert_mean(estimates, terms.mean(), "stochastic pseudo-likelihood")
    units = np.argmin(np.abs(estimates[:, None] - terms), axis=1)
    assert_distributed(units, np.full(shape[0], 1 / shape[0]), "units")
