"""Philox4x32-10 from the paper (Salmon et al., SC 2011), and where gencore finds the bits of a variate."""

import numpy as np

UNIFORM, NORMAL, EXPONENTIAL, CATEGORICAL = 0, 1, 2, 3
BERNOULLI, HIDDEN, VISIBLE, AIS_START = 4, 8, 10, 12  # the head's domain; the tail's is one more
PSEUDO_LIKELIHOOD = 14
LOGISTIC, LAPLACE, GUMBEL, RELAXED_BERNOULLI, GUMBEL_SOFTMAX = 16, 17, 18, 19, 20
NADE = 21

LOW32 = np.uint64(0xFFFFFFFF)
SHIFT32 = np.uint64(32)


def block(key, c0, c1, c2, c3):
    """Four words (uint32) of each counter: ten rounds of two 32 x 32 -> 64 bit products."""
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, dtype=np.uint64) for c in (c0, c1, c2, c3)))
    k0, k1 = int(key) & 0xFFFFFFFF, int(key) >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> SHIFT32) ^ c1 ^ np.uint64(k0),
            p1 & LOW32,
            (p0 >> SHIFT32) ^ c3 ^ np.uint64(k1),
            p0 & LOW32,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def _grid(key, domain, step, rows, group, n_units):
    """Words of every (row, unit), `group` units sharing 16 blocks: shape (4, n_rows, n_units)."""
    unit = np.arange(n_units, dtype=np.uint64)
    c0 = 16 * (unit // group) + unit % 16
    tag = (domain << 24) | (step >> 32)
    return block(key, c0[None, :], np.asarray(rows, dtype=np.uint64)[:, None], step & 0xFFFFFFFF, tag)


def words(key, domain, step, rows, n_units):
    """One 32-bit word a unit: 64 units share 16 blocks. Shape (n_rows, n_units)."""
    unit = np.arange(n_units)
    return np.take_along_axis(
        _grid(key, domain, step, rows, 64, n_units), (unit % 64 // 16)[None, None, :], axis=0
    )[0]


def halves(key, domain, step, rows, n_units):
    """16 bits a unit: 128 units share 16 blocks, the first 64 in the low halves. Shape (n_rows, n_units)."""
    unit = np.arange(n_units)
    word = np.take_along_axis(
        _grid(key, domain, step, rows, 128, n_units), (unit % 64 // 16)[None, None, :], axis=0
    )[0]
    return np.where(unit % 128 < 64, word & 0xFFFF, word >> 16)


def uniforms(key, domain, step, rows, n_units):
    """((word >> 9) + 1/2) 2^-23, exact in float32."""
    return ((words(key, domain, step, rows, n_units) >> 9) + 0.5) * 2.0**-23


def uniforms_of_32_bits(key, head_domain, step, rows, n_units):
    """The uniform of a Bernoulli draw: 16 bits of the head, 16 of the tail, and a half. Exact in float64."""
    head = halves(key, head_domain, step, rows, n_units).astype(np.float64)
    tail = halves(key, head_domain + 1, step, rows, n_units).astype(np.float64)
    return (head * 65536.0 + tail + 0.5) * 2.0**-32


def flat_elements(first_row, n_rows, n_columns):
    """Number e = row columns + column of every element, in the flat layout."""
    return (
        (first_row * n_columns + np.arange(n_rows * n_columns)).astype(np.uint64).reshape(n_rows, n_columns)
    )


def flat_uniforms(key, domain, step, element):
    """Uniforms in the flat layout: element e has unit e mod 2^30 of row e / 2^30."""
    element = np.asarray(element, dtype=np.uint64)
    row, unit = element >> np.uint64(30), element & np.uint64(2**30 - 1)
    tag = (domain << 24) | (step >> 32)
    four = block(key, 16 * (unit // 64) + unit % 16, row, step & 0xFFFFFFFF, tag)
    word = np.take_along_axis(four, (unit % 64 // 16).astype(np.int64)[None], axis=0)[0]
    return ((word >> 9) + 0.5) * 2.0**-23
