"""What the grid of cases does not ask of the sample family: distributions, tails, independence, shapes.

Bits, levels, threads and batch splits are in tests/cases/sample.py. Keys are fixed, so a test passes always or
never; each had a chance of about 1e-6 of a false alarm when its key was chosen.
"""

import numpy as np
import pytest
from reference import philox
from reference.statistics import FALSE_ALARM, SIGMAS, assert_distributed, counts_of
from scipy import stats

from gencore.kernels import optim, rbm, sample
from gencore.random import Generator, Key

KEY = 20_240_607
CONTINUOUS = {
    "uniform": (sample.uniform, stats.uniform()),
    "normal": (sample.normal, stats.norm()),
    "exponential": (sample.exponential, stats.expon()),
}
every_continuous = pytest.mark.parametrize("name", CONTINUOUS)


# --- known numbers ------------------------------------------------------------------------------------------


def test_word_layout_by_the_published_vector():
    """Block 0 of key 0 at (uniform, step 0, row 0): its four words belong to units 0, 16, 32 and 48."""
    words = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])
    assert np.array_equal(sample.uniform(64, 0)[::16], ((words >> 9) + 0.5) * 2.0**-23)


def test_numbers_of_a_key_never_change():
    """Saved keys must give these numbers in every version: from philox.py, at coordinates beyond 32 bits."""
    out = sample.uniform((2, 66), key=0xFEDCBA9876543210, step=2**40 + 1, first_row=2**32 - 2)
    assert out[0, 0] == 0.2987603545188904
    assert out[1, 65] == 0.334772527217865


# --- distributions ------------------------------------------------------------------------------------------


@every_continuous
def test_distribution(name):
    draw, truth = CONTINUOUS[name]
    x = draw((1000, 1001), KEY).ravel().astype(np.float64)
    assert stats.kstest(x, truth.cdf).pvalue > FALSE_ALARM
    bins = np.minimum((truth.cdf(x) * 1000).astype(int), 999)
    assert_distributed(bins, np.full(1000, 1e-3), name)


@every_continuous
def test_moments(name):
    draw, truth = CONTINUOUS[name]
    x = draw((4000, 1000), KEY + 1).ravel().astype(np.float64)
    for power in (1, 2, 3, 4):
        mean, square = truth.moment(power), truth.moment(2 * power)
        assert abs(np.mean(x**power) - mean) < SIGMAS * np.sqrt((square - mean**2) / x.size), power


@every_continuous
def test_neighbours_in_every_direction_are_independent(name):
    """Pairs of coordinates that differ in one respect: unit, row, step, key; and twins of another function."""
    draw, truth = CONTINUOUS[name]
    other = CONTINUOUS["exponential" if name == "uniform" else "uniform"]

    def quantiles(*shape, of=(draw, truth), key=KEY, **coordinates):
        return of[1].cdf(of[0](shape, key, **coordinates).astype(np.float64))

    u = quantiles(1000, 1024)
    pairs = {f"units {lag} apart": (u[:, :-lag], u[:, lag:]) for lag in (1, 4, 8, 15, 16, 32, 64, 128)}
    pairs |= {f"rows {lag} apart": (u[:-lag], u[lag:]) for lag in (1, 16, 64)}
    pairs["step"] = u, quantiles(1000, 1024, step=1)
    pairs["high step"] = u, quantiles(1000, 1024, step=2**32)
    pairs["key"] = u, quantiles(1000, 1024, key=KEY + 1)
    pairs["high key"] = u, quantiles(1000, 1024, key=KEY + 2**32)
    pairs["function"] = u, quantiles(1000, 1024, of=other)
    for what, (a, b) in pairs.items():
        cells = np.minimum((a * 16).astype(int), 15) * 16 + np.minimum((b * 16).astype(int), 15)
        assert_distributed(cells, np.full(256, 1 / 256), what)


def test_both_normals_of_a_pair_are_independent():
    z = sample.normal((4000, 1024), KEY).reshape(-1, 2, 32).astype(np.float64)
    a, b = z[:, 0].ravel(), z[:, 1].ravel()
    assert stats.kstest(np.hypot(a, b) ** 2 / 2, "expon").pvalue > FALSE_ALARM
    assert stats.kstest(np.arctan2(b, a) / (2 * np.pi) % 1, "uniform").pvalue > FALSE_ALARM
    for f in (np.sign, np.square, np.abs):
        assert abs(np.corrcoef(f(a), f(b))[0, 1]) < SIGMAS / np.sqrt(a.size)


# --- ends ---------------------------------------------------------------------------------------------------

MANY = (512, 65_536)  # four times as many variates as there are words of 23 bits


def test_uniforms_reach_both_ends_and_pass_neither():
    u = sample.uniform(MANY, KEY)
    assert u.min() == 2.0**-24
    assert u.max() == 1 - 2.0**-24


def test_exponentials_of_the_extreme_uniforms():
    x = sample.exponential(MANY, KEY)
    assert x.min() == pytest.approx(2.0**-24, rel=1e-6)
    assert x.max() == pytest.approx(24 * np.log(2), rel=1e-6)


def test_normals_of_the_extreme_uniforms():
    z = sample.normal(MANY, KEY, step=1)
    assert np.isfinite(z).all()
    radius = np.hypot(*z.reshape(-1, 2, 32).transpose(1, 0, 2))
    assert radius.max() == pytest.approx(np.sqrt(48 * np.log(2)), rel=1e-6)
    assert radius.min() == pytest.approx(np.sqrt(2 * 2.0**-24), rel=1e-6)


# --- bernoulli ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1e-9, 1e-6, 2.0**-16, 1.5 * 2**-16, 1e-3, 0.1, 1 / 3, 0.5, 0.9, 1 - 2.0**-20])
def test_frequency(p):
    """64 million draws; where the rarer outcome has probability 1e-6 only the tail's bits resolve it."""
    p = np.full((1000, 1000), p, np.float32)
    probability, steps = float(p[0, 0]), 64
    ones = sum(int(sample.bernoulli(p, KEY, step=step).sum()) for step in range(steps))
    n = steps * p.size
    tails = stats.binom(n, probability).cdf(ones), stats.binom(n, probability).sf(ones - 1)
    assert min(tails) > FALSE_ALARM / 2


def test_certain_outcomes():
    ends = np.array([0, -0.0, 1], np.float32)
    out = sample.bernoulli(np.tile(ends, (300_000, 1)), KEY)
    assert np.array_equal(out, np.tile(np.array([0, 0, 1], np.uint8), (300_000, 1)))


@pytest.mark.parametrize("offset", [2.0**-24, 2.0**-18, 2.0**-17, 2.0**-16 - 2.0**-22])
def test_tail_decides_inside_an_interval_of_the_head(offset):
    """Every draw whose head leaves it open, about 30 of 2 million, is that of the 32-bit uniform."""
    p = np.full((8, 262_144), 0.25 + offset, np.float32)
    head = philox.halves(KEY, philox.BERNOULLI, 0, np.arange(8), p.shape[1])
    row, unit = np.nonzero(head == 0.25 * 65536)
    assert 5 < row.size < 100
    drawn = head < 0.25 * 65536
    for r, u in zip(row, unit, strict=True):
        tail = philox.halves(KEY, philox.BERNOULLI + 1, 0, [r], u + 1)[0, u]
        drawn[r, u] = (tail + 0.5) * 2.0**-32 < p[r, u] - 0.25
    assert np.array_equal(sample.bernoulli(p, KEY), drawn)


def test_bernoulli_into_a_bool_array():
    p = np.linspace(0, 1, 77, dtype=np.float32)
    out = np.empty(77, bool)
    assert sample.bernoulli(p, KEY, out=out) is out
    assert np.array_equal(out, sample.bernoulli(p, KEY))


# --- categorical --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_categories", [2, 3, 10, 64, 65, 300])
def test_categories_have_their_probabilities(n_categories):
    rng = np.random.default_rng(n_categories)
    p = rng.dirichlet(np.full(n_categories, 0.5)) * (rng.random(n_categories) < 0.8)
    p /= p.sum()
    with np.errstate(divide="ignore"):
        logits = np.tile((np.log(p) + 300 * rng.normal()).astype(np.float32), (200_000, 1))
    mass = np.exp(logits[0].astype(np.float64) - logits[0].max())
    assert_distributed(sample.categorical(logits, KEY), mass / mass.sum(), f"{n_categories} categories")


def test_only_possible_category():
    for n_categories in (1, 5, 64, 200):
        for k in {0, n_categories // 2, n_categories - 1}:
            logits = np.full((1000, n_categories), -np.inf, np.float32)
            logits[:, k] = -1e30
            assert np.all(sample.categorical(logits, KEY) == k)


def test_logits_of_any_size():
    """Differences beyond what float32 or exp can hold are probabilities of 0 and 1."""
    extreme = np.array([[-3e38, 3e38, 3e38, -200.0, -np.inf]], np.float32)
    drawn = sample.categorical(np.tile(extreme, (1000, 1)), KEY)
    assert set(drawn) == {1, 2}
    assert counts_of(drawn, 3)[1] == pytest.approx(500, abs=SIGMAS * np.sqrt(250))


def test_no_categories_and_no_rows():
    assert sample.categorical(np.empty((0, 5), np.float32), KEY).shape == (0,)
    with pytest.raises(ValueError, match="at least 1"):
        sample.categorical(np.empty((2, 0), np.float32), KEY)


def test_shape_of_categories():
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    drawn = sample.categorical(logits, KEY)
    assert drawn.dtype == np.int64
    assert np.array_equal(drawn, sample.categorical(logits.reshape(12, 5), KEY).reshape(3, 4))
    assert sample.categorical(logits[0, 0], KEY) == drawn[0, 0]


# --- shapes, keys, coordinates ------------------------------------------------------------------------------


@every_continuous
def test_shapes(name):
    draw = CONTINUOUS[name][0]
    whole = draw((6, 7), KEY)
    assert whole.dtype == np.float32
    assert np.array_equal(draw((2, 3, 7), KEY), whole.reshape(2, 3, 7))
    assert np.array_equal(draw(7, KEY), whole[0])
    assert np.array_equal(draw((7,), KEY), whole[0])
    assert np.array_equal(draw(np.int64(7), KEY), whole[0])
    assert draw((), KEY) == whole[0, 0]
    for empty in ((0,), (0, 7), (6, 0), (2, 0, 7)):
        assert draw(empty, KEY).shape == empty


@every_continuous
def test_rows_and_units_are_addressed_not_counted(name):
    """Rows may be drawn in parts, elements fall into rows as they come; steps and keys tell arrays apart."""
    draw = CONTINUOUS[name][0]
    whole = draw((5, 300), KEY, step=4)
    assert np.array_equal(draw((2, 300), KEY, step=4, first_row=3), whole[3:])
    assert np.array_equal(draw((15, 100), KEY, step=4), whole.reshape(15, 100))
    assert not np.any(draw((5, 300), KEY, step=5) == whole)
    assert not np.any(draw((5, 300), KEY + 1, step=4) == whole)


def test_kinds_of_keys():
    generator, twin = Generator(8), Generator(8)
    first = sample.uniform(10, generator)
    assert np.array_equal(first, sample.uniform(10, twin.key()))
    assert not np.any(sample.uniform(10, generator) == first)
    assert np.array_equal(sample.uniform(10, 5), sample.uniform(10, Key(5)))
    with pytest.raises(TypeError, match="Generator"):
        sample.uniform(10, "seed")


@every_continuous
def test_into_an_array(name):
    draw = CONTINUOUS[name][0]
    out = np.empty((2, 3, 50), np.float32)
    assert draw((2, 3, 50), KEY, out=out) is out
    assert np.array_equal(out, draw((2, 3, 50), KEY))
    with pytest.raises(
        ValueError, match=rf"sample.{name}: expected out of shape \(3,\), as given, received \(4,\)"
    ):
        draw(3, KEY, out=np.empty(4, np.float32))
    with pytest.raises(
        TypeError, match=rf"sample.{name}: expected out of dtype float32 .*, received float64"
    ):
        draw(3, KEY, out=np.empty(3))
    with pytest.raises(
        TypeError, match=rf"sample.{name}: expected out to be contiguous .*, received a strided"
    ):
        draw(3, KEY, out=np.empty(6, np.float32)[::2])
    out.flags.writeable = False
    with pytest.raises(TypeError, match=rf"sample.{name}: expected out to be writable"):
        draw((2, 3, 50), KEY, out=out)


def test_packed_bits_are_the_draws():
    """Of any leading dimensions; and one row of probabilities stands for that row repeated."""
    p = np.random.default_rng(2).random((2, 3, 130), np.float32)
    bits = sample.bernoulli_bits(p, KEY, step=4, first_row=9)
    assert bits.shape == (2, 3, 3)
    unpacked = np.unpackbits(bits.view(np.uint8), axis=-1, bitorder="little")
    assert np.array_equal(unpacked[..., :130], sample.bernoulli(p, KEY, step=4, first_row=9))
    assert not unpacked[..., 130:].any()
    out = np.empty((7, 3), np.uint64)
    assert sample.bernoulli_bits(p[0, 0], KEY, rows=7, out=out) is out
    assert np.array_equal(out, sample.bernoulli_bits(np.tile(p[0, 0], (7, 1)), KEY))
    assert sample.bernoulli_bits(p[0, 0], KEY, rows=0).shape == (0, 3)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((70,), {"rows": -1}, r"rows to be at least 0, with p of shape \(units,\), received -1"),
        ((4, 70), {"rows": 4}, r"rows to be .*, received 4 with p of shape \(4, 70\)"),
        ((4, 70), {"out": np.empty((4, 3), np.uint64)}, r"out of shape \(4, 2\), .*, received \(4, 3\)"),
    ],
)
def test_packed_bits_refuse(shape, options, message):
    with pytest.raises(ValueError, match=rf"sample.bernoulli_bits: expected {message}"):
        sample.bernoulli_bits(np.full(shape, 0.5, np.float32), KEY, **options)


def test_arrays_that_are_refused():
    with pytest.raises(
        TypeError, match=r"sample.bernoulli: expected p of dtype float32 .*, received float64"
    ):
        sample.bernoulli(np.zeros(3), KEY)
    with pytest.raises(
        TypeError, match=r"sample.bernoulli: expected p to be contiguous .*, received a strided"
    ):
        sample.bernoulli(np.zeros((2, 3, 4), np.float32)[..., ::2], KEY)
    with pytest.raises(TypeError, match=r"sample.bernoulli: expected p to be an array"):
        sample.bernoulli([0.5, 0.5], KEY)
    with pytest.raises(ValueError, match=r"p to hold probabilities.*, received 2 at \(3, 1\)"):
        sample.bernoulli(np.where(np.arange(20).reshape(2, 2, 5) == 16, 2, 0.5).astype(np.float32), KEY)
    with pytest.raises(ValueError, match="negative dimensions"):
        sample.uniform(-1, KEY)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda a: sample.gumbel_softmax(a, None, 1), "gumbel_softmax: expected tau to be a number"),
        (lambda a: sample.gaussian_reparam(a, a, 1, samples=None), "expected samples to be an integer"),
        (lambda a: sample.uniform(3, 1, step=None), "uniform: expected step to be an integer"),
        (lambda a: optim.sgd_step([a], [a], lr=None), "sgd_step: expected lr to be a number"),
        (lambda a: optim.scale([a], None), "scale: expected factor to be a number"),
        (lambda a: optim.sgd_step([a], [a], lr=1.0, nesterov=None), "nesterov to be True or False"),
        (
            lambda a: rbm.free_energy(a, a[0], a[0], a, beta=None),
            "rbm.free_energy: expected beta to be a number",
        ),
    ],
)
def test_none_is_no_number(call, named):
    with pytest.raises(TypeError, match=f"{named}, received None"):
        call(np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("shape", [2.5, (2, 2.5), "3"])
def test_shapes_are_integers(shape):
    with pytest.raises(
        TypeError, match=r"sample.uniform: expected shape to be an integer or a tuple of integers"
    ):
        sample.uniform(shape, 1)
