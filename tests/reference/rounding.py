"""How far float32 arithmetic may stray: the bounds that tolerances are made of."""

import numpy as np

U = 2.0**-24  # half the spacing of float32 at 1: the relative error of one rounding


def chained(n):
    """Error of n roundings in a chain, in units of U.

    At most n; and for roundings that are as often up as down, at most 6 sqrt(n) but for a chance of 2
    exp(-18) (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019, with
    lambda = 6).
    """
    return np.minimum(n, 6 * np.sqrt(n))


def product_error(a, b, bias=None):
    """Bound on a float32 a @ b (+ bias), whatever the order of its sums."""
    magnitude = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    if bias is not None:
        magnitude = magnitude + np.abs(bias)
    return chained(np.shape(a)[1] + 1) * U * magnitude
