"""Float32 matrix products as one chain of multiply-adds over ascending k: every bit is determined."""

import numpy as np


def fused_multiply_add(a, b, c):
    """a b + c of float32 arrays with one rounding.

    The product is exact in float64. The sum is rounded to odd there (Boldo and Melquiond, "Emulation of FMA
    and correctly rounded sums: proved algorithms using rounding to odd", 2008), so that the second rounding,
    to float32, cannot go wrong.
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), np.asarray(c, np.float64)
    total = product + c
    virtual = total - product
    error = (product - (total - virtual)) + (c - virtual)  # exactly what the sum lost (Knuth)
    even = (total.view(np.int64) & 1) == 0
    toward = np.where(error > 0, np.inf, -np.inf)
    odd = np.where((error != 0) & even, np.nextafter(total, toward), total)
    return odd.astype(np.float32)


def matrix_product(a, b, fused=True):
    """The chain for each element of a b, from 0; without fused multiply-add, product and sum are rounded."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for p in range(a.shape[1]):
        column, row = a[:, p, None], b[None, p, :]
        total = fused_multiply_add(column, row, total) if fused else total + column * row
    return total
