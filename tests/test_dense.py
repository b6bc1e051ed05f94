"""The matrix product beyond its row of the grid: every bit, special values, activations at their ends."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.chain import matrix_product
from reference.rounding import U
from scipy.special import expit

from gencore import _core
from gencore.kernels.dense import linear, matmul

SIZES = st.integers(0, 70)
# Paths: one row (narrow, wide, in tasks); one column; few rows, b in place; packed; blocks of k; rows in tasks; columns
# of a that compete for places in the cache; slabs of k, in tiles of a where its rows are adjacent, many panels and few.
SHAPES = (
    (1, 5, 9),
    (1, 40, 37),
    (1, 700, 300),
    (50, 1, 40),
    (3, 50, 70),
    (40, 100, 300),
    (200, 33, 520),
    (256, 200, 70),
    (301, 350, 530),
    (700, 60, 300),
)


def factors(m, n, k, transpose_a, transpose_b, seed=0):
    """op(a), op(b), and what is stored."""
    rng = np.random.default_rng([m, n, k, seed])
    left, right = rng.normal(0, 1, (m, k)).astype(np.float32), rng.normal(0, 1, (k, n)).astype(np.float32)
    a = np.ascontiguousarray(left.T) if transpose_a else left
    b = np.ascontiguousarray(right.T) if transpose_b else right
    return left, right, a, b


def assert_chain(m, n, k, transposes):
    expected = None
    for transpose_a, transpose_b in transposes:
        left, right, a, b = factors(m, n, k, transpose_a, transpose_b)
        if expected is None:
            expected = matrix_product(left, right, fused=_core.isa() != "baseline")
        actual = matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
        assert actual.tobytes() == expected.tobytes(), (m, n, k, transpose_a, transpose_b)


@settings(max_examples=200, deadline=None)
@given(SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_every_element_is_one_ascending_chain(m, n, k, transpose_a, transpose_b):
    assert_chain(m, n, k, [(transpose_a, transpose_b)])


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_path_of_every_level_is_the_same_chain(level):
    if level not in _core.isa_levels():
        pytest.skip(f"this processor does not run {level}")
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    env = {**os.environ, "GENCORE_ISA": level, "PYTHONPATH": paths}
    subprocess.run([sys.executable, __file__], env=env, check=True, timeout=120)


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_one_row_alone_has_the_bits_it_has_in_the_batch(m, n, k):
    _, _, a, b = factors(m, n, k, False, False)
    whole = matmul(a, b)
    for i in {0, m // 2, m - 1}:
        assert matmul(a[i : i + 1], b).tobytes() == whole[i].tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.bool_])
def test_binary_factor_adds_the_rows_that_its_ones_select(dtype):
    rng = np.random.default_rng(0)
    states = (rng.random((40, 150)) < 0.3).astype(dtype)
    w = rng.normal(0, 1, (150, 130)).astype(np.float32)
    for row, sums in zip(states, matmul(states, w), strict=True):
        expected = np.zeros(130, np.float32)
        for i in np.flatnonzero(row):
            expected = expected + w[i]
        assert sums.tobytes() == expected.tobytes()


def test_rows_that_bytes_do_not_select_are_not_read():
    w = np.float32([[1, 2], [np.nan, np.inf]])
    assert matmul(np.uint8([[1, 0], [0, 1]]), w).tobytes() == w.tobytes()
    assert np.isnan(matmul(np.float32([[1, 0]]), w)).all()


@settings(max_examples=100, deadline=None)
@given(SIZES, SIZES, st.integers(0, 200), st.booleans(), st.booleans(), st.floats(0, 1))
def test_bytes_give_the_bits_of_floats(m, n, k, transpose_a, transpose_b, share):
    rng = np.random.default_rng([m, n, k])
    a = (rng.random((k, m) if transpose_a else (m, k)) < share).astype(np.uint8)
    b = rng.normal(0, 1, (n, k) if transpose_b else (k, n)).astype(np.float32)
    options = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    assert matmul(a, b, **options).tobytes() == matmul(a.astype(np.float32), b, **options).tobytes()


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu", "softplus"])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_nan_stays_in_its_row_and_reaches_all_of_it(m, n, k, activation):
    _, _, a, b = factors(m, n, k, False, False)
    bad = m // 2
    a[bad, k // 2] = np.nan
    out = matmul(a, b, np.ones(n, np.float32), activation=activation)
    assert np.isnan(out[bad]).all()
    assert np.isfinite(np.delete(out, bad, axis=0)).all()


def test_infinity_times_zero_and_infinity_minus_infinity():
    inf = np.float32(np.inf)
    a = np.array([[inf, 0], [inf, 1], [1, 1]], np.float32)
    b = np.array([[1, 0, 1], [1, 1, -inf]], np.float32)
    expected = np.array([[inf, np.nan, np.nan], [inf, np.nan, np.nan], [2, 1, -inf]], np.float32)
    np.testing.assert_array_equal(matmul(a, b), expected)


# Values whose bounds are relative where the function is small, so that a tail rounded to 0 or 1 too early shows.
# exp(-|x|) has an error of a few units in the last place; below -87 its tail is no normal number and only small.
ENDS = np.concatenate([np.linspace(-87, 87, 1001), np.linspace(-2, 2, 1001), [1e-30, -1e-30, 0, 1e4, 1e30]])


@pytest.mark.parametrize(
    ("activation", "truth"),
    [
        ("logistic", lambda x: expit(x)),
        ("tanh", lambda x: np.tanh(x)),
        ("relu", lambda x: np.maximum(x, 0)),
        ("softplus", lambda x: np.logaddexp(0, x)),
    ],
)
def test_activation_is_exact_to_a_few_units_at_both_ends(activation, truth):
    x = ENDS.astype(np.float32)
    out = matmul(x[:, None], np.ones((1, 1), np.float32), activation=activation)[:, 0]
    expected = truth(x.astype(np.float64))
    assert np.all(np.abs(out - expected) <= 8 * U * np.abs(expected) + 1e-37)


def test_out_is_returned_and_filled():
    _, _, a, b = factors(3, 4, 5, False, False)
    out = np.full((3, 4), np.nan, np.float32)
    assert matmul(a, b, out=out) is out
    assert out.tobytes() == matmul(a, b).tobytes()


def test_wrong_activation_names_the_choice():
    a = np.ones((1, 1), np.float32)
    with pytest.raises(
        ValueError, match=r"dense\.matmul: expected activation to be one of identity, .*'sigmoid'"
    ):
        matmul(a, a, activation="sigmoid")


@pytest.mark.parametrize("wrong", [None, [[1.0]], np.float32(1), np.ones(3, np.float32)])
@pytest.mark.parametrize("name", ["a", "b"])
def test_what_is_no_matrix_is_named(name, wrong):
    call = {"a": np.ones((1, 1), np.float32), "b": np.ones((1, 1), np.float32), name: wrong}
    with pytest.raises((ValueError, TypeError), match=rf"dense\.matmul: expected {name} .*, received "):
        matmul(**call)


def main():
    """Runs on another level than the tests'."""
    for m, n, k in SHAPES:
        assert_chain(m, n, k, list(product((False, True), repeat=2)))


if __name__ == "__main__":
    main()


def test_what_linear_received_is_not_renamed():
    with pytest.raises(TypeError, match=r"linear: expected x to be contiguous .* received a strided array"):
        linear(np.zeros((4, 6), np.float32)[:, ::2], np.zeros((3, 2), np.float32))
