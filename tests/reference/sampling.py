"""Which bits gencore draws: the sampling formula of its contract, from Philox words and float32 fields.

A field is the float32 sum of the selected weights in ascending order, plus the bias, times beta: every
step is fixed, so fields agree to the bit. The draw u (1 + e^-x) < 1 is decided here in float64. The
kernel's float32 may decide otherwise only if u lies within a few rounding errors of the mean; where one
does, these functions raise, and the test takes another seed.
"""

import numpy as np

from . import philox

# exp(-|x|) to 1 ulp, 1 + e, head (1 + e), the difference from T 2^16: under 6 roundings near T.
MARGIN = 6 * 2.0**-24
ONE = np.float32(1)


class TieError(Exception):
    """A uniform so close to its threshold that float32 rounding decides."""


def bernoulli(x, key, head_domain, step, first_row):
    """Bits (uint8) with mean logistic(x), for the rows first_row, ... of a float32 array x."""
    x = np.asarray(x, dtype=np.float64)
    rows = first_row + np.arange(x.shape[0])
    u = philox.uniforms_of_32_bits(key, head_domain, step, rows, x.shape[1])
    e = np.exp(-np.abs(x))
    threshold = np.where(x > 0, 1.0, e)
    distance = u * (1 + e) - threshold
    if np.any(np.abs(distance) < MARGIN * threshold):
        raise TieError(f"a draw at step {step} is within rounding of its threshold: take another seed")
    return (distance < 0).astype(np.uint8)


def sums(states, w):
    """float32 sums of the rows of w that each state selects, in ascending order."""
    total = np.zeros((states.shape[0], w.shape[1]), dtype=np.float32)
    for i in range(w.shape[0]):
        total += np.float32(states[:, i : i + 1]) * w[i]
    return total


def draw_hidden(w, c, v, key, step, first_row=0, beta=ONE):
    return bernoulli((sums(v, w) + c) * beta, key, philox.HIDDEN, step, first_row)


def draw_visible(w, b, h, key, step, first_row=0, beta=ONE):
    return bernoulli((sums(h, w.T) + b) * beta, key, philox.VISIBLE, step, first_row)


def gibbs_chain(w, b, c, v, steps, key, beta=1.0, clamp=None, first_step=0, first_row=0):
    """v after `steps` Gibbs steps, uint8. `beta`: a number or (n,); `clamp`: (1 or n, n_visible) of 0/1."""
    beta = np.asarray(beta, dtype=np.float32).reshape(-1, 1)
    v = np.asarray(v).astype(np.uint8)
    for step in range(first_step, first_step + steps):
        h = draw_hidden(w, c, v, key, step, first_row, beta)
        drawn = draw_visible(w, b, h, key, step, first_row, beta)
        v = drawn if clamp is None else np.where(np.asarray(clamp) == 1, v, drawn)
    return v


def ais_trajectory(w, b, c, base_bias, betas, n_runs, key, start=None, first_row=0):
    """States v_0 (the start), v_1, ... of each run, one for every temperature."""
    v = start
    if v is None:
        v = bernoulli(np.tile(base_bias, (n_runs, 1)), key, philox.AIS_START, 0, first_row)
    states = [v]
    for k in range(1, len(betas)):
        beta, rest = np.float32(betas[k]), np.float32(1 - betas[k])
        h = draw_hidden(w, c, v, key, k, first_row, beta)
        field = (sums(h, w.T) + b).astype(np.float64) * np.float64(beta) + np.float64(base_bias * rest)
        v = bernoulli(field.astype(np.float32), key, philox.VISIBLE, k, first_row)
        states.append(v)
    return states


def pseudo_likelihood_units(n_rows, n_visible, key, step=0, first_row=0):
    """The unit that the stochastic pseudo-likelihood looks at, for each row."""
    rows = first_row + np.arange(n_rows)
    word = philox.words(key, philox.PSEUDO_LIKELIHOOD, step, rows, 1)[:, 0]
    return ((word.astype(np.uint64) * np.uint64(n_visible)) >> np.uint64(32)).astype(np.int64)
