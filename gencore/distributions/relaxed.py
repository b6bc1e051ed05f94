"""Relaxations of bits and categories: differentiable draws at a temperature."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from gencore.autograd import Tensor, log_softmax, logistic, softmax, softplus
from gencore.distributions import constraints
from gencore.distributions.base import Parameter, Shape
from gencore.distributions.constraints import Constraint
from gencore.distributions.discrete import BernoulliParameters, CategoricalParameters
from gencore.kernels import sample
from gencore.random import KeyLike

__all__ = ["RelaxedBernoulli", "RelaxedOneHotCategorical"]


def _number(temperature: Any) -> float | None:
    """A temperature that the fused kernels take: one number, without gradient."""
    if np.ndim(temperature) > 0 or (isinstance(temperature, Tensor) and temperature.requires_grad):
        return None
    return float(temperature)


class RelaxedBernoulli(BernoulliParameters):
    """Concrete distribution of bits: that of ``logistic((logits + L) / temperature)`` with logistic noise L.

    Parameters
    ----------
    temperature : Tensor, array or number
        Positive. Towards 0 draws become bits.
    probs, logits : Tensor, array or number, optional
        As in `Bernoulli`; exactly one is given.
    validate_args : bool
        As in `Normal`.

    Notes
    -----
    A temperature that is a number draws by the fused kernel; an array of temperatures, or a Tensor that wants its
    gradient, in several steps. The density is computed at values from the smallest normal float to the one
    before 1: draws that round to 0 or 1 have that of the number beside them. Mean, variance and entropy are not
    known in closed form.

    Source: Maddison, Mnih & Teh (2017), "The concrete distribution".
    """

    arg_constraints: ClassVar = {
        "temperature": constraints.positive,
        **BernoulliParameters.arg_constraints,
    }
    has_rsample: ClassVar = True
    temperature = Parameter()

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, *, validate_args: bool = True
    ) -> None:
        super().__init__(probs, logits, validate_args=validate_args, temperature=temperature)

    @property
    def support(self) -> Constraint:
        """Numbers from 0 to 1."""
        return constraints.unit_interval

    def rsample(self, shape: Shape = (), *, key: KeyLike) -> Any:
        """Draws by `gencore.kernels.sample.relaxed_bernoulli`; see `Distribution.rsample`."""
        whole, temperature = self._draw_shape(shape), self._given["temperature"]
        logits, tau = self._whole(self._logits(), whole), _number(temperature)
        if tau is not None:
            return sample.relaxed_bernoulli(logits, tau, key)
        noisy = sample.location_scale(logits, np.ones(whole, np.float32), key, "logistic")
        return logistic(noisy / self._whole(temperature, whole))

    def _log_prob(self, value: Any) -> Any:
        limits = np.finfo(value.dtype)
        y, tau = np.clip(value, limits.tiny, 1 - limits.epsneg), self._given["temperature"]
        log_y, log_rest = np.log(y), np.log1p(-y)
        d = self._logits() - tau * (log_y - log_rest)
        return np.log(tau) - log_y - log_rest - (softplus(d) + softplus(-d))


class RelaxedOneHotCategorical(CategoricalParameters):
    """Concrete distribution of one-hot rows: that of ``softmax((logits + G) / temperature)`` with Gumbel noise G.

    Parameters
    ----------
    temperature : Tensor, array or number
        Positive; one for each row. Towards 0 draws become one-hot.
    probs, logits : (..., K) Tensor or array, optional
        As in `Categorical`; exactly one is given.
    validate_args : bool
        As in `Normal`.

    Notes
    -----
    As in `RelaxedBernoulli`; elements below the smallest normal float count as that.

    Sources: Maddison, Mnih & Teh (2017), "The concrete distribution"; Jang, Gu & Poole (2017), "Categorical
    reparameterization with Gumbel-softmax".
    """

    arg_constraints: ClassVar = {
        "temperature": constraints.positive,
        **CategoricalParameters.arg_constraints,
    }
    has_rsample: ClassVar = True
    temperature = Parameter()

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, *, validate_args: bool = True
    ) -> None:
        super().__init__(probs, logits, validate_args=validate_args, temperature=temperature)

    @property
    def support(self) -> Constraint:
        """Rows of the simplex."""
        return constraints.simplex

    def rsample(self, shape: Shape = (), *, key: KeyLike) -> Any:
        """Draws by `gencore.kernels.sample.gumbel_softmax`; see `Distribution.rsample`."""
        whole, temperature = self._draw_shape(shape), self._given["temperature"]
        logits, tau = self._whole(self._logits(), whole), _number(temperature)
        if tau is not None:
            return sample.gumbel_softmax(logits, tau, key)
        noisy = sample.location_scale(logits, np.ones(whole, np.float32), key, "gumbel")
        return softmax(noisy / self._whole(np.expand_dims(temperature, -1), whole))

    def _log_prob(self, value: Any) -> Any:
        n, tau = self._n(), self._given["temperature"]
        log_y = np.log(np.clip(value, np.finfo(value.dtype).tiny, None))
        score = self._logits() - np.expand_dims(tau, -1) * log_y
        terms = log_softmax(score) - log_y
        total = np.sum(terms, axis=-1, dtype=np.float64).astype(terms.dtype)
        return math.lgamma(n) + (n - 1) * np.log(tau) + total
