"""numba's side: loops written for LLVM to vectorise, compiled once and cached beside this file.

numba's own random numbers and exponentials are scalar calls, so both are written out here. Sparse states are used as
our kernels use them: rows of w are added over set bits, four at a time. Whole rows beat tiles of columns, and the
dense product. Sums of log(1 + e^x) are logarithms of products, kept in LANES lanes so that the loops vectorise.
"""

import numpy as np
from numba import njit, prange

f32, f64, u32, i32, u64 = np.float32, np.float64, np.uint32, np.int32, np.uint64
LANES = 32


@njit(inline="always")
def uniform(base, unit):
    """23 bits, as ours, from a 32-bit hash of (base, unit): it passes the checks here; Philox is far stronger."""
    x = u32(base + u32(u32(unit) * u32(0x9E3779B1)))
    x = u32(x ^ u32(x >> u32(16)))
    x = u32(x * u32(0x7FEB352D))
    x = u32(x ^ u32(x >> u32(15)))
    x = u32(x * u32(0x846CA68B))
    x = u32(x ^ u32(x >> u32(16)))
    return (f32(i32(u32(x >> u32(9)))) + f32(0.5)) * f32(2**-23)


@njit(cache=True)
def base(seed, row):
    x = (u64(seed) + u64(row) * u64(0x9E3779B97F4A7C15)) * u64(0xD1342543DE82EF95)
    return u32((x ^ (x >> u64(29))) * u64(0xBF58476D1CE4E5B9) >> u64(32))


@njit(fastmath=True, inline="always")
def exp(x):
    """2^k times a polynomial, relative error 2e-7 down to 2^-126."""
    x = min(max(x * f32(1.44269504), f32(-126)), f32(126))
    k = np.floor(x + f32(0.5))
    r = x - k
    p = f32(1.5353362e-4)
    p = p * r + f32(1.3398874e-3)
    p = p * r + f32(9.6184370e-3)
    p = p * r + f32(5.5503324e-2)
    p = p * r + f32(2.4022648e-1)
    p = p * r + f32(6.9314720e-1)
    p = p * r + f32(1)
    return p * i32((i32(k) + i32(127)) << i32(23)).view(f32)


@njit(parallel=True, fastmath=True, cache=True)
def adam(param, grad, mean, square, rate, scale, taken1, kept2, taken2, eps):
    """One step on one array, flat; rate and scale hold the corrections of the step, taken is 1 - beta."""
    for i in prange(param.size):
        g = grad[i]
        mean[i] += taken1 * (g - mean[i])
        square[i] = kept2 * square[i] + taken2 * g * g
        param[i] -= rate * mean[i] / (np.sqrt(square[i]) * scale + eps)


@njit(parallel=True, fastmath=True, cache=True)
def bernoulli(p, out, seed):
    for r in prange(p.shape[0]):
        start = base(seed, r)
        for j in range(p.shape[1]):
            out[r, j] = uniform(start, j) < p[r, j]


@njit(fastmath=True, inline="always")
def log(x):
    """Exponent and an odd series of (m - 1) / (m + 1): relative error 3e-7 for normal x."""
    bits = f32(x).view(i32)
    e = i32(bits - i32(0x3F3504F3)) >> i32(23)
    m = i32(bits - i32(e << i32(23))).view(f32)
    s = (m - f32(1)) / (m + f32(1))
    z = s * s
    p = f32(0.2222222)
    p = p * z + f32(0.2857143)
    p = p * z + f32(0.4)
    p = p * z + f32(0.6666667)
    return f32(e) * f32(0.6931472) + (s * f32(2) + s * z * p)


@njit(fastmath=True, inline="always")
def cos_turn(t):
    """cos(2 pi t) for t in (0, 1), by the cosine of a half turn's distance from 1/2."""
    r = abs(t - f32(0.5)) - f32(0.25)  # cos(2 pi t) = sin(2 pi r)
    x = r * f32(6.2831853)
    z = x * x
    p = f32(2.6083159e-6)
    p = p * z - f32(1.9810690e-4)
    p = p * z + f32(8.3330255e-3)
    p = p * z - f32(1.6666657e-1)
    return x + x * z * p


@njit(fastmath=True, inline="always")
def normal(base, unit):
    return np.sqrt(f32(-2) * log(uniform(base, 2 * unit))) * cos_turn(uniform(base, 2 * unit + 1))


@njit(parallel=True, fastmath=True, cache=True)
def reparam(mu, logvar, z, kl, seed):
    for r in prange(mu.shape[0]):
        start, total = base(seed, r), f32(0)
        for j in range(mu.shape[1]):
            m, v = mu[r, j], logvar[r, j]
            sd = exp(f32(0.5) * v)
            z[r, j] = m + sd * normal(start, j)
            total += m * m + (sd * sd - f32(1)) - v
        kl[r] = f32(0.5) * total


@njit(parallel=True, fastmath=True, cache=True)
def reparam_gradient(mu, logvar, grad_z, grad_kl, by_mu, by_logvar, seed):
    """The noise is hashed again, as ours is."""
    for r in prange(mu.shape[0]):
        start, h = base(seed, r), grad_kl[r]
        for j in range(mu.shape[1]):
            sd = exp(f32(0.5) * logvar[r, j])
            by_mu[r, j] = grad_z[r, j] + h * mu[r, j]
            by_logvar[r, j] = f32(0.5) * (grad_z[r, j] * sd * normal(start, j) + h * (sd * sd - f32(1)))


@njit(parallel=True, fastmath=True, cache=True)
def gumbel_softmax(logits, scale, y, seed):
    """Blocks of rows, so that the draws of many short rows are one long loop."""
    n = logits.shape[1]
    flat, out = logits.reshape(-1), y.reshape(-1)
    for block in prange((len(logits) + 255) // 256):
        start, first, end = base(seed, block), block * 256, min(len(logits), block * 256 + 256)
        for e in range(first * n, end * n):
            out[e] = flat[e] - log(-log(uniform(start, e - first * n)))
        for r in range(first, end):
            top = y[r, 0]
            for k in range(1, n):
                top = max(top, y[r, k])
            for k in range(n):
                y[r, k] -= top
        for e in range(first * n, end * n):
            out[e] = exp(out[e] * scale)
        for r in range(first, end):
            total = f32(0)
            for k in range(n):
                total += y[r, k]
            inverse = f32(1) / total
            for k in range(n):
                y[r, k] *= inverse


@njit(parallel=True, fastmath=True, cache=True)
def softmax_gradient(grad, y, scale, by_logits):
    for r in prange(len(y)):
        mean = f32(0)
        for k in range(y.shape[1]):
            mean += y[r, k] * grad[r, k]
        for k in range(y.shape[1]):
            by_logits[r, k] = y[r, k] * (grad[r, k] - mean) * scale


@njit(fastmath=True, cache=True)
def add_rows(states, r, weight, bias, index, field):
    """field = bias + the rows of weight that the set bits of states[r] select; index is scratch."""
    n_set, n_out = 0, len(bias)
    for i in range(states.shape[1]):
        index[n_set] = i
        n_set += states[r, i]
    for j in range(n_out):
        field[j] = bias[j]
    q = 0
    while q + 4 <= n_set:
        w0, w1, w2, w3 = weight[index[q]], weight[index[q + 1]], weight[index[q + 2]], weight[index[q + 3]]
        for j in range(n_out):
            field[j] += (w0[j] + w1[j]) + (w2[j] + w3[j])
        q += 4
    while q < n_set:
        w0 = weight[index[q]]
        for j in range(n_out):
            field[j] += w0[j]
        q += 1


@njit(fastmath=True, cache=True)
def draw(states, out, r, weight, bias, seed, index, field):
    """Row r of one side from the set bits of the other."""
    add_rows(states, r, weight, bias, index, field)
    start = base(seed, r)
    for j in range(out.shape[1]):
        out[r, j] = uniform(start, j) * (f32(1) + exp(-field[j])) < f32(1)


@njit(parallel=True, fastmath=True, cache=True)
def gibbs_chain(start, v, h, w, w_t, b, c, steps, seed):
    """`steps` v-h-v steps from start into v (which may be start)."""
    for r in prange(v.shape[0]):
        index, field = np.empty(len(b) + len(c), np.int64), np.empty(len(b) + len(c), f32)
        draw(start, h, r, w, c, 2 * seed, index, field)
        draw(h, v, r, w_t, b, 2 * seed + 1, index, field)
        for t in range(1, steps):
            draw(v, h, r, w, c, 2 * (seed + t), index, field)
            draw(h, v, r, w_t, b, 2 * (seed + t) + 1, index, field)


@njit(parallel=True, fastmath=True, cache=True)
def means(field, bias):
    """field = logistic(field + bias)."""
    for r in prange(field.shape[0]):
        for j in range(field.shape[1]):
            field[r, j] = f32(1) / (f32(1) + exp(-(field[r, j] + bias[j])))


@njit(parallel=True, fastmath=True, cache=True)
def ais(w, w_t, b, c, zero, betas, v, h, total, seed):
    """AIS runs from visible biases b; one logarithm a temperature."""
    n_visible, n_hidden = v.shape[1], h.shape[1]
    for r in prange(v.shape[0]):
        index, field = np.empty(n_visible + n_hidden, np.int64), np.empty(n_visible + n_hidden, f32)
        start, weight = base(seed, r), 0.0
        for i in range(n_visible):
            v[r, i] = uniform(start, i) * (f32(1) + exp(-b[i])) < f32(1)
        for k in range(1, len(betas)):
            low, high = f32(betas[k - 1]), f32(betas[k])
            add_rows(v, r, w, c, index, field)
            start, ratio = base(seed + 2 * k, r), 1.0
            for j in range(n_hidden):
                e = exp(high * field[j])
                ratio *= (f32(1) + e) / (f32(1) + exp(low * field[j]))
                h[r, j] = uniform(start, j) * (f32(1) + e) < e
            weight += np.log(ratio)
            add_rows(h, r, w_t, zero, index, field)
            start = base(seed + 2 * k + 1, r)
            for i in range(n_visible):
                v[r, i] = uniform(start, i) * (f32(1) + exp(-(b[i] + high * field[i]))) < f32(1)
        total[r] = weight


@njit(parallel=True, fastmath=True, cache=True)
def free_energy(v, w, b, c, out):
    n_hidden = len(c)
    for r in prange(v.shape[0]):
        index, field = np.empty(len(b), np.int64), np.empty(n_hidden, f32)
        add_rows(v, r, w, c, index, field)
        linear = 0.0
        for i in range(len(b)):
            linear += b[i] * v[r, i]
        lanes = np.ones(LANES)
        j = 0
        while j + LANES <= n_hidden:
            for q in range(LANES):
                lanes[q] *= f32(1) + exp(field[j + q])
            j += LANES
        for q in range(n_hidden - j):
            lanes[q] *= f32(1) + exp(field[j + q])
        total = 0.0
        for q in range(0, LANES, 2):
            total += np.log(lanes[q] * lanes[q + 1])
        out[r] = -linear - total


@njit(parallel=True, fastmath=True, cache=True)
def log_z_terms(w, b, c, table, bias, low, out):
    """log sum_v of each hidden state: e^(w h) of the low units from a table, of the high ones once a block."""
    for block in prange(out.shape[0]):
        field, linear = b.copy(), 0.0
        for j in range(len(c) - low):
            if block >> j & 1:
                linear += c[low + j]
                for i in range(len(b)):
                    field[i] += w[low + j, i]
        for i in range(len(b)):
            field[i] = np.exp(field[i])
        lanes = np.empty(LANES)
        for t in range(table.shape[0]):
            row = table[t]
            lanes[:] = 1.0
            i = 0
            while i + LANES <= len(b):
                for q in range(LANES):
                    lanes[q] *= 1.0 + field[i + q] * row[i + q]
                i += LANES
            for q in range(len(b) - i):
                lanes[q] *= 1.0 + field[i + q] * row[i + q]
            total = 0.0
            for q in range(0, LANES, 2):
                total += np.log(lanes[q] * lanes[q + 1])
            out[block, t] = linear + bias[t] + total


@njit(parallel=True, fastmath=True, cache=True)
def pseudo_log_likelihood(v, field, growth, shrink, b, out):
    """growth, shrink = e^w, e^-w; field without its exponential. Each factor is within e^(+-|w|)."""
    n_visible, n_hidden = growth.shape
    for r in prange(v.shape[0]):
        e, inverse = np.empty(n_hidden, f32), np.empty(n_hidden, f32)
        for j in range(n_hidden):
            e[j] = exp(field[r, j])
            inverse[j] = f32(1) / (f32(1) + e[j])
        lanes, total = np.empty(LANES, f32), 0.0
        for i in range(n_visible):
            factor = shrink[i] if v[r, i] else growth[i]
            lanes[:] = f32(1)
            j = 0
            while j + LANES <= n_hidden:
                for q in range(LANES):
                    lanes[q] *= inverse[j + q] * (f32(1) + e[j + q] * factor[j + q])
                j += LANES
            for q in range(n_hidden - j):
                lanes[q] *= inverse[j + q] * (f32(1) + e[j + q] * factor[j + q])
            product = 1.0
            for q in range(LANES):
                product *= f64(lanes[q])
            gain = np.log(product) + (-b[i] if v[r, i] else b[i])
            total -= np.log1p(np.exp(gain)) if gain < 30 else gain
        out[r] = total


@njit(parallel=True, fastmath=True, cache=True)
def bernoulli_loss(x, t, grad, value, slope):
    """Both in one go: the exponential serves the logarithm and the slope."""
    n, units = x.shape
    for r in prange(n):
        lanes, linear, g = np.ones(LANES, f32), np.zeros(LANES, f32), grad[r]
        for j in range(0, units - LANES + 1, LANES):
            for q in range(LANES):
                v, target = x[r, j + q], f32(t[r, j + q])
                e = exp(-abs(v))
                s = f32(1) / (f32(1) + e)
                slope[r, j + q] = g * (target - (s if v > 0 else e * s))
                lanes[q] *= f32(1) + e
                linear[q] += target * v - max(v, f32(0))
        total = 0.0
        for j in range(units - units % LANES, units):
            v, target = x[r, j], f32(t[r, j])
            e = exp(-abs(v))
            s = f32(1) / (f32(1) + e)
            slope[r, j] = g * (target - (s if v > 0 else e * s))
            total += f64(target * v - max(v, f32(0))) - np.log1p(f64(e))
        for q in range(LANES):
            total += f64(linear[q]) - np.log(f64(lanes[q]))
        value[r] = total
