"""Large results lie in memory that is kept for the next call: nobody shares it, and it is given back."""

import os
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

import gencore as gc
from gencore import _core
from gencore.kernels import _arrays, sample

LARGE = (300, 400)
SANITIZED = "fsanitize=address" in os.environ.get("CXXFLAGS", "")


def address(array):
    return array.__array_interface__["data"][0]


def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS:"))


@pytest.mark.skipif(SANITIZED, reason="the sanitizer sees each array's memory apart")
def test_memory_serves_the_next_result():
    first = sample.uniform(LARGE, 1)
    at = address(first)
    assert at % 64 == 0
    del first
    assert address(sample.uniform(LARGE, 2)) == at


def test_results_that_live_do_not_share_memory():
    rng = np.random.default_rng(0)
    held = []
    for step in range(300):
        if held and rng.random() < 0.5:
            array, key = held.pop(rng.integers(len(held)))
            assert np.array_equal(array, sample.uniform(array.shape, key))
        held.append((sample.uniform((int(rng.integers(1, 90)), 1000), step), step))
    spans = sorted((address(a), address(a) + a.nbytes) for a, _ in held)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_a_view_keeps_the_memory():
    whole = sample.uniform(LARGE, 3)
    row, expected = whole[7], whole[7].copy()
    del whole
    for key in range(5):
        sample.uniform(LARGE, key)
    assert np.array_equal(row, expected)


def test_it_is_an_array_like_any_other():
    array = _arrays.empty(np.zeros(1), LARGE, np.float32)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert (array.shape, array.dtype) == (LARGE, np.float32)
    assert _arrays.empty(array, (5, 0), np.float32).shape == (5, 0)
    assert _arrays.full(array, (2, 70_000), 3, np.uint8).sum() == 420_000


def test_tracemalloc_knows_it():
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        array = sample.uniform(LARGE, 1)
        held = tracemalloc.get_traced_memory()[0] - before
        assert array.nbytes <= held < array.nbytes + 5000
        del array
        assert tracemalloc.get_traced_memory()[0] - before < 5000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(SANITIZED, reason="the sanitizer keeps what is freed")
def test_what_is_kept_has_a_limit_and_is_given_back():
    """256 MB, the latest; the first results of a size must not keep out those of another."""
    gc.release_scratch()
    before, sizes = resident(), [8_000_000 + 500_000 * i for i in range(20)]
    for n in sizes:
        sample.uniform(n, 1)
    assert resident() - before < 330e6
    last = sample.uniform(sizes[-1], 1)
    at = address(last)
    del last
    assert address(sample.uniform(sizes[-1], 1)) == at
    gc.release_scratch()
    assert resident() - before < 60e6


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20, 3), (1 << 40, 1 << 40), (-1, 5)])
def test_what_cannot_be_had_is_refused(shape):
    with pytest.raises((MemoryError, ValueError), match=r"(?i)allocate|too big|negative"):
        _core.empty(shape, np.float32)


def test_gradients_of_large_parameters_are_their_own():
    """A rule's new array becomes the gradient as it is; g itself, handed through, does not."""
    a, b = (gc.tensor(np.ones(LARGE, np.float32), requires_grad=True) for _ in range(2))
    np.sum(a + b).backward()
    assert not np.shares_memory(a.grad.numpy(), b.grad.numpy())
    x = gc.tensor(np.ones((300, 300), np.float32), requires_grad=True)
    np.sum(gc.kernels.dense.matmul(x, x)).backward()
    x.grad.numpy()[:] = 1  # writes to nothing else
    assert np.array_equal(x.numpy(), np.ones((300, 300)))
