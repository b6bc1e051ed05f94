"""Bernoulli and categorical distributions, by probabilities or by logits.

All of them is one functional, ``sum_k w_k log p_k``: with the weights of a value it is `log_prob`, with the
probabilities themselves the negative entropy, with those of another distribution the cross entropy of a divergence.
Computed from what was given, without a detour from probabilities to logits or back, it is exact at both ends.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from gencore.autograd import Tensor, log_softmax, logistic, softmax, softplus
from gencore.autograd.tensors import plain
from gencore.distributions import constraints
from gencore.distributions._functions import weighted, xlog1py, xlogy
from gencore.distributions.base import Distribution, Shape
from gencore.distributions.constraints import Constraint
from gencore.kernels import sample
from gencore.random import KeyLike

__all__ = ["Bernoulli", "Categorical"]


class ByProbsOrLogits(Distribution):
    """What distributions with ``probs=`` or ``logits=`` share."""

    def __init__(
        self, probs: Any = None, logits: Any = None, *, validate_args: bool = True, **others: Any
    ) -> None:
        if (probs is None) == (logits is None):
            received = "neither" if probs is None else "both"
            raise ValueError(f"{type(self).__name__}: expected one of probs and logits, received {received}")
        given = {"logits": logits} if probs is None else {"probs": probs}
        super().__init__(validate_args, **others, **given)

    def _by(self, name: str) -> Any:
        """A parameter as given, or None."""
        return self._given.get(name)


class BernoulliParameters(ByProbsOrLogits):
    """Probabilities of 1, or their log-odds."""

    arg_constraints: ClassVar = {"probs": constraints.unit_interval, "logits": constraints.finite}

    def _probs(self) -> Any:
        probs = self._by("probs")
        return logistic(self._by("logits")) if probs is None else probs

    def _logits(self) -> Any:
        logits, probs = self._by("logits"), self._by("probs")
        return xlogy(1.0, probs) - xlog1py(1.0, -probs) if logits is None else logits

    @property
    def probs(self) -> Any:
        """Probability of 1."""
        return self._spread(self._probs())

    @property
    def logits(self) -> Any:
        """Log-odds of 1, infinite for probabilities 0 and 1."""
        return self._spread(self._logits())


class Bernoulli(BernoulliParameters):
    """1 with probability p, else 0.

    Parameters
    ----------
    probs : Tensor, array or number, optional
        p, from 0 to 1.
    logits : Tensor, array or number, optional
        ``log(p / (1 - p))``, finite. Exactly one of both is given.
    validate_args : bool
        As in `Normal`. Without it, `log_prob` takes values between 0 and 1: the negative cross entropy
        ``x log p + (1 - x) log(1 - p)``.

    Notes
    -----
    `log_prob`, `entropy` and divergences are exact at both ends: impossible values have -inf, and an outcome of
    probability 0 adds neither a value nor a gradient. Draws are float32.

    Examples
    --------
    >>> Bernoulli(logits=[-1e4, 0.0, 1e4]).log_prob(1.0)
    array([-1.000000e+04, -6.931472e-01,  0.000000e+00], dtype=float32)
    """

    @property
    def support(self) -> Constraint:
        """0 and 1."""
        return constraints.boolean

    def sample(self, shape: Shape = (), *, key: KeyLike) -> Any:
        """Draws of 0 and 1, float32, by `gencore.kernels.sample.bernoulli`; see `Distribution.rsample`."""
        p = self._whole(plain(self._probs()), self._draw_shape(shape))
        return self._as_given(sample.bernoulli(p, key).astype(np.float32))

    def expected_log(self, one: Any, zero: Any) -> Any:
        """``one log p + zero log(1 - p)``."""
        logits, probs = self._by("logits"), self._by("probs")
        if logits is None:
            return xlogy(one, probs) + xlog1py(zero, -probs)
        return 0 - (one * softplus(-logits) + zero * softplus(logits))

    def both_probs(self) -> tuple[Any, Any]:
        """Probabilities of 1 and of 0, both to full precision."""
        logits, probs = self._by("logits"), self._by("probs")
        return (probs, 1 - probs) if logits is None else (logistic(logits), logistic(-logits))

    def _log_prob(self, value: Any) -> Any:
        logits = self._by("logits")
        if logits is None or not self._validate or (isinstance(value, Tensor) and value.requires_grad):
            return self.expected_log(value, 1 - value)
        return 0 - softplus((1 - 2 * value) * logits)  # the same for 0 and 1, by half the functions

    def _entropy(self) -> Any:
        return 0 - self.expected_log(*self.both_probs())

    def _mean(self) -> Any:
        return self._probs()

    def _mode(self) -> Any:
        p = plain(self._probs())
        return np.where(p == 0.5, np.nan, p > 0.5).astype(self.dtype)

    def _variance(self) -> Any:
        p, q = self.both_probs()
        return p * q


class CategoricalParameters(ByProbsOrLogits):
    """Rows of probabilities up to a factor, or of log-probabilities up to a constant."""

    arg_constraints: ClassVar = {"probs": constraints.weights, "logits": constraints.log_weights}

    def _probs(self) -> Any:
        probs = self._by("probs")
        return softmax(self._by("logits")) if probs is None else probs / np.sum(probs, axis=-1, keepdims=True)

    def _logits(self) -> Any:
        logits = self._by("logits")
        return xlogy(1.0, self._probs()) if logits is None else log_softmax(logits)

    def _n(self) -> int:
        return int(np.shape(next(x for x in map(self._by, ("probs", "logits")) if x is not None))[-1])

    @property
    def probs(self) -> Any:
        """Probabilities; rows sum to 1."""
        return self._spread(self._probs(), (self._n(),))

    @property
    def logits(self) -> Any:
        """Their logarithms."""
        return self._spread(self._logits(), (self._n(),))


class Categorical(CategoricalParameters):
    """k with probability ``p_k``, from 0 to K - 1.

    Parameters
    ----------
    probs : (..., K) Tensor or array, optional
        Probabilities up to a factor for each row: from 0 up, not all 0.
    logits : (..., K) Tensor or array, optional
        Log-probabilities up to a constant for each row; -inf is probability 0. Exactly one of both is given.
    validate_args : bool
        As in `Normal`.

    Notes
    -----
    Exact at both ends, as `Bernoulli`. Draws are int64; a category of probability below 2^-23 may never occur
    (`gencore.kernels.sample.categorical`). `mean` and `variance` are NaN, as in PyTorch: categories are names.
    """

    def __init__(self, probs: Any = None, logits: Any = None, *, validate_args: bool = True) -> None:
        super().__init__(probs, logits, validate_args=validate_args)
        self.event_shape = ()

    @property
    def support(self) -> Constraint:
        """Whole numbers from 0 to K - 1."""
        return constraints.integer_interval(0, self._n() - 1)

    def sample(self, shape: Shape = (), *, key: KeyLike) -> Any:
        """Draws, int64, by `gencore.kernels.sample.categorical`; see `Distribution.rsample`."""
        logits = self._whole(plain(self._logits()), (*self._draw_shape(shape), self._n()))
        return self._as_given(sample.categorical(logits, key))

    def expected_log(self, w: Any) -> Any:
        """``sum_k w_k log p_k``."""
        by_probs = self._by("logits") is None
        terms = xlogy(w, self._probs()) if by_probs else weighted(w, self._logits())
        return np.sum(terms, axis=-1, dtype=np.float64).astype(terms.dtype)

    def _value_dtype(self) -> np.dtype[Any]:
        """float32 would round categories above 2^24."""
        return np.dtype(np.float64)

    def _log_prob(self, value: Any) -> Any:
        k = np.asarray(plain(value)).astype(np.int64)
        shape = np.broadcast_shapes(k.shape, self.batch_shape)
        by_probs = self._by("logits") is None
        table = np.broadcast_to(self._probs() if by_probs else self._logits(), (*shape, self._n()))
        picked = np.take_along_axis(table, np.broadcast_to(k, shape)[..., None], -1)[..., 0]
        return xlogy(1.0, picked) if by_probs else picked

    def _entropy(self) -> Any:
        return 0 - self.expected_log(self._probs())

    def _mean(self) -> Any:
        return np.full(self.batch_shape, np.nan, self.dtype)

    def _mode(self) -> Any:
        return np.argmax(plain(self._probs()), axis=-1)

    def _variance(self) -> Any:
        return np.full(self.batch_shape, np.nan, self.dtype)
