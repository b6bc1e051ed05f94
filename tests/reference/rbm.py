"""The restricted Boltzmann machine by enumeration, in float64: p(v, h) = exp(b.v + c.h + v'w h) / Z."""

import numpy as np
from scipy.special import expit, gammaln, log_expit, logsumexp


def softplus(x):
    return np.logaddexp(0.0, x)


def double(*arrays):
    return tuple(np.asarray(a, dtype=np.float64) for a in arrays)


def all_states(n):
    """Every state of n units, (2^n, n); row k holds the bits of k, unit 0 lowest."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def state_number(states):
    """The row of `all_states` that each state is."""
    return np.asarray(states).astype(np.int64) @ (1 << np.arange(np.shape(states)[1], dtype=np.int64))


def energy(w, b, c, v, h):
    """E of every pair of the rows of v and the rows of h: (n_v, n_h)."""
    w, b, c, v, h = double(w, b, c, v, h)
    return -(v @ b)[:, None] - (h @ c)[None, :] - v @ w @ h.T


def free_energy(w, b, c, v, beta=1.0):
    w, b, c, v = double(w, b, c, v)
    return -beta * (v @ b) - softplus(beta * (c + v @ w)).sum(axis=1)


def log_partition(w, b, c, beta=1.0):
    """log Z, over the states of the smaller side."""
    w, b, c = double(w, b, c)
    if w.shape[0] > w.shape[1]:
        return log_partition(w.T, c, b, beta)
    return logsumexp(-free_energy(w, b, c, all_states(w.shape[0]), beta))


def uniform_log_terms(n_visible, n_hidden, w, b, c):
    """Log of the part of Z that has k hidden units on, k = 0, 1, ..., where all weights are w, all biases b and c."""
    k = np.arange(n_hidden + 1)
    log_binomial = gammaln(n_hidden + 1) - gammaln(k + 1) - gammaln(n_hidden - k + 1)
    return log_binomial + c * k + n_visible * softplus(b + w * k)


def uniform_log_partition(n_visible, n_hidden, w, b, c):
    """log Z with all weights w, all biases b and c (as float32 holds them)."""
    return logsumexp(uniform_log_terms(n_visible, n_hidden, *(float(np.float32(x)) for x in (w, b, c))))


def uniform_samples(n_visible, n_hidden, w, b, c, n, rng):
    """n exact samples of v: the count of hidden units from its distribution, then independent visible units."""
    terms = uniform_log_terms(n_visible, n_hidden, w, b, c)
    k = rng.choice(terms.size, n, p=np.exp(terms - logsumexp(terms)))
    return (rng.random((n, n_visible)) < expit(b + w * k)[:, None]).astype(np.uint8)


def joint(w, b, c, beta=1.0):
    """p(v, h) at inverse temperature beta, (2^n_visible, 2^n_hidden)."""
    log_p = -beta * energy(w, b, c, all_states(np.shape(w)[0]), all_states(np.shape(w)[1]))
    return np.exp(log_p - logsumexp(log_p))


def visible_distribution(w, b, c, beta=1.0):
    """p(v) for every v, (2^n_visible,)."""
    log_p = -free_energy(w, b, c, all_states(np.shape(w)[0]), beta)
    return np.exp(log_p - logsumexp(log_p))


def conditional_distribution(w, b, c, clamp, v, beta=1.0):
    """p(v' | v' = v where clamp is 1) for every v', (2^n_visible,)."""
    states = all_states(np.shape(w)[0])
    p = visible_distribution(w, b, c, beta) * np.all((states == v) | (np.asarray(clamp) == 0), axis=1)
    return p / p.sum()


def hidden_mean(w, c, v, beta=1.0):
    w, c, v = double(w, c, v)
    return expit(beta * (c + v @ w))


def visible_mean(w, b, h, beta=1.0):
    return hidden_mean(np.asarray(w).T, b, h, beta)


def gradient_statistics(w, c, v, weights, offset_v=0.0, offset_h=0.0):
    """E[(v - mu)(H - lambda)'], E[v] and E[H] under `weights` over the rows of v."""
    v, weights = double(v, weights)
    h = hidden_mean(w, c, v)
    return (v - offset_v).T @ (weights[:, None] * (h - offset_h)), weights @ v, weights @ h


def centred_gradient(data, model, offset_v=0.0, offset_h=0.0):
    """The gradient from both phases' `gradient_statistics` (Melchior, Fischer & Wiskott 2016)."""
    weight = data[0] - model[0]
    return (
        weight,
        data[1] - model[1] - weight @ (np.zeros(weight.shape[1]) + offset_h),
        data[2] - model[2] - weight.T @ (np.zeros(weight.shape[0]) + offset_v),
    )


def log_likelihood_gradient(w, b, c, data, offset_v=0.0, offset_h=0.0):
    """Exact gradient of the mean log-likelihood of `data` by (w, b, c), centred where offsets are given."""
    states = all_states(np.shape(w)[0])
    equal = np.full(len(data), 1.0 / len(data))
    offsets = (offset_v, offset_h)
    return centred_gradient(
        gradient_statistics(w, c, data, equal, *offsets),
        gradient_statistics(w, c, states, visible_distribution(w, b, c), *offsets),
        *offsets,
    )


def log_conditionals(w, b, c, v):
    """log p(v_i | v without i), (n, n_visible)."""
    v = np.asarray(v, dtype=np.float64)
    out = np.empty(v.shape)
    for i in range(v.shape[1]):
        flipped = v.copy()
        flipped[:, i] = 1 - flipped[:, i]
        out[:, i] = log_expit(free_energy(w, b, c, flipped) - free_energy(w, b, c, v))
    return out


def log_base_partition(base_bias, n_hidden):
    """log Z at beta = 0 of the annealing path: base rates, and every hidden unit free."""
    return n_hidden * np.log(2.0) + softplus(np.asarray(base_bias, dtype=np.float64)).sum()


def log_annealed(w, b, c, base_bias, v, beta):
    """log f_beta(v) of the annealing path."""
    w, b, c, base_bias, v = double(w, b, c, base_bias, v)
    return v @ ((1 - beta) * base_bias + beta * b) + softplus(beta * (c + v @ w)).sum(axis=1)


def annealed_log_weights(w, b, c, base_bias, betas, trajectory):
    """sum_k log f_k+1(v_k) / f_k(v_k) along the states v_0, v_1, ... of each run, (steps, n, n_visible)."""
    total = np.zeros(trajectory[0].shape[0])
    for now, later, v in zip(betas[:-1], betas[1:], trajectory, strict=True):
        total += log_annealed(w, b, c, base_bias, v, later) - log_annealed(w, b, c, base_bias, v, now)
    return total
