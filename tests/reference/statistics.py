"""Do samples follow a distribution? Each test has a chance of about 1e-6 of a false alarm, once for its seed."""

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-6
SIGMAS = 5.0  # two-sided chance 6e-7


def counts_of(numbers, n_outcomes):
    return np.bincount(np.asarray(numbers).ravel(), minlength=n_outcomes)


def total_variation(numbers, p):
    return 0.5 * np.abs(counts_of(numbers, p.size) / np.size(numbers) - p).sum()


def monte_carlo_floor(p, n):
    """What the total variation of n fair samples is on average (each count nearly normal)."""
    return 0.5 * np.sqrt(2 / np.pi * p * (1 - p) / n).sum()


def assert_distributed(numbers, p, what=""):
    """`numbers` (outcomes 0, 1, ...) are independent draws of p: total variation and chi-square.

    One draw moves the total variation by at most 1 / n, so it exceeds its mean by t with probability at most
    exp(-2 n t^2) (McDiarmid).
    """
    n = np.size(numbers)
    bound = monte_carlo_floor(p, n) + np.sqrt(-np.log(FALSE_ALARM) / (2 * n))
    distance = total_variation(numbers, p)
    assert distance < bound, f"{what}: total variation {distance:.4g}, bound {bound:.4g}"

    counts = counts_of(numbers, p.size)
    assert np.all(counts[p == 0] == 0), f"{what}: an impossible outcome occurred"
    counts, p = counts[p > 0], p[p > 0]
    order = np.argsort(p)
    # Rare outcomes are pooled until each cell expects ten draws.
    cell = np.floor(np.cumsum(p[order]) * n / 10).astype(int)
    cell = np.unique(cell, return_inverse=True)[1]
    observed, expected = np.bincount(cell, counts[order]), np.bincount(cell, p[order] * n)
    if observed.size > 1:
        p_value = stats.chisquare(observed, expected * (n / expected.sum())).pvalue
        assert p_value > FALSE_ALARM, f"{what}: chi-square p = {p_value:.3g}"


def assert_mean(samples, expected, what=""):
    """Columns of independent rows have these means: within 5 standard errors of the sample."""
    samples = np.asarray(samples, dtype=np.float64)
    error = samples.std(axis=0) / np.sqrt(len(samples))
    worst = np.max(np.abs(samples.mean(axis=0) - expected) / np.maximum(error, 1e-12))
    assert worst < SIGMAS, f"{what}: {worst:.2f} standard errors from {expected}"
