"""NADE in numba: rows in parallel, hidden units after ones only, gradients of w and v in one copy for each thread."""

import numpy as np
from numba import njit, prange

from peers.numba_kernels import base, exp, f32, log, uniform


@njit(fastmath=True, inline="always")
def add(a, h, w):
    for j in range(len(a)):
        a[j] += w[j]
        h[j] = f32(1) / (f32(1) + exp(-a[j]))


@njit(fastmath=True, inline="always")
def dot(h, v):
    total = f32(0)
    for j in range(len(h)):
        total += h[j] * v[j]
    return total


@njit(parallel=True, fastmath=True, cache=True)
def gradient(x, w, c, v, b, weight, log_prob, run, a, dh, da, slope, by_w, by_c, by_v, by_b):
    """run (parts, D + 1, H): the hidden units of each run of one row; by_w, ... (parts, ...), one for each thread."""
    n, dims = x.shape
    parts, hidden = len(by_w), len(c)
    for part in prange(parts):
        by_w[part] = f32(0)
        by_c[part] = f32(0)
        by_v[part] = f32(0)
        by_b[part] = f32(0)
        nothing = np.zeros(hidden, np.float32)
        for r in range(n * part // parts, n * (part + 1) // parts):
            a[part] = c
            k = 0
            add(a[part], run[part, 0], nothing)
            total = f32(0)
            for d in range(dims):
                logit = b[d] + dot(run[part, k], v[d])
                e = exp(-abs(logit))
                one = f32(x[r, d])
                total -= max(logit, f32(0)) - one * logit + log(f32(1) + e)
                p = f32(1) / (f32(1) + e)
                g = weight * (one - (p if logit > 0 else f32(1) - p))
                slope[part, d] = g
                by_b[part, d] += g
                for j in range(hidden):
                    by_v[part, d, j] += g * run[part, k, j]
                if x[r, d] == 1:
                    k += 1
                    add(a[part], run[part, k], w[d])
            log_prob[r] = total
            dh[part] = f32(0)
            da[part] = f32(0)
            for i in range(dims):
                d = dims - 1 - i
                if x[r, d] == 1:
                    for j in range(hidden):
                        h = run[part, k, j]
                        da[part, j] += dh[part, j] * h * (f32(1) - h)
                        dh[part, j] = f32(0)
                        by_w[part, d, j] += da[part, j]
                    k -= 1
                g = slope[part, d]
                for j in range(hidden):
                    dh[part, j] += g * v[d, j]
            for j in range(hidden):
                h = run[part, 0, j]
                by_c[part, j] += da[part, j] + dh[part, j] * h * (f32(1) - h)


@njit(parallel=True, fastmath=True, cache=True)
def sum_parts(parts, out):
    for d in prange(out.shape[0]):
        for j in range(out.shape[1]):
            total = f32(0)
            for k in range(len(parts)):
                total += parts[k, d, j]
            out[d, j] = total


@njit(parallel=True, fastmath=True, cache=True)
def sample(w, c, v, b, a, h, out, seed):
    for r in prange(len(out)):
        start = base(seed, r)
        for j in range(len(c)):
            a[r, j] = c[j]
            h[r, j] = f32(1) / (f32(1) + exp(-c[j]))
        for d in range(len(b)):
            x = b[d] + dot(h[r], v[d])
            one = uniform(start, d) * (f32(1) + exp(-x)) < f32(1)
            out[r, d] = one
            if one:
                add(a[r], h[r], w[d])
