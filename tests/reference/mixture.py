"""Discretised mixtures of logistics in float64."""

import numpy as np
from scipy.special import expit, log_expit, logsumexp

LEAST_LOG_SCALE = -7


def log_masses(params, x, levels, n_mixtures):
    """Log-mass of each component's bin, (..., K): by an identity, checked against the difference where that holds."""
    x = x.astype(np.int64)
    _, mean, log_scale = np.moveaxis(params.reshape(*x.shape, 3, n_mixtures).astype(np.float64), -2, 0)
    half, y = 1 / (levels - 1), (2 * x / (levels - 1) - 1.0)[..., None]
    scale = np.exp(np.maximum(log_scale, LEAST_LOG_SCALE))
    upper = np.where(x[..., None] == levels - 1, np.inf, (y + half - mean) / scale)
    lower = np.where(x[..., None] == 0, -np.inf, (y - half - mean) / scale)
    with np.errstate(divide="ignore"):
        inside = np.log(-np.expm1(np.where(np.isfinite(upper - lower), lower - upper, -np.inf)))
    found = log_expit(upper) + log_expit(-lower) + inside
    difference = np.where(lower > 0, expit(-lower) - expit(-upper), expit(upper) - expit(lower))
    seen = difference > 1e-8
    assert np.allclose(found[seen], np.log(difference[seen]), rtol=0, atol=1e-7)
    return found


def log_probs(params, x, levels, n_mixtures):
    """(N, D 3 K) or (N, 3 K) parameters and levels (N, L) of them, or of one unit each -> log-probabilities (N, L)."""
    n, units = x.shape
    each = params.reshape(n, params.shape[1] // (3 * n_mixtures), 3 * n_mixtures)
    each = np.broadcast_to(each, (n, units, 3 * n_mixtures)).astype(np.float64)
    logits = each[..., :n_mixtures]
    weights = logits - logsumexp(logits, axis=-1, keepdims=True)
    return logsumexp(weights + log_masses(each, x, levels, n_mixtures), axis=-1)
