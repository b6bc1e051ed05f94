"""The parts of a variational autoencoder: nets with several heads, kinds of latent units, kinds of likelihood."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gencore._checks import is_count
from gencore.autograd import logistic, softplus
from gencore.autograd.tensors import plain
from gencore.kernels import dense, sample
from gencore.kernels._arrays import full, placed
from gencore.models._neural import logits_of_rates, start_bias
from gencore.nn import Linear, Module, mlp
from gencore.random import Generator, KeyLike

__all__ = ["Heads", "Latent", "make_latent", "make_likelihood"]

Latent = Literal["gaussian", "bernoulli", "categorical"]

_LOG_VARIANCE = (-12.0, 8.0)
_LOG_2PI = math.log(2 * math.pi)


class Heads(Module):
    """Deterministic layers, and linear heads on the last of them; a second head is a log-variance, kept in bounds."""

    def __init__(
        self,
        sizes: Sequence[int],
        widths: tuple[int, ...],
        activation: dense.Activation,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.trunk = mlp(sizes, activation, last=activation, key=generator) if len(sizes) > 1 else None
        self.heads = [Linear(sizes[-1], width, key=generator) for width in widths]

    def forward(self, x: Any) -> tuple[Any, ...]:
        """(n, n_in) -> one (n, width) for each head. Bytes of 0 and 1 add rows of the first layer's weights."""
        h = x if self.trunk is None else self.trunk(x)
        first, *rest = (head(h) for head in self.heads)
        return (first, *(np.clip(r, *_LOG_VARIANCE) for r in rest))


# --- latent units -----------------------------------------------------------------------------------------------


class GaussianLatent:
    """Standard normal a priori; posterior by mean and log-variance."""

    kind = "gaussian"

    def __init__(self, n: int) -> None:
        self.n = self.width = n
        self.parameter_widths: tuple[int, ...] = (n, n)

    def draw(self, q: tuple[Any, ...], key: KeyLike, samples: int, *, closed_form: bool) -> tuple[Any, Any]:
        """Draw z (sample-major), with KL(q || prior): exact, or ``log q(z) - log p(z)`` of the draws."""
        function = sample.gaussian_reparam if closed_form else sample.gaussian_sample
        z, divergence = function(q[0], q[1], key, samples=samples)
        return z, divergence

    def draw_plain(self, q: tuple[Any, ...], key: KeyLike) -> Any:
        """Draw z."""
        return self.draw(q, key, 1, closed_form=True)[0]

    def log_density(self, z: Any, q: tuple[Any, ...]) -> Any:
        """``log q(z)``; rows of z may be several draws of each row of q."""
        return sample.gaussian_log_prob(z, q[0], q[1])

    def log_prior(self, z: Any) -> Any:
        """``log p(z)``."""
        squares = np.square(plain(z).astype(np.float64))
        return (-0.5 * np.sum(squares + _LOG_2PI, axis=1)).astype(np.float32)

    def divergence_of_units(self, q: tuple[Any, ...]) -> Any:
        """KL(q || prior) of each unit, (n, units)."""
        mean, logvar = q
        return 0.5 * (mean * mean + np.exp(logvar) - 1.0 - logvar)

    def mean(self, q: tuple[Any, ...]) -> Any:
        """E_q[z]."""
        return q[0]

    def prior(self, n: int, key: KeyLike, like: Any) -> NDArray[np.float32]:
        """N draws of the prior, where the array `like` is."""
        return sample.normal((n, self.width), key, device=like)


class _DiscreteLatent(ABC):
    """What binary and categorical units share: draws have no gradient, the divergence has a closed form."""

    kind: str
    width: int
    n: int

    @abstractmethod
    def probabilities(self, q: tuple[Any, ...]) -> Any: ...

    @abstractmethod
    def divergence(self, q: tuple[Any, ...]) -> Any: ...

    @abstractmethod
    def log_density(self, z: Any, q: tuple[Any, ...]) -> Any: ...

    @abstractmethod
    def hard(self, logits: NDArray[np.float32], key: KeyLike) -> NDArray[Any]: ...

    def draw(self, q: tuple[Any, ...], key: KeyLike, samples: int, *, closed_form: bool) -> tuple[Any, Any]:
        """Draw z (samples x rows, sample-major), with KL(q || prior): exact, or of the draws."""
        z = self.hard(np.tile(plain(q[0]), (samples, 1)), key)
        return z, self.divergence(q) if closed_form else self.log_density(z, q) - self.log_prior(z)

    def log_prior(self, z: Any) -> Any:
        """``log p(z)``, the same for all z."""
        return full(plain(z), (len(z),), self.log_prior_of_one(), np.float32)

    @abstractmethod
    def log_prior_of_one(self) -> float: ...

    def mean(self, q: tuple[Any, ...]) -> Any:
        """E_q[z], the probabilities."""
        return self.probabilities(q)

    def prior(self, n: int, key: KeyLike, like: Any) -> NDArray[Any]:
        """N draws of the prior, where the array `like` is."""
        return self.hard(full(like, (n, self.width), 0, np.float32), key)


class BernoulliLatent(_DiscreteLatent):
    """Binary units, of probability 1/2 a priori; posterior by logits."""

    kind = "bernoulli"

    def __init__(self, n: int) -> None:
        self.n = self.width = n
        self.parameter_widths: tuple[int, ...] = (n,)

    def probabilities(self, q: tuple[Any, ...]) -> Any:
        """Of 1, (n, units)."""
        return logistic(q[0])

    def divergence(self, q: tuple[Any, ...]) -> Any:
        """KL(q || prior): p log p + (1 - p) log(1 - p) = p x - softplus(x) at p = logistic(x)."""
        x = q[0]
        return np.sum(logistic(x) * x - softplus(x), axis=1) + self.n * math.log(2)

    def log_density(self, z: Any, q: tuple[Any, ...]) -> Any:
        """``log q(z)``."""
        logits = q[0] if len(z) == len(q[0]) else np.tile(q[0], (len(z) // len(q[0]), 1))
        return dense.bernoulli_log_prob(logits, z)

    def log_prior_of_one(self) -> float:
        """``log p(z)`` of any z."""
        return -self.n * math.log(2)

    def hard(self, logits: NDArray[np.float32], key: KeyLike) -> NDArray[Any]:
        """Draw units, as bytes of 0 and 1."""
        return sample.bernoulli(logistic(logits), key)

    def relaxed(self, q: tuple[Any, ...], temperature: float, key: KeyLike, hard: bool) -> Any:
        """Draw at a temperature, differentiable."""
        return sample.relaxed_bernoulli(q[0], temperature, key, hard)


class CategoricalLatent(_DiscreteLatent):
    """Groups of equally likely classes, one-hot; posterior by logits."""

    kind = "categorical"

    def __init__(self, n: int, n_classes: int) -> None:
        self.n, self.n_classes, self.width = n, n_classes, n * n_classes
        self.parameter_widths: tuple[int, ...] = (self.width,)

    def _groups(self, x: Any) -> Any:
        return x.reshape(-1, self.n_classes)

    def _log_probabilities(self, q: tuple[Any, ...]) -> Any:
        """(n groups, classes)."""
        x = self._groups(q[0])
        return x - dense.log_sum_exp(x).reshape(-1, 1)

    def probabilities(self, q: tuple[Any, ...]) -> Any:
        """Of each class, groups one after the other."""
        return np.exp(self._log_probabilities(q)).reshape(-1, self.width)

    def divergence(self, q: tuple[Any, ...]) -> Any:
        """KL(q || prior): log of the number of classes less the entropy, of each group."""
        log_p = self._log_probabilities(q)
        return np.sum((np.exp(log_p) * log_p).reshape(-1, self.width), axis=1) + self.n * math.log(
            self.n_classes
        )

    def log_density(self, z: Any, q: tuple[Any, ...]) -> Any:
        """``log q(z)``."""
        log_p = self._log_probabilities(q).reshape(-1, self.width)
        if len(z) != len(log_p):
            log_p = np.tile(log_p, (len(z) // len(log_p), 1))
        return np.sum(log_p * z, axis=1)

    def log_prior_of_one(self) -> float:
        """``log p(z)`` of any z."""
        return -self.n * math.log(self.n_classes)

    def hard(self, logits: NDArray[np.float32], key: KeyLike) -> NDArray[np.float32]:
        """Draw one class of each group, one-hot."""
        classes: Any = sample.categorical(self._groups(logits), key)
        each = placed(classes, np.arange(self.n_classes), classes.dtype)
        z: NDArray[np.float32] = (classes.reshape(-1, 1) == each).astype(np.float32)
        return z.reshape(-1, self.width)

    def relaxed(self, q: tuple[Any, ...], temperature: float, key: KeyLike, hard: bool) -> Any:
        """Draw at a temperature, differentiable."""
        return sample.gumbel_softmax(self._groups(q[0]), temperature, key, hard).reshape(-1, self.width)


def make_latent(kind: str, n: int, n_classes: int) -> Any:
    """Latent units by the name of their kind."""
    if not is_count(n_classes) or n_classes < 2:
        raise ValueError(f"VAE: expected n_classes to be an integer of at least 2, received {n_classes!r}")
    if kind == "gaussian":
        return GaussianLatent(n)
    if kind == "bernoulli":
        return BernoulliLatent(n)
    if kind == "categorical":
        return CategoricalLatent(n, int(n_classes))
    raise ValueError(
        f"VAE: expected latent to be 'gaussian', 'bernoulli' or 'categorical', received {kind!r}"
    )


# --- likelihoods ------------------------------------------------------------------------------------------------


class BernoulliLikelihood:
    """Independent units of 0 and 1 (or means between them), by logits."""

    kind = "bernoulli"

    def parameter_widths(self, n: int) -> tuple[int, ...]:
        """Of the decoder's heads."""
        return (n,)

    def log_prob(self, p: tuple[Any, ...], x: Any) -> Any:
        """``log p(x | z)``, for each row of z; x row r % n belongs to row r."""
        return dense.bernoulli_log_prob(p[0], x)

    def mean(self, p: tuple[Any, ...]) -> Any:
        """E[x | z]."""
        return logistic(p[0])

    def draw_plain(self, p: tuple[Any, ...], key: KeyLike) -> NDArray[Any]:
        """Draw x, uint8."""
        return sample.bernoulli(plain(logistic(p[0])), key)

    def start_at(self, heads: list[Linear], data: NDArray[Any]) -> None:
        """Set the bias to the data's rates, as if one row more of 0 and one of 1 had been seen."""
        _start_bias(heads[0], logits_of_rates(data))


def _start_bias(head: Linear, value: NDArray[Any]) -> None:
    assert head.bias is not None
    start_bias(head.bias, value)


class GaussianLikelihood:
    """Independent normal units, by mean and log-variance."""

    kind = "gaussian"

    def parameter_widths(self, n: int) -> tuple[int, ...]:
        """Of the decoder's heads."""
        return (n, n)

    def log_prob(self, p: tuple[Any, ...], x: Any) -> Any:
        """``log p(x | z)``, for each row of z; x row r % n belongs to row r."""
        rows = len(p[0])
        x = x if len(x) == rows else np.tile(x, (rows // len(x), 1))
        return sample.gaussian_log_prob(x, p[0], p[1])

    def mean(self, p: tuple[Any, ...]) -> Any:
        """E[x | z]."""
        return p[0]

    def draw_plain(self, p: tuple[Any, ...], key: KeyLike) -> NDArray[Any]:
        """Draw x, float32."""
        return sample.gaussian_reparam(plain(p[0]), plain(p[1]), key)[0]

    def start_at(self, heads: list[Linear], data: NDArray[Any]) -> None:
        """Set the biases to the data's means and log-variances."""
        _start_bias(heads[0], data.mean(axis=0, dtype=np.float64))
        variance = data.var(axis=0, dtype=np.float64) + math.exp(_LOG_VARIANCE[0] / 2)
        _start_bias(heads[1], np.log(variance))


def make_likelihood(kind: str) -> Any:
    """Likelihood by its name."""
    if kind not in ("bernoulli", "gaussian"):
        raise ValueError(f"VAE: expected likelihood to be 'bernoulli' or 'gaussian', received {kind!r}")
    return BernoulliLikelihood() if kind == "bernoulli" else GaussianLikelihood()
