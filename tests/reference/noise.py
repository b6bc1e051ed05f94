"""Standard noise in float64 from the uniforms of philox.py, with bounds on what float32 makes of it.

A logarithm errs by 0.9 units in the last place (tests/test_math.py), 1.8 U of it at most.
"""

import numpy as np

from . import philox
from .rounding import U


def normal(key, step, first_row, n_rows, n_units):
    """Box and Muller on elements t and t + 32 of each 64.

    1.8 U of the logarithm, half of it and 1 U after the root, 4.4 U of the cosine, a product.
    """
    element = philox.flat_elements(first_row, n_rows, n_units)
    first = element - element % np.uint64(64) + element % np.uint64(32)  # of the pair
    radius = np.sqrt(-2 * np.log(philox.flat_uniforms(key, philox.NORMAL, step, first)))
    turn = 2 * np.pi * philox.flat_uniforms(key, philox.NORMAL, step, first + np.uint64(32))
    value = radius * np.where(first == element, np.cos(turn), np.sin(turn))
    return value, 8 * U * np.abs(value)


def logistic_of(u):
    """1 - u is exact; two logarithms and a difference."""
    value = np.log(u) - np.log1p(-u)
    return value, 2 * U * (np.abs(np.log(u)) + np.abs(np.log1p(-u))) + U * np.abs(value)


def laplace_of(u):
    value = np.where(u < 0.5, np.log(2 * np.minimum(u, 0.5)), -np.log(2 * np.minimum(1 - u, 0.5)))
    return value, 2 * U * np.abs(value)


def gumbel_of(u):
    """The inner logarithm's relative error is an absolute one of the outer."""
    value = -np.log(-np.log(u))
    return value, 2 * U * (1 + np.abs(value))


def exponential_of(u):
    return -np.log(u), -2 * U * np.log(u)


def uniform_of(u):
    return u, np.zeros_like(u)


OF_UNIFORM = {
    "logistic": (philox.LOGISTIC, logistic_of),
    "laplace": (philox.LAPLACE, laplace_of),
    "gumbel": (philox.GUMBEL, gumbel_of),
    "uniform": (philox.UNIFORM, uniform_of),
    "exponential": (philox.EXPONENTIAL, exponential_of),
}
KINDS = ("normal", "logistic", "laplace", "gumbel", "uniform", "exponential", "log_normal")


def noise(kind, key, step, first_row, n_rows, n_units):
    """Value and bound of the noise of a kind."""
    if kind in ("normal", "log_normal"):
        return normal(key, step, first_row, n_rows, n_units)
    domain, of = OF_UNIFORM[kind]
    return of(philox.flat_uniforms(key, domain, step, philox.flat_elements(first_row, n_rows, n_units)))
