"""evaluate.log_partition at full size, where only machines of uniform weights have a known log Z."""

from types import SimpleNamespace

import numpy as np
import pytest
from reference import rbm as exact

from gencore.evaluate import log_partition

WEIGHTS = [(0.0, 0.0, 0.0), (0.01, -2.5, -3.92), (0.02, -5.0, -7.84)]


def uniform_machine(n_visible, n_hidden, w, b, c):
    return SimpleNamespace(
        weight=np.full((n_visible, n_hidden), w, np.float32),
        visible_bias=np.full(n_visible, b, np.float32),
        hidden_bias=np.full(n_hidden, c, np.float32),
    )


@pytest.mark.parametrize("weights", WEIGHTS)
def test_bracket_at_full_size(weights):
    """784 x 500, reverse runs from exact samples.

    The last two machines have a mode that forward runs miss (half of Z and more; their own standard error does not say
    so): the reverse runs do not, and the bracket holds the truth.
    """
    truth = exact.uniform_log_partition(784, 500, *weights)
    found = log_partition(
        uniform_machine(784, 500, *weights),
        "ais",
        betas=np.linspace(0, 1, 1001),
        base_rates=np.full(784, 0.3),
        reverse_start=exact.uniform_samples(784, 500, *weights, 100, np.random.default_rng(71)),
        burn_in=0,
        key=73,
    )
    assert found.lower < truth < found.upper < found.lower + 2
    assert abs(found.reverse - truth) < 5 * found.reverse_std_error < 1
    assert found.value < truth + 5 * found.std_error
    if weights == WEIGHTS[0]:
        assert abs(found.value - truth) < 5 * found.std_error < 0.2


def test_bracket_by_default():
    """Without a word about where to start."""
    found = log_partition(uniform_machine(784, 500, *WEIGHTS[1]), betas=1000, key=79)
    assert found.method == "ais"
    assert found.lower < 81.2457204926 < found.upper < found.lower + 3


def test_annealing_from_the_model_itself_is_exact():
    """Where the base model is the machine, every weight is 1, and 14,500 temperatures drift by nothing."""
    found = log_partition(
        uniform_machine(90, 60, *WEIGHTS[0]), "ais", base_rates=np.full(90, 0.5), n_runs=4, key=83
    )
    np.testing.assert_allclose(found.log_weights, 150 * np.log(2), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.reverse_log_weights, 150 * np.log(2), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (np.full((3, 4), 0.5), ("reverse_start", "0 and 1 only", "0.5")),
        (np.zeros((3, 5)), ("reverse_start", "(n, 4)", "(3, 5)")),
        (np.full((3, 4), np.nan), ("reverse_start", "nan")),
    ],
)
def test_reverse_start_is_never_rounded(start, words):
    with pytest.raises(ValueError) as caught:
        log_partition(uniform_machine(4, 3, *WEIGHTS[0]), "ais", betas=10, n_runs=3, reverse_start=start)
    assert all(word in str(caught.value) for word in words), caught.value
